"""One machine plays an older one: held kernels do not notice, and without them nearly every digit moves."""

import os
import subprocess
import sys

import pytest

from survpack import machine

OLDER = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem",
         "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4", "OMP_NUM_THREADS": "2"}  # fmt: skip
DIGITS = """
from survpack import machine
machine.hold()
import hashlib, numpy as np, torch
drawn = torch.randn(4, 8, 12, 12, 12, generator=torch.Generator().manual_seed(3))
known = np.random.default_rng(3).normal(size=(60, 60))
for found in (
    drawn,
    torch.nn.functional.conv3d(torch.from_numpy(np.sin(np.arange(55296.0, dtype="f4")).reshape(4, 8, 12, 12, 12)),
                               torch.ones(8, 8, 3, 3, 3) / 3),
    np.exp(known), np.linalg.svd(known)[1], known @ known, torch.get_num_threads(),
):
    print(hashlib.sha256(np.asarray(found).tobytes()).hexdigest()[:12])
"""


def digits(**asked: str) -> list[str]:
    bare = {name: value for name, value in os.environ.items() if name not in {*machine.HELD, machine.KERNELS}}
    done = subprocess.run([sys.executable, "-c", DIGITS], env=bare | asked, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(not machine.hold({}), reason="no x86 processor with AVX2 under Linux: nothing is held here")
def test_whatever_a_machine_would_choose_the_digits_are_those_of_held_kernels():
    held = digits()
    assert len(held) == 6
    assert digits(**OLDER) == held
    own = digits(**OLDER, **{machine.KERNELS: "own"})
    assert [one == other for one, other in zip(own, held, strict=True)][:2] == [False, False]


def test_nothing_is_held_where_the_user_or_the_processor_cannot(monkeypatch):
    mine = {machine.KERNELS: "own", "OMP_NUM_THREADS": "7"}
    assert machine.hold(mine) == {} and mine["OMP_NUM_THREADS"] == "7"
    monkeypatch.setattr(machine, "_has_avx2", lambda: False)
    environment = {"OMP_NUM_THREADS": "7"}
    assert machine.hold(environment) == {} and environment["OMP_NUM_THREADS"] == "7"
    monkeypatch.setattr(machine, "_has_avx2", lambda: True)
    assert machine.hold(environment) == machine.HELD and environment["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(not machine.hold({}), reason="no x86 processor with AVX2 under Linux: nothing is held here")
@pytest.mark.parametrize("asked", ["", "own"])
def test_what_jupyterlab_is_started_with_follows_the_user(asked):
    command = [sys.executable, "-m", "survpack.machine"]
    done = subprocess.run(
        command, env=os.environ | {machine.KERNELS: asked}, capture_output=True, text=True, check=True
    )
    assert ("ATEN_CPU_CAPABILITY='avx2'" in done.stdout) == (asked != "own")
