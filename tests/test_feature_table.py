"""A table of features with an outcome is a cohort; so are masks alone; who lacks what is needed is left out and named."""

import shutil
import warnings

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack import adapters, biomarkers, harmonise, models, params, paths, splits, tables
from survpack.adapters import bids, table
from survpack.checks import check_features
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.models import Patients
from survpack.preprocess import make_crops
from survpack.radiomics import GIVEN

MAP = """\
table: clinical.csv
patient_id: PatientID
time_days: {column: OS, unit: days}
event: {column: status, codes: {dead: true, alive: false}}
covariates:
  age: {column: Age, kind: numeric, unit: years}
features: %s
"""


@pytest.fixture
def raw(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RAW", tmp_path)
    monkeypatch.delenv("SURVPACK_DATA", raising=False)
    return tmp_path


def made(raw, asked, patients=40, count=6, beside=""):
    """A cohort `mine` whose first feature is the hazard; features stand in the table, or in the file `beside`."""
    rng = np.random.default_rng(3)
    values = rng.normal(size=(patients, count)).round(4)
    time = rng.exponential(500 * np.exp(-values[:, 0])).clip(2).round()
    chart = pd.DataFrame({
        "PatientID": [f"P{k:03d}" for k in range(patients)], "OS": time, "Age": rng.normal(64, 8, patients).round(),
        "status": np.where(rng.random(patients) < 0.7, "dead", "alive"),
    })  # fmt: skip
    columns = pd.DataFrame(values, columns=[f"original_f{k}" for k in range(count)])
    folder = raw / "mine"
    folder.mkdir()
    if beside:
        own = pd.concat([chart[["PatientID"]].rename(columns={"PatientID": "id"}), columns], axis=1).iloc[::-1]
        path = folder / beside
        getattr(own, {".csv": "to_csv", ".parquet": "to_parquet", ".xlsx": "to_excel"}[path.suffix])(path, index=False)
    else:
        chart = pd.concat([chart, columns], axis=1)
    chart.to_csv(folder / "clinical.csv", index=False)
    (folder / "cohort.yaml").write_text(MAP % asked)
    return folder, values


def patients_of(cohort: Cohort) -> Patients:
    choice = params.load()
    measured = biomarkers.extract(cohort, choice, cohort.participants["patient_id"].tolist())
    return Patients.of(cohort, measured, make_crops(cohort, choice.crops, choice.preprocess))


@pytest.mark.parametrize(
    ("asked", "beside"),
    [
        ("{prefix: original_}", ""),
        ('{pattern: "_f[0-9]+$"}', ""),
        ("{columns: [original_f0, original_f1, original_f2, original_f3, original_f4, original_f5]}", ""),
        ("{file: f.csv, patient_id: id}", "f.csv"),
        ("{file: f.parquet, patient_id: id, prefix: original_}", "f.parquet"),
        ("{file: f.xlsx, patient_id: id}", "f.xlsx"),
    ],
)
def test_features_by_list_prefix_pattern_or_file_are_the_numbers_written(raw, tmp_path, asked, beside):
    _, values = made(raw, asked, beside=beside)
    cohort = adapters.load("mine", params.load())
    assert cohort.check() == [] and not cohort.imaged
    found = cohort.features.set_index("patient_id").loc[cohort.participants["patient_id"]]
    np.testing.assert_allclose(found.to_numpy(), values)
    cohort.save(tmp_path / "kept")
    again = Cohort.load(tmp_path / "kept")
    pd.testing.assert_frame_equal(again.features, cohort.features)
    assert not again.imaged


def test_models_of_features_find_the_hazard_controls_do_not_and_image_models_say_why_they_are_not_there(raw):
    from survpack.metrics import concordance

    made(raw, "{prefix: original_}", patients=300)
    patients, choice = patients_of(adapters.load("mine", params.load())), params.load()
    assert list(patients.biomarkers) == [f"{GIVEN}original_f{k}" for k in range(6)]
    train, held = (patients.take(list(ids)) for ids in np.array_split(patients.outcome.index, [200])[:2])
    outcome, score = (held.outcome["time_days"].to_numpy(), held.outcome["event"].to_numpy()), {}
    for name in ("radiomics-coxnet", "control-noise-voxels", "control-shuffled-labels"):
        risk = models.build(name, choice).fit(train, name).predict(held, np.array([100.0, 300.0])).risk
        score[name] = concordance(*outcome, risk)
    assert score.pop("radiomics-coxnet") > 0.7 and all(abs(each - 0.5) < 0.12 for each in score.values()), score
    for name in models.MODELS:
        told = models.lacking(name, patients)
        if any(each in name for each in ("image", "hybrid", "lesion", "fusion", "texture", "volume")):
            assert told.startswith(f"{name} needs") and "\n" not in told
        elif name not in ("gpa", "control-shuffled-voxels"):
            assert told == ""


def test_thousands_of_columns_are_read_without_a_warning_and_quickly_enough_for_a_test(raw):
    made(raw, "{prefix: original_}", patients=60, count=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.PerformanceWarning)
        cohort = adapters.load("mine", params.load())
        assert cohort.check() == [] and cohort.features.shape == (60, 4097)
        assert patients_of(cohort).biomarkers.shape == (60, 4096)


def test_hundreds_of_covariates_raise_no_warning_of_pandas(raw):
    folder, _ = made(raw, "{prefix: original_}", count=190)
    text = (folder / "cohort.yaml").read_text().split("features:")[0]
    text += "".join(f"  f{k}: {{column: original_f{k}, kind: numeric}}\n" for k in range(190))
    (folder / "cohort.yaml").write_text(text)
    with warnings.catch_warnings():
        warnings.simplefilter("error", pd.errors.PerformanceWarning)
        cohort = adapters.load("mine", params.load())
        assert cohort.check() == [] and len(cohort.dictionary) == 191


@pytest.mark.parametrize(
    ("asked", "spoil", "told"),
    [
        ("{prefix: wavelet_}", None, "no column begins with or matches"),
        ("{columns: [absent]}", None, "no column absent"),
        ("{}", None, "features names no columns"),
        ('{pattern: "("}', None, "is no pattern"),
        ("{columns: [OS]}", None, "used as id, outcome or covariate"),
        ("{prefix: original_}", lambda table: table.assign(original_f2="1.2.3"), "`original_f2`.*no number in row 1"),
        ("{prefix: original_}", lambda table: table.assign(original_f2=np.inf), "`original_f2`.*no number"),
        ("{file: f.csv}", None, "f.csv not found"),
        ("{columns: [patient_id]}", lambda table: table.assign(patient_id=1), "`patient_id` would be a feature"),
    ],
)
def test_features_that_cannot_be_read_are_told_in_one_sentence(raw, asked, spoil, told):
    folder, _ = made(raw, asked)
    if spoil:
        spoil(pd.read_csv(folder / "clinical.csv")).to_csv(folder / "clinical.csv", index=False)
    with pytest.raises(BadInput, match=told) as error:
        adapters.load("mine", params.load())
    assert "\n" not in str(error.value) and str(error.value).endswith(".")


def test_a_site_that_is_not_told_is_missing_and_every_reader_stands_it(raw):
    folder, _ = made(raw, "{prefix: original_}")
    chart = pd.read_csv(folder / "clinical.csv").assign(Hospital=["north", "south", "", "Unknown", "n/a"] * 8)
    chart.to_csv(folder / "clinical.csv", index=False)
    (folder / "cohort.yaml").write_text((folder / "cohort.yaml").read_text() + "site: Hospital\n")
    cohort = adapters.load("mine", params.load())
    site = cohort.participants["site"]
    assert site.value_counts().to_dict() == {"north": 8, "south": 8} and site.isna().sum() == 24
    (finding,) = cohort.check()
    assert finding.severity == "warning" and len(finding.patients) == 24
    dealt = splits.make_splits(cohort.outcome, folds=3, test_fraction=0.2, seed=1)
    assert len(dealt) == 40 and tables.characteristics(cohort, dealt)[" "].str.startswith("Site").sum() == 3
    measured = biomarkers.extract(cohort, params.load(), dealt["patient_id"].tolist()).features
    sites = site.set_axis(measured.index)
    combat = harmonise.Combat().fit(measured, sites)
    changed = (combat.transform(measured, sites) != measured).any(axis=1)
    assert combat.sites == ["north", "south"] and changed[sites.notna()].all() and not changed[sites.isna()].any()


def test_features_that_know_the_outcome_are_told_by_name_and_by_value(raw):
    folder, _ = made(raw, "{columns: [PFS, Dead, survival_months, original_f0, original_f1]}")
    chart = pd.read_csv(folder / "clinical.csv")
    rng = np.random.default_rng(5)
    chart["survival_months"] = chart["OS"] / 30.4375
    chart["Dead"] = (chart["status"] == "dead").astype(int)
    chart.assign(PFS=rng.normal(size=40)).to_csv(folder / "clinical.csv", index=False)
    time, event, name = adapters.load("mine", params.load()).check()
    assert time.severity == "error" and time.found.startswith(
        "feature `survival_months` ranks survival almost perfectly"
    )
    assert event.severity == "error" and event.found == "feature `Dead` is `event` in other words"
    assert name.severity == "warning" and name.found == "feature `PFS` is named like an outcome or the time to one"


def test_thousands_of_features_that_know_nothing_are_called_no_leak_and_one_that_does_is_found_quickly():
    from time import process_time

    rng = np.random.default_rng(7)
    patients = [f"p{k}" for k in range(120)]
    time, censored = rng.exponential(600, 120).round() + 1, rng.uniform(200, 1800, 120).round()
    chart = pd.DataFrame({"patient_id": patients, "time_days": np.minimum(time, censored), "event": time <= censored})
    values = rng.normal(size=(120, 4096)) * np.exp(rng.normal(2, 3, 4096))
    values[:, :500] = rng.integers(0, 3, (120, 500))
    features = pd.DataFrame(values).add_prefix("f").assign(patient_id=patients)
    began = process_time()
    assert check_features(features, chart, "clinical.csv") == [] and process_time() - began < 30
    (one,) = check_features(features.assign(f9=chart["time_days"] + rng.normal(0, 0.2, 120)), chart, "clinical.csv")
    assert one.severity == "error" and one.found.startswith("feature `f9` ranks survival")


def test_no_pattern_makes_a_feature_of_the_outcome_the_id_or_a_covariate(raw):
    for asked, beside in (('{pattern: "."}', ""), ("{prefix: O, pattern: original}", ""), ("{file: f.csv}", "f.csv")):
        folder, _ = made(raw, asked, beside=beside)
        if beside:  # the whole table once more, as an export of everything would be
            own = pd.read_csv(folder / "f.csv").rename(columns={"id": "PatientID"})
            own.merge(pd.read_csv(folder / "clinical.csv")).to_csv(folder / "f.csv", index=False)
        cohort = adapters.load("mine", params.load())
        assert list(cohort.features) == ["patient_id", *(f"original_f{k}" for k in range(6))], asked
        shutil.rmtree(folder)


@pytest.mark.parametrize("beside", ["", "f.csv", "f.xlsx"])
def test_a_column_that_is_there_twice_is_refused_wherever_it_stands(raw, beside):
    """pandas reads the second under another name, and the map then means the first."""
    asked = f"{{file: {beside}, patient_id: id}}" if beside else "{prefix: original_}"
    folder, _ = made(raw, asked, beside=beside)
    path = folder / (beside or "clinical.csv")
    write, read = ("to_excel", pd.read_excel) if beside.endswith("xlsx") else ("to_csv", pd.read_csv)
    whole = read(path)
    getattr(pd.concat([whole, whole[["original_f2"]] + 1], axis=1), write)(path, index=False)
    with pytest.raises(BadInput, match="column `original_f2` is there twice, expected it once; drop one"):
        adapters.load("mine", params.load())
    if not beside:
        pd.concat([whole, whole[["OS"]] + 1], axis=1).to_csv(path, index=False)
        with pytest.raises(BadInput, match="column `OS` is there twice"):
            adapters.load("mine", params.load())


@pytest.mark.parametrize("beside", ["f.csv", "f.parquet"])
def test_ids_that_are_numbers_match_however_the_file_stores_them(raw, beside):
    folder, values = made(raw, f"{{file: {beside}, patient_id: id}}", beside=beside)
    chart = pd.read_csv(folder / "clinical.csv")
    chart.assign(PatientID=range(100, 140)).to_csv(folder / "clinical.csv", index=False)
    own = pd.DataFrame(values, columns=[f"original_f{k}" for k in range(6)])
    own.insert(0, "id", np.arange(100.0, 140.0))  # floats, as beside a missing one
    own = pd.concat([own, own.tail(1).assign(id=np.nan)])
    own.to_parquet(folder / beside) if beside == "f.parquet" else own.astype({"id": "Int64"}).to_csv(
        folder / beside, index=False
    )
    cohort = adapters.load("mine", params.load())
    found = cohort.features.set_index("patient_id").loc[cohort.participants["patient_id"]]
    np.testing.assert_allclose(found.to_numpy(), values)


ODD = [
    "glcm [mean] / ratio",
    "a/b",
    "x$y$z",
    "p|q",
    "50%",
    "<b>bold</b>",
    "naïve µm²",
    "{curly}",
    "back\\slash",
    "a,b",
    "*s*",
]


def test_odd_names_a_column_of_one_value_and_missing_values_are_read_and_drawn(raw, tmp_path):
    from survpack import figures, selection, tables

    folder, values = made(raw, "{file: f.csv}", count=len(ODD), patients=90)
    rng = np.random.default_rng(4)
    own = pd.DataFrame(values, columns=ODD).assign(constant=3.0)
    gone = rng.random(90) < 0.1
    own.loc[gone, "a/b"] = np.nan
    ids = pd.read_csv(folder / "clinical.csv")["PatientID"]
    own.assign(PatientID=ids).to_csv(folder / "f.csv", index=False)
    cohort = adapters.load("mine", params.load())
    assert list(cohort.features)[1:] == [*ODD, "constant"] and cohort.check() == []
    assert cohort.features["a/b"].isna().sum() == gone.sum() > 0
    patients, choice = patients_of(cohort), params.load()
    train, held = (patients.take(list(ids)) for ids in (patients.outcome.index[:60], patients.outcome.index[60:]))
    risk = models.build("radiomics-coxnet", choice).fit(train, "odd").predict(held, np.array([300.0])).risk
    assert np.isfinite(risk).all()
    chosen = selection.Selection(choice.selection).fit(train.biomarkers, train.outcome["site"], train.perturbed)
    assert f"{GIVEN}constant" not in chosen.columns and len(chosen.columns) == len(ODD)
    alone = tables.univariate(train.biomarkers[chosen.columns], train.outcome, 0.95)
    figures.save(figures.univariate_forest(alone), tmp_path, "forest", alone)
    told = tables.univariate_text(alone)
    tables.save(told, tmp_path, "alone")
    assert "p\\|q" in " ".join(pd.read_csv(tmp_path / "alone.csv")["Biomarker"]).replace("|", "\\|")
    rows = (tmp_path / "alone.md").read_text().splitlines()
    assert len({row.replace("\\|", "").count("|") for row in rows if row.startswith("|")}) == 1  # no name breaks a row
    assert (tmp_path / "forest.svg").exists()


def test_a_feature_that_others_call_a_volume_is_not_taken_as_a_logarithm(raw):
    """Theirs may be negative, as of a z-score or a change; ours never are."""
    from survpack import tables

    folder, _ = made(raw, "{prefix: original_}", patients=200)
    chart = pd.read_csv(folder / "clinical.csv").rename(columns={"original_f0": "original_change_ml"})
    chart.to_csv(folder / "clinical.csv", index=False)
    patients = patients_of(adapters.load("mine", params.load()))
    named, name = patients.biomarkers, f"{GIVEN}original_change_ml"
    other = named.rename(columns={name: f"{GIVEN}original_change"})
    ours, theirs = (
        tables.univariate(one, patients.outcome, 0.95).iloc[0][["hazard_ratio", "concordance"]].astype(float)
        for one in (named, other)
    )
    pd.testing.assert_series_equal(ours, theirs)
    inputs = [models.prepare_table(one, {}).fit_transform(one) for one in (named[[name]], other.iloc[:, :1])]
    np.testing.assert_allclose(*inputs)


def test_a_stage_of_a_model_that_a_table_cannot_have_writes_what_it_promises_without_a_kernel(
    raw, tmp_path, monkeypatch
):
    import papermill

    from survpack import pipeline, repro, splits
    from survpack.prognosis import Prognosis
    from survpack.study import Study

    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("a kernel was started"))
    monkeypatch.setattr(paths, "DERIVED", tmp_path / "derived")
    monkeypatch.setattr(paths, "REPORTS", tmp_path / "reports")
    made(raw, "{prefix: original_}")
    own, choice = paths.CohortPaths("mine"), params.load()
    cohort = adapters.load("mine", choice)
    cohort.save(own.cohort)
    asked = choice.splits.model_dump(exclude={"given"})
    splits.make_splits(cohort.outcome, **asked).to_parquet(own.cohort / "splits.parquet")
    biomarkers.extract(cohort, choice, []).save(own.biomarkers)
    make_crops(cohort, choice.crops, choice.preprocess).save(own.crops)
    for model in ("hybrid-vit-cox", "volume", "gpa"):
        kept = pipeline.run_notebook("03-training", "mine", model)
        assert f"Not fitted: {model} needs" in kept.read_text()
        assert Prognosis.load(own.predictions(model)).table.empty
        assert (own.model(model) / "costs.json").exists() and own.figures(f"training-{model}").is_dir()
    assert not pipeline.without_fit("mine", "radiomics-coxnet")  # which is fitted in its notebook
    (own.executed / "03-training-volume.ipynb").unlink()
    for model, done in (("volume", True), ("radiomics-coxnet", False)):  # by DVC's own process too, without another
        assert repro._without_fit(f"python -m survpack run 03-training --cohort mine --model {model}") is done
    assert (own.executed / "03-training-volume.ipynb").exists()
    for command in ("python -m survpack run 02-biomarkers --cohort mine", "python -m survpack render"):
        assert repro._without_fit(command) is False
    found = Study.open("mine").left_out()
    assert sorted(name for one in found for name in one["models"]) == ["gpa", "hybrid-vit-cox", "volume"]
    line = models.left_out_text(found)
    assert "\n" not in line and line.startswith("Not fitted: ") and line.endswith(".") and line.count("needs") == 3
    assert models.left_out_text([]) == ""


def test_thousands_of_features_correlate_as_pandas_says_and_quickly():
    from time import process_time

    from survpack.selection import correlations

    rng = np.random.default_rng(6)
    few = pd.DataFrame(rng.integers(0, 9, size=(60, 30)).astype(float))
    pd.testing.assert_frame_equal(correlations(few), few.corr(method="spearman"), check_names=False)
    few = few.mask(rng.random(few.shape) < 0.1)
    assert correlations(few).notna().all(axis=None)
    many = pd.DataFrame(rng.normal(size=(400, 4096)))
    began = process_time()
    assert correlations(many).shape == (4096, 4096) and process_time() - began < 20


@pytest.mark.parametrize("values", [pd.date_range("2020-01-01", periods=40), pd.to_timedelta(np.arange(40), "D")])
def test_dates_and_durations_in_a_file_are_no_features(raw, values):
    folder, _ = made(raw, "{file: f.parquet, patient_id: id}", beside="f.parquet")
    pd.read_parquet(folder / "f.parquet").assign(scanned=values).to_parquet(folder / "f.parquet")
    with pytest.raises(BadInput, match="column `scanned` .* has what is no number in row 1"):
        adapters.load("mine", params.load())


def test_a_patient_id_beside_the_column_of_ids_is_no_feature(raw):
    folder, _ = made(raw, "{file: f.csv, patient_id: id}", beside="f.csv")
    pd.read_csv(folder / "f.csv").assign(patient_id=range(40)).to_csv(folder / "f.csv", index=False)
    with pytest.raises(BadInput, match="f.csv: column `patient_id` would be a feature"):
        adapters.load("mine", params.load())


def test_what_nobody_has_is_in_no_control_either(raw):
    folder, _ = made(raw, "{prefix: original_}")
    pd.read_csv(folder / "clinical.csv").assign(original_m="").to_csv(folder / "clinical.csv", index=False)
    cohort = adapters.load("mine", params.load())
    measured = biomarkers.extract(cohort, params.load(), cohort.participants["patient_id"].tolist())
    assert list(measured.features) == list(measured.noise) == [f"{GIVEN}original_f{k}" for k in range(6)]


def test_zeros_lost_from_most_ids_are_told_and_a_table_without_images_is_not_asked_for_a_mask(raw):
    folder, _ = made(raw, "{file: f.csv, patient_id: id}", beside="f.csv")
    own = pd.read_csv(folder / "f.csv").sort_values("id")
    own.assign(id=[f"P{k:02d}" if k < 30 else f"P{k:03d}" for k in range(40)]).to_csv(folder / "f.csv", index=False)
    with pytest.raises(BadInput, match=r"30 of 40 ids are not in clinical.csv \(P00 is P000 in the table\)"):
        adapters.load("mine", params.load())
    own.iloc[:35].to_csv(folder / "f.csv", index=False)
    (finding,) = adapters.load("mine", params.load()).check()
    assert len(finding.patients) == 5 and finding.expected == "features of each patient" and "mask" not in finding.fix


@pytest.mark.parametrize("beside", ["", "f.csv", "f.xlsx"])
def test_unnamed_empty_columns_and_empty_rows_of_a_spreadsheet_are_left_out(raw, beside):
    folder, values = made(
        raw, f"{{file: {beside}, patient_id: id}}" if beside else "{prefix: original_}", beside=beside
    )
    for path in [folder / "clinical.csv", *([folder / beside] if beside else [])]:
        if path.suffix == ".xlsx":
            pd.concat([pd.read_excel(path).assign(**{" ": None, "": None}), pd.DataFrame([{"id": None}])]).to_excel(
                path, index=False
            )
            continue
        lines = path.read_text().splitlines()
        none = "," * (lines[0].count(",") + 3)
        path.write_text("\n".join([lines[0] + ", ,,", *(line + ",,," for line in lines[1:]), none, " " + none]) + "\n")
    cohort = adapters.load("mine", params.load())
    assert cohort.check() == [] and cohort.features.shape == (40, 7)
    assert (cohort.features.sort_values("patient_id").iloc[:, 1:].to_numpy() == values).all()


def test_a_patient_twice_or_ids_of_others_in_the_file_of_features_are_refused(raw):
    folder, _ = made(raw, "{file: f.csv, patient_id: id}", beside="f.csv")
    whole = pd.read_csv(folder / "f.csv")
    pd.concat([whole, whole.iloc[[3]]]).to_csv(folder / "f.csv", index=False)
    with pytest.raises(BadInput, match="has several rows, expected one a patient"):
        adapters.load("mine", params.load())
    whole.assign(id=whole["id"].str.replace("P0", "P000")).to_csv(folder / "f.csv", index=False)
    with pytest.raises(BadInput, match="features of nobody in clinical.csv .*P00039 is P039 in the table"):
        table.features(folder)


def test_who_lacks_features_or_a_mask_is_left_out_counted_and_named(raw, capsys):
    from survpack.__main__ import main

    folder, _ = made(raw, "{file: f.csv, patient_id: id}", beside="f.csv")
    whole = pd.read_csv(folder / "f.csv")
    whole[~whole["id"].isin(["P003", "P007"])].to_csv(folder / "f.csv", index=False)
    cohort = adapters.load("mine", params.load())
    assert len(cohort.participants) == 38 and cohort.flow[-1]["patients"] == ["P003", "P007"]
    assert main(["check", "mine"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert "P003, P007" in line and "2 of 40" in line


def masked(folder, patients):
    """A BIDS folder of masks alone."""
    folder.mkdir(parents=True)
    for k in range(patients):
        path = folder / f"sub-{k:02d}/anat/sub-{k:02d}_dseg.nii.gz"
        path.parent.mkdir(parents=True)
        ball = np.zeros((12, 12, 12), np.uint8)
        ball[3 : 5 + k, 4:8, 4:9] = 1
        nib.save(nib.Nifti1Image(ball, np.eye(4)), path)
    chart = pd.DataFrame(
        {"participant_id": [f"sub-{k:02d}" for k in range(patients)], "time_days": 100 + np.arange(patients)}
    )
    chart.assign(event=np.arange(patients) % 2).to_csv(folder / "participants.tsv", sep="\t", index=False)
    (folder / "participants.json").write_text("{}")


def test_masks_alone_in_a_bids_folder_are_a_cohort_as_by_the_table(raw):
    masked(raw / "alone", 6)
    folder = raw / "mapped"
    folder.mkdir()
    chart = pd.read_csv(raw / "alone/participants.tsv", sep="\t")
    chart.to_csv(folder / "clinical.csv", index=False)
    (folder / "cohort.yaml").write_text(
        "table: clinical.csv\npatient_id: participant_id\ntime_days: {column: time_days, unit: days}\n"
        "event: {column: event, codes: {1: true, 0: false}}\n"
        'images: {mask: {mask: "../alone/{participant_id}/anat/{participant_id}_dseg.nii.gz"}}\n'
    )
    one, other = (adapters.load(name, params.load()) for name in ("alone", "mapped"))
    assert one.modalities == other.modalities == ["mask"] and (one.images["path"] == "").all()
    errors = [each for each in one.check() if each.severity == "error"]
    assert errors == [] and len(one.participants) == len(other.participants) == 6
    ours, theirs = (biomarkers.extract(each, params.load(), []).features for each in (one, other))
    pd.testing.assert_frame_equal(ours, theirs)


def test_a_mask_without_its_image_where_others_have_one_is_no_image(raw):
    masked(raw / "some", 6)
    for k in range(5):
        values = np.random.default_rng(k).normal(size=(12, 12, 12)).astype(np.float32)
        nib.save(nib.Nifti1Image(values, np.eye(4)), raw / f"some/sub-{k:02d}/anat/sub-{k:02d}_T1w.nii.gz")
    assert bids.discover(raw / "some")["patient_id"].nunique() == 5
    cohort = adapters.load("some", params.load())
    assert cohort.flow[-1]["patients"] == ["sub-05"]
