"""What identifies a patient: kept out of what is written, and looked for in what is brought.

`ALLOWED` and `DENIED` follow the Basic Application Level Confidentiality Profile of DICOM PS3.15, table E.1-1.
The allowed list decides what is written; the denied list, and the look of a value, what `folder_findings` reports.
Dates become days, and ages over 89 become 90 (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)).
"""

from __future__ import annotations

import json
import re
from datetime import date, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from survpack.cohort import Finding
from survpack.errors import BadInput

OLDEST = 89  # years; above it an age tells who someone is

# DICOM keywords that may be written: how the image was made, never of whom, when or where.
ALLOWED = (
    "Modality", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "PatientPosition", "SliceThickness",
    "SpacingBetweenSlices", "KVP", "XRayTubeCurrent", "Exposure", "ExposureTime", "ConvolutionKernel",
    "ReconstructionDiameter", "FilterType", "MagneticFieldStrength", "EchoTime", "RepetitionTime", "InversionTime",
    "FlipAngle", "ScanningSequence", "SequenceVariant", "MRAcquisitionType", "EchoTrainLength", "NumberOfAverages",
    "PixelBandwidth", "Units", "CorrectedImage", "DecayCorrection", "ReconstructionMethod",
    "AttenuationCorrectionMethod", "ScatterCorrectionMethod", "RadionuclideHalfLife", "Radiopharmaceutical",
)  # fmt: skip

# Keywords that name, place or number someone. Every keyword whose value is a name, a date, a time or a UID is also
# denied (`denied`), and so is every private tag.
DENIED = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientBirthTime", "PatientBirthName", "PatientMotherBirthName",
    "OtherPatientIDs", "OtherPatientNames", "IssuerOfPatientID", "PatientAddress", "PatientTelephoneNumbers",
    "PatientTelecomInformation", "PatientAge", "PatientSize", "PatientWeight", "PatientComments", "PatientState",
    "PatientReligiousPreference", "PatientInstitutionResidence", "EthnicGroup", "Occupation", "MilitaryRank",
    "CountryOfResidence", "RegionOfResidence", "MedicalRecordLocator", "MedicalAlerts", "Allergies",
    "AdditionalPatientHistory", "SmokingStatus", "PregnancyStatus", "InsurancePlanIdentification", "AdmissionID",
    "AdmittingDiagnosesDescription", "ServiceEpisodeID", "ServiceEpisodeDescription", "CurrentPatientLocation",
    "AccessionNumber", "StudyID", "StudyDate", "StudyTime", "SeriesDate", "SeriesTime", "AcquisitionDate",
    "AcquisitionTime", "AcquisitionDateTime", "ContentDate", "ContentTime", "InstanceCreationDate",
    "InstitutionName", "InstitutionAddress", "InstitutionalDepartmentName", "StationName", "DeviceSerialNumber",
    "DeviceUID", "DetectorID", "GantryID", "PlateID", "CassetteID", "GeneratorID", "SourceSerialNumber",
    "ReferringPhysicianName", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers", "OperatorsName",
    "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "PhysiciansOfRecord", "RequestingPhysician",
    "ResponsiblePerson", "ResponsibleOrganization", "PersonName", "PersonAddress", "PersonTelephoneNumbers",
    "ClinicalTrialSubjectID", "ClinicalTrialSiteName", "ClinicalTrialSponsorName", "ClinicalTrialProtocolName",
    "StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID", "PerformedLocation",
    "PerformedStationName", "RequestingService", "StationAETitle", "ContentCreatorName", "ReviewerName",
    "VerifyingOrganization", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments",
    "StudyComments", "VisitComments", "DerivationDescription", "AcquisitionProtocolDescription", "AcquisitionComments",
    "RequestedProcedureDescription", "PerformedProcedureStepDescription", "RequestedProcedureID",
    "PerformedProcedureStepID", "ScheduledProcedureStepID", "ReasonForStudy", "ReasonForTheRequestedProcedure",
    "StructureSetLabel", "StructureSetName", "ROIName", "ContrastBolusAgent", "TextString", "UnformattedTextValue",
    "IconImageSequence", "ReferencedPatientSequence", "OriginalAttributesSequence", "RequestAttributesSequence",
    "TimezoneOffsetFromUTC",
)  # fmt: skip

# Denied because anything may have been typed or told there, yet written by converters as a matter of course.
_HARMLESS_PERHAPS = {
    "PatientSize", "PatientWeight", "PatientState", "SmokingStatus", "PregnancyStatus", "EthnicGroup", "GantryID",
    "StationName", "StudyDescription", "SeriesDescription", "ProtocolName", "ImageComments", "DerivationDescription",
    "AcquisitionProtocolDescription", "AcquisitionComments", "RequestedProcedureDescription", "StudyTime", "StructureSetLabel", "StructureSetName", "ROIName", "ContrastBolusAgent",
    "AcquisitionTime", "SeriesTime", "ContentTime", "TimezoneOffsetFromUTC", "StudyID", "ReasonForStudy",
    "DeviceSerialNumber", "InstitutionalDepartmentName", "PatientAge", "PerformedProcedureStepDescription",
    "AdmittingDiagnosesDescription", "MedicalAlerts", "Allergies", "ReasonForTheRequestedProcedure",
}  # fmt: skip

_COLUMNS = re.compile(
    r"(patients?_?|sub(ject)?_?|participants?_?)?((first|last|given|family|full|sur|maiden)_?)?names?|initials|"
    r"(date_?of_?)?birth(_?date|_?day)?|dob|mrn|(medical|patient|hospital)_?(record_?)?(number|no|nr)|hospital_?id|"
    r"(home_?|street_?|email_?)?address|street|(tele)?phone(_?number)?|mobile|fax|e_?mail|ssn|social_security.*|"
    r"nhs_?number|insurance.*|passport.*|zip(_?code)?|post_?(al_?)?code|accession(_?number)?|.*physician.*"
)
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATES = (
    (re.compile(r"(?<!\d)(\d{4})([-/._])(\d{1,2})\2(\d{1,2})(?!\d)"), (1, 3, 4)),
    (re.compile(r"(?<!\d)(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?!\d)"), (4, 3, 1)),
    (re.compile(r"(?<!\d)(\d{1,2})([-/.])(\d{1,2})\2(\d{4})(?!\d)"), (4, 1, 3)),  # the month first
    (re.compile(r"(?<!\d)(?<!\d\.)(\d{4})(\d{2})(\d{2})(?:\d{6})?(?!\d|\.\d{2})"), (1, 2, 3)),
)
_NAMED_MONTH = re.compile(rf"(?<!\d)\d{{1,2}}[-/ ._]?(?:{_MONTHS})[a-z]*[-/ ._,]*(?:19|20)\d\d(?!\d)", re.I)
_TELLTALES = (
    ("error", "a name as DICOM writes it", re.compile(r"[^\W\d_]{2,}\^[^\W\d_]+")),
    ("error", "an e-mail address", re.compile(r"[\w.+-]+@[\w-]+\.[A-Za-z]{2,}")),
    ("error", "a DICOM UID", re.compile(r"(?<![\d.])[0-2](?:\.\d+){6,}(?![\d.])")),
    ("warning", "a long number, as a hospital gives patients", re.compile(r"(?<!\d)(?<!\d\.)\d{7,}(?!\d|\.\d)")),
)


def denied(keyword: str) -> bool:
    """Whether a DICOM keyword may identify: listed, or its value is a name, a date, a time or a UID."""
    from pydicom.datadict import dictionary_VR, tag_for_keyword

    if keyword in ALLOWED:
        return False
    tag = tag_for_keyword(keyword)
    return keyword in DENIED or (tag is not None and dictionary_VR(tag) in ("PN", "DA", "DT", "TM", "UI"))


def certain(keyword: str) -> bool:
    """Whether a denied DICOM keyword tells who someone is, and not merely may."""
    return denied(keyword) and keyword not in _HARMLESS_PERHAPS


def capped_age(years: float) -> float:
    """The age in whole years, 90 for all over 89; NaN stays NaN."""
    return float("nan") if pd.isna(years) else float(min(int(years), OLDEST + 1))


def days_between(first: str | date, second: str | date) -> int:
    """Days from `first` to `second`, each a date or a text such as 20190412 or 2019-04-12.

    Raises
    ------
    BadInput
        Where one of them is no date.
    """
    return (_date(second) - _date(first)).days


def telltales(text: str) -> list[tuple[str, str]]:
    """What in a text looks like an identifier: (severity, what it looks like) pairs."""
    found = [(severity, f"{what} ('{hit[0]}')") for severity, what, rule in _TELLTALES if (hit := rule.search(text))]
    day = _date_in(text)
    if day:  # a date is a long number too: told once, as what it is
        found = [one for one in found if day not in one[1]] + [("error", f"a date ('{day}')")]
    return found


def findings_in_header(path: Path) -> list[Finding]:
    """Identifiers in the header of a NIfTI file: free text fields and extensions. Voxels are not read."""
    import nibabel as nib

    try:
        header = nib.load(path).header
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError):
        return []  # unreadable images are reported where images are checked
    findings = []
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        text = bytes(header[field]).decode("latin-1").strip("\0 ") if field in header else ""
        if re.search(r"time=\d{6}", text, re.I):
            findings.append(_finding("warning", path, f"the time of the scan in `{field}`", "no time", _CLEAR))
        findings += [
            _finding(severity, path, f"{what} in the header field `{field}`", "no personal data", _CLEAR)
            for severity, what in telltales(text)
        ]
    for extension in getattr(header, "extensions", []):
        if extension.get_code() == 2:
            findings.append(_finding("error", path, "a DICOM header as NIfTI extension", "no extension", _CLEAR))
        else:
            text = extension.text if hasattr(extension, "text") else str(extension.get_content())
            findings += [
                _finding(severity, path, f"{what} in a header extension", "no personal data", _CLEAR)
                for severity, what in telltales(text)
            ]
    return findings


def findings_in_sidecar(path: Path) -> list[Finding]:
    """Identifiers in a JSON file: denied keywords, and values that look like a name, date or UID."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, OSError):
        return []
    findings = []
    for key, value in _leaves(content):
        if denied(key) and str(value).strip() not in ("", "n/a", "None"):
            severity = "error" if certain(key) else "warning"
            findings.append(_finding(severity, path, f"`{key}`", "only how the image was made", "delete the entry"))
        elif key != "Version":  # of a program: the first digits of a hash may look like any number or date
            shown = [one for one in telltales(str(value)) if isinstance(value, str) and not _is_reference(value)]
            findings += [
                _finding(severity, path, f"{what} in `{key}`", "no personal data", "delete the entry")
                for severity, what in shown
            ]
    return findings


def findings_in_table(path: Path) -> list[Finding]:
    """Identifiers in a table (.tsv, .csv): columns that name people, cells with dates, ages over 89."""
    try:
        table = pd.read_csv(path, sep=None, engine="python", dtype=str, keep_default_na=False, encoding="utf-8-sig")
    except (ValueError, OSError):
        return []
    findings = []
    for name in table.columns:
        filled = table[name][~table[name].isin(["", "n/a", "N/A", "nan"])]
        if _COLUMNS.fullmatch(_snake(name)) and len(filled) and not _of_labels(path, name):
            findings.append(_finding("error", path, f"column `{name}`", "no column that names people", "delete it"))
            continue
        if re.match(r"(.*_)?age(_|$)", _snake(name)):
            years = pd.to_numeric(filled, errors="coerce")
            if (years > OLDEST + 1).any() and years.median() < 150:  # days or months are told by their size
                findings.append(
                    _finding("error", path, f"ages over {OLDEST} in `{name}`", "90 for all of them", "write 90")
                )
        seen = {}
        measured = pd.to_numeric(filled, errors="coerce").notna().all() and not re.search(r"id|num|no", _snake(name))
        for row, cell in filled.items():
            for severity, what in telltales(cell):
                if measured and severity == "warning":
                    continue  # a volume in mm³ is a long number and no patient's
                seen.setdefault((severity, what.split(" (")[0]), (row, what))
        findings += [
            _finding(severity, path, f"{what} in column `{name}`, row {row + 1}", "no personal data",
                     "count days from baseline instead of dates; delete the rest")
            for (severity, _), (row, what) in seen.items()
        ]  # fmt: skip
    return findings


def findings_in_name(path: Path, root: Path) -> list[Finding]:
    """Identifiers in the name of a file or folder."""
    return [
        _finding(severity, path, f"{what} in the name", "a name without personal data", "rename it")
        for severity, what in telltales(Path(path).relative_to(root).name)
    ]


def folder_findings(root: Path) -> list[Finding]:
    """All that identifies, or may identify, a patient in a folder; headers and tables are read, voxels are not.

    Returns
    -------
    list of Finding
        "error" for what is certain, "warning" for what only looks like an identifier. That nothing is found
        does not prove the folder anonymous: the face in a head scan and text burnt into pixels are not looked for.
    """
    root, findings = Path(root), []
    for path in sorted(root.rglob("*")):
        findings += findings_in_name(path, root)
        if path.is_dir():
            continue
        name = path.name.lower()
        if name.endswith((".nii", ".nii.gz")):
            findings += findings_in_header(path)
        elif name.endswith(".json"):
            findings += findings_in_sidecar(path)
        elif name.endswith((".tsv", ".csv")):
            findings += findings_in_table(path)
        elif name == "dicomdir" or name.endswith((".dcm", ".ima")):
            findings.append(
                _finding("error", path, "a DICOM file", "NIfTI only", "convert it: python -m survpack dicom")
            )
    return sorted(findings, key=lambda finding: finding.severity)


def suppressed(counts: pd.DataFrame, below: int = 5) -> pd.DataFrame:
    """A table of counts in which small ones cannot be read, nor worked out from the totals.

    Counts of 1 to `below - 1` become "<5". Row and column totals are taken to be public, so that alone can often
    be undone. Hence complementary suppression: while the totals leave a small cell only one possible value (its
    least and greatest are sought by linear programming, exact for such tables), the cheapest rectangle of cells
    through it, or in a table of one line the next cell, becomes "*", which tells nothing. Where no cell is left to
    hide, the small ones become "*" themselves. A count that its totals alone give away (4 in a row of 4) stays
    known: withhold those totals. A zero tells of nobody; it is hidden only where it must be.

    Parameters
    ----------
    counts : DataFrame of int, shape (rows, columns)
        Without its totals.
    below : int

    Returns
    -------
    DataFrame of str
    """
    values = counts.to_numpy()
    small = (values > 0) & (values < below)
    hidden, vague = small.copy(), np.zeros_like(small)  # not shown as it is; of these, shown as "*"
    while (cell := _determined(values, small, hidden, vague, below)) is not None:
        more = _companions(values, hidden, cell)
        if more:
            for spot in more:
                hidden[spot] = vague[spot] = True
        elif not vague[small].all():
            vague |= small
        else:
            break
    shown = np.where(vague, "*", np.where(hidden, f"<{below}", values.astype(str)))
    return pd.DataFrame(shown, index=counts.index, columns=counts.columns)


def _companions(values, hidden, cell) -> list[tuple[int, int]]:
    """The shown cells that, hidden too, let a cell vary against its totals at the least loss of counts."""
    row, column = cell
    if 1 in values.shape:
        groups = [[tuple(spot)] for spot in np.argwhere(~hidden).tolist()]
    else:
        groups = [
            [spot for spot in ((row, c), (r, column), (r, c)) if not hidden[spot]]
            for r in range(values.shape[0])
            for c in range(values.shape[1])
            if r != row and c != column
        ]
    cost = values.sum() + 1  # a zero hides little: rather two counts than one of them
    return min(filter(None, groups), key=lambda group: sum(values[spot] or cost for spot in group), default=[])


def _determined(values, small, hidden, vague, below) -> tuple[int, int] | None:
    """The first small cell to which totals and shown cells leave one value; None where there is none."""
    from scipy.optimize import linprog

    at = np.argwhere(hidden)
    if not len(at):
        return None
    lines = [(axis, line) for axis in (0, 1) if values.shape[1 - axis] > 1 for line in range(values.shape[axis])]
    equations = np.array([[float(cell[axis] == line) for cell in at] for axis, line in lines]).reshape(-1, len(at))
    sums = [np.where(hidden, values, 0).take(line, axis=axis).sum() for axis, line in lines]
    bounds = [(0, values.sum()) if vague[tuple(cell)] else (1, below - 1) for cell in at]
    for number, cell in enumerate(at):
        if small[tuple(cell)]:
            goal = np.eye(len(at))[number]
            least, negative = (linprog(way * goal, A_eq=equations, b_eq=sums, bounds=bounds).fun for way in (1, -1))
            if round(least) == round(-negative):
                return tuple(cell.tolist())
    return None


_CLEAR = "clear the header, or convert the images again with: python -m survpack dicom"


def _finding(severity: str, path: Path, found: str, expected: str, fix: str) -> Finding:
    return Finding(severity, str(path), found, expected, fix)


def _of_labels(path: Path, column: str) -> bool:
    """Whether a column names labels, not people: `name` in BIDS's dseg.tsv."""
    return column == "name" and Path(path).name.endswith("dseg.tsv")


def _leaves(content, key: str = ""):
    """Every value of nested JSON, with the nearest key above it."""
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _leaves(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _leaves(value, key)
    else:
        yield key, content


def _is_reference(value: str) -> bool:
    """Whether a text is a DOI or web address: numbers in it are no patient's."""
    return bool(re.match(r"(https?://|doi:|10\.\d{4,}/)", value.strip()))


def _snake(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", str(name)).lower()).strip("_")


def _date_in(text: str) -> str | None:
    """The first stretch of a text that is a date a patient may have lived."""
    for rule, (year, month, day) in _DATES:
        for hit in rule.finditer(text):
            try:
                found = date(int(hit[year]), int(hit[month]), int(hit[day]))
            except ValueError:
                continue
            if 1900 <= found.year <= 2099:
                return hit[0]
    hit = _NAMED_MONTH.search(text)
    return hit[0] if hit else None


def _date(value: str | date) -> date:
    if isinstance(value, datetime):
        return value.date()
    if isinstance(value, date):
        return value
    for form in ("%Y%m%d", "%Y-%m-%d", "%Y.%m.%d"):
        try:
            return datetime.strptime(str(value).strip(), form).date()
        except ValueError:
            continue
    raise BadInput(f"'{value}' is no date; write it as 20190412 or 2019-04-12.")
