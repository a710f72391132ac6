"""Print the help of all commands, as a list of [module, exit code, help] in JSON.

This is one program, so that the libraries are imported once. Commands run as `python -m` runs them.
"""

import contextlib
import io
import json
import runpy
import sys
from pathlib import Path


def has_command(path):
    """Return whether a module does something when it is run."""
    return 'if __name__ == "__main__":' in path.read_text()


def show_help(module):
    """Return the exit code and the output of `python -m MODULE --help`."""
    sys.argv = [f"{module}.py", "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as exit:
            return exit.code or 0, output.getvalue()
    return "no exit", output.getvalue()


if __name__ == "__main__":
    repository = Path(sys.argv[1])
    paths = [*repository.glob("workflow/**/*.py"), *repository.glob("benchmarks/*.py")]
    modules = [
        ".".join(path.relative_to(repository).with_suffix("").parts)
        for path in sorted(paths)
        if has_command(path)
    ]
    print(json.dumps([(module, *show_help(module)) for module in modules]))
