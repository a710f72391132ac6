"""The command `srt`: `srt train …` is `python -m workflow.train …`."""

from __future__ import annotations

import difflib
import runpy
import sys

STAGES = {
    "plan": "write what each job depends on, for DVC",
    "fetch": "bring a dataset or a weight file here",
    "pack": "convert a dataset to the format that training reads",
    "survey": "count and picture what a packed dataset holds",
    "train": "train an experiment, or go on where it stopped",
    "evaluate": "measure a model by the published protocols",
    "render": "render a video of a model",
    "tabulate": "make tables, figures and a page of all results",
}
TOOLS = {
    "status": "print how far every experiment is, and why",
    "adopt": "let DVC or Snakemake take over what the other made",
    "deliver": "send MLflow what still waits",
    "overview": "write the page that links all reports",
    "import_published": "convert a run folder of stelzner/srt, and back",
    "write_api": "write the reference of the library, docs/api.md",
    "write_schema": "write the JSON schema of params.yaml",
}
COMMANDS = {**STAGES, **TOOLS}


def main() -> None:
    """Run a stage or a tool with the arguments that follow its name."""
    # Nothing is imported here that a stage may not need: the help comes at once.
    command, *arguments = sys.argv[1:] or ["--help"]
    if command == "--completion":
        print(f'complete -W "{" ".join(COMMANDS)}" srt')
    elif command in ("-h", "--help"):
        print(usage())
    elif command in COMMANDS:
        # The module runs as `python -m` runs it; its help says `srt train` instead of the file.
        module = f"workflow.{command}" if command in STAGES else f"workflow.tools.{command}"
        sys.argv = [f"srt {command}", *arguments]
        runpy.run_module(module, run_name="__main__")
    else:
        similar = difflib.get_close_matches(command, COMMANDS, n=1)
        suggestion = f"; did you mean {similar[0]}?" if similar else "; see srt --help"
        sys.exit(f"error: {command} is no command of srt{suggestion}")


def usage() -> str:
    """Return the help: one line for each stage and tool."""
    lines = ["usage: srt COMMAND [OPTIONS]", "", "  srt train --experiment nmr_srt"]
    for title, commands in (("stages", STAGES), ("tools", TOOLS)):
        lines += ["", f"{title}:"]
        lines += [f"  {name:<18}{text}" for name, text in commands.items()]
    lines += ["", "srt COMMAND --help shows a command's options."]
    lines += ['eval "$(srt --completion)" completes the names of commands in bash and zsh.']
    return "\n".join(lines)
