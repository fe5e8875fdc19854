"""Leaks are what they are called and nothing else leaks; the ceiling is that of the hazard, and nobody beats it."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from survpack import audit
from survpack.errors import BadInput
from survpack.figures.audit import audit as audit_figure
from survpack.figures.audit import ceiling_by_noise
from survpack.metrics.days import mae_days, r2
from survpack.phantom import ceiling, mets
from survpack.study import Study

FEW = {"slices": 8, "folds": 3, "epochs": 25, "batch_size": 16, "augmentations": 4, "learning_rate": 0.01}


class TinyNet(nn.Module):
    """Stands in for EfficientNet at a thousandth of its cost."""

    def __init__(self, channels: int, labels: int):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.width = 4


@pytest.fixture
def study(tmp_path, monkeypatch, study_of, make_patients, params) -> Study:
    """Forty patients whose scan, chart and radiomics know nothing of their outcome."""
    monkeypatch.setitem(audit.ENCODERS, "efficientnet-2d", TinyNet)
    monkeypatch.setattr(audit, "in_parallel", lambda jobs, label: [function(*given) for function, given in jobs])
    patients = make_patients(40, voxels=8)
    patients.outcome["time_days"] = np.random.default_rng(1).permutation(patients.outcome["time_days"])
    chosen = {"audit": params.audit.model_copy(update=FEW),
              "scores": params.scores.model_copy(update={"bootstrap": 30})}  # fmt: skip
    return replace(study_of(tmp_path / "toy", patients), params=params.model_copy(update=chosen))


@pytest.fixture
def bank(study):
    return audit.slices(study.patients, study, copies=True)


def on_both_sides(bank, fold) -> np.ndarray:
    """Share of the patients some of whose samples are in one fold and some in another."""
    return pd.Series(fold).groupby(bank.patient).nunique().gt(1).mean()


@settings(max_examples=30)
@given(st.integers(6, 40), st.integers(1, 3), st.integers(2, 6), st.integers(2, 3), st.integers(0, 999))
def test_a_unit_is_in_one_fold_only_and_every_sample_is_held_out_once(patients, copies, slices, folds, seed):
    numbers = [one.ravel() for one in np.indices((patients, copies, slices))]
    bank = audit.Bank(torch.zeros(len(numbers[0])), *numbers)
    choice = SimpleNamespace(folds=folds, seed=seed)
    event = np.arange(patients) % 2 == 0
    for unit in ("patient", "copy", "slice"):
        units = bank.units(unit)
        fold = audit.folds_of(units, event[bank.patient], choice)
        assert set(fold) == set(range(folds))
        assert pd.Series(fold).groupby(units).nunique().eq(1).all()
        inner, train = audit._inner(units, event[bank.patient], seed)
        assert not set(units[inner]) & set(units[train]) and len(inner) + len(train) == len(units)
    assert on_both_sides(bank, audit.folds_of(bank.units("patient"), event[bank.patient], choice)) == 0


def test_only_splits_of_copies_and_slices_have_a_patient_on_both_sides(study, bank):
    event = study.patients.outcome["event"].to_numpy()[bank.patient]
    shares = {unit: on_both_sides(bank, audit.folds_of(bank.units(unit), event, study.params.audit))
              for unit in ("patient", "copy", "slice")}  # fmt: skip
    assert shares["patient"] == 0
    assert min(shares["copy"], shares["slice"]) > 0.7


def test_slices_are_the_middle_of_the_crop_and_copies_differ_from_the_original(study):
    few = study.params.audit.model_copy(update={"slices": 4})
    patients = study.patients
    bank = audit.slices(patients, replace(study, params=study.params.model_copy(update={"audit": few})), copies=True)
    first = (bank.patient == 7) & (bank.copy == 0)
    whole = np.concatenate([patients.images[7], patients.masks[7]])
    for image, number in zip(bank.images[first].numpy(), bank.slice[first], strict=True):
        np.testing.assert_array_equal(image, whole[..., 2 + number])  # 4 of 8: from the third on
    other = bank.images[(bank.patient == 7) & (bank.copy == 1)]
    assert not torch.equal(other, bank.images[first])


def test_of_data_that_know_nothing_only_the_leaky_protocols_predict(study):
    predicted = audit.predictions(study)
    scores = audit.score(predicted, study).pivot(index="protocol", columns="metric", values="estimate")["r2"]
    assert scores["slices"] > 0.9 and scores["augmented"] > 0.6 and scores["all"] > 0.9
    assert max(scores["clean"], scores["deaths-only"]) < 0.1
    assert scores["deaths-only"] < scores["best-epoch"] < scores["slices"]
    assert set(predicted["patient_id"]) == set(study.development)  # and nobody of the locked test set
    once = predicted[predicted["fit"].isin(["patients", "censored", "everything"])]
    assert not once.duplicated(["fit", "patient_id"]).any()


@pytest.mark.parametrize("name", audit.FITS)
def test_only_a_fit_on_everyone_knows_the_outcomes_of_the_held_out(study, name):
    few = study.params.audit.model_copy(update={"epochs": 2, "augmentations": 1, "slices": 2})
    study = replace(study, params=study.params.model_copy(update={"audit": few}))
    many = {f"rad_more_{k}": np.random.default_rng(k).normal(size=40) for k in range(30)}
    patients = replace(study.patients, biomarkers=study.patients.biomarkers.assign(**many))
    held_patients = np.arange(0, 40, 3)
    times = patients.outcome["time_days"].copy()
    times.iloc[held_patients] = 40 * patients.biomarkers["rad_noise_0"].iloc[held_patients] + 500
    changed = replace(patients, outcome=patients.outcome.assign(time_days=times))
    fit = audit.FITS[name]._replace(watched=False)
    bank = audit.slices(patients, study, copies=fit.copies)
    held = np.isin(bank.patient, held_patients)
    days = [audit._trained(study, one, bank, fit, held, "")[0] for one in (patients, changed)]
    assert np.array_equal(*days) != fit.everything


def test_the_best_epoch_is_never_worse_on_the_fold_that_chose_it(study, monkeypatch):
    time = study.outcome(study.development)["time_days"].to_numpy(float)

    def made(study, patients, bank, fit, held, label):
        right = time[bank.patient[held]]
        return right + 100.0, [right + error for error in (300.0, 20.0, 150.0)]

    monkeypatch.setattr(audit, "_trained", made)
    scores = audit.score(audit.predictions(study), study).set_index(["protocol", "metric"])["estimate"]
    assert scores["best-epoch", "mae_days"] == pytest.approx(20)
    assert scores["deaths-only", "mae_days"] == pytest.approx(100)


def test_a_killed_audit_goes_on_after_the_fits_that_were_finished(study, monkeypatch):
    made = []

    def trained(study, patients, bank, fit, held, label):
        if len(made) == 5:
            made.append(label)
            raise KeyboardInterrupt
        made.append(label)
        return np.full(held.sum(), 100.0), []

    monkeypatch.setattr(audit, "_trained", trained)
    with pytest.raises(KeyboardInterrupt):
        audit.predictions(study)
    found = audit.predictions(study)
    assert len(made) == len(audit.FITS) * 3 + 1  # the one that was killed is made again, no other
    assert len(found.groupby(["fit", "fold"])) == len(audit.FITS) * 3
    assert not study.paths.fits("audit").exists()


def of_days(study, days) -> pd.DataFrame:
    ids = study.development
    return pd.concat([pd.DataFrame({"fit": fit, "fold": 0, "patient_id": ids, "days": days, "days_best": days})
                      for fit in audit.FITS])  # fmt: skip


def test_perfect_days_score_perfectly_and_the_censored_count_in_the_clean_protocol_alone(study):
    outcome = study.outcome(study.development)
    right = outcome["time_days"].to_numpy(float)
    scores = audit.score(of_days(study, right), study).set_index(["protocol", "metric"])["estimate"]
    for name in audit.PROTOCOLS:
        assert scores[name, "r2"] == pytest.approx(1) and scores[name, "mae_days"] == pytest.approx(0)
        assert scores[name, "harrell_c"] == pytest.approx(1)
    wrong = np.where(outcome["event"], right, 1.0)  # of the censored alone
    changed = audit.score(of_days(study, wrong), study).set_index(["protocol", "metric"])["estimate"]
    assert changed["clean", "harrell_c"] < 0.8
    others = [name for name in audit.PROTOCOLS if name != "clean"]
    pd.testing.assert_series_equal(changed.loc[others], scores.loc[others])


def test_r2_and_mae_together_tell_the_spread_of_survival():
    rng = np.random.default_rng(0)
    known = rng.gamma(3, 100, 200_000)
    time = known + rng.normal(0, 40, len(known))
    ones = np.ones(len(time), bool)
    found = audit.implied_spread(r2(time, ones, known), mae_days(time, ones, known))
    assert found == pytest.approx(time.std(), rel=0.01)
    assert audit.implied_spread(**audit.CLAIM) == pytest.approx(22.1, abs=0.1)


def test_a_cohort_without_images_is_refused_with_a_reason(study):
    patients = study.patients
    bare = replace(patients, images=patients.images[:, :0], present=patients.present[:, :0])
    object.__setattr__(study, "patients", bare)
    assert "imaged" in audit.impossible(study)
    with pytest.raises(BadInput, match="imaged"):
        audit.predictions(study)


# --- ceiling -----------------------------------------------------------------------------------------------------


def hazard_of(folder, risk, shape, scale, follow_up, params, noise=1.0):
    """A study that is no more than a known hazard."""
    ids = [f"P{k:04d}" for k in range(len(risk))]
    truth = pd.DataFrame({"patient_id": ids, "linear_predictor": risk, "site": 0.0})
    truth.to_parquet(folder / "truth.parquet")
    facts = {"weibull_shape": shape, "weibull_scale_days": scale, "follow_up": follow_up,
             "choices": {"survival_noise": noise}}  # fmt: skip
    (folder / "truth.json").write_text(json.dumps(facts))
    rng = np.random.default_rng(0)
    known = ceiling.Known(np.asarray(risk), ceiling.Weibull(shape, scale), ceiling.FollowUp(**follow_up))
    time, event = ceiling._redrawn(known, rng)
    outcome = pd.DataFrame({"time_days": time, "event": event}, index=pd.Index(ids, name="patient_id"))
    return SimpleNamespace(paths=SimpleNamespace(truth=folder / "truth.parquet"), development=ids, params=params,
                           outcome=lambda wanted: outcome.loc[list(wanted)])  # fmt: skip


FOREVER = {"accrual_days": 1.0, "study_days": 1e7, "dropout_days": 1e12}
USUAL = {"accrual_days": 1100.0, "study_days": 2200.0, "dropout_days": 8000.0}


def test_without_censoring_the_ceiling_is_the_share_of_variance_that_the_hazard_explains(tmp_path, params):
    risk = np.random.default_rng(1).normal(0, 0.8, 1500)
    known = ceiling.ceiling(hazard_of(tmp_path, risk, 1.0, 400.0, FOREVER, params), draws=60)
    mean = 400 * np.exp(-risk)  # of an exponential, whose variance is its mean squared
    expected = mean.var() / (mean.var() + np.mean(mean**2))
    assert known["deaths"]["r2"]["estimate"] == pytest.approx(expected, abs=0.01)
    assert known["everyone"]["r2"]["estimate"] == pytest.approx(expected, abs=0.01)
    error = np.log(2) * mean.mean()  # of the median of an exponential
    assert known["deaths"]["mae_days"]["estimate"] == pytest.approx(error, rel=0.02)


@pytest.mark.parametrize(
    "spoil", [lambda mean: mean * 1.15, lambda mean: mean - 40, lambda mean: mean.mean() + 0 * mean]
)
def test_no_other_prediction_of_the_dead_does_better_than_the_ceiling(tmp_path, params, spoil):
    study = hazard_of(tmp_path, np.random.default_rng(2).normal(0, 0.8, 300), 1.2, 430.0, USUAL, params)
    known = ceiling.of(study)
    mean, median = ceiling._best(known, np.ones_like)
    rng = np.random.default_rng(5)
    cohorts = [ceiling._redrawn(known, rng) for _ in range(150)]
    better = [r2(*one, mean) - r2(*one, spoil(mean)) for one in cohorts]
    assert np.mean(better) > 0
    assert np.mean([mae_days(*one, median) - mae_days(*one, spoil(median)) for one in cohorts]) < 0


def test_noise_moves_the_hazard_as_the_phantom_itself_does(tmp_path, params):
    rng = np.random.default_rng(3)
    chart = mets.charts(rng, 50, 3).assign(
        enhancing_ml=rng.lognormal(1, 1, 50),
        oedema_ratio=rng.lognormal(0.5, 0.5, 50),
        rim_variation=rng.uniform(0.1, 0.4, 50),
    )
    truth, facts = mets.hazard(chart, 1.0, site_hazard=0.4)
    study = hazard_of(tmp_path, truth["linear_predictor"], facts["weibull_shape"], facts["weibull_scale_days"],
                      facts["follow_up"], params)  # fmt: skip
    truth.assign(patient_id=study.development).to_parquet(study.paths.truth)
    expected, other = mets.hazard(chart, 0.3, site_hazard=0.4)
    found = ceiling.of(study, 0.3)
    np.testing.assert_allclose(found.risk, expected["linear_predictor"])
    assert found.survival.shape == pytest.approx(other["weibull_shape"])
    assert found.survival.scale_days == pytest.approx(other["weibull_scale_days"])


def test_less_noise_lifts_the_ceiling_and_the_noise_for_a_claim_gives_that_claim(tmp_path, params):
    study = hazard_of(tmp_path, np.random.default_rng(4).normal(0, 1.2, 120), 1.2, 430.0, USUAL, params)
    curve = ceiling.by_noise(study, [0.05, 0.2, 1.0, 2.0])
    assert curve["r2"].is_monotonic_decreasing and curve["mae_days"].is_monotonic_increasing
    needed = ceiling.noise_for(study, 0.9)
    assert needed["r2"] == pytest.approx(0.9, abs=0.01)
    assert 0.05 < needed["survival_noise"] < 1 == needed["actual"]


def test_a_cohort_whose_hazard_is_not_known_has_no_ceiling(study):
    assert ceiling.ceiling(study) is None
    assert ceiling.noise_for(study) is None
    assert ceiling.by_noise(study, [1.0]) is None
    scores = audit.score(of_days(study, np.arange(len(study.development), dtype=float)), study)
    assert scores["ceiling"].isna().all()
    assert not [name for name in audit.as_json(scores) if name.startswith("ceiling")]
    assert "ceiling" not in " ".join(audit.table(scores).columns)


def test_figures_and_words_take_what_the_scores_give(study, tmp_path, params):
    scores = audit.score(of_days(study, np.arange(len(study.development), dtype=float)), study)
    labels = {name: one.label for name, one in audit.PROTOCOLS.items()}
    figure = audit_figure(scores.assign(ceiling=0.4, ceiling_low=0.2, ceiling_high=0.5), labels, audit.CLAIM)
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == list(labels.values())
    assert len(audit_figure(scores, labels, audit.CLAIM).legends[0].get_texts()) == 1  # no ceiling is named
    noise = pd.DataFrame({"survival_noise": [0.1, 1.0], "r2": [0.97, 0.4], "mae_days": [30.0, 200.0]})
    assert len(ceiling_by_noise(noise, 1.0, audit.CLAIM, None).axes) == 2
    json.dumps(audit.as_json(scores), allow_nan=False)
    assert "22 days" in audit.reading(scores)
    needed = {"survival_noise": 0.11, "r2": 0.97, "mae_days": 34.4, "actual": 1.0}
    assert "11 %" in audit.needed_reading(needed, 0.97) and "34 days" in audit.needed_reading(needed, 0.97)
