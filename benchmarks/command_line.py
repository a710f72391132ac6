"""The parser of the benchmarks' command lines: the docstring of a module is its help."""

from __future__ import annotations

import argparse


def make_parser(docstring: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help keeps the lines of the docstring, so that examples stand out."""
    return argparse.ArgumentParser(
        description=docstring, formatter_class=argparse.RawDescriptionHelpFormatter
    )
