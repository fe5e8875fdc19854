"""How often what the page calls shown is nothing: cohorts drawn again and again, and every model fitted anew on each.

`python -m benchmarks.type_one` draws cohorts from a known population and cross-validates the study's own models on them, as
stage 03 does; on the predictions it makes the study's own intervals and tests (`survpack.inference`, `survpack.metrics`).
Two models of one kind see columns of their own that are worth the same, so that their true difference is 0; without a
signal, C is 0.5 and the hazard ratio of the groups 1. With one, the truth is what models of that many training patients
have in the population, on average over cohorts. `benchmarks.coverage` does the same for one rule that is never fitted, whose
intervals need not know of training.

Found is the share of cohorts in which a test at 5 % rejects, or a 95 % interval misses; with it Wilson's interval. All goes
into `reports/metrics/type-one.json`, the rows of single cohorts into `--rows`.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Iterable
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from joblib import delayed
from scipy.stats import binomtest
from tqdm import tqdm

from survpack import params, paths, splits
from survpack.inference import corrected_resampled_test, of_patients, paired_difference
from survpack.metrics import concordance, p_values, scores
from survpack.models import Patients, build
from survpack.phantom.shared import FollowUp, Weibull
from survpack.processes import workers
from survpack.prognosis import Prognosis, time_grid

HORIZON, FOLDS, POPULATION = 365.0, 5, 2000
SURVIVAL = Weibull(shape=1.2, scale_days=430.0)  # as in the mets phantom
METRICS = ("harrell_c", "uno_c", "auc", "ibs", "hazard_ratio")
FEW = {"trees": 60, "budget": 1}  # of forests: hundreds of them are grown
MODELS = {"Cox": "clinical-cox", "elastic net": "radiomics-coxnet", "forest": "clinical-radiomics-rsf", "hybrid": "hybrid-compact-cox"}  # fmt: skip
CHART, MEASURED, SIDE = 8, 60, 16  # columns of a chart, features, voxels a side of an image


class Setting(NamedTuple):
    """A cohort's size, how much it dies of what models see, and how long it is followed."""

    patients: int
    signal: float  # log hazard ratio per standard deviation of what each of the two models sees
    followed: FollowUp


LONG, SHORT = FollowUp(1100, 2200, 8000), FollowUp(300, 330, 1500)  # nine tenths die, three tenths


def drawn(setting: Setting, patients: int, model: str, seed) -> list[Patients]:
    """The same patients as two models see them, through columns of their own."""
    rng = np.random.default_rng(seed)
    seen = rng.normal(size=(2, patients))
    death = np.ceil(SURVIVAL.draw_days(rng, setting.signal * seen.sum(axis=0)))
    last = np.ceil(setting.followed.draw_days(rng, patients)).clip(1)
    ids = pd.Index([f"{number:05d}" for number in range(patients)], name="patient_id")
    outcome = pd.DataFrame({"time_days": np.minimum(death, last), "event": death <= last, "site": "one"}, ids)
    return [_patients(outcome, model, own, rng) for own in seen]


def _patients(outcome: pd.DataFrame, model: str, seen: np.ndarray, rng) -> Patients:
    """One model's sight of `seen`: a column of the chart, a few of the features, or the brightness of the lesion."""
    size, image = len(outcome), model == "hybrid"
    chart = pd.DataFrame(rng.normal(size=(size, CHART)), outcome.index, [f"x{k}" for k in range(CHART)])
    features = pd.DataFrame(
        rng.normal(size=(size, MEASURED if model in ("elastic net", "forest") else 1)), outcome.index
    )
    features.columns = [f"rad_given_{k}" for k in features]
    images = masks = np.zeros((size, 0, 1, 1, 1), np.float32)
    if image:
        ball = sum(axis**2 for axis in np.ogrid[(slice(-1, 1, SIDE * 1j),) * 3]) < 0.3
        masks = np.broadcast_to(ball, (size, 1, *ball.shape)).astype(np.float32)
        images = rng.normal(size=masks.shape).astype(np.float32) + masks * seen[:, None, None, None, None].astype(
            np.float32
        )
    elif model == "Cox":
        chart["x0"] = seen
    else:
        features.iloc[:, :3] = (0.8 * seen[:, None] + 0.6 * features.iloc[:, :3]).to_numpy()
    about = {name: {"kind": "numeric", "unit": "1"} for name in chart}
    nothing, original = features[[]], pd.concat({"original": features[:0]}, names=["perturbation"]).swaplevel()
    present = np.ones(images.shape[:2], bool)
    return Patients(
        outcome, chart, features, nothing, nothing, original, images, masks, present, ["ct"] * image, about, "drawn"
    )


def cross_validated(model: str, patients: Patients, choices: params.Params, repeat: int, population: Patients | None):
    """Out-of-fold predictions, and C of each fold's model in the population."""
    outcome = patients.outcome.reset_index()
    fold = splits._folds(outcome, FOLDS, 7 + repeat).to_numpy()
    times = time_grid(choices.curves, [HORIZON])
    parts, true = [], []
    for held in range(FOLDS):
        fitted = build(MODELS[model], choices).fit(patients.take(patients.outcome.index[fold != held]))
        said = fitted.predict(patients.take(patients.outcome.index[fold == held]), times)
        keys = {"cohort": "drawn", "model": model, "seed": 0, "repeat": repeat, "fold": held, "split": "cv"}
        table = pd.DataFrame(
            {**keys, "patient_id": patients.outcome.index[fold == held], "risk": said.risk, "days": said.days}
        )
        table["high_risk"] = table["risk"] > fitted.usual_risk
        parts.append(
            pd.concat([table, pd.DataFrame(said.survival, columns=[f"s_{k}" for k in range(len(times))])], axis=1)
        )
        if population is not None:
            everyone = population.outcome
            true.append(concordance(everyone["time_days"].to_numpy(), everyone["event"].to_numpy(), fitted.predict(population, times).risk))  # fmt: skip
    return Prognosis(pd.concat(parts, ignore_index=True), times), float(np.mean(true)) if true else np.nan


def one_cohort(setting: Setting, model: str, seed, repeats: int, resamples: int) -> dict:
    """A row: every interval and test of one cohort."""
    warnings.simplefilter("ignore")
    choices = params.load("smoke") if model == "hybrid" else params.load()
    chosen = choices.scores.model_copy(update={"bootstrap": resamples})
    choices = choices.model_copy(update={"classical": choices.classical.model_copy(update=FEW), "scores": chosen})
    both = drawn(setting, setting.patients, model, seed)
    population = drawn(setting, POPULATION, model, [*seed, 1]) if setting.signal else [None, None]
    said = [cross_validated(model, one, choices, 0, everyone) for one, everyone in zip(both, population, strict=True)]
    (first, true), (second, _) = said
    outcome = both[0].outcome.reset_index()
    score = partial(scores, first, outcome, outcome, HORIZON, metrics=METRICS)
    found = of_patients(lambda counts: score(counts=counts), first, chosen)
    again = {"repeats": resamples, "confidence": chosen.confidence, "seed": chosen.seed}
    difference = paired_difference(first, second, outcome, "harrell_c", train_outcome=outcome, horizon=HORIZON, **again)
    row = {"events": int(outcome["event"].sum()), "true": true, "logrank_p": p_values(first, outcome)["logrank"]}
    row |= {f"{name}_{end}": one[end] for name, one in found.items() for end in ("estimate", "low", "high")}
    row |= {f"difference_{end}": difference[end] for end in ("estimate", "low", "high", "p")}
    if repeats > 1:
        row["repeated_p"] = _repeated(both, model, choices, repeats, said)
    return row


def _repeated(both: list[Patients], model: str, choices, repeats: int, said) -> float | None:
    """p of Nadeau and Bengio's test over repeated cross-validation, a difference a fold."""
    outcome, differences = both[0].outcome, []
    for repeat in range(repeats):
        pair = (
            [one[0] for one in said]
            if not repeat
            else [cross_validated(model, one, choices, repeat, None)[0] for one in both]
        )
        for fold in range(FOLDS):
            values = []
            for one in pair:
                rows = one.table[one.table["fold"] == fold]
                known = outcome.loc[rows["patient_id"]]
                values.append(
                    concordance(known["time_days"].to_numpy(), known["event"].to_numpy(), rows["risk"].to_numpy())
                )
            differences.append(values[0] - values[1])
    held = len(outcome) / FOLDS
    return corrected_resampled_test(differences, len(outcome) - held, held)["p"]


def found(rows: pd.DataFrame) -> dict[str, dict]:
    """Test or interval to `{"nominal", "found", "low", "high"}` of the cohorts of one setting."""
    null, level = not rows["true"].notna().any(), 0.05
    outside = {
        "concordance, interval": _misses(rows, "harrell_c", 0.5 if null else rows["true"].mean()),
        "difference, interval": _misses(rows, "difference", 0.0),
        "difference, p": rows["difference_p"] < level,
    }
    if null:
        outside |= {f"{name}, interval": _misses(rows, name, 0.5) for name in ("uno_c", "auc")}
        outside |= {
            "hazard ratio, interval": _misses(rows, "hazard_ratio", 1.0),
            "log-rank, p": rows["logrank_p"] < level,
        }
    if "repeated_p" in rows:
        outside["difference over repeats, p"] = rows["repeated_p"] < level
    told = {}
    for name, each in outside.items():
        share = binomtest(int(each.sum()), len(each)).proportion_ci(0.95, method="wilson")
        told[name] = {"nominal": level, "found": float(each.mean()), "low": float(share.low), "high": float(share.high)}
    return told


def _misses(rows: pd.DataFrame, name: str, true: float) -> pd.Series:
    return (rows[f"{name}_low"] > true) | (rows[f"{name}_high"] < true)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.type_one", description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--models", nargs="+", default=["Cox", "elastic net", "forest"], choices=list(MODELS))
    parser.add_argument("--patients", type=int, nargs="+", default=[50, 118, 300])
    parser.add_argument("--signals", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--follow-up", nargs="+", default=["long", "short"], choices=["long", "short"])
    parser.add_argument("--repeats", type=int, default=1, help="of cross-validation, for the test over repeats")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--rows", type=Path, help="a parquet of single cohorts")
    parser.add_argument("--out", type=Path, default=paths.METRICS / "type-one.json")
    asked = parser.parse_args(arguments)
    told, kept = {}, []
    followed = {"long": LONG, "short": SHORT}
    for number, (model, size, signal, length) in enumerate(
        product(asked.models, asked.patients, asked.signals, asked.follow_up)
    ):
        setting = Setting(size, signal, followed[length])
        jobs = [
            delayed(one_cohort)(setting, model, [71, number, k], asked.repeats, asked.resamples)
            for k in range(asked.cohorts)
        ]
        label = f"{model}, {size} patients, signal {signal:g}, {length} follow-up"
        rows = pd.DataFrame(list(tqdm(workers(return_as="generator")(jobs), label, len(jobs), mininterval=5)))
        kept.append(rows.assign(model=model, patients=size, signal=signal, follow_up=length))
        told[label] = {
            "model": model,
            "patients": size,
            "signal": signal,
            "events": float(rows["events"].mean()),
            "tests": found(rows),
        }
        print(
            label,
            f"({rows['events'].mean():.0f} events)\n",
            pd.DataFrame(told[label]["tests"]).T.round(3).to_string(),
            flush=True,
        )
    if asked.rows:
        pd.concat(kept, ignore_index=True).to_parquet(asked.rows)
    with paths.written_whole(asked.out) as part:
        part.write_text(json.dumps({"cohorts": asked.cohorts, "settings": told}, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
