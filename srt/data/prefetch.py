"""The batches of a training in the order of the steps, read from disk before the GPU needs them.

The device computes a few steps ahead which pixels a batch has. Threads then read only those pixels
into pinned memory, while the device works on earlier steps. Copying and decoding release Python's
lock, so that threads are enough and no worker processes are needed.
"""

from __future__ import annotations

import collections
import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from srt.common.devices import count_cpus
from srt.data.batch import Batch, assemble_batch
from srt.data.packed.reader import Scenes
from srt.data.sampling import Sampler

AHEAD = 2  # batches that are being read while one is used


def iterate_batches(sampler: Sampler, scenes: Scenes, start: int, end: int) -> Iterator[Batch]:
    """Yield the batches of the steps from `start` to before `end`."""
    # Images that are on the device, and all work on a CPU, gain nothing from threads.
    if scenes.resident or scenes.device.type == "cpu":
        for step in range(start, end):
            yield sampler.batch(scenes, step)
    else:
        yield from read_ahead(sampler, scenes, start, end, reader_thread_count())


def reader_thread_count() -> int:
    """Return how many threads read for this process: its share of the processors, less one."""
    return max(1, count_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


def read_ahead(
    sampler: Sampler, scenes: Scenes, start: int, end: int, threads: int
) -> Iterator[Batch]:
    """Yield what `sampler.batch` returns for each step; threads read while a batch is used."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    on_gpu = scenes.device.type == "cuda"
    stream = torch.cuda.Stream(scenes.device, priority=-1) if on_gpu else None
    idle_buffers: list[_Buffers] = []
    pending: collections.deque[_PendingBatch] = collections.deque()
    try:
        for step in range(start, end):
            # Start to read this step's batch and those of the next steps, as far as not yet done.
            while len(pending) <= AHEAD and step + len(pending) < end:
                next_step = step + len(pending)
                pending.append(
                    _PendingBatch(sampler, scenes, next_step, idle_buffers, pool, stream)
                )

            # The host memory of a batch is free again once its reader asks for the next batch.
            oldest = pending.popleft()
            yield oldest.batch()
            idle_buffers.append(oldest.buffers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Buffers:
    """The host memory of one batch, pinned for a GPU. It is used again after its copy has ended."""

    images: Tensor
    colours: Tensor
    copied: torch.cuda.Event | None  # passes when the copy to the GPU has ended


class _PendingBatch:
    """A batch whose indices the device computes, whose pixels threads read, and which is copied.

    All its GPU work is on a stream of its own, so that it does not wait for the training's step.
    """

    def __init__(
        self,
        sampler: Sampler,
        scenes: Scenes,
        step: int,
        idle_buffers: list[_Buffers],
        pool: ThreadPoolExecutor,
        stream: torch.cuda.Stream | None,
    ) -> None:
        self.scenes = scenes
        self.view_config = sampler.view_config
        self.stream = stream
        with _on_stream(stream):
            # Compute which pixels the batch has.
            self.batch_indices = sampler.batch_indices(scenes, step)
            pixel_index = self.batch_indices.pixel_index(scenes.pixels_per_view)  # (b, r)

            # Take memory that an earlier batch has used, or make new memory.
            slots, input_views = self.batch_indices.inputs.shape
            shape = (slots, input_views, pixel_index.shape[1], self.view_config.input_stride)
            self.buffers = (
                idle_buffers.pop() if idle_buffers else _Buffers(*scenes.empty(*shape), None)
            )

            # Fetch the indices to the host. They are there when `indices_ready` has passed.
            indices = (self.batch_indices.scene, self.batch_indices.inputs, pixel_index.int())
            self.host_indices = [_copy_to_host(tensor) for tensor in indices]
            self.indices_ready = stream.record_event() if stream else None

        # Each task of the pool reads some slots. Four tasks for each thread balance the load.
        slot_groups = np.array_split(np.arange(slots), 4 * pool._max_workers)
        self.futures: list[Future[None]] = [pool.submit(self._read, group) for group in slot_groups]

    def _read(self, slots: np.ndarray) -> None:
        """Read the pixels of these slots of the batch into the buffers; runs in a thread."""
        # Wait until the indices have arrived, and until the buffers' last batch has left.
        if self.indices_ready is not None:
            self.indices_ready.synchronize()
        if self.buffers.copied is not None:
            self.buffers.copied.synchronize()

        scene, inputs, pixel_index = self.host_indices
        images, colours = self.buffers.images.numpy(), self.buffers.colours.numpy()
        for slot in slots:
            self.scenes.disk.read(
                int(scene[slot]),
                inputs[slot].tolist(),
                pixel_index[slot].numpy(),
                self.view_config.input_stride,
                images[slot],
                colours[slot],
            )

    def batch(self) -> Batch:
        """Return the batch. This waits for the threads, not for the device."""
        for future in self.futures:
            future.result()

        # Start to copy the pixels. The host knows the scenes, so the cameras need no waiting.
        with _on_stream(self.stream):
            images = self.buffers.images.to(self.scenes.device, non_blocking=True)
            colours = self.buffers.colours.to(self.scenes.device, non_blocking=True)
            cameras = self.scenes.cameras(self.host_indices[0])

        # From here on, the training's stream uses the tensors.
        if self.stream is not None:
            self.buffers.copied = self.stream.record_event()
            self._hand_over([images, colours, *cameras, *vars(self.batch_indices).values()])
        return assemble_batch(
            self.scenes,
            self.batch_indices,
            cameras,
            self.view_config,
            images,
            colours,
            compiled=True,
        )

    def _hand_over(self, tensors: list[Tensor | None]) -> None:
        """Let the training's stream use tensors of this batch's stream."""
        assert self.stream is not None
        training_stream = torch.cuda.current_stream(self.scenes.device)
        training_stream.wait_stream(self.stream)
        # Without a record of this use, their memory would be given to others too early.
        for tensor in tensors:
            if tensor is not None:
                tensor.record_stream(training_stream)


def _copy_to_host(tensor: Tensor) -> Tensor:
    """Return a copy in pinned memory, which is complete when the current stream has reached it."""
    # On a CPU there is nothing to copy.
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _on_stream(stream: torch.cuda.Stream | None) -> contextlib.AbstractContextManager[object]:
    """Return a context in which GPU work is put on this stream; None: a context without effect."""
    return torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext()
