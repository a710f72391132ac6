"""The command `srt`: `srt train …` is `python -m workflow.train …`."""

from __future__ import annotations

import runpy
import sys

STAGES = ("fetch", "pack", "survey", "train", "evaluate", "render", "tabulate")
TOOLS = ("status", "adopt", "deliver", "overview", "import_published", "write_schema")
USAGE = f"""usage: srt COMMAND [OPTIONS]

stages: {", ".join(STAGES)}
tools:  {", ".join(TOOLS)}

srt COMMAND --help shows a command's options.
eval "$(srt --completion)" completes the names of commands in bash and zsh.
"""


def main() -> None:
    """Run a stage or a tool with the arguments that follow its name."""
    # Nothing is imported here that a stage may not need: the help comes at once.
    command, *arguments = sys.argv[1:] or ["--help"]
    if command == "--completion":
        print(f'complete -W "{" ".join(STAGES + TOOLS)}" srt')
    elif command in ("-h", "--help"):
        print(USAGE, end="")
    elif command in STAGES + TOOLS:
        # The module runs as `python -m` runs it; its help says `srt train` instead of the file.
        module = f"workflow.{command}" if command in STAGES else f"workflow.tools.{command}"
        sys.argv = [f"srt {command}", *arguments]
        runpy.run_module(module, run_name="__main__")
    else:
        sys.exit(f"error: {command} is no command of srt\n\n{USAGE}")
