"""Days against baseline: no scan after the end of follow-up on any route, and no predictor from later, however named."""

from pathlib import Path

import broken
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from survpack import adapters, params
from survpack.__main__ import main
from survpack.adapters import table
from survpack.checks import check_participants, check_scan_days, check_visits
from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput
from survpack.hindsight import MANY, after_the_end, named_later, tells_outcome
from survpack.scans import check_images

CODES = {"dead": True, "alive": False}
END = "a scan after the end of follow-up"


def folder(root: Path, clinical: pd.DataFrame, unit="days", covariates=(), images="") -> Path:
    """A cohort as a table: `ID`, `OS` (in `unit`) and `Status`, a CT a patient, and what else is given."""
    root.mkdir()
    clinical.to_csv(root / "clinical.csv", index=False)
    named = "".join(f"  {name.replace(' ', '_')}: {{column: '{name}', kind: numeric}}\n" for name in covariates)
    (root / "cohort.yaml").write_text(
        f"table: clinical.csv\npatient_id: ID\ntime_days: {{column: OS, unit: {unit}}}\n"
        f"event: {{column: Status, codes: {{dead: true, alive: false}}}}\ncovariates: {{}}\n".replace(
            "covariates: {}\n", "covariates:\n" + named if named else ""
        )
        + f"images:\n  ct: {{path: 'scans/{{ID}}_ct.nii.gz', mask: 'scans/{{ID}}_mask.nii.gz'{images}}}\n"
    )
    rng = np.random.default_rng(7)
    for patient in clinical["ID"]:
        mask = np.zeros(broken.SHAPE, np.uint8)
        mask[broken.BOX] = rng.integers(0, 2, mask[broken.BOX].shape)
        broken._save(root / f"scans/{patient}_ct.nii.gz", rng.integers(-900, 900, broken.SHAPE).astype(np.int16))
        broken._save(root / f"scans/{patient}_mask.nii.gz", mask)
    return root


def patients(time, **columns) -> pd.DataFrame:
    count = len(time)
    status = np.where(np.arange(count) % 3 == 0, "alive", "dead")
    return pd.DataFrame({"ID": [f"P{k}" for k in range(count)], "OS": time, "Status": status} | columns)


def told(capsys, root: Path) -> list[str]:
    code = main(["check", str(root)])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("error", "warn"))]
    assert code == (2 if any(line.startswith("error") for line in lines) else 0)
    return lines


def on_days(days, time, **more) -> pd.DataFrame:
    """Images of patients p0, p1, …, on these days."""
    rows = [[f"p{k}", more.get("session", "baseline"), day, "ct", "", "m.nii.gz"] for k, day in enumerate(days)]
    people = pd.DataFrame({"patient_id": [f"p{k}" for k in range(len(days))], "time_days": time})
    return pd.DataFrame(rows, columns=IMAGES), people


# --- scans after the end


def test_a_scan_after_the_end_is_an_error_in_bids_and_stops_a_run(tmp_path, capsys):
    root = broken.sound(tmp_path / "bids")
    last = pd.read_csv(root / "participants.tsv", sep="\t")["time_days"][1]
    sessions = pd.DataFrame({"session_id": ["baseline"], "day": [last + 40]})
    sessions.to_csv(root / "sub-002/sub-002_sessions.tsv", sep="\t", index=False)
    first, second = told(capsys, root)
    assert first.startswith("error") and "patient sub-002: " + END in first
    assert second.startswith("warning") and "no scan known to be before day 30" in second
    with pytest.raises(BadInput, match=f"sub-002: {END}"):
        adapters.load(str(root), params.load()).validated()


@pytest.mark.parametrize(
    ("time", "unit", "days", "late"),
    [
        ([100, 200, 300], "days", [0, 200, 20], ""),  # censored on the day of the scan
        ([100, 200, 300], "days", [-30, 201, 20], ""),  # rounding
        ([100, 200, 300], "days", [0, 203, 20], "P1"),
        ([12, 24, 36], "months", [366, 0, 0], ""),  # 12 months are 365.25 days
        ([12, 24, 36], "months", [378, 0, 0], ""),  # 12.4 months are 12
        ([12, 24, 36], "months", [385, 0, 0], "P0"),
        ([12.5, 24.1, 36], "months", [383, 0, 0], "P0"),
        ([52, 11, 30], "weeks", [366, 0, 0], ""),  # 52 weeks are 364 days
        ([52, 11, 30], "weeks", [369, 0, 0], "P0"),
        ([5, 200, 300], "days", [-3, 0, 0], ""),
    ],
)
def test_a_scan_after_the_end_is_an_error_in_a_table_beyond_what_times_are_rounded(
    tmp_path, capsys, time, unit, days, late
):
    root = folder(tmp_path / "t", patients(time, When=days), unit, images=", day: {column: When, unit: days}")
    assert table.discover(root)["day"].tolist() == days
    errors = [line for line in told(capsys, root) if line.startswith("error")]
    assert len(errors) == bool(late) and all(f"patient {late}: {END}" in line for line in errors)


def test_a_visit_after_the_end_is_an_error_and_its_rounding_is_not():
    people = pd.DataFrame({"patient_id": ["a", "b"], "time_days": [100.0, 200.0]})
    visits = pd.DataFrame({"patient_id": ["a", "a", "b"], "session": ["1", "2", "1"], "day": [0.0, 101.0, -4.0]})
    assert check_visits(visits, people, "visits") == []
    (finding,) = check_visits(visits.assign(day=[0.0, 102.0, 0.0]), people, "visits")
    assert finding.severity == "error" and finding.patients == ("a",) and "after the end" in finding.found


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(40, 4000), min_size=12, max_size=30),
    st.sampled_from([(1, 0), (7, 0), (30.4375, 0), (30.4375, 1), (365.25, 0), (365.25, 1), (365.25, 2)]),
    st.integers(0, 10**6),
)
def test_no_rounding_of_times_makes_a_sound_scan_late(true, unit, seed):
    days, decimals = unit
    time = np.round(np.array(true) / days, decimals) * days
    assume(days < 300 or (time > 0).sum() >= MANY)  # one patient of 1 year is 12 months as well
    scan = np.random.default_rng(seed).integers(0, np.array(true) + 1)
    images, people = on_days(scan, time)
    assert not after_the_end(images["patient_id"], images["day"], people).any()
    images["day"] = time + days + 2
    late = after_the_end(images["patient_id"], images["day"], people)
    assert (late == (time > 0)).all()


def test_a_time_of_nothing_is_told_as_such_and_not_as_a_late_scan():
    images, people = on_days([-3.0, 4.0, np.nan], [0.0, np.nan, 50.0])
    assert not after_the_end(images["patient_id"], images["day"], people).any()


# --- the day of a table's scans


def test_a_day_is_read_in_its_unit_and_a_missing_one_is_pointed_at(tmp_path, capsys):
    rows = patients([900, 800, 700], Week=["-1", "n/a", "2.5"])
    root = folder(tmp_path / "t", rows, images=", day: {column: Week, unit: weeks}")
    np.testing.assert_array_equal(table.discover(root)["day"], [-7, np.nan, 17.5])
    (line,) = told(capsys, root)
    assert line.startswith("warning") and "patient P1: no scan known to be before day 30" in line


@pytest.mark.parametrize("value", ["2020-03-04", "04.03.2020", "43894", "soon"])
def test_a_date_as_day_is_refused_and_its_value_is_not_repeated(tmp_path, value):
    root = folder(
        tmp_path / "t", patients([90, 80], Scan=[3, value]), images=", day: {column: Scan, unit: days}"
    )  # fmt: skip
    with pytest.raises(BadInput, match="`Scan` .*row 2, expected days from baseline; count the days") as refused:
        table.discover(root)
    assert value not in str(refused.value)


def test_a_day_needs_its_column_and_a_unit(tmp_path):
    root = folder(tmp_path / "t", patients([90, 80]), images=", day: {column: MRI day, unit: days}")
    with pytest.raises(BadInput, match="no column MRI day"):
        table.discover(root)
    broken._replace(root / "cohort.yaml", "day: {column: MRI day, unit: days}", "day: MRI day")
    with pytest.raises(BadInput, match=r"images\.ct\.day"):
        table.discover(root)


def test_a_modality_scanned_months_after_the_first_is_of_a_later_session_and_said_to_be_left_out(tmp_path, capsys):
    rows = patients([900, 800, 700], CT=[0, 0, -40], PET=[12, 200, 5])
    root = folder(tmp_path / "t", rows, images=", day: {column: CT, unit: days}")
    text = (root / "cohort.yaml").read_text()
    (root / "cohort.yaml").write_text(
        text + text.split("\n")[-2].replace("  ct:", "  pt:").replace("CT,", "PET,") + "\n"
    )
    images = table.discover(root).set_index(["patient_id", "modality"])["session"]
    assert images[:, "pt"].tolist() == ["baseline", "day 200", "baseline"] and (images[:, "ct"] == "baseline").all()
    left = [line for line in told(capsys, root) if "a modality of a later session alone, which is left out" in line]
    assert len(left) == 1 and left[0].startswith("warning") and "patient P1:" in left[0]


# --- columns that look like the day of a scan


@pytest.mark.parametrize(
    "name",
    [
        "days to MRI",
        "MRI_day",
        "interval_ct_surgery",
        "scan_date",
        "time_to_imaging",
        "CTdate",
        "weeks.to.PET",
        "MRI 2 day",
    ],
)
def test_a_column_that_may_be_the_day_of_a_scan_and_is_not_said_to_be_is_pointed_at(tmp_path, name):
    root = folder(tmp_path / "t", patients([900, 800, 700], **{name: [3, 8, "5"]}))
    (finding,) = check_scan_days(table.clinical(root), {}, table.discover(root), "t")
    assert finding.severity == "warning" and f"`{name}` named like the day of a scan" in finding.found
    assert "`day`" in finding.fix


def test_a_column_that_is_mapped_as_day_is_known_whatever_its_name_and_unit(tmp_path):
    rows = patients(
        [900, 800, 700], **{"MRI time": [1.5, -2, "n/a"], "scan date": ["n/a"] * 3, "Age at scan": [6, 5, 7]}
    )
    root = folder(tmp_path / "t", rows, images=", day: {column: MRI time, unit: months}")
    assert check_scan_days(table.clinical(root), {}, table.discover(root), "t") == []


def test_an_unread_day_of_a_scan_after_the_end_is_an_error_unless_it_counts_from_elsewhere(tmp_path):
    rows = patients([900, 80, 700], **{"days to MRI": [3, 95, 5], "days from diagnosis to MRI": [3, 400, 5]})
    root = folder(tmp_path / "t", rows)
    error, warning = check_scan_days(table.clinical(root), {}, table.discover(root), "t")
    assert error.severity == "error" and error.patients == ("P1",) and END + ", by `days to MRI`" in error.found
    assert warning.severity == "warning" and "columns `days to MRI`, `days from diagnosis to MRI`" in warning.found


# --- predictors


def test_six_columns_of_days_to_mri_as_predictors_are_all_told(tmp_path, capsys):
    rng = np.random.default_rng(2)
    time = rng.integers(300, 1400, 30)
    names = [f"days to MRI {k}" for k in range(1, 7)]
    visits = np.sort(rng.uniform(0, 1, (30, 6)), axis=1) * np.minimum(time, 1332)[:, None]
    visits[4, 5] = time[4] + 9
    rows = patients(time, **{name: visits[:, k].round() for k, name in enumerate(names)})
    lines = told(capsys, folder(tmp_path / "t", rows, covariates=names))
    for name in names:
        assert any(f"`{name.replace(' ', '_')}`" in line for line in lines), name
    (late,) = [line for line in lines if END in line]
    assert late.startswith("error") and "patient P4" in late and "`days_to_MRI_6`" in late


LATE = """days to MRI|MRI_day|weeks_to_ct|mriDate|days_since_diagnosis_to_mri|Date of scan|time to progression|TTP|ttp_days
days_to_recurrence|days to last follow-up|interval to surgery|days_until_death|time_to_next_treatment|hospice|Hospice referral
palliative_care_referral|number of operations|n_surgeries|Num.Cycles|surgery_count|lines_of_therapy_count|number of readmissions
readmitted|length of stay|length_of_hospital_stay|LOS|icu_days|discharge_status|autopsy|second-look surgery|cause_of_death
subsequent_treatment|second_line|re-operation|reirradiation|last_scan|time_on_treatment|cycles_received|end_of_life_care
days_to_last_contact|number_of_chemotherapy_cycles|prior_to_death_days|n_followups"""
EARLY = """prior_surgeries|previous_chemo|number_of_lesions|time_since_diagnosis|days_from_diagnosis_to_baseline|pack_years
neoadjuvant|neoadjuvant_cycles|baseline_kps|months_since_primary|number_of_prior_surgeries|number_of_previous_lines
age_at_mri|AgeAtMRI|Age at scan years|symptom_duration_days|disease_free_interval|months_from_primary_to_brain_metastasis
days_to_birth|time_to_peak|mr_echo_time|ct_slice_thickness|pet_suvmax|scan_site|study_site|number_of_nodes|n_lesions
resection_status|surgery|history_of_relapse|family_history_of_death|preop_kps|treatment_arm|dose_planned|nipple_discharge
los_angeles|scandinavian|number_of_comorbidities|total_lesion_volume|previous_operations|days_to_enrolment"""


@pytest.mark.parametrize("name", LATE.replace("\n", "|").split("|"))
def test_a_name_of_what_comes_later_is_known(name):
    assert named_later(name)


@pytest.mark.parametrize("name", EARLY.replace("\n", "|").split("|"))
def test_a_name_of_what_comes_before_is_left_in_peace(name):
    assert named_later(name) == ""


LATE_TOO = """local_failure|Loco-regional failure|distant_failure|local_control|intracranial control|radionecrosis|radiation_necrosis
cycles_tmz|TMZ_cycles|SRS_courses|volume_6m|KPS at 3 months|weight_3mo|edema_week_12|month3_score|3_month_kps|complications_30d
mortality_90d|30_day_mortality|DMFS|dmfs_days|MFS|EFS|efs_event|DSS|DSS.time|PFS_m|os_mo|OS (months)|PFS (months)|pCR|ypT|ypN
ypT_stage|TRG|tumor_regression_grade|RCB|complication|adverse_event|exitus|Todesursache|Rezidiv|Überleben|décès|récidive
survie|fallecido|muerte|sopravvivenza|overleden|死亡|生存期|vitalstatus|Deadstatus|surv_time|retreatment|repeat_SRS|delivered_dose
new_lesions_3m|time_to_distant_metastasis|treatment_discontinued|lost to follow-up"""
EARLY_TOO = """number_of_lesions_on_mri|number of lesions at ct|Oncotype recurrence score|death_receptor_5|DeathReceptor|dead_space_volume
ct_slice_interval_mm|dfi_months|diagnosis_to_bm_days|pet_uptake_time|mri_acquisition_time_s|ct_scan_time_ms|scan_time_min
injection_to_scan_time|heart_failure|renal failure|weight_loss_6_months|weight_loss_in_3_months|planned_cycles|menstrual_cycles
walk_6m|age_months|M1|cM1|T2w|month_0|week_0|day_1|year_of_diagnosis|rCBV|pcr_ebv|CAG_repeat|risk_5y|primary_tumor_status
completed_education|flair_3D|OSM|lc_subtype|diabetic_complications|cell_cycle_progression|survival_signature|cigarettes_per_day"""


@pytest.mark.parametrize("name", LATE_TOO.replace("\n", "|").split("|"))
def test_endpoints_complications_specimens_and_later_times_are_known_in_their_short_and_foreign_names(name):
    assert named_later(name)


NO_DAY = """pet_time min|scan_time minutes|ct_time ms|mri_interval mm|image_interval cm|study_time s|scan_time h|time_to_enhancement s
time_to_acquisition min|iop_os mmHg|thickness_os µm|nerve_fibre_os um"""
STILL_LATE = """pet_time days|pet_time |mri_interval weeks|time_to_progression min|time_to_death s|death_scan_time min|survival_time min|os h
os hours|os months|os m|pfs Tage|os_event mm|time_to_surgery h|response_volume mL|recurrence_volume mL|residual_volume mL
volume_6m mL|adjuvant_scan_time min|salvage_dose Gy|follow_up_suv g|recurrence_size mm|pressure_fu kPa|volume_fu mL"""


@pytest.mark.parametrize("told", NO_DAY.replace("\n", "|").split("|"))
def test_a_time_that_its_entry_counts_in_minutes_or_that_is_no_time_is_no_day(told):
    name, unit = told.split()
    assert named_later(name) and named_later(name, {"unit": unit}) == "" == named_later(
        name, {"kind": "numeric", "unit": unit}
    )


@pytest.mark.parametrize("told", STILL_LATE.replace("\n", "|").split("|"))
def test_a_unit_excuses_no_name_of_an_outcome_of_treatment_or_of_a_later_time(told):
    name, _, unit = told.partition(" ")
    assert named_later(name, {"unit": unit})


def test_check_and_gate_ask_for_the_unit():
    from survpack.gate.predictors import names_at_baseline

    people, rng = followed(1), np.random.default_rng(1)
    entry = {"kind": "numeric", "unit": "min", "description": "from injection to the scan"}
    people["pet_time"] = rng.uniform(50, 80, len(people))
    for known, warned in ((entry, False), ({"kind": "numeric"}, True)):
        told = " ".join(map(str, check_participants(people, {"pet_time": known}, "here")))
        assert ("`pet_time` is named like" in told) == warned
        cohort = Cohort("x", people, pd.DataFrame(), {"pet_time": known}, {})
        assert names_at_baseline(cohort, pd.DataFrame()).verdict == ("failed" if warned else "passed")


@pytest.mark.parametrize("name", EARLY_TOO.replace("\n", "|").split("|"))
def test_assays_counts_on_a_scan_and_how_a_scan_was_made_are_left_in_peace(name):
    assert named_later(name) == ""


def followed(seed: int, count: int = 80) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    end, lost = rng.exponential(500, count) + 20, rng.uniform(100, 1500, count)
    ids = [f"p{k}" for k in range(count)]
    return pd.DataFrame({"patient_id": ids, "site": "a", "time_days": np.minimum(end, lost), "event": end <= lost})


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["to progression", "to a scan", "of half the deaths", "in months"]))
def test_a_number_that_is_bound_to_the_patients_own_time_is_an_error_whatever_its_name(seed, kind):
    people, rng = followed(seed), np.random.default_rng(seed)
    time, share = people["time_days"], rng.uniform(0.1, 1, len(people))
    people["x"] = {"to progression": time * share, "to a scan": (time * share).round(),
                   "of half the deaths": time.where(share > 0.5, rng.uniform(20, 1500, len(people))),
                   "in months": (time / 30.4375).round(1) * share.round(2)}[kind]  # fmt: skip
    entry = {"kind": "numeric"} | ({"unit": "months"} if kind == "in months" else {})
    assume(kind != "of half the deaths" or (share > 0.5)[people["event"]].mean() > 0.4)
    assert tells_outcome(people, "x", entry)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(-1, 1), st.floats(0, 6.5))
def test_a_number_known_at_baseline_is_no_day_of_the_patients_own_however_well_it_predicts(seed, weight, size):
    rng = np.random.default_rng(seed)
    marker = rng.standard_normal(80)
    end, lost = 500 * np.exp(weight * marker) * rng.weibull(1.3, 80) + 10, rng.uniform(100, 1500, 80)
    people = pd.DataFrame({"time_days": np.minimum(end, lost), "event": end <= lost})
    for x in (np.exp(size + marker / 2), 60 + 9 * marker, np.round(5 + 2 * marker).clip(1), rng.uniform(0, 900, 80)):
        assert tells_outcome(people.assign(x=x), "x", {"kind": "numeric"}) == ""


@pytest.mark.parametrize(
    ("name", "unit", "reaches", "warned"),
    [
        ("week of radiotherapy", None, 9, True),
        ("steroid_days", None, 200, True),
        ("waiting", "days", 90, True),
        ("steroid_days", None, 14, False),
        ("symptom_duration_days", None, 400, False),
        ("time_since_diagnosis", "days", 900, False),
        ("months_since_primary", None, 80, False),
        ("pack_years", "years", 60, False),
        ("age", "years", 80, False),
    ],
)
def test_a_time_that_passes_baseline_is_pointed_at_unless_it_counts_back(name, unit, reaches, warned):
    people = followed(3).assign(**{name: np.linspace(1, reaches, 80)[np.random.default_rng(0).permutation(80)]})
    found = check_participants(people, {name: {"kind": "numeric"} | ({"unit": unit} if unit else {})}, "t")
    assert [finding.severity for finding in found] == ["warning"] * warned
    assert all("is a time that reaches" in finding.found for finding in found)


@pytest.mark.parametrize(
    ("name", "unit"),
    [("pet_uptake_time", "min"), ("pet_uptake_time_min", None), ("mri_acquisition_time_s", "s"), ("ct_scan_time_ms", None),
     ("injection_to_scan_time", "minutes"), ("scan_time_h", None), ("mri_time_sec", None), ("ct_slice_interval_mm", "mm"),
     ("steroid_per_day", None), ("steroid_dose", "mg/day"), ("dfi_months", None), ("diagnosis_to_bm_days", "days")],
)  # fmt: skip
def test_what_counts_in_no_days_is_neither_a_scan_after_the_end_nor_a_time_past_baseline(name, unit):
    people = followed(3).assign(**{name: np.random.default_rng(0).normal(900, 80, 80).round()})
    assert check_participants(people, {name: {"kind": "numeric"} | ({"unit": unit} if unit else {})}, "t") == []


@pytest.mark.parametrize(
    ("unit", "late"), [("days", True), ("d", True), ("weeks after baseline", True), ("min", False)]
)
def test_a_unit_of_the_dictionary_says_whether_a_scans_time_is_a_day(unit, late):
    people = followed(3).assign(mri_time=np.random.default_rng(0).normal(900, 80, 80).round())
    found = check_participants(people, {"mri_time": {"kind": "numeric", "unit": unit}}, "t")
    assert any(finding.severity == "error" and END in finding.found for finding in found) == late


def test_the_images_of_an_adapter_that_knows_days_go_the_same_way():
    images, people = on_days([0.0, 90.0], [400.0, 60.0])
    found = check_images(images.assign(mask_path=""), people, {1: "tumour"}, "public")
    assert [(one.severity, one.patients) for one in found if END in one.found] == [("error", ("p1",))]
    assert isinstance(Cohort("public", people, images, {}, {1: "tumour"}), Cohort)
