"""Processes that end with whoever started them, so that a run that is killed leaves nobody at work.

Each link of a run watches the one above it: DVC, the stage, its kernel, the kernel's workers. Linux ends a process
whose parent has ended, at once and whatever it is doing; where that cannot be asked for, a thread looks twice a second.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from threading import Thread, current_thread, main_thread

from survpack.errors import BadInput

JOBS = "SURVPACK_JOBS"  # processes; all cores where it is not set
OWNER = "SURVPACK_OWNER"  # the process with which a command ends, where the Makefile or a run has started it
PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_owner() -> None:
    """`end_with` for a command: the owner that its environment names, or DVC, which names none; else nobody."""
    if os.environ.get(OWNER) or "DVC_STAGE" in os.environ:
        end_with(int(os.environ.get(OWNER) or os.getppid()))


def end_with(owner: int, by_linux: bool = True) -> None:
    """Kill this process when another ends, however that ends: its parent, or one further up.

    Linux takes the end of the thread that started a process for the end of its parent: `by_linux` is for those that a
    main thread has started.
    """
    if by_linux and os.getppid() == owner and _killed_by_linux_with_parent():
        if os.getppid() != owner:  # it ended meanwhile
            _end()
    else:  # a shell may stand between
        Thread(target=_watch, args=(owner,), daemon=True).start()


def _killed_by_linux_with_parent() -> bool:
    return sys.platform == "linux" and ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL) == 0


def _watch(owner: int) -> None:
    import psutil

    while owner in [above.pid for above in psutil.Process().parents()]:
        time.sleep(0.5)
    _end()


def _end() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def workers(processes: int = -1, **options):
    """joblib's `Parallel` on processes that end with this one.

    Parameters
    ----------
    processes : int
        -1 is as many as `SURVPACK_JOBS` says, or one a core.
    options
        Of `joblib.Parallel`.
    """
    from joblib import Parallel

    processes = _jobs() if processes == -1 else processes
    owner = os.getpid(), current_thread() is main_thread()
    return Parallel(processes, initializer=end_with, initargs=owner, **options)


def _jobs() -> int:
    asked = os.environ.get(JOBS, "-1")
    if not asked.removeprefix("-").isdigit() or int(asked) == 0:
        raise BadInput(f"{JOBS} is '{asked}', expected a number of processes, such as 2; correct it, or unset it.")
    return int(asked)
