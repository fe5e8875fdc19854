"""How far results move when one machine plays several, and that nothing moves while the study holds its kernels.

`python -m benchmarks.machines` (after `make report`) fits models on the study's own folds, anew under each of `SETTINGS`: those
of PyTorch, oneDNN, MKL, OpenBLAS and NumPy that this processor can play, other numbers of threads, and the settings of
`survpack.machine` asked for on top of two of them. All goes into `reports/metrics/machines.json`: per model and setting the
difference from what this machine chooses itself, of Harrell's C out of fold and on the test set, of days (medians that both
have), and of curves; whether the model is shown to be ahead of the first; CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage

import numpy as np
import pandas as pd

from survpack import machine, paths
from survpack.inference import concordance_of, paired_difference, shown
from survpack.parallel import in_parallel
from survpack.prognosis import Prognosis
from survpack.study import Study, _fit_one

OLD = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem", "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4"}  # fmt: skip
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
OWN = {machine.KERNELS: "own"}
SETTINGS = {
    "this machine's choice": OWN,
    "kernels of before 2011": OWN | OLD,
    "PyTorch without vectors": OWN | {"ATEN_CPU_CAPABILITY": "default"},
    "convolutions with AVX": OWN | {"ONEDNN_MAX_CPU_ISA": "AVX"},
    "products alike on all makers' processors": OWN | {"MKL_CBWR": "COMPATIBLE"},
    "one thread": OWN | ONE_THREAD,
    "three threads": OWN | {name: "3" for name in ONE_THREAD},
    "held": {},
    "held, kernels of before 2011 asked for": OLD,
    "held, three threads asked for": {name: "3" for name in ONE_THREAD},
}
MODELS = ["clinical-cox", "radiomics-coxnet", "clinical-radiomics-rsf", "hybrid-compact-cox", "hybrid-additive-cox"]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.machines", description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", default="mets")
    parser.add_argument("--models", nargs="+", default=MODELS, help="the first is what others are compared with")
    parser.add_argument("--settings", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--out", type=Path, default=paths.METRICS / "machines.json")
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.into:
        return _fit(asked.cohort, asked.models, asked.into)
    study, told = Study.open(asked.cohort), {}
    with tempfile.TemporaryDirectory() as folder:
        for setting in dict.fromkeys([next(iter(SETTINGS)), *asked.settings]):
            environment = {k: v for k, v in os.environ.items() if k not in machine.HELD} | SETTINGS[setting]
            machine.hold(environment)
            for model in asked.models:
                into, before = Path(folder) / setting / model, getrusage(RUSAGE_CHILDREN)
                command = [sys.executable, "-m", "benchmarks.machines", "--cohort", asked.cohort, "--models", model]
                subprocess.run([*command, "--into", into], env=environment, check=True)
                spent = getrusage(RUSAGE_CHILDREN)
                spent = spent.ru_utime + spent.ru_stime - before.ru_utime - before.ru_stime
                told.setdefault(model, {})[setting] = _found(study, Path(folder), setting, model, asked.models[0])
                told[model][setting]["cpu_seconds"] = round(spent, 1)
                print(model, setting, told[model][setting], flush=True)
    with paths.written_whole(asked.out) as part:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


def _fit(cohort: str, models: list[str], into: Path) -> int:
    """In a process of its own, which has loaded every library under its setting."""
    study = Study.open(cohort)
    for model in models:
        folds = sorted(study.splits["fold"].unique())
        in_parallel([(_fit_one, (study, model, fold, into / f"fold-{fold}-anew")) for fold in folds], model)
    return 0


def _read(folder: Path) -> Prognosis:
    parts = [Prognosis.load(path) for path in sorted(folder.glob("*/prognosis.parquet"))]
    return Prognosis(pd.concat([part.table for part in parts], ignore_index=True), parts[0].times)


def _found(study: Study, folder: Path, setting: str, model: str, first: str) -> dict:
    now, here = _read(folder / setting / model), _read(folder / next(iter(SETTINGS)) / model)
    outcome, moved = study.cohort.participants, {}
    for split in ("cv", "test"):
        moved[f"{split}_c"] = concordance_of(now.of(split), outcome) - concordance_of(here.of(split), outcome)
    days = np.abs(now.table["days"] - here.table["days"])
    moved |= {"days": float(days[np.isfinite(days)].max()), "curves": float(np.abs(now.survival - here.survival).max())}
    moved["equal"] = now.table.equals(here.table)
    if model != first:
        again = {"train_outcome": outcome, "horizon": study.horizon_days}
        base = _read(folder / setting / first)
        reached = [concordance_of(one.of("cv"), outcome) for one in (now, base)]
        again |= study.params.scores.resampling(sum(reached) / 2, fitted=True)
        ahead = paired_difference(now.of("cv"), base.of("cv"), outcome, "harrell_c", **again)
        moved["ahead"] = {key: ahead[key] for key in ("estimate", "low", "high", "p")} | {"shown": bool(shown(ahead))}
    return moved


if __name__ == "__main__":
    sys.exit(main())
