"""Recording of the kernels that a function launches on a GPU, as one CUDA graph.

A small model spends its time on thousands of launches. A graph launches all of them at once. It
reads and writes fixed addresses, so inputs are copied to the same memory at every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


class RecordedCall:
    """A function of tensors, whose sizes never change, that is recorded and then replayed.

    Args:
        function: takes tensors and returns tensors. It runs on a GPU and does not wait for it.
        warmups: calls before the recording. They compile kernels and choose algorithms, which no
            graph can hold.
    """

    def __init__(self, function: Callable[..., Sequence[Tensor]], warmups: int) -> None:
        self.function = function
        self.warmups = warmups
        self.calls = 0
        self.inputs: list[Tensor] = []
        self.outputs: Sequence[Tensor] = []
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """Return what the function returns, in memory that the next call overwrites."""
        # The first inputs give the memory that all later ones are copied to.
        if not self.inputs:
            self.inputs = [tensor.clone() for tensor in inputs]
        for memory, tensor in zip(self.inputs, inputs):
            memory.copy_(tensor)

        self.calls += 1
        if self.calls <= self.warmups:
            return self.function(*self.inputs)
        if self.graph is None:
            self._record()
        assert self.graph is not None
        self.graph.replay()
        return self.outputs

    def _record(self) -> None:
        # In this mode, threads that read data ahead may call CUDA during the recording.
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):
            self.outputs = self.function(*self.inputs)
