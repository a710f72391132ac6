"""Modules of Triton kernels for tests: they run on a GPU, or else in Triton's interpreter.

Tests import this module before anything of `srt`.
"""

import importlib.util
import os
import sys

import pytest
import torch

from srt.model import kernels

GPU = torch.cuda.is_available()
FOLDER = kernels.__path__[0]

# Triton reads this variable while it is imported, and PyTorch imports Triton when operators are
# registered, as srt.model does.
if not GPU and "triton" not in sys.modules:
    os.environ.setdefault("TRITON_INTERPRET", "1")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"

# Kernels are for bfloat16 on a GPU. The interpreter computes in float32.
DEVICE = "cuda" if GPU else "cpu"
DTYPE = torch.bfloat16 if GPU else torch.float32

# The relative error that a result in this precision may have.
TOLERANCE = 1e-2 if GPU else 1e-4


def load_kernels(name, monkeypatch):
    """Return a module of srt.model.kernels, which its operators will call.

    The test is skipped if there is neither a GPU nor Triton's interpreter.
    """
    if not GPU:
        pytest.importorskip("triton")
        if not INTERPRETED:
            pytest.skip("Triton was imported too early; set TRITON_INTERPRET=1 before pytest")

    # The tests' hook that checks shapes rewrites modules as they are imported, but Triton reads the
    # source of a kernel. The module is therefore loaded from its file, past the hook.
    spec = importlib.util.spec_from_file_location(name, f"{FOLDER}/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    # An import in an operator now finds this module.
    monkeypatch.setitem(sys.modules, f"srt.model.kernels.{name}", module)
    monkeypatch.setattr(kernels, name, module, raising=False)
    return module
