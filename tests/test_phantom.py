"""The phantom's truth is true: its hazard is recovered, its masks measure what it says, its bytes repeat."""

import json
from hashlib import sha256

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter, WeibullAFTFitter
from lifelines.utils import concordance_index

from survpack import adapters, paths, phantom
from survpack.adapters import bids
from survpack.errors import BadInput
from survpack.params import load
from survpack.phantom import mets

SMALL = {"patients": 6, "sites": 2, "spacing_mm": 5.0, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small phantom: its BIDS folder and its truth."""
    place = tmp_path_factory.mktemp("phantom")
    mets.generate(place / "bids", place / "truth.parquet", **SMALL, n_jobs=1)
    return place


def simulated(patients: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Terms, truth and outcome of patients who have a chart and biomarkers but no images."""
    rng = np.random.default_rng(seed)
    table = mets.charts(rng, patients, sites=3).assign(
        enhancing_ml=rng.lognormal(np.log(5.5), 1.0, patients),
        oedema_ratio=rng.lognormal(np.log(1.8), 0.65, patients),
        rim_variation=rng.uniform(0.06, 0.38, patients),
    )
    truth = mets.hazard(table)
    return mets.terms(table), truth, mets.simulate(rng, truth["linear_predictor"])


def digests(folder) -> dict:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_cox_regression_recovers_every_planted_coefficient():
    terms, _, outcome = simulated(600, seed=1)
    fit = CoxPHFitter().fit(terms.join(outcome), "time_days", "event")
    planted = pd.Series(mets.COEFFICIENTS)
    assert list(terms) == list(planted.index)
    z = (fit.params_ - planted) / fit.standard_errors_
    assert z.abs().max() < 3
    assert fit.standard_errors_.max() < 0.35  # or three of them would allow anything


def test_cox_regression_on_the_parts_of_the_truth_gives_ones():
    _, truth, outcome = simulated(600, seed=2)
    parts = truth[["clinical", "volume", "oedema", "rim"]]
    np.testing.assert_allclose(parts.sum(axis=1), truth["linear_predictor"])
    fit = CoxPHFitter().fit(parts.join(outcome), "time_days", "event")
    assert ((fit.params_ - 1) / fit.standard_errors_).abs().max() < 3


def test_a_weibull_model_recovers_shape_and_scale():
    _, truth, outcome = simulated(2000, seed=3)
    fit = WeibullAFTFitter().fit(truth[["linear_predictor"]].join(outcome), "time_days", "event")
    shape, scale = np.exp(fit.params_["rho_"]["Intercept"]), np.exp(fit.params_["lambda_"]["Intercept"])
    assert shape == pytest.approx(mets.SHAPE, rel=0.05)
    assert scale == pytest.approx(mets.SCALE_DAYS, rel=0.08)


def test_half_of_like_patients_die_before_the_true_median(monkeypatch):
    monkeypatch.setattr(mets, "STUDY_DAYS", 1e9)
    monkeypatch.setattr(mets, "DROPOUT_DAYS", 1e12)
    _, truth, _ = simulated(1, seed=4)
    alike = pd.concat([truth] * 4000, ignore_index=True)
    outcome = mets.simulate(np.random.default_rng(0), alike["linear_predictor"])
    assert outcome["event"].all()
    assert outcome["time_days"].median() == pytest.approx(alike["true_median_days"][0], rel=0.06)


def test_the_simulated_cohort_is_in_the_range_of_real_ones():
    _, truth, outcome = simulated(3000, seed=5)
    days, event = outcome["time_days"], outcome["event"]
    assert (days >= 1).all() and (days == days.round()).all()
    assert 0.18 < 1 - event.mean() < 0.32
    assert 9 * 30.4 < KaplanMeierFitter().fit(days, event).median_survival_time_ < 14 * 30.4
    assert 0.76 < concordance_index(days, -truth["linear_predictor"], event) < 0.84
    assert 0.58 < concordance_index(days, -truth["clinical"], event) < 0.65


def test_same_seed_same_bytes_whatever_the_number_of_processes(made, tmp_path):
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **SMALL, n_jobs=2)
    assert digests(tmp_path / "bids") == digests(made / "bids")
    assert (tmp_path / "truth.parquet").read_bytes() == (made / "truth.parquet").read_bytes()


def test_another_seed_makes_other_patients(made, tmp_path):
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, "seed": 4, "patients": 2}, n_jobs=1)
    assert (tmp_path / "bids/participants.tsv").read_text() != (made / "bids/participants.tsv").read_text()
    name = "sub-001/anat/sub-001_dseg.nii.gz"
    assert (tmp_path / "bids" / name).read_bytes() != (made / "bids" / name).read_bytes()


def test_the_truth_uses_the_biomarkers_of_the_mask_that_was_written(made):
    truth = pd.read_parquet(made / "truth.parquet").set_index("patient_id")
    for patient, row in truth.iterrows():
        image = nib.load(bids.image_path(made / "bids", patient, "mask"))
        count = np.bincount(np.asarray(image.dataobj).ravel(), minlength=4)
        voxel_ml = np.prod(image.header.get_zooms()) / 1000
        assert row["enhancing_ml"] == pytest.approx(count[3] * voxel_ml)
        assert row["oedema_ratio"] == pytest.approx(count[2] / (count[1] + count[3]))
        volume = mets.COEFFICIENTS["volume"] * np.log(count[3] * voxel_ml / 6)
        assert row["volume"] == pytest.approx(volume)


def test_the_rim_part_is_visible_in_the_enhanced_image_and_nowhere_else(tmp_path):
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", patients=24, sites=1, spacing_mm=3.0, seed=1, n_jobs=2)
    truth = pd.read_parquet(tmp_path / "truth.parquet")

    def variation(patient, modality):
        mask, image = (
            nib.load(bids.image_path(tmp_path / "bids", patient, name)).get_fdata() for name in ("mask", modality)
        )
        seen = image[mask == 3]
        return seen.std() / seen.mean()

    seen = {name: [variation(patient, name) for patient in truth["patient_id"]] for name in ("t1c", "t1n")}
    assert np.corrcoef(seen["t1c"], truth["rim"])[0, 1] > 0.7
    assert abs(np.corrcoef(seen["t1n"], truth["rim"])[0, 1]) < 0.5


def test_images_are_skull_stripped_int16_with_every_lesion_inside(made):
    for mask_path in (made / "bids").rglob("*_dseg.nii.gz"):
        mask = np.asarray(nib.load(mask_path).dataobj)
        assert set(np.unique(mask)) <= {0, 1, 2, 3} and (mask == 3).any()
        for name in bids.NAMES.keys() & set(mets.SEQUENCES):
            image = nib.load(bids.image_path(made / "bids", mask_path.parts[-3], name))
            assert image.get_data_dtype() == np.int16
            brain = np.asarray(image.dataobj) > 0
            assert brain[mask > 0].all() and 0.2 < brain.mean() < 0.5


def test_the_folder_is_read_back_equal_and_has_no_findings(made, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DERIVED", tmp_path)
    choices = {"mets": {**SMALL, "selection": {}}}
    params = load().model_copy(update={"cohort": choices})
    cohort = adapters.load("mets", params)
    assert cohort.check() == []
    assert cohort.dictionary == mets.DICTIONARY and cohort.labels == mets.LABELS
    assert cohort.modalities == sorted(mets.SEQUENCES) and len(cohort.images) == 4 * SMALL["patients"]
    written = pd.read_csv(made / "bids/participants.tsv", sep="\t", na_values="n/a")
    written = written.rename(columns={"participant_id": "patient_id"}).astype({"event": bool})
    pd.testing.assert_frame_equal(cohort.participants, written, check_dtype=False)


def test_a_phantom_is_made_again_only_for_other_choices(monkeypatch, tmp_path):
    place, truth = tmp_path / "bids", tmp_path / "truth.parquet"
    choices = {**SMALL, "patients": 2}
    phantom.ensure("mets", choices, place, truth)
    before = (place / "participants.tsv").stat().st_mtime_ns
    phantom.ensure("mets", choices, place, truth)
    assert (place / "participants.tsv").stat().st_mtime_ns == before
    phantom.ensure("mets", {**choices, "patients": 3}, place, truth)
    assert len(pd.read_csv(place / "participants.tsv", sep="\t")) == len(pd.read_parquet(truth)) == 3


def test_nothing_in_the_chart_tells_the_truth(made):
    files = [path for path in (made / "bids").rglob("*") if path.suffix in {".tsv", ".json"}]
    assert {path.name for path in files} == {"participants.tsv", "participants.json", "dseg.tsv",
                                             "dataset_description.json"}  # fmt: skip
    truth = pd.read_parquet(made / "truth.parquet").drop(columns="patient_id")
    text = "".join(path.read_text() for path in files)
    values = truth[["linear_predictor", "true_median_days", "rim_variation", "oedema_ratio"]].to_numpy().ravel()
    assert not [value for value in values if f"{value:.6f}"[:6] in text]
    chart = pd.read_csv(made / "bids/participants.tsv", sep="\t", na_values="n/a")
    assert set(chart) == {"participant_id", "site", "time_days", "event", *mets.DICTIONARY}
    described = json.loads((made / "bids/participants.json").read_text())
    assert set(described) == {"time_days", "event", *mets.DICTIONARY}


def test_a_few_percent_are_missing_from_the_chart_and_none_from_the_hazard():
    rng = np.random.default_rng(0)
    chart = mets.charts(rng, 2000, 3)
    missing = mets.with_missing(rng, chart).isna().mean()
    assert chart.notna().all(axis=None)
    assert 0.02 < missing["karnofsky"] < 0.06 and 0.01 < missing["extracranial_disease"] < 0.05
    assert missing.drop(["karnofsky", "extracranial_disease"]).sum() == 0


@pytest.mark.parametrize("sites", [1, 3, 7])
def test_every_site_has_patients(sites):
    assert mets.charts(np.random.default_rng(0), 2 * sites, sites)["site"].nunique() == sites


def test_a_killed_generation_leaves_nothing(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mets, "hazard", killed)
    with pytest.raises(KeyboardInterrupt):
        mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, "patients": 2}, n_jobs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("wrong", [{"patients": 0}, {"sites": 7}, {"spacing_mm": 0.1}, {"seed": -1}, {"patients": "x"}])
def test_an_impossible_phantom_is_refused(tmp_path, wrong):
    with pytest.raises(BadInput, match=r"params\.yaml: a phantom of"):
        mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, **wrong})


def test_an_unknown_choice_is_refused_with_those_there_are(tmp_path):
    with pytest.raises(BadInput, match=r"cohort\.mets has lesions, but a phantom takes patients, sites, spacing_mm"):
        phantom.ensure("mets", {"lesions": 3}, tmp_path / "bids", tmp_path / "truth.parquet")
