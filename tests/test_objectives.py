"""The losses are the textbook's; what is learnt around them means what it says."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index

from survpack.errors import BadInput
from survpack.objectives import (
    OBJECTIVES,
    Hazard,
    Mse,
    cox,
    days_censored,
    days_mse,
    logistic_hazard,
    ranking,
)

TIME = torch.tensor([5.0, 3, 3, 3, 8, 8, 2, 9])
EVENT = torch.tensor([1, 1, 1, 0, 1, 0, 0, 0], dtype=torch.bool)
PYCOX = json.loads((Path(__file__).parent / "references" / "pycox_losses.json").read_text())
QUICK = settings(deadline=None, max_examples=40)


def efron(output, time, event) -> float:
    """Negative log partial likelihood with Efron's ties, written out, per event."""
    hazard, total = np.exp(output), 0.0
    for moment in np.unique(time[event]):
        dying = (time == moment) & event
        at_risk, tied, deaths = hazard[time >= moment].sum(), hazard[dying].sum(), dying.sum()
        total += output[dying].sum() - sum(np.log(at_risk - k / deaths * tied) for k in range(deaths))
    return -total / event.sum()


@st.composite
def outcomes(draw, least_events=1, size=50.0):
    """A few patients with ties in time, and outputs that may be extreme: output, time, event."""
    n = draw(st.integers(2, 10))
    time = draw(st.lists(st.integers(1, 6), min_size=n, max_size=n))
    event = draw(st.lists(st.booleans(), min_size=n, max_size=n).filter(lambda them: sum(them) >= least_events))
    output = draw(st.lists(st.floats(-size, size, width=32), min_size=n, max_size=n))
    return torch.tensor(output), torch.tensor(time, dtype=torch.float32), torch.tensor(event)


def cohort(n=80, seed=0):
    """Days and event of n patients whose log hazard is the third thing returned."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(0, 1.5, n)
    death, lost = rng.exponential(400 * np.exp(-hazard)), rng.uniform(100, 1500, n)
    return np.ceil(np.minimum(death, lost)), death <= lost, hazard


# --- the partial likelihood -------------------------------------------------------------------------------------------


@QUICK
@given(outcomes())
def test_cox_is_efron_s_partial_likelihood_however_extreme_the_outputs(them):
    output, time, event = them
    expected = efron(output.double().numpy(), time.numpy(), event.numpy())
    assert float(cox(output, time, event)) == pytest.approx(expected, rel=1e-4, abs=1e-4)


@QUICK
@given(outcomes(size=3.0))
def test_the_gradient_of_cox_is_the_slope_of_efron_s_likelihood(them):
    output, time, event = them
    cox(output.requires_grad_(), time, event).backward()
    exact, nudge = output.detach().double().numpy(), 1e-5
    slopes = [
        (efron(exact + step, time.numpy(), event.numpy()) - efron(exact - step, time.numpy(), event.numpy()))
        / (2 * nudge)
        for step in nudge * np.eye(len(exact))
    ]
    np.testing.assert_allclose(output.grad.numpy(), slopes, atol=1e-4)


def test_cox_is_least_where_lifelines_puts_the_coefficient_and_has_its_likelihood_there():
    x = torch.tensor([0.2, 1.1, -0.4, 0.3, -0.9, 0.5, -1.2, 0.1])
    frame = pd.DataFrame({"x": x.numpy(), "time": TIME.numpy(), "event": EVENT.numpy()})
    peer = CoxPHFitter().fit(frame, "time", "event")
    slope = torch.tensor(float(peer.params_["x"]), requires_grad=True)
    loss = cox(slope * x, TIME, EVENT)
    assert float(loss.detach()) * 4 == pytest.approx(-peer.log_likelihood_, rel=1e-5)
    loss.backward()
    assert abs(float(slope.grad)) < 1e-4


def test_cox_agrees_with_pycox_where_no_two_die_on_one_day():
    found = cox(torch.tensor(PYCOX["risk"]), torch.tensor(PYCOX["days"]), torch.tensor(PYCOX["event"]))
    assert float(found) == pytest.approx(PYCOX["cox_ph_loss"], rel=1e-5)


@QUICK
@given(outcomes(), st.floats(-20, 20))
def test_only_differences_in_risk_matter_to_cox_and_to_the_ranking(them, shift):
    output, time, event = them
    for loss in (cox, ranking):
        torch.testing.assert_close(loss(output + shift, time, event), loss(output, time, event), rtol=1e-3, atol=1e-3)


def test_a_patient_censored_on_the_day_of_a_death_was_at_risk_whatever_the_order_of_the_batch():
    time, event = torch.tensor([1.0, 1, 1]), torch.tensor([False, False, True])
    for order in ([0, 1, 2], [2, 0, 1], [0, 2, 1]):
        assert float(cox(torch.zeros(3), time[order], event[order])) == pytest.approx(np.log(3))


def test_cox_warns_of_no_ties(recwarn):
    cox(torch.randn(8), TIME, EVENT)
    assert not recwarn.list


# --- days -------------------------------------------------------------------------------------------------------------


def test_mse_takes_no_notice_of_the_censored():
    output = torch.linspace(-1, 1, 8, requires_grad=True)
    loss = days_mse(output, TIME, EVENT)
    assert float(loss.detach()) == pytest.approx(np.mean((output.detach() - TIME).numpy()[EVENT] ** 2))
    loss.backward()
    assert (output.grad[~EVENT] == 0).all() and (output.grad[EVENT] != 0).all()


@QUICK
@given(outcomes())
def test_a_censored_patient_is_pulled_up_to_the_last_day_seen_and_never_down(them):
    output, time, event = them
    days_censored(output.requires_grad_(), time, event).backward()
    pull, short = -output.grad[~event], (time - output.detach())[~event]
    torch.testing.assert_close(pull, 2 * short.clamp(min=0) / len(time))
    torch.testing.assert_close(-output.grad[event], 2 * (time - output.detach())[event] / len(time))


@QUICK
@given(outcomes(least_events=2))
def test_without_censoring_the_two_errors_are_one(them):
    output, time, event = (one[them[2]] for one in them)
    torch.testing.assert_close(days_censored(output, time, event), days_mse(output, time, event))


@pytest.mark.parametrize("name", ["mse", "mse-censored"])
def test_a_network_that_gives_the_target_predicts_the_day(name):
    time, event, _ = cohort()
    objective = OBJECTIVES[name].learn(time, event)
    perfect = objective.target(time, event)[:, :1]
    np.testing.assert_allclose(objective.days(perfect), time, rtol=1e-5)
    assert objective.days(np.array([[-50.0]])) == 1  # a day is the least
    assert objective.risk(perfect).argmax() == time.argmin()


def test_mse_learns_of_the_dead_alone():
    time, event, _ = cohort()
    objective = OBJECTIVES["mse"].learn(time, event)
    scaled = objective.target(time, event)[event, 0]
    assert scaled.mean() == pytest.approx(0, abs=1e-5) and scaled.std() == pytest.approx(1, abs=1e-5)
    later = Mse.learn(np.where(event, time, 9 * time), event)
    assert later.mean == objective.mean and later.sd == objective.sd
    np.testing.assert_array_equal(objective.uses, event)
    assert all(OBJECTIVES[name].learn(time, event).uses.all() for name in OBJECTIVES if name != "mse")


# --- the ranking ------------------------------------------------------------------------------------------------------


@QUICK
@given(outcomes(size=3.0))
def test_the_ranking_is_the_mean_over_pairs_counted_one_by_one(them):
    output, time, event = them
    terms = [
        np.log1p(np.exp(float(output[j] - output[i])))
        for i in range(len(time))
        for j in range(len(time))
        if event[i] and (time[i] < time[j] or (time[i] == time[j] and not event[j]))
    ]
    assert float(ranking(output, time, event)) == pytest.approx(np.mean(terms) if terms else 0.0, rel=1e-5)


@QUICK
@given(outcomes(size=5.0))
def test_the_ranking_bounds_lifelines_concordance_from_below(them):
    output, time, event = them
    try:
        c = concordance_index(time.numpy(), -output.numpy(), event.numpy())
    except ZeroDivisionError:  # no comparable pair
        assert float(ranking(output, time, event)) == 0
        return
    assert 1 - float(ranking(output, time, event)) / np.log(2) <= c + 1e-6


def test_cox_rank_is_the_partial_likelihood_and_the_ranking():
    output, target = torch.randn(8, 1), torch.column_stack([TIME, EVENT.float()])
    parts = [OBJECTIVES[name].learn(TIME, EVENT).loss(output, target) for name in ("cox-rank", "cox")]
    torch.testing.assert_close(parts[0] - parts[1], ranking(output[:, 0], TIME, EVENT))


# --- hazards in discrete time -----------------------------------------------------------------------------------------


def hazard_of(cuts, baseline=0.0) -> Hazard:
    """With the cut points given, and one baseline of all intervals: even odds, if nothing else."""
    objective = Hazard.learn(np.arange(1.0, 100), np.ones(99))
    objective.cuts, objective.outputs = np.array(cuts), len(cuts)
    objective.baseline = np.full(len(cuts), baseline)
    return objective


def test_the_discrete_likelihood_is_pycox_s():
    logits, event = torch.tensor(PYCOX["logits"]), torch.tensor(PYCOX["event"])
    survived = torch.tensor(PYCOX["index"]) - event.long()
    assert float(logistic_hazard(logits, survived, event)) == pytest.approx(PYCOX["nll_logistic_hazard"], rel=1e-5)


def test_the_curve_between_the_cuts_is_pycox_s_of_constant_density():
    found = hazard_of(PYCOX["cuts"]).survival(np.array(PYCOX["logits"]), np.array(PYCOX["times"]))
    np.testing.assert_allclose(found, PYCOX["survival"], atol=1e-5)


def test_a_death_is_in_the_interval_pycox_puts_it_in_and_a_censoring_counts_from_the_middle():
    days, event = np.array(PYCOX["days"]), np.array(PYCOX["event"])
    objective = hazard_of(PYCOX["cuts"])
    target = objective.target(days, event)
    np.testing.assert_array_equal(target[event, 0] + 1, np.array(PYCOX["index"])[event])
    middles = np.array([30, 105, 195, 370.0])
    for shift, lived in [(-0.5, 0), (0.0, 1), (0.5, 1)]:
        coded = objective.target(middles + shift, np.zeros(4))
        np.testing.assert_array_equal(coded[:, 0], np.arange(4) + lived)


def test_a_network_that_says_nothing_says_kaplan_meier():
    time, event, _ = cohort(400)
    objective = Hazard.learn(time, event)
    peer = KaplanMeierFitter().fit(time, event).survival_function_at_times(objective.cuts).to_numpy()
    found = objective.survival(np.zeros((1, objective.outputs)), objective.cuts)[0]
    np.testing.assert_allclose(found, peer, atol=0.02)


def test_the_likelihood_is_greatest_at_kaplan_meier():
    """Exactly, where nobody is censored within an interval."""
    time = np.array([10.0, 20, 30, 30, 50, 50, 70, 80, 90, 90, 100, 120])
    event = np.array([1, 1, 0, 1, 1, 1, 0, 1, 1, 0, 1, 1], dtype=bool)
    objective = hazard_of([30, 70, 90, 120.0], baseline=-1.0)
    output = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    target = torch.as_tensor(objective.target(time, event))
    solver = torch.optim.LBFGS([output], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure():
        solver.zero_grad()
        loss = objective.loss(output.expand(12, 4), target)
        loss.backward()
        return loss

    solver.step(closure)
    found = objective.survival(output.detach().numpy()[None], objective.cuts[:3])[0]
    peer = KaplanMeierFitter().fit(time, event).survival_function_at_times(objective.cuts[:3]).to_numpy()
    np.testing.assert_allclose(found, peer, atol=1e-5)


@QUICK
@given(st.lists(st.floats(-50, 50), min_size=4, max_size=4), st.integers(0, 3), st.floats(0.01, 5))
def test_the_curve_falls_from_one_and_a_greater_hazard_anywhere_is_a_greater_risk(logits, where, more):
    objective = hazard_of([60.0, 150, 240, 500])
    logits = np.array([logits])
    times = np.linspace(0, 700, 60)
    curve = objective.survival(logits, times)[0]
    assert curve[0] == 1 and (np.diff(curve) <= 0).all() and curve[-1] >= 0
    assert curve[-1] == objective.survival(logits, [500])[0, 0]
    assert objective.risk(logits + more * np.eye(4)[[where]]) >= objective.risk(logits)


def test_the_risk_is_minus_the_area_under_the_curve():
    objective, logits = hazard_of([60.0, 150, 240, 500]), np.array(PYCOX["logits"])
    days = np.arange(0, 500.5, 0.5)
    area = np.trapezoid(objective.survival(logits, days), days, axis=1)
    np.testing.assert_allclose(objective.risk(logits), -area, rtol=1e-5)


@QUICK
@given(st.lists(st.tuples(st.integers(1, 30), st.booleans()), min_size=1, max_size=80), st.integers(1, 30))
def test_every_interval_ends_with_a_death_and_the_last_with_the_last(them, day):
    time, event = np.array([*them, (day, True)]).T.astype(float)
    event = event.astype(bool)
    objective = Hazard.learn(time, event)
    assert set(objective.cuts) <= set(time[event]) and objective.cuts[-1] == time[event].max()
    assert (np.diff(objective.cuts) > 0).all() and np.isfinite(objective.baseline).all()


def test_there_are_ten_intervals_and_fewer_where_few_died():
    assert Hazard.learn(np.arange(1.0, 101), np.ones(100)).outputs == 10
    assert Hazard.learn(np.arange(1.0, 101), np.arange(100) < 20).outputs == 4
    assert Hazard.learn(np.arange(1.0, 101), np.arange(100) < 1).outputs == 1


def test_a_death_after_the_last_cut_outlived_them_all():
    objective = hazard_of([10.0, 20])
    logits = torch.randn(1, 2)
    late, censored = (objective.loss(logits, torch.as_tensor(objective.target([99.0], [e]))) for e in (True, False))
    torch.testing.assert_close(late, torch.nn.functional.softplus(logits).sum())
    torch.testing.assert_close(late, censored)


# --- all of them ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [days_mse, days_censored, ranking, logistic_hazard])
def test_gradients_are_those_of_finite_differences(loss):
    generator = torch.Generator().manual_seed(3)
    shape = (8, 4) if loss is logistic_hazard else (8,)
    output = torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
    time = TIME.double() - 4  # some above their output, some below; intervals: some before the first, after the last
    assert torch.autograd.gradcheck(lambda given: loss(given, time, EVENT), output)


@QUICK
@given(outcomes(), st.data())
def test_every_loss_is_finite_and_the_same_in_any_order(them, data):
    output, time, event = them
    order = data.draw(st.permutations(range(len(time))))
    for name, kind in OBJECTIVES.items():
        objective = kind.learn(time, event)
        target = torch.as_tensor(objective.target(time, event))
        wide = output[:, None].repeat(1, objective.outputs).requires_grad_()
        loss = objective.loss(wide, target)
        loss.backward()
        assert loss.shape == () and loss.isfinite() and wide.grad.isfinite().all(), name
        torch.testing.assert_close(objective.loss(wide[order], target[order]), loss, rtol=1e-4, atol=1e-4)
        assert np.isfinite(objective.risk(wide.detach().numpy())).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_outputs_of_five_hundred_break_nothing(name):
    time, event, _ = cohort(16)
    time = np.ceil(time / 300)  # so that several die at once
    objective = OBJECTIVES[name].learn(time, event)
    signs = np.random.default_rng(5).choice([-500.0, 500], (16, objective.outputs)).astype(np.float32)
    output = torch.tensor(signs, requires_grad=True)
    loss = objective.loss(output, torch.as_tensor(objective.target(time, event)))
    loss.backward()
    assert loss.isfinite() and output.grad.isfinite().all() and np.isfinite(objective.risk(signs)).all()


@pytest.mark.parametrize("loss", [days_mse, cox, ranking])
def test_a_batch_without_events_teaches_nothing_where_only_deaths_count(loss):
    output = torch.randn(8, requires_grad=True)
    found = loss(output, TIME, torch.zeros(8, dtype=torch.bool))
    found.backward()
    assert float(found.detach()) == 0 and (output.grad == 0).all()


@pytest.mark.parametrize("name", ["mse-censored", "hazard"])
def test_a_batch_without_events_teaches_that_its_patients_lived(name):
    time, event, _ = cohort()
    objective = OBJECTIVES[name].learn(time, event)
    output = torch.zeros(len(time), objective.outputs, requires_grad=True)
    objective.loss(output, torch.as_tensor(objective.target(time, np.zeros_like(event)))).backward()
    better = output.detach() - 1e3 * output.grad
    assert (objective.risk(better) <= objective.risk(output.detach())).all()
    assert (objective.risk(better) < objective.risk(output.detach())).any()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("died", [True, False])
def test_a_batch_of_one_is_defined(name, died):
    time, event, _ = cohort()
    objective = OBJECTIVES[name].learn(time, event)
    output = torch.ones(1, objective.outputs, requires_grad=True)
    loss = objective.loss(output, torch.as_tensor(objective.target([200.0], [died])))
    loss.backward()
    assert loss.isfinite() and output.grad.isfinite().all()


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("n", [1, 7])
def test_one_event_is_enough_to_be_defined(name, n):
    time, event = np.arange(30.0, 30 + n), np.arange(n) == n // 2
    objective = OBJECTIVES[name].learn(time, event)
    output = np.linspace(-1, 1, n)[:, None].repeat(objective.outputs, axis=1)
    target = objective.target(time, event)
    assert objective.outputs == 1 and target.dtype == np.float32 and np.isfinite(target).all()
    assert torch.isfinite(objective.loss(torch.tensor(output), torch.as_tensor(target)))
    assert objective.uses.sum() == (1 if name == "mse" else n) and np.isfinite(objective.risk(output)).all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_training_patients_who_all_live_are_refused_in_a_sentence(name):
    with pytest.raises(BadInput, match=r"all 23 are censored.*participants\.tsv.*splits\.folds") as told:
        OBJECTIVES[name].learn(np.arange(1.0, 24), np.zeros(23))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_half_precision_is_widened_before_the_loss(name):
    time, event, _ = cohort()
    objective = OBJECTIVES[name].learn(time, event)
    target = torch.as_tensor(objective.target(time, event))
    output = torch.randn(80, objective.outputs, generator=torch.Generator().manual_seed(2)).bfloat16()
    loss = objective.loss(output, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, objective.loss(output.float(), target))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_is_learnt_ranks_a_planted_hazard(name):
    """A line fitted to the hazard itself, from zero: the risk points the right way, the curves and days with it."""
    time, event, hazard = cohort(120)
    objective = OBJECTIVES[name].learn(time, event)
    target, x = torch.as_tensor(objective.target(time, event)), torch.as_tensor(hazard, dtype=torch.float32)[:, None]
    slope = torch.zeros(1, objective.outputs, requires_grad=True)
    solver = torch.optim.Adam([slope], lr=0.05)
    for _ in range(60):
        solver.zero_grad()
        objective.loss(x @ slope, target).backward()
        solver.step()
    output = (x @ slope).detach().numpy()
    assert np.corrcoef(objective.risk(output), hazard)[0, 1] > 0.9
    days, curve = objective.days(output), objective.survival(output, [0.0, 200.0])
    assert days is None or np.corrcoef(days, hazard)[0, 1] < -0.9
    assert curve is None or ((curve[:, 0] == 1).all() and np.corrcoef(curve[:, 1], hazard)[0, 1] < -0.9)
