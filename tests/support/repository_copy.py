"""A copy of this repository to run DVC and Snakemake in: its files, but no results."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import yaml
from support.paths import REPOSITORY


class Copy:
    """A copy of the repository's files in another folder.

    `variables` are added to the environment of the commands that run in it.
    """

    def __init__(self, folder):
        self.folder = folder
        self.variables = {}
        for name in repository_files():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target, follow_symlinks=False)

        # DVC works only in a Git repository.
        subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)

    def edit_params(self, changes):
        """Set values of params.yaml by their dotted names."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        for name, value in changes.items():
            *parents, key = name.split(".")
            section = params
            for parent in parents:
                section = section.setdefault(parent, {})
            section[key] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def reduce_params(self, experiment):
        """Delete all other experiments from params.yaml, and all datasets that it does not use."""
        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        dataset = params["experiments"][experiment]["dataset"]
        for section in (params, *filter(None, params["profiles"].values())):
            for group, name in (("experiments", experiment), ("datasets", dataset)):
                values = section.get(group, {})
                section[group] = {key: values[key] for key in values if key == name}
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def edit(self, name, old, new):
        """Replace a text that occurs once in a file."""
        path = self.folder / name
        text = path.read_text()
        assert text.count(old) == 1
        path.write_text(text.replace(old, new))

    def start(self, *command, **options):
        """Start a command in the folder, and return the process; its output is text."""
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
        """Run a command, and return its exit code and its output."""
        with self.start(*command) as process:
            output, _ = process.communicate()
        return process.returncode, output


def repository_files():
    """Return the names of the files that Git has or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listing = subprocess.run(
        command, cwd=REPOSITORY, check=True, capture_output=True, text=True
    ).stdout
    return [name for name in listing.split("\0") if name and (REPOSITORY / name).exists()]


def environment():
    """Return environment variables by which commands find the tools of this interpreter."""
    # With PYTHONPATH, a copy would import the modules of this repository instead of its own.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return variables | {"PATH": path}
