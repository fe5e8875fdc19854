"""Independent fits side by side: a process a core, one thread each."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from survpack.processes import workers


def in_parallel(jobs: list[tuple], label: str) -> list:
    """The results of `(function, arguments)`, in order.

    A fit on one thread gives the same digits on any machine, and two of them beside each other are two to three times
    as fast as one after the other on two threads: small networks do not fill a thread. One GPU takes them in turn.

    Parameters
    ----------
    jobs : list of (callable, tuple)
        Whose pickles are sent; large data are better read by the job itself.
    label : str
        Names the progress bar.
    """
    from joblib import delayed
    from tqdm import tqdm

    from survpack.training import device

    alone = device().type == "cuda" or len(jobs) < 2
    work = workers(1 if alone else -1, return_as="generator")(delayed(_quietly)(*job) for job in jobs)
    return list(tqdm(work, total=len(jobs), desc=label, unit="fit", mininterval=2))


def _quietly(function, arguments: tuple):
    """One bar is enough: those of the fits are not shown."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with redirect_stderr(io.StringIO()):
            return function(*arguments)
    finally:
        torch.set_num_threads(threads)
