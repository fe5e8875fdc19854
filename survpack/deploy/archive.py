"""A zip of DICOM, unpacked: within limits, and under names of our own."""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from pathlib import Path

from survpack.deploy.limits import MB, Budget, Limits, Refused

MAGIC = b"PK\x03\x04"
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others may ask for gigabytes before the first byte
ENTRY = 46 + 512  # bytes of the directory that one member takes: its fixed part, and a long name
ENCRYPTED = 0x1
PIECE = 2**20
CLIMBS = re.compile(r"^[/\\]|^[A-Za-z]:|(^|[/\\])\.\.([/\\]|$)|\0")  # out of the folder


def is_zip(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(MAGIC)) == MAGIC


def unpack(file: Path, folder: Path, limits: Limits, budget: Budget) -> int:
    """Every file of a zip into `folder`, under a number instead of its name; `budget` is that of the whole request.

    Returns
    -------
    int
        How many.

    Raises
    ------
    Refused
        400 for what is no zip, damaged, encrypted, or leads out of a folder by a name or a link; 413 for one of too
        many members or bytes.
    """
    try:
        with file.open("rb") as stream:
            _directory_is_small(stream, limits)
            with zipfile.ZipFile(stream) as archive:
                members = [one for one in archive.infolist() if not one.is_dir()]
                _allowed(members, file.stat().st_size, limits, budget)
                left = sum(one.file_size for one in members)
                for number, one in enumerate(members):
                    with archive.open(one) as packed:
                        left -= _copied(packed, folder / f"{number:05d}.dcm", left)
                return len(members)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError):
        raise Refused(400, "The zip is damaged, or made in a way that is not read here; zip the files anew.") from None


def _directory_is_small(stream, limits: Limits) -> None:
    """`zipfile` reads the whole directory into memory before anything can be asked of it."""
    end = zipfile._EndRecData(stream)  # what zipfile itself goes by
    if end and end[zipfile._ECD_SIZE] > limits.files * ENTRY:
        raise Refused(413, f"The zip lists more than the {limits.files} files that are taken at once; send fewer.")
    stream.seek(0)


def _allowed(members: list[zipfile.ZipInfo], packed: int, limits: Limits, budget: Budget) -> None:
    total = sum(one.file_size for one in members)
    if len(members) > budget.files:
        raise Refused(413, f"The zips hold more than {limits.files} files, expected at most as many; send fewer.")
    if total > limits.unpacked_ratio * max(packed, 1) or total > budget.bytes:
        raise Refused(
            413,
            f"The zips unpack to over {limits.unpacked_bytes / MB:.3g} MB together, or one to over {limits.unpacked_ratio} "
            "times its own size; send the series that are needed, and no others.",
        )
    for one in members:
        if CLIMBS.search(one.orig_filename) or stat.S_IFMT(one.external_attr >> 16) not in (0, stat.S_IFREG):
            raise Refused(400, "The zip holds a link, or a name that leads out of its folder; zip plain files only.")
        if one.flag_bits & ENCRYPTED or one.compress_type not in METHODS:
            raise Refused(400, "The zip is encrypted, or packed otherwise than by deflate; zip the files anew.")
    budget.take(total, files=len(members))


def _copied(packed, target: Path, left: int) -> int:
    """Bytes written; whatever the directory said of the size, never more than `left`."""
    count = 0
    with target.open("xb") as out:
        while piece := packed.read(PIECE):
            count += len(piece)
            if count > left:
                raise Refused(413, "The zip unpacks to more than it says; zip the files anew.")
            out.write(piece)
    return count
