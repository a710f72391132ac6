"""Batches in the order of the steps; those read from disk are ready before the GPU asks for them.

Which pixels a batch has is computed on the device, a few steps ahead. Threads then read only those
into pinned memory, while the device works on earlier steps; they need no processes of their own,
for copying and decoding release Python's lock.
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

from srt.common.devices import cpus
from srt.data.batch import Batch, assemble_batch
from srt.data.packed.reader import Scenes
from srt.data.sampling import Sampler

AHEAD = 2  # batches that are being read while one is used


def iterate_batches(sampler: Sampler, scenes: Scenes, start: int, end: int) -> Iterator[Batch]:
    """Yields the batches of the steps from `start` to before `end`."""
    if scenes.resident or scenes.device.type == "cpu":
        for step in range(start, end):
            yield sampler.batch(scenes, step)
    else:
        yield from read_ahead(sampler, scenes, start, end, reader_thread_count())


def reader_thread_count() -> int:
    """Returns how many threads read for this process: its share of the processors, less one."""
    return max(1, cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1")) - 1)


def read_ahead(
    sampler: Sampler, scenes: Scenes, start: int, end: int, threads: int
) -> Iterator[Batch]:
    """Yields the same batches as `sampler.batch`, read by threads while earlier ones are used."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="read")
    on_gpu = scenes.device.type == "cuda"
    stream = torch.cuda.Stream(scenes.device, priority=-1) if on_gpu else None
    idle: list[_Buffers] = []
    reading: collections.deque[_Reading] = collections.deque()
    try:
        for step in range(start, end):
            while len(reading) <= AHEAD and step + len(reading) < end:
                number = step + len(reading)
                reading.append(_Reading(sampler, scenes, number, idle, pool, stream))
            done = reading.popleft()
            yield done.batch()
            idle.append(done.buffers)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Buffers:
    """Host memory of one batch, pinned for a GPU; used again when its copy is finished."""

    images: Tensor
    colours: Tensor
    copied: torch.cuda.Event | None


class _Reading:
    """A batch on its way: planned on the device, read by the pool, copied to the device."""

    def __init__(
        self,
        sampler: Sampler,
        scenes: Scenes,
        step: int,
        idle: list[_Buffers],
        pool: ThreadPoolExecutor,
        stream: torch.cuda.Stream | None,
    ) -> None:
        self.scenes, self.view_config, self.stream = scenes, sampler.view_config, stream
        with _on(stream):
            self.batch_indices = sampler.batch_indices(scenes, step)
            place = (
                self.batch_indices.view * (scenes.height * scenes.width) + self.batch_indices.pixel
            )
            shape = (
                *self.batch_indices.inputs.shape,
                place.shape[1],
                self.view_config.input_stride,
            )
            self.buffers = idle.pop() if idle else _Buffers(*scenes.empty(*shape), None)
            self.host = [
                _to_host(t)
                for t in (self.batch_indices.scene, self.batch_indices.inputs, place.int())
            ]
            self.planned = stream.record_event() if stream else None
        slots = np.array_split(np.arange(place.shape[0]), 4 * pool._max_workers)
        self.parts: list[Future[None]] = [pool.submit(self._read, part) for part in slots]

    def _read(self, slots: np.ndarray) -> None:
        if self.planned is not None:
            self.planned.synchronize()
        if self.buffers.copied is not None:
            self.buffers.copied.synchronize()
        scene, inputs, place = self.host
        images, colours = self.buffers.images.numpy(), self.buffers.colours.numpy()
        for i in slots:
            self.scenes.disk.read(
                int(scene[i]),
                inputs[i].tolist(),
                place[i].numpy(),
                self.view_config.input_stride,
                images[i],
                colours[i],
            )

    def batch(self) -> Batch:
        """Returns the batch; waits for the threads, not for the device."""
        for part in self.parts:
            part.result()
        with _on(self.stream):
            pixels = [
                tensor.to(self.scenes.device, non_blocking=True)
                for tensor in (self.buffers.images, self.buffers.colours)
            ]
            cameras = self.scenes.cameras(self.host[0])  # the device need not be asked for scenes
        if self.stream is not None:
            self.buffers.copied = self.stream.record_event()
            main = torch.cuda.current_stream(self.scenes.device)
            main.wait_stream(self.stream)
            for tensor in (*pixels, *cameras, *vars(self.batch_indices).values()):
                if tensor is not None:
                    tensor.record_stream(main)  # or its memory would be given away too early
        return assemble_batch(
            self.scenes, self.batch_indices, cameras, self.view_config, *pixels, fused=True
        )


def _to_host(tensor: Tensor) -> Tensor:
    """Returns a copy in pinned memory that is complete when the stream has come so far."""
    if tensor.device.type != "cuda":
        return tensor
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


def _on(stream: torch.cuda.Stream | None) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.stream(stream) if stream is not None else contextlib.nullcontext()
