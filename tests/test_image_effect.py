"""A network that does not look at the image is called so, whatever its risks are; one that does is not."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from survpack import study as study_module
from survpack.image_effect import LEAST, STILL, image_effect
from survpack.models import Deep
from survpack.study import TEST_FOLD, fit_all

FUSIONS = ["image", "concat", "film", "gated", "cross", "additive"]


def exchanged(says, *, folds=3, patients=24, images=30, seed=0) -> pd.DataFrame:
    """As `Deep.exchanged` of each fold, of a network that says `says(chart, image)`; both are standard normal."""
    rng, parts = np.random.default_rng(seed), []
    for fold in range(folds):
        chart, image = rng.normal(size=(2, patients))
        ids = np.array([f"{fold}-{number}" for number in range(patients)])
        for step in range(min(patients, images + 1)):
            risk = says(chart, np.roll(image, step))
            parts.append(pd.DataFrame({"fold": fold, "patient_id": ids, "image_of": np.roll(ids, step), "risk": risk, "output": risk}))  # fmt: skip
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.5, 1.0])
def test_the_effect_is_the_closed_form_of_a_sum(weight):
    """Risk = chart + w image: the change has variance 2 w², the risk 1 + w²."""
    found = image_effect(exchanged(lambda chart, image: chart + weight * image, folds=5, patients=400))
    expected = weight * np.sqrt(2 / (1 + weight**2))
    assert found["image_effect"]["estimate"] == pytest.approx(expected, rel=0.03)
    assert found["image_effect"]["low"] <= expected <= found["image_effect"]["high"] or weight == 0
    assert found["collapsed"] == (weight == 0)


@pytest.mark.parametrize("patients", [2, 5, 24, 60])
def test_a_network_of_the_image_alone_has_the_root_of_two_whatever_the_patients(patients):
    found = image_effect(exchanged(lambda chart, image: 3 * image, patients=patients))["image_effect"]
    np.testing.assert_allclose(list(found.values()), np.sqrt(2), rtol=0.02)


def test_every_pair_by_hand():
    table = exchanged(lambda chart, image: chart + chart * image, folds=1, patients=7)
    said = {(row.patient_id, row.image_of): row.risk for row in table.itertuples()}
    own = {patient: risk for (patient, other), risk in said.items() if patient == other}
    moved = [risk - own[patient] for (patient, other), risk in said.items() if patient != other]
    expected = np.std(moved) / np.std(list(own.values()), ddof=1)
    assert image_effect(table)["image_effect"]["estimate"] == pytest.approx(expected)


def test_folds_that_speak_on_other_levels_are_compared_within_themselves():
    table = exchanged(lambda chart, image: chart + image)
    moved = table.assign(risk=table["risk"] + 100 * table["fold"])
    assert image_effect(moved)["image_effect"] == pytest.approx(image_effect(table)["image_effect"])


@pytest.mark.parametrize("scale", [1e-9, 1e-5, 1e-3])
def test_risks_that_differ_by_rounding_alone_are_one_answer_for_everyone(scale):
    """The ratio of two roundings is 1.4 here."""
    found = image_effect(exchanged(lambda chart, image: 1 + scale * image))
    assert found == {"image_effect": {"estimate": 0.0, "low": 0.0, "high": 0.0}, "collapsed": True}
    assert not image_effect(exchanged(lambda chart, image: 1 + 10 * STILL * image))["collapsed"]


def test_a_branch_is_called_collapsed_only_where_the_whole_interval_is_below_the_limit():
    sure = image_effect(exchanged(lambda chart, image: chart + 0.008 * image))  # the claim's network, before
    perhaps = image_effect(exchanged(lambda chart, image: chart + LEAST / np.sqrt(2) * image))
    assert sure["collapsed"] and sure["image_effect"]["high"] < LEAST
    assert not perhaps["collapsed"] and perhaps["image_effect"]["low"] < LEAST < perhaps["image_effect"]["high"]


def test_with_nobody_to_exchange_images_with_nothing_is_said():
    found = image_effect(exchanged(lambda chart, image: chart + image, patients=1))
    assert found == {"image_effect": {"estimate": None, "low": None, "high": None}, "collapsed": None}


# --- of networks --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cohort(make_patients):
    """Patients whose images differ in brightness, so that an untrained network tells them apart."""
    made = make_patients(30, voxels=8)
    bright = np.linspace(-2, 2, 30)[np.random.default_rng(3).permutation(30)]
    return replace(made, images=(made.images + bright[:, None, None, None, None]).astype(np.float16))


@pytest.fixture
def made(params, tiny_encoder, cohort):
    def network(fusion: str, objective: str = "cox", **training) -> Deep:
        chosen = params.model_copy(update={"training": params.training.model_copy(update=training)})
        network = Deep("tiny", fusion, objective, chosen).fit(cohort)
        for net in network.nets:
            with torch.no_grad():
                net.fusion.head.weight.normal_(0, 1, generator=torch.Generator().manual_seed(1))
        return network

    return network


def blinded(network: Deep) -> Deep:
    """A planted collapse: the encoder says the same of every image."""
    for net in network.nets:
        forward = net.encoder.forward
        net.encoder.forward = lambda image, mask, forward=forward: torch.ones_like(forward(image, mask))
    return network


@pytest.mark.parametrize("objective", ["mse", "cox", "hazard"])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_planted_collapse_is_found_in_every_fusion_and_a_network_that_looks_is_not_called_so(
    fusion, objective, made, cohort
):
    network = made(fusion, objective)
    alive = image_effect(network.exchanged(cohort).assign(fold=0))
    gone = image_effect(blinded(network).exchanged(cohort).assign(fold=0))
    assert alive["collapsed"] is False and alive["image_effect"]["low"] > LEAST
    assert gone["collapsed"] is True and gone["image_effect"]["estimate"] < 1e-3


def test_a_patient_s_own_image_gives_the_risk_that_is_predicted_and_others_are_those_named(made, cohort):
    network, times = made("concat", members=2), np.array([100.0])
    table = network.exchanged(cohort)
    own = table[table["patient_id"] == table["image_of"]].set_index("patient_id")["risk"]
    np.testing.assert_allclose(own, network.predict(cohort, times).risk, rtol=1e-5)
    assert not table.duplicated(["patient_id", "image_of"]).any()
    ids = cohort.outcome.index
    one = table[(table["patient_id"] == ids[4]) & (table["image_of"] == ids[0])]["risk"].item()
    swapped = replace(cohort, images=cohort.images[[0] * 30], masks=cohort.masks[[0] * 30])
    assert one == pytest.approx(network.predict(swapped, times).risk[4], rel=1e-4)


def test_no_outcome_is_read(made, cohort):
    network = made("concat")
    other = replace(cohort, outcome=cohort.outcome.assign(time_days=1.0, event=False))
    pd.testing.assert_frame_equal(network.exchanged(cohort), network.exchanged(other))


# --- of fits ------------------------------------------------------------------------------------------------------


@pytest.fixture
def study(tmp_path, cohort, study_of, tiny_encoder):
    return study_of(tmp_path / "study", cohort, models=["hybrid-tiny-cox", "deepsurv", "age"])


def test_every_network_with_an_image_branch_is_checked_after_its_fits_on_patients_held_out_of_the_folds(
    study, monkeypatch, capsys
):
    seen = []

    def watched(table):
        seen.append(table)
        return {**image_effect(table), "collapsed": True}

    monkeypatch.setattr(study_module, "image_effect", watched)
    for model in study.params.models:
        fit_all(study, model)
    assert list(study.image_effects()) == ["hybrid-tiny-cox"]
    told = json.loads((study.paths.model("hybrid-tiny-cox") / "image.json").read_text())
    assert set(told) == {"image_effect", "collapsed"} and set(told["image_effect"]) == {"estimate", "low", "high"}
    held = {(fold, patient) for fold in (0, 1) for patient in study.fold(fold)[1]}
    assert len(seen) == 1 and set(zip(seen[0]["fold"], seen[0]["patient_id"], strict=True)) == held
    assert TEST_FOLD not in set(seen[0]["fold"])
    assert "hybrid-tiny-cox: the image branch has collapsed" in capsys.readouterr().err
