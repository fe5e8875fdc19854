"""Folders with one thing wrong each: what `python -m survpack check` must find.

`python tests/broken.py` makes them all and prints the transcripts; `FAULTS` has what each sentence must name.
"""

import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from survpack import paths, template
from survpack.adapters import bids

PATIENTS = 30
FAULTS: dict[str, tuple] = {}  # name to (what spoils the folder, kind of folder, severity, words of the sentence)
DICTIONARY = {
    "age": {"kind": "numeric", "unit": "years"},
    "marker": {"kind": "numeric", "unit": "ng/mL"},
    "sex": {"kind": "categorical", "levels": ["female", "male"]},
    "grade": {"kind": "ordered", "levels": ["low", "high"]},
}
SHAPE, BOX = (9, 10, 11), (slice(2, 6), slice(3, 7), slice(1, 7))


def sound(folder: Path) -> Path:
    """A BIDS folder of 30 patients in which nothing is wrong."""
    rng = np.random.default_rng(5)
    event = np.arange(PATIENTS) % 5 > 1
    table = pd.DataFrame({
        "patient_id": [f"sub-{k + 1:03d}" for k in range(PATIENTS)],
        "site": np.where(np.arange(PATIENTS) < 15, "north", "south"),
        "time_days": np.where(event, rng.integers(80, 700, PATIENTS), rng.integers(300, 1500, PATIENTS)),
        "event": event,
        "age": rng.integers(35, 85, PATIENTS),
        "marker": rng.normal(5, 1, PATIENTS).round(2),
        "sex": rng.choice(["female", "male"], PATIENTS),
        "grade": rng.choice(["low", "high"], PATIENTS),
    })  # fmt: skip
    folder.mkdir(parents=True)
    bids.write_tables(folder, table, DICTIONARY, {1: "tumour", 2: "oedema"}, {"Name": "sound"})
    for patient in table["patient_id"]:
        scan, mask = rng.integers(-900, 900, SHAPE).astype(np.int16), np.zeros(SHAPE, np.uint8)
        mask[BOX] = rng.integers(0, 2, mask[BOX].shape)
        _save(bids.image_path(folder, patient, "ct"), scan)
        _save(bids.image_path(folder, patient, "mask"), mask)
    return folder


def sound_table(folder: Path) -> Path:
    """A table with its column map and two patients."""
    raw, paths.RAW = paths.RAW, folder.parent
    try:
        template.new(folder.name, table=True)
    finally:
        paths.RAW = raw
    for patient in ("example1", "example2"):
        (folder / "scans" / patient).rename(folder / "scans" / patient.replace("example", "P"))
    _replace(folder / "clinical.csv", "example", "P")
    return folder


def broken_folders(root: Path) -> dict[str, Path]:
    """Each fault in a folder of its own below `root`."""
    kinds = {"bids": sound(root / "sound"), "table": sound_table(root / "sound-table")}
    return {name: spoilt(name, kinds, root) for name in FAULTS}


def spoilt(name: str, kinds: dict[str, Path], root: Path) -> Path:
    """A copy of the sound folder of its kind, with this fault."""
    spoil, kind, *_ = FAULTS[name]
    shutil.copytree(kinds[kind], root / name)
    spoil(root / name)
    return root / name


def fault(severity: str, *words: str, kind: str = "bids"):
    """Register what spoils a folder, by the function's name."""

    def registered(spoil):
        FAULTS[spoil.__name__] = (spoil, kind, severity, words)
        return spoil

    return registered


def _save(path: Path, values, affine=None, spoil=lambda image: None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(values, np.diag([3.0, 3.0, 3.0, 1.0]) if affine is None else affine)
    spoil(image)
    nib.save(image, path)


def _resave(folder: Path, what: str, change=lambda values: values, affine=None, spoil=lambda image: None) -> None:
    """Patient sub-002's image or mask, changed."""
    path = bids.image_path(folder, "sub-002", what)
    image = nib.load(path)
    _save(path, change(np.asarray(image.dataobj)), image.affine if affine is None else affine(image.affine), spoil)


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text, f"{path} has no {old}"
    path.write_text(text.replace(old, new))


def _edit(folder: Path, change) -> None:
    path = folder / "participants.tsv"
    table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    changed = change(table)
    (table if changed is None else changed).to_csv(path, sep="\t", index=False)


def _cell(folder: Path, column: str, value: str, rows=(1,)) -> None:
    _edit(folder, lambda table: table.__setitem__(column, table[column].mask(table.index.isin(rows), value)))


def _column(folder: Path, name: str, make, **described) -> None:
    """A covariate of its own, from time and event."""
    _edit(folder, lambda table: table.assign(**{name: make(table["time_days"].astype(float), table["event"] == "1")}))
    path = folder / "participants.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: described or {"Units": "units"}}))


# --- ids


@fault("error", "participants.tsv", "sub-004", "more than once", "keep the baseline row")
def patient_twice(folder):
    _edit(folder, lambda table: pd.concat([table, table.iloc[[3]]]))


@fault("error", "sub-002", "no such row", "sub-0001", "write the ids alike")
def id_width(folder):
    _edit(folder, lambda table: table.assign(participant_id=table["participant_id"].str.replace("sub-", "sub-0")))


@fault("warning", "sub-002, sub-02", "only in zeros", "if they are one patient, keep one row")
def two_widths_in_one_table(folder):
    _rename(folder, "sub-003", "sub-02")


@fault("warning", "sub-002a, sub-002b", "last letter", "lesions or scans of one patient")
def lesions_as_patients(folder):
    _rename(folder, "sub-002", "sub-002a")
    _rename(folder, "sub-003", "sub-002b")


@fault("error", "participants.tsv", "no id", "give it")
def row_without_id(folder):
    _edit(folder, lambda table: pd.concat([table, table.iloc[[3]].assign(participant_id="n/a")]))


def _rename(folder: Path, old: str, new: str) -> None:
    for path in (folder / old / "anat").iterdir():
        path.rename(path.with_name(path.name.replace(old, new)))
    (folder / old).rename(folder / new)
    _replace(folder / "participants.tsv", old, new)


# --- outcome


@fault("error", "participants.tsv", "sub-002", "0 or negative", "time_days > 0")
def time_zero(folder):
    _cell(folder, "time_days", "0")


@fault("error", "participants.tsv", "sub-002", "0 or negative", "correct it")
def time_negative(folder):
    _cell(folder, "time_days", "-12")


@fault("error", "participants.tsv", "sub-002", "missing or not a number", "exclude the patient")
def time_missing(folder):
    _cell(folder, "time_days", "n/a")


@fault("error", "participants.tsv", "sub-002", "not a number", "days from baseline")
def time_as_text(folder):
    _cell(folder, "time_days", "ALIVE (361 days later)")


@fault("error", "participants.tsv", "sub-002", "code for missing", "no long survival")
def time_sentinel(folder):
    _cell(folder, "time_days", "9999")


@fault("error", "participants.tsv", "years or months", "365.25")
def time_in_years(folder):
    _edit(folder, lambda table: table.assign(time_days=(table["time_days"].astype(float) / 365.25).round(3)))


@fault("warning", "participants.tsv", "weeks or months", "30.4375")
def time_in_months(folder):
    _edit(folder, lambda table: table.assign(time_days=(table["time_days"].astype(float) / 30.4375).round(1)))


@fault("error", "participants.tsv", "sub-002", "neither 0 nor 1", "code it so")
def event_as_text(folder):
    _cell(folder, "event", "dead")


@fault("error", "participants.tsv", "sub-002", "neither 0 nor 1", "excluded, not censored")
def event_unknown(folder):
    _cell(folder, "event", "n/a")


@fault("warning", "participants.tsv", "looks flipped", "look up the coding")
def event_flipped(folder):
    _edit(folder, lambda table: table.assign(event=1 - table["event"].astype(int)))


@fault("warning", "participants.tsv", "no event", "check the coding")
def nobody_dies(folder):
    _edit(folder, lambda table: table.assign(event="0"))


# --- covariates


@fault("error", "participants.tsv", "`age`", "not a number", "sub-002", "n/a")
def text_for_a_number(folder):
    _cell(folder, "age", "sixty")


@fault("error", "`marker` is 999", "sub-002, sub-007", "no codes for missing", "leave missing values empty")
def sentinel_999(folder):
    _cell(folder, "marker", "999", (1, 6))


@fault("error", "`marker` is -1", "sub-002", "leave missing values empty")
def sentinel_minus_one(folder):
    _cell(folder, "marker", "-1")


@fault("warning", "`marker` is 99", "sub-002", "far from all other values")
def lone_extreme(folder):
    _cell(folder, "marker", "99")


@fault("warning", "`age` out of range", "sub-002", "0 to 120 years")
def impossible_age(folder):
    _cell(folder, "age", "-4")


@fault("warning", "`age` out of range", "in another unit than years", "and 25 more")
def age_in_months(folder):
    _edit(folder, lambda table: table.assign(age=table["age"].astype(int) * 12))


@fault("warning", "`sex` is male for everybody", "take it out")
def constant_column(folder):
    _edit(folder, lambda table: table.assign(sex="male"))


@fault("warning", "`marker` is missing in 28 of 30", "take it out")
def nearly_all_missing(folder):
    _cell(folder, "marker", "n/a", range(2, 30))


@fault("error", "`sex` has an unknown level", "sub-002", "female, male", "add the level")
def unknown_level(folder):
    _cell(folder, "sex", "Male")


@fault("warning", "`arm` has levels 'A', 'a '", "write them alike")
def levels_alike(folder):
    _column(folder, "arm", lambda time, event: np.where(np.arange(PATIENTS) % 3, "A", "B"), Levels=["A", "a ", "B"])


@fault("warning", "`code` is another for each patient", "identifier")
def identifier_as_covariate(folder):
    codes = [f"x{k}" for k in range(PATIENTS)]
    _column(folder, "code", lambda time, event: codes, Levels=codes)


# --- the outcome among the covariates


@fault("warning", "`TreatmentResponse` is named like an outcome", "known only after baseline")
def named_like_an_outcome(folder):
    _column(folder, "TreatmentResponse", lambda time, event: np.arange(PATIENTS) % 3)


@fault("error", "`stay` ranks survival almost perfectly", "take it out of the covariates")
def ranks_the_outcome(folder):
    _column(folder, "stay", lambda time, event: 3000 - time + np.arange(PATIENTS) % 7)


@fault("error", "`condition` is `event` in other words", "take it out of the covariates")
def equals_the_event(folder):
    _column(folder, "condition", lambda time, event: np.where(event, "bad", "good"), Levels=["bad", "good"])


@fault("error", "`autopsy` is there exactly for those with", "take it out of the covariates")
def known_of_the_dead_only(folder):
    _column(folder, "autopsy", lambda time, event: np.where(event, np.arange(PATIENTS) % 4, "n/a"))


# --- the tables


@fault("error", "participants.tsv", "no column event", "add or rename it", "columns found")
def missing_column(folder):
    _edit(folder, lambda table: table.drop(columns="event"))


@fault("error", "participants.tsv", "no column marker", "biomarker")
def column_renamed(folder):
    _replace(folder / "participants.tsv", "marker", "biomarker")


@fault("error", "participants.tsv", "separate the columns by tabs")
def commas_for_tabs(folder):
    _replace(folder / "participants.tsv", "\t", ",")


@fault("error", "participants.tsv", "tab-separated UTF-8")
def not_utf8(folder):
    path = folder / "participants.tsv"
    path.write_bytes(path.read_bytes().replace(b"north", "Köln".encode("latin-1")))


@fault("error", "participants.json", "not found", "data/README.md")
def no_dictionary(folder):
    (folder / "participants.json").unlink()


@fault("error", "participants.json", "not JSON", "correct it there")
def dictionary_cut_off(folder):
    path = folder / "participants.json"
    path.write_text(path.read_text()[:-5])


@fault("error", "participants.json", "`sex` are 'female, male'", "list them")
def levels_as_text(folder):
    _column(folder, "sex", lambda time, event: "male", Levels="female, male")


@fault("error", "dseg.tsv", "no whole number", "one label a line")
def label_without_number(folder):
    _replace(folder / "dseg.tsv", "1\ttumour", "one\ttumour")


@fault("error", "dseg.tsv", "no label is named", "GTV", "rename what is tumour")
def no_tumour_label(folder):
    _replace(folder / "dseg.tsv", "tumour", "GTV")


@fault("error", "neither cohort.yaml nor participants.tsv", "python -m survpack new")
def no_table_at_all(folder):
    (folder / "participants.tsv").unlink()


# --- images


@fault("warning", "sub-002", "excluded by the rule `measured`", "add the mask or the image")
def patient_without_image(folder):
    shutil.rmtree(folder / "sub-002")


@fault("error", "sub-002", "no such row", "add the row")
def image_without_row(folder):
    _edit(folder, lambda table: table[table["participant_id"] != "sub-002"])


@fault("warning", "sub-002", "excluded by the rule `measured`", "add the mask")
def no_mask(folder):
    bids.image_path(folder, "sub-002", "mask").unlink()


@fault("error", "sub-002_dseg.nii.gz", "another grid", "9, 10, 10", "resample the mask")
def mask_on_another_grid(folder):
    _resave(folder, "mask", lambda values: values[..., :-1])


@fault("error", "sub-002_dseg.nii.gz", "another grid", "resample the mask")
def mask_shifted(folder):
    _resave(folder, "mask", affine=lambda affine: affine + np.eye(4)[:, [3, 3, 3, 0]] * 20)


@fault("error", "sub-002_dseg.nii.gz", "empty mask", "draw the lesion")
def empty_mask(folder):
    _resave(folder, "mask", np.zeros_like)


@fault("error", "sub-002_dseg.nii.gz", "unknown labels 7", "1 tumour, 2 oedema", "dseg.tsv")
def unknown_label(folder):
    _resave(folder, "mask", lambda values: np.where(np.arange(values.size).reshape(values.shape) == 5, 7, values))


@fault("error", "sub-002_dseg.nii.gz", "no whole numbers", "nearest neighbour")
def smoothed_mask(folder):
    _resave(folder, "mask", lambda values: values.astype(np.float32) * 0.4)


@fault("error", "sub-002_ct.nii.gz", "4-D image", "save the one volume")
def four_dimensions(folder):
    _resave(folder, "ct", lambda values: np.stack([values, values], axis=-1))


@fault("error", "sub-002_ct.nii.gz", "NaN", "replace them")
def nan_in_the_image(folder):
    _resave(folder, "ct", lambda values: np.where(values > 890, np.nan, values).astype(np.float32))


@fault("error", "sub-002_ct.nii.gz", "every voxel has the same value", "fetch it again")
def constant_image(folder):
    _resave(folder, "ct", lambda values: np.full_like(values, 7))


@fault("warning", "sub-002_ct.nii.gz", "not in HU", "rescale intercept")
def ct_without_intercept(folder):
    _resave(folder, "ct", lambda values: values + 1000)


@fault("error", "sub-002_dseg.nii.gz", "30 x 3 x 3 mm", "0.05 to 20 mm a side")
def voxels_in_another_unit(folder):
    for what in ("mask", "ct"):
        _resave(folder, what, affine=lambda affine: affine * [10, 1, 1, 1])


@fault("warning", "sub-002_ct.nii.gz", "no qform and no sform", "DICOM")
def orientation_not_told(folder):
    def forget(image):
        image.header["qform_code"] = image.header["sform_code"] = 0

    path = bids.image_path(folder, "sub-002", "ct")
    image = nib.load(path)
    blank = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    forget(blank)
    nib.save(blank, path)
    _resave(folder, "mask", affine=lambda _: nib.load(path).affine)


@fault("error", "sub-002_ct.nii.gz", "unreadable", "fetch or convert it again")
def image_cut_off(folder):
    path = bids.image_path(folder, "sub-002", "ct")
    path.write_bytes(path.read_bytes()[:-300])


@fault("error", "sub-002_dseg.nii.gz", "unreadable", ".nii.gz")
def not_an_image(folder):
    bids.image_path(folder, "sub-002", "mask").write_bytes(b"no image")


@fault("error", "sub-002, sub-003", "one scan", "same voxels", "find out whose it is")
def one_scan_twice(folder):
    shutil.copy(bids.image_path(folder, "sub-003", "ct"), bids.image_path(folder, "sub-002", "ct"))


@fault("warning", "sub-002, sub-003", "one scan", "same but for its scale", "find out whose it is")
def one_scan_rescaled(folder):
    other = np.asarray(nib.load(bids.image_path(folder, "sub-003", "ct")).dataobj)
    _resave(folder, "ct", lambda values: (other * 1.7 - 60).astype(np.float32))


@fault("error", "sub-003_ct.nii.gz", "named after sub-003", "move it to its patient")
def scan_in_another_patients_folder(folder):
    image = folder / "sub-002" / "anat" / "sub-002_ct.nii.gz"
    image.rename(image.with_name("sub-003_ct.nii.gz"))


@fault("error", "sub-002_sessions.tsv", "ses-1 more than once", "keep one row")
def session_twice(folder):
    (folder / "sub-002" / "anat" / "sub-002_ct.nii.gz").rename(folder / "sub-002" / "anat" / "sub-002_ses-1_ct.nii.gz")
    (folder / "sub-002" / "anat" / "sub-002_dseg.nii.gz").rename(
        folder / "sub-002" / "anat" / "sub-002_ses-1_dseg.nii.gz"
    )
    (folder / "sub-002" / "sub-002_sessions.tsv").write_text("session_id\tday\nses-1\t0\nses-1\t90\n")


@fault("error", "dseg.tsv", "is there twice", "one label a line")
def label_twice(folder):
    (folder / "dseg.tsv").write_text("index\tname\n1\ttumour\n1\toedema\n")


@fault("error", "cohort.yaml", "covariates.segmented", "means something else here", kind="table")
def covariate_named_as_the_study_names_its_own(folder):
    _replace(folder / "cohort.yaml", "  age: {", "  segmented: {")


@fault("error", "cohort.yaml", "no `key: value` in it", "data/README.md", kind="table")
def map_that_is_a_list(folder):
    (folder / "cohort.yaml").write_text("- clinical.csv\n")


@fault("error", "sub-002_sessions.tsv", "not found", "`day`")
def two_sessions_without_days(folder):
    for session in ("ses-1", "ses-2"):
        shutil.copy(
            bids.image_path(folder, "sub-003", "ct"), folder / "sub-002" / "anat" / f"sub-002_{session}_ct.nii.gz"
        )


# --- personal data


@fault("error", "sub-002_ct.nii.gz", "Doe^Jane", "header")
def name_in_a_header(folder):
    def name(image):
        image.header["descrip"] = b"Doe^Jane"

    _resave(folder, "ct", spoil=name)


@fault("error", "participants.tsv", "column `birth_date`", "delete it")
def birth_date_in_the_table(folder):
    _edit(folder, lambda table: table.assign(birth_date="1954-03-02"))


# --- a table and its column map


@fault("error", "cohort.yaml", "time_day is not known", "correct its spelling", kind="table")
def mistyped_key(folder):
    _replace(folder / "cohort.yaml", "labels:", "time_day: OS\nlabels:")


@fault("error", "cohort.yaml", "no time_days", "add it", kind="table")
def forgotten_key(folder):
    _replace(folder / "cohort.yaml", "time_days: {column: OS, unit: months}\n", "")


@fault("error", "cohort.yaml", "time_days.unit is 'fortnights'", "'months'", kind="table")
def unknown_unit(folder):
    _replace(folder / "cohort.yaml", "unit: months", "unit: fortnights")


@fault("error", "cohort.yaml", "line ", "not readable", kind="table")
def not_yaml(folder):
    _replace(folder / "cohort.yaml", "{column: OS", "{column: [OS")


@fault("error", "clinical.csv", "no column Grading", "Grade", kind="table")
def column_not_in_the_table(folder):
    _replace(folder / "cohort.yaml", "column: Grade", "column: Grading")


@fault("error", "clinical.csv", "Status is 'lost'", "dead, alive", kind="table")
def code_not_listed(folder):
    _replace(folder / "clinical.csv", "alive", "lost")


@fault("error", "cohort.yaml", "images.t1c.path fits no file", "P1/t1.nii.gz", kind="table")
def pattern_fits_nothing(folder):
    _replace(folder / "cohort.yaml", "t1c.nii.gz", "t1.nii.gz")


@fault("error", "nowhere/P2.nii.gz", "P2", "file not found", kind="table")
def path_to_nothing(folder):
    _replace(folder / "cohort.yaml", '"scans/{PatientID}/t1c.nii.gz"', "Scan")
    table = pd.read_csv(folder / "clinical.csv")
    table.assign(Scan=["scans/P1/t1c.nii.gz", "nowhere/P2.nii.gz"]).to_csv(folder / "clinical.csv", index=False)


@fault("error", "cohort.yaml", "covariates.sex is categorical but has no levels", "list them", kind="table")
def levels_forgotten(folder):
    _replace(folder / "cohort.yaml", ", levels: [female, male]", "")


@fault("error", "cohort.yaml", "T1ce", "t1n, t1c, t2w", kind="table")
def unknown_modality(folder):
    _replace(folder / "cohort.yaml", "  t1c: {path", "  T1ce: {path")


@fault("error", "clinical.csv not found", "put it there", kind="table")
def table_not_there(folder):
    (folder / "clinical.csv").unlink()


if __name__ == "__main__":
    import tempfile
    from contextlib import chdir

    from survpack.__main__ import main

    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        for name in broken_folders(Path()):
            print(f"$ python -m survpack check {name}", flush=True)
            print(f"[exit {main(['check', name])}]\n", flush=True)
