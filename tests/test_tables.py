"""Tables against counting by hand and against lifelines."""

import re
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index

from survpack import tables
from survpack.adapters import Source
from survpack.cohort import Cohort
from survpack.params import load
from survpack.phantom.recovery import risks

DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years"},
    "tumour_grade": {"kind": "ordered", "levels": ["low", "mid", "high"]},
    "sex": {"kind": "categorical", "levels": ["female", "male"]},
}


def made(events: float = 0.5, sites: int = 2, count: int = 80, seed: int = 0) -> tuple[Cohort, pd.DataFrame]:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame({
        "patient_id": [f"p{k:02d}" for k in range(count)],
        "site": rng.choice(["north", "south"][:sites], count),
        "time_days": rng.exponential(400, count).round() + 1,
        "event": rng.random(count) < events,
        "age": rng.normal(60, 9, count),
        "tumour_grade": rng.choice(["low", "mid", "high"], count),
        "sex": rng.choice(["female", "male"], count),
    })  # fmt: skip
    table.loc[:4, "age"], table.loc[3:5, "tumour_grade"] = np.nan, None
    split = pd.DataFrame({"patient_id": table["patient_id"], "split": np.where(np.arange(count) % 4, "dev", "test")})
    split["fold"] = np.where(split["split"] == "dev", np.arange(count) % 5, -1)
    return Cohort(
        "trial", table, pd.DataFrame(), DICTIONARY, {1: "tumour"}, [{"step": "all", "remaining": count}]
    ), split


def counts(table: pd.DataFrame, column: str) -> dict[str, int]:
    """First number of each row."""
    found = table.set_index(table.columns[0])[column].astype(str).str.extract(r"^(\d+)")[0].dropna()
    return found.astype(int).to_dict()


# --- characteristics


@pytest.mark.parametrize("events", [0.15, 0.5, 0.9, 1.0])
def test_the_row_of_events_counts_the_events_however_few_they_are(events):
    cohort, split = made(events)
    table = tables.characteristics(cohort, split)
    event = cohort.participants.set_index("patient_id")["event"]
    dev = split.loc[split["split"] == "dev", "patient_id"]
    row = table[table.iloc[:, 0].str.startswith("Event")]
    assert row.iloc[:, 0].tolist() == ["Event"]
    assert row["Overall"].item() == f"{event.sum()} ({100 * event.mean():.1f})"
    assert counts(table, "Development")["Event"] == event[dev].sum()


def test_levels_and_missing_add_up_to_the_patients_of_each_column():
    cohort, split = made()
    table = tables.characteristics(cohort, split)
    sizes = {"Overall": 80, "Development": 60, "Held out": 20}
    for column, size in sizes.items():
        found = counts(table, column)
        assert found["n"] == size
        for covariate, levels in (("Site", 2), ("Tumour grade", 4), ("Sex", 2)):
            rows = [value for name, value in found.items() if name.startswith(f"{covariate}: ")]
            assert len(rows) == levels and sum(rows) == size
    for name, row in (("dev", "Development"), ("test", "Held out")):
        ids = split.loc[split["split"] == name, "patient_id"]
        grade = cohort.participants.set_index("patient_id").loc[ids, "tumour_grade"].value_counts()
        assert {level: counts(table, row)[f"Tumour grade: {level}"] for level in grade.index} == grade.to_dict()


def test_what_is_missing_is_shown_as_missing():
    table = tables.characteristics(*made()).set_index(" ")
    age = next(name for name in table.index if name.startswith("Age, years"))
    assert int(table.loc[age, "Missing"]) == 5
    assert table.loc["Tumour grade: missing", "Overall"].startswith("3 ")
    assert not any("None" in name or "nan" in name.lower() for name in table.index)


def test_levels_keep_the_order_of_the_dictionary_and_numbers_are_medians():
    cohort, split = made()
    table = tables.characteristics(cohort, split).set_index(" ")
    grades = [name.split(": ")[1] for name in table.index if name.startswith("Tumour grade")]
    assert grades == ["low", "mid", "high", "missing"]
    median, low, high = map(float, re.findall(r"[\d.]+", table.loc["Age, years, median [Q1, Q3]", "Overall"]))
    quartiles = cohort.participants["age"].quantile([0.5, 0.25, 0.75])
    np.testing.assert_allclose([median, low, high], quartiles, atol=0.051)


def test_one_site_is_not_a_row():
    table = tables.characteristics(*made(sites=1))
    assert not table.iloc[:, 0].str.startswith("Site").any()


def test_sites_stand_side_by_side_where_asked():
    cohort, split = made()
    table = tables.characteristics(cohort, split, by="site")
    sizes = cohort.participants["site"].value_counts()
    assert list(table.columns[1:]) == ["Missing", "Overall", "north", "south"]
    for site in ("north", "south"):
        own = cohort.participants[cohort.participants["site"] == site]
        assert counts(table, site)["n"] == sizes[site]
        assert counts(table, site)["Sex: female"] == (own["sex"] == "female").sum()
    assert not table.iloc[:, 0].str.startswith("Site").any()


def test_levels_and_names_read_as_words():
    cohort, split = made()
    cohort.participants["sex"] = cohort.participants["sex"].map({"female": "never_smoked", "male": "MFH"})
    dictionary = {"eGFR": {"kind": "numeric", "unit": "mL/min"}, "lesions": {"kind": "numeric", "unit": "count"},
                  "sex": {"kind": "categorical", "levels": ["never_smoked", "MFH"]}}  # fmt: skip
    participants = cohort.participants.assign(eGFR=cohort.participants["age"], lesions=1.0)
    table = tables.characteristics(replace(cohort, participants=participants, dictionary=dictionary), split)
    names = table.iloc[:, 0].tolist()
    assert {"Sex: never smoked", "Sex: MFH", "eGFR, mL/min, median [Q1, Q3]", "Lesions, median [Q1, Q3]"} <= set(names)


@pytest.mark.parametrize("by", ["split", "site"])
def test_no_small_count_is_told_where_it_is_asked(by):
    cohort, split = made()
    cohort.participants.loc[:2, "site"] = "east"  # a site of three patients
    cohort.participants.loc[10:13, "tumour_grade"] = "rarest"
    dictionary = DICTIONARY | {"tumour_grade": {"kind": "ordered", "levels": ["low", "mid", "high", "rarest"]}}
    given = replace(cohort, dictionary=dictionary)
    told, hidden = (tables.characteristics(given, split, by=by, suppress_below=below) for below in (0, 5))

    def small(table: pd.DataFrame) -> int:
        cells = table.drop(columns=[" ", "Missing"])[~table[" "].str.contains("median")]
        numbers = cells.astype(str).stack().str.extract(r"^(\d+)")[0].dropna().astype(int)
        return int(numbers.between(1, 4).sum())

    assert small(told) > 0 and small(hidden) == 0
    assert not {"rarest", "east"} & {name.split(": ")[-1] for name in [*hidden[" "], *hidden.columns]}
    assert (hidden["Missing"] == "<5").sum() == 1  # of grade; 5 lack their age
    assert counts(hidden, "Overall")["n"] == 80


def test_quantiles_of_fewer_patients_than_asked_are_their_own_values_and_hidden():
    cohort, split = made(count=20)
    cohort.participants.loc[split["split"] == "test", "age"] = [np.nan, 51.5, 52.5, np.nan, np.nan]
    table = tables.characteristics(cohort, split, suppress_below=5).set_index(" ")
    (age,) = [name for name in table.index if name.startswith("Age")]
    assert table.loc[age, "Held out"] == "*" and "[" in table.loc[age, "Development"]
    assert "[" in table.loc["Follow-up, days, median [Q1, Q3]", "Held out"]  # of five


@pytest.mark.filterwarnings("error")
def test_a_column_or_a_group_without_any_value_is_a_dash():
    cohort, split = made()
    cohort.participants.loc[split["split"] == "test", "age"] = np.nan
    cohort.participants["empty"] = np.nan
    given = replace(cohort, dictionary=DICTIONARY | {"empty": {"kind": "numeric"}})
    table = tables.characteristics(given, split).set_index(" ")
    assert table.loc["Empty, median [Q1, Q3]", ["Overall", "Development", "Held out"]].tolist() == ["–"] * 3
    age = table.loc["Age, years, median [Q1, Q3]"]
    assert age["Held out"] == "–" and "[" in age["Development"]


def test_nothing_is_hidden_where_every_count_is_large():
    cohort, split = made(count=400)
    cohort.participants["tumour_grade"] = cohort.participants["tumour_grade"].fillna("low")
    plain, asked = (tables.characteristics(cohort, split, suppress_below=below) for below in (0, 5))
    pd.testing.assert_frame_equal(plain, asked, check_dtype=False)


# --- what is missing


def test_missing_counts_covariates_and_scans_at_every_site():
    cohort, _ = made()
    ids = cohort.participants["patient_id"]
    images = pd.DataFrame({"patient_id": [*ids, *ids[:70]], "session": "0", "modality": ["t1n"] * 80 + ["t1c"] * 70})
    table = tables.missing(replace(cohort, images=images))
    whole = table[table["site"] == ""].set_index("what")
    assert whole["missing"].to_dict() == {"age": 5, "tumour_grade": 3, "t1c scan": 10}
    assert table[table["site"] != ""].groupby("what")["missing"].sum().to_dict() == whole["missing"].to_dict()
    event = cohort.participants["event"]
    assert whole.loc["age", "event_missing"] == event[:5].mean() and whole.loc["age", "event_known"] == event[5:].mean()
    text = tables.missing_text(table)
    assert text["What"].tolist() == ["Age", "Tumour grade", "T1c scan"] and text["Missing"][0] == "5 of 80 (6 %)"


def test_nothing_missing_is_an_empty_table():
    cohort, _ = made()
    table = tables.missing(replace(cohort, dictionary={"sex": DICTIONARY["sex"]}))
    assert table.empty and tables.missing_text(table).empty


# --- univariate


def biomarkers(cohort: Cohort, seed: int = 1) -> tuple[pd.DataFrame, pd.DataFrame]:
    outcome = cohort.outcome.set_index("patient_id")
    rng = np.random.default_rng(seed)
    hazard = 8 - np.log(outcome["time_days"]) + rng.normal(0, 0.7, len(outcome))
    table = pd.DataFrame({"tumour_ml": np.exp(hazard), "sphericity": rng.uniform(0.3, 0.9, len(outcome))})
    table["oedema_to_tumour"] = rng.exponential(1, len(outcome))
    table["oedema_to_tumour"] = table["oedema_to_tumour"].where(rng.random(len(outcome)) > 0.1)
    return table.set_index(outcome.index), outcome


def cox(outcome: pd.DataFrame, values, alpha: float = 0.05) -> CoxPHFitter:
    """lifelines, told to stop no earlier than rounding makes it: its default leaves an error of 1e-4."""
    frame = outcome[["time_days", "event"]].assign(x=values)
    exact = {"precision": 1e-14, "r_precision": 1e-15}
    return CoxPHFitter(alpha=alpha).fit(frame, "time_days", "event", fit_options=exact)


def test_hazard_ratios_are_those_of_lifelines_a_standard_deviation():
    table, outcome = biomarkers(made()[0])
    found = tables.univariate(table, outcome, 0.9).set_index("biomarker")
    taken = {"tumour_ml": np.log(table["tumour_ml"]), "sphericity": table["sphericity"]}
    for name, values in taken.items():
        fit = cox(outcome, values, alpha=0.1)
        spread = values.std()
        row = found.loc[name]
        assert np.log(row["hazard_ratio"]) == pytest.approx(fit.params_["x"] * spread, abs=1e-6)
        interval = fit.confidence_intervals_.loc["x"].to_numpy() * spread
        np.testing.assert_allclose(np.log(row[["low", "high"]].astype(float)), interval, rtol=0, atol=1e-6)
        assert row["p"] == pytest.approx(fit.summary.loc["x", "p"], rel=1e-4)
        direction = np.sign(fit.params_["x"])
        expected = concordance_index(outcome["time_days"], -direction * values, outcome["event"])
        assert row["concordance"] == pytest.approx(expected)


def test_the_planted_biomarker_comes_first_and_harms():
    table, outcome = biomarkers(made()[0])
    found = tables.univariate(table, outcome, 0.95)
    assert found["biomarker"].iloc[0] == "tumour_ml" and found["hazard_ratio"].iloc[0] > 1.5
    assert found["p"].is_monotonic_increasing


def test_the_unit_of_a_biomarker_does_not_matter():
    table, outcome = biomarkers(made()[0])
    scaled = table.assign(sphericity=100 * table["sphericity"] + 7)
    pd.testing.assert_frame_equal(tables.univariate(table, outcome, 0.95), tables.univariate(scaled, outcome, 0.95))


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_what_does_not_vary_or_is_always_missing_is_left_out(value):
    table, outcome = biomarkers(made()[0])
    found = tables.univariate(table.assign(flat=value), outcome, 0.95)
    assert set(found["biomarker"]) == set(table.columns)


def test_printed_hazard_ratios_round_and_a_tiny_p_is_an_inequality():
    row = {"biomarker": "tumour_ml", "hazard_ratio": 1.204, "low": 1.0, "high": 1.456, "p": 2e-6, "q": 4e-6,
           "concordance": 0.617}  # fmt: skip
    text = tables.univariate_text(pd.DataFrame([row, row | {"p": 0.0312, "q": 0.0624}]))
    assert text.iloc[0, 1:].tolist() == ["1.20 (1.00 to 1.46)", "< 0.001", "< 0.001", "0.62"]
    assert text.iloc[1, 2:4].tolist() == ["0.031", "0.062"]
    assert "_" not in text.iloc[0, 0]


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, np.inf), (0.001, 4.2), (np.nan, np.nan), (0.1, 1e6)]
)  # fmt: skip
def test_an_interval_without_an_end_is_not_estimable(low, high):
    row = {"biomarker": "x", "hazard_ratio": 0.1, "low": low, "high": high, "p": 0.9, "q": 0.9,
           "concordance": 0.6}  # fmt: skip
    assert tables.univariate_text(pd.DataFrame([row])).iloc[0, 1:].tolist() == ["not estimable", "–", "–", "0.60"]


def test_a_biomarker_that_separates_the_outcome_is_not_given_a_ratio():
    days = np.arange(1.0, 41.0)
    outcome = pd.DataFrame({"time_days": days, "event": days <= 20}, index=[f"p{k}" for k in range(40)])
    table = pd.DataFrame({"apart": (days <= 20) * 1.0}, index=outcome.index)
    assert tables.univariate_text(tables.univariate(table, outcome, 0.95)).iloc[0, 1] == "not estimable"


def test_a_biomarker_that_separates_keeps_its_concordance_and_takes_no_part_in_the_adjustment():
    days = np.arange(1.0, 41.0)
    outcome = pd.DataFrame({"time_days": days, "event": days <= 20}, index=[f"p{k}" for k in range(40)])
    rng = np.random.default_rng(2)
    table = pd.DataFrame({"apart": (days <= 20) * -1.0, "other": rng.normal(size=40)}, index=outcome.index)
    found = tables.univariate(table, outcome, 0.95).set_index("biomarker")
    assert found.loc["apart", ["hazard_ratio", "low", "high", "p", "q"]].isna().all()
    assert found.loc["apart", "concordance"] == pytest.approx(concordance_index(days, days > 20, days <= 20))
    assert found.loc["other", "q"] == found.loc["other", "p"]


@pytest.mark.parametrize("granularity", [1, 30, 150])
def test_hazard_ratios_are_those_of_lifelines_however_many_deaths_fall_on_one_day(granularity):
    rng = np.random.default_rng(granularity)
    ids = [f"p{k}" for k in range(90)]
    days = np.ceil(rng.exponential(300, 90) / granularity)
    outcome = pd.DataFrame({"time_days": days, "event": rng.random(90) < 0.7}, index=ids)
    table = pd.DataFrame(rng.normal(size=(90, 12)), ids, [f"x{k}" for k in range(12)])
    table["skewed"] = np.exp(2 * rng.normal(size=90) - 0.3 * days / days.max())
    table["rare"] = (rng.random(90) < 0.06).astype(float)
    found = tables.univariate(table, outcome, 0.95).set_index("biomarker")
    assert len(found) == 14 and found["p"].notna().all()
    for name, row in found.iterrows():
        fit = cox(outcome, (table[name] - table[name].mean()) / table[name].std())
        assert np.log(row["hazard_ratio"]) == pytest.approx(fit.params_["x"], abs=1e-6)
        assert (np.log(row["high"]) - np.log(row["hazard_ratio"])) / 1.959964 == pytest.approx(
            fit.standard_errors_["x"], rel=1e-6
        )
        assert row["p"] == pytest.approx(fit.summary.loc["x", "p"], rel=1e-5)


def test_a_cohort_without_events_has_no_hazard_ratio():
    table, outcome = biomarkers(made()[0])
    found = tables.univariate(table, outcome.assign(event=False), 0.95)
    assert len(found) == 3 and found.drop(columns="biomarker").isna().all(axis=None)


def test_an_infinite_value_counts_as_missing():
    table, outcome = biomarkers(made()[0])
    holed, infinite = table.copy(), table.copy()
    holed.iloc[3, 1], infinite.iloc[3, 1] = np.nan, np.inf
    pd.testing.assert_frame_equal(tables.univariate(holed, outcome, 0.95), tables.univariate(infinite, outcome, 0.95))


def test_q_is_benjamini_and_hochbergs_by_hand():
    rng = np.random.default_rng(4)
    table, outcome = biomarkers(made()[0])
    noise = pd.DataFrame(rng.normal(size=(len(table), 30)), table.index, [f"noise{k}" for k in range(30)])
    found = tables.univariate(table.join(noise), outcome, 0.95)
    p = found["p"].to_numpy()  # sorted already
    by_hand = [min(len(p) * p[j] / (j + 1) for j in range(k, len(p))) for k in range(len(p))]
    np.testing.assert_allclose(found["q"], by_hand)
    assert (found["q"] >= found["p"]).all() and found["q"].is_monotonic_increasing


def test_thousands_of_columns_take_seconds():
    rng = np.random.default_rng(5)
    _, outcome = biomarkers(made(count=118)[0])
    table = pd.DataFrame(rng.normal(size=(118, 2400)), outcome.index, [f"x{k}" for k in range(2400)])
    started = time.process_time()
    assert len(tables.univariate(table, outcome, 0.95)) == 2400
    assert time.process_time() - started < 10


# --- biomarkers in words


def test_lesion_biomarkers_are_told_with_unit_quartiles_and_gaps():
    table = pd.DataFrame(
        {"rim_mm": [1.0, 2.0, 3.0, np.nan], "lesions_found": [1.0, 1, 2, 9], "rad_tumour_t1c_cm_x": 1.0}
    )
    text = tables.biomarker_text(table).set_index("Biomarker")
    assert text.loc["Thickness of the enhancing rim"].tolist() == ["mm", "2.00 (1.50 to 2.50)", "1 of 4"]
    assert text["Unit"].tolist() == ["mm", "count"] and text["Missing"].tolist() == ["1 of 4", "0 of 4"]
    empty = tables.biomarker_text(table.assign(rim_mm=np.nan)).iloc[0]
    assert empty["Median (quartiles)"] == "–" and empty["Missing"] == "4 of 4"


def test_conformance_counts_and_names_what_is_not_within():
    def one(within: bool) -> dict:
        return {"feature": "", "value": 1.0, "reference": 2.0, "tolerance": 0.1, "within": within}

    found = {"digital phantom": {"cm_contrast": one(True), "stat_mean": one(True)},
             "C": {"cm_contrast": one(False), "rlm_sre": one(False), "stat_mean": one(True)}, "D": {}}  # fmt: skip
    text = tables.conformance_text(found)
    assert text.iloc[0].tolist() == ["Digital phantom", "2", "2", "100 %", "none"]
    assert text.iloc[1].tolist() == ["C", "3", "1", "33.3 %", "GLCM contrast; GLRLM short runs emphasis"]
    assert text.iloc[2].tolist() == ["D", "0", "0", "–", "none"]


def test_the_scanners_share_is_told_as_medians_by_family():
    table = pd.DataFrame({"family": ["glcm"] * 3 + ["intensity"], "before": [0.1, 0.2, 0.6, 0.5], "after": 0.01})
    assert tables.scanner_text(table).values.tolist() == [
        ["GLCM", "3", "20.0 %", "1.0 %"], ["Intensity", "1", "50.0 %", "1.0 %"], ["All", "4", "35.0 %", "1.0 %"]
    ]  # fmt: skip


def test_a_gap_of_few_patients_and_the_sites_are_not_told_where_small_counts_are_withheld():
    ids = [f"p{k:02d}" for k in range(40)]
    table = pd.DataFrame({"patient_id": ids, "site": ["a", "b"] * 20, "time_days": 9.0, "event": True})
    table["few"] = [np.nan] * 4 + [1.0] * 36
    table["many"] = [np.nan] * 12 + [1.0] * 28
    entries = {name: {"kind": "numeric"} for name in ("few", "many")}
    cohort = Cohort("c", table, pd.DataFrame(), entries, {1: "tumour"})
    assert set(tables.missing(cohort)["what"]) == {"few", "many"}
    told = tables.missing(cohort, suppress_below=5)
    assert told[["what", "site", "missing"]].values.tolist() == [["many", "", 12]]


# --- a phantom's ceiling


def planted() -> tuple[Cohort, pd.DataFrame]:
    rng = np.random.default_rng(3)
    ids = [f"p{k:03d}" for k in range(120)]
    chart = pd.DataFrame({"age": rng.normal(60, 12, 120), "karnofsky": rng.choice([60.0, 80, 100], 120),
                          "lesion_count": rng.integers(1, 7, 120).astype(float),
                          "extracranial_disease": rng.choice(["absent", "present"], 120)})  # fmt: skip
    truth = pd.DataFrame({"linear_predictor": rng.normal(0, 1.5, 120), "enhancing_ml": rng.lognormal(1, 1, 120)}, ids)
    time = rng.exponential(300 * np.exp(-truth["linear_predictor"].to_numpy()))
    table = pd.DataFrame({"patient_id": ids, "site": "a", "time_days": time + 1, "event": rng.random(120) < 0.8})
    entries = {name: {"kind": "numeric"} for name in chart if name != "extracranial_disease"}
    entries["extracranial_disease"] = {"kind": "categorical", "levels": ["absent", "present"]}
    return Cohort("mets", pd.concat([table, chart], axis=1), pd.DataFrame(), entries, {1: "tumour"}), truth


def test_the_ceiling_scores_each_ranking_as_lifelines_does():
    cohort, truth = planted()
    found = tables.ceiling(cohort.outcome, risks(cohort, truth), SimpleNamespace(params=load()))
    outcome, chart = cohort.outcome, cohort.covariates
    points = (np.select([chart["age"] >= 60, chart["age"] >= 50], [0, 0.5], 1)
              + np.select([chart["karnofsky"] < 70, chart["karnofsky"] < 90], [0, 0.5], 1)
              + np.select([chart["lesion_count"] > 3, chart["lesion_count"] > 1], [0, 0.5], 1)
              + (chart["extracranial_disease"] == "absent"))  # fmt: skip
    better = {
        "oracle": -truth["linear_predictor"],
        "gpa": points,
        "true_volume": -truth["enhancing_ml"],
    }
    assert set(found) == set(better)
    for name, values in better.items():
        expected = concordance_index(outcome["time_days"], values, outcome["event"])
        assert found[name]["harrell_c"]["estimate"] == pytest.approx(expected), name
    assert found["oracle"]["harrell_c"]["estimate"] > 0.75


def test_the_ceiling_of_a_longitudinal_phantom_tells_what_baseline_alone_can():
    cohort, truth = planted()
    truth = truth.assign(linear_predictor_baseline=0.5 * truth["linear_predictor"])
    found = tables.ceiling(cohort.outcome, risks(cohort, truth), SimpleNamespace(params=load()))
    assert found["oracle_baseline"] == found["oracle"]
    assert len(tables.ceiling_text(found)) == len(found) == 4


def test_a_coefficient_that_could_not_be_found_again_is_a_dash():
    row = {"term": "rim", "true": -0.9, "estimate": 1.1, "low": 0.6, "high": 1.5, "coverage": 0.955}
    text = tables.recovery_text(pd.DataFrame([row, row | {"estimate": np.nan, "low": np.nan, "high": np.nan}]))
    assert text.iloc[0].tolist() == ["Rim", "−0.90", "1.10 (0.60 to 1.50)", "95.5 %"]
    assert text.iloc[1, 2] == "–"


def test_shared_images_are_told_in_a_sentence():
    columns = ["patient_id", "other_patient_id"]
    assert tables.duplicates_text(pd.DataFrame(columns=columns)) == "No two patients share an image."
    assert "p1 and p7" in tables.duplicates_text(pd.DataFrame([["p1", "p7"]], columns=columns))


def test_visits_are_counted_once_whether_seen_by_image_or_by_feature():
    cohort, _ = made()
    images = pd.DataFrame(
        {"patient_id": ["p00", "p00", "p00", "p01"], "session": ["1", "1", "2", "1"], "modality": "ct"}
    )
    visits = pd.DataFrame({"patient_id": ["p00", "p02", "p02", "p02"], "session": ["2", "1", "2", "3"], "day": 0.0})
    assert tables.visit_counts(replace(cohort, images=images, visits=visits)) == {"patients": 2, "visits": 6, "most": 3}
    assert tables.visit_counts(replace(cohort, images=images.iloc[[0, 1, 3]])) == {}


# --- facts


def facts(cohort: Cohort, split: pd.DataFrame, name: str = "trial") -> dict:
    study = SimpleNamespace(name=name, params=load(), horizon_days=365.0)
    return tables.facts(study, cohort, split, Source("Trial", "https://x", "CC0", "", 80, ""))


def test_follow_up_is_the_reverse_kaplan_meier_median_of_lifelines():
    cohort, split = made(0.5)
    found = facts(cohort, split)
    time, event = cohort.participants["time_days"], cohort.participants["event"]
    reverse = KaplanMeierFitter().fit(time, 1 - event.astype(int)).median_survival_time_
    assert found["median_followup_days"] == reverse
    assert found["median_survival_days"] == KaplanMeierFitter().fit(time, event).median_survival_time_


@pytest.mark.parametrize(
    ("name", "outcome"),
    [("hecktor2022", "recurrence-free survival"), ("radcure", "overall survival"), ("mets", "overall survival"),
     ("trial", "survival")],
)  # fmt: skip
def test_the_outcome_is_the_one_the_source_tells(name, outcome):
    assert facts(*made(), name)["outcome"] == outcome


def test_facts_count_patients_and_events_of_both_sides():
    cohort, split = made(0.4)
    found = facts(cohort, split)
    assert (found["n"], found["events"]) == (80, int(cohort.participants["event"].sum()))
    assert sum(side["n"] for side in found["splits"].values()) == 80
    assert sum(side["events"] for side in found["splits"].values()) == found["events"]
    assert found["splits"]["test"]["n"] == 20 and found["splits"]["development"]["folds"] == 5
    assert sum(found["sites"].values()) == 80


def test_a_median_that_is_never_reached_is_unknown_not_infinite():
    cohort, split = made(0.05)
    assert facts(cohort, split)["median_survival_days"] is None
    cohort.participants["event"] = True  # nobody is censored: follow-up has no reverse median
    assert facts(cohort, split)["median_followup_days"] is None


# --- text


@pytest.mark.parametrize(
    "interval, digits, text",
    [
        ({"estimate": 0.678, "low": 0.551, "high": 0.79}, 2, "0.68 (0.55 to 0.79)"),
        ({"estimate": None, "low": None, "high": None}, 2, "–"),
        ({}, 2, "–"),
        ({"estimate": 0.5, "low": None, "high": None}, 2, "0.50"),
        ({"estimate": 0.5}, 2, "0.50"),
        ({"estimate": -0.5, "low": -1.25, "high": 0.25}, 1, "−0.5 (−1.2 to 0.2)"),
        ({"estimate": 120.4, "low": 99.6, "high": 150.0}, 0, "120 (100 to 150)"),
        ({"estimate": 0.0, "low": 0.0, "high": 0.0}, 2, "0.00 (0.00 to 0.00)"),
    ],
)
def test_an_interval_reads_as_text_and_an_undefined_score_as_a_dash(interval, digits, text):
    assert tables.interval_text(interval, digits) == text


@pytest.mark.parametrize("make", [lambda: tables.characteristics(*made()), lambda: _scores(), lambda: _univariate()])
def test_a_saved_table_is_a_pipe_table_beside_the_same_csv(tmp_path, make):
    table = make()
    path = tables.save(table, tmp_path, "one")
    header, rule, *rows = path.read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"\|(:?-+:?\|)+", rule)
    assert {line.count("|") for line in (header, rule, *rows)} == {table.shape[1] + 1}
    assert len(rows) == len(table)
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    csv = pd.read_csv(tmp_path / "one.csv", dtype=str, keep_default_na=False)
    assert cells == csv.map(str.strip).values.tolist()
    assert not any("_" in cell for row in [header.split("|"), *cells] for cell in row)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["one.csv", "one.md"]


def _univariate() -> pd.DataFrame:
    table, outcome = biomarkers(made()[0])
    return tables.univariate_text(tables.univariate(table, outcome, 0.95))


def _scores() -> pd.DataFrame:
    interval = {"estimate": 0.6, "low": 0.5, "high": 0.7}
    found = {"clinical-cox": dict.fromkeys(tables.METRICS, interval)}
    found["age"] = found["clinical-cox"] | {"r2": {"estimate": None}}
    return tables.scores(found, {"clinical-cox": "Clinical Cox", "age": "Age"})


def test_a_table_of_scores_has_a_row_a_model_and_every_score():
    table = _scores()
    assert table["Model"].tolist() == ["Clinical Cox", "Age"]
    assert list(table.columns[1:]) == list(tables.HEADINGS.values()) and set(tables.METRICS) == set(tables.HEADINGS)
    assert table.loc[1, "R², deaths"] == "–" and table.loc[0, "MAE, deaths"] == "1 (0 to 1)"
