"""What recalibration makes of curves that are too wide or too narrow, by how patients are censored.

`python -m benchmarks.recalibration` draws 1,000 cohorts of 118 patients for each true slope and kind of censoring, learns
the recalibration and applies it to new patients whose survival is known; it writes reports/metrics/recalibration.json.
Beside the curves as predicted stand three ways of making up for the censored: weights by Kaplan–Meier (ours), weights by
a Cox model of censoring on the risk (the sensitivity analysis), and pseudo-values by the jackknife (Andersen, Klein,
Rosthøj 2003, doi:10.1093/biomet/90.1.15), fitted by least squares. One cohort in 20 is learnt with its band.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import least_squares
from scipy.stats import norm
from tqdm import tqdm

from benchmarks.coverage import SURVIVAL
from survpack import paths
from survpack.prognosis import Prognosis, curve_at
from survpack.recalibration import TOWARDS, Recalibration, dependent_weights, fitted, fixed_days

DAYS = np.array([183.0, 365.0, 730.0])
GRID = SURVIVAL.scale_days * np.geomspace(0.02, 6, 40)
SLOPES = (0.5, 1.0, 2.0)  # below 1 the model's curves lie too wide
SPREAD = 0.8  # of the true log hazard
NEW = SPREAD * norm.ppf((np.arange(200) + 0.5) / 200)
KINDS = {  # day of censoring, of the generator and the log hazards
    "random": lambda rng, risk: rng.exponential(1500, len(risk)),
    "administrative": lambda rng, risk: rng.uniform(365, 1100, len(risk)),
    "dependent": lambda rng, risk: rng.exponential(1500 * np.exp(-risk)),
}
WAYS = ("as predicted", "weights", "dependent weights", "pseudo-values")
WITH_BAND = 20


def curves(risk, days=GRID) -> np.ndarray:
    """Survival of each log hazard on each day."""
    return np.exp(-((days / SURVIVAL.scale_days) ** SURVIVAL.shape) * np.exp(risk)[:, None])


def drawn(kind: str, patients: int, seed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True log hazard, and what is known of the day of death."""
    rng = np.random.default_rng(seed)
    risk = rng.normal(0, SPREAD, patients)
    death, last = SURVIVAL.draw_days(rng, risk), KINDS[kind](rng, risk)
    return risk, np.minimum(death, last), death <= last


def learnt(way: str, told, time, event) -> Recalibration:
    """Level and slope by one of `WAYS`, without a band."""
    days = fixed_days(GRID, time, event)
    score = np.log(-np.log(np.clip(curve_at(told, GRID, days), 1e-4, 1 - 1e-4)))
    if way == "pseudo-values":
        found = by_pseudo_values(time, event, score, days)
    else:
        other = {"weights": dependent_weights(time, event, score.mean(1), days)} if way.startswith("dependent") else {}
        found = fitted(time, event, score, days, **other)
    none = np.zeros((len(days) + 1,) * 2)
    return Recalibration(days, score.mean(0), found[:-1], found[-1], none, 0.0, 0.95, len(time), int(event.sum()))


def by_pseudo_values(time, event, score, days) -> np.ndarray:
    """`recalibration.fitted` on pseudo-values of the event, with their variance taken as constant."""
    risk = np.column_stack([pseudo_values(time, event, day) for day in days])
    apart = score - score.mean(0)

    def distance(found):
        hazard = np.exp(np.clip(score + found[:-1] + (found[-1] - 1) * apart, -30, 5))
        towards = np.sqrt(TOWARDS / 4) * np.r_[found[:-1], len(days) ** 0.5 * (found[-1] - 1)]
        return np.r_[(risk + np.expm1(-hazard)).ravel(), towards]

    return least_squares(distance, np.r_[np.zeros(len(days)), 1.0]).x


def pseudo_values(time, event, day) -> np.ndarray:
    """n F − (n − 1) F without the patient, F the risk by Kaplan–Meier; of days without ties."""
    order, size = np.argsort(time), len(time)
    died = (event & (time <= day))[order]
    at_risk = size - np.arange(size)
    first = np.cumprod(1 - np.divide(died, at_risk - 1, out=died * 1.0, where=at_risk > 1))  # he is not at risk
    then = np.cumprod((1 - died / at_risk)[::-1])[::-1]
    without = np.r_[1, first[:-1]] * np.r_[then[1:], 1]
    found = np.empty(size)
    found[order] = size * (1 - then[0]) - (size - 1) * (1 - without)
    return found


def covered(slope: float, risk, time, event) -> float:
    """Share of new patients whose whole true curve lies in the band, up to the last fixed day."""
    names = [f"{number:04d}" for number in range(len(risk))]
    keys = {"cohort": "drawn", "model": "rule", "seed": 0, "repeat": 0, "fold": 0, "split": "cv", "patient_id": names}
    table = pd.DataFrame({**keys, "risk": risk, "days": 1.0})
    said = pd.DataFrame(curves(risk / slope), columns=[f"s_{k}" for k in range(len(GRID))])
    outcome = pd.DataFrame({"patient_id": names, "time_days": time, "event": event})
    _, low, high = Recalibration.learn(Prognosis(table.join(said), GRID), outcome).apply(curves(NEW / slope), GRID)
    truth = curves(NEW)
    return float(((low <= truth + 1e-9) & (truth <= high + 1e-9)).all(axis=1).mean())


def summary(kind: str, slope: float, *, cohorts=1000, patients=118, seed=17, ways=WAYS, bands=True) -> dict:
    """Of each way, day by day: mean error of S with its Monte Carlo error, largest mean error of a quarter, RMSE."""
    truth, told = curves(NEW, DAYS), curves(NEW / slope)
    errors, held = {way: [] for way in ways}, []
    for number in range(cohorts):
        risk, time, event = drawn(kind, patients, [seed, number])
        for way in ways:
            found = curves(NEW / slope, DAYS)
            if way != "as predicted":
                rule = learnt(way, curves(risk / slope), time, event)
                found = curve_at(rule.apply(told, GRID)[0], GRID, DAYS)
            errors[way].append(found - truth)
        if bands and number % WITH_BAND == 0:
            held.append(covered(slope, risk, time, event))
    return {way: _figures(np.array(one)) for way, one in errors.items()} | {
        "band": {"nominal": 0.95, "found": float(np.mean(held)) if held else None, "cohorts": len(held)}
    }


def _figures(errors) -> dict:
    quarters = errors.mean(0).reshape(4, -1, len(DAYS)).mean(1)
    found = {
        "bias": errors.mean((0, 1)),
        "error": errors.mean(1).std(0) / np.sqrt(len(errors)),
        "worst_quarter": np.take_along_axis(quarters, np.abs(quarters).argmax(0)[None], 0)[0],
        "rmse": np.sqrt((errors**2).mean((0, 1))),
    }
    return {name: values.round(4).tolist() for name, values in found.items()}


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohorts", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=118)
    parser.add_argument("--out", type=Path, default=paths.METRICS / "recalibration.json")
    chosen = parser.parse_args(arguments)
    settings = [(kind, slope) for kind in KINDS for slope in SLOPES]
    asked = {"cohorts": chosen.cohorts, "patients": chosen.patients}
    found = {kind: {} for kind in KINDS}
    for kind, slope in tqdm(settings, desc="settings"):
        found[kind][f"{slope:g}"] = summary(kind, slope, **asked)
    truth = curves(NEW, DAYS).mean(0).round(4).tolist()
    text = json.dumps(asked | {"days": DAYS.tolist(), "truth": truth, "censoring": found}, indent=1)
    with paths.written_whole(chosen.out) as part:
        part.write_text(text + "\n", encoding="utf-8")
    rows = [(kind, slope, way, *one["bias"], *one["worst_quarter"], *one["rmse"])
            for kind, slopes in found.items() for slope, ways in slopes.items() for way, one in ways.items() if way in WAYS]  # fmt: skip
    columns = [f"{name} {day:.0f}" for name in ("bias", "quarter", "rmse") for day in DAYS]
    print(pd.DataFrame(rows, columns=["censoring", "slope", "way", *columns]).to_string(index=False))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
