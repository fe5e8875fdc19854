"""Tables of many models, against counting by hand, lifelines, and each resample scored apart."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from lifelines.utils import concordance_index

from survpack import figures, tables, tables_models
from survpack.inference import resamples

MODELS = ["hybrid-film-cox", "age", "clinical-cox", "late-fusion", "somebody-elses", "volume"]


def scored(models=MODELS, seed: int = 0) -> dict:
    rng = np.random.default_rng(seed)
    found = {}
    for model in models:
        c = rng.uniform(0.5, 0.8)
        found[model] = dict.fromkeys(tables.METRICS, {"estimate": c, "low": c - 0.1, "high": c + 0.1})
        found[model]["mae_days"] = {"estimate": 1234.5, "low": None, "high": None}
    return found


def costs() -> pd.DataFrame:
    return pd.DataFrame(
        {"parameters": [np.nan, 63373.0], "seconds_a_fit": [0.04, 31.27], "samples_per_second": [np.nan, 210.0],
         "peak_memory_mb": [np.nan, 900.4]}, index=["clinical-cox", "hybrid-film-cox"])  # fmt: skip


def test_scores_by_kind_keep_every_row_with_its_model_in_the_order_of_the_headings():
    found = scored()
    plain = tables.scores(found, {model: figures.label(model) for model in found})
    table = tables_models.by_kind(plain, found)
    assert list(table["Model"]) == [figures.label(model) for model in
                                    ["age", "volume", "clinical-cox", "hybrid-film-cox", "late-fusion", "somebody-elses"]]  # fmt: skip
    assert table["Kind"].is_monotonic_increasing is False and list(dict.fromkeys(table["Kind"])) == [
        "Baseline", "Classical", "Hybrid: fusions", "Ensembles", "Other"]  # fmt: skip
    merged = table.drop(columns="Kind").merge(plain, how="outer", indicator=True)
    assert (merged["_merge"] == "both").all() and len(merged) == len(found)


def test_a_saved_table_has_bold_headings_in_its_text_and_none_in_its_csv(tmp_path):
    found = scored()
    table = tables_models.by_kind(tables.scores(found, {m: figures.label(m) for m in found}), found)
    path = tables_models.save(table, tmp_path, "scores")
    header, _, *rows = path.read_text(encoding="utf-8").splitlines()
    assert len({line.count("|") for line in (header, *rows)}) == 1
    bold = [row.split("|")[1].strip().replace("\u00a0", " ") for row in rows if "**" in row]
    assert bold == [f"**{kind}**" for kind in dict.fromkeys(table["Kind"])]
    assert len(rows) == len(found) + len(bold)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "scores.csv", dtype=str, keep_default_na=False), table)


def test_the_table_of_models_has_a_row_a_cohort_and_model_with_its_costs_where_they_are_known():
    found = {"mets": {"cv": scored(), "test": {}}, "kits": {"cv": scored(["clinical-cox"], 1), "test": {}}}
    table = tables_models.models_table(found, {"mets": costs()})
    assert len(table) == len(MODELS) + 1
    film = table.set_index(["cohort", "model"]).loc[("mets", "hybrid-film-cox")]
    given = found["mets"]["cv"]["hybrid-film-cox"]["harrell_c"]
    assert film[["harrell_c", "low", "high"]].tolist() == list(given.values())
    assert film["parameters"] == 63373 and film["seconds_a_fit"] == 31.27
    assert table[table["cohort"] == "kits"][list(tables_models.COSTS)].isna().all(axis=None)
    told = tables_models.models_text(table)
    assert list(told["Cohort"][told["Model"] == figures.label("clinical-cox")]) == ["mets", "kits"]
    row = told[told["Model"] == figures.label("hybrid-film-cox")].iloc[0]
    assert row[["Weights", "Seconds a fit", "Samples a second", "Peak memory, MB", "MAE, days"]].tolist() == [
        "63\u202f373", "31.3", "210", "900", "1\u202f234"]  # fmt: skip
    classical = told[told["Model"] == figures.label("clinical-cox")].iloc[0]
    assert classical["Weights"] == "–" and classical["Seconds a fit"] == "0.0"
    assert "Cohort" not in tables_models.models_text(table[table["cohort"] == "mets"])


def risks(patients: int = 60, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Risks that know the hazard with all scans, less without `t1c`, as much without `ct`, and nothing without both."""
    rng = np.random.default_rng(seed)
    hazard = rng.normal(size=patients)
    time = rng.exponential(300 * np.exp(-1.5 * hazard)) + 1
    outcome = pd.DataFrame({"patient_id": [f"p{k:03d}" for k in range(patients)], "time_days": time.round() + 1,
                            "event": rng.random(patients) < 0.8})  # fmt: skip
    fold = np.arange(patients) % 3
    said = {"": hazard, "t1c": hazard + 2 * rng.normal(size=patients), "ct": hazard, "pt": hazard * 2,
            "t1c+ct": rng.normal(size=patients)}  # fmt: skip
    keys = {"model": "hybrid-gated-cox", "fold": fold, "patient_id": outcome["patient_id"]}
    table = pd.concat([pd.DataFrame({**keys, "split": "cv", "risk": risk + 10 * fold, "without": name})
                       for name, risk in said.items()])  # fmt: skip
    test = table.assign(split="test", patient_id="other-" + table["patient_id"])
    return pd.concat([table, test], ignore_index=True), outcome


def test_concordance_without_a_scan_is_that_of_lifelines_within_folds(params):
    table, outcome = risks()
    found = tables_models.missing_modalities(table, outcome, params.scores).set_index("without")
    assert list(found.index) == ["", "t1c", "ct", "pt", "t1c+ct"]
    known = outcome.set_index("patient_id")
    for without, rows in table[table["split"] == "cv"].groupby("without"):
        concordant = admissible = 0.0
        for _, own in rows.groupby("fold"):
            them = known.loc[own["patient_id"]]
            time, event = them["time_days"].to_numpy(), them["event"].to_numpy()
            pairs = ((time[:, None] < time) | ((time[:, None] == time) & event[:, None] & ~event)) & event[:, None]
            concordant += concordance_index(time, -own["risk"].to_numpy(), event) * pairs.sum()
            admissible += pairs.sum()
        assert found.loc[without, "estimate"] == pytest.approx(concordant / admissible, abs=0.01)


def test_differences_are_paired_and_zero_where_the_scan_changes_no_rank(params):
    table, outcome = risks()
    found = tables_models.missing_modalities(table, outcome, params.scores).set_index("without")
    assert found.loc[["ct", "pt"], "difference"].eq(0).all()
    assert found.loc[["ct", "pt"], ["difference_low", "difference_high", "difference_p"]].isna().all(axis=None)
    assert found.loc["", ["difference", "difference_low"]].isna().all()
    worse = found.loc["t1c+ct"]
    assert worse["difference"] == pytest.approx(worse["estimate"] - found.loc["", "estimate"])
    assert worse["difference_high"] < 0  # with 60 patients, a risk that is noise is told from the hazard
    wide = worse["high"] - worse["low"] + found.loc["", "high"] - found.loc["", "low"]
    assert worse["difference_high"] - worse["difference_low"] < wide


def test_the_interval_of_a_difference_is_that_of_its_own_resamples_each_scored_apart(params):
    table, outcome = risks(24)
    choice = params.scores.model_copy(update={"bootstrap": 30})
    one = tables_models.missing_modalities(table.assign(fold=0), outcome, choice).set_index("without")
    cv = table[table["split"] == "cv"].pivot(index="patient_id", columns="without", values="risk")
    known = outcome.set_index("patient_id").loc[cv.index]
    drawn = []
    for counts in resamples(24, repeats=30, seed=choice.seed):
        rows = np.repeat(np.arange(24), counts)
        time, event = known["time_days"].to_numpy()[rows], known["event"].to_numpy()[rows]
        both = [concordance_index(time, -cv[name].to_numpy()[rows], event) for name in ("t1c", "")]
        drawn.append(both[0] - both[1])
    half = 1.96 * np.std(drawn) * choice.inflation.at(one.loc["", "estimate"])
    expected = one.loc["t1c", "difference"] + np.array([-half, half])
    np.testing.assert_allclose(one.loc["t1c", ["difference_low", "difference_high"]].astype(float), expected, atol=2e-3)


def test_the_printed_table_says_what_was_left_and_marks_what_is_found(params):
    table, outcome = risks()
    told = tables_models.missing_modalities_text(tables_models.missing_modalities(table, outcome, params.scores))
    assert told["Scans"].tolist() == ["all", "without T1c", "without CT", "without PET", "PET alone"]
    assert told["Difference from all"].iloc[0] == "–"
    marked = told["Difference from all"].str.endswith("\\*")
    assert marked.iloc[4] and not marked.iloc[2]
    assert set(told["Model"]) == {figures.label("hybrid-gated-cox")}


def test_a_cohort_of_one_modality_has_no_such_table(params):
    none = pd.DataFrame(columns=["cohort", "model", "fold", "split", "patient_id", "risk", "without"])
    table = tables_models.missing_modalities(none, risks()[1], params.scores)
    assert table.empty and tables_models.missing_modalities_text(table).empty


def test_models_near_the_truth_are_told_with_what_they_recover_and_a_constant_risk_with_a_dash():
    from survpack.phantom.oracle import Compared

    def one(c: float, image: float | None) -> Compared:
        found = {"estimate": c, "low": c - 0.1, "high": c + 0.1}
        beyond = {"estimate": image, "low": image and image - 0.1, "high": image and image + 0.1}
        agreement = pd.DataFrame([{"part": "all", **found, "oracle": 1.0}, {"part": "image", **beyond, "oracle": 0.9}])
        return Compared(pd.DataFrame(), agreement, {"recovered": found})

    table = tables_models.near_truth({"hybrid-film-cox": one(0.7, 0.4), "age": one(0.2, None), "elsewhere": None})
    assert table["Model"].tolist() == [figures.label("age"), figures.label("hybrid-film-cox")]
    assert table["Recovered"].tolist() == ["0.20 (0.10 to 0.30)", "0.70 (0.60 to 0.80)"]
    assert table["Beyond volume"].tolist() == ["–", "0.40 (0.30 to 0.50)"]
    assert tables_models.near_truth({"age": None}).empty


def effects(*collapsed) -> dict:
    names = ("hybrid-efficientnet-mse", "hybrid-compact-cox", "hybrid-film-cox")
    found = {True: (0.01, 0.0, 0.02), False: (1.1, 0.9, 1.3), None: (None, None, None)}
    return {
        name: {"image_effect": dict(zip(("estimate", "low", "high"), found[one], strict=True)), "collapsed": one}
        for name, one in zip(names, collapsed, strict=False)
    }


def test_a_collapsed_image_branch_is_told_in_words_and_in_its_row():
    told = tables_models.collapsed(effects(True, False))
    assert told.startswith("The image branch of Hybrid EfficientNet, MSE has collapsed") and "compact" not in told
    assert tables_models.collapsed(effects(True, True)).startswith("The image branches of ")
    rows = tables_models.image_effects(effects(True, False, None)).set_index("Model")["Image branch"]
    assert rows["Hybrid EfficientNet, MSE"] == "**collapsed**" and rows["Hybrid compact, Cox"] == "tells patients apart"
    assert rows["Hybrid FiLM, Cox"].startswith("not known")


def test_where_none_has_collapsed_the_networks_that_could_be_asked_are_counted():
    assert tables_models.collapsed(effects(False, False, None)) == (
        "No image branch has collapsed, of 2 networks that see an image."
    )
    assert tables_models.collapsed({}) == "" and tables_models.image_effects({}).empty
