"""Independent fits side by side: a process a core, one thread each."""

from __future__ import annotations

import io
from contextlib import redirect_stderr

from survpack.processes import workers


def in_parallel(jobs: list[tuple], label: str, *, networks: bool = True, small: bool = False) -> list:
    """The results of `(function, arguments)`, in order.

    A fit on one thread gives the same digits on any machine, and two of them beside each other are two to three times
    as fast as one after the other on two threads: small networks do not fill a thread. One GPU takes them in turn.

    Parameters
    ----------
    jobs : list of (callable, tuple)
        Whose pickles are sent; large data are better read by the job itself.
    label : str
        Names the progress bar.
    networks : bool
        Whether any of them is one; else PyTorch, which a process takes seconds to import, is left alone.
    small : bool
        Done one after the other before another process has started.
    """
    from joblib import delayed
    from tqdm import tqdm

    alone = small or len(jobs) < 2 or networks and _on_gpu()
    one = _on_one_thread if networks else _quietly
    work = workers(1 if alone else -1, return_as="generator")(delayed(one)(*job) for job in jobs)
    return list(tqdm(work, total=len(jobs), desc=label, unit="fit", mininterval=2))


def _on_gpu() -> bool:
    from survpack.training import device

    return device().type == "cuda"


def _on_one_thread(function, arguments: tuple):
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _quietly(function, arguments)
    finally:
        torch.set_num_threads(threads)


def _quietly(function, arguments: tuple):
    """One bar is enough: those of the fits are not shown."""
    with redirect_stderr(io.StringIO()):
        return function(*arguments)
