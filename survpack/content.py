"""Whether files are what they were, by their content: a copy with a new time is the same file, a change in place is not.

A digest is remembered for a file of the same place, size, inode and times. Nobody sets the time of the last change of an
inode (`ctime`), so an edit that puts size and `mtime` back is seen. A file that was changed in the last seconds is read each
time: two changes within one tick of the clock look alike.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
from pathlib import Path

from tqdm import tqdm

from survpack.paths import written_whole

SETTLED_S = 2.0  # FAT and some network file systems count no finer
_known: dict[str, str] = {}  # of this process: stamp to digest


def digest(path: str | Path, memory: dict[str, str] | None = None) -> str:
    """BLAKE2b of a file's content, in hexadecimal.

    Parameters
    ----------
    path : path
    memory : dict, optional
        Stamp to digest, which is looked at and added to; that of this process by default.
    """
    memory, path = _known if memory is None else memory, os.path.abspath(path)
    facts = os.stat(path)
    stamp = "\t".join(map(str, (path, facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns)))
    if stamp in memory:
        return memory[stamp]
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    if time.time() - facts.st_ctime > SETTLED_S:
        memory[stamp] = found
    return found


def of_folder(root: Path, memory: Path) -> str:
    """SHA-256 of every file's name in `root` and its content; links are followed.

    Parameters
    ----------
    root : Path
    memory : Path
        A JSON in which the digests of the files are kept for the next time; without it all are read again.
    """
    before, files = _remembered(memory), []
    for folder, inside, names in os.walk(root, followlinks=True):
        inside.sort()
        files += [Path(folder, name) for name in sorted(names)]
    now, whole = dict(before), hashlib.sha256()
    for path in tqdm(files, desc=f"{root.name}: what has changed", mininterval=2, delay=2):
        whole.update(f"{path.relative_to(root)}\t{_told(path, now)}\n".encode(errors="surrogateescape"))
    if now != before:
        _remember(now, memory)
    return whole.hexdigest()


def _told(path: Path, memory: dict[str, str]) -> str:
    """The digest of a plain file that can be read; of a pipe, a dead link or a locked file what is known without."""
    try:
        facts = path.stat()
        return digest(path, memory) if stat.S_ISREG(facts.st_mode) else "no plain file"
    except OSError as error:
        return f"not readable: {error.errno}"


def _remembered(memory: Path) -> dict[str, str]:
    try:
        found = json.loads(memory.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and all(isinstance(one, str) for one in found.values()) else {}


def _remember(digests: dict[str, str], memory: Path) -> None:
    latest = {stamp.partition("\t")[0]: stamp for stamp in digests}  # of a file that changed, the last
    try:
        with written_whole(memory) as part:
            part.write_text(json.dumps({stamp: digests[stamp] for stamp in latest.values()}), encoding="utf-8")
    except OSError:  # no room, no rights: it is then read again
        pass
