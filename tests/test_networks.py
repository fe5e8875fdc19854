"""The networks' parts fit together; the objectives are the textbook's."""

import numpy as np
import pandas as pd
import pytest
import torch
from lifelines import CoxPHFitter

from survpack.networks import CAM_LAYER, ENCODERS, HybridNet
from survpack.objectives import OBJECTIVES


@pytest.fixture(scope="module", params=ENCODERS)
def built(request):
    torch.manual_seed(0)
    return request.param, HybridNet(request.param, channels=3, columns=5, dropout=0.2)


@pytest.fixture(scope="module")
def batch():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(3, 3, 32, 32, 32, generator=generator), torch.randn(3, 5, generator=generator)


def test_the_whole_network_is_the_fusion_of_its_two_branches(built, batch):
    net, (image, table) = built[1], batch
    with torch.no_grad():
        net.eval()
        whole, embedding = net(image, table), net.embed(image)
        assert whole.shape == (3,) and embedding.shape == (3, 32)
        torch.testing.assert_close(whole, net.fuse(embedding, table), rtol=0, atol=0)
        assert (net.fuse(embedding, table + 1) != whole).all() and (net(-image, table) != whole).any()


def test_the_gradient_reaches_the_first_layer_of_either_branch(built, batch):
    net = built[1].train()
    net.zero_grad()
    net(*batch).square().sum().backward()
    still = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert not [name for name in still if "bias" not in name and "_bn" not in name and ".bn" not in name]


def test_the_layer_of_grad_cam_exists_and_keeps_four_voxels_a_side(built, batch):
    encoder, net = built
    seen = []
    hook = net.get_submodule(CAM_LAYER[encoder]).register_forward_hook(lambda *given: seen.append(given[2].shape))
    with torch.no_grad():
        net.eval().embed(batch[0])
    hook.remove()
    assert len(seen) == 1 and seen[0][2:] == (4, 4, 4)


def test_what_an_encoder_sees_of_a_patient_does_not_depend_on_the_rest_of_the_batch(built, batch):
    """In training too: with batch norm it would, and what is learnt would not hold in evaluation."""
    net, (image, _) = built[1].train(), batch
    for block in net.modules():
        if hasattr(block, "drop_connect_rate"):
            block.drop_connect_rate = None  # chance, and so another for each batch
        if isinstance(block, torch.nn.Dropout):
            block.p = 0.0
    with torch.no_grad():
        torch.testing.assert_close(net.encoder(image)[:1], net.encoder(image[:1]), rtol=1e-3, atol=1e-4)


def test_an_unknown_encoder_is_refused_by_name():
    with pytest.raises(KeyError, match="resnet5000"):
        HybridNet("resnet5000", channels=1, columns=1, dropout=0.0)


# --- objectives ---------------------------------------------------------------------------------------------------

TIME = torch.tensor([5.0, 3, 3, 3, 8, 8, 2, 9])
EVENT = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0], dtype=torch.bool)


def efron(output, time, event) -> float:
    """Negative log partial likelihood with Efron's ties, written out, per event."""
    hazard, total = np.exp(output), 0.0
    for moment in np.unique(time[event]):
        dying = (time == moment) & event
        at_risk, tied, deaths = hazard[time >= moment].sum(), hazard[dying].sum(), dying.sum()
        total += output[dying].sum() - sum(np.log(at_risk - k / deaths * tied) for k in range(deaths))
    return -total / event.sum()


@pytest.mark.parametrize("seed", range(4))
def test_cox_is_efron_s_partial_likelihood_under_ties(seed):
    output = torch.randn(8, generator=torch.Generator().manual_seed(seed))
    expected = efron(output.double().numpy(), TIME.numpy(), EVENT.numpy())
    assert float(OBJECTIVES["cox"](output, TIME, EVENT)) == pytest.approx(expected, rel=1e-5)


def test_cox_is_least_where_lifelines_puts_the_coefficient_and_has_its_likelihood_there():
    x = torch.tensor([0.2, 1.1, -0.4, 0.3, -0.9, 0.5, -1.2, 0.1])
    frame = pd.DataFrame({"x": x.numpy(), "time": TIME.numpy(), "event": EVENT.numpy()})
    peer = CoxPHFitter().fit(frame, "time", "event")
    slope = torch.tensor(float(peer.params_["x"]), requires_grad=True)
    loss = OBJECTIVES["cox"](slope * x, TIME, EVENT)
    assert float(loss.detach()) * 4 == pytest.approx(-peer.log_likelihood_, rel=1e-5)
    loss.backward()
    assert abs(float(slope.grad)) < 1e-4


def test_mse_takes_no_notice_of_the_censored():
    output = torch.linspace(-1, 1, 8, requires_grad=True)
    loss = OBJECTIVES["mse"](output, TIME, EVENT)
    assert float(loss.detach()) == pytest.approx(np.mean((output.detach() - TIME).numpy()[EVENT] ** 2))
    loss.backward()
    assert (output.grad[~EVENT] == 0).all() and (output.grad[EVENT] != 0).all()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_a_batch_without_events_teaches_nothing_and_breaks_nothing(objective):
    output = torch.randn(8, requires_grad=True)
    loss = OBJECTIVES[objective](output, TIME, torch.zeros(8, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0 and (output.grad == 0).all()
