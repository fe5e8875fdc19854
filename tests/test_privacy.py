"""What identifies a patient is found, what does not is left alone, and small counts cannot be worked out."""

import itertools
import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR, tag_for_keyword

from survpack import privacy
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
    assert [severity for severity, _ in told].count("error") == 6
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
