"""Modules of Triton kernels for tests: on a GPU, else by Triton's interpreter where it is there."""

import importlib.util
import sys

import pytest
import torch

from srt.model import kernels

GPU = torch.cuda.is_available()
FOLDER = kernels.__path__[0]


def load_kernels(name, monkeypatch):
    """Returns a module of srt.model.kernels, which its operators then call."""
    if not GPU:
        pytest.importorskip("triton")
        monkeypatch.setenv("TRITON_INTERPRET", "1")  # read as the module is imported
    # Not by its name: the hook that checks shapes rewrites modules, which Triton's JIT reads.
    spec = importlib.util.spec_from_file_location(name, f"{FOLDER}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, f"srt.model.kernels.{name}", module)
    monkeypatch.setattr(kernels, name, module, raising=False)
    return module
