"""How often what the page calls shown is nothing: cohorts drawn again and again, and every model fitted anew on each.

`python -m benchmarks.type_one` draws cohorts from a known population and cross-validates the study's own models on them, as
stage 03 does; on the predictions it makes the study's own intervals and tests (`survpack.inference`, `survpack.metrics`).
Two models of one kind see columns of their own that are worth the same, so that their true difference is 0; without a
signal, C is 0.5 and the hazard ratio of the groups 1. With one, the truth is what models of that many training patients
have in the population, on average over cohorts. `benchmarks.coverage` does the same for one rule that is never fitted, whose
intervals need not know of training.

Found is the share of cohorts in which a test at 5 % rejects, or a 95 % interval misses; with it Wilson's interval: of the
fits held fixed, and with the `scores.inflation` of params.yaml. All goes into `reports/metrics/type-one.json`, the rows of
single cohorts into `--rows`; what `scores.inflation` should be is printed (`error`): the standard deviation over cohorts in
the bootstrap's standard error. Without signal it cannot pass √2 by much: a pair of patients in two folds counts twice,
taught by one and tested on the other and the other way round, which the bootstrap takes for two pairs.
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
from survpack.inference import (
    _resampled,
    concordance_of,
    corrected_resampled_test,
    folds_of,
    interval,
    paired_difference,
)
from survpack.metrics import concordance, p_values, scores
from survpack.models import Patients, build
from survpack.phantom.shared import FollowUp, Weibull
from survpack.processes import workers
from survpack.prognosis import Prognosis, time_grid

HORIZON, FOLDS, POPULATION = 365.0, 5, 2000
SURVIVAL = Weibull(shape=1.2, scale_days=430.0)  # as in the mets phantom
METRICS = ("harrell_c", "uno_c", "auc", "hazard_ratio")
FEW = {"trees": 60, "budget": 1}  # of forests: hundreds of them are grown
HOW = {"fits held fixed": False, "widened": True}
MODELS = {"Cox": "clinical-cox", "elastic net": "radiomics-coxnet", "forest": "clinical-radiomics-rsf", "hybrid": "hybrid-compact-cox"}  # fmt: skip
CHART, MEASURED, SIDE = 8, 60, 16  # columns of a chart, features, voxels a side of an image


class Setting(NamedTuple):
    """A cohort's size, how much it dies of what models see, and how long it is followed."""

    patients: int
    signal: float  # log hazard ratio per standard deviation of what each of the two models sees
    followed: FollowUp


FOLLOWED = {"long": FollowUp(1100, 2200, 8000), "short": FollowUp(300, 330, 1500)}  # nine tenths die, three tenths


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
    choices = params.load()
    chosen = choices.scores.model_copy(update={"bootstrap": resamples})
    choices = choices.model_copy(update={"classical": choices.classical.model_copy(update=FEW), "scores": chosen})
    both = drawn(setting, setting.patients, model, seed)
    population = drawn(setting, POPULATION, model, [*seed, 1]) if setting.signal else [None, None]
    said = [cross_validated(model, one, choices, 0, everyone) for one, everyone in zip(both, population, strict=True)]
    (first, true), (second, _) = said
    outcome = both[0].outcome.reset_index()
    reached = [concordance_of(one, outcome) for one in (first, second)]
    score, row = partial(scores, first, outcome, outcome, HORIZON, metrics=METRICS), {"true": true}
    sampled = _resampled(lambda counts: score(counts=counts), len(outcome), resamples, chosen.seed, folds_of(first))
    for how, fitted in HOW.items():
        wider = chosen.inflation.at(reached[0]) if fitted else 1.0
        each = {name: [one[name] for one in sampled] for name in METRICS}
        found = {
            name: interval(own, again, chosen.confidence, left, wider) for name, (own, again, left) in each.items()
        }
        again = {"train_outcome": outcome, "horizon": HORIZON, **chosen.resampling(np.mean(reached), fitted=fitted)}
        found["difference"] = paired_difference(first, second, outcome, "harrell_c", **again)
        row |= {f"{name}_{end}, {how}": value for name, one in found.items() for end, value in one.items()}
        row[f"logrank_p, {how}"] = p_values(first, outcome, chosen.inflation.at(reached[0]) if fitted else 1.0)[
            "logrank"
        ]
    if repeats > 1:
        row |= _repeated(both, model, choices, repeats, said)
    return row | {"events": int(outcome["event"].sum())}


def _repeated(both: list[Patients], model: str, choices, repeats: int, said) -> dict[str, float | None]:
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
    test = partial(corrected_resampled_test, differences, len(outcome) - held, held)
    wider = choices.scores.inflation.repeats
    return {f"repeated_p, {how}": test(inflation=wider if fitted else 1.0)["p"] for how, fitted in HOW.items()}


def found(rows: pd.DataFrame) -> dict[str, dict]:
    """Test or interval to `{"nominal", "found", "low", "high"}`, of the cohorts of one setting."""
    null, level, outside = not rows["true"].notna().any(), 0.05, {}
    for how in HOW:
        own = rows.filter(regex=f", {how}$").rename(columns=lambda name, how=how: name.removesuffix(f", {how}"))
        each = {
            "concordance, interval": _misses(own, "harrell_c", 0.5 if null else rows["true"].mean()),
            "difference, interval": _misses(own, "difference", 0.0),
            "difference, p": own["difference_p"] < level,
        }
        if null:
            each |= {
                "Uno's concordance, interval": _misses(own, "uno_c", 0.5),
                "AUC, interval": _misses(own, "auc", 0.5),
                "hazard ratio, interval": _misses(own, "hazard_ratio", 1.0),
                "log-rank, p": own["logrank_p"] < level,
            }
        outside |= {f"{name}, {how}": missed for name, missed in each.items()}
        if "repeated_p" in own:
            outside[f"difference over repeats, p, {how}"] = own["repeated_p"] < level
    told = {}
    for name, each in outside.items():
        share = binomtest(int(each.sum()), len(each)).proportion_ci(0.95, method="wilson")
        told[name] = {"nominal": level, "found": float(each.mean()), "low": float(share.low), "high": float(share.high)}
    return told


def error(rows: pd.DataFrame) -> dict[str, float]:
    """Standard deviation over cohorts in the root mean square of the bootstrap's own, by what it is of."""
    how, z = next(iter(HOW)), 2 * 1.96
    own = {name: rows[f"{name}_estimate, {how}"].std() for name in ("harrell_c", "difference")}
    return {
        name: sd / np.sqrt((((rows[f"{name}_high, {how}"] - rows[f"{name}_low, {how}"]) / z) ** 2).mean())
        for name, sd in own.items()
    }


def _misses(rows: pd.DataFrame, name: str, true: float) -> pd.Series:
    return (rows[f"{name}_low"] > true) | (rows[f"{name}_high"] < true)


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.type_one", description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=400)
    parser.add_argument("--models", nargs="+", default=["Cox", "elastic net", "forest"], choices=list(MODELS))
    parser.add_argument("--patients", type=int, nargs="+", default=[50, 118, 300])
    parser.add_argument("--signals", type=float, nargs="+", default=[0.0, 0.5])
    parser.add_argument("--follow-up", nargs="+", default=["long", "short"], choices=list(FOLLOWED))
    parser.add_argument("--repeats", type=int, default=1, help="of cross-validation, for the test over repeats")
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=71, help="of the cohorts; the factors were chosen on another")
    parser.add_argument("--rows", type=Path, help="a parquet of single cohorts")
    parser.add_argument("--out", type=Path, default=paths.METRICS / "type-one.json")
    asked = parser.parse_args(arguments)
    told, kept = json.loads(asked.out.read_text()) if asked.out.exists() else {}, []
    settings = product(asked.models, asked.patients, asked.signals, asked.follow_up)
    for number, (model, size, signal, length) in enumerate(settings):
        setting = Setting(size, signal, FOLLOWED[length])
        jobs = [
            delayed(one_cohort)(setting, model, [asked.seed, number, k], asked.repeats, asked.resamples)
            for k in range(asked.cohorts)
        ]
        about = f"{'no signal' if not signal else f'signal {signal:g}'}, {length} follow-up"
        rows = pd.DataFrame(list(tqdm(workers(return_as="generator")(jobs), f"{model}, {size}, {about}", len(jobs))))
        kept.append(rows.assign(model=model, patients=size, signal=signal, follow_up=length))
        events = f"{rows['events'].mean():.0f} events"
        print(f"{model}, {size} patients, {about}: {events}, {len(rows)} cohorts; error {error(rows)}")
        for name, one in found(rows).items():
            told.setdefault(f"{name} ({about})", {}).setdefault(model, {})[str(size)] = one
            print(f"  {name}: {one['found']:.3f} ({one['low']:.3f} to {one['high']:.3f})", flush=True)
    if asked.rows:
        pd.concat(kept, ignore_index=True).to_parquet(asked.rows)
    with paths.written_whole(asked.out) as part:
        part.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
