"""The loop learns what is there to learn, ends the same however often it is killed, and refuses what is not its own."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from survpack import params, training
from survpack.errors import BadInput
from survpack.params import Augment, Training
from survpack.training import Samples

NOTHING = Augment(rotate_deg=0, scale=0, shift=0, intensity=0, noise=0, cutout=0, modality_dropout=0)
SIDE = 8


class Net(nn.Module):
    """As `HybridNet` is called: an image's means and the table, to one number."""

    def __init__(self, modalities=1, columns=3, dropout=0.0):
        super().__init__()
        self.image = nn.Sequential(nn.Conv3d(modalities + 1, 4, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool3d(1))
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(4 + columns, 1))

    def forward(self, image, mask, table, present):
        return self.fuse(self.embed(image, mask, present), table)

    def embed(self, image, mask, present):
        return self.image(torch.cat([image, mask], 1)).flatten(1)

    def fuse(self, embedding, table):
        return self.head(torch.cat([embedding, table], 1))


class Squares:
    """An objective: squared error, and whatever `watched` does on the way."""

    def __init__(self, watched=lambda: None):
        self.watched = watched

    def loss(self, output, target):
        self.watched()
        return nn.functional.mse_loss(output, target[:, :1])


@pytest.fixture
def choice() -> Training:
    usual = params.load().training
    return usual.model_copy(
        update={"batch_size": 16, "learning_rate": 0.02, "weight_decay": 0.0, "augment": NOTHING, "precision": "auto"}
    )


def samples(count=48, modalities=1) -> Samples:
    """Images of noise; the target is the first column of the table, and whether it was an event."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(count, modalities, *[SIDE] * 3)).astype(np.float16)
    masks = (rng.random((count, 1, *[SIDE] * 3)) > 0.8).astype(np.float16)
    table = rng.normal(size=(count, 3)).astype(np.float32)
    target = np.stack([table[:, 0], np.arange(count) % 3 > 0], axis=1).astype(np.float32)
    return Samples(images, masks, np.ones((count, modalities), bool), table, target)


def fitted(choice, make=lambda: Net(dropout=0.3), given=None, objective=None, seed=1, epochs=10, **more):
    training.seed_everything(seed)
    net = make()
    given = samples() if given is None else given
    history = training.train(
        net, given, objective or Squares(), choice, epochs=epochs, seed=seed, label="toy", mirror=True, **more
    )
    return net, history


def linear(seed=0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(3, 1)


def squares(module, batch):
    return nn.functional.mse_loss(module(batch[0]), batch[1][:, :1])


def parts(given: Samples, batch: int):
    """`batches` of plain pairs of table and target."""

    def batches(epoch, rng):
        order = torch.as_tensor(rng.permutation(len(given.table)))
        return [
            (torch.as_tensor(given.table)[index], torch.as_tensor(given.target)[index]) for index in order.split(batch)
        ]

    return batches


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(*pair) for pair in pairs)


def test_the_loss_falls_and_the_output_follows_the_planted_column(choice):
    net, history = fitted(choice, Net, epochs=25)
    given = samples()
    assert history["epoch"].tolist() == list(range(25)) and list(history) == training.HISTORY
    assert history["loss"].iloc[-1] < 0.3 * history["loss"].iloc[0]
    assert np.corrcoef(training.predict(net, given)[:, 0], given.target[:, 0])[0, 1] > 0.9
    assert history["inner_loss"].isna().all() and (history[["samples_per_second", "peak_memory_mb"]] > 0).all(axis=None)


def test_augmented_training_still_learns(choice):
    usual = params.load().training.augment
    _, history = fitted(choice.model_copy(update={"augment": usual}), Net, epochs=25)
    assert history["loss"].iloc[-1] < 0.4 * history["loss"].iloc[0]


def test_even_a_single_step_learns(choice):
    net = Net()
    before = net.head[1].weight.detach().clone()
    fitted(choice, lambda: net, samples().take(slice(6)), epochs=1)
    assert (net.head[1].weight.cpu() - before).abs().max() > 0.03 * choice.learning_rate


def test_the_loop_takes_the_steps_that_plain_torch_takes(choice):
    """AdamW, clipping and the rate of each step by hand, over the same batches."""
    choice = choice.model_copy(update={"weight_decay": 0.1})
    given, ours, theirs = samples(), linear(), linear()
    given = given._replace(target=1000 * given.target)  # gradients that are clipped
    batches = parts(given, 12)
    training.optimise(ours, batches, squares, choice, epochs=6, seed=5, label="ours")
    optimiser = torch.optim.AdamW(theirs.parameters(), lr=choice.learning_rate, weight_decay=0.1)
    for epoch in range(6):
        rng = np.random.default_rng([5, epoch])
        rng.integers(2**62)  # torch's seed is drawn first
        for step, batch in enumerate(batches(epoch, rng)):
            optimiser.param_groups[0]["lr"] = choice.learning_rate * training.one_cycle((4 * epoch + step) / 24)
            optimiser.zero_grad()
            squares(theirs, batch).backward()
            nn.utils.clip_grad_norm_(theirs.parameters(), 5.0)
            optimiser.step()
    assert not torch.allclose(ours.weight, linear().weight, atol=1e-2)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=1e-5, atol=1e-6)


def test_the_learning_rate_is_that_of_torchs_one_cycle():
    steps = 2000  # its peak lies a step before 30 % of the way, ours at 30 %
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1.0, total_steps=steps + 1, cycle_momentum=False)
    theirs = []
    for _ in range(steps):
        theirs.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    ours = [training.one_cycle(step / steps) for step in range(steps)]
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert max(ours) == pytest.approx(1.0) and training.one_cycle(1.0) == pytest.approx(1 / 25e4)


def test_the_same_seed_trains_the_same_network_and_another_seed_another(choice):
    usual = choice.model_copy(update={"augment": params.load().training.augment})
    one, same, other = (fitted(usual, epochs=2, seed=seed)[0] for seed in (1, 1, 2))
    assert equal(one, same) and not equal(one, other)


def test_training_leaves_the_callers_random_numbers_alone(choice):
    torch.manual_seed(9)
    expected = torch.rand(3)
    torch.manual_seed(9)
    training.optimise(linear(), parts(samples(), 16), squares, choice, epochs=2, seed=1, label="toy")
    torch.manual_seed(9)
    nn.Linear(3, 1)
    after = torch.get_rng_state()
    torch.manual_seed(9)
    module = nn.Linear(3, 1)
    training.optimise(module, parts(samples(), 16), squares, choice, epochs=2, seed=1, label="toy")
    assert torch.equal(torch.get_rng_state(), after)
    torch.manual_seed(9)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("inner_fraction", [0.0, 0.25])
@pytest.mark.parametrize("killed_at", [1, 7])
def test_a_fit_killed_and_taken_up_again_equals_the_unbroken_one(choice, tmp_path, killed_at, inner_fraction):
    usual = choice.model_copy(
        update={"augment": params.load().training.augment, "inner_fraction": inner_fraction, "patience": 4}
    )
    whole, history = fitted(usual)
    path, calls = tmp_path / "member.safetensors", []

    def killed():
        calls.append(1)
        if len(calls) > killed_at * (3 + bool(inner_fraction)) - 1:  # in the midst of an epoch
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fitted(usual, objective=Squares(killed), checkpoint=path)
    assert killed_at == 1 or path.exists()
    broken, resumed = fitted(usual, checkpoint=path)
    if training.device().type == "cpu":
        assert equal(whole, broken)
    np.testing.assert_allclose(training.predict(broken, samples()), training.predict(whole, samples()), atol=1e-6)
    told = ["epoch", "loss", "inner_loss", "learning_rate"]
    pd.testing.assert_frame_equal(resumed[told], history[told], check_exact=True)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_finished_fit_taken_up_again_takes_no_step(choice, tmp_path):
    done, history = fitted(choice, epochs=3, checkpoint=tmp_path / "done")

    def never():
        raise AssertionError

    again, told = fitted(choice, epochs=3, objective=Squares(never), checkpoint=tmp_path / "done")
    assert equal(done, again)
    pd.testing.assert_frame_equal(told, history)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"seed": 2}, "`seed` 1, expected 2"),
        ({"epochs": 4}, "`epochs` 3, expected 4"),
        ({"make": lambda: Net(modalities=2), "given": samples(modalities=2)}, "image.0.weight"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused_by_name(choice, tmp_path, changed, said):
    path = tmp_path / "fit.safetensors"
    fitted(choice, epochs=3, checkpoint=path)
    with pytest.raises(BadInput, match=said) as refused:
        fitted(choice, **{"epochs": 3, "checkpoint": path} | changed)
    assert str(path) in str(refused.value) and "delete" in str(refused.value)


def test_a_checkpoint_of_other_choices_is_refused(choice, tmp_path):
    fitted(choice, epochs=2, checkpoint=tmp_path / "fit")
    with pytest.raises(BadInput, match="`dropout`"):
        fitted(choice.model_copy(update={"dropout": 0.1}), epochs=2, checkpoint=tmp_path / "fit")


def test_a_checkpoint_of_another_version_and_no_checkpoint_at_all_are_refused(choice, tmp_path):
    path = tmp_path / "fit.safetensors"
    fitted(choice, epochs=1, checkpoint=path)
    save_file(load_file(path), path, {"version": "0"})
    with pytest.raises(BadInput, match="version 0, expected version 1"):
        fitted(choice, epochs=1, checkpoint=path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(BadInput, match="not readable as safetensors"):
        fitted(choice, epochs=1, checkpoint=path)


def test_training_stops_when_the_inner_loss_falls_no_more_and_keeps_the_best_weights(choice):
    losses, kept, module = iter([3.0, 1.0, 2.0, math.nan, 2.0, 2.0]), [], linear()

    def validate():
        kept.append(module.weight.detach().clone())
        return next(losses)

    usual = choice.model_copy(update={"patience": 3})
    history = training.optimise(
        module, parts(samples(), 16), squares, usual, epochs=20, seed=1, label="toy", validate=validate
    )
    assert len(history) == 5  # three epochs after the best
    assert torch.equal(module.weight, kept[1]) and not torch.equal(module.weight, kept[-1])


def test_a_validation_that_cannot_speak_stops_nothing(choice):
    history = training.optimise(
        linear(), parts(samples(), 16), squares, choice, epochs=9, seed=1, label="toy", validate=lambda: None
    )
    assert len(history) == 9 and history["inner_loss"].isna().all()


def test_patients_held_for_early_stopping_are_not_trained_on(choice):
    given = samples()
    inner, _ = training.inner_split(given.target[:, 1] == 1, 0.25, 1)
    spoilt = given._replace(target=given.target.copy())
    spoilt.target[inner, 0] += 100
    usual = choice.model_copy(update={"inner_fraction": 0.25, "patience": 30})
    histories = [fitted(usual, given=each)[1] for each in (given, spoilt)]
    assert histories[0]["loss"].tolist() == histories[1]["loss"].tolist()
    assert (histories[1]["inner_loss"] > histories[0]["inner_loss"] + 1000).all()


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.floats(0, 0.49), st.integers(0, 99))
def test_the_inner_split_is_a_split_with_the_same_share_of_events(event, fraction, seed):
    event = np.array(event)
    inner, outer = training.inner_split(event, fraction, seed)
    assert sorted([*inner, *outer]) == list(range(len(event)))
    for one in (True, False):
        assert abs((event[inner] == one).sum() - fraction * (event == one).sum()) <= 0.5
    assert event.sum() != 1 or event[outer].any()  # a single event is trained on


def test_bfloat16_on_a_cpu_trains_to_much_the_same(choice):
    precisions, seen = ("float32", "bfloat16"), []

    class Watched(Net):
        def fuse(self, embedding, table):
            output = super().fuse(embedding, table)
            seen.append(output.dtype)
            return output

    results = []
    for precision in precisions:
        net, history = fitted(choice.model_copy(update={"precision": precision}), Watched, epochs=8)
        results.append(history["loss"].to_numpy())
        assert training.predict(net, samples()).dtype == np.float32
    assert torch.bfloat16 in seen and torch.float32 in seen
    np.testing.assert_allclose(*results, rtol=0.05)
    assert (results[0] != results[1]).any()


def test_frozen_weights_stay_as_they_are(choice):
    net = Net()
    net.image.requires_grad_(False)
    before = net.image[0].weight.clone()
    fitted(choice.model_copy(update={"weight_decay": 0.5}), lambda: net, epochs=2)
    assert torch.equal(net.image[0].weight.cpu(), before)


def test_batches_may_be_packed_sequences_or_dictionaries(choice):
    visits = [torch.randn(length, 3) for length in (4, 2, 1)]
    packed = nn.utils.rnn.pack_sequence(visits, enforce_sorted=False)
    gru = nn.GRU(3, 2)
    run = {"epochs": 2, "seed": 1, "label": "toy"}
    history = training.optimise(gru, lambda *_: [packed], lambda module, batch: module(batch)[1].square().mean(),
                                choice, **run)  # fmt: skip
    assert np.allclose(history["samples_per_second"] * history["seconds"], 3)
    named = {"x": torch.randn(5, 3), "note": "kept"}
    history = training.optimise(linear(), lambda *_: iter([named, named]),
                                lambda module, batch: module(batch["x"]).mean() ** 2, choice, **run)  # fmt: skip
    assert np.allclose(history["samples_per_second"] * history["seconds"], 10)


@pytest.mark.parametrize("name", ["images", "table", "target"])
def test_a_value_that_is_not_finite_is_refused_and_the_patient_numbered(choice, name):
    given = samples()
    getattr(given, name)[7].flat[0] = np.nan
    with pytest.raises(BadInput, match=f"`{name}` of training patient 7"):
        fitted(choice, given=given)


def test_a_loss_that_runs_away_ends_in_a_sentence(choice):
    with pytest.raises(BadInput, match="loss of epoch 0 is nan.*learning_rate"):
        training.optimise(linear(), parts(samples(), 16), lambda module, batch: squares(module, batch) * math.nan,
                          choice, epochs=2, seed=1, label="toy")  # fmt: skip


def test_an_inner_split_without_an_event_stops_nothing(choice):
    given = samples()
    given.target[:, 1] = 0
    given.target[5, 1] = 1  # the only one; it is trained on
    _, history = fitted(choice.model_copy(update={"inner_fraction": 0.3, "patience": 1}), given=given, epochs=6)
    assert len(history) == 6 and history["inner_loss"].isna().all()


def test_inference_does_not_depend_on_how_patients_are_batched_and_is_embedding_then_fusion():
    net, given = Net(dropout=0.5), samples()
    whole, few = (training.predict(net, given, batch) for batch in (48, 5))
    np.testing.assert_allclose(whole, few, atol=1e-6)
    fused = training.fuse(net, training.embed(net, given, 7), given.table)
    assert fused.shape == (48, 1)
    np.testing.assert_allclose(fused, whole, atol=1e-6)


def test_a_cohort_of_masks_only_trains(choice):
    net, history = fitted(choice, lambda: Net(modalities=0), samples(modalities=0), epochs=2)
    assert np.isfinite(history["loss"]).all() and training.predict(net, samples(modalities=0)).shape == (48, 1)


def test_weights_and_what_is_said_of_them_come_back_from_disk(tmp_path):
    training.seed_everything(1)
    net, other = Net(), Net()
    training.save_weights(net, tmp_path / "a" / "weights", {"trained_on": ["mets"]})
    assert training.load_weights(other, tmp_path / "a" / "weights") == {"trained_on": ["mets"]}
    assert equal(net, other) and len(list((tmp_path / "a").iterdir())) == 1
    training.save_weights({"0.x": net.head[1].weight}, tmp_path / "parts")
    state, said = training.read_weights(tmp_path / "parts")
    assert torch.equal(state["0.x"], net.head[1].weight) and said == {}


@pytest.mark.parametrize("other", [Net(columns=4), nn.Linear(3, 1)])
def test_weights_of_another_network_are_refused_and_change_nothing(tmp_path, other):
    training.save_weights(Net(), tmp_path / "weights")
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(BadInput, match="weights of another network.*expected"):
        training.load_weights(other, tmp_path / "weights")
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())


def test_weights_without_a_version_are_refused(tmp_path):
    save_file(Net().state_dict(), tmp_path / "weights")
    with pytest.raises(BadInput, match="version none, expected version 1"):
        training.load_weights(Net(), tmp_path / "weights")
    with pytest.raises(BadInput, match="absent"):
        training.load_weights(Net(), tmp_path / "absent")
