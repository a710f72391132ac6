"""The pipeline: one module for each stage, and the tools that are run by hand."""

from pathlib import Path

REPOSITORY = Path(__file__).parents[1]  # the checkout that this code lies in
