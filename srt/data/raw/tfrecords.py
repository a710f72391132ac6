"""TFRecord framing: where the records of a file are, and one of them, checked.

A record is its length (8 bytes), the length's checksum (4), the data, the data's checksum (4), all
little endian. A checksum is a CRC-32C, masked: rotated, plus a constant.
"""

from __future__ import annotations

import os
import struct
from io import FileIO
from pathlib import Path

from srt.common.errors import DataError

HEADER, FOOTER = struct.Struct("<QI"), struct.Struct("<I")
LENGTH_BYTES, MASK = 8, 0xA282EAD8


def record_offsets(path: Path) -> list[int]:
    """Returns the place of each record; reads nothing but the headers.

    Raises DataError for a file that is missing or ends within a record, or a damaged header.
    """
    offsets: list[int] = []
    place = 0
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            while place < size:
                length = _read_length(file, place, f"{path}, record {len(offsets)}")
                offsets.append(place)
                place += HEADER.size + length + FOOTER.size
    except FileNotFoundError:
        raise DataError(f"{path}: there is no such file; fetch it") from None
    if place > size:
        raise DataError(f"{path}, record {len(offsets) - 1}: the file ends in it; fetch it again")
    return offsets


def read_record(path: Path, offset: int, place: str) -> bytes:
    """Returns a record's data; raises DataError where they are not what their checksum says.

    Args:
        place: what an error names: the file and the record's number.
    """
    with path.open("rb", buffering=0) as file:
        length = _read_length(file, offset, place)
        content = file.read(length + FOOTER.size)
    data = content[:length]
    if len(content) < length + FOOTER.size or _masked(data) != FOOTER.unpack(content[length:])[0]:
        raise DataError(f"{place}: damaged, by its checksum; fetch the file again")
    return data


def _read_length(file: FileIO, offset: int, place: str) -> int:
    """Returns the length of the data of the record at `offset`; the file is then at the data."""
    file.seek(offset)
    header = file.read(HEADER.size)
    if len(header) < HEADER.size:
        raise DataError(f"{place}: the file ends in it; fetch it again")
    length, checksum = HEADER.unpack(header)
    if _masked(header[:LENGTH_BYTES]) != checksum:
        raise DataError(f"{place}: its length is damaged, by its checksum; fetch the file again")
    return int(length)


def _masked(data: bytes) -> int:
    from google_crc32c import value

    crc = value(data)
    return ((crc >> 15 | crc << 17) + MASK) & 0xFFFFFFFF
