"""The simulation of what is called shown: fair cohorts, the same for the same seed, and shares counted as told."""

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter

from benchmarks import type_one
from benchmarks.type_one import FOLLOWED, HOW, Setting

LONG, SHORT = FOLLOWED["long"], FOLLOWED["short"]


@pytest.mark.parametrize("model", ["Cox", "elastic net", "hybrid"])
def test_two_models_see_the_same_patients_through_columns_of_their_own_that_are_worth_the_same(model):
    first, second = type_one.drawn(Setting(3000, 0.5, LONG), 3000, model, 3)
    pd.testing.assert_frame_equal(first.outcome, second.outcome)
    seen = []
    for one in (first, second):
        shown = {"Cox": lambda p: p.clinical["x0"].to_numpy(), "elastic net": lambda p: p.biomarkers.iloc[:, :3].mean(axis=1).to_numpy(),
                 "hybrid": lambda p: (p.images * p.masks).sum(axis=(1, 2, 3, 4))}[model](one)  # fmt: skip
        seen.append((shown - shown.mean()) / shown.std())
    table = first.outcome[["time_days", "event"]].assign(a=seen[0], b=seen[1]).reset_index(drop=True)
    fitted = CoxPHFitter().fit(table, "time_days", "event").params_
    assert abs(np.corrcoef(*seen)[0, 1]) < 0.05
    assert fitted.to_numpy() == pytest.approx([0.5, 0.5], abs=0.1) if model == "Cox" else (fitted > 0.2).all()


def test_without_a_signal_nothing_is_told_and_follow_up_decides_how_many_die():
    long, short = (type_one.drawn(Setting(2000, 0.0, follow), 2000, "Cox", 5)[0] for follow in (LONG, SHORT))
    assert long.outcome["event"].mean() > 0.8 > 0.4 > short.outcome["event"].mean()
    table = long.outcome[["time_days", "event"]].assign(x=long.clinical["x0"])
    assert CoxPHFitter().fit(table, "time_days", "event").summary["p"].iloc[0] > 0.01


def test_a_cohort_is_the_same_for_the_same_seed_and_a_strong_signal_is_found():
    setting = Setting(60, 0.6, LONG)
    rows = [type_one.one_cohort(setting, "Cox", [1, 2], 1, 20) for _ in range(2)]
    assert rows[0] == rows[1]
    held, widened = ([rows[0][f"harrell_c_{end}, {how}"] for end in ("low", "estimate", "high")] for how in HOW)
    assert rows[0]["true"] > 0.55 and widened[0] < held[0] < held[1] == widened[1] < held[2] < widened[2]
    assert held[1] > 0.5


def test_shares_are_of_intervals_that_miss_and_of_p_below_the_level():
    rows = pd.DataFrame({"true": [np.nan] * 4})
    for how in HOW:
        rows[f"difference_p, {how}"], rows[f"logrank_p, {how}"] = [0.01, 0.2, 0.04, 0.9], [0.5, 0.5, 0.5, 0.01]
        for name in ("harrell_c", "uno_c", "auc", "hazard_ratio", "difference"):
            rows[f"{name}_low, {how}"], rows[f"{name}_high, {how}"] = [0.4, 0.6, 1.1, -1.0], [0.7, 0.9, 1.2, -0.5]
    found = type_one.found(rows)
    for how in HOW:
        shares = {
            name: found[f"{name}, {how}"]["found"] for name in ("concordance, interval", "hazard ratio, interval")
        }
        assert shares == {"concordance, interval": 0.75, "hazard ratio, interval": 1.0}
        assert found[f"difference, p, {how}"]["found"] == 0.5 and found[f"log-rank, p, {how}"]["found"] == 0.25
    assert all(one["nominal"] == 0.05 and one["low"] <= one["found"] <= one["high"] for one in found.values())


def test_the_error_is_how_far_the_bootstraps_own_falls_short_of_what_cohorts_differ_by():
    rng, how = np.random.default_rng(0), next(iter(HOW))
    rows = pd.DataFrame({f"{name}_estimate, {how}": rng.normal(0, 1.3, 20_000) for name in ("harrell_c", "difference")})
    for name in ("harrell_c", "difference"):
        rows[f"{name}_low, {how}"], rows[f"{name}_high, {how}"] = -1.96, 1.96
    assert type_one.error(rows) == pytest.approx({"harrell_c": 1.3, "difference": 1.3}, abs=0.03)
