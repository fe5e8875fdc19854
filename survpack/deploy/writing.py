"""Files that a user asked for by name: whether they are there or can be written is said before the work."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path

from survpack.errors import BadInput
from survpack.paths import written_whole

LONGEST = 255 - len(".part")  # bytes of a name: what file systems take, less what `written_whole` adds


def is_there(path: Path, kind=Path.exists) -> bool:
    """`path.exists()` or `path.is_dir()`; False of what the system cannot even look at, such as a name too long."""
    try:
        return kind(path)
    except OSError:
        return False


def require_writable(path: Path) -> None:
    """Raise BadInput where no file can be written at `path`; nothing is made."""
    try:
        missing = _missing(Path(path).absolute())
    except OSError as error:
        missing = error.strerror
    if missing:
        raise BadInput(f"{_short(path)}: {missing}, expected a file that can be written there; choose another place.")


@contextmanager
def whole(path: Path):
    """`paths.written_whole`, which says in a sentence where the disk does not take it.

    Raises
    ------
    BadInput
    """
    try:
        with written_whole(Path(path)) as part:
            yield part
    except OSError as error:
        raise BadInput(
            f"{_short(path)}: not written ({error.strerror or error}), expected a place with room and rights; choose another."
        ) from None


def _missing(path: Path) -> str | None:
    """What is in the way."""
    if path.is_dir():
        return "a folder"
    place = next(one for one in path.parents if one.exists())
    if not place.is_dir():
        return f"{_short(place)} is a file, not a folder"
    if any(len(os.fsencode(name)) > LONGEST for name in path.relative_to(place).parts):
        return f"a name longer than {LONGEST} bytes"
    return None if os.access(place, os.W_OK | os.X_OK) else f"no right to write in {_short(place)}"


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= 120 else f"{text[:60]}…{text[-40:]}"
