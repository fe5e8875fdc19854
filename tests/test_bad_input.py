"""Patients that are hard to learn from: each ends in a defined result or in one sentence, whatever the model."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest
from safetensors.torch import load_file, save_file

from survpack import training
from survpack.errors import BadInput
from survpack.models import Patients, build, lacking
from survpack.preprocess import CropSet

TIMES = np.array([0.0, 50, 400, 3000])
CLASSICAL = ["age", "volume", "clinical-cox", "lesion-cox", "radiomics-coxnet", "clinical-lesion-coxnet"]
CLASSICAL += ["clinical-radiomics-rsf", "clinical-radiomics-boosting", "control-shuffled-labels"]
OBJECTIVES = ["mse", "mse-censored", "cox", "rank", "hazard"]
FUSIONS = ["film-cox", "gated-cox", "cross-cox", "additive-cox"]
IMAGE = [
    "image-compact-cox",
    *(f"hybrid-compact-{name}" for name in OBJECTIVES),
    *(f"hybrid-{name}" for name in FUSIONS),
]
DEEP = ["deepsurv", *IMAGE]
BY_FUSION = ["image-compact-cox", "hybrid-compact-cox", *(f"hybrid-{name}" for name in FUSIONS)]
BY_OBJECTIVE = ["deepsurv", *(f"hybrid-compact-{name}" for name in OBJECTIVES)]


@pytest.fixture(scope="module")
def few(params):
    """One epoch, two candidates, ten trees."""
    classical = params.classical.model_copy(update={"budget": 2, "trees": 10})
    return params.model_copy(update={"classical": classical})


@pytest.fixture(scope="module")
def people(make_patients) -> Patients:
    """Of small cubes, with a second modality."""
    made = make_patients(24, seed=3, voxels=8)
    second = np.random.default_rng(4).normal(size=made.images.shape).astype(np.float16)
    images, present = np.concatenate([made.images, second], axis=1), np.ones((24, 2), bool)
    return replace(made, images=images, present=present, modalities=["t1c", "t2f"])


def with_outcome(patients: Patients, **columns) -> Patients:
    return replace(patients, outcome=patients.outcome.assign(**columns))


def sentence(call) -> str:
    """The refusal, which has to be one sentence."""
    with pytest.raises(BadInput) as refused:
        call()
    told = str(refused.value)
    assert told.endswith(".") and "\n" not in told and not re.search(r"\. [A-Z]", told)
    return told


def forecast(name: str, patients: Patients, params):
    found = build(name, params).fit(patients, label="toy fold-0").predict(patients, TIMES)
    assert found.risk.shape == found.days.shape == (len(patients.outcome),)
    assert np.isfinite(found.risk).all() and np.isfinite(found.survival).all() and (found.days > 0).all()
    assert (found.survival[np.isinf(found.days), -1] > 0.5).all()  # no day but where the curve has no median
    assert (found.survival[:, 0] == 1).all() and (np.diff(found.survival, axis=1) <= 1e-9).all()
    assert found.survival.min() >= 0
    return found


# --- outcomes


@pytest.mark.parametrize("name", [*CLASSICAL, *DEEP])
def test_where_all_are_censored_the_fit_says_so_and_what_to_do(name, people, few):
    nobody = with_outcome(people, event=np.zeros(24, bool))
    told = sentence(lambda: build(name, few).fit(nobody, label="toy fold-0"))
    assert re.search(r" 0 events among 24 |all 24 are censored", told) and "splits.folds in params.yaml" in told


@pytest.mark.parametrize("name", [*CLASSICAL, *BY_OBJECTIVE])
@pytest.mark.parametrize("when", ["early", "last"])
def test_one_event_is_learnt_from_and_nobody_s_curve_falls_before_it(name, when, people, few):
    order = np.argsort(people.outcome["time_days"].to_numpy())
    at = order[3] if when == "early" else order[-1]  # before the last of all, nobody is left to compare with
    event = np.zeros(24, bool)
    event[at] = True
    found = forecast(name, with_outcome(people, event=event), few)
    if "hazard" not in name:  # whose curve is a line from day 0 to the event
        before = people.outcome["time_days"].iloc[at] > TIMES
        assert (found.survival[:, before] == 1).all()


@pytest.mark.parametrize("name", ["clinical-cox", "radiomics-coxnet", "hybrid-compact-cox"])
def test_one_patient_a_site_is_as_one_site_for_all(name, people, few):
    """There is nothing to harmonise with one patient, and no model sees the site itself."""
    each = with_outcome(people, site=[f"site-{k}" for k in range(24)])
    together = with_outcome(people, site="the same")
    np.testing.assert_array_equal(forecast(name, each, few).risk, forecast(name, together, few).risk)


# --- covariates


@pytest.mark.parametrize(
    "name", ["clinical-cox", "clinical-lesion-coxnet", "deepsurv", "hybrid-compact-mse", "hybrid-cross-cox"]
)
def test_a_constant_covariate_is_as_one_that_is_not_there(name, people, few):
    constant = replace(people, clinical=people.clinical.assign(age=60.0, sex="male"))
    without = replace(people, clinical=people.clinical.drop(columns=["age", "sex"]))
    np.testing.assert_array_equal(forecast(name, constant, few).risk, forecast(name, without, few).risk)


@pytest.mark.parametrize("name", ["clinical-cox", "deepsurv", "hybrid-compact-mse", "hybrid-film-cox"])
def test_a_table_in_which_nothing_varies_is_told(name, people, few):
    chart = people.clinical.assign(age=60.0, fitness="good", sex="male", primary="lung")
    same = replace(people, clinical=chart, biomarkers=people.biomarkers * 0 + 1)
    told = sentence(lambda: build(name, few).fit(same, label="toy fold-0"))
    assert "toy fold-0: none of" in told and "varies among 24 training patients" in told


@pytest.mark.parametrize("name", ["age", "volume"])
def test_a_number_that_nobody_has_is_told(name, people, few):
    unknown = replace(
        people, clinical=people.clinical.assign(age=np.nan), biomarkers=people.biomarkers.assign(tumour_ml=np.nan)
    )
    assert "missing for all 24 training patients" in sentence(lambda: build(name, few).fit(unknown, label="toy"))


# --- images


def with_a_hole(people: Patients) -> Patients:
    images = people.images.copy()
    images[5, 1, 1, 2, 3] = np.nan
    return replace(people, images=images)


@pytest.mark.parametrize("name", ["image-compact-cox", "hybrid-compact-mse", "hybrid-gated-cox"])
def test_a_voxel_that_is_not_a_number_is_told_with_its_patient_before_training(name, people, few):
    alive = with_outcome(with_a_hole(people), event=np.arange(24) % 2 == 1)  # P005 among the deaths
    assert "patient P005" in sentence(lambda: build(name, few).fit(alive, label="toy fold-0"))


@pytest.mark.parametrize("name", ["image-compact-cox", "hybrid-gated-cox"])
def test_a_voxel_that_is_not_a_number_is_told_of_a_patient_to_be_predicted_too(name, people, few):
    model = build(name, few).fit(people)
    assert "patient P005" in sentence(lambda: model.predict(with_a_hole(people), TIMES))


@pytest.mark.parametrize("name", ["clinical-cox", "deepsurv"])
def test_a_voxel_that_is_not_a_number_is_nothing_to_a_model_that_sees_no_image(name, people, few):
    np.testing.assert_array_equal(
        forecast(name, with_a_hole(people), few).risk, forecast(name, people, few).risk
    )  # fmt: skip


def test_crops_with_a_voxel_that_is_not_a_number_are_not_read(people, tmp_path):
    crops = CropSet(
        list(people.outcome.index), with_a_hole(people).images, people.masks, people.modalities, ["enhancing", "oedema"], 2.0
    )  # fmt: skip
    crops.save(tmp_path / "crops")
    told = sentence(lambda: CropSet.load(tmp_path / "crops"))
    assert "images.npy, patient P005: a voxel that is not a finite number" in told


@pytest.mark.parametrize("name", BY_FUSION)
def test_a_modality_that_nobody_has_is_learnt_without_and_missed_by_nobody(name, people, few):
    images, present = people.images.copy(), people.present.copy()
    images[:, 1], present[:, 1] = 0, False
    lacking_one = replace(people, images=images, present=present)
    forecast(name, lacking_one, few)
    model = build(name, few).fit(lacking_one)
    whole, without = (model.predict(lacking_one, TIMES, without=gone).risk for gone in ((), ("t2f",)))
    np.testing.assert_array_equal(whole, without)


@pytest.mark.parametrize("name", BY_FUSION)
def test_patients_without_any_image_are_predicted_all_the_same(name, people, few):
    nothing = replace(people, images=np.zeros_like(people.images), present=np.zeros_like(people.present))
    forecast(name, nothing, few)


# --- cohorts that lack what a model needs


@pytest.fixture(scope="module")
def unseen(people) -> Patients:
    """The same, had nobody been imaged: what stage 02 then leaves."""
    tables = {name: getattr(people, name).iloc[:, :0] for name in ("biomarkers", "shuffled", "noise")}
    seen = {"images": people.images[:, :0], "masks": people.masks[:, :0], "present": people.present[:, :0]}
    return replace(people, **tables, **seen, perturbed=people.perturbed.iloc[:0, :0], modalities=[])


@pytest.mark.parametrize("name", ["age", "clinical-cox", "deepsurv"])
def test_models_of_the_chart_need_no_image_and_say_the_same_without(name, people, unseen, few):
    assert lacking(name, unseen) == ""
    np.testing.assert_array_equal(forecast(name, unseen, few).risk, forecast(name, people, few).risk)


def test_every_other_model_says_that_nobody_was_imaged(people, unseen, params):
    for name in {*params.models, *CLASSICAL, *IMAGE} - {"age", "gpa", "clinical-cox", "deepsurv"}:
        assert lacking(name, people) == "" and "nobody of cohort toy was imaged" in lacking(name, unseen)


def test_a_cohort_of_masks_alone_lacks_the_network_that_sees_no_mask_and_no_other(people, few):
    masks = replace(people, images=people.images[:, :0], present=people.present[:, :0], modalities=[])
    assert "cohort toy has masks alone" in lacking("hybrid-nomask-cox", masks)
    for name in ("hybrid-gated-cox", "hybrid-compact-mse"):
        assert lacking(name, masks) == ""
        forecast(name, masks, few)


# --- files of another version


def other_version(path):
    save_file(load_file(path), path, {"version": "0", "about": json.dumps({})})


def test_a_checkpoint_of_another_version_is_refused_with_its_name(people, few, tmp_path):
    fit = partial(build("hybrid-compact-cox", few).fit, people, checkpoints=tmp_path)
    fit()
    checkpoint = tmp_path / "member-0.safetensors"
    other_version(checkpoint)
    told = sentence(fit)
    assert str(checkpoint) in told and f"version 0, expected version {training.VERSION}" in told


def test_weights_of_another_version_or_of_another_network_are_refused(people, few, tmp_path):
    path = tmp_path / "weights.safetensors"
    model = build("hybrid-compact-cox", few).fit(people)
    model.save(path)
    again = build("hybrid-compact-cox", few).fit(people, weights=path)
    np.testing.assert_array_equal(*(one.predict(people, TIMES).risk for one in (model, again)))
    wider = replace(people, clinical=people.clinical.assign(extra=np.arange(24.0)))
    assert "weights of another network" in sentence(
        lambda: build("hybrid-compact-cox", few).fit(wider, weights=path)
    )  # fmt: skip
    other_version(path)
    assert "version 0" in sentence(lambda: build("hybrid-compact-cox", few).fit(people, weights=path))


def test_patients_of_whom_nothing_is_known_are_still_predicted(people, few):
    """A row of gaps is imputed, by every kind of model."""
    gaps = replace(people, clinical=people.clinical.copy(), biomarkers=people.biomarkers.copy())
    gaps.clinical.iloc[0], gaps.biomarkers.iloc[0] = None, np.nan
    gaps = replace(gaps, clinical=gaps.clinical.assign(age=pd.to_numeric(gaps.clinical["age"])))
    for name in ("age", "volume", "clinical-cox", "radiomics-coxnet", "clinical-radiomics-rsf", "hybrid-compact-cox"):
        forecast(name, gaps, few)
