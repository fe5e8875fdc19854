"""The loop learns what is there to learn; augmentation and weights on disk change nothing they should not."""

import numpy as np
import pytest
import torch

from survpack import training
from survpack.models import Hybrid
from survpack.networks import HybridNet
from survpack.params import Training

CHOICES = Training(epochs=15, batch_size=16, learning_rate=0.02, weight_decay=0.0, dropout=0.0, seed=1)
TIMES = np.array([10.0, 100, 1000])


def signal(count=48):
    """Images of noise; a table whose first column determines the time."""
    rng = np.random.default_rng(0)
    table = rng.normal(size=(count, 3))
    images = rng.normal(size=(count, 1, 8, 8, 8)).astype(np.float16)
    return images, np.zeros_like(images), table


@pytest.mark.parametrize("objective", ["mse", "cox"])
def test_the_loss_falls_and_the_output_follows_the_planted_column(objective, tiny_encoder):
    images, masks, table = signal()
    time = table[:, 0] if objective == "mse" else np.exp(table[:, 0])
    training.seed_everything(3)
    net = HybridNet(tiny_encoder, 2, 3, 0.0)
    history = training.train(net, images, masks, table, time, np.ones(48, bool), objective, CHOICES, 1, "planted")
    assert (
        len(history) == 15 and history[-1] < 0.6 * history[0] if objective == "mse" else history[-1] < history[0] - 0.3
    )
    learnt = training.fuse(net, training.embed(net, images, masks), table)
    assert abs(np.corrcoef(learnt, table[:, 0])[0, 1]) > 0.9
    assert np.sign(np.corrcoef(learnt, table[:, 0])[0, 1]) == (1 if objective == "mse" else -1)


def test_even_a_single_step_learns(tiny_encoder):
    images, masks, table = (each[:6] for each in signal())
    net = HybridNet(tiny_encoder, 2, 3, 0.0)
    before = net.head.weight.detach().clone()
    one = CHOICES.model_copy(update={"epochs": 1})
    training.train(net, images, masks, table, table[:, 0], np.ones(6, bool), "mse", one, 1, "one step")
    assert (net.head.weight.cpu() - before).abs().max() > 0.1 * CHOICES.learning_rate


def test_the_same_seed_trains_the_same_network_and_another_seed_another(tiny_encoder):
    images, masks, table = signal()
    few = CHOICES.model_copy(update={"epochs": 2, "dropout": 0.5})

    def trained(seed):
        training.seed_everything(seed)
        net = HybridNet(tiny_encoder, 2, 3, 0.5)
        training.train(net, images, masks, table, table[:, 0], np.ones(48, bool), "mse", few, seed, "seeded")
        return training.fuse(net, training.embed(net, images, masks), table)

    np.testing.assert_array_equal(trained(1), trained(1))
    assert (trained(1) != trained(2)).any()


def test_a_cohort_of_masks_only_trains(tiny_encoder):
    _, masks, table = signal()
    none = np.zeros((48, 0, 8, 8, 8), np.float16)
    net = HybridNet(tiny_encoder, 1, 3, 0.0)
    one = CHOICES.model_copy(update={"epochs": 1})
    history = training.train(net, none, masks, table, table[:, 0], np.ones(48, bool), "mse", one, 1, "masks only")
    assert np.isfinite(history).all() and training.embed(net, none, masks).shape == (48, 32)


def test_inference_does_not_depend_on_how_patients_are_batched(tiny_encoder):
    images, masks, _ = signal()
    net = HybridNet(tiny_encoder, 2, 3, 0.5)
    whole, parts = (training.embed(net, images, masks, batch) for batch in (48, 5))
    np.testing.assert_allclose(whole, parts, atol=1e-6)


def test_augmentation_mirrors_image_and_masks_together_and_leaves_mask_values_alone():
    rng = np.random.default_rng(0)
    inside = (rng.random((1, 8, 8, 8)) > 0.5).astype(np.float16)
    image, mask = inside * 10, np.concatenate([inside, 1 - inside])
    augment, mirrored = training._augmentation(seed=4), 0
    images = []
    for _ in range(40):
        seen = {name: np.asarray(value) for name, value in augment({"image": image, "mask": mask}).items()}
        flipped = not np.array_equal(seen["mask"], mask)
        np.testing.assert_array_equal(seen["mask"], mask[:, ::-1] if flipped else mask)  # left and right, no other axis
        assert seen["image"][seen["mask"][:1] == 1].min() > seen["image"][seen["mask"][:1] == 0].max() + 5
        mirrored += flipped
        images.append(seen["image"])
    assert 8 < mirrored < 32
    assert len({each.tobytes() for each in images}) > 20  # brightness, contrast and noise do change
    np.testing.assert_array_equal(image, inside * 10)  # and the patient's own arrays do not


def test_augmentation_does_not_break_the_tie_of_image_and_mask_in_a_batch():
    seen = [
        {"image": np.full((1, 2, 2, 2), k, np.float32), "mask": np.full((2, 2, 2, 2), k, np.float16)} for k in (1, 2)
    ]
    stacked = training._stack(seen)
    assert stacked.shape == (2, 3, 2, 2, 2) and stacked.dtype == torch.float32
    assert (stacked[0] == 1).all() and (stacked[1] == 2).all()


@pytest.mark.parametrize("objective", ["mse", "cox"])
def test_a_network_from_its_weights_predicts_exactly_what_it_did(objective, patients, params, tmp_path):
    train, held = patients.take(patients.outcome.index[:8]), patients.take(patients.outcome.index[8:14])
    fitted = Hybrid("efficientnet", objective, params).fit(train)
    fitted.save(tmp_path / "weights.safetensors")
    again = Hybrid("efficientnet", objective, params).fit(train, weights=tmp_path / "weights.safetensors")
    assert len(fitted.history) == 1 and again.history == []
    for ours, theirs in zip(fitted.predict(held, TIMES), again.predict(held, TIMES), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.safetensors"]


def test_days_of_the_mse_network_are_on_the_scale_of_training_deaths(tiny_encoder, make_patients, params):
    cohort = make_patients(40, voxels=8)
    long = params.model_copy(update={"training": params.training.model_copy(update={"epochs": 10})})
    deaths = cohort.outcome.loc[cohort.outcome["event"], "time_days"]
    forecast = Hybrid(tiny_encoder, "mse", long).fit(cohort).predict(cohort, TIMES)
    assert deaths.min() / 2 < np.median(forecast.days) < deaths.max()
    assert (np.diff(forecast.days[np.argsort(forecast.risk)]) <= 0).all() and (forecast.days >= 1).all()
