"""From NIfTI and mask to card, cold and warm; and Grad-CAM of every patient.

`python -m benchmarks.prognosis` prints a table and merges it into reports/metrics/benchmarks.json; two minutes. It needs a
study that has run. Cold: a process of its own, from its start to the card on disk, as `python -m survpack predict` does.
Warm: the same in one process that has made a card before. Medians; two cores.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.radiomics import merged
from survpack import paths
from survpack.study import TEST_FOLD, Study

MODELS = ("hybrid-efficientnet-mse", "hybrid-additive-cox")
CORES = 2


def submission(study: Study, bundle: Path, folder: Path) -> dict:
    """What `python -m survpack predict` takes of the first test patient."""
    from survpack.deploy.examples import chart_of, files_of

    patient = study.splits.loc[study.splits["fold"] == TEST_FOLD, "patient_id"].iloc[0]
    scans, masks = ([f"{name}={path}" for name, path in files.items()] for files in files_of(study, patient))
    chart = json.dumps(chart_of(study, patient), default=lambda value: value.item())
    (folder / "chart.json").write_text(chart)
    return {
        "model": str(bundle),
        "scans": scans,
        "masks": masks,
        "chart": str(folder / "chart.json"),
        "out": str(folder / "card.html"),
    }


def median_seconds(act: Callable[[], object], repeats: int) -> float:
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        spent.append(time.perf_counter() - start)
    return float(np.median(spent))


def cards(study: Study, model: str, repeats: int) -> dict[str, float]:
    """Seconds to a card, cold and warm."""
    from survpack.deploy import bundle
    from survpack.deploy.answer import answer
    from survpack.deploy.card import page
    from survpack.deploy.intake import read_for

    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        made = bundle.make(study, model, folder / "bundle")
        given = submission(study, folder / "bundle", folder)
        command = [sys.executable, "-m", "survpack", "predict", "--model", given["model"], "--chart", given["chart"]]
        command += ["--out", given["out"]]
        command += [word for kind in ("scan", "mask") for one in given[f"{kind}s"] for word in (f"--{kind}", one)]
        cold = median_seconds(lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL), repeats)
        scans, masks = (
            {name: Path(path) for name, path in (one.split("=", 1) for one in given[kind])}
            for kind in ("scans", "masks")
        )

        def warm() -> None:
            one = read_for(made, chart=Path(given["chart"]), scans=scans, masks=masks)
            Path(given["out"]).write_text(page(answer(made, one), made), encoding="utf-8")

        warm()  # imports
        return {"cold": cold, "warm": median_seconds(warm, 3 * repeats)}


def maps(study: Study, model: str) -> float:
    """Seconds for Grad-CAM of every patient; the images alone are looked at."""
    from survpack.explain.attribution import attribute
    from survpack.study import fitted

    network, everyone = fitted(study, model), study.patients
    attribute(network, everyone.take(list(everyone.outcome.index[:2])), "gradcam")  # imports
    return median_seconds(lambda: attribute(network, everyone, "gradcam"), 1)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", default="mets")
    parser.add_argument("--repeats", type=int, default=3, help="cold starts a model")
    parser.add_argument("--out", type=Path, default=paths.METRICS / "benchmarks.json")
    chosen = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    study, found = Study.open(chosen.cohort), {}
    for model in MODELS:
        for how, seconds in cards(study, model, chosen.repeats).items():
            found[f"card-{how}-{model}"] = (seconds, f"s from NIfTI, mask and chart of {chosen.cohort} to card, {how}")
    count = len(study.patients.outcome)
    found["gradcam-all"] = (maps(study, MODELS[0]), f"s for Grad-CAM of {count} patients, {MODELS[0]}")
    table = {name: {"ours": value, "peer": None, "ratio": None, "unit": unit} for name, (value, unit) in found.items()}
    merged(table, chosen.out)
    print(pd.DataFrame(table).T[["ours", "unit"]].to_string(float_format="{:.3g}".format))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
