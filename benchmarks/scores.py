"""All scores with their bootstrap, and concordance of very many patients, beside scikit-survival and lifelines.

`python -m benchmarks.scores` prints a table and merges it into reports/metrics/benchmarks.json. Seconds; `ratio` is ours
over the peer's. The cohort is simulated, so that nothing is needed but the package.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.radiomics import merged
from survpack import inference, metrics, params, paths
from survpack.prognosis import Prognosis, day_at, time_grid

CORES = 2
FOLDS = 5


def cohort(patients: int, models: int, seed: int = 1) -> tuple[pd.DataFrame, list[str], dict[str, Prognosis]]:
    """Participants, the ids of the development patients (four fifths) and the predictions of so many models.

    Exponential deaths; each model sees the true log hazard through noise of its own.
    """
    rng = np.random.default_rng(seed)
    true = rng.normal(size=patients)
    death, censored = rng.exponential(400 * np.exp(-true)), rng.uniform(100, 2000, patients)
    people = pd.DataFrame({"patient_id": [f"P{k:04d}" for k in range(patients)]})
    people["time_days"], people["event"] = np.ceil(np.minimum(death, censored)), death <= censored
    held = rng.permutation(patients) < patients // 5
    times = time_grid(params.load().curves)
    keys = people[["patient_id"]].assign(cohort="simulated", seed=0, repeat=0)
    keys["fold"] = np.where(held, -1, np.arange(patients) % FOLDS)
    keys["split"] = np.where(held, "test", "cv")
    found = {}
    for model in (f"model-{k:02d}" for k in range(models)):
        risk = true + rng.normal(size=patients)
        curves = np.exp(-np.outer(np.exp(risk / 2), times) / 400)
        columns = pd.DataFrame(curves, columns=[f"s_{k}" for k in range(len(times))])
        table = keys.assign(model=model, risk=risk, days=day_at(curves, times, 0.5))
        found[model] = Prognosis(pd.concat([table, columns], axis=1), times)
    return people, people.loc[~held, "patient_id"].tolist(), found


def all_scores(patients: int, models: int, draws: int) -> tuple[float, int]:
    """Seconds in which `evaluate` gives every score of every model its interval; how many intervals those are."""
    people, dev_ids, prognoses = cohort(patients, models)
    chosen = params.load().scores.model_copy(update={"bootstrap": draws})
    start = time.perf_counter()
    found = inference.evaluate(prognoses, people, dev_ids, chosen, "simulated")
    return time.perf_counter() - start, sum(len(one) for split in found.values() for one in split.values())


def peers_scores(patients: int, models: int, draws: int, timed: int = 10) -> float:
    """Seconds that scikit-survival would take for its four scores of as many draws and models, from `timed` draws.

    Within a fold, as `evaluate` does, out of fold; once over, held out.
    """
    from sksurv import metrics as peer
    from sksurv.util import Surv

    people, dev_ids, prognoses = cohort(patients, 1)
    outcome = people.set_index("patient_id")
    train = Surv.from_dataframe("event", "time_days", outcome.loc[dev_ids])
    (one,) = prognoses.values()
    rng, spent = np.random.default_rng(0), 0.0
    for rows in one.table.groupby("fold").groups.values():
        part = Prognosis(one.table.loc[rows].reset_index(drop=True), one.times)
        known = outcome.loc[part.table["patient_id"]]
        times = metrics.valid_times(one.times, known["time_days"], outcome.loc[dev_ids])
        survival, risk = metrics.survival_at(part, times), part.table["risk"].to_numpy()
        for _ in range(timed):
            drawn = rng.integers(len(known), size=len(known))
            again = Surv.from_dataframe("event", "time_days", known.iloc[drawn])
            inside = (times >= again["time_days"].min()) & (times < again["time_days"].max())
            start = time.perf_counter()
            peer.concordance_index_censored(again["event"], again["time_days"], risk[drawn])
            peer.concordance_index_ipcw(train, again, risk[drawn], tau=times[-1])
            curves = survival[drawn][:, inside]
            if inside.sum() > 1:
                peer.cumulative_dynamic_auc(train, again, 1 - curves, times[inside])
                peer.integrated_brier_score(train, again, curves, times[inside])
            spent += time.perf_counter() - start
    return spent * models * draws / timed


def ranked(patients: int, repeats: int) -> tuple[float, float]:
    """Seconds of one concordance with ties in time and in risk: ours (least of several) and lifelines' (once)."""
    from lifelines.utils import concordance_index

    rng = np.random.default_rng(0)
    risk = np.round(rng.normal(size=patients), 3)
    days, event = np.ceil(rng.exponential(1000 * np.exp(-risk))), rng.random(patients) < 0.6
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        ours = metrics.concordance(days, event, risk)
        spent.append(time.perf_counter() - start)
    start = time.perf_counter()
    theirs = concordance_index(days, -risk, event)
    other = time.perf_counter() - start
    if abs(ours - theirs) > 1e-9:
        raise AssertionError(f"concordance of {patients} patients: {ours} here, {theirs} in lifelines.")
    return min(spent), other


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=20)
    parser.add_argument("--patients", type=int, default=148)
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--many", type=int, default=100_000, help="patients of the one concordance")
    parser.add_argument("--out", type=Path, default=paths.METRICS / "benchmarks.json")
    chosen = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    all_scores(chosen.patients, 1, 2)  # imports
    seconds, intervals = all_scores(chosen.patients, chosen.models, chosen.draws)
    found = {
        "scores-20-models": (seconds, peers_scores(chosen.patients, chosen.models, chosen.draws),
                             f"s, two cores, {intervals} intervals; the peer's four scores alone, from ten draws"),
        "concordance-100k": (*ranked(chosen.many, 3), "s, one core"),
    }  # fmt: skip
    found = {
        name: {"ours": ours, "peer": peer, "ratio": ours / peer, "unit": unit}
        for name, (ours, peer, unit) in found.items()
    }
    merged(found, chosen.out)
    print(pd.DataFrame(found).T.to_string(float_format="{:.3g}".format))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
