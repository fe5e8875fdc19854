"""The door of every score: what is no outcome or no prediction is one sentence, never a number."""

import numpy as np
import pandas as pd
import pytest

from survpack import conformal, inference, metrics, params, subgroups
from survpack.errors import BadInput
from survpack.metrics import calibration, days, groups, probability, ranking
from survpack.prognosis import Prognosis

SIZE = 24
RNG = np.random.default_rng(0)
TIME = np.ceil(RNG.exponential(300, SIZE))
EVENT = np.arange(SIZE) % 3 > 0
RISK = RNG.normal(size=SIZE)
IDS = [f"P{number:02d}" for number in range(SIZE)]
TIMES = np.array([50.0, 100, 200])
CURVES = np.exp(-np.outer(np.exp(RISK), TIMES) / 300)
HIGH = RISK > 0
AGAIN = {"repeats": 10, "confidence": 0.9, "seed": 0}


def outcome(time=TIME, event=EVENT) -> pd.DataFrame:
    return pd.DataFrame({"patient_id": IDS, "time_days": time, "event": event})


def prognosis(table=None, times=TIMES, split="cv", **columns) -> Prognosis:
    keys = {"cohort": "c", "model": "m", "seed": 0, "repeat": 0, "fold": np.arange(SIZE) % 2, "split": split}
    made = pd.DataFrame({"patient_id": IDS, "risk": RISK, "days": 100.0}).assign(**keys, high_risk=HIGH)
    made = made.assign(**{f"s_{k}": curve for k, curve in enumerate(CURVES.T)}).assign(**columns)
    return Prognosis(made if table is None else table(made), times)


SCORES = params.load().scores.model_copy(update={"bootstrap": 10, "horizon_days": {"other": 100}})
TABLES = {  # every public door that takes a table of outcomes
    "scores": lambda o: metrics.scores(prognosis(), o, o, 100),
    "scores, trained": lambda o: metrics.scores(prognosis(), outcome(), o, 100),
    "sample": lambda o: metrics.Sample.of(prognosis(), o),
    "p values": lambda o: metrics.p_values(prognosis(), o),
    "auc over time": lambda o: metrics.auc_over_time(prognosis(), o, outcome()),
    "auc over time, trained": lambda o: metrics.auc_over_time(prognosis(), outcome(), o),
    "ibs null": lambda o: metrics.ibs_null(prognosis(), o, o),
    "band": lambda o: metrics.calibration_band(prognosis(), o, 100, **AGAIN),
    "curve": lambda o: metrics.calibration_curve(prognosis(), o, 100),
    "decision": lambda o: metrics.decision_curve({"m": prognosis()}, o, 100, **AGAIN),
    "evaluate": lambda o: inference.evaluate({"m": prognosis()}, o, IDS, SCORES, "c"),
    "difference": lambda o: inference.paired_difference(
        prognosis(), prognosis(), o, "harrell_c", train_outcome=o, horizon=100, **AGAIN
    ),
    "bounds": lambda o: conformal.lower_bounds(prognosis(), o, 0.8, 100),
    "coverage": lambda o: conformal.coverage_observed(
        pd.DataFrame({"patient_id": IDS, "bound_days": 50.0}), o, outcome(), confidence=0.9
    ),
}
WITHOUT_IDS = {  # training patients of whom only times and events are asked
    "reach": metrics.censoring_reach,
    "uno weights": lambda o: metrics.uno_weights(TIME, o),
    "valid times": lambda o: metrics.valid_times(TIMES, TIME, o),
    "days": lambda o: days.surrogate_days(TIME, EVENT, o),
}
ARRAYS = {  # every public score of arrays
    "concordance": lambda t, e: metrics.concordance(t, e, RISK),
    "auc": lambda t, e: metrics.cumulative_auc(t, e, 1 - CURVES, TIMES, outcome()),
    "auc at": lambda t, e: ranking.auc_at(t, e, RISK, 100, outcome()),
    "brier": lambda t, e: metrics.brier(t, e, CURVES, TIMES, outcome()),
    "brier at": lambda t, e: probability.brier_at(t, e, CURVES[:, 1], 100, outcome()),
    "mae": lambda t, e: days.mae_days(t, e, TIME),
    "hinge": lambda t, e: days.mae_hinge(t, e, TIME),
    "ipcw": lambda t, e: days.mae_ipcw(t, e, TIME, outcome()),
    "pseudo": lambda t, e: days.mae_pseudo(t, e, TIME, outcome()),
    "surrogate": lambda t, e: days.surrogate_days(t, e, outcome()),
    "r2": lambda t, e: days.r2(t, e, TIME),
    "r2 ipcw": lambda t, e: days.r2_ipcw(t, e, TIME, outcome()),
    "ici": lambda t, e: calibration.ici(t, e, 1 - CURVES[:, 1], 100),
    "intercept": lambda t, e: calibration.calibration_intercept(t, e, 1 - CURVES[:, 1], 100),
    "slope": lambda t, e: calibration.calibration_slope(t, e, 1 - CURVES[:, 1], 100),
    "d calibration": lambda t, e: calibration.d_calibration(CURVES, TIMES, t, e),
    "net benefit": lambda t, e: metrics.net_benefit(t, e, 1 - CURVES[:, 1], 100, [0.2]),
    "rmst": lambda t, e: groups.rmst(t, e, 50),
    "rmst difference": lambda t, e: groups.rmst_difference(t, e, HIGH, 50),
    "hazard ratio": lambda t, e: groups.hazard_ratio(t, e, HIGH),
    "log rank": lambda t, e: groups.logrank_p(t, e, HIGH),
    "survival": lambda t, e: groups.survival_to(t, e, 100),
    "observed / expected": lambda t, e: groups.observed_over_expected(t, e, 1 - CURVES[:, 1], 100),
}


def changed(values, value, row=3):
    found = pd.Series(values).astype(object)
    found[row] = value
    return found


EVENTS = {
    "competing": (changed(EVENT.astype(int), 2), ["2", "competing event", "say which code", "(1 of 24)"]),
    "R's coding": (EVENT.astype(int) + 1, ["1 and 2", "in R", "event == 2"]),
    "another code": (changed(EVENT.astype(int), -1), ["-1", "say which code"]),
    "a share": (changed(EVENT.astype(float), 0.5), ["0.5"]),
    "unknown": (changed(EVENT.astype(float), np.nan), ["missing", "leave out"]),
    "None": (changed(EVENT, None), ["missing"]),
    "nullable": (pd.array(changed(EVENT, pd.NA), dtype="boolean"), ["missing"]),
    "text": (EVENT.astype(str), ["'False'", "no text"]),
    "numbers as text": (EVENT.astype(int).astype(str), ["'0'", "no text"]),
    "words": (np.where(EVENT, "dead", "alive"), ["'alive'"]),
    "levels": (pd.Categorical(np.where(EVENT, "dead", "alive")), ["'alive'"]),
}
TIMES_OF = {
    "unknown": (changed(TIME, np.nan).astype(float), ["missing", "leave out"]),
    "None": (changed(TIME, None), ["missing"]),
    "negative": (changed(TIME, -5.0).astype(float), ["-5", "0 or more"]),
    "endless": (changed(TIME, np.inf).astype(float), ["inf"]),
    "text": (TIME.astype(str), ["expected numbers"]),
    "mixed text": (changed(TIME, "361 days later"), ["'361 days later'", "row 3"]),
    "durations": (pd.Series(pd.to_timedelta(TIME, "D")), ["expected numbers"]),
    "dates": (pd.Series(pd.Timestamp(2020, 1, 1) + pd.to_timedelta(TIME, "D")), ["expected numbers"]),
}


def refused(call, *named):
    with pytest.raises(BadInput) as told:
        call()
    said = str(told.value)
    assert "\n" not in said and said.endswith(".") and ", expected " in said and "; " in said
    for word in named:
        assert word in said, f"{word!r} is not in: {said}"


@pytest.mark.parametrize("fault", EVENTS)
@pytest.mark.parametrize("door", TABLES)
def test_an_event_that_is_none_is_refused_at_every_door_that_takes_a_table(door, fault):
    event, named = EVENTS[fault]
    refused(lambda: TABLES[door](outcome(event=event)), "`event`", "outcome", *named)


@pytest.mark.parametrize("fault", TIMES_OF)
@pytest.mark.parametrize("door", TABLES)
def test_a_time_that_is_none_is_refused_at_every_door_that_takes_a_table(door, fault):
    time, named = TIMES_OF[fault]
    refused(lambda: TABLES[door](outcome(time=time)), "`time_days`", *(one for one in named if "row" not in one))


@pytest.mark.parametrize("door", {**WITHOUT_IDS, **ARRAYS})
def test_what_is_no_outcome_is_refused_at_every_door_that_takes_arrays(door):
    for what, faults in (("event", EVENTS), ("time", TIMES_OF)):
        for fault, (values, named) in faults.items():
            if fault == "negative" and door in ("mae", "r2"):
                continue  # distances, which need no baseline
            time, event = (TIME, values) if what == "event" else (values, EVENT)
            call = ARRAYS.get(door) or (lambda t, e: WITHOUT_IDS[door](pd.DataFrame({"time_days": t, "event": e})))
            refused(lambda call=call, time=time, event=event: call(time, event), *named)


@pytest.mark.parametrize("door", TABLES)
def test_a_patient_twice_is_named(door):
    twice = pd.concat([outcome(), outcome().iloc[[4]].assign(time_days=9.0)])
    refused(lambda: TABLES[door](twice), "P04", "twice")


@pytest.mark.parametrize("absent", ["patient_id", "time_days", "event"])
def test_an_absent_column_is_named(absent):
    refused(lambda: metrics.scores(prognosis(), outcome().drop(columns=absent), outcome(), 100), f"`{absent}`")


FORMS = {
    "bool": EVENT,
    "0 and 1": EVENT.astype(int),
    "floats": EVENT.astype(float),
    "objects": EVENT.astype(object),
    "numbers as objects": pd.Series(EVENT.astype(int)).astype(object).to_numpy(),
    "nullable": pd.array(EVENT, dtype="boolean"),
    "nullable numbers": pd.array(EVENT.astype(int), dtype="Int64"),
    "levels": pd.Categorical(EVENT),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_true_form_of_an_event_gives_the_same_scores(form):
    found = metrics.scores(prognosis(), outcome(event=FORMS[form]), outcome(), 100)
    assert found == pytest.approx(metrics.scores(prognosis(), outcome(), outcome(), 100), nan_ok=True)


def test_whole_days_and_nullable_days_are_days():
    for time in (TIME.astype(int), pd.array(TIME.astype(int), dtype="Int64"), TIME.astype(object)):
        assert metrics.scores(prognosis(), outcome(time=time), outcome(), 100) == pytest.approx(
            metrics.scores(prognosis(), outcome(), outcome(), 100), nan_ok=True
        )


def test_outcomes_of_patients_not_predicted_change_nothing():
    few = Prognosis(prognosis().table.iloc[:12], TIMES)
    alone = metrics.scores(few, outcome().iloc[:12], outcome(), 100)
    assert metrics.scores(few, outcome(), outcome(), 100) == pytest.approx(alone, nan_ok=True)


def test_ids_may_be_numbers_on_either_side():
    numbered = outcome().assign(patient_id=range(SIZE))
    by_name = metrics.scores(prognosis(patient_id=[str(k) for k in range(SIZE)]), numbered, numbered, 100)
    assert by_name == metrics.scores(prognosis(patient_id=range(SIZE)), numbered, numbered, 100)


def test_one_time_for_many_events_is_refused():
    refused(lambda: metrics.concordance(TIME[:1], EVENT, RISK), "(1,)", "(24,)")


# --- predictions


DOORS_OF_PREDICTIONS = {
    "scores": lambda one: metrics.scores(one, outcome(), outcome(), 100),
    "p values": lambda one: metrics.p_values(one, outcome()),
    "band": lambda one: metrics.calibration_band(one, outcome(), 100, **AGAIN),
    "decision": lambda one: metrics.decision_curve({"m": one}, outcome(), 100, **AGAIN),
    "evaluate": lambda one: inference.evaluate({"m": one}, outcome(), IDS, SCORES, "c"),
    "bounds": lambda one: conformal.lower_bounds(one, outcome(), 0.8, 100),
}
PREDICTIONS = {
    "NaN risk": (lambda: prognosis(risk=changed(RISK, np.nan).astype(float)), ["P03"]),
    "NaN days": (lambda: prognosis(days=changed(TIME, np.nan).astype(float)), ["P03"]),
    "NaN curve": (lambda: prognosis(s_1=changed(CURVES[:, 1], np.nan).astype(float)), ["P03"]),
    "text": (lambda: prognosis(risk=RISK.astype(str)), ["`risk`", "P00", "numbers"]),
    "per cent": (lambda: prognosis(**{f"s_{k}": 100 * CURVES[:, k] for k in range(3)}), ["per cent", "from 0 to 1"]),
    "below 0": (lambda: prognosis(s_2=changed(CURVES[:, 2], -0.1).astype(float)), ["P03", "-0.1"]),
    "rising": (lambda: prognosis(s_2=changed(CURVES[:, 2], 1.0).astype(float)), ["P03", "rises", "1 - S(t)"]),
    "risks for survival": (lambda: prognosis(**{f"s_{k}": 1 - CURVES[:, k] for k in range(3)}), ["rises"]),
    "days out of order": (lambda: prognosis(times=TIMES[[1, 0, 2]]), ["order"]),
    "a day twice": (lambda: prognosis(times=TIMES[[0, 1, 1]]), ["order"]),
    "a day below 0": (lambda: prognosis(times=TIMES - 60), ["order"]),
    "a patient twice": (lambda: prognosis(lambda table: pd.concat([table, table.iloc[[3]]])), ["P03", "twice"]),
    "a stranger": (lambda: prognosis(patient_id=[*IDS[:-1], "Q99"]), ["Q99"]),
}


@pytest.mark.parametrize("door", DOORS_OF_PREDICTIONS)
@pytest.mark.parametrize("fault", PREDICTIONS)
def test_a_prediction_that_is_none_is_refused_and_the_patient_named(door, fault):
    made, named = PREDICTIONS[fault]
    with pytest.raises(BadInput) as told:
        DOORS_OF_PREDICTIONS[door](made())
    said = str(told.value)
    assert "\n" not in said and said.endswith(".") and all(word in said for word in named), said


def test_a_missing_group_is_no_high_risk():
    for value, word in ((None, "missing"), ("no", "'no'"), (2, "2")):
        one = prognosis(high_risk=changed(HIGH, value))
        refused(lambda one=one: metrics.scores(one, outcome(), outcome(), 100), "`high_risk`", "P03", word)


def test_rounding_of_a_curve_is_no_fault():
    table = prognosis().table
    table.loc[3, ["s_0", "s_1", "s_2"]] = [1 + 1e-9, 0.5, 0.5 + 1e-9]
    assert np.isfinite(metrics.scores(Prognosis(table, TIMES), outcome(), outcome(), 100)["ibs"])


def test_a_risk_that_is_missing_never_counts_as_a_lost_pair():
    refused(lambda: metrics.concordance(TIME, EVENT, changed(RISK, np.nan).astype(float)), "risk", "row 3", "missing")
    refused(lambda: metrics.cumulative_auc(TIME, EVENT, changed(RISK, np.nan).astype(float).to_numpy()[:, None], [100],
                                           outcome()), "risk", "row 3")  # fmt: skip


@pytest.mark.parametrize("score", [calibration.ici, calibration.calibration_slope, calibration.calibration_intercept,
                                   groups.observed_over_expected])  # fmt: skip
def test_a_risk_in_per_cent_is_not_taken_for_a_sure_death(score):
    refused(lambda: score(TIME, EVENT, 100 * (1 - CURVES[:, 1]), 100), "predicted risk", "per cent")


def test_a_threshold_that_a_risk_just_meets_is_met_whatever_the_rounding():
    """1 - 0.8 is a little less than 0.2: both are the same risk."""
    time, event = np.r_[np.full(10, 50.0), np.full(10, 200.0)], np.arange(20) < 10
    told = metrics.net_benefit(time, event, np.full(20, 1 - 0.8), 100, [0.2])
    assert told == pytest.approx(metrics.net_benefit(time, event, np.full(20, 0.2), 100, [0.2]))
    assert told == pytest.approx(0.5 - 0.5 * 0.25)


def test_subgroups_share_the_door(monkeypatch):
    class OfStudy:
        class cohort:
            outcome = outcome(event=changed(EVENT.astype(int), 2))

        params = type("P", (), {"scores": SCORES})

    monkeypatch.setattr(subgroups, "strata", lambda study: None)
    refused(lambda: subgroups.by_subgroup(OfStudy, {"m": prognosis()}), "competing event")
