"""Landmarks never look ahead; models of visits against lifelines, a loop by hand and a planted growth."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter
from lifelines.utils import concordance_index

from survpack import longitudinal, params, visit_models
from survpack.cohort import VISITS, Cohort
from survpack.errors import BadInput
from survpack.figures.longitudinal import landmark_chart, model_name, swimmers
from survpack.growth import landmark
from survpack.longitudinal import POOLED, landmark_predictions, score, stacked, visits_of
from survpack.phantom import chest
from survpack.phantom.oracle import with_oracle
from survpack.phantom.shared import followed
from survpack.preprocess import CropSet
from survpack.visit_images import VisitScans, seen_twice
from survpack.visit_models import METHODS, Known, build
from survpack.visit_networks import VisitNet

LANDMARKS = [90.0, 180.0]


def made(count: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Visits, outcome and chart of the chest phantom, its growth in the hazard, without drawing a scan."""
    rng = np.random.default_rng(seed)
    facts = chest.facts(chest.DEFAULTS | {"patients": count})
    chart = chest.charts(rng, count, 2)
    chart["volume_ml"] = chart["planted_ml"]
    outcome = followed(rng, chest.hazard(chart, facts)["linear_predictor"], facts)
    parts = []
    for k, row in chart.iterrows():
        days = chest.visit_days(rng, outcome["time_days"][k]).astype(float)
        volume = row["planted_ml"] * np.exp(row["growth_per_30_days"] * days / 30 + rng.normal(0, 0.04, len(days)))
        sessions = [f"ses-{number}" for number in range(len(days))]
        parts.append(pd.DataFrame({"patient_id": row["patient_id"], "session": sessions, "day": days,
                                   "tumour_ml": volume, "texture": rng.normal(size=len(days))}))  # fmt: skip
    visits = pd.concat(parts).sort_values(["patient_id", "day"], ignore_index=True)
    outcome = outcome.assign(patient_id=chart["patient_id"], site=chart["site"]).set_index("patient_id")
    return visits, outcome, chart.set_index("patient_id")[list(chest.DICTIONARY)]


def known(visits, chart, train):
    return Known(visits["day"].to_numpy(), visits.drop(columns=VISITS), chart, chest.DICTIONARY).fit(train)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One network in place of the mean of several."""
    monkeypatch.setattr(visit_models, "MEMBERS", 1)


@pytest.fixture(scope="module")
def few():
    """The repository's choices, with three epochs."""
    chosen = params.load()
    own = chosen.longitudinal.model_copy(update={"epochs": 3, "landmarks_days": {"other": LANDMARKS}})
    return chosen.model_copy(update={"longitudinal": own})


@pytest.fixture
def followed_study(few, tmp_path, study_of, make_patients):
    """A study whose cohort was measured visit by visit, elsewhere."""
    visits, outcome, chart = made(60)
    study = study_of(tmp_path, make_patients(6))
    participants = outcome.join(chart).reset_index()
    Cohort("toy", participants, study.cohort.images.iloc[:0], chest.DICTIONARY, {}, visits=visits).save(
        study.paths.cohort
    )
    ids = participants["patient_id"]
    fold = np.where(np.arange(60) < 12, -1, np.arange(60) % 2)
    splits = pd.DataFrame({"patient_id": ids, "split": np.where(fold < 0, "test", "dev"), "fold": fold})
    splits.to_parquet(study.paths.cohort / "splits.parquet")
    return type(study)("toy", few, study.paths)


# --- what is known at a landmark


def test_at_a_landmark_are_those_still_at_risk_and_seen_with_the_visits_until_then():
    visits = pd.DataFrame({"patient_id": list("aaabbcd"), "day": [0, 90, 91, 0, 30, 0, 100.0]})
    outcome = pd.DataFrame({"time_days": [400, 90, 91, 300.0], "event": [True, True, False, True]}, list("abcd"))
    stack = stacked(visits, outcome, [90])
    assert stack.rows["patient_id"].tolist() == ["a", "c"]  # b dies on the day, d is first seen after it
    assert stack.rows["time_days"].tolist() == [310, 1] and stack.rows["event"].tolist() == [True, False]
    assert [one.tolist() for one in stack.known] == [[0, 1], [5]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(-20, 300)), max_size=15),
       st.lists(st.integers(1, 400), min_size=4, max_size=4),
       st.lists(st.integers(0, 300), min_size=1, max_size=3, unique=True))  # fmt: skip
def test_no_row_looks_past_its_landmark_and_nobody_seen_at_risk_is_left_out(seen, times, landmarks):
    visits = pd.DataFrame(seen, columns=["patient_id", "day"]).astype({"patient_id": str, "day": float})
    visits = visits.sort_values(["patient_id", "day"], ignore_index=True)
    outcome = pd.DataFrame({"time_days": times, "event": True}, list("abcd"))
    stack = stacked(visits, outcome, landmarks)
    found = {}
    for row, at in zip(stack.rows.itertuples(), stack.known, strict=True):
        days = visits["day"].to_numpy()[at]
        assert (days <= row.landmark_days).all() and (np.diff(days) >= 0).all() and row.time_days > 0
        assert (visits["patient_id"].to_numpy()[at] == row.patient_id).all()
        found[row.patient_id, row.landmark_days] = len(at)
    expected = {(who, float(day)): sum(1 for one, when in seen if one == who and when <= day)
                for day in landmarks for who, time in zip("abcd", times, strict=True) if time > day}  # fmt: skip
    assert found == {key: count for key, count in expected.items() if count}


@pytest.mark.parametrize("method", METHODS)
def test_whatever_happens_after_the_landmark_changes_no_prediction_at_it(method, few):
    visits, outcome, chart = made(70, seed=3)
    later = visits["day"] > 90
    assert later.sum() > 40
    other = visits.copy()  # shuffled over patients, as if anything might still happen
    order = np.random.default_rng(1).permutation(np.flatnonzero(later))
    other.loc[later, ["tumour_ml", "texture"]] = 50 * visits[["tumour_ml", "texture"]].to_numpy()[order]
    ids = outcome.index
    risks = []
    for table in (visits, other):
        stack = stacked(table, outcome, [90.0])
        columns = known(table, chart, stack.of(ids[:50]))
        model = build(method, few).fit(columns.of(stack.of(ids[:50])))
        risks.append(model.predict(columns.of(stack.of(ids[50:]))))
    np.testing.assert_array_equal(*risks)
    assert np.ptp(risks[0]) > 0


@pytest.mark.parametrize("method", METHODS)
def test_a_patient_s_risk_depends_neither_on_later_visits_nor_on_who_is_predicted_beside(method, few):
    visits, outcome, chart = made(70, seed=4)
    ids = outcome.index
    stack = stacked(visits, outcome, LANDMARKS)
    columns = known(visits, chart, stack.of(ids[:50]))
    model = build(method, few).fit(columns.of(stack.of(ids[:50])))
    together = stack.of(ids[50:])
    first = together.rows["landmark_days"].eq(90) & together.rows["patient_id"].eq(together.rows["patient_id"][0])
    alone = stacked(visits[visits["day"] <= 90].reset_index(drop=True), outcome, [90.0]).of(
        [together.rows["patient_id"][0]]
    )
    cut = visits[visits["day"] <= 90].reset_index(drop=True)
    columns_cut = replace_visits(columns, cut)
    np.testing.assert_allclose(
        model.predict(columns_cut.of(alone)),
        model.predict(columns.of(together))[first.to_numpy()],
        rtol=1e-5,
        atol=1e-6,
    )


def replace_visits(columns: Known, visits: pd.DataFrame) -> Known:
    """What was learnt, to be applied to another table of visits."""
    other = Known(visits["day"].to_numpy(), visits.drop(columns=VISITS), columns.chart, columns.dictionary)
    for name, value in vars(columns).items():
        if name not in ("days", "values"):
            setattr(other, name, value)
    return other


def test_the_rate_of_a_visit_table_ranks_patients_as_growth_does():
    visits, outcome, chart = made(80, seed=5)
    visits = visits.drop(columns="texture")
    stack = stacked(visits, outcome, [180.0])
    rate = known(visits, chart, stack)._raw(stack)["delta"][:, 4]  # last and change, two columns each, then the rate
    theirs = landmark(visits, 180).loc[stack.rows["patient_id"], "growth_log"].fillna(0)
    assert abs(pd.Series(rate).corr(theirs.reset_index(drop=True), method="spearman")) > 0.97


def test_a_missing_number_is_the_training_median_and_marked():
    visits, outcome, chart = made(60, seed=6)
    visits.loc[::7, "texture"] = np.nan
    stack = stacked(visits, outcome, LANDMARKS)
    columns = known(visits, chart, stack)
    median = visits.loc[np.unique(np.concatenate(stack.known)), "texture"].median()
    filled = replace_visits(columns, visits.fillna({"texture": median}))
    ours, theirs = columns._raw(stack)["z"], filled._raw(stack)["z"]
    np.testing.assert_allclose(ours[:, :-1], theirs[:, :-1])
    np.testing.assert_array_equal(ours[:, -1], np.where(visits["texture"].isna(), 0.5, 0))


def test_a_cohort_without_a_chart_and_a_constant_measurement_have_predictions(few):
    visits, outcome, chart = made(60, seed=6)
    visits["tumour_ml"] = 8.0
    stack = stacked(visits, outcome, LANDMARKS)
    for method in METHODS:
        columns = known(visits, chart[[]], stack)
        assert np.isfinite(build(method, few).fit(columns.of(stack)).predict(columns.of(stack))).all()


def test_a_measurement_gone_wrong_does_not_carry_a_patient_away():
    visits, outcome, chart = made(60, seed=6)
    stack, ids = stacked(visits, outcome, LANDMARKS), outcome.index
    columns = known(visits, chart, stack.of(ids[:40]))
    wrong = visits.copy()
    wrong.loc[wrong["patient_id"].isin(ids[40:]), "texture"] = 1e30
    assert np.abs(replace_visits(columns, wrong).of(stack.of(ids[40:])).baseline).max() < 20


def test_ct_and_pet_of_one_work_up_are_no_follow_up():
    images = pd.DataFrame({"patient_id": "a", "session": ["ct", "pet"], "modality": ["ct", "pt"]})
    assert not seen_twice(images) and seen_twice(images.assign(modality="ct"))


# --- models


def test_ridge_cox_is_that_of_lifelines(few):
    visits, outcome, chart = made(90, seed=7)
    stack = stacked(visits, outcome, LANDMARKS)
    seen = known(visits, chart, stack).of(stack)
    ours = build("delta-cox", few).fit(seen)
    varies = np.ptp(seen.delta, axis=0) > 0
    table = pd.DataFrame(seen.delta[:, varies]).add_prefix("x").assign(time=seen.time, event=seen.event)
    theirs = CoxPHFitter(penalizer=few.longitudinal.ridge / len(table), l1_ratio=0.0).fit(table, "time", "event")
    # lifelines scales its columns itself, and penalises those; ours are scaled already, but for n over n - 1
    np.testing.assert_allclose(ours.model.coef_[varies], theirs.params_.to_numpy(), rtol=0.03, atol=2e-3)


def test_the_recurrent_network_is_a_loop_over_real_visits_and_reads_no_padding():
    torch.manual_seed(0)
    net = VisitNet(3, 2, 5, 0.0, recurrent=True).eval()
    visits, lengths, table = torch.randn(4, 6, 3), torch.tensor([1, 6, 3, 2]), torch.randn(4, 2)
    cell = torch.nn.GRUCell(3, 5)
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in net.gru.state_dict().items()})
    kept = []
    for rows, length in zip(visits, lengths, strict=True):
        state = torch.zeros(1, 5)
        for visit in rows[:length]:
            state = cell(visit[None], state)
        kept.append(state[0])
    torch.testing.assert_close(net.keep(visits, lengths), torch.stack(kept))
    garbage = visits.clone()
    garbage[torch.arange(6)[None] >= lengths[:, None]] = 1e6
    torch.testing.assert_close(net(garbage, lengths, table), net(visits, lengths, table))


def test_planted_growth_is_found_by_change_and_by_recurrence_and_not_at_baseline():
    chosen = params.load()
    chosen = chosen.model_copy(update={"longitudinal": chosen.longitudinal.model_copy(update={"epochs": 20})})
    visits, outcome, chart = made(450, seed=8)
    stack, ids = stacked(visits, outcome, LANDMARKS), outcome.index
    columns = known(visits, chart, stack.of(ids[:200]))
    seen, unseen = columns.of(stack.of(ids[:200])), columns.of(stack.of(ids[200:]))
    at = unseen.landmark == 180

    def concordance(method):
        risk = build(method, chosen).fit(seen).predict(unseen)
        return concordance_index(unseen.time[at], -risk[at], unseen.event[at])

    found = {method: concordance(method) for method in ("baseline-cox", "delta-cox", "gru")}
    assert found["delta-cox"] > found["baseline-cox"] + 0.05 and found["gru"] > found["baseline-cox"] + 0.05


def test_the_same_seed_gives_the_same_risks_and_another_seed_others(few):
    visits, outcome, chart = made(50, seed=9)
    stack = stacked(visits, outcome, LANDMARKS)
    seen = known(visits, chart, stack).of(stack)
    other = few.model_copy(update={"longitudinal": few.longitudinal.model_copy(update={"seed": 5})})
    one, two, three = (build("gru", choice).fit(seen).predict(seen) for choice in (few, few, other))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()


# --- the embeddings of scans


@pytest.fixture
def scans(followed_study):
    study = followed_study
    visits = visits_of(study)
    shape = (len(visits), 1, 16, 16, 16)
    rng = np.random.default_rng(0)
    masks = np.zeros(shape, np.float16)
    masks[..., 4:12, 4:12, 4:12] = 1
    crops = CropSet(
        visits.index.astype(str).tolist(), rng.normal(size=shape).astype(np.float16), masks, ["ct"], ["tumour"], 2.0
    )
    quick = study.params.training.model_copy(update={"epochs": {"other": 1}})
    study = type(study)("toy", study.params.model_copy(update={"training": quick}), study.paths)
    return study, VisitScans(crops, np.arange(len(visits))[:-1], visits), crops


def test_an_embedding_learns_from_first_scans_of_training_patients_alone(scans):
    study, seen, crops = scans
    train, held = study.fold(0)
    seen = replace(seen, crops=cut(crops, len(seen.row)))
    before = seen.embed(study, train, "fold 0")
    assert before.iloc[-1].isna().all() and before.iloc[:-1].notna().all(axis=None)  # the last visit has no scan
    images = seen.crops.images.copy()
    first = ~seen.visits["patient_id"].duplicated().to_numpy()[:-1]
    learnt = first & seen.visits["patient_id"].isin(train).to_numpy()[:-1]
    images[~learnt] = 3
    after = replace(seen, crops=replace(seen.crops, images=images)).embed(study, train, "fold 0")
    np.testing.assert_array_equal(before[:-1][learnt], after[:-1][learnt])
    assert (before[:-1][~learnt] != after[:-1][~learnt]).any(axis=None)


def cut(crops: CropSet, count: int) -> CropSet:
    return replace(crops, images=crops.images[:count], masks=crops.masks[:count], patient_ids=crops.patient_ids[:count])


# --- the study


def test_every_model_predicts_every_patient_once_out_of_fold_at_each_landmark(followed_study):
    study = followed_study
    found = landmark_predictions(study)
    assert found.columns.tolist() == longitudinal.PREDICTIONS and np.isfinite(found["risk"]).all()
    assert set(found["model"]) == set(METHODS)
    assert not found.duplicated(["model", "landmark_days", "patient_id"]).any()
    outcome = study.outcome(found["patient_id"])
    np.testing.assert_allclose(found["time_days"] + found["landmark_days"], outcome["time_days"])
    fold = study.splits.set_index("patient_id").loc[found["patient_id"], "fold"]
    np.testing.assert_array_equal(found["fold"], fold)
    at_risk = (study.cohort.outcome["time_days"] > 90).sum()
    assert (found["landmark_days"].eq(90) & found["model"].eq("gru")).sum() == at_risk
    assert not study.paths.fits(longitudinal.WORK).exists()


def test_a_run_that_was_killed_goes_on_from_its_last_finished_fold(followed_study, monkeypatch):
    study, real, done = followed_study, longitudinal._predict_fold, []
    monkeypatch.setattr(visit_models, "METHODS", {name: METHODS[name] for name in ("last-cox", "gru")})

    def dies_at_the_second(*given):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(given[-1])
        return real(*given)

    monkeypatch.setattr(longitudinal, "_predict_fold", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        landmark_predictions(study)
    again = []
    monkeypatch.setattr(longitudinal, "_predict_fold", lambda *given: again.append(given[-1]) or real(*given))
    resumed = landmark_predictions(study)
    assert done == [0] and again == [1, -1]
    monkeypatch.setattr(longitudinal, "_predict_fold", real)
    pd.testing.assert_frame_equal(resumed, landmark_predictions(study))


def test_a_cohort_seen_once_has_no_visits_and_no_predictions(tmp_path, study_of, make_patients):
    study = study_of(tmp_path, make_patients(30))
    assert visits_of(study).empty and landmark_predictions(study).empty
    assert (
        score(landmark_predictions(study), study.params.scores).empty
        and longitudinal.facts(score(landmark_predictions(study), study.params.scores)) == {}
    )


def test_a_landmark_after_which_nobody_dies_is_told_with_what_to_change(followed_study):
    study = followed_study
    late = study.params.longitudinal.model_copy(update={"landmarks_days": {"toy": [90.0, 5000.0]}})
    study = type(study)("toy", study.params.model_copy(update={"longitudinal": late}), study.paths)
    with pytest.raises(
        BadInput, match=r"toy, fold 0: no training patient seen by day 5000 dies after it.*earlier days"
    ):
        landmark_predictions(study)


@pytest.mark.skipif(not os.environ.get("SURVPACK_DATA"), reason="SURVPACK_DATA names no folder with lumiere")
def test_the_real_lumiere_has_80_patients_at_risk_after_half_a_year():
    from survpack.adapters import lumiere

    root = Path(os.environ["SURVPACK_DATA"]) / "lumiere"
    if not root.is_dir():
        pytest.skip("no folder lumiere in SURVPACK_DATA")
    table = lumiere.clinical(root)
    outcome = table.assign(time_days=table["overall_survival_days"], event=table["death"]).set_index("patient_id")
    rows = stacked(lumiere.visits(root), outcome, [180]).rows
    assert len(rows) == 80 and rows["event"].sum() == 78


# --- scores


def predictions(count: int = 40, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    parts = []
    for day in LANDMARKS:
        ids = [f"P{k}" for k in range(count - int(day) // 18)]
        time, fold = rng.exponential(300, len(ids)), np.arange(len(ids)) % 2
        base = {"cohort": "toy", "landmark_days": day, "fold": fold, "split": "cv", "patient_id": ids,
                "time_days": time, "event": rng.random(len(ids)) < 0.7}  # fmt: skip
        parts += [pd.DataFrame(base | {"model": name, "risk": -np.log(time) + spread * rng.normal(size=len(ids))})
                  for name, spread in (("baseline-cox", 2.0), ("gru", 0.5))]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def test_scores_at_a_landmark_are_lifelines_within_folds_and_pooled_is_over_all_pairs(few):
    table = predictions()
    found = score(table, few.scores).set_index(["model", "landmark_days"])
    for model in ("baseline-cox", "gru"):
        own = table[table["model"] == model]
        won, pairs = 0.0, 0.0
        for _, rows in own.groupby(["landmark_days", "fold"]):
            one = concordance_index(rows["time_days"], -rows["risk"], rows["event"])
            later = rows["time_days"].to_numpy() > rows["time_days"].to_numpy()[:, None]
            count = (later & rows["event"].to_numpy()[:, None]).sum()
            won, pairs = won + one * count, pairs + count
        assert found.loc[(model, POOLED), "estimate"] == pytest.approx(won / pairs)
    gain = found.loc[("gru", 90.0)]
    assert gain["difference"] == pytest.approx(gain["estimate"] - found.loc[("baseline-cox", 90.0), "estimate"])
    assert gain["low"] < gain["estimate"] < gain["high"] and gain["difference_low"] < gain["difference"]
    assert found.loc[("baseline-cox", POOLED), "difference"] == 0
    assert found.loc[("baseline-cox", POOLED), ["difference_low", "difference_high", "difference_p"]].isna().all()
    assert found.loc[("gru", POOLED), "patients"] == 35


def test_the_oracle_is_scored_on_the_same_rows_and_only_there(few, tmp_path):
    table = predictions()
    study = SimpleNamespace(paths=SimpleNamespace(truth=tmp_path / "truth.parquet"))
    pd.testing.assert_frame_equal(with_oracle(table, study), table)
    patients = table["patient_id"].unique()
    pd.DataFrame({"patient_id": patients, "linear_predictor": 1.0}).to_parquet(study.paths.truth)
    beside = with_oracle(table, study)
    assert beside["model"].value_counts()["oracle"] == (table["model"] == "gru").sum()
    assert (score(beside, few.scores).set_index("model").loc["oracle", "estimate"] == 0.5).all()


def test_models_that_predicted_other_patients_are_refused(few):
    with pytest.raises(BadInput, match="predictions of gru: none for patient P0"):
        score(predictions().drop(index=predictions().query("model == 'gru'").index[0]), few.scores)


def test_the_json_has_an_interval_a_model_and_landmark_and_the_table_reads_it(few):
    scores = score(predictions(), few.scores)
    found = longitudinal.facts(scores)
    assert set(found["gru"]) == {"90", "180", POOLED} and set(found["gru"]["90"]) == {"harrell_c", "minus_baseline"}
    assert (
        found["gru"]["90"]["harrell_c"]["low"] == scores.set_index(["model", "landmark_days"]).loc[("gru", 90.0), "low"]
    )
    text = longitudinal.scores_text(scores)
    assert text["Model"].tolist() == ["First visit, Cox", "All visits, GRU"]
    assert text["All landmarks"][1].startswith(f"{found['gru'][POOLED]['harrell_c']['estimate']:.2f}")


# --- figures


def test_a_swimmer_has_a_dot_a_visit_and_a_cross_a_death():
    visits, outcome, _ = made(30)
    axes = swimmers(visits, outcome, LANDMARKS).axes[0]
    drawn = {line.get_label(): line for line in axes.lines}
    assert len(drawn["visits"].get_xdata()) == len(visits)
    assert len(drawn["deaths"].get_xdata()) == outcome["event"].sum()


def test_the_landmark_chart_draws_every_estimate_in_its_panel(few):
    scores = score(predictions(), few.scores)
    panels = landmark_chart(scores).axes
    assert [axes.get_title(loc="left") for axes in panels] == ["Day 90", "Day 180", "All landmarks"]
    for day, axes in zip([*LANDMARKS, POOLED], panels, strict=True):
        (drawn,) = [line.get_xdata()[0] for line in axes.lines if line.get_label() == "gru"]
        assert drawn == scores.set_index(["model", "landmark_days"]).loc[("gru", day), "estimate"]


def test_a_model_is_named_by_what_it_sees_and_how():
    assert model_name("delta-cox-images") == "Last visit and change, Cox (scans)"
    assert model_name("gru") == "All visits, GRU" and model_name("somebody-elses") == "Somebody elses"
