"""Ranking and probability scores on six public cohorts against four libraries, and the ways to be fast against slow ones.

Where libraries define differently. On a day of both a death and a censoring, scikit-survival and torchsurv weigh the
death by G(t); SurvivalEVAL weighs it by G(t−), as we do. At a time t on which somebody is censored, SurvivalEVAL counts
him as alive at t, the others as unknown. Both vanish where no censoring shares its day with a death or a time asked
about: `untied` moves each censoring half a day on, which changes no order, and there all four agree.
"""

import json
import time as clock

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from public_data import NAMES, datasets
from sksurv import metrics as peer
from sksurv.util import Surv

from survpack import metrics
from survpack.metrics import ranking
from survpack.metrics.censoring import censoring_reach, inverse_weights
from survpack.metrics.parts import integral
from survpack.metrics.probability import brier_at
from survpack.metrics.ranking import auc_at

SURVIVALEVAL = "SurvivalEVAL"


def untied(outcome):
    return outcome.assign(time_days=outcome["time_days"] + np.where(outcome["event"], 0, 0.5))


def arrays(outcome):
    return outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)


def structured(outcome):
    return Surv.from_dataframe("event", "time_days", outcome)


def followed(outcome, train, times):
    """For scikit-survival, which refuses who outlived the training patients: all who outlive `times` are censored."""
    last, end = times[-1], train["time_days"].max()
    later = outcome["time_days"] > last
    return structured(
        outcome.assign(time_days=outcome["time_days"].mask(later, (last + end) / 2), event=outcome["event"] & ~later)
    )


def asked(name, change=lambda outcome: outcome):
    """Prognosis, outcome, training outcome, valid times and curves of a cohort."""
    prognosis, outcome, train, _ = datasets()[name]
    outcome, train = change(outcome), change(train)
    times = metrics.valid_times(prognosis.times, outcome["time_days"], train)
    times = times[times < train["time_days"].max()]
    assert len(times) >= 10
    return prognosis, outcome, train, times, metrics.survival_at(prognosis, times)


def tensors(*values):
    torch = pytest.importorskip("torch")
    return [torch.as_tensor(np.array(value)) for value in values]


def torch_weights(train, times):
    """torchsurv's 1 / G of the training patients at `times`."""
    from torchsurv.stats.ipcw import get_ipcw

    time, event = arrays(train)
    found = get_ipcw(*tensors(event, time, times))
    return found.double()


# --- six cohorts, four libraries ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_harrell_is_that_of_four_libraries(name):
    from lifelines.utils import concordance_index
    from torchsurv.metrics.cindex import ConcordanceIndex

    theirs = pytest.importorskip(SURVIVALEVAL)
    prognosis, outcome, *_ = asked(name)
    time, event = arrays(outcome)
    risk = prognosis.table["risk"].to_numpy()
    ours = metrics.concordance(time, event, risk)
    assert ours == pytest.approx(peer.concordance_index_censored(event, time, risk)[0], abs=1e-9)
    assert ours == pytest.approx(concordance_index(time, -risk, event), abs=1e-9)
    assert ours == pytest.approx(float(ConcordanceIndex()(*tensors(risk, event, time))), abs=1e-6)
    assert ours == pytest.approx(theirs.concordance(-risk, time, event, ties="Risk")[0], abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_uno_is_that_of_three_libraries(name):
    from torchsurv.metrics.cindex import ConcordanceIndex

    theirs = pytest.importorskip(SURVIVALEVAL)
    prognosis, outcome, train, *_ = asked(name)
    risk = prognosis.table["risk"].to_numpy()
    known, learnt = untied(outcome), untied(train)
    time, event = arrays(known)
    tau = censoring_reach(learnt)
    ours = metrics.concordance(time, event, risk, case_weights=metrics.uno_weights(time, learnt))
    found = peer.concordance_index_ipcw(structured(learnt), structured(known), risk, tau=tau)[0]
    assert ours == pytest.approx(found, abs=1e-9)
    weights = torch_weights(learnt, np.minimum(time, learnt["time_days"].max()))
    torchs = ConcordanceIndex()(*tensors(risk, event, time), weight=weights * tensors(time < tau)[0])
    assert ours == pytest.approx(float(torchs), abs=1e-6)
    assert ours == pytest.approx(
        theirs.concordance(-risk, time, event, *arrays(learnt), method="Uno", ties="Risk", tau=tau)[0], abs=1e-9
    )


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # scikit-survival's, where nobody has died yet
@pytest.mark.parametrize("name", NAMES)
def test_auc_over_time_is_that_of_three_libraries(name):
    from torchsurv.metrics.auc import Auc

    theirs = pytest.importorskip(SURVIVALEVAL)
    _, outcome, train, times, survival = asked(name, untied)
    time, event = arrays(outcome)
    ours = metrics.cumulative_auc(time, event, 1 - survival, times, train)
    known = structured(train), followed(outcome, train, times)
    found = peer.cumulative_dynamic_auc(*known, 1 - survival, times, tied_tol=0)[0]
    np.testing.assert_allclose(ours, found, atol=1e-9)
    weights = torch_weights(train, np.minimum(time, train["time_days"].max())), torch_weights(train, times)
    torchs = Auc(tied_tol=0.0)(
        *tensors(1 - survival, event, time), weight=weights[0], new_time=tensors(times)[0], weight_new_time=weights[1]
    )
    np.testing.assert_allclose(ours, torchs.numpy(), atol=1e-6)
    defined = np.flatnonzero(np.isfinite(ours))
    assert len(defined) >= 10  # nobody has died by the first times of a training patient's death
    theirs = [theirs.auc(survival[:, k], time, event, times[k], *arrays(train), method="IPCW") for k in defined]
    np.testing.assert_allclose(ours[defined], theirs, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_brier_and_its_integral_are_those_of_three_libraries(name):
    from torchsurv.metrics.brier_score import BrierScore

    theirs = pytest.importorskip(SURVIVALEVAL)
    _, outcome, train, times, survival = asked(name, untied)
    time, event = arrays(outcome)
    ours = metrics.brier(time, event, survival, times, train)
    known = structured(train), followed(outcome, train, times)
    np.testing.assert_allclose(ours, peer.brier_score(*known, survival, times)[1], atol=1e-9)
    ibs = integral(ours, times)
    assert ibs == pytest.approx(peer.integrated_brier_score(*known, survival, times), abs=1e-9)
    weights = torch_weights(train, np.minimum(time, train["time_days"].max())), torch_weights(train, times)
    torchs = BrierScore()
    found = torchs(
        *tensors(survival, event, time), weight=weights[0], new_time=tensors(times)[0], weight_new_time=weights[1]
    )
    np.testing.assert_allclose(ours, found.numpy(), atol=1e-6)
    assert ibs == pytest.approx(float(torchs.integral()), abs=1e-6)
    theirs = theirs.brier_multiple_points(survival, time, event, *arrays(train), times)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert ibs == pytest.approx(np.trapezoid(theirs, times) / (times[-1] - times[0]), abs=1e-9)


def test_a_death_and_a_censoring_on_one_day_weigh_as_survivaleval_has_them_and_scikit_survival_not():
    """G(t−) here, G(t) in scikit-survival: it moves Uno by less than a hundredth, most where time is in weeks."""
    theirs = pytest.importorskip(SURVIVALEVAL)
    apart = {}
    for name in NAMES:
        prognosis, outcome, train, *_ = asked(name)
        (time, event), tau = arrays(outcome), censoring_reach(train)
        risk = prognosis.table["risk"].to_numpy()
        ours = metrics.concordance(time, event, risk, case_weights=metrics.uno_weights(time, train))
        found = theirs.concordance(-risk, time, event, *arrays(train), method="Uno", ties="Risk", tau=tau)[0]
        assert ours == pytest.approx(found, abs=1e-9), name
        apart[name] = abs(ours - peer.concordance_index_ipcw(structured(train), structured(outcome), risk, tau=tau)[0])
    assert 1e-6 < max(apart.values()) < 0.01, apart


# --- many pairs ---------------------------------------------------------------------------------------------------


patients_drawn = st.lists(
    st.tuples(st.integers(1, 9), st.booleans(), st.integers(-3, 3), st.integers(0, 2), st.integers(0, 3)),
    min_size=1, max_size=20,
)  # fmt: skip


def pairs_one_by_one(time, event, risk, group, count, weight):
    """The definition, in two loops."""
    won = pairs = 0.0
    for i in np.flatnonzero(event):
        for j in range(len(time)):
            if group[i] == group[j] and (time[i] < time[j] or (time[i] == time[j] and not event[j])):
                made = weight[i] * count[i] * count[j]
                won, pairs = won + made * ((risk[i] > risk[j]) + (risk[i] == risk[j]) / 2), pairs + made
    return won / pairs if pairs else np.nan


@pytest.mark.parametrize("few", [0, 10**9], ids=["sorted", "matrix of pairs"])
@given(patients_drawn, st.randoms())
@settings(max_examples=80, deadline=None)
def test_concordance_counted_either_way_is_the_definition_with_ties_weights_groups_and_counts(few, patients, random):
    time, event, risk, group, count = map(np.array, zip(*patients, strict=True))
    weight = np.array([random.choice([0.0, 0.5, 1.0, 2.25]) for _ in patients])
    counts = np.stack([np.ones(len(time)), count, np.zeros(len(time))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FEW_PAIRS", few)
        patch.setattr(ranking, "AT_ONCE", 2 * len(time))  # two parts
        ours = metrics.concordance(time, event, risk, case_weights=weight, groups=group, counts=counts)
        alone = metrics.concordance(time, event, risk, case_weights=weight, groups=group)
    expected = [pairs_one_by_one(time, event, risk, group, row, weight) for row in counts]
    np.testing.assert_allclose(ours, expected, atol=1e-12)
    np.testing.assert_allclose(alone, expected[0], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_auc_counted_by_sorting_is_that_of_the_matrix_of_pairs(name, monkeypatch):
    prognosis, outcome, train, times, survival = asked(name)
    counts = np.random.default_rng(1).multinomial(len(outcome), np.full(len(outcome), 1 / len(outcome)), size=(2, 3))
    arguments = *arrays(outcome), 1 - survival, times, train
    groups = np.arange(len(outcome)) % 3
    found = []
    for few in (0, 10**9):
        monkeypatch.setattr(ranking, "FEW_PAIRS", few)
        found.append(metrics.cumulative_auc(*arguments, groups=groups, counts=counts))
    assert found[0].shape == (2, 3, len(times)) and np.isfinite(found[0]).mean() > 0.7
    np.testing.assert_allclose(*found, atol=1e-12)


def test_a_hundred_thousand_patients_are_ranked_within_two_seconds_of_one_core():
    rng = np.random.default_rng(0)
    risk = np.round(rng.normal(size=100_000), 2)
    time, event = np.ceil(rng.exponential(1000 * np.exp(-risk))), rng.random(100_000) < 0.6
    begin = clock.process_time()
    found = metrics.concordance(time, event, risk)
    assert clock.process_time() - begin < 2
    # exponential deaths whose log hazards differ by d: the riskier dies first with probability 1 / (1 + exp(-d))
    apart = np.abs(rng.normal(scale=np.sqrt(2), size=10**6))
    assert found == pytest.approx((1 / (1 + np.exp(-apart))).mean(), abs=0.005)


# --- a stated horizon ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_scores_at_a_horizon_are_the_curves_read_there_and_nan_beyond_what_can_be_known(name):
    prognosis, outcome, train, horizon = datasets()[name]
    time, event = arrays(outcome)
    survival = metrics.survival_at(prognosis, [horizon])
    counts = np.random.default_rng(2).multinomial(len(time), np.full(len(time), 1 / len(time)), size=4)
    for at, curve, told in ((brier_at, metrics.brier, survival), (auc_at, metrics.cumulative_auc, 1 - survival)):
        expected = curve(time, event, told, np.array([horizon]), train, counts=counts)[:, 0]
        found = at(time, event, told[:, 0], horizon, train, counts=counts)
        np.testing.assert_array_equal(found, expected)
        assert 0 < at(time, event, told[:, 0], horizon, train) < 1
        for beyond in (censoring_reach(train) + 1, time.max() + 1):
            assert np.isnan(at(time, event, told[:, 0], beyond, train))
            assert at(time, event, told[:, 0], beyond, train, counts=counts).shape == (4,)


followed_by = st.lists(st.tuples(st.integers(0, 30), st.booleans()), min_size=0, max_size=8)


@pytest.mark.filterwarnings("error")
@given(followed_by, followed_by.filter(len), st.floats(0, 100))
@settings(max_examples=100, deadline=None)
def test_no_follow_up_whatever_crashes_a_score(train, held, horizon):
    """Training patients of none, one, all censored on day 0, or followed for less than those scored."""
    train, outcome = (
        pd.DataFrame(rows, columns=["time_days", "event"]).astype({"time_days": float, "event": bool})
        for rows in (train, held)
    )
    (time, event), times = arrays(outcome), np.array([0.0, 3, 10, 40])
    told, counts = np.linspace(0, 1, len(time)), np.stack([np.ones(len(time)), np.zeros(len(time))])
    curves = np.tile(told[:, None], len(times))
    uno = metrics.concordance(time, event, told, case_weights=metrics.uno_weights(time, train), counts=counts)
    assert np.isnan(uno[1]) and (np.isnan(uno[0]) or 0 <= uno[0] <= 1)
    auc = metrics.cumulative_auc(time, event, curves, times, train, counts=counts)
    assert np.isnan(auc[1]).all() and ((auc[0] >= 0) & (auc[0] <= 1) | np.isnan(auc[0])).all()
    brier = metrics.brier(time, event, curves, times, train, counts=counts)
    assert np.isnan(brier[1]).all() and (brier[0] >= 0).all() and np.isfinite(inverse_weights(train, times)).all()
    for at in (brier_at, auc_at):
        assert np.isnan(at(time, event, told, horizon, train, counts=counts)[1])
    assert metrics.valid_times(times, time, train).max(initial=0) <= censoring_reach(train)


# --- speed --------------------------------------------------------------------------------------------------------


def test_the_benchmark_of_scores_keeps_other_entries_and_states_both_sides(tmp_path):
    from benchmarks import scores

    place = tmp_path / "benchmarks.json"
    place.write_text('{"other": {"ours": 1.0}}')
    assert scores.main(f"--models 2 --patients 60 --draws 5 --many 800 --out {place}".split()) == 0
    found = json.loads(place.read_text())
    assert set(found) == {"other", "scores-20-models", "concordance-100k"}
    for name in set(found) - {"other"}:
        one = found[name]
        assert one["ratio"] == one["ours"] / one["peer"] and one["unit"].startswith("s,")
