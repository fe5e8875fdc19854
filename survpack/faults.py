"""What has failed where the code is not at fault: no room, a file that was cut off, a process that was killed.

Told once something has failed, so that none of the many places that read or write a file has to ask beforehand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from survpack import paths
from survpack.errors import BadInput

AGAIN = "and run it again: what is finished is kept"
KILLED = (
    "a process was killed from outside, as the system does where memory runs out, expected it to end by itself; "
    f"free some memory, or take fewer processes (SURVPACK_JOBS=1), {AGAIN}."
)
KNOWN = (  # what a library says of it, and what is told; {at} is the file it names
    (r"no space left on device|disk quota exceeded", f"{{at}}: no room left on the disk; free some, {AGAIN}."),
    (r"read-only file system|permission denied", f"{{at}}: no right to it; give yourself that right, {AGAIN}."),
    (r"terminatedworkererror|deadkernelerror", KILLED),
    (
        r"memoryerror|not enough memory|can't allocate memory|cannot allocate memory",
        f"not enough memory; free some, {AGAIN}.",
    ),
)


def sentence(kind: str, text: str) -> str | None:
    """What to tell of an exception, by its name and what it says; None where it is the code that is wrong."""
    if kind == BadInput.__name__:
        return text
    at = next(iter(re.findall(r"'(/[^']+)'", text)), text if text.startswith("/") else str(paths.ROOT))
    for pattern, told in KNOWN:
        if re.search(pattern, f"{kind}: {text}".lower()):
            return told.format(at=at)
    if kind == "FileNotFoundError" and at.startswith((str(paths.DERIVED), str(paths.REPORTS))):
        return f"{at}: not there, expected what an earlier stage of the study writes; run `make report` first."
    if damaged := next(_damaged(paths.DERIVED, paths.METRICS), None):
        distrust(damaged)
        return (
            f"{damaged}: cut off or damaged, expected what the study wrote there; delete it and run `make report`, "
            "which makes it again."
        )
    return None


def distrust(path: Path) -> None:
    """Make DVC look at its own copy too: a link to the same bytes, which it takes for whole while nobody may write."""
    with suppress(OSError):
        path.chmod(path.stat().st_mode | 0o200)


def _damaged(*folders: Path) -> Iterator[Path]:
    """Files of the study that cannot be read to their end."""
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix in READERS):
        try:
            READERS[path.suffix](path)
        except FileNotFoundError:
            pass  # another process has taken it away
        except Exception:  # of as many kinds as there are readers
            yield path


def _parquet(path: Path) -> None:
    import pyarrow.parquet

    pyarrow.parquet.read_table(path)


def _numbers(path: Path) -> None:
    import numpy as np

    np.load(path, mmap_mode="r", allow_pickle=False)


def _weights(path: Path) -> None:
    from safetensors import safe_open

    with safe_open(path, "np"):
        pass


READERS: dict[str, Callable] = {
    ".json": lambda path: json.loads(path.read_bytes()),
    ".npy": _numbers,
    ".parquet": _parquet,
    ".safetensors": _weights,
}
