"""Image and chart meet as each fusion says."""

from functools import cache

import pytest
import torch

from survpack.encoders import CAM_LAYER, ENCODERS
from survpack.errors import BadInput
from survpack.networks import FUSIONS, HybridNet

MODALITIES, LABELS, COLUMNS, OUTPUTS = 3, 2, 5, 2
MAKERS = dict(ENCODERS)
IMAGE = [fusion for fusion in FUSIONS if fusion != "chart"]


def made(fusion, encoder="compact", dropout=0.2, masks=True, seed=0) -> HybridNet:
    torch.manual_seed(seed)
    return HybridNet(encoder, fusion, MODALITIES, LABELS, COLUMNS, OUTPUTS, dropout, masks)


def drawn(n=4, size=32, seed=1):
    """A batch; patients lack modalities, the second all."""
    generator = torch.Generator().manual_seed(seed)
    present = torch.tensor([[True, True, True], [False] * 3, [True, False, True], [False, False, True]])[:n]
    image = torch.randn(n, MODALITIES, *[size] * 3, generator=generator) * present[:, :, None, None, None]
    mask = (torch.rand(n, LABELS, *[size] * 3, generator=generator) > 0.7).float()
    return image, mask, torch.randn(n, COLUMNS, generator=generator), present


def stirred(net: HybridNet) -> HybridNet:
    """As after some training: no weight of the fusion is zero, and the head is not small."""
    with torch.no_grad():
        for weight in net.fusion.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(5))
    return net.eval()


@cache
def once(name, channels, labels):
    return MAKERS[name](channels, labels)


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_goes_with_every_fusion_and_begins_near_zero(encoder, fusion, monkeypatch):
    monkeypatch.setitem(ENCODERS, encoder, lambda channels, labels: once(encoder, channels, labels))
    net, (image, mask, table, present) = made(fusion, encoder).eval(), drawn(2)
    with torch.no_grad():
        output, embedding = net(image, mask, table, present), net.embed(image, mask, present)
        assert output.shape == (2, OUTPUTS) and output.abs().max() < 0.5
        assert len(embedding) == 2
        torch.testing.assert_close(net.fuse(embedding, table), output, rtol=0, atol=0)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_each_input_moves_the_output_where_the_fusion_reads_it_and_nowhere_else(fusion):
    net, (image, mask, table, present) = stirred(made(fusion)), drawn()
    with torch.no_grad():
        output = net(image, mask, table, present)
        assert (net(image, mask, table + 1, present) != output).any() == (fusion != "image")
        assert (net(-image, mask, table, present) != output).any() == (fusion != "chart")
        assert (net(image, mask.flip(2), table, present) != output).any() == (fusion != "chart")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_gradient_reaches_every_weight(fusion):
    net = stirred(made(fusion, dropout=0.0)).train()
    net(*drawn()).square().sum().backward()
    still = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert set(still) == ({"encoder.norm.weight", "encoder.norm.bias"} if fusion == "cross" else set())  # never pools


@pytest.mark.parametrize("fusion", FUSIONS)
def test_patients_in_another_order_get_their_own_numbers(fusion):
    net, order = stirred(made(fusion)), torch.tensor([2, 0, 3, 1])
    batch = drawn()
    with torch.no_grad():
        torch.testing.assert_close(net(*(part[order] for part in batch)), net(*batch)[order], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_voxels_of_an_absent_modality_change_nothing(fusion):
    net, (image, mask, table, present) = stirred(made(fusion)), drawn()
    rubbish = torch.where(present[:, :, None, None, None], image, torch.nan)
    with torch.no_grad():
        assert torch.equal(net(rubbish, mask, table, present), net(image, mask, table, present))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_network_without_masks_does_not_look_at_them(fusion):
    net, (image, mask, table, present) = stirred(made(fusion, masks=False)), drawn()
    with torch.no_grad():
        assert torch.equal(net(image, 1 - mask, table, present), net(image, mask, table, present))


@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradients_are_the_slopes_that_finite_differences_have(fusion):
    net = stirred(made(fusion, dropout=0.0)).double()
    image, mask, table, present = (part.double() if part.is_floating_point() else part for part in drawn(size=8))
    inputs = image.requires_grad_(), table.requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: net(a, mask, b, present), inputs, fast_mode=True)


def test_attention_is_over_the_modalities_that_are_there_and_the_chart():
    net, (image, mask, table, present) = stirred(made("gated")), drawn()
    with torch.no_grad():
        weight = net.attention(net.embed(image, mask, present), table)
    assert weight.shape == (4, MODALITIES + 1)
    torch.testing.assert_close(weight.sum(1), torch.ones(4))
    assert torch.equal(weight[:, :-1] > 0, present) and (weight[:, -1] > 0).all()
    assert weight[1, -1] == 1  # nothing but a chart
    with pytest.raises(BadInput, match="gated"):
        made("concat").attention(image, table)


def test_a_modality_less_in_gated_is_a_network_that_never_had_it():
    """The others' shares grow in proportion: softmax over fewer."""
    net, (image, mask, table, _) = stirred(made("gated")), drawn()
    everyone = torch.ones(4, MODALITIES, dtype=torch.bool)
    fewer = everyone.clone()
    fewer[:, 1] = False
    with torch.no_grad():
        whole = net.attention(net.embed(image, mask, everyone), table)
        part = net.attention(net.embed(image, mask, fewer), table)
    kept = whole * torch.tensor([1, 0, 1, 1])
    torch.testing.assert_close(part, kept / kept.sum(1, keepdim=True))


@pytest.mark.parametrize("fusion", ["film", "additive"])
def test_fusions_that_add_to_the_image_begin_at_the_image_alone(fusion):
    net, (image, mask, table, present) = made(fusion).eval(), drawn()
    alone = made("image").eval()
    for name in ("encoder", "fusion.image_dense", "fusion.head"):
        alone.get_submodule(name).load_state_dict(net.get_submodule(name).state_dict())
    with torch.no_grad():
        expected = alone(image, mask, table, present)
        torch.testing.assert_close(net(image, mask, table, present), expected)
        torch.testing.assert_close(net(image, mask, 10 * table, present), expected)


@pytest.mark.parametrize("fusion", IMAGE)
def test_without_modalities_the_masks_are_the_image(fusion):
    torch.manual_seed(0)
    net, (_, mask, table, _) = stirred(HybridNet("compact", fusion, 0, LABELS, COLUMNS, 1, 0.0)), drawn()
    nothing, none = torch.zeros(4, 0, 32, 32, 32), torch.zeros(4, 0, dtype=torch.bool)
    with torch.no_grad():
        output = net(nothing, mask, table, none)
        assert output.shape == (4, 1) and (net(nothing, mask.flip(2).roll(1, 0), table, none) != output).any()


@pytest.mark.parametrize("fusion", ["concat", "film", "gated", "cross", "additive"])
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_chart_without_columns_leaves_the_image(fusion):
    net = HybridNet("compact", fusion, MODALITIES, LABELS, 0, 1, 0.0)
    image, mask, _, present = drawn()
    assert net(image, mask, torch.zeros(4, 0), present).isfinite().all()


def test_what_cannot_be_built_is_said_in_one_sentence():
    with pytest.raises(BadInput, match="no encoder `resnet5000`"):
        made("concat", "resnet5000")
    with pytest.raises(BadInput, match="no fusion `glue`"):
        made("glue")
    with pytest.raises(BadInput, match="needs an image"):
        HybridNet("compact", "concat", 0, 2, COLUMNS, 1, 0.0, masks=False)
    with pytest.raises(BadInput, match="needs a chart"):
        HybridNet("compact", "chart", 3, 2, 0, 1, 0.0)


@pytest.mark.parametrize("encoder", [name for name in ENCODERS if CAM_LAYER[name]])
def test_the_layer_of_grad_cam_exists_and_keeps_four_voxels_a_side(encoder):
    net, (image, mask, _, present) = made("concat", encoder).eval(), drawn(2)
    seen = []
    hook = net.get_submodule(CAM_LAYER[encoder]).register_forward_hook(lambda *given: seen.append(given[2].shape))
    with torch.no_grad():
        net.embed(image, mask, present)
    hook.remove()
    assert len(seen) == 1 and min(seen[0][2:]) >= 4
