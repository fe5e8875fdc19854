"""Properties that every split must have, whatever the cohort."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from survpack.errors import BadInput
from survpack.splits import make_splits, read_given


@st.composite
def outcomes(draw):
    patients, sites = draw(st.integers(12, 120)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    return pd.DataFrame({
        "patient_id": [f"p{k:03d}" for k in rng.permutation(patients)],
        "site": rng.integers(0, sites, patients).astype(str),
        "time_days": rng.integers(1, draw(st.sampled_from([3, 2000])), patients).astype(float),  # ties, or hardly any
        "event": rng.random(patients) < draw(st.floats(0.05, 1)),
    })  # fmt: skip


cases = {
    "outcome": outcomes(),
    "folds": st.integers(2, 6),
    "test_fraction": st.floats(0.1, 0.4),
    "seed": st.integers(0, 99),
}


@settings(deadline=None, max_examples=150)
@given(**cases)
def test_every_patient_is_dealt_once_with_events_everywhere_and_in_balance(outcome, folds, test_fraction, seed):
    assume(outcome["event"].sum() > folds)
    splits = make_splits(outcome, folds=folds, test_fraction=test_fraction, seed=seed)
    assert list(splits["patient_id"]) == list(outcome["patient_id"])
    assert ((splits["split"] == "test") == (splits["fold"] == -1)).all()
    assert set(splits["fold"]) == set(range(-1, folds))
    together = splits.merge(outcome, on="patient_id", validate="one_to_one")
    events, sizes = together.groupby("fold")["event"].sum(), together.groupby("fold").size()
    assert events.min() >= 1
    assert np.ptp(events.drop(-1)) <= 1 and np.ptp(sizes.drop(-1)) <= 1
    wanted = min(test_fraction * outcome["event"].sum(), outcome["event"].sum() - folds)
    assert abs(events[-1] - wanted) <= 1
    assert abs(sizes[-1] - events[-1] - test_fraction * (~outcome["event"]).sum()) <= 1


@settings(deadline=None, max_examples=30)
@given(**cases)
def test_splits_do_not_depend_on_the_order_of_the_rows(outcome, folds, test_fraction, seed):
    assume(outcome["event"].sum() > folds)
    choices = {"folds": folds, "test_fraction": test_fraction, "seed": seed}
    one = make_splits(outcome, **choices).set_index("patient_id")
    other = make_splits(outcome[::-1], **choices).set_index("patient_id")
    pd.testing.assert_frame_equal(one, other.loc[one.index])


def test_time_and_site_are_balanced_where_the_numbers_allow():
    rng = np.random.default_rng(0)
    outcome = pd.DataFrame({
        "patient_id": [f"p{k}" for k in range(300)], "site": np.repeat(["a", "b", "c"], 100),
        "time_days": rng.exponential(300, 300) + 1, "event": rng.random(300) < 0.7,
    })  # fmt: skip
    splits = make_splits(outcome, folds=5, test_fraction=0.2, seed=1).merge(outcome, on="patient_id")
    shares = pd.crosstab(splits["fold"], splits["site"], normalize="index")
    assert shares.sub(1 / 3).abs().to_numpy().max() < 0.08  # chance alone would reach about 0.15
    medians = splits[splits["event"]].groupby("fold")["time_days"].median()
    assert medians.max() / medians.min() < 1.5


@pytest.mark.parametrize(("patients", "events"), [(51, 15), (207, 21)])
def test_small_real_cohorts_keep_an_even_share_of_events(patients, events):
    outcome = pd.DataFrame({
        "patient_id": [f"p{k:03d}" for k in range(patients)], "site": "single",
        "time_days": np.arange(1.0, patients + 1), "event": np.arange(patients) % (patients // events) == 0,
    })  # fmt: skip
    outcome.loc[outcome["event"].to_numpy().nonzero()[0][events:], "event"] = False
    splits = make_splits(outcome, folds=5, test_fraction=0.2, seed=7).merge(outcome, on="patient_id")
    counts = splits.groupby("fold")["event"].sum()
    assert counts[-1] == round(0.2 * events) and set(counts.drop(-1)) <= {events // 6, events // 6 + 1, events // 5}


def test_another_seed_deals_other_patients():
    outcome = pd.DataFrame({
        "patient_id": [f"p{k:03d}" for k in range(60)], "site": "a",
        "time_days": np.arange(1.0, 61), "event": np.tile([True, False], 30),
    })  # fmt: skip
    one, other = (make_splits(outcome, folds=3, test_fraction=0.2, seed=seed) for seed in (1, 2))
    assert (one["fold"] != other["fold"]).any()


def test_too_few_events_are_told_with_the_remedy():
    outcome = pd.DataFrame({"patient_id": list("abcdef"), "site": "a", "time_days": 1.0, "event": [1, 1, 1, 0, 0, 0]})
    with pytest.raises(BadInput, match=r"3 events among 6 patients.*3 folds.*splits\.folds.*to 2 or fewer"):
        make_splits(outcome, folds=3, test_fraction=0.2, seed=1)


# --- a split that is given ----------------------------------------------------------------------------------------


def told(count, test, folds=None):
    ids = pd.Series([f"P{k:03d}" for k in range(count)])
    named = pd.Series(["Test" if k in test else " train" for k in range(count)])
    return read_given(named, folds, ids, "column `split`")


def people(count, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "patient_id": [f"P{k:03d}" for k in range(count)], "site": "a",
        "time_days": rng.integers(10, 900, count).astype(float), "event": np.arange(count) % 2 == 0,
    })  # fmt: skip


def test_who_is_named_for_the_test_set_is_in_it_and_nobody_else():
    splits = make_splits(people(60), folds=4, test_fraction=0.2, seed=1, given=told(60, range(20, 60)))
    assert set(splits.loc[splits["split"] == "test", "patient_id"]) == {f"P{k:03d}" for k in range(20, 60)}
    dev = splits[splits["split"] == "dev"].merge(people(60), on="patient_id")
    assert sorted(dev["fold"].unique()) == [0, 1, 2, 3] and dev.groupby("fold")["event"].any().all()


def test_folds_that_are_given_are_kept_and_numbered_from_0():
    folds = pd.Series([np.nan if k in range(5) else 10 * (k % 3) for k in range(40)])
    splits = make_splits(people(40), folds=5, test_fraction=0.2, seed=1, given=told(40, range(5), folds))
    assert [splits["fold"].iloc[k] for k in range(5)] == [-1] * 5
    assert (splits["fold"].iloc[5:] == np.arange(5, 40) % 3).all()


@pytest.mark.parametrize(
    ("named", "what"),
    [
        (["test", "train", "maybe"], "'maybe' for patient P002"),
        (["test", "train", None], "nothing for patient P002"),
        (["train", "train", "train"], "everybody is in `dev`"),
    ],
)
def test_a_split_that_says_no_side_is_refused_by_name(named, what):
    with pytest.raises(BadInput, match=what):
        read_given(pd.Series(named), None, pd.Series(["P000", "P001", "P002"]), "column `split`")


def test_a_test_set_without_an_event_is_refused():
    everyone = people(40).assign(event=lambda table: table.index >= 10)
    with pytest.raises(BadInput, match="the test set without an event"):
        make_splits(everyone, folds=3, test_fraction=0.2, seed=1, given=told(40, range(5)))


@pytest.mark.parametrize("way", ["column", "file"])
def test_a_cohort_of_ones_own_names_its_test_set_by_a_column_or_a_file(tmp_path, monkeypatch, way):
    from survpack import adapters, params, paths

    monkeypatch.setattr(paths, "RAW", tmp_path)
    folder = tmp_path / "mine"
    folder.mkdir()
    chart = (
        people(30)
        .rename(columns={"patient_id": "participant_id"})
        .assign(age=60, event=lambda t: t["event"].astype(int))
    )
    side = np.where(np.arange(30) < 12, "train", "test")
    (chart.assign(used=side) if way == "column" else chart).to_csv(folder / "participants.tsv", sep="\t", index=False)
    (folder / "participants.json").write_text('{"age": {"Units": "years"}}')
    pd.DataFrame({"patient_id": "sub-" + chart["participant_id"], "split": side}).to_csv(
        folder / "split.csv", index=False
    )
    choice = params.load()
    given = choice.splits.model_copy(update={"given": {"mine": {"column": "used", "file": "split.csv"}[way]}})
    kept = choice.cohort | {"mine": {"selection": {}}}
    cohort = adapters.load("mine", choice.model_copy(update={"splits": given, "cohort": kept}))
    cohort.save(tmp_path / "kept")
    split = type(cohort).load(tmp_path / "kept").split
    assert split["split"].tolist() == ["dev"] * 12 + ["test"] * 18
