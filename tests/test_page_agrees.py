"""The page does not contradict itself: one number a quantity, no empty table, no score of a few, words as computed.

Two cohorts known by a chart go through the notebooks that score, and through the render: one large enough, in which half
die, and one whose test set has ten patients and three events.
"""

import json
import re
import shutil
from types import SimpleNamespace

import joblib
import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from matplotlib.figure import Figure
from matplotlib.text import Text
from notebook_code import run
from sksurv.nonparametric import kaplan_meier_estimator

from survpack import (
    designs_scores,
    few,
    inference,
    longitudinal,
    metrics,
    outside,
    paths,
    render,
    study,
    tables,
    tables_models,
)
from survpack.adapters import Source
from survpack.cohort import IMAGES, Cohort
from survpack.gate import predictors
from survpack.params import SmallCell
from survpack.prognosis import Prognosis, day_at
from survpack.study import Study, fit_all
from survpack.tables import interval_text

MODELS = ["age", "clinical-cox"]
LEAST = SmallCell(patients=10, events=5)
DICTIONARY = {"age": {"kind": "numeric", "unit": "years"}, "sex": {"kind": "categorical", "levels": ["female", "male"]}}
STAGES = ["04-cross-validation", "07-follow-up", "09-transfer", "10-other-splits", "11-audit", "12-reliability"]
SOURCES = ["paper.qmd", "_cohort.qmd", "_summary.qmd", "references.bib", "paper.css", "survpack.lua"]


class Page:
    """A cohort's page, and what it was made from."""

    def __init__(self, root, patients: int, test: tuple[int, int], deaths: int):
        self.study = _studied(root, patients, test, deaths)
        with joblib.parallel_config(backend="sequential"):
            run("02-biomarkers")
            for model in MODELS:
                fit_all(self.study, model)
            self.shown = [one for stage in STAGES for one in run(stage, _told)]
        html = BeautifulSoup(render.render(["toy"]).read_text(encoding="utf-8"), "html.parser")
        self.tables = html.find_all("table")
        self.text = re.sub(r"\s+", " ", html.body.get_text())
        self.html = html

    def facts(self, name: str) -> dict:
        return json.loads(self.study.paths.facts(name).read_text())

    @property
    def scores(self) -> dict:
        return json.loads(self.study.paths.metrics.read_text())

    def row(self, table: str, model: str) -> dict:
        """A row of one of the cohort's tables, by the heads of its columns."""
        found = self.html.find(id=f"tbl-toy-{table}").table
        heads = [_plain(cell) for cell in found.select("thead th")]
        rows = [[_plain(cell) for cell in row.find_all("td")] for row in found.select("tbody tr")]
        return next(dict(zip(heads, row, strict=True)) for row in rows if row[0] == model)


def _plain(cell) -> str:
    return cell.get_text().replace("\xa0", " ").replace("\u2019", "'")


def _studied(root, patients: int, test: tuple[int, int], deaths: int) -> Study:
    """Stage 01 as if done: `deaths` among the patients, `test` of them (and of the deaths) held out."""
    rng = np.random.default_rng(3)
    age = rng.normal(60, 10, patients)
    table = pd.DataFrame({"patient_id": [f"P{k:03d}" for k in range(patients)], "site": "a"})
    table["event"] = rng.permutation(np.arange(patients) < deaths)
    life = rng.exponential(600 * np.exp(-0.4 * (age - 60) / 10)) + 5
    table["time_days"] = np.where(table["event"], np.minimum(life, 900), rng.uniform(700, 1500, patients)).round(1)
    table["age"], table["sex"] = age.round(), rng.choice(["female", "male"], patients)
    cohort = Cohort("toy", table, pd.DataFrame(columns=IMAGES), DICTIONARY, {1: "tumour"}, imaged=False).validated()
    splits = pd.DataFrame({"patient_id": table["patient_id"], "split": "dev", "fold": np.arange(patients) % 2})
    dead, alive = table.index[table["event"]], table.index[~table["event"]]
    held = [*dead[: test[1]], *alive[: test[0] - test[1]]]
    splits.loc[held, ["split", "fold"]] = ["test", -1]
    made = Study.open("toy")
    cohort.save(made.paths.cohort)
    splits.to_parquet(made.paths.cohort / "splits.parquet")
    told = tables.facts(made, cohort, splits, Source("A toy", "https://x", "CC0", "", patients, ""))
    told["flow"] = [{"step": "in the source", "excluded": 0, "remaining": patients}]
    made.save_json(made.paths.facts("cohort"), told | {"duplicates": 0})
    tables.save(tables.characteristics(cohort, splits), made.paths.tables("cohort"), "characteristics")
    return Study.open("toy")


def _told(shown):
    return "\n".join(one.get_text() for one in shown.findobj(Text)) if isinstance(shown, Figure) else shown


@pytest.fixture(scope="module", params=["large", "small"])
def page(request, tmp_path_factory, params) -> Page:
    root, real = tmp_path_factory.mktemp(request.param), paths.ROOT
    with pytest.MonkeyPatch.context() as patch:
        places = {"REPORTS": root / "reports", "METRICS": root / "reports" / "metrics", "DERIVED": root / "derived"}
        for name, place in {"ROOT": root, "PARAMS": root / "params.yaml", **places}.items():
            patch.setattr(paths, name, place)
        patch.setattr(study, "ROOT", root)
        scores = params.scores.model_copy(
            update={"bootstrap": 60, "compare": [("clinical-cox", "age")], "shown": ["age", "clinical-cox"]}
        )
        designs = params.designs.model_copy(update={"models": ["clinical-cox", "age"], "repeats": 1, "folds": 2})
        chosen = {"scores": scores, "designs": designs, "models": MODELS, "cohorts": ["toy"]}
        patch.setattr(study.params_module, "load", lambda *_: params.model_copy(update=chosen))
        patch.setattr(render, "quarto_command", lambda: None)
        patch.setattr(render, "_conformance", lambda: "Not run here.")
        (root / "reports" / "tables" / "study").mkdir(parents=True)
        (root / "reports" / "tables" / "study" / "conformance.md").write_text("| a | b |\n|:--|:--|\n| x | 1 |\n")
        for source in SOURCES:
            shutil.copy(real / "reports" / source, root / "reports" / source)
        shutil.copy(real / "params.yaml", root / "params.yaml")
        size = {"large": (90, (30, 25), 84), "small": (50, (10, 3), 14)}[request.param]
        yield Page(root, *size)


def is_small(page: Page) -> bool:
    return page.study.splits["split"].eq("test").sum() == 10


# --- the page


def test_no_table_of_the_page_is_empty(page):
    assert len(page.tables) > 8
    for table in page.tables:
        cells = [cell.get_text() for row in table.select("tbody tr") for cell in row.find_all("td")[1:]]
        assert any(character.isalnum() for cell in cells for character in cell), table.get_text()[:200]


def test_a_cohort_of_one_site_seen_once_without_images_says_so_and_shows_nothing_of_it(page):
    for name in ("combat", "sites", "lesions", "counts", "longitudinal", "audit", "transfer"):
        assert page.html.find(id=f"tbl-toy-{name}") is None
    why = page.text[page.text.index("What is not here") :]
    assert "One site left out: the development patients come from one site (a)." in why
    assert "Latest quarter left out: the chart has no dates" in why
    assert "Trained elsewhere: the study has no other cohort" in why
    assert "Nobody was seen again after baseline" in why and "there is no slice to split" in why
    assert "No encoder is learnt from other images: nobody was imaged." in why


def test_a_test_set_of_few_is_counted_and_neither_scored_nor_read(page):
    told = "not scored: 10 patients, 3 events; at least 10 patients and 10 events are needed"
    log = paths.ROOT / "data" / "readings" / "toy.jsonl"
    if is_small(page):
        assert told in page.text and page.scores["test"] == {} and page.html.find(id="tbl-toy-scores-test") is None
        assert "on the test set the same model has" not in page.text and not log.exists()
    else:
        assert told not in page.text and set(page.scores["test"]) == set(MODELS)
        assert (
            page.html.find(id="tbl-toy-scores-test") is not None and "on the test set the same model has" in page.text
        )


def test_one_concordance_of_a_model_stands_at_every_place(page):
    found = interval_text(page.scores["cv"]["clinical-cox"]["harrell_c"])
    assert (
        page.row("scores-cv", "Clinical, Cox")["Harrell's C"]
        == found
        == page.row("models", "Clinical, Cox")["Harrell's C"]
    )
    best = max(("age", "clinical-cox"), key=lambda one: page.scores["cv"][one]["harrell_c"]["estimate"])
    told = interval_text(page.scores["cv"][best]["harrell_c"])
    places = re.findall(
        r"highest (?:out-of-fold )?concordance (?:of two models )?is (?:that of “[^”]+”: )?(\d\.\d+ \([^)]*\))",
        page.text,
    )
    # without a test score the highest of several is never named
    assert places == ([] if is_small(page) else [told, told])
    assert ("It is the highest of two models, the controls left aside" in page.text) != is_small(page)


def test_age_alone_has_one_concordance_over_all_patients(page):
    told = interval_text(page.facts("univariate")["all_patients"]["age"]["harrell_c"])
    assert re.findall(
        r"Age(?: alone, on all patients,|, not fitted to anything,) has (?:a concordance of )?(\d\.\d+ \([^)]*\))",
        page.text,
    ) == [told, told]
    assert "age" not in page.facts("cohort").get("rankings", {})


def test_the_hazard_ratio_above_the_curves_is_that_of_the_table(page):
    figure = next(one for one in page.shown if "Number at risk" in str(one))
    for model, label in (("clinical-cox", "Clinical, Cox"), ("age", "Age alone")):
        row, found = page.row("groups-cv", label), page.scores["cv"][model]["hazard_ratio"]
        assert row["Hazard ratio"] == interval_text(found)
        assert f"HR {row['Hazard ratio']}" in figure and row["Log-rank, p"].removeprefix("< ") in figure


def test_days_are_scored_of_a_model_that_has_one_for_everyone_and_the_others_are_counted(page):
    prognosis = page.study.prognosis("clinical-cox").of("cv")
    without = int((prognosis.survival.min(axis=1) > 0.5).sum())  # curves that never fall to one half
    found = page.scores["cv"]["clinical-cox"]
    for name in metrics.DAYS:
        assert (found[name]["estimate"] is None) == (without > 0)
    assert page.facts("reliability")["without_day"]["clinical-cox"] == {"patients": without, "of": len(prognosis.table)}
    if without:
        assert f"Clinical, Cox ({without} of {len(prognosis.table)})" in page.text
        assert page.row("models", "Clinical, Cox")["MAE, days"] == "–"
    assert without == len(prognosis.table) if is_small(page) else True  # fourteen deaths of fifty: nobody has a median
    assert (page.html.find(id="tbl-toy-days-cv") is None) == is_small(page)


def test_pairs_are_worded_by_their_paired_difference_and_overlap_is_no_test(page):
    compared = page.facts("comparisons")
    (pair,) = compared["differences"]
    (line,) = compared["readings"]
    excludes = pair["low"] > 0 or pair["high"] < 0
    assert line.endswith(": shown") == (excludes and pair["p_adjusted"] < 0.05)
    assert line in page.text.replace("\u2019", "'")
    assert not re.search(
        r"intervals? of two models? overlap|when its interval lies above|inside its interval is not", page.text
    )
    assert "whether their own intervals overlap says nothing of that" in page.text


def test_counts_of_folds_patients_and_who_is_held_out_are_those_of_the_split(page):
    held, everyone = page.study.splits["split"].eq("test").sum(), len(page.study.splits)
    assert f"{100 * held / everyone:.0f} % of the patients are held out" in page.text
    assert "The others are split into two folds" in page.text
    assert f"the test set has {held} with" in page.text and f"{everyone} patients from one site" in page.text


def test_follow_up_is_named_for_what_it_is_where_two_medians_are_told(page):
    assert "half would have been followed for" in page.text
    assert "Follow-up is here the days to the event or to being last seen." in page.text


# --- its parts


@pytest.mark.parametrize(
    ("patients", "events", "scored"), [(10, 5, True), (9, 9, False), (10, 4, False), (300, 0, False)]
)
def test_a_set_is_scored_from_the_stated_counts_on(patients, events, scored):
    assert few.enough(np.arange(patients) < events, LEAST) == scored
    assert few.not_scored(1, 1, LEAST) == "not scored: 1 patient, 1 event; at least 10 patients and 5 events are needed"


def test_a_split_too_small_is_named_with_its_counts():
    table = pd.DataFrame(
        {"patient_id": [f"p{k}" for k in range(60)], "time_days": 9.0, "event": [True] * 33 + [False] * 27}
    )
    told = inference.unscored(table, table["patient_id"].iloc[3:53], SimpleNamespace(small_cell=LEAST))
    assert told == {"test": "not scored: 10 patients, 3 events; at least 10 patients and 5 events are needed"}


def test_a_landmark_with_few_left_has_no_score_and_is_named():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame([
        {"patient_id": f"p{k}", "landmark_days": day, "fold": 0, "split": "cv", "cohort": "toy", "time_days": 10.0 + k,
         "event": k % 2 == 0, "model": model, "risk": rng.normal()}
        for model in (longitudinal.BASELINE, "gru") for day, count in ((90.0, 30), (270.0, 6)) for k in range(count)
    ])  # fmt: skip
    again = {"repeats": 20, "confidence": 0.95, "seed": 1}
    choice = SimpleNamespace(small_cell=LEAST, resampling=lambda concordance: again)
    found = longitudinal.score(rows, choice)
    assert found.loc[found["landmark_days"] == 270, "estimate"].isna().all()
    assert found.loc[found["landmark_days"] == 90, "estimate"].notna().all()
    assert "day 270 (not scored: 6 patients, 3 events;" in longitudinal.reading(found, LEAST)


def test_a_fold_too_small_is_in_no_spread_and_in_no_test():
    rows = pd.DataFrame({"model": "clinical-cox", "design": "repeated", "source": "", "repeat": 0, "seed": 0, "fold": np.arange(12) // 6,
                         "harmonised": True, "train": 6, "patient_id": [f"p{k}" for k in range(12)]})  # fmt: skip
    outcome = pd.DataFrame({"event": True}, index=rows["patient_id"])
    chosen = SimpleNamespace(selection=SimpleNamespace(harmonise=True), scores=SimpleNamespace(small_cell=LEAST))
    found = designs_scores.by_fold(rows, SimpleNamespace(params=chosen, outcome=lambda ids: outcome.loc[list(ids)]))
    assert found["value"].isna().all() and found["n"].tolist() == [6] * len(found)
    assert designs_scores.against_reference(found).empty


def prognosis(days, survival, times=(100.0, 200.0)) -> Prognosis:
    ids = [f"p{k}" for k in range(len(days))]
    table = pd.DataFrame({"cohort": "toy", "model": "m", "seed": 0, "repeat": 0, "fold": 0, "split": "cv", "patient_id": ids,
                          "risk": -np.asarray(survival, float)[:, -1], "days": days})  # fmt: skip
    return Prognosis(table.join(pd.DataFrame(survival).add_prefix("s_")), np.array(times))


OUTCOME = pd.DataFrame({"patient_id": [f"p{k}" for k in range(4)], "time_days": [90.0, 150.0, 400.0, 190.0],
                        "event": [True, True, False, True]})  # fmt: skip
CURVES = [[0.4, 0.2], [0.8, 0.5], [0.9, 0.8], [0.6, 0.4]]


def test_a_day_that_is_but_the_end_of_the_grid_is_no_day():
    """Cox of mostly censored patients had R² −1.48 from such days; the same curves of those who have a median are scored."""
    cut = prognosis(day_at(CURVES, [100.0, 200.0], 0.5), CURVES)
    found = metrics.scores(cut, OUTCOME, OUTCOME, 100.0, metrics=[*metrics.DAYS, "harrell_c"])
    assert all(np.isnan(found[name]) for name in metrics.DAYS) and np.isfinite(found["harrell_c"])
    assert metrics.without_day(cut) == (1, 4)
    reached = [[0.4, 0.2], [0.8, 0.5], [0.9, 0.49], [0.6, 0.4]]  # the last falls to one half on the very last day
    whole = metrics.scores(prognosis(day_at(reached, [100.0, 200.0], 0.5), reached), OUTCOME, OUTCOME, 100.0)
    first, last = 100 * 0.5 / 0.6, 100 + 100 * 0.1 / 0.2  # straight lines through one half
    assert whole["mae_days"] == pytest.approx((90 - first + 200 - 150 + 190 - last) / 3)


def test_a_model_that_predicts_days_of_its_own_has_them_beyond_the_grid_and_above_one_half():
    own = metrics.scores(prognosis([80.0, 160.0, 500.0, 180.0], CURVES), OUTCOME, OUTCOME, 100.0)
    assert own["mae_days"] == pytest.approx((10 + 10 + 10) / 3) and own["r2"] > 0.9


def test_intervals_of_days_that_are_not_there_are_not_there():
    cut = prognosis(day_at(CURVES, [100.0, 200.0], 0.5), CURVES)
    again = np.random.default_rng(0).integers(0, 3, (5, 4))
    found = metrics.scores(cut, OUTCOME, OUTCOME, 100.0, counts=again, metrics=["r2", "mae_hinge"])
    assert found["r2"].shape == (5,) and np.isnan(found["r2"]).all() and np.isnan(found["mae_hinge"]).all()


def test_a_risk_without_a_curve_says_nothing_of_a_median(tmp_path):
    """An outside file of `risk` and `days`: a day on the last of the grid that only ranks is a day."""
    ids = OUTCOME["patient_id"]
    cohort = SimpleNamespace(outcome=OUTCOME)
    made = SimpleNamespace(cohort=cohort, name="toy", horizon_days=100.0, times=np.array([100.0, 190.0]))
    path = tmp_path / "theirs.csv"
    pd.DataFrame({"patient_id": ids, "risk": [4, 3, 1, 2], "days": [90, 150, 190, 190]}).to_csv(path, index=False)
    theirs = outside.read(path, made, together=True)
    assert metrics.without_day(theirs.prognosis) == (0, 4)


def test_a_kaplan_meier_curve_has_the_median_of_scikit_survival_to_a_step_or_none():
    rng = np.random.default_rng(1)
    for share in (0.9, 0.2):
        time, event = rng.exponential(300, 80), rng.uniform(size=80) < share
        days, curve = kaplan_meier_estimator(event, time)
        (day,) = day_at(curve[None], days, 0.5)
        if (curve <= 0.5).any():
            first = int((curve <= 0.5).argmax())
            assert days[first - 1] < day <= days[first]
        else:
            assert day == np.inf and metrics.without_day(prognosis([day], curve[None], days)) == (1, 1)


@pytest.mark.parametrize(
    ("table", "nothing"),
    [
        (pd.DataFrame(columns=["Site", "C"]), True),
        (pd.DataFrame({"Model": ["a", "b"], "C": ["–", "–"], "D": ["", None]}), True),
        (pd.DataFrame({"Model": ["a"], "C": ["0.5"]}), False),
        (pd.DataFrame({"What": ["one column"]}), False),
    ],
)
def test_a_table_that_says_nothing_is_not_for_the_page(table, nothing, tmp_path):
    (tmp_path / "one.md").write_text("of an earlier run")
    assert tables.save(table, tmp_path, "one").exists() != nothing
    assert (tmp_path / "one.csv").exists()


def test_a_table_of_models_without_a_score_is_not_for_the_page(tmp_path):
    nothing = tables_models.by_kind(tables.scores({}, {}, ("harrell_c",)), {})
    assert not tables_models.save(nothing, tmp_path, "scores").exists()


def test_the_gate_says_how_late_an_image_of_the_work_up_may_be():
    images = pd.DataFrame({"patient_id": ["p0", "p1"], "session": "0", "day": [0, 36], "modality": "ct"})
    cohort = SimpleNamespace(images=images, participants=OUTCOME)
    found = predictors.images_at_baseline(cohort)
    assert (
        found.verdict == "passed"
        and found.found == f"2 images used, the latest on day 36, of {predictors.LATEST} days that a work-up may take"
    )
    late = predictors.images_at_baseline(
        SimpleNamespace(images=images.assign(day=predictors.LATEST + 1), participants=OUTCOME.assign(time_days=900.0))
    )
    assert late.verdict == "failed"


def test_features_and_clusters_are_counted_once_each_under_a_name_of_its_own():
    found = {"features": 2524, "with_icc": 2442, "robust": 748, "icc_threshold": 0.75, "volume_like": 80, "volume_threshold": 0.9,
             "clustered": 751, "kept_anyway": 3, "clusters": 228, "tested": 227, "discoveries": 91}  # fmt: skip
    told = render._radiomics(found)
    assert told["robust"].startswith("748 of 2")
    assert (
        told["clusters"]
        == "751 features come so far, 3 of them lesion biomarkers that stay without being shown robust, and make 228 clusters."
    )
    assert told["discoveries"] == (
        "91 features of 227 remain below 5 %. One cluster cannot be tested, for want of variation or of a hazard ratio."
    )
    counted = tables.radiomic_facts(
        SimpleNamespace(params=SimpleNamespace(selection=SimpleNamespace(icc=0.75, correlation=0.9))),
        pd.DataFrame({"icc": [0.9, 0.8, 0.2, np.nan]}),
        SimpleNamespace(clusters=pd.DataFrame({"icc": [0.9, 0.8, 0.2]}), columns=["a", "b"], steps=[]),
        pd.Series([0.95, 0.1, 0.2, 0.3]), pd.DataFrame({"q": [0.01, np.nan]}), None,
    )  # fmt: skip
    assert (
        counted["robust"],
        counted["clustered"],
        counted["kept_anyway"],
        counted["clusters"],
        counted["tested"],
    ) == (2, 3, 1, 2, 1)


def test_the_ceiling_names_the_true_volume_and_leaves_the_measured_one_to_the_text():
    from survpack.phantom.recovery import risks

    truth = pd.DataFrame({"linear_predictor": [1.0, 2.0], "enhancing_ml": [3.0, 4.0]}, ["p0", "p1"])
    known = risks(SimpleNamespace(covariates=pd.DataFrame({"age": [50, 60]})), truth)
    assert set(known) == {"oracle", "true_volume"}
    shown = tables.ceiling_text({name: {"harrell_c": {"estimate": 0.6, "low": 0.5, "high": 0.7}} for name in known})
    assert "The true volume, by which the hazard was made" in shown.iloc[:, 0].tolist()
    summary = (paths.REPORTS / "_summary.qmd").read_text(encoding="utf-8")
    assert "Tumour volume alone, measured on the mask of all patients" in summary


def test_names_of_people_are_no_markdown():
    told = tables.pipe_table(pd.DataFrame({"Site | one": ["@north", "$a$", "two\nlines", "a|b"], "n": [1, 2, 3, 4]}))
    rows = told.splitlines()
    assert len(rows) == 6 and all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert r"\@north" in told and r"\$a\$" in told and "two lines" in told
