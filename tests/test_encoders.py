"""Encoders keep the networks that they are named for, and are quicker."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.nets import EfficientNetBN, resnet50
from torch import nn

from survpack import encoders, params, training
from survpack.convolution import Convolution, quicker
from survpack.encoders import ENCODERS, Backbone, Compact, load_published
from survpack.errors import BadInput
from survpack.image_effect import image_effect
from survpack.networks import HybridNet
from survpack.objectives import OBJECTIVES
from survpack.params import Augment
from survpack.training import Samples


@pytest.fixture(scope="module", params=ENCODERS)
def built(request):
    torch.manual_seed(0)
    return request.param, ENCODERS[request.param](3, 2)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    image = torch.randn(3, 3, 32, 32, 32, generator=generator)
    return image, (torch.rand(3, 2, 32, 32, 32, generator=generator) > 0.7).float()


def test_tokens_are_as_wide_and_pooled_as_long_as_the_encoder_says(built, batch):
    name, encoder = built
    with torch.no_grad():
        tokens = encoder(*batch)
    assert tokens.shape[:2] == (3, encoder.width) and encoder.pool(tokens).shape == (3, encoder.pooled)
    assert tokens.shape[2] == {"vit": 64, "compact": 3, "efficientnet-2d": 3, "resnet50-2d": 3}.get(name, 1)


def test_weights_are_as_many_as_in_the_network_of_that_name(built):
    name, encoder = built
    dimensions = 2 if name.endswith("2d") else 3
    with torch.device("meta"):
        if name.startswith("efficientnet"):
            peer = EfficientNetBN("efficientnet-b0", False, spatial_dims=dimensions, in_channels=3, num_classes=1)
            expected = sum(weight.numel() for weight in peer.parameters()) - 1281
        else:
            peer = resnet50(spatial_dims=dimensions, n_input_channels=3, feed_forward=False)
            expected = sum(weight.numel() for weight in peer.parameters())
    count = sum(weight.numel() for weight in encoder.parameters())
    assert count < {"compact": 60_000, "vit": 600_000}.get(name, count + 1)
    assert name in ("compact", "vit") or count == expected


def test_what_an_encoder_sees_of_a_patient_does_not_depend_on_the_rest_of_the_batch(built, batch):
    encoder, (image, mask) = copy.deepcopy(built[1]).eval(), batch
    with torch.no_grad():
        torch.testing.assert_close(encoder(image, mask)[:1], encoder(image[:1], mask[:1]), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", [name for name in ENCODERS if not name.startswith(("resnet", "efficient"))])
def test_a_cube_of_another_size_needs_no_other_encoder(name):
    image = torch.randn(1, 3, 64, 64, 64)
    assert ENCODERS[name](3, 1)(image, image[:, :1]).shape[2] == {"vit": 512, "compact": 2}[name]


def test_a_planar_encoder_sees_the_three_middle_slices_and_nothing_else(batch):
    encoder, (image, mask) = ENCODERS["efficientnet-2d"](3, 2).eval(), batch
    elsewhere, inside = image.clone(), image.clone()
    elsewhere[:, :, :16, :16, :16] += 1
    inside[:, :, 16, 3, 3] += 1
    with torch.no_grad():
        seen = encoder(image, mask)
        assert torch.equal(encoder(elsewhere, mask), seen)
        moved = (encoder(inside, mask) - seen).abs().amax(dim=(0, 1))
    assert moved[0] > 0 and (moved[1:] == 0).all()


# --- patients set apart -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [2, 3])
def test_depthwise_weights_start_as_wide_as_the_paper_has_them(dimensions):
    """Of the standard deviation sqrt(2 / (kernel * what a group gives)); MONAI's are up to 34 times narrower."""
    name = "efficientnet" if dimensions == 3 else "efficientnet-2d"
    depthwise = [part for part in ENCODERS[name](3, 2).net.modules() if getattr(part, "groups", 1) > 1]
    assert len(depthwise) == 16
    for part in depthwise:
        taps = part.weight[0].numel()
        assert part.weight.std().item() == pytest.approx((2 / taps) ** 0.5, rel=0.1)


@pytest.mark.parametrize("name", ["efficientnet", "resnet50", "efficientnet-2d", "resnet50-2d"])
def test_a_block_that_can_be_skipped_starts_as_if_it_were(name):
    net = ENCODERS[name](3, 2).net
    last = [part.bn3 for part in net.modules() if hasattr(part, "bn3")]
    last += [part._bn2 for part in net.modules() if hasattr(part, "_bn2") and part.stride == 1 and part.in_channels == part.out_channels]  # fmt: skip
    assert len(last) == (9 if name.startswith("efficient") else 16)
    assert all((norm.weight == 0).all() for norm in last)


def planted(count: int, seed: int) -> Samples:
    """Crops alike but for the brightness of their lesion, by which the patients live; the table is noise."""
    rng = np.random.default_rng(seed)
    bright, alike = rng.uniform(-1, 1, count), np.random.default_rng(9).normal(size=(1, 1, 32, 32, 32))
    images = alike + 0.3 * rng.normal(size=(count, 1, 32, 32, 32))
    masks = np.zeros((count, 1, 32, 32, 32), np.float16)
    masks[:, :, 10:22, 10:22, 10:22] = 1
    images += 3 * bright[:, None, None, None, None] * masks
    table = rng.normal(size=(count, 3)).astype(np.float32)
    target = np.column_stack([bright, np.ones(count)]).astype(np.float32)
    return Samples(images.astype(np.float16), masks, np.ones((count, 1), bool), table, target)


@pytest.mark.parametrize("name", ENCODERS)
def test_after_training_at_the_study_s_rate_the_output_follows_the_image(name):
    """Held-out patients; chart and image exchanged one for the other."""
    still = dict.fromkeys(Augment.model_fields, 0.0)
    choice = params.load().training
    choice = choice.model_copy(update={"batch_size": 8, "augment": choice.augment.model_copy(update=still)})
    training.seed_everything(choice.seed)
    net, seen, held = HybridNet(name, "concat", 1, 1, 3, 1, 0.0), planted(32, 1), planted(16, 2)
    objective = OBJECTIVES["mse"].learn(seen.target[:, 0], seen.target[:, 1])
    training.train(net, seen, objective, choice, epochs=5, seed=1, label="", mirror=False)
    embedding = training.embed(net, held)
    said = {
        (own, other): value
        for step in range(16)
        for own, other, value in zip(
            range(16), np.roll(np.arange(16), step), training.fuse(net, np.roll(embedding, step, axis=0), held.table)[:, 0], strict=True
        )
    }  # fmt: skip
    table = pd.DataFrame([(0, *pair, value, value) for pair, value in said.items()],
                         columns=["fold", "patient_id", "image_of", "risk", "output"])  # fmt: skip
    found = image_effect(table)
    assert found["collapsed"] is False and found["image_effect"]["low"] > 0.3, found


def test_what_batch_norm_says_in_evaluation_is_the_mean_over_the_patients_as_the_weights_now_are():
    """Not an average kept on the way, which lags behind."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4, momentum=None), nn.Linear(4, 1))
    data = 5 + torch.randn(60, 2)

    def batches(epoch, rng):
        return list(data[torch.as_tensor(rng.permutation(60))].split(20))

    choice = params.load().training.model_copy(update={"learning_rate": 0.1, "precision": "float32"})
    training.optimise(
        module, batches, lambda net, batch: net(batch).square().mean(), choice, epochs=4, seed=1, label=""
    )
    with torch.no_grad():
        expected = module[0](data.to(module[0].weight.device)).mean(dim=0)
    torch.testing.assert_close(module[1].running_mean, expected, rtol=1e-4, atol=1e-5)


def test_a_single_patient_can_be_trained_on():
    choice = params.load().training
    net, alone = HybridNet("efficientnet-2d", "concat", 1, 1, 3, 1, 0.0), planted(1, 1)
    objective = OBJECTIVES["mse"].learn(alone.target[:, 0], alone.target[:, 1])
    history = training.train(net, alone, objective, choice, epochs=1, seed=1, label="", mirror=False)
    assert np.isfinite(history["loss"]).all() and np.isfinite(training.predict(net, alone)).all()


def test_weights_of_the_network_with_group_norm_are_refused_in_a_sentence(tmp_path):
    encoder = ENCODERS["efficientnet-2d"](1, 0)
    old = {
        name: value for name, value in encoder.state_dict().items() if "running" not in name and "tracked" not in name
    }
    training.save_weights(old, tmp_path / "old.safetensors")
    with pytest.raises(BadInput, match=r"weights of another network \(`.*running_mean` is absent, expected"):
        training.load_weights(encoder, tmp_path / "old.safetensors")


@pytest.mark.parametrize("inputs, share", [(3, 1.0), (128, 1.0), (256, 0.5), (1280, 0.1)])
def test_a_wide_unit_s_weights_take_steps_smaller_in_proportion(inputs, share):
    groups = training._by_width(nn.Linear(inputs, 4))
    shares = {weight.ndim: group["share"] for group in groups for weight in group["params"]}
    assert shares == {2: share, 1: 1.0}


# --- compact ------------------------------------------------------------------------------------------------------


def test_a_region_token_holds_mean_and_spread_of_its_voxels_as_numpy_has_them(batch):
    image, mask = batch
    with torch.no_grad():
        tokens = Compact(3, 2)(image, mask)
    for region, inside in enumerate([mask[1, 0] > 0, mask[1, 1] > 0, torch.ones_like(mask[1, 0]) > 0]):
        voxels = image[1][:, inside].numpy()
        np.testing.assert_allclose(tokens[1, :3, region], voxels.mean(axis=1), atol=1e-4)
        expected = np.sqrt(voxels.var(axis=1) + 1e-4) - 0.01
        np.testing.assert_allclose(tokens[1, 3:6, region], expected, atol=1e-4)


def test_the_token_of_an_absent_region_is_zero_and_its_gradient_defined(batch):
    encoder, image, mask = Compact(3, 2), batch[0].clone().requires_grad_(), batch[1].clone()
    mask[1, 0] = 0
    tokens = encoder(image, mask)
    assert (tokens[1, :, 0] == 0).all() and (tokens[0, :, 0] != 0).any()
    encoder.pool(tokens).square().sum().backward()
    assert all(torch.isfinite(weight.grad).all() for weight in encoder.parameters()) and image.grad.isfinite().all()


def test_half_precision_leaves_the_spread_of_a_region_its_digits(batch):
    encoder, (image, mask) = Compact(3, 2), batch
    with torch.no_grad():
        whole = encoder(image + 30, mask)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(encoder(image + 30, mask), whole, rtol=0.05, atol=0.05)


# --- convolutions -------------------------------------------------------------------------------------------------


@given(
    size=st.lists(st.integers(1, 6), min_size=3, max_size=3),
    kernel=st.sampled_from([3, 5]),
    stride=st.integers(1, 2),
    depthwise=st.booleans(),
    before=st.integers(0, 2),
    more=st.integers(0, 1),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_values_and_gradients_are_those_of_pytorch_s_convolution(size, kernel, stride, depthwise, before, more, seed):
    if min(size) + 2 * before + more < kernel:
        size = [max(one, kernel) for one in size]
    torch.manual_seed(seed)
    groups = 4 if depthwise else 1
    peer = nn.Conv3d(4, 4, kernel, stride=stride, groups=groups, bias=False, dtype=torch.float64)
    after = before + more
    ours = Convolution(copy.deepcopy(peer), (before,) * 3, (after,) * 3)
    one = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    two = one.detach().clone().requires_grad_()
    expected, found = peer(nn.functional.pad(one, [before, after] * 3)), ours(two)
    torch.testing.assert_close(found, expected)
    slope = torch.randn_like(expected)
    expected.backward(slope)
    found.backward(slope)
    torch.testing.assert_close(two.grad, one.grad)
    torch.testing.assert_close(ours.weight.grad, peer.weight.grad)


@pytest.mark.parametrize("network", ["efficientnet", "resnet50"])
@pytest.mark.parametrize("dimensions", [2, 3])
def test_the_quicker_network_is_the_same_function_with_the_same_weights(network, dimensions):
    torch.manual_seed(0)
    net = small_resnet(2, dimensions) if network == "resnet50" else encoders._efficientnet(2, dimensions)[0]
    slow = encoders._started(net).eval()
    quick = quicker(copy.deepcopy(slow))
    assert list(quick.state_dict()) == list(slow.state_dict())
    image = torch.randn(2, 2, *[32] * dimensions)
    one, two = slow(image), quick(image)
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-4)
    one.square().sum().backward()
    two.square().sum().backward()
    for (name, weight), peer in zip(quick.named_parameters(), slow.parameters(), strict=True):
        gap = (weight.grad - peer.grad).abs().max() / peer.grad.abs().max().clamp_min(1e-6)
        assert gap < 1e-2, name


# --- weights that others publish ----------------------------------------------------------------------------------


def small_resnet(channels: int, dimensions: int = 3) -> nn.Module:
    """ResNet-50 an eighth as wide."""
    net = resnet50(
        spatial_dims=dimensions, n_input_channels=channels, conv1_t_stride=2, widen_factor=0.125, feed_forward=False
    )
    net.avgpool = nn.Identity()
    return net


@pytest.fixture
def medicalnet(tmp_path):
    """A file as MedicalNet's: names prefixed, one channel, batch norm, no bias in the shortcuts."""
    torch.manual_seed(3)
    state = {f"module.{name}": value for name, value in small_resnet(1).state_dict().items()}
    state = {name: value for name, value in state.items() if not name.endswith("downsample.0.bias")}
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "resnet_50.pth")
    return tmp_path / "resnet_50.pth", state


def test_published_weights_arrive_and_equal_channels_give_what_one_gave(medicalnet):
    path, state = medicalnet
    encoder = Backbone(small_resnet(4), 256)
    loaded = load_published(encoder, path)
    assert {"conv1.weight", "bn1.weight", "layer4.2.conv2.weight"} <= set(loaded)
    assert torch.equal(encoder.net.layer4[2].conv2.weight, state["module.layer4.2.conv2.weight"])
    image = torch.randn(1, 1, 16, 16, 16)
    one = nn.functional.conv3d(image, state["module.conv1.weight"], stride=2, padding=3)
    torch.testing.assert_close(encoder.net.conv1(image.expand(1, 4, 16, 16, 16)), one, rtol=1e-4, atol=1e-4)


def test_weights_of_another_network_are_refused_with_what_was_expected(medicalnet, tmp_path):
    with pytest.raises(BadInput, match=r"resnet_50\.pth: .* of the encoder's .* MedicalNet"):
        load_published(ENCODERS["efficientnet"](3, 2), medicalnet[0])
    with pytest.raises(BadInput, match="of the encoder's 0 tensors"):
        load_published(Compact(3, 2), medicalnet[0])


def test_a_file_that_is_absent_or_holds_more_than_tensors_is_refused(tmp_path):
    encoder = Backbone(small_resnet(1), 256)
    with pytest.raises(BadInput, match="no such file"):
        load_published(encoder, tmp_path / "none.pth")
    for name in ("code.pth", "code.safetensors"):
        torch.save({"state_dict": np.array([object()])}, tmp_path / name)
        with pytest.raises(BadInput, match="cannot be read as weights"):
            load_published(encoder, tmp_path / name)
