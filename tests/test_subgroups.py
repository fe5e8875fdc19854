"""Scores by group of patients: a planted difference is found, a small group is never scored, charts may differ."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lifelines import KaplanMeierFitter
from matplotlib.text import Text
from sksurv.metrics import brier_score, concordance_index_censored
from sksurv.util import Surv

from survpack import subgroups
from survpack.cohort import Cohort
from survpack.figures.subgroups import subgroups as draw
from survpack.params import Inflation
from survpack.prognosis import Prognosis
from survpack.strata import strata

HORIZON = 300
KINDS = {
    "age": {"kind": "numeric", "unit": "years"},
    "sex": {"kind": "categorical", "levels": ["female", "male"]},
    "fitness": {"kind": "ordered", "levels": ["poor", "fair", "good"]},
}


def study_of(count=200, seed=0, dictionary=KINDS, test=0, bootstrap=200, **columns):
    """Exponential survival with a known hazard; the last `test` patients are held out."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=count)
    death, censored = rng.exponential(400 * np.exp(-hazard)), rng.uniform(100, 2000, count)
    chart = {
        "patient_id": [f"P{k:03d}" for k in range(count)], "site": "A",
        "time_days": np.minimum(death, censored), "event": death <= censored,
        "age": rng.uniform(40, 85, count), "sex": rng.choice(["female", "male"], count),
        "fitness": rng.choice(["poor", "fair", "good"], count),
    }  # fmt: skip
    participants = pd.DataFrame({**chart, **columns})
    volume = pd.DataFrame({"tumour_ml": np.exp(rng.normal(size=count))}, participants["patient_id"])
    rules = SimpleNamespace(patients=10, events=5)
    wider = Inflation(at_chance=1.35, none_from=0.7, repeats=1.1)
    choices = SimpleNamespace(bootstrap=bootstrap, confidence=0.95, seed=3, small_cell=rules, inflation=wider)
    return SimpleNamespace(
        cohort=Cohort("toy", participants, pd.DataFrame(), dictionary, {}), horizon_days=HORIZON, hazard=hazard,
        development=participants["patient_id"].tolist()[: count - test], params=SimpleNamespace(scores=choices),
        biomarkers=SimpleNamespace(features=volume),
    )  # fmt: skip


def prognosis_of(study, risk, rate=1 / 400):
    table = study.cohort.outcome[["patient_id"]].assign(cohort="toy", model="m", seed=0, repeat=0)
    dev = table["patient_id"].isin(study.development)
    table = table.assign(fold=np.where(dev, np.arange(len(table)) % 2, -1), split=np.where(dev, "cv", "test"))
    times = np.array([100.0, 200, HORIZON, 500])
    curves = pd.DataFrame(np.exp(-np.outer(rate * np.exp(risk), times)), columns=[f"s_{k}" for k in range(4)])
    return Prognosis(pd.concat([table.assign(risk=risk, days=300.0), curves], axis=1), times)


def row(table, variable, group, metric="harrell_c"):
    found = table[(table["variable"] == variable) & (table["group"] == group) & (table["metric"] == metric)]
    assert len(found) == 1
    return found.iloc[0]


def blind_to_men(study, seed=9):
    """The true hazard for women, noise for men."""
    noise = np.random.default_rng(seed).normal(size=len(study.hazard))
    return prognosis_of(study, np.where(study.cohort.participants["sex"] == "male", noise, study.hazard))


def test_a_model_that_is_blind_to_men_is_found_out_and_no_other_group_is_blamed():
    study = study_of(300, bootstrap=600)
    table = subgroups.by_subgroup(study, {"m": blind_to_men(study)})
    women, men = (row(table, "sex", sex) for sex in ("female", "male"))
    assert women["low"] > 0.65 and men["low"] < 0.5 < men["high"]
    assert women["difference_low"] > 0 > men["difference_high"] and women["p_adjusted"] < 0.05
    said = subgroups.reading(table, "m")
    assert "shown for Sex: female 0." in said and "Sex: male −0." in said and "Age" not in said
    printed = subgroups.text(table, "m").set_index("Group")["Harrell's C"]
    assert list(printed.index[printed.str.endswith("*")]) == ["female", "male"]


def test_what_is_predicted_for_half_of_the_men_shows_in_observed_over_expected():
    study = study_of(300, bootstrap=500)
    male = (study.cohort.participants["sex"] == "male").to_numpy()
    table = subgroups.by_subgroup(study, {"m": prognosis_of(study, study.hazard - 1.5 * male)})
    assert row(table, "sex", "male", "observed_expected")["low"] > 1.3
    women = row(table, "sex", "female", "observed_expected")
    assert women["low"] < 1 < women["high"]
    assert "shown for Sex: female" in subgroups.reading(table, "m", "observed_expected")


def test_where_no_group_differs_hardly_any_cohort_shows_one():
    wrong = 0
    for seed in range(6):
        study = study_of(200, seed)
        table = subgroups.by_subgroup(study, {"m": prognosis_of(study, study.hazard)})
        wrong += "a difference is shown for none of them" not in subgroups.reading(table, "m")
    assert wrong <= 1


def test_scores_of_a_group_are_those_of_its_patients_alone():
    study = study_of(test=30)
    prognosis = prognosis_of(study, study.hazard + np.random.default_rng(1).normal(size=200))
    table = subgroups.by_subgroup(study, {"m": prognosis})
    people = study.cohort.participants.join(prognosis.table[["risk", "fold", "s_2"]]).iloc[:170]
    women = people[people["sex"] == "female"]
    assert row(table, "sex", "female")["patients"] == len(women)
    assert row(table, "sex", "female")["events"] == women["event"].sum()
    pairs = [concordance_index_censored(one["event"], one["time_days"], one["risk"])[1:4]
             for _, one in women.groupby("fold")]  # fmt: skip
    concordant, discordant, tied = np.sum(pairs, axis=0)
    harrell = (concordant + tied / 2) / (concordant + discordant + tied)
    assert row(table, "sex", "female")["estimate"] == pytest.approx(harrell, rel=1e-9)
    structured = [Surv.from_arrays(one["event"], one["time_days"]) for one in (people, women)]
    theirs = brier_score(*structured, women[["s_2"]].to_numpy(), [HORIZON])[1][0]
    assert row(table, "sex", "female", "brier")["estimate"] == pytest.approx(theirs, rel=1e-9)
    observed = 1 - KaplanMeierFitter().fit(women["time_days"], women["event"]).predict(HORIZON)
    ratio = observed / (1 - women["s_2"]).mean()
    assert row(table, "sex", "female", "observed_expected")["estimate"] == pytest.approx(ratio, rel=1e-9)


def test_a_group_too_small_is_counted_and_never_scored_nor_set_against():
    few = np.where(np.arange(200) < 9, "male", "female")
    study = study_of(sex=few)
    table = subgroups.by_subgroup(study, {"m": prognosis_of(study, study.hazard)})
    men, women = row(table, "sex", "male"), row(table, "sex", "female")
    assert men["patients"] == 9 and not men["scored"] and np.isnan(men["estimate"])
    assert women["scored"] and np.isfinite(women["estimate"]) and np.isnan(women["difference"])
    assert "Sex: male (9 patients, " in subgroups.reading(table, "m")
    printed = subgroups.text(table, "m").set_index("Group").loc["male"]
    assert (printed[["Harrell's C", "Brier", "Observed / expected"]] == "too few to score").all()


def test_a_group_with_patients_but_few_events_is_too_small():
    study = study_of()
    participants = study.cohort.participants
    men = participants.index[participants["sex"] == "male"]
    participants.loc[men[4:], "event"] = False
    table = subgroups.by_subgroup(study, {"m": prognosis_of(study, study.hazard)})
    assert row(table, "sex", "male")["patients"] == len(men) and not row(table, "sex", "male")["scored"]


def test_a_group_whose_pairs_are_won_in_every_resample_has_no_interval_and_is_not_called_better():
    study = study_of()
    people = study.cohort.participants
    risk = np.where(people["sex"] == "male", -people["time_days"], study.hazard)
    men = row(subgroups.by_subgroup(study, {"m": prognosis_of(study, risk / 1000)}), "sex", "male")
    assert men["estimate"] == 1 and np.isnan([men["low"], men["high"], men["difference"], men["p"]]).all()


def test_two_groups_are_one_comparison_and_holm_counts_it_once():
    study = study_of()
    table = subgroups.by_subgroup(study, {"m": blind_to_men(study)})
    women, men = (row(table, "sex", sex) for sex in ("female", "male"))
    assert women["difference"] == pytest.approx(-men["difference"], rel=1e-12)
    assert women["difference_low"] == pytest.approx(-men["difference_high"], rel=1e-9)
    assert women["p"] == pytest.approx(men["p"], rel=1e-9) and men["p"] < 0.05
    own = table[table["p"].notna() & (table["group"] != "male")]
    assert (own["metric"] == "brier").sum() == 4 + 3 + 3 + 1  # bands of age, fitness, thirds, sex
    multiple = pytest.importorskip("statsmodels.stats.multitest")
    theirs = multiple.multipletests(own["p"], method="holm")[1]
    np.testing.assert_allclose(own["p_adjusted"], theirs, rtol=1e-12)
    assert row(table, "sex", "male", "brier")["p_adjusted"] == row(table, "sex", "female", "brier")["p_adjusted"]


def test_bands_of_age_begin_where_they_say_and_a_missing_age_is_a_group():
    age = np.resize([49.9, 50, 64.9, 65, 74.9, 75, 90, np.nan], 200)
    groups = strata(study_of(age=age))["age"].iloc[:8]
    assert list(groups) == ["under 50", "50–64", "50–64", "65–74", "65–74", "75 and over", "75 and over",
                            "not recorded"]  # fmt: skip


def test_small_bands_of_age_join_their_neighbours_until_all_can_be_scored():
    age = np.r_[np.full(5, 45.0), np.full(100, 55.0), np.full(92, 70.0), np.full(3, 80.0)]
    groups = strata(study_of(age=age))["age"]
    assert groups.value_counts().to_dict() == {"under 65": 105, "65 and over": 95, "not recorded": 0}
    assert "age" not in strata(study_of(age=np.full(200, 60.0)))


def test_thirds_of_volume_are_cut_on_development_patients_only():
    study = study_of(test=50)
    before = strata(study)["lesion_size"]
    assert before.value_counts().to_dict() == {**dict.fromkeys(before.cat.categories[:3], 50), "not recorded": 0}
    study.biomarkers.features.iloc[150:] *= 1000
    assert strata(study)["lesion_size"].equals(before)


def test_any_chart_will_do_even_one_that_groups_nobody():
    many = np.resize([f"level {k}" for k in range(9)], 200)
    bare = study_of(dictionary={"kind": {"kind": "categorical"}, "weight": {"kind": "numeric"}}, kind=many, weight=70.0)
    bare.biomarkers.features = pd.DataFrame(index=bare.biomarkers.features.index)
    table = subgroups.by_subgroup(bare, {"m": prognosis_of(bare, bare.hazard)})
    assert list(table["variable"].unique()) == ["all patients"] and table["difference"].isna().all()
    assert subgroups.reading(table, "m") == "Harrell's C cannot be compared between groups of patients."
    assert len(subgroups.text(table, "m")) == 1


def test_missing_levels_and_many_sites_still_put_each_patient_in_one_group():
    level = np.resize(np.array(["good", None, "poor"], object), 200)
    groups = strata(study_of(fitness=level, site=np.resize([f"S{k % 11}" for k in range(23)], 200)))
    assert list(groups["fitness"].cat.categories) == ["poor", "good", "not recorded"]  # in the dictionary's order
    assert (groups["fitness"] == "not recorded").sum() == pd.isna(level).sum()
    assert groups["site"].nunique() == 8 and "other sites" in set(groups["site"])
    assert groups.notna().all(axis=None)


def test_a_group_lost_before_the_horizon_has_no_brier_and_no_calibration():
    study = study_of(site=np.where(np.arange(200) < 60, "late", "early"))
    recent = study.cohort.participants["site"] == "late"
    short = recent & (study.cohort.participants["time_days"] > 150)
    study.cohort.participants.loc[short, ["time_days", "event"]] = [150.0, False]
    table = subgroups.by_subgroup(study, {"m": prognosis_of(study, study.hazard)})
    assert np.isfinite(row(table, "site", "late")["estimate"])
    for metric in ("brier", "observed_expected"):
        assert np.isnan(row(table, "site", "late", metric)["estimate"])
        assert np.isfinite(row(table, "site", "early", metric)["estimate"])


def test_nobody_predicted_out_of_fold_gives_an_empty_table():
    study = study_of()
    prognosis = prognosis_of(study, study.hazard)
    held = Prognosis(prognosis.table.assign(split="test"), prognosis.times)
    assert subgroups.by_subgroup(study, {"m": held}).empty and subgroups.by_subgroup(study, {}).empty


def test_the_figure_draws_each_score_where_it_is_and_no_mark_for_a_small_group():
    study = study_of(sex=np.where(np.arange(200) < 9, "male", "female"))
    table = subgroups.by_subgroup(study, {"m": prognosis_of(study, study.hazard)})
    figure = draw(table, "m")
    figure.draw_without_rendering()
    for axes, metric in zip(figure.axes, subgroups.METRICS, strict=True):
        marks = {one.get_label(): one.get_xdata()[0] for one in axes.lines if " " in one.get_label()}
        own = table[(table["metric"] == metric) & table["scored"]]
        for _, one in own.iterrows():
            if one["variable"] != "all patients":
                assert marks[f"{one['variable']} {one['group']}"] == one["estimate"]
        assert "sex male" not in marks
    written = [found.get_text() for found in figure.findobj(Text)]
    assert "female (191, " in "".join(written) and written.count("too few to score") == 1
