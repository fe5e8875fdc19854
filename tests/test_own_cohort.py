"""A cohort of one's own: every fault is told with its place and remedy, and a sound cohort is left in peace."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import broken
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack import adapters, overlap, params, paths, template
from survpack.__main__ import main
from survpack.adapters import bids, table
from survpack.checks import check_participants, check_visits, ordered, plain_id, spelled_alike
from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput
from survpack.phantom import mets

REAL = Path(os.environ.get("SURVPACK_DATA", "/nonexistent"))


@pytest.fixture(scope="module")
def kinds(tmp_path_factory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("sound")
    return {"bids": broken.sound(root / "bids"), "table": broken.sound_table(root / "table")}


def hashes_of(images: pd.DataFrame) -> pd.DataFrame:
    """What the checks keep of every image they read."""
    rows = []
    for row in images.itertuples():
        image = nib.load(row.path or row.mask_path)
        values = np.asarray(image.dataobj)
        told = overlap.fingerprint(values, image.affine, None if row.path else overlap.filled(values))
        rows.append([row.patient_id, row.session, row.modality, *told])
    return pd.DataFrame(rows, columns=overlap.HASHES)


def files(folder: Path) -> dict:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def check(capsys, *folders) -> tuple[int, list[str]]:
    code = main(["check", *map(str, folders)])
    said = capsys.readouterr()
    return code, [line for line in (said.out + said.err).splitlines() if line.startswith(("error", "warn", "survpack"))]


# --- what is wrong is told


@pytest.mark.parametrize("kind", ["bids", "table"])
def test_a_sound_folder_has_no_findings(kinds, kind, capsys):
    assert check(capsys, kinds[kind]) == (0, [])


@pytest.mark.parametrize("name", broken.FAULTS)
def test_a_fault_is_one_sentence_with_place_and_remedy_and_nothing_is_written(name, kinds, tmp_path, capsys):
    folder = broken.spoilt(name, kinds, tmp_path)
    _, _, severity, words = broken.FAULTS[name]
    before = files(tmp_path)
    code, lines = check(capsys, folder)
    assert code == (2 if any(line.startswith(("error", "survpack")) for line in lines) else 0)
    told = [line for line in lines if all(word in line for word in words)]
    assert len(told) == 1 and told[0].endswith("."), "\n".join(lines)
    assert told[0].startswith(("error", "survpack") if severity == "error" else "warning"), told
    assert len(lines) <= 2, "\n".join(lines)  # one fault may be seen from two sides, not from three
    assert files(tmp_path) == before


def test_there_are_at_least_25_kinds_of_fault():
    assert len(broken.FAULTS) >= 25


def test_errors_come_first_and_a_fault_of_many_is_one_line(kinds, tmp_path, capsys):
    folder = shutil.copytree(kinds["bids"], tmp_path / "many")
    for k in range(7):
        path = broken.bids.image_path(folder, f"sub-{k + 1:03d}", "mask")
        mask = nib.load(path)
        nib.save(nib.Nifti1Image(np.asarray(mask.dataobj)[: 8 - k % 3], mask.affine), path)  # three shapes, one fault
    broken.impossible_age(folder)
    code, (first, second) = check(capsys, folder)
    assert code == 2 and first.startswith("error") and second.startswith("warning")
    assert "patients sub-001, sub-002, sub-003, sub-004, sub-005 and 2 more: mask on another grid" in first


# --- two cohorts


def test_a_patient_in_two_cohorts_is_found_by_scan_and_by_outcome(kinds, tmp_path, capsys):
    other = shutil.copytree(kinds["bids"], tmp_path / "other")
    for patient in [f"sub-{k:03d}" for k in range(3, 31)]:
        shutil.rmtree(other / patient)
    broken._edit(other, lambda rows: rows.iloc[:2].assign(time_days=["111", "222"]))
    broken._rename(other, "sub-002", "sub-x")
    code, lines = check(capsys, kinds["bids"], other)
    assert code == 2 and all("train on one, test on the other" in line for line in lines)
    assert any("sub-002 and sub-x are one scan (ct, same voxels)" in line for line in lines)
    assert not any("same id" in line for line in lines)  # sub-001 is anybody


def test_equal_ids_alone_are_a_warning_unless_they_only_count(raw):
    def cohort(name, ids, days):
        people = pd.DataFrame({"patient_id": ids, "site": "a", "time_days": days, "event": True})
        return Cohort(name, people, pd.DataFrame(columns=IMAGES), {}, {1: "tumour"})

    from survpack.checks import check_together

    none = pd.DataFrame(columns=overlap.HASHES)
    one, two = cohort("a", ["CHUM-001", "sub-001"], [10.0, 20.0]), cohort("b", ["CHUM-001", "sub-001"], [11.0, 21.0])
    (finding,) = check_together(one, two, none, none)
    assert finding.severity == "warning" and finding.patients == ("CHUM-001",)
    (finding,) = check_together(one, replace(one, name="c"), none, none)
    assert finding.severity == "error" and finding.patients == ("CHUM-001", "sub-001")


# --- one scan twice

SCAN = np.random.default_rng(0).normal(100, 30, (20, 24, 17)).astype(np.int16)
SCAN[5:12, 6:14, 3:9] += 200


def told(values, affine=None) -> pd.DataFrame:
    row = ["copy", "baseline", "ct", *overlap.fingerprint(values, np.eye(4) if affine is None else affine)]
    return pd.DataFrame([row], columns=overlap.HASHES)


@pytest.mark.parametrize(
    ("copy", "how"),
    [
        (lambda path: nib.save(nib.Nifti1Image(SCAN, np.eye(4)), path), "same voxels"),
        (lambda path: nib.save(nib.Nifti1Image(SCAN.astype(np.float64), np.eye(4)), path), "same voxels"),
        (lambda path: nib.save(nib.Nifti1Image(SCAN, np.diag([-1.0, -1.0, 2.0, 1.0])), path), "same voxels"),
        (lambda path: nib.save(nib.Nifti1Image(SCAN * np.float32(0.5) + 7, np.eye(4)), path), "same but for"),
        (lambda path: nib.save(nib.Nifti1Image(SCAN[::-1], np.diag([-1.0, 1, 1, 1])), path), "same but for"),
        (
            lambda path: nib.save(nib.Nifti1Image(SCAN.transpose(2, 0, 1), np.eye(4)[:, [2, 0, 1, 3]]), path),
            "same but for",
        ),
    ],
    ids=["recompressed", "as float", "header flipped", "rescaled", "flipped", "axes in another order"],
)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_a_copy_of_a_scan_is_found(copy, how, suffix, tmp_path):
    copy(tmp_path / f"b{suffix}")
    nib.save(nib.Nifti1Image(SCAN, np.eye(4)), tmp_path / "a.nii.gz")
    rows = [["a", "baseline", 0.0, "ct", str(tmp_path / "a.nii.gz"), ""],
            ["b", "baseline", 0.0, "ct", str(tmp_path / f"b{suffix}"), ""]]  # fmt: skip
    pairs = overlap.duplicates(hashes_of(pd.DataFrame(rows, columns=IMAGES)))
    assert pairs[["patient_id", "other_patient_id"]].values.tolist() == [["a", "b"]]
    assert pairs["how"].iloc[0].startswith(how)


@settings(max_examples=25, deadline=None)
@given(st.floats(0.01, 50), st.floats(-500, 500))
def test_no_linear_rescaling_hides_a_copy(scale, offset):
    copy = told(SCAN.astype(np.float32) * np.float32(scale) + np.float32(offset))
    assert len(overlap.shared(told(SCAN), copy)) == 1


def test_an_image_too_small_or_constant_tells_nothing():
    assert overlap.fingerprint(SCAN[:7], np.eye(4)) == ("", "")
    assert overlap.fingerprint(np.zeros((9, 9, 9)), np.eye(4)) == ("", "")
    assert overlap.shared(told(SCAN[:7]), told(SCAN[:7])).empty


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, np.float32])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_is_drawn_in_a_mask_is_found_as_numpy_finds_it(dtype, order):
    mask = np.zeros((9, 11, 13), dtype=dtype, order=order)
    mask[2:5, 3:9, 1:4] = 2
    mask[8, 10, 12] = 1
    index, labels = overlap.filled(mask)
    flat = mask.ravel(order="F")
    np.testing.assert_array_equal(index, np.flatnonzero(flat))
    np.testing.assert_array_equal(labels, flat[flat != 0])


# --- no false alarms


@pytest.mark.parametrize("name", ["sts", "kits"])
def test_real_patients_are_nobodys_copies_and_their_tables_raise_no_alarm(name):
    if not (REAL / {"sts": "sts", "kits": "kits19"}[name]).is_dir():
        pytest.skip(f"SURVPACK_DATA has no {name}")
    cohort = adapters.load(name, params.load())
    assert check_participants(cohort.participants, cohort.dictionary, name) == []
    some = cohort.images[cohort.images["patient_id"].isin(cohort.participants["patient_id"].iloc[:12])]
    found = hashes_of(some)
    assert (found["sha"] != "").all() and overlap.duplicates(found).empty
    for _, one in found.groupby("modality"):
        alike = overlap.similarity(one["signature"], one["signature"])
        assert (alike - np.eye(len(one))).max() < overlap.NEAR - 0.02


@pytest.mark.parametrize("name", ["sts", "kits"])
def test_a_flipped_event_column_of_real_patients_is_noticed(name):
    if not (REAL / {"sts": "sts", "kits": "kits19"}[name]).is_dir():
        pytest.skip(f"SURVPACK_DATA has no {name}")
    cohort = adapters.load(name, params.load())
    flipped = cohort.participants.assign(event=~cohort.participants["event"])
    said = [finding for finding in check_participants(flipped, {}, name) if "flipped" in finding.found]
    assert len(said) == 1


def test_the_phantom_has_no_findings(tmp_path, capsys):
    choices = mets.DEFAULTS | {"patients": 14, "sites": 2, "spacing_mm": 8.0}
    mets.generate(tmp_path / "mets", tmp_path / "truth", **choices, n_jobs=1)
    assert check(capsys, tmp_path / "mets") == (0, [])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(10, 60))
def test_covariates_that_know_nothing_of_the_outcome_are_not_called_leaks(seed, patients):
    rng = np.random.default_rng(seed)
    rows = pd.DataFrame({
        "patient_id": [f"p{k}" for k in range(patients)], "site": "a", "event": rng.random(patients) < 0.6,
        "time_days": rng.exponential(600, patients) + 5, "age": rng.normal(60, 10, patients).round(),
        "karnofsky": rng.choice(np.arange(50, 101, 10), patients), "lesions": rng.integers(1, 9, patients),
    })  # fmt: skip
    dictionary = {name: {"kind": "numeric"} for name in ("age", "karnofsky", "lesions")}
    assert [one for one in check_participants(rows, dictionary, "t") if one.severity == "error"] == []


@pytest.mark.parametrize("name", ["performance_status", "hpv_status", "prior_progression", "cosmetics", "causeway"])
def test_a_name_that_only_sounds_like_an_outcome_is_left_in_peace(name):
    rows = pd.DataFrame({"patient_id": ["a", "b"], "site": "x", "time_days": [90, 80], "event": True, name: [1, 2]})
    assert check_participants(rows, {name: {"kind": "numeric"}}, "t") == []


# --- visits


def visits(*rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["patient_id", "session", "day", "volume"])


PEOPLE = pd.DataFrame({"patient_id": ["a", "b"], "site": "x", "time_days": [100.0, 200.0], "event": [True, False]})


def test_a_patient_with_visits_needs_no_image_one_without_does():
    cohort = Cohort("v", PEOPLE, pd.DataFrame(columns=IMAGES), {}, {1: "tumour"}, visits=visits(["a", "1", 0.0, 2.0]))
    (finding,) = cohort.check()
    assert finding.patients == ("b",) and "no image" in finding.found


def test_visits_are_read_back_as_they_were_saved(tmp_path):
    seen = visits(["a", "1", 0.0, 2.0], ["a", "2", 60.0, 3.0])
    Cohort("v", PEOPLE, pd.DataFrame(columns=IMAGES), {}, {1: "tumour"}, visits=seen).save(tmp_path / "v")
    pd.testing.assert_frame_equal(Cohort.load(tmp_path / "v").visits, seen)


@pytest.mark.parametrize(
    ("row", "found", "patient"),
    [
        (["c", "1", 0.0, 1.0], "somebody else", "c"),
        (["a", "1", 30.0, 1.0], "listed twice", "a"),
        (["b", "1", "soon", 1.0], "no `day`", "b"),
        (["a", "2", 130.0, 1.0], "after the end of follow-up", "a"),
    ],
)
def test_a_flaw_in_the_visits_is_told_with_the_patient(row, found, patient):
    (finding,) = check_visits(visits(["a", "1", 0.0, 2.0], row), PEOPLE, "visits.csv")
    assert found in finding.found and patient in finding.patients


# --- a table and its column map


def test_a_table_is_read_with_its_units_codes_and_paths(kinds):
    rows = table.clinical(kinds["table"])
    assert rows["patient_id"].tolist() == ["P1", "P2"] and rows["event"].tolist() == [True, False]
    np.testing.assert_allclose(rows["time_days"], [13.5 * 365.25 / 12, 32.2 * 365.25 / 12])
    assert rows["grade"].isna().tolist() == [False, True]
    assert table.dictionary(kinds["table"])["sex"] == {"kind": "categorical", "levels": ["female", "male"]}
    images = table.discover(kinds["table"])
    assert list(images.columns) == IMAGES and images["path"].map(os.path.exists).all()
    assert images["mask_path"].str.endswith("tumour.nii.gz").all()


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".xlsx"])
def test_csv_tsv_and_excel_say_the_same_sentinels_and_codes_that_look_like_yaml_booleans(kinds, tmp_path, suffix):
    folder = shutil.copytree(kinds["table"], tmp_path / "t")
    rows = pd.read_csv(folder / "clinical.csv").assign(Status=["yes", "no"], Age=[999.0, 58.0], Study=["x", "y"])
    if suffix == ".xlsx":
        rows.to_excel(folder / "clinical.xlsx", index=False)
    else:
        rows.to_csv(folder / f"clinical{suffix}", index=False, sep="\t" if suffix == ".tsv" else ",")
    broken._replace(folder / "cohort.yaml", "clinical.csv  ", f"clinical{suffix}  ")
    broken._replace(folder / "cohort.yaml", "{dead: true, alive: false}", "{yes: true, no: false}")
    read = table.clinical(folder)
    assert read["event"].tolist() == [True, False]
    np.testing.assert_array_equal(read["age"], [np.nan, 58.0])
    assert read["Study"].tolist() == ["x", "y"]  # may select, predicts nothing
    assert "Study" not in table.dictionary(folder)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("labels:", "labels: {1: tumour}\nlabels:", 'duplicate key "labels"'),
        ("  age: {", "  age: {column: Sex, kind: numeric}\n  age: {", 'duplicate key "age"'),
        ("codes: {dead: true,", "codes: {dead: true, Dead: false,", "'dead' and 'Dead', which differ only in case"),
        ("[female, male]", "[female, female, male]", "covariates.sex has the level 'female' twice"),
    ],
)
def test_what_a_map_says_twice_is_refused_and_the_last_is_not_taken(kinds, tmp_path, old, new, said):
    path = shutil.copytree(kinds["table"], tmp_path / "twice") / "cohort.yaml"
    assert path.read_text().count(old) == 1
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(BadInput, match=said):
        table.column_map(path.parent)


def test_a_map_is_text_as_written_and_codes_that_agree_may_differ_in_case(kinds, tmp_path):
    path = shutil.copytree(kinds["table"], tmp_path / "text") / "cohort.yaml"
    content = path.read_text().replace("[female, male]", "[no, 010, 1e3]")
    path.write_text(content.replace("codes: {dead: true,", "codes: {dead: true, Dead: true,"))
    assert table.column_map(path.parent).covariates["sex"].levels == ["no", "010", "1e3"]


def test_a_scan_outside_the_folder_may_be_named_by_its_whole_path(kinds, tmp_path, capsys):
    folder = shutil.copytree(kinds["table"], tmp_path / "t")
    (folder / "scans").rename(tmp_path / "elsewhere")
    broken._replace(folder / "cohort.yaml", '"scans/', f'"{tmp_path}/elsewhere/')
    assert check(capsys, folder) == (0, [])


def test_ids_written_in_two_ways_are_recognised():
    assert spelled_alike(["sub-001"], ["sub-0001", "sub-0002"]) == "sub-001 is sub-0001 in the table"
    assert spelled_alike(["UCSF-PDGM-0004"], ["ucsf_pdgm_004"]) != ""
    assert spelled_alike(["sub-10"], ["sub-1", "sub-100"]) == ""
    assert spelled_alike(["sub-R01001"], ["R01-001"]) == "sub-R01001 is R01-001 in the table"


def test_two_numbers_of_an_id_stay_two_and_a_spreadsheet_s_number_is_the_number():
    assert plain_id("CEN-1-12") != plain_id("CEN-11-2") and plain_id("CEN-01-012") == plain_id("cen_1_12")
    assert plain_id("1.0") == plain_id("1") == plain_id("sub-001") != plain_id("10")
    assert plain_id("P-010") == plain_id("P10") and plain_id("a.b-1.") == "ab1"


# --- a template


@pytest.mark.parametrize("arguments", [[], ["--table"]])
def test_the_template_is_in_order_but_for_its_examples(raw, capsys, arguments):
    assert main(["new", "my-cohort", *arguments]) == 0
    assert capsys.readouterr().out.strip() == str(raw / "my-cohort")
    assert len((raw / "my-cohort" / "README.md").read_text().split("\n1. ")[1].splitlines()) == 10
    code, (line,) = check(capsys, "my-cohort")
    assert code == 0 and "example1" in line and "replace its row and its folder" in line
    assert adapters.load("my-cohort", params.load()).validated().participants.shape[0] == 2


@pytest.mark.parametrize(("name", "said"), [("mets", "my-mets"), ("../up", "letters"), ("there", "left as it is")])
def test_new_refuses_a_taken_or_odd_name_and_writes_nothing(raw, name, said):
    (raw / "there").mkdir()
    with pytest.raises(BadInput, match=said):
        template.new(name)
    assert [path.name for path in raw.iterdir()] == ["there"] and not any((raw / "there").iterdir())


def test_equal_findings_of_files_are_one_line():
    from survpack.cohort import Finding

    many = [Finding("warning", f"f{k}", f"odd (in row {k})", "even", "mend it") for k in range(4)]
    assert [str(one) for one in ordered(many)] == ["f0 and 3 more files: odd (in row 0), expected even; mend it."]


def placed(folder: Path, *files: str) -> Path:
    """A BIDS tree of empty files, of patient sub-01."""
    for name in files:
        path = folder / "sub-01" / "anat" / f"sub-01_{name}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["T1w", "FLAIR", "dseg"], {"t1n": "dseg", "t2f": "dseg"}),
        (["ct", "pet", "ct_dseg"], {"ct": "ct_dseg", "pt": ""}),  # the PET lies on another grid
        (["ct", "T1w", "T2w", "ct_dseg", "dseg"], {"ct": "ct_dseg", "t1n": "dseg", "t2w": "dseg"}),
        (["T1w", "ce-gd_T1w", "ce-gd_T1w_dseg"], {"t1n": "", "t1c": "ce-gd_T1w_dseg"}),
        (["T1w", "dwi", "dwi_dseg"], {"t1n": ""}),
    ],
)
def test_a_mask_named_after_an_image_is_that_images_alone(tmp_path, files, expected):
    images = bids.discover(placed(tmp_path, *files)).set_index("modality")["mask_path"]
    names = images.map(lambda path: Path(path).name.removeprefix("sub-01_").removesuffix(".nii.gz"))
    assert names.to_dict() == expected


def test_what_macos_puts_beside_a_file_is_no_image(tmp_path):
    placed(tmp_path, "ct", "dseg")
    (tmp_path / "sub-01/anat/._sub-01_ct.nii.gz").touch()
    assert len(bids.discover(tmp_path)) == 1


@pytest.mark.parametrize("name", ["participants.tsv", "participants.json", "cohort.yaml"])
def test_a_table_that_cannot_be_opened_is_told_in_a_sentence(name, kinds, tmp_path, capsys):
    folder = shutil.copytree(kinds["table" if name == "cohort.yaml" else "bids"], tmp_path / "t")
    (folder / name).unlink()
    (folder / name).mkdir()  # stands for a file without the right to read it, which root always has
    code, (line,) = check(capsys, folder)
    assert code == 2 and name in line


def test_new_says_where_it_cannot_write(raw, monkeypatch):
    monkeypatch.setattr(paths, "RAW", raw / "file")
    (raw / "file").touch()
    with pytest.raises(BadInput, match="make .*file a folder to write in"):
        template.new("mine")
