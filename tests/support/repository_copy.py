"""A copy of this repository to run the pipeline tools in: its files, without what they made."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from support.paths import REPOSITORY


class Copy:
    """A copy of the repository's files in a folder of its own; `variables` go to its commands."""

    def __init__(self, folder):
        self.folder = folder
        self.variables = {}
        for name in repository_files():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)  # DVC asks for it

    def edit_params(self, changes):
        """Sets values by their dotted names."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, value in changes.items():
            *parents, key = name.split(".")
            section = params
            for parent in parents:
                section = section.setdefault(parent, {})
            section[key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def keep(self, experiment):
        """Takes all other experiments, and the datasets of none, out of params.yaml."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        dataset = params["experiments"][experiment]["dataset"]
        for section in (params, *filter(None, params["profiles"].values())):
            for group, name in (("experiments", experiment), ("datasets", dataset)):
                values = section.get(group, {})
                section[group] = {key: values[key] for key in values if key == name}
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def edit(self, name, old, new):
        """Replaces one piece of text in a file."""
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def start(self, *command, **options):
        """Starts a command of this environment in the folder; what it says comes as text."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=environment() | self.variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **options,
        )

    def run(self, *command):
        """Returns a command's exit code and all that it said."""
        with self.start(*command) as process:
            output, _ = process.communicate()
        return process.returncode, output


def repository_files():
    """Returns the names of the files that git has or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return [name for name in listing.split("\0") if name and (REPOSITORY / name).exists()]


def environment():
    """Returns the environment in which this interpreter's tools are found, and only this copy."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    known = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return known | {"PATH": path}
