"""TFDS' datasets on disk: the TFRecord files of a split (its shards), and the records in them.

A TFRecord file is a row of records. A record is its length (8 bytes), the length's checksum (4),
the data, and the data's checksum (4), all little endian. A checksum is a CRC-32C, masked: rotated,
plus a constant. In TFDS' files, the data of a record is a tf.train.Example: lists of bytes, floats
or integers by name.
"""

from __future__ import annotations

import json
import os
import re
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

# The parts of a record around its data, in bytes.
HEADER = struct.Struct("<QI")  # length, checksum
FOOTER = struct.Struct("<I")  # checksum
LENGTH_BYTES = 8

# The constant that masked checksums add.
MASK = 0xA282EAD8

# TFDS' defaults: the shards (files) that it reads at once, and the records of each in one turn.
CYCLE = 16
BLOCK = 16

# A dataset is found in folders up to this deep, as in <root>/multi_shapenet_frames/2.3.3.
DEPTH = 3


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


@dataclass(frozen=True)
class SplitFiles:
    """The shards of a split: how many records each should have, and which of them are on disk."""

    info: Path  # dataset_info.json, which is in the same folder as the shards
    split: str
    prefix: str  # of the shards' file names
    lengths: tuple[int, ...]  # records in each shard
    present: frozenset[int]

    def path(self, shard: int) -> Path:
        """Return the file of a shard."""
        return self.info.with_name(f"{self.prefix}-{shard:05d}-of-{len(self.lengths):05d}")


def find_files(root: Path, split: str) -> SplitFiles:
    """Return the shards of a split.

    Raises:
        DataError: there are no shards, or shards of several versions.
    """
    # Unfinished downloads begin with a dot or end with another suffix: they do not match.
    info = _find_info(root)
    pattern = re.compile(rf"([^.].*-{split}\.tfrecord)-(\d+)-of-(\d+)")
    matches = [match for path in info.parent.iterdir() if (match := pattern.fullmatch(path.name))]

    # dataset_info.json must be of the same version as they are.
    prefix, count = _only_version(info.parent, split, matches)
    lengths = _shard_lengths(info, split)
    if count != len(lengths):
        raise DataError(
            f"{info}: shardLengths of {split} has {len(lengths)} shards, the files are of {count}:"
            " they are not of one version; fetch the dataset into an empty folder"
        )
    present = frozenset(int(match[2]) for match in matches) & set(range(count))
    return SplitFiles(info, split, prefix, tuple(lengths), present)


def _only_version(folder: Path, split: str, matches: list[re.Match[str]]) -> tuple[str, int]:
    """Return the prefix and the number of the shards, on which all their names must agree."""
    versions = sorted({(match[1], int(match[3])) for match in matches})
    if not versions:
        raise DataError(f"{folder}: no file is *-{split}.tfrecord-*-of-*; fetch the dataset")
    if len(versions) > 1:
        names = " and ".join(f"{prefix}-*-of-{count:05d}" for prefix, count in versions)
        raise DataError(f"{folder}: {names} side by side; remove those of the other version")
    return versions[0]


def _find_info(root: Path) -> Path:
    """Return the dataset_info.json in `root`, or in the only folder below it that has one."""
    # `root` itself comes first; below it, there may be only one dataset.
    name = "dataset_info.json"
    if (root / name).is_file():
        return root / name
    paths = [path for depth in range(1, DEPTH + 1) for path in root.glob("*/" * depth + name)]
    if len(paths) > 1:
        folders = ", ".join(str(path.parent) for path in sorted(paths))
        raise DataError(f"{root}: several datasets side by side: {folders}; set source to one")
    if not paths:
        raise DataError(f"{root / name}: there is no such file; fetch it from where the shards are")
    return paths[0]


def _shard_lengths(info: Path, split: str) -> list[int]:
    """Return the number of records in each shard of a split, as dataset_info.json has them."""
    try:
        splits = {entry["name"]: entry for entry in json.loads(info.read_text())["splits"]}
        return [int(length) for length in splits[split]["shardLengths"]]
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{info}: not TFDS' description of a dataset with the split {split} and its"
            f" shardLengths ({error!r}); fetch it again"
        ) from error


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
        """Return the `count` values of a feature's `bytes_list`, `float_list` or `int64_list`."""
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
    """Return the data of the record at `offset`. Raise DataError if it is cut off or damaged."""
    with path.open("rb", buffering=0) as file:
        length = _read_length(file, offset, context)
        content = file.read(length + FOOTER.size)
    data, footer = content[:length], content[length:]
    if len(footer) < FOOTER.size or _masked_crc(data) != FOOTER.unpack(footer)[0]:
        raise DataError(f"{context}: damaged, by its checksum; fetch the file again")
    return data


def _read_length(file: FileIO, offset: int, context: str) -> int:
    """Return the length of the data of the record at `offset`, and leave the file at the data."""
    # The file may be cut off within the header.
    file.seek(offset)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise DataError(f"{context}: the file ends in it; fetch it again")

    # A damaged length would lead to a byte at which no record begins.
    length, checksum = HEADER.unpack(header)
    if _masked_crc(header[:LENGTH_BYTES]) != checksum:
        raise DataError(f"{context}: its length is damaged, by its checksum; fetch the file again")
    return int(length)


def _masked_crc(data: bytes) -> int:
    """Return the checksum that TFRecord files store: a masked CRC-32C."""
    from google_crc32c import value

    crc = value(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
