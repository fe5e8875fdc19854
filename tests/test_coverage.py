"""The simulation that counts how often our intervals hold the truth: its truth is right, and it can fail."""

import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from benchmarks import coverage as benchmark
from benchmarks.coverage import SETTINGS, SURVIVAL, covered, drawn, shares, truth
from survpack import inference

TIMES = np.array([180.0, 365.0, 730.0])


@pytest.fixture(scope="module")
def exact():
    return truth(SETTINGS["held out"], TIMES, population=100_000)


def test_the_populations_brier_score_is_the_integral_over_its_two_normals(exact):
    """E (S(t) - 1[T > t])², S of the rule, by quadrature over what the rule sees and what it does not."""
    hazard = (TIMES[1] / SURVIVAL.scale_days) ** SURVIVAL.shape

    def at(seen):
        said = np.exp(-hazard * np.exp(seen))
        unseen = np.linspace(-6, 6, 400)
        risk = np.exp(benchmark.FORESEEN * seen + benchmark.UNFORESEEN * unseen)
        alive = np.trapezoid(np.exp(-hazard * risk) * norm.pdf(unseen), unseen)
        return norm.pdf(seen) * (alive * (1 - said) ** 2 + (1 - alive) * said**2)

    # days are whole, rounded up, so that T > 365 is the same before and after; 100,000 patients: error 0.0007
    assert exact.brier[1] == pytest.approx(quad(at, -8, 8)[0], abs=0.003)


def test_unos_c_without_a_last_day_is_the_share_of_all_pairs_in_closed_form():
    """Proportional hazards: the pair's odds are exp of the difference of its log hazards, whatever the baseline."""
    exact = truth(SETTINGS["held out"]._replace(follow_up=benchmark.FollowUp(1, 1e6, 1e9)), TIMES, population=100_000)
    seen, unseen = (spread * np.sqrt(2) for spread in (benchmark.FORESEEN, benchmark.UNFORESEEN))
    other = np.linspace(-6, 6, 400) * unseen

    def won(difference):
        return np.trapezoid(norm.pdf(other, scale=unseen) / (1 + np.exp(-difference - other)), other)

    closed = quad(lambda d: 2 * norm.pdf(d, scale=seen) * won(d), 0, np.inf)[0]
    assert exact.uno_c[-1] == pytest.approx(closed, abs=0.004)
    assert exact.harrell_c == pytest.approx(closed, abs=0.004)  # nobody is censored


def test_intervals_of_the_study_hold_the_truth_about_as_often_as_they_say():
    rows = covered(SETTINGS["held out"], cohorts=60, patients=100, repeats=100, population=20_000)
    assert list(rows) == ["harrell_c", "uno_c", "auc", "ibs", "brier"]
    # 60 cohorts at 95 %: 51 or fewer are held once in 140 times; an interval half as wide holds 40
    assert (rows.sum() >= 51).all(), rows.mean()


def test_intervals_half_as_wide_are_found_out(monkeypatch):
    whole = inference.interval

    def half(*given):
        told = whole(*given)
        middle, reach = (told["low"] + told["high"]) / 2, (told["high"] - told["low"]) / 4
        return {**told, "low": middle - reach, "high": middle + reach}

    monkeypatch.setattr(inference, "interval", half)
    rows = covered(SETTINGS["held out"], cohorts=40, patients=100, repeats=60, population=20_000)
    assert rows.mean().mean() < 0.8


def test_the_last_days_weights_are_estimated_on_the_scored_patients_only_in_cross_validation():
    shared = [drawn(setting, 50, [1, 2]).time_days for setting in (SETTINGS["cross-validated"], SETTINGS["held out"])]
    np.testing.assert_array_equal(*shared)  # the same patients
    events = {name: drawn(one, 4000, [0, 0]).event.mean() for name, one in SETTINGS.items()}
    assert events["held out"] > 0.85 and 0.4 < events["held out, half censored"] < 0.7


def test_shares_come_with_wilsons_interval():
    rows = benchmark.pd.DataFrame({"harrell_c": [True] * 19 + [False]})
    found = shares(rows)["harrell_c"]
    z, p, n = norm.ppf(0.975), 0.95, 20
    middle, half = p + z**2 / (2 * n), z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert (found["low"], found["high"]) == pytest.approx(
        ((middle - half) / (1 + z**2 / n), (middle + half) / (1 + z**2 / n))
    )


def test_the_benchmark_writes_what_the_report_reads(tmp_path):
    out = tmp_path / "coverage.json"
    drawn_as = ["--cohorts", "3", "--patients", "60", "--repeats", "20", "--settings", "held out", "--out", str(out)]
    benchmark.main(drawn_as)
    found = json.loads(out.read_text(encoding="utf-8"))
    assert (found["patients"], found["cohorts"], found["confidence"]) == (60, 3, 0.95)
    assert found["coverage"] == found["settings"]["held out"]
    assert all(set(one) == {"estimate", "low", "high"} for one in found["coverage"].values())
