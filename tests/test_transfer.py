"""Encoders travel without outcomes, folds stay apart, and what a planted signal teaches elsewhere helps here."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack import multitask, paths, pretraining, training, transfer
from survpack.errors import BadInput
from survpack.figures.transfer import contrast_curve, gain_over_scratch, learning_curves_by_size
from survpack.metrics import concordance
from survpack.params import Augment
from survpack.study import TEST_FOLD, Study

NOTHING = {"rotate_deg": 0, "scale": 0, "shift": 0, "intensity": 0, "noise": 0, "cutout": 0, "modality_dropout": 0}


@pytest.fixture
def choice(params):
    """Little to compute: two sizes, one epoch."""
    few = params.transfer.model_copy(
        update={"sources": {"toy": ["toy"], "other": []}, "sizes": [8, 40], "epochs": 1, "pretrain_epochs": 1}
    )
    scores = params.scores.model_copy(update={"bootstrap": 30})
    return params.model_copy(update={"transfer": few, "scores": scores, "cohorts": ["toy"]})


@pytest.fixture
def study(tmp_path, monkeypatch, study_of, make_patients, choice) -> Study:
    monkeypatch.setattr(paths, "DERIVED", tmp_path / "derived")
    monkeypatch.setattr(pretraining, "in_parallel", one_by_one)
    monkeypatch.setattr(transfer, "in_parallel", one_by_one)
    monkeypatch.setattr(multitask, "in_parallel", one_by_one)
    return replace(study_of(tmp_path / "toy", make_patients(48, voxels=8)), params=choice)


def one_by_one(jobs, label):
    return [function(*arguments) for function, arguments in jobs]


def of_one_size(study: Study) -> Study:
    few = study.params.transfer.model_copy(update={"sizes": [8]})
    return replace(study, params=study.params.model_copy(update={"transfer": few}))


def with_outcomes(study: Study, ids, seed: int) -> Study:
    """The same study, the outcomes of `ids` exchanged among them."""
    participants = study.cohort.participants.set_index("patient_id")
    order = np.random.default_rng(seed).permutation(list(ids))
    participants.loc[ids, ["time_days", "event"]] = participants.loc[order, ["time_days", "event"]].to_numpy()
    participants["event"] = participants["event"].astype(bool)
    participants["time_days"] = participants["time_days"].astype(float)
    splits = study.splits
    replace(study.cohort, participants=participants.reset_index()).save(study.paths.cohort)
    splits.to_parquet(study.paths.cohort / "splits.parquet")
    return Study(study.name, study.params, study.paths)


# --- what travels ----------------------------------------------------------------------------------------------------


def test_an_encoder_sees_the_tumour_and_what_else_is_drawn_whatever_a_cohort_calls_it(study):
    samples, masks = pretraining.samples_of(study), study.patients.masks.astype(float)  # enhancing, oedema
    assert samples.masks.shape[1] == pretraining.LABELS == 2
    for own in range(2):
        np.testing.assert_allclose(samples.masks[:, own].mean((1, 2, 3)), masks[:, own].mean((1, 2, 3)), rtol=1e-3)


def test_tumour_labels_are_one_mask(study):
    labels = {1: "enhancing", 2: "necrosis"}
    cohort = replace(study.cohort, labels=labels)
    study.__dict__["cohort"] = cohort
    samples = pretraining.samples_of(study)
    union = study.patients.masks.max(axis=1).astype(float).mean((1, 2, 3))
    np.testing.assert_allclose(samples.masks[:, 0].astype(float).mean((1, 2, 3)), union, rtol=1e-3)
    assert not samples.masks[:, 1].any()


def test_a_cohort_of_masks_shows_its_tumour_as_the_image(study):
    nothing = replace(
        study.patients, images=study.patients.images[:, :0], present=study.patients.present[:, :0], modalities=[]
    )
    study.__dict__["patients"] = nothing
    samples = pretraining.samples_of(study)
    np.testing.assert_array_equal(samples.images, samples.masks[:, :1])
    assert samples.present.all() and samples.present.shape == (48, 1)


def test_halved_voxels_are_means_of_eight():
    volume = np.random.default_rng(0).normal(size=(2, 3, 4, 4, 4)).astype(np.float16)
    expected = volume.astype(float).reshape(2, 3, 2, 2, 2, 2, 2, 2).mean((3, 5, 7))
    np.testing.assert_allclose(pretraining.halved(volume), expected, atol=2e-3)


# --- pre-training ----------------------------------------------------------------------------------------------------


@given(st.integers(0, 80), st.integers(1, 3), st.integers(0, 10_000))
def test_a_batch_is_of_one_modality_and_every_image_has_its_turn_once(count, modalities, seed):
    rng = np.random.default_rng(seed)
    present = rng.random((count, modalities)) < 0.7
    seen = [(modality, patient) for modality, which in pretraining.drawn(present, rng) for patient in which]
    assert len(set(seen)) == len(seen) and all(present[patient, modality] for modality, patient in seen)
    alone = sum(present[:, modality].sum() == 1 for modality in range(modalities))
    assert len(seen) == present.sum() - alone


def test_pretraining_learns_to_find_patients_again(study):
    """Each patient is a texture of his own, which noise hides from a random encoder."""
    rng, count = np.random.default_rng(0), 24
    samples = pretraining.samples_of(study).take(np.arange(count))
    coarse = np.kron(rng.normal(size=(count, 1, 4, 4, 4)), np.ones((2, 2, 2)))
    samples = samples._replace(images=coarse.astype(np.float16), masks=np.ones((count, 2, 8, 8, 8), np.float16))
    choice = study.params.training.model_copy(update={"augment": Augment(**NOTHING | {"noise": 2.0}), "batch_size": 8})
    encoder, history = pretraining.pretrain(samples, choice, mirror=False, epochs=40, seed=1, label="planted")
    assert history["loss"].iloc[-1] < 0.8 * history["loss"].iloc[0]
    training.seed_everything(1)
    found = [
        pretraining.found_again(one, samples, choice.augment, False, 5) for one in (encoder, pretraining.new_encoder())
    ]
    assert found[0] > max(1.3 * found[1], 4 / count)


def test_the_same_view_is_always_found_again(study):
    samples = pretraining.samples_of(study).take(np.arange(10))
    assert pretraining.found_again(pretraining.new_encoder(), samples, Augment(**NOTHING), False, 1) == 1


def test_what_travels_is_written_for_other_cohorts_and_for_each_fold_of_its_own(study):
    facts = pretraining.pretrain_all(study)
    written = {path.name for path in pretraining.folder("toy").iterdir()}
    assert written == {"encoder.safetensors", "fold-0.safetensors", "fold-1.safetensors", "curve.csv", "facts.json"}
    assert facts["patients"] == len(study.development)
    curve = pd.read_csv(pretraining.folder("toy") / "curve.csv")
    assert set(curve["fold"]) == {TEST_FOLD, 0, 1} and curve["loss"].notna().all()


def test_a_fold_s_own_encoder_knows_nothing_of_its_held_out_images_nor_any_of_outcomes(study):
    pretraining.pretrain_all(study)
    before = {fold: pretraining.load_encoder("toy", fold).state_dict() for fold in (0, 1)}
    held = pretraining.places(study, study.fold(0)[1])
    images = study.patients.images.copy()
    images[held] = np.random.default_rng(9).normal(size=images[held].shape)
    changed = with_outcomes(study, study.development, seed=3)
    changed.__dict__["patients"] = replace(changed.patients, images=images)
    pretraining.pretrain_all(changed)
    after = {fold: pretraining.load_encoder("toy", fold).state_dict() for fold in (0, 1)}
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert not all(torch.equal(before[1][name], after[1][name]) for name in before[1])


def test_an_encoder_of_another_network_is_refused(study):
    pretraining.pretrain_all(study)
    place = pretraining.folder("toy") / "encoder.safetensors"
    training.save_weights(torch.nn.Linear(2, 2), place)
    with pytest.raises(BadInput, match="another network"):
        pretraining.load_encoder("toy", TEST_FOLD)


# --- learning curves -------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=1, max_size=120), st.integers(0, 1000))
def test_every_beginning_of_the_order_has_the_share_of_events_of_the_whole(event, seed):
    event = np.array(event)
    order = transfer.nested(event, seed)
    assert sorted(order) == list(range(len(event)))
    expected = np.arange(1, len(event) + 1) * event.mean()
    assert np.abs(np.cumsum(event[order]) - expected).max() <= 1


def test_sizes_beyond_the_cohort_are_left_out_once_everyone_is_in(study, choice):
    asked = choice.transfer.model_copy(update={"sizes": [8, 40, 100, 148]})
    study = replace(study, params=choice.model_copy(update={"transfer": asked}))
    assert max(len(study.fold(fold)[0]) for fold in (0, 1)) < 40
    assert transfer.sizes_of(study) == [8, 40]


def test_every_arm_predicts_every_development_patient_once_out_of_fold(study):
    pretraining.pretrain_all(study)
    predictions = transfer.learning_curves(study)
    assert list(predictions) == transfer.COLUMNS and np.isfinite(predictions["risk"]).all()
    arms = predictions.groupby(["way", "source", "chart", "size"])["patient_id"]
    assert all(sorted(own) == sorted(study.development) for _, own in arms)
    ways = set(map(tuple, predictions[["way", "source"]].drop_duplicates().to_numpy()))
    assert ways == {("scratch", ""), ("chart", ""), ("frozen", "random"), ("frozen", "toy"), ("fine-tuned", "toy")}
    for fold in (0, 1):
        own = predictions[predictions["fold"] == fold]
        assert set(own["patient_id"]) == set(study.fold(fold)[1])
        assert set(own["patients"]) == {8, min(40, len(study.fold(fold)[0]))}
    found = transfer.score(predictions, study)
    zero = found[found["way"] == "scratch"]
    assert (zero["minus_scratch"] == 0).all() and found["estimate"].between(0, 1).all()
    kept = transfer.as_json(found, [8, 40])
    assert kept["arms"]["fine-tuned toy + chart"]["8"]["harrell_c"]["estimate"] is not None
    assert len(transfer.table(found)) == len(found) and "NaN" not in transfer.table(found).to_csv()
    assert "comparisons with scratch" in transfer.reading(found)
    for figure in (learning_curves_by_size(found, 0.8), gain_over_scratch(found)):
        assert figure.axes


def test_held_out_outcomes_move_no_prediction(study):
    study = of_one_size(study)
    pretraining.pretrain_all(study)
    before = transfer.learning_curves(study)
    held = study.fold(0)[1]
    after = transfer.learning_curves(with_outcomes(study, held, seed=4))
    for table in (before, after):
        table.sort_values(["way", "source", "chart", "size", "patient_id"], inplace=True)
    own = (before["fold"] == 0).to_numpy()
    np.testing.assert_array_equal(before["risk"].to_numpy()[own], after["risk"].to_numpy()[own])
    assert (before["risk"].to_numpy()[~own] != after["risk"].to_numpy()[~own]).any()


def test_a_killed_run_goes_on_from_the_last_finished_fold(study, monkeypatch):
    study = of_one_size(study)
    pretraining.pretrain_all(study)
    whole = transfer.learning_curves(study)
    real, calls = transfer._fold_curves, []

    def killed_at_the_second(study, samples, fold):
        calls.append(fold)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(study, samples, fold)

    monkeypatch.setattr(transfer, "_fold_curves", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        transfer.learning_curves(study)
    pd.testing.assert_frame_equal(transfer.learning_curves(study), whole)
    assert calls == [0, 1, 1]


def test_scores_are_those_of_the_concordance_within_folds(study):
    rng = np.random.default_rng(0)
    ids = study.development
    folds = study.splits.set_index("patient_id").loc[ids, "fold"]
    keys = {"cohort": "toy", "source": "", "chart": False, "size": 8, "patients": 8, "fold": folds.to_numpy()}
    tables = [pd.DataFrame({**keys, "way": way, "patient_id": ids, "risk": rng.normal(size=len(ids))})
              for way in ("scratch", "multi-task")]  # fmt: skip
    found = transfer.score(pd.concat(tables), study).set_index("way")
    outcome = study.outcome(ids)
    alone = {
        table["way"].iloc[0]: concordance(outcome["time_days"], outcome["event"], table["risk"], groups=folds)
        for table in tables
    }
    assert found.loc["multi-task", "estimate"] == pytest.approx(alone["multi-task"])
    assert found.loc["multi-task", "minus_scratch"] == pytest.approx(alone["multi-task"] - alone["scratch"])


def test_frozen_weights_are_the_same_for_any_order_of_patients_and_zero_for_an_absent_modality(study):
    encoder, samples = pretraining.new_encoder(), pretraining.samples_of(study)
    samples = samples._replace(present=samples.present & (np.arange(48) != 5)[:, None])
    vectors, order = transfer.vectors_of(encoder, samples), np.random.default_rng(0).permutation(48)
    assert not vectors[5].any() and vectors[4].any()
    np.testing.assert_allclose(transfer.vectors_of(encoder, samples.take(order)), vectors[order], atol=1e-5)


def test_fine_tuning_starts_where_the_encoder_is(study):
    """With no step to make, a fine-tuned network's encoder is the one that travelled."""
    encoder = pretraining.new_encoder()
    net = transfer.Both(1, 3, 0.0)
    net.image.encoder.load_state_dict(encoder.state_dict())
    image, masks = torch.randn(4, 1, 8, 8, 8), torch.rand(4, 2, 8, 8, 8).round()
    there, table = torch.ones(4, 1, dtype=torch.bool), torch.randn(4, 3)
    both = net.eval()(image, masks, table, there)
    torch.testing.assert_close(both[:, 0], both[:, 1])  # the line on the chart starts flat
    torch.testing.assert_close(
        pretraining.pooled(net.image.encoder, image, masks), pretraining.pooled(encoder, image, masks)
    )


def test_the_first_head_never_sees_the_chart(study):
    net = transfer.Both(1, 3, 0.0).eval()
    torch.nn.init.ones_(net.line.weight)
    image, masks, there = torch.randn(4, 1, 8, 8, 8), torch.rand(4, 2, 8, 8, 8), torch.ones(4, 1, dtype=torch.bool)
    one, other = (net(image, masks, torch.randn(4, 3), there) for _ in range(2))
    torch.testing.assert_close(one[:, 0], other[:, 0])
    assert (one[:, 1] != other[:, 1]).all()


def test_without_an_event_among_the_few_everyone_has_one_risk(study):
    few = [one for one in study.development if not study.outcome([one])["event"].iloc[0]][:6]
    held = study.development[:5]
    samples = transfer.ready(study, pretraining.samples_of(study), few)
    risk = transfer._trained(
        samples, pretraining.places(study, few), np.arange(5), None, study.params.training, 1, False, 1
    )
    assert not risk.any() and not transfer._chart_alone(study, few, held).any()


# --- several cohorts -------------------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(2, 40), st.integers(1, 12), st.integers(2, 16), st.integers(0, 100))
def test_all_have_their_turn_before_one_has_a_second(count, steps, batch, seed):
    parts = multitask.rounds(count, steps, batch, np.random.default_rng(seed))
    assert len(parts) == steps and all(len(part) == min(batch, count) for part in parts)
    turns = np.bincount(np.concatenate(parts), minlength=count)
    assert turns.max() - turns.min() <= 1


@pytest.fixture
def two(tmp_path, study, study_of, make_patients, choice):
    """Two cohorts of other charts' patients, seen with one encoder."""
    other = study_of(tmp_path / "second", make_patients(40, seed=1, voxels=8))
    return [study, replace(other, params=choice, name="second")]


def test_one_encoder_serves_all_cohorts_and_predicts_each_of_their_patients_out_of_fold(two):
    found = multitask.multitask(two)
    for study in two:
        own = found[found["cohort"] == study.name]
        for _, table in own.groupby("chart"):
            assert sorted(table["patient_id"]) == sorted(study.development)
    pd.testing.assert_frame_equal(multitask.multitask(two), found)


def test_a_single_cohort_has_no_other_to_learn_with(study):
    assert multitask.multitask([study]).empty


def test_what_one_cohort_teaches_reaches_the_encoder_of_the_other(two, choice):
    """One step on both moves the shared encoder, and each head by its own cohort alone."""
    ready = [transfer.ready(one, pretraining.samples_of(one), one.development) for one in two]
    nets = torch.nn.ModuleList(transfer.Both(1, one.table.shape[1], 0.0) for one in ready)
    nets[1].image.encoder = nets[0].image.encoder
    before = [{name: value.clone() for name, value in net.state_dict().items()} for net in nets]
    history = multitask.fit_together(nets, ready, [False, False], choice.training, 2, 1)
    assert len(history) == 2 and nets[1].image.encoder is nets[0].image.encoder
    for was, net in zip(before, nets, strict=True):
        moved = {name for name, value in net.state_dict().items() if not torch.equal(value, was[name])}
        assert "line.weight" in moved and any(name.startswith("image.encoder") for name in moved)


def test_the_loss_of_pretraining_is_drawn_with_its_chance():
    table = pd.DataFrame({"fold": [-1, -1, 0, 0], "epoch": [0, 1, 0, 1], "loss": [4.0, 2.0, 4.1, 2.2]})
    axes = contrast_curve(table, 4.14).axes[0]
    assert len(axes.lines) == 3 and axes.get_ylim()[1] > 4.1


def test_a_cohort_that_shares_a_scan_lends_no_encoder(tmp_path, monkeypatch, study):
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    asked = study.params.transfer.model_copy(update={"sources": {"toy": ["toy", "near", "far"]}})
    study = replace(
        study, params=study.params.model_copy(update={"transfer": asked, "cohorts": ["toy", "near", "far"]})
    )
    for name, sha in {"toy": "same", "near": "same", "far": "other"}.items():
        folder = paths.CohortPaths(name).tables("cohort")
        folder.mkdir(parents=True)
        row = {
            "patient_id": f"{name}-1",
            "modality": "ct",
            "sha": sha,
            "signature": np.random.default_rng(len(sha)).bytes(512).hex(),
        }
        pd.DataFrame([row]).to_csv(folder / "hashes.csv", index=False)
    assert pretraining.sources_of(study) == ["toy", "far"]
