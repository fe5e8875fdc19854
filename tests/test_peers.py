"""The tuned peers, late fusion and the clinical score: budgets, inner folds, and what they never see."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sksurv.linear_model import CoxnetSurvivalAnalysis, CoxPHSurvivalAnalysis

from survpack.clinical import graded_prognostic_assessment
from survpack.errors import BadInput
from survpack.metrics import concordance
from survpack.models import Forecast, Stack, build, classical, describe, lacking, prepare_table
from survpack.models.classical import Tuned, inner_folds
from survpack.models.columns import chart_and_lesion, radiomic

TIMES = np.array([0.0, 5, 50, 200, 700, 1500, 9000])
TUNED = ["clinical-lesion-coxnet", "radiomics-coxnet", "clinical-radiomics-rsf", "clinical-radiomics-boosting"]
CHOICE = SimpleNamespace(ridge=1.0, l1_ratio=0.5, inner_folds=3, budget=4, seed=5)


@pytest.fixture(scope="module")
def few(params):
    return params.model_copy(update={"classical": params.classical.model_copy(update={"budget": 4, "trees": 10})})


def with_events(patients, event):
    return replace(patients, outcome=patients.outcome.assign(event=np.asarray(event, dtype=bool)))


# --- one budget ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TUNED)
def test_every_tuned_model_tries_the_stated_number_of_settings_in_every_inner_fold(name, patients, few, monkeypatch):
    tried, score = [], classical._concordance
    monkeypatch.setattr(classical, "_concordance", lambda one, *rest: tried.append(one) or score(one, *rest))
    build(name, few).fit(patients)
    assert len(tried) == 4 * few.classical.inner_folds
    assert len({str(one.get_params()) for one in tried}) == 4
    assert "4 settings tried in 3 inner folds" in describe(name, few)


def test_the_setting_chosen_is_that_of_scikit_learn_s_own_search(make_patients):
    people = make_patients(90, seed=4, voxels=1)
    ridges = [1e4, 1.0, 30.0, 0.01]
    model = Tuned(chart_and_lesion, CoxPHSurvivalAnalysis(), {}, CHOICE)
    model._candidates = lambda table, target: [{"alpha": ridge} for ridge in ridges]
    model.fit(people)
    frame = chart_and_lesion(people)
    peer = GridSearchCV(
        Pipeline([("prepare", prepare_table(frame, people.dictionary)), ("cox", CoxPHSurvivalAnalysis())]),
        {"cox__alpha": ridges}, cv=inner_folds(people.target["event"], CHOICE),
    ).fit(frame, people.target)  # fmt: skip
    assert len(set(peer.cv_results_["mean_test_score"])) == 4
    assert model.estimator.alpha == peer.best_params_["cox__alpha"]
    np.testing.assert_allclose(model.estimator.coef_, peer.best_estimator_[-1].coef_)


def test_of_equal_settings_the_first_is_taken_and_of_one_event_too(patients):
    model = Tuned(chart_and_lesion, CoxPHSurvivalAnalysis(), {}, CHOICE)
    model._candidates = lambda table, target: [{"alpha": 7.0, "ties": ties} for ties in ("efron", "breslow")]
    assert model.fit(patients).estimator.ties == "efron"  # without ties, the two are one
    one = with_events(patients, np.arange(40) == 4)
    model._candidates = lambda table, target: [{"alpha": alpha} for alpha in (7.0, 1.0)]
    assert model.fit(one).estimator.alpha == 7.0


def test_the_penalties_begin_below_the_one_that_keeps_no_column(patients, few):
    model = build("clinical-lesion-coxnet", few)
    frame = model.read(patients)
    table = prepare_table(frame, patients.dictionary).fit_transform(frame)
    alphas = [each["alphas"][0] for each in model._candidates(table, patients.target)]
    steps = np.diff(np.log(alphas))
    largest = alphas[0] / np.exp(steps[0])
    assert np.allclose(steps, steps[0]) and alphas[-1] == pytest.approx(0.01 * largest)
    for alpha, kept in ((1.01 * largest, 0), (0.97 * largest, 1)):
        net = CoxnetSurvivalAnalysis(alphas=[alpha], l1_ratio=few.classical.l1_ratio).fit(table, patients.target)
        assert np.count_nonzero(net.coef_) == kept


@pytest.mark.parametrize("name", TUNED)
def test_tuned_models_find_what_is_planted_and_rank_other_patients_by_it(name, make_patients, few):
    train, held = (make_patients(150, seed, voxels=1) for seed in (1, 2))
    risk = build(name, few).fit(train).predict(held, TIMES).risk
    assert concordance(held.outcome["time_days"].to_numpy(), held.outcome["event"].to_numpy(), risk) > 0.65


@pytest.mark.parametrize("name", ["radiomics-coxnet", "clinical-lesion-coxnet"])
@pytest.mark.parametrize("count", [2, 3, 4, 5])
def test_an_elastic_net_of_very_few_patients_gives_curves_or_one_sentence(name, count, make_patients, few):
    people = make_patients(60, seed=7, voxels=1)
    defined = 0
    for start in (0, 12, 24, 36):
        group = people.take(people.outcome.index[start : start + count])
        try:
            defined += np.isfinite(build(name, few).fit(group).predict(people, TIMES).survival).all()
        except BadInput as told:
            assert str(told).count(". ") == 0
    assert defined >= (1 if count == 2 else 3)


# --- inner folds --------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.lists(st.booleans(), min_size=2, max_size=40), st.integers(2, 6))
def test_inner_folds_hold_everyone_once_and_have_an_event_on_both_sides(event, count):
    event = np.array(event)
    folds = inner_folds(event, SimpleNamespace(inner_folds=count, seed=1))
    assert len(folds) == (min(count, event.sum()) if event.sum() > 1 else 0)
    if folds:
        assert sorted(np.concatenate([held for _, held in folds])) == list(range(len(event)))
    for train, held in folds:
        assert sorted([*train, *held]) == list(range(len(event)))
        assert event[train].any() and event[held].any()


# --- late fusion --------------------------------------------------------------------------------------------------


class Given:
    """A model that says what it was told to: of patients it was fitted to by heart, of others a column, or noise."""

    def __init__(self, column: str | None = None, by_heart: bool = False, units=(1.0, 0.0), seen: list | None = None):
        self.column, self.by_heart, self.units, self.seen = column, by_heart, units, seen

    def fit(self, patients, label=""):
        self.known = patients.outcome["time_days"]
        self.usual_risk = float(np.median(self._risk(patients)))
        if self.seen is not None:
            self.seen.append(("fit", label, {*patients.outcome.index}))
        return self

    def predict(self, patients, times):
        if self.seen is not None:
            self.seen.append(("predict", "", {*patients.outcome.index}))
        return Forecast(
            self._risk(patients), np.ones(len(patients.outcome)), np.ones((len(patients.outcome), len(times)))
        )

    def _risk(self, patients):
        ids = patients.outcome.index
        noise = pd.Series(np.random.default_rng(3).normal(size=1000)).reindex([int(one[1:]) for one in ids]).to_numpy()
        risk = noise if self.column is None else np.log(patients.biomarkers[self.column]).to_numpy()
        if self.by_heart:
            risk = np.where(ids.isin(self.known.index), -patients.outcome["time_days"] / 100, risk)
        return self.units[0] * risk + self.units[1]


def stack(**members) -> Stack:
    return Stack([(name, lambda made=made: Given(**made)) for name, made in members.items()], CHOICE)


def test_a_member_that_knows_its_training_patients_by_heart_and_no_others_gets_no_weight(make_patients):
    members = {"honest": {"column": "tumour_ml"}, "by_heart": {"by_heart": True}}
    fits = [stack(**members).fit(make_patients(120, seed, voxels=1)) for seed in range(8)]
    weights = pd.DataFrame([model.weights for model in fits])
    assert (weights["honest"] > 0.6).all() and abs(weights["by_heart"].mean()) < 0.15
    alone = CoxPHSurvivalAnalysis(alpha=1.0)  # what it would get by its own patients
    people = make_patients(120, 0, voxels=1)
    known = Given(by_heart=True).fit(people).predict(people, TIMES).risk
    assert alone.fit((known / known.std())[:, None], people.target).coef_[0] > 2


def test_members_may_count_their_risk_in_any_unit(make_patients):
    people, others = (make_patients(60, seed, voxels=1) for seed in (2, 3))
    as_is, scaled = (
        stack(one={"column": "tumour_ml", "units": units}, two={}).fit(people).predict(others, TIMES)
        for units in ((1.0, 0.0), (1000.0, -70.0))
    )
    for ours, theirs in zip(as_is, scaled, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-8)


def test_weights_are_those_of_lifelines_on_risks_out_of_fold(make_patients):
    people = make_patients(90, seed=6, voxels=1)
    free = SimpleNamespace(**{**vars(CHOICE), "ridge": 0.0})
    model = Stack([("volume", lambda: Given("tumour_ml")), ("noise", Given)], free).fit(people)
    table = people.outcome[["time_days", "event"]].copy()
    for name, made in (("volume", Given("tumour_ml")), ("noise", Given())):
        for train, held in inner_folds(people.target["event"], free):
            seen, unseen = (made._risk(people.take(people.outcome.index[at])) for at in (train, held))
            table.loc[people.outcome.index[held], name] = (unseen - np.median(seen)) / np.std(seen)
    table[["volume", "noise"]] /= table[["volume", "noise"]].std(ddof=0)
    peer = CoxPHFitter().fit(table, "time_days", "event").params_
    assert model.weights == pytest.approx(peer.to_dict(), abs=1e-4)


def test_no_member_is_weighed_on_a_patient_it_was_fitted_to_and_every_fit_has_a_label_of_its_own(patients):
    seen = []
    stack(one={"column": "tumour_ml", "seen": seen}, two={"seen": seen}).fit(patients, label="toy late fold-0")
    labels = [label for what, label, _ in seen if what == "fit"]
    assert len({*labels}) == len(labels) == 2 * (3 + 1) and all(
        label.startswith("toy late fold-0 ") for label in labels
    )
    held = [ids for (what, _, train), *later in zip(seen, seen[1:], seen[2:], strict=False)
            if what == "fit" and len(train) < 40 for _, _, ids in later if not ids & train]  # fmt: skip
    assert len(held) == 6 and all(set.union(*held[k : k + 3]) == {*patients.outcome.index} for k in (0, 3))


def test_a_stack_of_one_event_is_defined_and_of_none_is_told(patients):
    found = stack(one={"column": "tumour_ml"}, two={}).fit(with_events(patients, np.arange(40) == 4))
    assert np.isfinite(found.predict(patients, TIMES).survival).all()
    with pytest.raises(BadInput, match="late fold-0: 0 events among 40 training patients"):
        stack(one={}).fit(with_events(patients, np.zeros(40)), label="late fold-0")


def test_a_stack_of_real_models_ranks_as_well_as_its_better_member(make_patients, few):
    train, held = (make_patients(150, seed, voxels=1) for seed in (1, 2))
    members = [(name, lambda name=name: build(name, few)) for name in ("age", "lesion-cox")]
    outcome = held.outcome["time_days"].to_numpy(), held.outcome["event"].to_numpy()
    both = Stack(members, few.classical).fit(train)
    alone = {name: concordance(*outcome, model.predict(held, TIMES).risk) for name, model in both.models.items()}
    assert concordance(*outcome, both.predict(held, TIMES).risk) > max(alone.values()) - 0.01
    assert alone["lesion-cox"] > alone["age"] and both.weights["lesion-cox"] > both.weights["age"]
    assert "age, lesion-cox" in both.about


# --- the clinical score -------------------------------------------------------------------------------------------


def charted(patients):
    """With the four items of the score, some missing."""
    rng, count = np.random.default_rng(8), len(patients.outcome)
    chart = patients.clinical.assign(
        karnofsky=rng.choice([50.0, 70, 80, 90, 100, np.nan], count),
        lesion_count=rng.integers(1, 7, count),
        extracranial_disease=rng.choice(["present", "absent"], count),
    )
    return replace(patients, clinical=chart)


def test_the_clinical_score_is_the_risk_turned_round_and_where_missing_the_training_median(patients, params):
    people = charted(patients)
    train, held = (people.take(people.outcome.index[part]) for part in (slice(0, 25), slice(25, 40)))
    risk = build("gpa", params).fit(train).predict(held, TIMES).risk
    score = graded_prognostic_assessment(held.clinical)
    usual = graded_prognostic_assessment(train.clinical).median()
    assert score.isna().any() and score.nunique() > 3
    np.testing.assert_array_equal(risk, -score.fillna(usual))


def test_a_chart_without_the_items_of_the_score_cannot_have_it_and_says_which(patients, params):
    assert lacking("gpa", charted(patients)) == ""
    assert "gpa needs age, karnofsky" in (told := lacking("gpa", patients)) and "it has no karnofsky, lesion" in told
    nobody = replace(patients, clinical=charted(patients).clinical.assign(karnofsky=np.nan))
    with pytest.raises(BadInput, match="toy gpa fold-0: it is missing for all 40 training patients"):
        build("gpa", params).fit(nobody, label="toy gpa fold-0")


def test_radiomics_beside_the_chart_are_what_the_forest_and_the_boosting_both_see(patients, few):
    forest, boosting = (build(name, few).fit(patients) for name in TUNED[2:])
    pd.testing.assert_frame_equal(forest.read(patients), boosting.read(patients))
    assert {*patients.clinical} < {*forest.read(patients)} and {*forest.read.selection.columns} <= {*radiomic(patients)}
