"""TFRecord files: the order in which TFDS reads them, their records, and the features of a record.

A record is its length (8 bytes), the length's checksum (4), the data, and the data's checksum (4),
all little endian. A checksum is a CRC-32C, masked: rotated, plus a constant. In TFDS' files, the
data of a record is a tf.train.Example: lists of bytes, floats or integers by name.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np

from srt.common.errors import DataError
from srt.common.shapes import Float
from srt.data.raw.common import TOLERANCE

HEADER = struct.Struct("<QI")  # length, checksum
FOOTER = struct.Struct("<I")  # checksum
LENGTH_BYTES = 8
MASK = 0xA282EAD8  # the constant that masked checksums add

# TFDS' defaults: the shards (files) that it reads at once, and the records of each in one turn.
CYCLE = 16
BLOCK = 16


def interleave(lengths: Sequence[int]) -> Iterator[tuple[int, range]]:
    """Yield blocks of records, (shard, records), in the order in which TFDS reads a split.

    Args:
        lengths: the number of records in each shard.
    """
    # The first shards that have records take turns.
    waiting = deque(shard for shard, length in enumerate(lengths) if length)
    turns = deque((waiting.popleft(), 0) for _ in range(min(CYCLE, len(waiting))))
    while turns:
        shard, start = turns.popleft()
        stop = start + BLOCK
        yield shard, range(start, min(stop, lengths[shard]))

        # A shard that has ended is replaced by the next one. Like tf.data's interleave, notice the
        # end of a shard of whole blocks one turn late: it then has a turn without records.
        if stop <= lengths[shard]:
            turns.append((shard, stop))
        elif waiting:
            turns.append((waiting.popleft(), 0))


def record_offsets(path: Path) -> list[int]:
    """Return the offset of each record in a file. Only the records' headers are read.

    Raises:
        DataError: the file is missing or ends within a record, or a header is damaged.
    """
    offsets: list[int] = []
    offset = 0
    try:
        # Go from header to header: each says how long its record is.
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while offset < size:
                length = _read_length(file, offset, f"{path}, record {len(offsets)}")
                offsets.append(offset)
                offset += HEADER.size + length + FOOTER.size
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; fetch it") from None
    if offset > size:
        raise DataError(f"{path}, record {len(offsets) - 1}: the file ends in it; fetch it again")
    return offsets


@dataclass(frozen=True)
class Record:
    """The features of a record, and the file and record number that an error names."""

    features: Any  # protobuf's map of name -> feature
    context: str

    def values(self, key: str, list_type: str, count: int) -> Any:
        """Return a feature's values. Raise DataError if it does not have `count` of them.

        Args:
            list_type: `bytes_list`, `float_list` or `int64_list`.
        """
        values = getattr(self.features[key], list_type).value if key in self.features else ()
        if len(values) != count:
            raise DataError(
                f"{self.context}: {key} is missing or not {count} values of a {list_type}"
            )
        return values

    def floats(self, key: str, count: int) -> Float[np.ndarray, "{count}"]:
        """Return a feature of `count` float values, as float64."""
        return np.array(self.values(key, "float_list", count), dtype=np.float64)

    def expect(self, key: str, expected: Float[np.ndarray, "n"]) -> None:
        """Raise DataError if a feature does not have the expected values."""
        values = self.floats(key, len(expected))
        if not np.abs(values - expected).max() < TOLERANCE:
            raise DataError(
                f"{self.context}: {key} is {values.tolist()}, not {expected.tolist()}: such data"
                " cannot be used"
            )


def read_record(path: Path, offset: int, context: str) -> Record:
    """Return the features of the record at `offset`.

    Args:
        context: the file and the record's number, for errors.

    Raises:
        DataError: the data does not agree with its checksum, or is no tf.train.Example.
    """
    data = _read_data(path, offset, context)

    # TensorFlow only decodes the message; it uses no device.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # or it writes about CPU instructions
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    try:
        features = tf.train.Example.FromString(data).features.feature
    except DecodeError as error:
        raise DataError(
            f"{context}: no tf.train.Example ({error}); is it MultiShapeNet?"
        ) from error
    return Record(features, context)


def _read_data(path: Path, offset: int, context: str) -> bytes:
    """Return the data of the record at `offset`. Raise DataError if its checksum is another."""
    with path.open("rb", buffering=0) as file:
        length = _read_length(file, offset, context)
        content = file.read(length + FOOTER.size)
    data, footer = content[:length], content[length:]
    if len(footer) < FOOTER.size or _masked_crc(data) != FOOTER.unpack(footer)[0]:
        raise DataError(f"{context}: damaged, by its checksum; fetch the file again")
    return data


def _read_length(file: FileIO, offset: int, context: str) -> int:
    """Return the length of the data of the record at `offset`, and leave the file at the data."""
    file.seek(offset)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise DataError(f"{context}: the file ends in it; fetch it again")
    length, checksum = HEADER.unpack(header)
    if _masked_crc(header[:LENGTH_BYTES]) != checksum:
        raise DataError(f"{context}: its length is damaged, by its checksum; fetch the file again")
    return int(length)


def _masked_crc(data: bytes) -> int:
    """Return the checksum that TFRecord files store: a masked CRC-32C."""
    from google_crc32c import value

    crc = value(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
