"""The same arithmetic on another machine.

PyTorch, oneDNN, MKL, OpenBLAS and NumPy each choose their kernels by what the processor can do and by how many threads there
are, and kernels round differently: a network trained with AVX-512 is another network than one trained without, from its
initial weights on, for PyTorch's random numbers are vectorised as well. The study holds them all at AVX2 with FMA, which nearly
every x86 processor since 2015 has. `benchmarks.machines` measures what moves without it, into `reports/metrics/machines.json`.

`python -m survpack.machine` prints the settings, for what does not start by `python -m survpack` (`make lab`).
"""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping
from pathlib import Path

KERNELS = "SURVPACK_KERNELS"  # own: whatever this machine would choose
HELD = {
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels, its random numbers among them
    "ONEDNN_MAX_CPU_ISA": "AVX2",  # its convolutions
    "MKL_CBWR": "AVX2",  # its matrix products; no more than a request on other makers' processors
    "OPENBLAS_CORETYPE": "Haswell",  # products and decompositions of NumPy and SciPy
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",  # loops of NumPy
    "OMP_NUM_THREADS": "1",  # sums are split by threads; and two that wait for a busy core cost six times one thread
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


def hold(environment: MutableMapping[str, str] = os.environ) -> dict[str, str]:
    """Put the settings into an environment, before NumPy or PyTorch are loaded under it.

    Returns
    -------
    dict of str to str
        What is held: nothing on a processor without AVX2 and FMA, which would crash, or where SURVPACK_KERNELS=own.
    """
    held = HELD if environment.get(KERNELS) != "own" and _has_avx2() else {}
    environment.update(held)
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")  # many small products: two threads take thrice as long as one
    return held


def _has_avx2() -> bool:
    """Whether Linux says so of an x86 processor; elsewhere nobody is asked without loading the libraries."""
    told = Path("/proc/cpuinfo")
    if platform.machine() != "x86_64" or not told.exists():
        return False
    flags = next((line.split() for line in told.read_text().splitlines() if line.startswith("flags")), [])
    return {"avx2", "fma"} <= set(flags)


if __name__ == "__main__":
    print(" ".join(f"{name}='{value}'" for name, value in hold(dict(os.environ)).items()))
