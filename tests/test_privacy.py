"""What identifies a patient is found, what does not is left alone, and small counts cannot be worked out."""

import dataclasses
import gzip
import hashlib
import importlib
import io
import itertools
import json
import subprocess
import textwrap
import uuid
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

from survpack import adapters, checking, privacy
from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput


def nifti(path, **fields):
    image = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=np.uint8), np.eye(4))
    for name, value in fields.items():
        image.header[name] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)
    return path


def found(findings):
    return sorted({(finding.severity, finding.found.split(" (")[0]) for finding in findings})


# Lists


def test_lists_hold_dicom_keywords_and_nothing_that_is_denied_is_allowed():
    assert all(tag_for_keyword(keyword) for keyword in [*privacy.ALLOWED, *privacy.DENIED])
    assert not set(privacy.ALLOWED) & set(privacy.DENIED)


def test_no_allowed_keyword_holds_a_name_a_date_a_time_a_uid_or_free_text():
    kinds = {dictionary_VR(tag_for_keyword(keyword)) for keyword in privacy.ALLOWED}
    assert kinds <= {"CS", "LO", "SH", "DS", "IS"}


def test_the_list_of_the_standard_has_what_was_gathered_by_hand_before():
    by_hand = """
        PatientID OtherPatientNames PatientComments PatientSex Occupation StationName DeviceSerialNumber GantryID ROIName
        AccessionNumber StudyDescription SeriesDescription ProtocolName ImageComments StructureSetLabel ContrastBolusAgent
        TextString IconImageSequence OriginalAttributesSequence RequestAttributesSequence ClinicalTrialSiteName ReviewerName
    """
    assert set(by_hand.split()) <= set(privacy.DENIED) and len(privacy.DENIED) > 600


@pytest.mark.parametrize("keyword", ["OperatorsName", "DateOfLastCalibration", "AcquisitionUID", "InstitutionName"])
def test_a_keyword_is_denied_by_the_list_or_by_the_kind_of_its_value(keyword):
    assert privacy.denied(keyword) and not privacy.denied("EchoTime") and not privacy.denied("TaskName")


# Ages and dates


@pytest.mark.parametrize(("years", "expected"), [(0.5, 0), (61, 61), (89, 89), (89.9, 89), (90, 90), (104, 90)])
def test_ages_over_89_become_90(years, expected):
    assert privacy.capped_age(years) == expected


def test_a_missing_age_stays_missing():
    assert np.isnan(privacy.capped_age(np.nan))


@given(st.dates(), st.integers(-20000, 20000))
def test_days_between_dates_undo_their_difference(start, days):
    try:
        later = pd.Timestamp(start).to_pydatetime().date() + pd.Timedelta(days=days).to_pytimedelta()
    except OverflowError:
        return
    assert privacy.days_between(start, later) == days
    if start.year > 999 and later.year > 999:
        assert privacy.days_between(f"{start:%Y%m%d}", later.isoformat()) == days


def test_what_is_no_date_is_refused():
    with pytest.raises(BadInput, match="'30 Feb' is no date"):
        privacy.days_between("20190412", "30 Feb")


# Texts, names, headers, tables


@pytest.mark.parametrize(
    "text",
    ["scan_20190412", "2019-04-12", "12.04.2019", "4/25/2019", "12-Apr-2019", "DOE^JOHN", "müller^ana", "a.b@clinic.org",
     "1.3.6.1.4.1.14519.5.2.1.5168", "20190412101500.0", "visit 2019_4_2"],
)  # fmt: skip
def test_dates_names_addresses_and_uids_are_certain(text):
    assert [severity for severity, _ in privacy.telltales(text)] == ["error"]


def test_a_long_number_is_a_suspicion():
    assert [severity for severity, _ in privacy.telltales("pat 4711047")] == ["warning"]


@pytest.mark.parametrize(
    "text",
    ["sub-001_ses-2_ce-gd_T1w", "case_00210", "UCSF-PDGM-0004", "LUNG1-128", "BraTS-MET-00086-000", "6.0.7:b3a",
     "SIEMENS MAGNETOM Prisma", "0.9765620231", "3.26999999999998", "TE=30", "999999", "FSL5.0", "1.2.840"],
)  # fmt: skip
def test_ids_of_public_sets_versions_and_measures_are_left_alone(text):
    assert privacy.telltales(text) == []


@pytest.mark.parametrize("field", ["descrip", "aux_file", "intent_name", "db_name"])
def test_a_name_in_any_text_field_of_a_nifti_header_is_found(tmp_path, field):
    clean, told = nifti(tmp_path / "a.nii.gz", descrip=b"FSL6.0"), nifti(tmp_path / "b.nii", **{field: b"DOE^JOHN"})
    assert privacy.findings_in_header(clean) == []
    [finding] = privacy.findings_in_header(told)
    assert finding.severity == "error" and f"`{field}`" in finding.found and str(told) in finding.where


def test_header_extensions_are_read_and_one_of_dicom_is_an_error(tmp_path):
    for name, code, text in [("dicom", 2, b""), ("comment", 6, b"seen 2019-04-12"), ("clean", 6, b"mask by hand")]:
        image = nib.Nifti1Image(np.zeros((2, 2, 2), dtype=np.uint8), np.eye(4))
        image.header.extensions.append(nib.nifti1.Nifti1Extension(code, text))
        nib.save(image, tmp_path / f"{name}.nii.gz")
    assert found(privacy.findings_in_header(tmp_path / "dicom.nii.gz"))[0][1] == "a DICOM header as NIfTI extension"
    assert found(privacy.findings_in_header(tmp_path / "comment.nii.gz")) == [("error", "a date")]
    assert privacy.findings_in_header(tmp_path / "clean.nii.gz") == []


def test_a_sidecar_is_searched_to_its_leaves(tmp_path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({
        "EchoTime": 0.03, "Manufacturer": "GE", "PatientName": "x", "AcquisitionTime": "10:15:00", "StudyDate": "",
        "deep": [{"InstitutionName": "y"}, "on 2019-04-12"], "url": "https://doi.org/10.7937/20190412",
    }))  # fmt: skip
    assert found(privacy.findings_in_sidecar(path)) == [
        ("error", "`InstitutionName`"), ("error", "`PatientName`"), ("error", "a date"), ("warning", "`AcquisitionTime`")
    ]  # fmt: skip


def test_the_version_of_a_program_is_nobodys_number(tmp_path):
    path = tmp_path / "dataset_description.json"
    path.write_text(json.dumps({"GeneratedBy": [{"Name": "x", "Version": "76802262ab20190412"}]}))
    assert not privacy.findings_in_sidecar(path)


def test_a_table_is_searched_for_people_dates_and_great_ages(tmp_path):
    path = tmp_path / "participants.tsv"
    pd.DataFrame({
        "participant_id": ["sub-01", "sub-02"], "LastName": ["Doe", "Roe"], "date_of_birth": ["x", "y"], "MRN": [1, 2],
        "surgery": ["n/a", "2019-04-12"], "age": [61, 93], "time_days": [412, 980], "volume_mm3": [1234567, 2345678],
        "email": ["n/a", "n/a"], "hospital_no": [12345678, 23456789],
    }).to_csv(path, sep="\t", index=False)  # fmt: skip
    told = [(finding.severity, finding.found) for finding in privacy.findings_in_table(path)]
    assert [severity for severity, _ in told].count("error") == 5
    assert ("warning", "ages over 89 in column `age`") in told  # published tables have them: the cap is offered
    for column in ("LastName", "date_of_birth", "MRN", "surgery", "age", "hospital_no"):
        assert any(f"`{column}`" in text for _, text in told)
    assert any("row 2" in text for _, text in told)


def test_a_capped_table_without_dates_is_clean(tmp_path):
    path = tmp_path / "participants.tsv"
    path.write_text("participant_id\tage\tstage\tage_days\nsub-01\t90\tII\t32000\nsub-02\t61\tI\t22000\n")
    assert privacy.findings_in_table(path) == []


def test_a_folder_is_searched_whole_errors_first(tmp_path):
    nifti(tmp_path / "sub-01" / "scan_20190412.nii.gz")
    nifti(tmp_path / "DOE^JOHN" / "ct.nii.gz", descrip=b"TE=3;Time=143512.000")
    (tmp_path / "sub-01_scans.tsv").write_text("filename\tacq_time\nx\t2019-04-12T10:00:00\n")
    (tmp_path / "IM1.dcm").write_bytes(b"x")
    (tmp_path / "broken.nii.gz").write_bytes(b"x")
    told = privacy.folder_findings(tmp_path)
    assert [finding.severity for finding in told] == ["error"] * 4 + ["warning"]
    assert "the time of the scan" in told[-1].found


# What is nobody's, and what is missed where only a cell is looked at

RNG = np.random.default_rng(5)
SHA = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(400)]
ENERGY = [19140625, *RNG.integers(1_000_000, 90_000_000, 40).tolist()]


@pytest.mark.parametrize(
    ("name", "cells"),
    [
        ("original_firstorder_Energy", ENERGY), ("energy", [float(value) for value in ENERGY]), ("power", [20190412, 55512345]),
        ("energy", ["1.9140625e+07", "2.0190412E7", "8.1e7"]), ("energy", [19140625, "--", "missing", *ENERGY]),
        ("voxels", SHA), ("voxels", ["sha256:" + one for one in SHA]), ("code", [one[:32] for one in SHA]),
        ("code", [one[:12] for one in SHA]), ("code", [one[:8] for one in SHA]), ("commit", [one[:7] for one in SHA]),
        ("x", [str(uuid.UUID(one[:32])) for one in SHA]), ("crc32", ["20190412", "00000001"]), ("Version", ["2019-04-12", "1.2.3"]),
        ("software_version", [20190412, 20200101, 20210101]), ("tool", ["1.2.3", "6.0.7:b3a", "v1.0.20220720", "20.2.1"]),
        ("reference", ["10.7937/K9/TCIA.2015.PF0M9REI", "doi:10.1000/20190412", "https://x.org/2019-04-12"]),
        ("trial", ["NCT01234567", "NCT20190412"]), ("residual_volume", [1234567, 7654321]), ("GLNonUniformity", [12345678, 23456789]),
        ("volume", ["1234567 mm3", "20190412 mm³", "123456789 voxels"]), ("snomed_code", [254637007, 399068003]),
        ("gene", ["MARCH1", "SEPT2", "DEC1"]), ("icd", ["C71.9", "C34.10", "8140/3"]), ("birth_year", [1931, 1948]),
        ("ID", ["UPENN-GBM-00001_11", "LUNG1-001", "TCGA-02-0006"]), ("ID", ["BraTS20_Training_001", "HN-CHUM-001", "C3L-00016"]),
        ("series", ["1.3.6.1.4.1.14519.5.2.1.6279.6001.100225287222365663678666836860"] * 2), ("days", [20190, 1234]),
        ("shifted", ["2150-04-12", "2163-01-01"]), ("date_of_scan_days", [0, 412, 980]), ("range", ["1-2-3", "4.5.6"]),
    ],
)  # fmt: skip
def test_a_column_of_measures_hashes_versions_references_or_pseudonyms_tells_of_nobody(tmp_path, name, cells):
    path = tmp_path / "table.csv"
    pd.DataFrame({name: cells}).to_csv(path, index=False)
    assert privacy.findings_in_table(path) == []


@pytest.mark.parametrize(
    ("name", "cells", "severity"),
    [
        ("surgery", [20190412, 20190522, 20180101], "error"), ("surgery", ["20190412.0", "n/a", "20190522.0"], "error"),
        ("scan_date", [20190412, 3], "error"), ("StudyDate", ["20190412", "unknown"], "error"), ("note", ["ok", "2019-04-12"], "error"),
        ("scan_date", ["12.04.19", "01/02/20"], "error"), ("seen", ["April 13, 1948"], "error"), ("seen", ["12. März 1948"], "error"),
        ("file", ["scan_20190412", "scan_20190522"], "error"), ("ID", ["P19480413", "P19310317", "P19500101"], "error"),
        ("Geburtsdatum", ["x"], "error"), ("patient_birth_date", ["x"], "error"), ("Nachname", ["x"], "error"),
        ("series", ["1.3.12.2.1107.5.2.32.35162.2019041210150012345"], "error"), ("made", ["jane.doe@clinic.org"], "error"),
        ("energy", [19140625], "warning"), ("energy", [19140625, 19140625], "warning"),  # one number alone may be either
        ("scan_date", [43567, 43600, 43650], "warning"), ("kis_id", [4711047, 4711048], "warning"), ("age", [61, 93], "warning"),
    ],
)  # fmt: skip
def test_a_column_of_dates_numbers_or_names_is_told_once(tmp_path, name, cells, severity):
    path = tmp_path / "table.csv"
    pd.DataFrame({name: cells}).to_csv(path, index=False)
    assert [finding.severity for finding in privacy.findings_in_table(path)] == [severity]


@pytest.mark.parametrize(
    "name", ["Name, Vorname", "Vor- und Nachname", "Patientenname", "PatName", "pt_name", "nom_patient", "Nom et prénom", "Cognome",
             "nombre_paciente", "naam", "姓名", "患者姓名", "Имя", "last_name", "name", "patient_id", "ID", "Patient"]
)  # fmt: skip
def test_a_column_of_names_is_told_in_whatever_language_and_under_an_id(tmp_path, name):
    path = tmp_path / "table.csv"
    pd.DataFrame({name: ["Smith, John", "Müller, Jürgen", "Li, Bo"]}).to_csv(path, index=False)
    assert [finding.severity for finding in privacy.findings_in_table(path)] == ["error"]


@pytest.mark.parametrize(
    ("name", "cells", "severity"),
    [("geb_dat", ["13.04.48"], "error"), ("Geb.", ["48"], "error"), ("yob", [1931], "warning"), ("MRI1", ["13.4.19", "14.5.19"], "warning"),
     ("when", ["4/13/19", "5/2/19"], "warning"), ("insurance_number", ["A123"], "error"), ("referring_physician", ["House"], "error"),
     ("treating_doctor", ["Dr. House"], "error"), ("patient_code", ["MUEL1948"], "warning"), ("ID", ["Mueller", "Roe"], "warning")],
)  # fmt: skip
def test_births_short_dates_and_staff_are_told(tmp_path, name, cells, severity):
    path = tmp_path / "table.csv"
    pd.DataFrame({name: cells}).to_csv(path, index=False)
    assert [finding.severity for finding in privacy.findings_in_table(path)] == [severity]


@pytest.mark.parametrize(
    "columns",
    [{"insurance_status": ["private", "public"], "insurance": ["medicare", "none"]}, {"physician_assessed": ["y", "n"]},
     {"physician_assessed_response": ["CR", "PD"]}, {"referring_physician_specialty": ["onc", "neuro"]}, {"physician": [1, 2]},
     {"physician_visits": [3, 4]}, {"name": ["GTV-1", "Heart"], "volume": [1, 2]}, {"label": [1, 2], "name": ["necrosis", "edema"]},
     {"diagnostics_Mask-original_VoxelNum": [2074786, 1900765], "VolumeNum": [1, 1]}, {"file_name": ["a"], "drug_name": ["b"]},
     {"fraction": ["1/2/10", "3/4/20"], "visit": ["1.1.2", "2.1.3"]}, {"tool": ["1.2.13", "20.2.1"]},
     {"site_id": ["Mayo Clinic", "MD Anderson"], "scanner_name": ["Skyra", "Vida"], "sub_region_name": ["a", "b"]}],
)  # fmt: skip
def test_a_column_of_a_status_a_region_a_count_or_a_version_names_nobody(tmp_path, columns):
    path = tmp_path / "table.csv"
    pd.DataFrame(columns).to_csv(path, index=False)
    assert privacy.findings_in_table(path) == []


def test_a_name_of_people_is_not_taken_for_one_of_regions(tmp_path):
    path = tmp_path / "table.csv"
    for columns in (
        {"name": ["Smith, John"], "volume": [1]},
        {"name": ["Doe"], "age": [61], "volume": [1]},
        {"name": ["Doe"]},
    ):
        pd.DataFrame(columns).to_csv(path, index=False)
        assert [finding.severity for finding in privacy.findings_in_table(path)] == ["error"], columns


def test_a_date_in_the_name_of_a_table_is_its_release_and_in_that_of_a_scan_or_folder_somebodys(tmp_path):
    for name in ("clinical_20210503.csv", "export_2021-05-03.xlsx", "NOTES-3-Oct-2019.txt"):
        (tmp_path / name).touch()
        assert [one.severity for one in privacy.findings_in_name(tmp_path / name, tmp_path)] == ["warning"]
    for name in ("P1_20180209_CT.nii.gz", "20180209.dcm", "IM_20180209", "scan_2018-02-09.mha"):
        (tmp_path / name).touch()
        assert [one.severity for one in privacy.findings_in_name(tmp_path / name, tmp_path)] == ["error"]
    (tmp_path / "2018-02-09").mkdir()
    assert [one.severity for one in privacy.findings_in_name(tmp_path / "2018-02-09", tmp_path)] == ["error"]
    (tmp_path / "DOE^JOHN.csv").touch()
    assert [one.severity for one in privacy.findings_in_name(tmp_path / "DOE^JOHN.csv", tmp_path)] == ["error"]
    (tmp_path / "cohort.yaml").write_text("table: clinical_20210503.csv\npatient_id: ID\n")
    assert privacy.findings_in_file(tmp_path / "cohort.yaml") == []


@pytest.mark.parametrize("name", adapters.ADAPTERS)
def test_no_public_set_is_refused_for_the_name_or_a_shifted_date_of_a_file_that_its_adapter_asks_for(tmp_path, name):
    module = importlib.import_module(f"survpack.adapters.{name.replace('-', '_')}")
    table = tmp_path / module.TABLE
    table.parent.mkdir(exist_ok=True)
    content = "{}" if table.suffix == ".json" else "ID,Date of Death\nR01-001,3/21/1995\n"
    table.write_text(content) if table.suffix != ".xlsx" else pd.read_csv(io.StringIO(content)).to_excel(
        table, index=False
    )
    (table.parent / "W39_1998.09.19_Segm.nii").touch()
    cohort = Cohort(name, pd.DataFrame(), pd.DataFrame(columns=IMAGES), {}, {}, table=str(table))
    told = checking._personal(cohort)
    assert {one.severity for one in told} <= {"warning"}
    assert not [one for one in told if one.where == str(table) and "in the name" in one.found]
    own = checking._personal(dataclasses.replace(cohort, name="mine"))
    assert "error" in {one.severity for one in own}
    (table.parent / "DOE^JOHN.txt").touch()
    assert "error" in {one.severity for one in checking._personal(cohort)}


def test_the_key_that_the_readme_has_written_is_ignored_by_git():
    root = Path(privacy.__file__).parents[1]
    for name, ignored in [("key.tsv", True), ("ucsf_key.tsv", True), ("key-2.tsv", True), ("participants.tsv", False)]:
        assert (subprocess.run(["git", "check-ignore", "-q", "--no-index", name], cwd=root).returncode == 0) == ignored


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(10_000_000, 99_999_999), min_size=8, max_size=40, unique=True))
def test_random_numbers_of_eight_digits_are_never_dates_and_dates_always(numbers):
    column = pd.Series(numbers).astype(str)
    assert not any("date" in what for *_, what in privacy.column_telltales(column, "x"))
    days = pd.Series(pd.date_range("1930-01-01", periods=len(numbers), freq="97D").strftime("%Y%m%d"))
    assert [severity for _, severity, _ in privacy.column_telltales(days, "x")] == ["error"]


def test_ids_of_eight_digits_are_no_dates_where_most_of_those_beside_them_are_none(tmp_path):
    for number in [19140625, *range(12345678, 92345678, 8000000)]:
        nifti(tmp_path / f"sub-{number}" / "anat" / f"sub-{number}_ct.nii.gz")
    assert {severity for severity, _ in found(privacy.folder_findings(tmp_path))} == {"warning"}
    nifti(tmp_path / "scan_20190412.nii.gz")
    assert ("error", "a date") in found(privacy.folder_findings(tmp_path))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_a_table_is_read_in_whatever_encoding_it_was_saved(tmp_path, encoding):
    path = tmp_path / "table.csv"
    path.write_bytes("id;Ort;Arzt\n1;Köln;Müller^Jürgen\n".encode(encoding))
    assert found(privacy.findings_in_table(path)) == [("error", "a name as DICOM writes it")]


def test_what_cannot_be_read_is_no_traceback(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"PatientName": "Doe"}')[:20])
    (tmp_path / "b.csv.gz").write_bytes(b"\x1f\x8b" + b"x" * 30)
    (tmp_path / "c.yaml").write_text("a: [1")
    (tmp_path / "d.tsv").write_bytes(b"")
    (tmp_path / "link.json").symlink_to(tmp_path / "nowhere")
    assert privacy.folder_findings(tmp_path) == []
    for name in ("clinical.xls", "clinical.xlsx"):
        (tmp_path / name).write_bytes(b"\xd0\xcf\x11\xe0" + b"x" * 600)
    told = privacy.folder_findings(tmp_path)
    assert [(finding.severity, finding.fix) for finding in told] == [("warning", "save it as one")] * 2


def test_every_sheet_of_a_workbook_is_read(tmp_path):
    with pd.ExcelWriter(tmp_path / "clinical.xlsx") as book:
        frame = pd.DataFrame({"ID": ["LUNG1-001"], "surgery": pd.to_datetime(["2019-04-12"]), "energy": [19140625.5]})
        frame.to_excel(book, sheet_name="Data", index=False)
        pd.DataFrame({"Last Name": ["Doe"], "age": [93]}).to_excel(book, sheet_name="Hidden", index=False)
    told = [(finding.severity, finding.found) for finding in privacy.folder_findings(tmp_path)]
    assert [severity for severity, _ in told] == ["error", "error", "warning"]
    assert any("of sheet `Hidden`" in text for _, text in told)


@pytest.mark.parametrize(
    "content",
    [{"DOE^JOHN": {"x": 1}}, {"1948-04-13": [1]}, {"PatientName": {"Alphabetic": "Doe"}}, {"Patient's Name": "Doe"},
     {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe"}]}}, {"patient_name": "Doe"}, {"LUNG1-001": {"dob": "x"}}],
)  # fmt: skip
def test_a_key_tells_as_much_as_a_value(tmp_path, content):
    for name, packed in [("x.json", lambda text: text), ("y.json.gz", gzip.compress)]:
        (tmp_path / name).write_bytes(packed(json.dumps(content).encode()))
        assert {finding.severity for finding in privacy.findings_in_file(tmp_path / name)} == {"error"}


@pytest.mark.parametrize(
    "content",
    [{"PatientName": {"Description": "not given"}, "StudyDate": {"LongName": "day"}}, {"00100030": {"vr": "DA"}}, {"name": "tumour"},
     {"ConversionSoftwareVersion": "v1.0.20220720", "hash": "4711047", "Checksum": "20190412"}, {"Energy": 19140625} | {str(key): 1 for key in ENERGY}],
)  # fmt: skip
def test_a_column_that_is_described_a_version_and_a_number_are_nobodys(tmp_path, content):
    (tmp_path / "x.json").write_text(json.dumps(content))
    assert "error" not in {finding.severity for finding in privacy.findings_in_sidecar(tmp_path / "x.json")}


PROSE = {
    "error": ["DOE^JOHN", "Patient: John Smith, born 1948-04-13", "Patient name: John Smith", "# PatientName: Smith, John",
              "0010|0010 = John Smith", "(0010,0030) Patient's Birth Date DA: '19480413'", "{'PatientName': 'John Smith'}"],
    "warning": ["died 12.04.2019", "MRN 4711047", "seen on 12-Apr-2019"],
    None: ["Version 2.1 of 2019-04-12, contact jane.doe@uni.edu", "Scans until 2019-04-12; 10.7937/K9/TCIA.2015.PF0M9REI",
           "PatientName: removed", "PatientName: LUNG1-001", "DOB: date of birth", "Name: BraTS", "x^2, log^2, mm^3", "patient_id: PatientID",
           "The patients (n = 200) were scanned.", "path: scans/{PatientID}/ct.nii.gz", "Phone: 555-0199"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("severity", "text"), [(severity, text) for severity, texts in PROSE.items() for text in texts]
)
@pytest.mark.parametrize("name", ["README.md", "readme.txt", "head.mhd"])
def test_names_and_birth_dates_in_prose_are_told_and_what_a_data_set_says_of_itself_is_not(
    tmp_path, severity, text, name
):
    (tmp_path / name).write_text(f"first line\n{text}\n")
    assert [finding.severity for finding in privacy.folder_findings(tmp_path)] == ([severity] if severity else [])


def test_notes_are_nearer_to_a_patient_than_a_readme(tmp_path):
    (tmp_path / "notes.txt").write_text("first on 2019-04-12\nthen on 2019-05-12\nDOE^JOHN\n")
    told = sorted((finding.severity, finding.found) for finding in privacy.folder_findings(tmp_path))
    assert [severity for severity, _ in told] == ["error", "warning"] and told[1][1].endswith("in line 1")


@pytest.mark.parametrize("name", ["cohort.yaml", "cohort.yml"])
def test_a_map_of_columns_is_read_with_its_comments(tmp_path, name):
    sound = """
        # Version 2.1 of 2019-04-12, by jane.doe@uni.edu
        table: clinical.csv
        patient_id: PatientID
        time_days: {column: StudyDate, unit: months}
        missing: [1900-01-01, 2019-04-12, 999]
        covariates: {PatientAge: {column: PatientAge, kind: numeric}}
        images: {ct: {path: "scans/{PatientID}/ct.nii.gz"}}
    """
    (tmp_path / name).write_text(textwrap.dedent(sound))
    assert privacy.folder_findings(tmp_path) == []
    for more in ("site: DOE^JOHN", "# PatientName: John Smith", "labels: {DOE^JOHN: 1}", "started: 2019-04-12"):
        (tmp_path / name).write_text(textwrap.dedent(sound) + more)
        assert [finding.severity for finding in privacy.folder_findings(tmp_path)] == ["error"], more


@pytest.mark.parametrize(
    "start", [b"\0" * 128 + b"DICM", b"\x08\0\x05\0CS\x0a\0ISO_IR 100", b"\x02\0\0\0UL\x04\0"])  # fmt: skip
def test_dicom_is_known_without_an_extension(tmp_path, start):
    (tmp_path / "IM0001").write_bytes(start + b"x" * 50)
    (tmp_path / "weights.pt").write_bytes(b"PK\x03\x04" + b"x" * 200)
    assert found(privacy.folder_findings(tmp_path)) == [("error", "a DICOM file")]


@pytest.mark.parametrize(
    ("stored", "expected"),
    [("DOE^JOHN.nii", "error"), ("scan_20190412.nii", "error"), ("Smith_John.nii", "warning"), ("sub-01_T1w.nii", None),
     ("segmentation.nii", None), ("LUNG1-001.nii", None), ("", None)],
)  # fmt: skip
def test_the_name_that_gzip_keeps_is_read_as_it_outlives_renaming(tmp_path, stored, expected):
    plain = nifti(tmp_path / "plain.nii").read_bytes()
    with (tmp_path / "sub-01_ses-2_T1w.nii.gz").open("wb") as out, gzip.GzipFile(stored, "wb", fileobj=out) as packed:
        packed.write(plain)
    told = privacy.findings_in_file(tmp_path / "sub-01_ses-2_T1w.nii.gz")
    assert [finding.severity for finding in told] == ([expected] if expected else [])


def test_an_image_and_its_sidecar_outside_the_folder_are_looked_at_too(tmp_path):
    (tmp_path / "mine").mkdir()
    image = nifti(tmp_path / "scans" / "a.nii.gz", descrip=b"DOE^JOHN")
    (tmp_path / "scans" / "a.json").write_text('{"PatientName": "Doe"}')
    nifti(tmp_path / "scans" / "of_others.nii.gz", descrip=b"ROE^JANE")
    images = pd.DataFrame([["A", "1", 0.0, "ct", str(image), ""]], columns=IMAGES)
    cohort = Cohort("mine", pd.DataFrame(), images, {}, {}, table=str(tmp_path / "mine" / "clinical.csv"))
    assert sorted(Path(finding.where).name for finding in checking._personal(cohort)) == ["a.json", "a.nii.gz"]


def test_the_key_of_a_conversion_has_no_place_in_the_folder(tmp_path):
    (tmp_path / "key.tsv").write_text("patient_id\tparticipant_id\nA17\tsub-001\n")
    assert found(privacy.folder_findings(tmp_path)) == [("error", "the key of who is who")]


# Small counts


def fits(shown, original, below):
    """Every table of counts that the shown one and the totals of the original allow, by trying them all."""
    rows, columns = original.to_numpy().sum(axis=1), original.to_numpy().sum(axis=0)
    most = np.minimum.outer(rows, columns).ravel()
    ranges = [
        range(1, below) if text == f"<{below}" else range(top + 1) if text == "*" else [int(text)]
        for text, top in zip(shown.to_numpy().ravel(), most, strict=True)
    ]
    for values in itertools.product(*ranges):
        table = np.reshape(values, original.shape)
        if (table.sum(axis=1) == rows).all() and (table.sum(axis=0) == columns).all():
            yield table


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 7), min_size=4, max_size=4), st.integers(3, 5))
def test_no_small_count_can_be_worked_out_unless_the_totals_alone_give_it_away(numbers, below):
    original = pd.DataFrame(np.reshape(numbers, (2, 2)))
    possible = np.array(list(fits(privacy.suppressed(original, below), original, below)))
    any_table = np.array(list(fits(original.map(lambda count: "*"), original, below)))
    for row, column in np.argwhere((original.to_numpy() > 0) & (original.to_numpy() < below)):
        assert len(set(possible[:, row, column])) > 1 or len(set(any_table[:, row, column])) == 1


@pytest.mark.parametrize("seed", range(6))
def test_in_a_larger_table_no_small_count_can_be_worked_out(seed):
    original = pd.DataFrame(np.random.default_rng(seed).integers(5, 9, (3, 3)))
    original.iloc[seed % 3, seed // 3] = 1 + seed % 4
    shown = privacy.suppressed(original)
    possible = np.array(list(fits(shown, original, 5)))
    assert (shown == "<5").to_numpy().sum() == 1 and (shown == "*").to_numpy().sum() == 3
    assert len(set(possible[:, seed % 3, seed // 3])) > 1


def test_one_small_count_takes_the_smallest_others_with_it_and_large_ones_stay():
    counts = pd.DataFrame([[3, 20, 30], [40, 50, 60], [70, 80, 90]], index=["a", "b", "c"], columns=["x", "y", "z"])
    shown = privacy.suppressed(counts)
    assert shown.loc["a", "x"] == "<5"
    assert (shown == "*").sum().tolist() == [1, 2, 0] and (shown.loc["c"] == ["70", "80", "90"]).all()
    assert privacy.suppressed(counts.replace(3, 5)).equals(counts.replace(3, 5).astype(str))


def test_two_small_counts_that_their_total_gives_away_say_nothing_at_all():
    shown = privacy.suppressed(pd.DataFrame({"deaths": [1, 1]}))  # 2 in all: were they "<5", each would be 1
    assert shown["deaths"].tolist() == ["*", "*"]


def test_a_zero_is_nobodys_and_stays():
    assert privacy.suppressed(pd.DataFrame({"a": [0, 12], "b": [9, 8]})).to_numpy().tolist() == [
        ["0", "9"],
        ["12", "8"],
    ]
