"""`dvc repro` with the choices of one run, as `report` starts it.

DVC takes params.yaml by that name and from nowhere else: it is given the run's copy in its place, so that it writes
down what the stages were run with, and a later run with the same choices, from the file or not, repeats none of them.
The stage of a model that a cohort cannot have is done here, without a process of its own; a plain `dvc repro` makes the
same files by one. DVC parses and writes all of dvc.lock at every stage, seconds each; here a stage's part of it alone is
written, to the same bytes. What DVC leaves in halves when it is killed is written whole here, or put right before it begins.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

from survpack import paths
from survpack.errors import BadInput
from survpack.processes import OWNER, end_with_owner


def main() -> int:
    """Run `dvc repro`; its exit code."""
    end_with_owner()
    os.environ[OWNER] = str(os.getpid())  # of the stages
    from dvc.cli import main as dvc
    from dvc.dvcfile import Lockfile
    from dvc.stage import run
    from dvc.utils import serialize

    read, write = serialize.load_yaml, serialize._common._dump_data
    theirs = (paths.ROOT / "params.yaml").resolve()

    def chosen(path, fs=None, **options):
        return read(paths.PARAMS if Path(path).resolve() == theirs else path, fs=fs, **options)

    def whole(path, *given, **options):
        with paths.written_whole(path) as part:
            write(part, *given, **options)

    start = run._run

    def unless_without_fit(executable, command, **options):
        if not _without_fit(command):
            start(executable, command, **options)

    dump_all = Lockfile.dump_stages

    def dump(lock, stages, **options):
        if not _put_in(Path(lock.path), stages, **options):
            dump_all(lock, stages, **options)

    Lockfile.dump_stages = dump
    serialize.LOADERS[".yaml"], serialize._common._dump_data, run._run = chosen, whole, unless_without_fit
    return dvc(["repro"])


def _without_fit(command: str) -> bool:
    """Whether a stage is of a model that its cohort cannot have; it is then done here: a process takes a second each."""
    from survpack import pipeline

    asked = re.search(rf" run {pipeline.TRAINING} --cohort (\S+) --model (\S+)$", command)
    try:
        return bool(asked) and pipeline.without_fit(*asked.groups())
    except Exception:  # the stage tells of it
        return False


def _put_in(lock: Path, stages, **options) -> bool:
    """Put stages into a dvc.lock as DVC would write it; False, with nothing done, where the file is not of that form."""
    from dvc.stage.serialize import to_lockfile
    from dvc.utils.serialize import dumps_yaml

    head, start = "schema: '2.0'\nstages:\n", re.compile(r"(?m)^(?=  \S)")
    text = lock.read_text(encoding="utf-8") if lock.exists() else ""
    found = start.split(text.removeprefix(head))[1:]
    if text != head + "".join(found) or any(part[2] in "?:" for part in found):
        return False
    parts = {part.partition("\n")[0]: part for part in found}
    for stage in stages:
        new = dumps_yaml({"stages": to_lockfile(stage, **options)}).removeprefix("stages:\n")
        parts[new.partition("\n")[0]] = new
    with paths.written_whole(lock) as part:
        part.write_text(head + "".join(parts.values()), encoding="utf-8")
    return True


def require_whole(lock: Path) -> None:
    """Refuse a dvc.lock of which a `dvc repro` by hand has left half when it was killed: DVC does nothing with it."""
    import yaml

    try:
        yaml.load(lock.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except FileNotFoundError:
        pass
    except (yaml.YAMLError, UnicodeDecodeError):
        raise BadInput(
            f"{lock}: cut off or damaged, expected what DVC wrote; bring it back (`git checkout dvc.lock`) or delete it: "
            "what is finished is in DVC's cache, and is taken from there."
        ) from None


def forget_dead(locks: Path) -> None:
    """Remove DVC's list of who holds which file unless a DVC holds one.

    It names them by the number of their process, which another program may have got since, and a kill leaves half of it.
    """
    import psutil

    try:
        told = json.loads(locks.read_text())
        held = [*told.get("write", {}).values(), *(one for readers in told.get("read", {}).values() for one in readers)]
        by_dvc = [one for one in held if psutil.pid_exists(one["pid"]) and "dvc" in _command(one["pid"])]
    except FileNotFoundError:
        return
    except (ValueError, LookupError, TypeError, AttributeError):
        by_dvc = []
    if not by_dvc:
        locks.unlink()


def _command(process: int) -> str:
    import psutil

    try:
        return " ".join(psutil.Process(process).cmdline())
    except psutil.Error:
        return ""


if __name__ == "__main__":
    sys.exit(main())
