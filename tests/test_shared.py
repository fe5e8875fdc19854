"""Who is in two tables: the same people are found however they are written, and strangers are not merged."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import yaml

from survpack import adapters, overlap, params, shared
from survpack.checking import check_all
from survpack.checks import check_together
from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput

MANY = 100
CHART = {
    "age": {"kind": "numeric", "unit": "years"},
    "sex": {"kind": "categorical", "levels": ["f", "m"]},
}


def cohort(name="a", seed=0, ids="P{:04d}", longer=0, chart=True) -> Cohort:
    """A hundred people of a table in whole days; `longer` is for how many more days all were followed."""
    rng = np.random.default_rng(seed)
    death, lost = rng.exponential(600, MANY).clip(1).round(), rng.uniform(200, 900, MANY).round() + longer
    table = pd.DataFrame({"patient_id": [ids.format(k) for k in range(MANY)], "site": "x"})
    table["time_days"], table["event"] = np.minimum(death, lost), death <= lost
    table["age"], table["sex"] = rng.normal(65, 9, MANY).round(), rng.choice(["f", "m"], MANY)
    features = pd.DataFrame(rng.normal(size=(MANY, 6)).round(4), columns=[f"f{k}" for k in range(6)])
    features.insert(0, "patient_id", table["patient_id"])
    known = CHART if chart else {}
    table = table[["patient_id", "site", "time_days", "event", *known]]
    return Cohort(name, table, pd.DataFrame(columns=IMAGES), known, {1: "tumour"}, features=features)


def without_features(one: Cohort) -> Cohort:
    return replace(one, features=pd.DataFrame(columns=["patient_id"]))


def in_unit(one: Cohort, days: float, decimals: int) -> Cohort:
    """The outcome as it is read from months or years."""
    times = (one.participants["time_days"] / days).round(decimals) * days
    return replace(one, participants=one.participants.assign(time_days=times))


def found(one, other):
    return shared.found((one.name, other.name), (one, other), None)


def right(told) -> bool:
    """All hundred, and nobody else."""
    number = [told.table[column].str.extract(r"(\d+)$")[0].astype(int) for column in shared.PAIRS[:2]]
    return len(told.table) == MANY and (number[0] == number[1]).all() and told.unknown == ""


@pytest.mark.parametrize(("days", "decimals"), [(30.4375, 2), (30.4375, 1), (365.25, 2)])
@pytest.mark.parametrize("chart", [True, False])
def test_one_table_in_days_and_another_in_months_or_years_are_the_same_people(days, decimals, chart):
    one, other = (without_features(cohort(name, chart=chart)) for name in "ab")
    assert right(found(one, in_unit(other, days, decimals)))
    assert right(found(in_unit(other, days, decimals), one))


def test_the_same_ids_followed_for_longer_are_the_same_people():
    one, other = without_features(cohort()), without_features(cohort("b", longer=400))
    assert (one.participants["time_days"] != other.participants["time_days"]).sum() > 30
    assert right(found(one, other))


def test_a_follow_up_that_is_longer_for_everybody_is_told_by_the_chart():
    one, other = without_features(cohort()), without_features(cohort("b", longer=400))
    alive = ~one.participants["event"] & ~other.participants["event"]
    assert 10 < alive.sum() < MANY
    one, other = (replace(each, participants=each.participants[alive]) for each in (one, other))
    told = found(one, other)
    assert len(told.table) == alive.sum() and (told.table["patient_id"] == told.table["other_patient_id"]).all()


def test_identical_rows_of_features_are_one_patient_under_any_id_and_outcome():
    one, other = cohort(), cohort("b", ids="S{:03d}", longer=400)
    assert right(found(one, other)) and set(found(one, other).table["how"]) == {"the same features"}
    four = other.features.iloc[:, :5]
    assert len(_by(found(one, replace(other, features=four.assign(f0=-four["f0"]))), "the same features")) == 0
    assert len(_by(found(one, replace(other, features=other.features.round(2))), "the same features")) == 0


def test_rows_that_many_have_and_columns_with_few_values_make_nobody_one_patient():
    one, other = cohort(), cohort("b", seed=1, ids="S{:03d}")
    flags = {f"f{k}": [1.0, 0.0] * (MANY // 2) for k in range(6)}
    one, other = (replace(each, features=each.features.assign(**flags)) for each in (one, other))
    assert len(_by(found(one, other), "the same features")) == 0
    one, other = cohort(), cohort("b", seed=1, ids="S{:03d}")
    for each, row in ((one, 3), (other, 8)):
        each.features.iloc[row, 1:] = 0.0  # nothing was segmented
    assert len(_by(found(one, other), "the same features")) == 0


def _by(told, how):
    return told.table[told.table["how"] == how]


@pytest.mark.parametrize("chart", [True, False])
@pytest.mark.parametrize(("days", "decimals"), [(1, 0), (30.4375, 2), (365.25, 0)])
def test_strangers_with_the_same_numbers_are_not_merged(chart, days, decimals):
    one, other = (without_features(cohort(name, seed, chart=chart)) for name, seed in (("a", 0), ("b", 1)))
    told = found(one, in_unit(other, days, decimals))
    assert len(_by(told, "the same id")) <= 1 and told.unknown == ""


def bare(one: Cohort) -> Cohort:
    """Nothing but ids and a censored outcome: no proof, and no contradiction."""
    participants = one.participants.assign(event=False)
    return replace(without_features(one), participants=participants, dictionary={})


def test_where_most_ids_coincide_and_nothing_tells_the_design_is_refused_until_it_is_said():
    one, other = bare(cohort()), bare(cohort("b", seed=1))
    told = found(one, other)
    assert "write `overlaps: [b]` in the cohort.yaml of a" in told.unknown and len(told.table) <= 1
    assert "overlaps: [a]" in found(other, one).unknown
    said = found(replace(one, overlaps=("b",)), other)
    assert right(said)
    said = found(one, replace(other, no_overlap=("a",)))
    assert said.table.empty and said.unknown == ""
    with pytest.raises(BadInput, match="one says `overlaps` and the other `no_overlap`"):
        found(replace(one, overlaps=("b",)), replace(other, no_overlap=("a",)))


def test_people_counted_from_another_baseline_are_not_taken_for_strangers():
    one, other = (without_features(cohort(name, chart=False)) for name in "ab")
    rng = np.random.default_rng(3)
    earlier = other.participants.assign(time_days=other.participants["time_days"] + rng.uniform(30, 300, MANY))
    assert "overlaps: [b]" in found(one, replace(other, participants=earlier)).unknown


def test_check_tells_the_pairs_that_a_design_takes_out():
    none = pd.DataFrame(columns=overlap.HASHES)
    one, other = cohort(), in_unit(cohort("b", ids="S{:03d}"), 30.4375, 2)
    (finding,) = check_together(one, other, none, none)
    assert finding.severity == "error" and len(finding.patients) == MANY and "P0007 (S007 there)" in finding.patients
    one, other = bare(cohort()), bare(cohort("b", seed=1))
    findings = check_together(one, other, none, none)
    assert any("cannot be told" in each.found and "overlaps: [b]" in each.fix for each in findings)
    broken = replace(one, participants=one.participants.assign(time_days="?", event=None).iloc[[0, 0, 1]])
    check_all({"a": broken, "b": other})  # what is wrong with one is told, not raised


# --- what is said in the folder


@pytest.fixture
def folder(raw):
    for name in ("a", "b"):
        (raw / name).mkdir()
        cohort(name).participants.to_csv(raw / name / "clinical.csv", index=False)
        said = {"table": "clinical.csv", "patient_id": "patient_id", "time_days": {"column": "time_days", "unit": "days"},
                "event": {"column": "event", "codes": {"True": True, "False": False}},
                "covariates": {"age": {"column": "age", "kind": "numeric"}}}  # fmt: skip
        (raw / name / "cohort.yaml").write_text(yaml.safe_dump(said))

    def say(**keys):
        file = raw / "a" / "cohort.yaml"
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | keys))
        return adapters.load("a", params.load())

    return say


def test_a_cohort_of_ones_own_says_with_whom_it_shares_patients(folder, tmp_path):
    assert folder().overlaps == ()
    told = folder(overlaps=["b"], no_overlap=["kits"])
    told.save(tmp_path / "saved")
    read = Cohort.load(tmp_path / "saved")
    assert (read.overlaps, read.no_overlap) == (("b",), ("kits",)) == (told.overlaps, told.no_overlap)
    with pytest.raises(BadInput, match="share patients, or none, with 'bb', expected the name of a cohort"):
        folder(overlaps=["bb"])
    with pytest.raises(BadInput, match="b is among those that share patients and those that share none"):
        folder(overlaps=["b"], no_overlap=["b"])


def test_a_bids_folder_says_it_in_its_description(tmp_path):
    from survpack.adapters import bids

    assert bids.overlaps(tmp_path) == ([], [])
    (tmp_path / "dataset_description.json").write_text('{"Overlaps": ["b"], "NoOverlap": ["kits"]}')
    assert bids.overlaps(tmp_path) == (["b"], ["kits"])
    (tmp_path / "dataset_description.json").write_text('{"Overlaps": "b"}')
    with pytest.raises(BadInput, match="is no list of cohorts"):
        bids.overlaps(tmp_path)
