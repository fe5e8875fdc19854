"""What phantoms share: made again only when asked for another, follow-up as it says, draws as its formulas say."""

import json

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter, WeibullAFTFitter
from scipy.stats import rice

from survpack import phantom
from survpack.errors import BadInput
from survpack.phantom.shared import FollowUp, Weibull, followed, observed, one_by_one, rician, smooth_noise

FACTS = {"weibull_shape": 1.2, "weibull_scale_days": 400.0,
         "follow_up": {"accrual_days": 600, "study_days": 1500, "dropout_days": 3000}}  # fmt: skip
SMALL = {"patients": 2, "sites": 2, "spacing_mm": 8.0, "seed": 3}


def test_a_weibull_model_recovers_shape_scale_and_risk():
    risk = pd.Series(np.random.default_rng(0).normal(size=3000))
    outcome = followed(np.random.default_rng(1), risk, FACTS).assign(risk=risk)
    fit = WeibullAFTFitter().fit(outcome, "time_days", "event")
    shape, scale = np.exp(fit.params_["rho_"]["Intercept"]), np.exp(fit.params_["lambda_"]["Intercept"])
    assert shape == pytest.approx(1.2, rel=0.05) and scale == pytest.approx(400, rel=0.06)
    assert -shape * fit.params_["lambda_"]["risk"] == pytest.approx(1, rel=0.06)


def test_half_of_like_patients_die_before_the_true_median():
    survival = Weibull(1.2, 400.0)
    death = survival.draw_days(np.random.default_rng(0), np.full(8000, 0.7))
    assert np.median(death) == pytest.approx(survival.median_days(0.7), rel=0.04)


def test_nobody_is_followed_beyond_the_close_of_the_study_and_some_are_lost_before():
    last = FollowUp(accrual_days=500, study_days=1200, dropout_days=2000).draw_days(np.random.default_rng(0), 5000)
    assert last.max() < 1200 and (last < 700).mean() == pytest.approx(1 - np.exp(-700 / 2000), abs=0.03)


def test_what_is_observed_is_the_earlier_of_death_and_last_contact_in_whole_days():
    table = observed(np.array([10.2, 500.0, 0.1]), np.array([90.0, 80.5, 5.0]))
    assert table["time_days"].tolist() == [11, 81, 1] and table["event"].tolist() == [True, False, True]


def test_noise_is_of_rice_s_distribution():
    seen = rician(np.random.default_rng(0), np.full((50, 50, 20), 30, dtype=np.float32), 20)
    assert seen.dtype == np.float32 and seen.mean() == pytest.approx(rice.mean(1.5, scale=20), rel=0.01)


def test_smooth_noise_has_unit_variance_and_neighbours_alike():
    field = smooth_noise(np.random.default_rng(0), (40, 40, 40), 3)
    assert field.std() == pytest.approx(1, abs=1e-3) and abs(field.mean()) < 1e-3
    assert np.corrcoef(field[1:].ravel(), field[:-1].ravel())[0, 1] > 0.9


def test_rows_come_in_the_order_of_the_tasks_whatever_the_processes():
    tasks = [(k, 2) for k in range(7)]
    for n_jobs in (1, 2):
        table = one_by_one(_powers, tasks, 7, "powers", n_jobs)
        assert table["power"].tolist() == [k**2 for k in range(7)]


def _powers(number: int, exponent: int) -> dict:
    return {"power": number**exponent}


def test_a_phantom_is_made_again_only_for_other_choices(tmp_path):
    place, truth = tmp_path / "bids", tmp_path / "truth.parquet"
    phantom.ensure("mets", SMALL, place, truth)
    before = (place / "participants.tsv").stat().st_mtime_ns
    phantom.ensure("mets", {**SMALL, "strength": {"rim": 1.0}}, place, truth)  # the default, said aloud
    assert (place / "participants.tsv").stat().st_mtime_ns == before
    phantom.ensure("mets", {**SMALL, "strength": {"rim": 0.0}}, place, truth)
    assert pd.read_parquet(truth)["rim"].eq(0).all()
    assert json.loads(truth.with_suffix(".json").read_text())["choices"]["strength"]["rim"] == 0
    phantom.ensure("mets", {**SMALL, "patients": 3}, place, truth)
    assert len(pd.read_csv(place / "participants.tsv", sep="\t")) == len(pd.read_parquet(truth)) == 3


@pytest.mark.parametrize(
    "choices, said",
    [
        ({"lesions": 3}, r"cohort\.mets has lesions, but takes patients, sites, spacing_mm"),
        ({"strength": {"rims": 2}}, r"cohort\.mets\.strength has rims, but takes clinical, volume, oedema, rim"),
    ],
)
def test_an_unknown_choice_is_refused_with_those_there_are(tmp_path, choices, said):
    with pytest.raises(BadInput, match=said):
        phantom.ensure("mets", choices, tmp_path / "bids", tmp_path / "truth.parquet")


def test_kaplan_meier_of_like_patients_is_the_planted_curve():
    outcome = followed(np.random.default_rng(5), pd.Series(np.zeros(4000)), FACTS)
    curve = KaplanMeierFitter().fit(outcome["time_days"], outcome["event"])
    days = np.array([100, 300, 600])
    np.testing.assert_allclose(curve.survival_function_at_times(days), np.exp(-((days / 400) ** 1.2)), atol=0.03)
