"""Checks the shapes that every signature of `srt` states, for the whole test run."""

from jaxtyping import install_import_hook

install_import_hook("srt", "beartype.beartype")
