"""Explanations point at the planted cause, and add up to what they explain."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from survpack import explain, figures, models
from survpack.encoders import CAM_LAYER
from survpack.errors import BadInput
from survpack.explain import importance as importance_of
from survpack.explain.inputs import inputs
from survpack.models import Deep, build
from survpack.objectives import OBJECTIVES
from survpack.preprocess import CropSet
from survpack.study import Study, fit_all

TIMES = np.array([100.0, 500])


def importance(risk_of, parts, patients, repeats=60, seed=1):
    table = explain.permutation_importance(risk_of, parts, patients, repeats=repeats, confidence=0.95, seed=seed)
    return table.set_index("feature")


# --- permutation importance ---------------------------------------------------------------------------------------


def test_importance_is_greatest_for_what_determines_the_risk_and_nothing_for_what_it_ignores(make_patients):
    cohort = make_patients(120, voxels=1)
    rng = np.random.default_rng(0)
    parts = {"ignored": rng.normal(size=120), "much": np.log(cohort.biomarkers["tumour_ml"].to_numpy())}
    parts |= {"little": rng.normal(size=120)}
    table = importance(lambda given: given["much"] + 0.05 * given["little"], parts, cohort)
    assert table.index[0] == "much" and table.loc["much", "low"] > 0.05
    assert (table.loc["ignored"] == 0).all()
    assert table.loc["little", "low"] <= 0 <= table.loc["little", "high"]
    assert abs(table.loc["little", "importance"]) < 0.02
    assert (table["low"] <= table["importance"]).all() and (table["importance"] <= table["high"]).all()


def test_shuffling_all_there_is_brings_a_perfect_risk_down_to_chance(make_patients):
    cohort = make_patients(200, voxels=1)
    died = replace(cohort, outcome=cohort.outcome.assign(event=True))
    table = importance(lambda given: given["x"], {"x": -died.outcome["time_days"].to_numpy()}, died)
    assert table.loc["x", "importance"] == pytest.approx(0.5, abs=0.03)


def test_importance_is_the_same_for_the_same_seed(make_patients):
    cohort = make_patients(30, voxels=1)
    parts = {"x": np.log(cohort.biomarkers["tumour_ml"].to_numpy())}
    one, same, other = (importance(lambda given: given["x"], parts, cohort, 5, seed) for seed in (1, 1, 2))
    pd.testing.assert_frame_equal(one, same)
    assert not one.equals(other)


@pytest.mark.parametrize("objective", ["mse", "cox"])
def test_importance_of_a_hybrid_lists_the_image_and_every_column_and_finds_the_one_it_uses(
    objective, make_patients, params, tiny_encoder
):
    cohort = make_patients(60, voxels=8)
    named = params.classical.model_copy(update={"lesion": ["tumour_ml", "sphericity"]})
    model = build(f"hybrid-tiny-{objective}", params.model_copy(update={"classical": named})).fit(cohort)
    columns = model.prepare.get_feature_names_out()
    worse = 1.0 if objective == "cox" else -1.0  # the network's number is risk, or days
    with torch.no_grad():
        fusion = model.nets[0].fusion
        for layer in (fusion.table_dense[0], fusion.head):
            layer.weight.zero_()
            layer.bias.zero_()
        fusion.table_dense[0].weight[0, list(columns).index("tumour_ml")] = 1.0
        fusion.table_dense[0].bias[0] = 10.0  # clear of the ReLU
        fusion.head.weight[0, 32] = worse
    parts, risk = importance_of._parts(model, inputs(model, cohort))
    table = importance(risk, parts, cohort, repeats=10)
    assert set(table.index) == {"image", *cohort.clinical, *model.frame(cohort)}
    assert table.index[0] == "tumour_ml" and table["low"].iloc[0] > 0.05
    assert (table.drop("tumour_ml")["importance"] == 0).all()


# --- Grad-CAM -----------------------------------------------------------------------------------------------------


class Corner(nn.Module):
    """The network's number is the sum of the image's first channel; the second is not used."""

    def __init__(self, weight: float):
        super().__init__()
        self.encoder = nn.ModuleDict({"first": nn.Conv3d(2, 2, 1, bias=False)})
        self.weight = weight
        with torch.no_grad():
            self.encoder["first"].weight.zero_()
            self.encoder["first"].weight[0, 0] = self.encoder["first"].weight[1, 1] = 1.0

    def forward(self, image, mask, table, present):
        seen = self.encoder["first"](image)[:, 0].sum(dim=(1, 2, 3))
        return self.weight * seen[:, None] + 0 * table.sum() + 0 * mask.sum()


def seen_by(net: nn.Module, objective: str, patients, params) -> Deep:
    model = Deep("tiny", "concat", objective, params)
    frame = model.frame(patients)
    model.prepare = models.prepare_table(frame, patients.dictionary).fit(frame)
    model.objective = OBJECTIVES[objective].learn(np.array([100.0, 200, 300]), np.ones(3, bool))
    model.nets = [net]
    return model


@pytest.fixture
def corners(make_patients):
    """Two image channels: the used one bright in the first corner, the other in the last; the second patient dark."""
    four = make_patients(4, voxels=8)
    images = np.zeros((4, 2, 8, 8, 8), np.float16)
    images[:, 0, :2, :2, :2] = images[:, 1, -2:, -2:, -2:] = 5
    images[1, 0] = 0
    return replace(four, images=images, present=np.ones((4, 2), bool), modalities=["t1c", "t2f"])


@pytest.mark.parametrize(("objective", "weight"), [("cox", 1.0), ("mse", -1.0)])
def test_grad_cam_peaks_where_the_used_channel_raises_the_risk(objective, weight, corners, params, tiny_encoder):
    maps = explain.gradcam(seen_by(Corner(weight), objective, corners, params), corners)
    assert maps.shape == (4, 8, 8, 8)
    assert np.isnan(maps[1]).all()  # nothing bright, nothing to show
    for one in maps[[0, 2, 3]]:
        assert one[:2, :2, :2].min() == 1 and one.min() == 0 and one[2:].max() == one[:, 2:].max() == 0


def test_what_lowers_the_risk_is_not_shown_and_the_figure_says_so(corners, params, tiny_encoder):
    maps = explain.gradcam(seen_by(Corner(-1.0), "cox", corners, params), corners)
    assert np.isnan(maps).all()
    crops = CropSet(
        corners.outcome.index.tolist(), corners.images, corners.masks, ["t1c", "t2f"], ["enhancing", "oedema"], 2
    )
    figure = figures.gradcam(explain.overlays(corners, maps, [0], crops))
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "no attribution" in said
    assert explain.attribution_inside(corners, maps, crops.labels)["attribution_in_tumour"].isna().all()


def test_grad_cam_is_the_gradient_weighted_sum_of_the_layer_s_maps(patients, params):
    few = patients.take(patients.outcome.index[:6])
    model = Deep("efficientnet", "concat", "cox", params).fit(few)
    samples = model.samples(few)
    given = [torch.as_tensor(part.astype(np.float32)) for part in (samples.images, samples.masks, samples.table)]
    given.append(torch.as_tensor(samples.present))
    before = model.predict(few, TIMES).risk
    kept = []
    net = model.nets[0].eval()
    hook = net.get_submodule(CAM_LAYER["efficientnet"]).register_forward_hook(lambda *seen: kept.append(seen[2]))
    score = net(*given)
    hook.remove()
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    raw = (gradient.mean(dim=(2, 3, 4), keepdim=True) * kept[0]).sum(dim=1, keepdim=True).relu()
    expected = (
        nn.functional.interpolate(raw, scale_factor=8, mode="trilinear", align_corners=False)[:, 0].detach().numpy()
    )
    maps = explain.gradcam(model, few)
    assert np.isfinite(maps).all(axis=(1, 2, 3)).sum() > 0
    for ours, theirs in zip(maps, expected, strict=True):
        np.testing.assert_allclose(np.nan_to_num(ours), theirs / max(theirs.max(), 1e-30), atol=1e-3)
    np.testing.assert_array_equal(model.predict(few, TIMES).risk, before)  # looking changes nothing


def test_patients_shown_run_from_the_lowest_to_the_highest_risk(make_patients, params, tiny_encoder):
    cohort = make_patients(21, voxels=8)
    model = build("hybrid-tiny-cox", params).fit(cohort)
    risk = model.predict(cohort, TIMES).risk
    shown = risk[explain.spread_over_risk(model, cohort, 5)]
    np.testing.assert_array_equal(shown, np.sort(risk)[[0, 5, 10, 15, 20]])
    assert len(explain.spread_over_risk(model, cohort.take(cohort.outcome.index[:2]), 5)) == 2


# --- pictures -----------------------------------------------------------------------------------------------------


def test_the_patient_s_right_is_on_the_left_and_the_back_below(make_patients):
    one = make_patients(1, voxels=16)
    masks, images = np.zeros((1, 2, 16, 16, 16), np.float16), np.zeros((1, 2, 16, 16, 16), np.float16)
    masks[0, 1, 1:3, 11:14, 4:6] = 1  # axes run to the left, the back and the head: on the right, at the back
    masks[0, 0, 12:15, 2:4, 9] = 1  # and oedema elsewhere, on another slice
    images[0, 1] = masks[0, 1] * 100
    crops = CropSet(["P000"], images, masks, ["flair", "t1c"], ["oedema", "enhancing"], 2.0)
    maps = np.zeros((1, 16, 16, 16))
    maps[0, 1:3, 11:14, 5], maps[0, 12:15, 2:4, 9] = 0.8, 1.0
    (panel,) = explain.overlays(replace(one, images=images, masks=masks), maps, [0], crops)
    for name in ("image", "attribution", "mask"):
        rows, columns = np.nonzero(panel[name])
        assert set(rows) == {11, 12, 13} and set(columns) == {1, 2}  # rows count downwards
    assert panel["image"].max() == 100  # t1c, not the first modality; the slice with most attribution in the tumour
    assert (panel["left_label"], panel["right_label"], panel["spacing"]) == ("R", "L", (2.0, 2.0))
    axes = figures.gradcam([panel]).axes[0]
    drawn = axes.images[0]
    assert (
        drawn.origin == "upper" and axes.get_ylim()[0] > axes.get_ylim()[1] and axes.get_xlim()[0] < axes.get_xlim()[1]
    )


def test_the_mask_itself_is_shown_where_there_is_no_image(make_patients):
    one = make_patients(1, voxels=8)
    crops = CropSet(["P000"], one.images[:, :0], one.masks, [], ["enhancing", "oedema"], 2.0)
    (panel,) = explain.overlays(replace(one, images=crops.images), np.zeros((1, 8, 8, 8)), [0], crops)
    assert panel["mask"].any() and (panel["image"] == panel["mask"]).all()


def test_the_share_of_attribution_in_the_tumour_is_the_tumour_s_share_for_a_map_that_says_nothing(make_patients):
    three = make_patients(3, voxels=8)
    tumour = three.masks[:, 0] > 0
    maps = np.stack([np.ones((8, 8, 8)), tumour[1].astype(float), np.full((8, 8, 8), np.nan)])
    table = explain.attribution_inside(three, maps, ["enhancing", "oedema"])
    assert table["attribution_in_tumour"].tolist() == pytest.approx([tumour[0].mean(), 1.0, np.nan], nan_ok=True)
    assert table["tumour_in_cube"].tolist() == pytest.approx([tumour[0].mean()] * 3)


# --- SHAP ---------------------------------------------------------------------------------------------------------


def test_shap_values_add_up_to_the_log_risk_above_the_mean_of_all_training_patients(make_patients, params):
    cohort = make_patients(170, voxels=1)
    ids = cohort.outcome.index
    train, held = cohort.take(ids[:150]), cohort.take(ids[150:])
    model = build("clinical-cox", params).fit(train)
    values, features = explain.shap_linear(model, train, held)
    risk, usual = model.predict(held, TIMES).risk, model.predict(train, TIMES).risk.mean()
    np.testing.assert_allclose(values.sum(axis=1), risk - usual, atol=1e-8)
    assert list(values) == list(features) and list(values.index) == list(ids[150:])
    slopes = pd.Series(model.estimator.coef_, values.columns)
    centred = features - model.prepare.transform(model.read(train)).mean(axis=0)
    np.testing.assert_allclose(values, centred * slopes, atol=1e-8)


# --- importance out of fold -----------------------------------------------------------------------------------------


def test_out_of_fold_importance_finds_what_was_planted_and_no_more(make_patients, study_of, tmp_path):
    """Log volume drives the hazard of these patients; ratio and sphericity are noise."""
    study = study_of(tmp_path / "study", make_patients(240, 3, voxels=1))
    found = explain.out_of_fold_importance(study, "lesion-cox", repeats=20, confidence=0.95, seed=1)
    found = found.set_index("feature")
    assert found.index[0] == "tumour_ml" and found.loc["tumour_ml", "low"] > 0.05
    for name in ("oedema_to_tumour", "sphericity"):
        assert found.loc[name, "low"] < 0.01 < found.loc["tumour_ml", "importance"]


def test_a_fold_without_a_comparable_pair_says_nothing_and_one_without_the_column_says_no_fall(monkeypatch):
    """Not defined is left out; a column that a fold's model lacks is 0 there."""
    falls = iter([pd.DataFrame({"a": [0.2, np.nan], "b": [0.3, 0.1]}), pd.DataFrame({"a": [np.nan, 0.4]})])
    given = SimpleNamespace(frame=pd.DataFrame(columns=["a", "b"]), seen=False)
    monkeypatch.setattr(importance_of, "_fold_models", lambda *_: [(None, None)] * 2)
    monkeypatch.setattr(importance_of, "inputs", lambda *_: given)
    monkeypatch.setattr(importance_of, "_parts", lambda *_: ({}, None))
    monkeypatch.setattr(importance_of, "_falls", lambda *_: next(falls))
    found = explain.out_of_fold_importance(None, "any", repeats=2, confidence=0.9, seed=1).set_index("feature")
    np.testing.assert_allclose(found.loc[["a", "b"], "importance"], [0.3, 0.1])


def test_out_of_fold_importance_never_scores_a_patient_whom_the_fit_has_seen(
    make_patients, study_of, tmp_path, monkeypatch
):
    study = study_of(tmp_path / "study", make_patients(60, 3, voxels=1))
    seen, scored, real_build, real_falls = [], [], importance_of.build, importance_of._falls

    def watched_build(name, params):
        model = real_build(name, params)
        fit = model.fit
        model.fit = lambda train: seen.append(set(train.outcome.index)) or fit(train)
        return model

    def watched_falls(risk_of, parts, held, *rest):
        scored.append(set(held.outcome.index))
        return real_falls(risk_of, parts, held, *rest)

    monkeypatch.setattr(importance_of, "build", watched_build)
    monkeypatch.setattr(importance_of, "_falls", watched_falls)
    explain.out_of_fold_importance(study, "lesion-cox", repeats=2, confidence=0.95, seed=1)
    assert len(scored) == 2 and not any(a & b for a, b in zip(seen, scored, strict=True))
    assert set.union(*scored) == set(study.development)


def test_importance_of_a_network_out_of_fold_reads_no_outcome_of_a_test_patient(
    make_patients, study_of, tmp_path, tiny_encoder
):
    """The networks are those of stage 03 again, so predictions are made first; then the test outcomes are spoilt."""
    cohort, asked = make_patients(60, 3, voxels=8), {"repeats": 4, "confidence": 0.9, "seed": 1}
    study = study_of(tmp_path / "study", cohort, models=["hybrid-tiny-cox"])
    fit_all(study, "hybrid-tiny-cox")
    found = explain.out_of_fold_importance(study, "hybrid-tiny-cox", **asked)
    assert set(found["feature"]) == {"image", *cohort.clinical, "tumour_ml", "oedema_to_tumour", "sphericity"}
    spoilt = cohort.outcome.copy()
    spoilt.loc[study.fold(-1)[1], ["time_days", "event"]] = [1.0, True]
    other = Study(study.name, study.params, study.paths)
    vars(other)["patients"] = replace(cohort, outcome=spoilt)
    pd.testing.assert_frame_equal(explain.out_of_fold_importance(other, "hybrid-tiny-cox", **asked), found)


def test_a_cause_that_two_columns_share_is_found_when_they_are_shuffled_together(make_patients, study_of, tmp_path):
    """Volume drives the hazard; the chart says it twice, so that each alone is half of it."""
    cohort = make_patients(240, 3, voxels=1)
    volume = np.log(cohort.biomarkers["tumour_ml"])
    cohort = replace(cohort, clinical=cohort.clinical.assign(weight=volume, width=-(2 * volume) - 1))
    study = study_of(tmp_path / "study", cohort)
    vars(study)["patients"] = cohort
    asked = {"repeats": 20, "confidence": 0.95, "seed": 1}
    alone = explain.out_of_fold_importance(study, "clinical-cox", **asked).set_index("feature")["importance"]
    together = explain.out_of_fold_importance(study, "clinical-cox", grouped=True, **asked)
    first = together.iloc[0]
    assert first["members"] == "weight, width" and first["feature"] == "weight + width" and first["low"] > 0.05
    assert first["importance"] > 1.5 * max(alone["weight"], alone["width"])
    assert sorted(", ".join(together["members"]).split(", ")) == sorted(alone.index)
    assert together["group"].tolist() == [1, 2, 3, 4, 5]


def test_columns_are_shuffled_after_they_are_prepared_as_if_before(make_patients, params):
    """What a column makes is its own: shuffling it among the prepared is shuffling the chart itself."""
    cohort = make_patients(50, voxels=1)
    model = build("clinical-cox", params).fit(cohort)
    parts, risk = importance_of._parts(model, inputs(model, cohort))
    order = np.random.default_rng(0).permutation(50)
    for name in cohort.clinical:
        shuffled = cohort.clinical.assign(**{name: cohort.clinical[name].to_numpy()[order]})
        expected = model.estimator.predict(model.prepare.transform(shuffled))
        np.testing.assert_allclose(risk(parts | {name: parts[name][order]}), expected, atol=1e-12)


def test_a_model_without_columns_has_no_importance_and_says_so(make_patients, study_of, tmp_path):
    study = study_of(tmp_path / "study", make_patients(30, voxels=1))
    with pytest.raises(BadInput, match="has no columns to explain"):
        explain.out_of_fold_importance(study, "age", repeats=2, confidence=0.9, seed=1)
