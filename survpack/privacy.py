"""What identifies a patient: kept out of what is written, and looked for in what is brought.

`ALLOWED` decides what is written of a DICOM header. `DENIED` is the Basic Application Level Confidentiality Profile of
DICOM PS3.15, table E.1-1, edition 2026c, as dicom-anonymizer lists it; it, and the look of a value (`telltales`), decide
what `folder_findings` reports. Dates become days, and ages over 89 become 90 (HIPAA Safe Harbor, 45 CFR 164.514(b)(2)).
"""

from __future__ import annotations

import gzip
import json
import re
import zipfile
import zlib
from datetime import date, datetime
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
from dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c import ALL_TAGS
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from survpack.cohort import Finding
from survpack.errors import BadInput
from survpack.telltales import OF_THINGS, column_telltales, no_dates, shape, snake, telltales

KEY = ["patient_id", "participant_id"]  # columns of the table that `python -m survpack dicom` keeps outside
OLDEST = 89  # years; above it an age tells who someone is
TEXT = 2**20  # bytes that are read of a text that is no table

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
_TAGS = frozenset((group << 16) + element for group, element, *_ in ALL_TAGS)
DENIED = tuple(key for tag in sorted(_TAGS) if tag_for_keyword(key := keyword_for_tag(tag)))  # overlays have no one tag
_KINDS = ("PN", "DA", "DT", "TM", "UI")

# Denied because anything may have been typed or told there, yet written by converters as a matter of course.
_TYPED = re.compile(r"(?!Patient).*(Description|Comments?|Label|Notes|Time)")
_HARMLESS_PERHAPS = {
    "PatientSize", "PatientWeight", "PatientState", "PatientAge", "PatientSex", "SmokingStatus", "PregnancyStatus",
    "EthnicGroup", "GantryID", "StationName", "ProtocolName", "TimezoneOffsetFromUTC", "StudyID", "ReasonForStudy",
    "DeviceSerialNumber", "InstitutionalDepartmentName", "StructureSetName", "ROIName", "ContrastBolusAgent",
    "MedicalAlerts", "Allergies", "ReasonForTheRequestedProcedure", "Date", "Arbitrary", "Originator", "MAC",
}  # fmt: skip

_COLUMNS = re.compile(
    r"initials|(patients?_?|sub(ject)?_?)?(date_?of_?)?birth(_?date|_?day)?|dob|mrn|geb(urts)?_?(datum|dat|tag)?|"
    r"(date_de_)?naissance|(fecha_de_)?nacimiento|(medical|patient(en)?|hospital)_?(record_?)?(number|no|nr|nummer)|"
    r"hospital_?id|ssn|social_security.*|nhs(_?(number|no|nr))?|(insurance|policy|versicherten)_?(id|number|no|nr|nummer)|"
    r"passport.*|accession(_?number)?|出生日期|生年月日"
)
_NAMES = re.compile(  # a word that is a name, or a name of whom, in a column's name
    r"(patient(en)?s?|pat|pt|sub(ject)?|participants?|first|last|given|family|full|sur|maiden|vor|nach|familien|geburts)?namen?s?"
    r"|(pre)?noms?|nombres?|apellidos?|cog?nome|sobrenome|(voor|achter)?naam|imie|nazwisko"
)
_OF_WHOM = re.compile(
    r"patient(en|in|s)?|pat|pt|paciente|paziente|sub(ject)?|participants?|persons?|first|last|given|family|full|maiden|middle"
    r"|vor|of|the|de|del|du|et|und|and|y|e|i"
)
_IN_SIGNS = re.compile(r"(患者)?(姓名|氏名|名前)|이름|성명|환자명|имя|фамилия|фио|отчество")
_STAFF = re.compile(r"(\w+_)?(physicians?|doctors?|surgeons?|radiologists?)(_names?|_of_record)?")
_PLAIN = re.compile(r"\W*|yes|no|y|n|j|ja|nein|true|false|unknown|none|other|missing|\w?\d+", re.IGNORECASE)
_OF_REGIONS = re.compile(r"index|labels?|values?|colou?r|volume\w*|roi\w*|region|structure|organ|voxels?|tissue")
_OF_CHARTS = re.compile(
    r"(patient|participant|subject)\w*|id|age|sex|gender|mrn|birth\w*|dob|time_days|event|diagnosis|stage"
)
_CONTACTS = re.compile(
    r"(home_?|street_?|email_?)?address|street|(tele)?phone(_?number)?|mobile|fax|e_?mail|zip(_?code)?|post_?(al_?)?code"
)
_BARE = ("name", "names", "namen", "nom", "noms", "nombre", "nome", "naam", "initials",
         "address", "street")  # of a data set or a program, unless in a table  # fmt: skip


def denied(keyword: str) -> bool:
    """Whether a DICOM keyword may identify: listed, or its value is a name, a date, a time or a UID."""
    if keyword in ALLOWED:
        return False
    tag = tag_for_keyword(keyword)
    return tag is not None and (tag in _TAGS or dictionary_VR(tag) in _KINDS)


def denies(element) -> bool:
    """Whether an element of a DICOM header may identify: as `denied`, or private, a curve or an overlay."""
    listed = element.tag in _TAGS or element.tag.group & 0xFF00 in (0x5000, 0x6000) or element.VR in _KINDS
    return element.tag.is_private or (listed and element.keyword not in ALLOWED)


def certain(keyword: str) -> bool:
    """Whether a denied DICOM keyword tells who someone is, and not merely may."""
    return (
        denied(keyword)
        and keyword not in _HARMLESS_PERHAPS
        and (not _TYPED.fullmatch(keyword) or dictionary_VR(tag_for_keyword(keyword)) == "DT")
    )


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


def findings_in_header(path: Path) -> list[Finding]:
    """Identifiers in the header of a NIfTI file, and in the name that gzip keeps of it. Voxels are not read."""
    import nibabel as nib

    findings = _about_stored_name(path)
    try:
        header = nib.load(path).header
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError):
        return findings  # unreadable images are reported where images are checked
    for field in ("descrip", "aux_file", "intent_name", "db_name", "data_type"):
        text = bytes(header[field]).decode("latin-1").strip("\0 ") if field in header else ""
        if re.search(r"time=\d{6}", text, re.I):
            findings.append(_finding("warning", path, f"the time of the scan in `{field}`", "no time", _CLEAR))
        findings += _told(path, telltales(text), f"in the header field `{field}`", _CLEAR)
    for extension in getattr(header, "extensions", []):
        if extension.get_code() == 2:
            findings.append(_finding("error", path, "a DICOM header as NIfTI extension", "no extension", _CLEAR))
        else:
            text = extension.text if hasattr(extension, "text") else str(extension.get_content())
            findings += _told(path, telltales(text), "in a header extension", _CLEAR)
    return findings


def findings_in_sidecar(path: Path) -> list[Finding]:
    """Identifiers in a JSON file: denied keywords, and keys and values that look like a name, date or UID."""
    try:
        content = json.loads(_text_of(path))
    except ValueError:  # no JSON, but perhaps a text
        return findings_in_text(path)
    leaves, findings = list(_leaves(content)), []
    keys = dict.fromkeys(key for above, _ in leaves for key in above)
    strange = no_dates([*keys, *(value for _, value in leaves if isinstance(value, str))])
    telling = {key for key in keys if denied(_keyword(key)) or _of_person(key)}
    things = {key for key in keys if OF_THINGS.search(snake(key))}
    for key in keys:
        told = telltales(key, shape(key) not in strange) if _keyword(key) == key else []
        findings += _told(path, told, f"in the key `{key}`", "delete the entry")
    for above, value in leaves:
        key = next((key for key in above if key in telling), None)
        if key and str(value).strip() not in ("", "n/a", "None"):
            severity = "error" if certain(_keyword(key)) or _of_person(key) else "warning"
            findings.append(_finding(severity, path, f"`{key}`", "only how the image was made", "delete the entry"))
        elif isinstance(value, str) and not things & set(above):
            told = telltales(value, shape(value) not in strange)
            if Path(path).name == "dataset_description.json":  # is about its makers
                told = [one for one in told if "e-mail" not in one[1] and "a date" not in one[1]]
            findings += _told(path, told, f"in `{above[-1] if above else ''}`", "delete the entry")
    return list(dict.fromkeys(findings))


def findings_in_table(path: Path) -> list[Finding]:
    """Identifiers in a table (.tsv, .csv, .xlsx): columns that name people, cells with dates, ages over 89."""
    try:
        tables = _tables(path)
    except (ValueError, KeyError, ImportError, zipfile.BadZipFile):  # no table, but perhaps a text
        if ".xls" not in Path(path).name.lower():
            return findings_in_text(path)
        return [_finding("warning", path, "a workbook that cannot be looked through", "an .xlsx", "save it as one")]
    return [finding for sheet, table in tables.items() for finding in _in_table(path, table, sheet)]


def _in_table(path: Path, table: pd.DataFrame, sheet: str) -> list[Finding]:
    findings = []
    if list(table.columns) == KEY and table[KEY[1]].str.fullmatch(r"sub-\d+").all():
        findings.append(_finding("error", path, "the key of who is who", "it elsewhere", "move it out of the folder"))
    for name, column in table.items():
        filled = column[~column.isin(["", "n/a", "N/A", "nan"])]
        where = f"column `{name}`{sheet}"
        if len(filled) and (severity := _names_people(path, table, name, filled)):
            findings.append(_finding(severity, path, where, "no column that names people", "delete it"))
            continue
        if re.match(r"(.*_)?age(_|$)", snake(name)):
            years = pd.to_numeric(filled, errors="coerce")
            if (years > OLDEST + 1).any() and years.median() < 150:  # days or months are told by their size
                findings.append(_finding("warning", path, f"ages over {OLDEST} in {where}", "90 for all of them",
                                         "write 90 before the table is shared"))  # fmt: skip
        findings += [
            _finding(severity, path, f"{what} in {where}, row {row + 1}", "no personal data",
                     "count days from baseline instead of dates; delete the rest")
            for row, severity, what in column_telltales(filled, name)
        ]  # fmt: skip
    return findings


def findings_in_text(path: Path) -> list[Finding]:
    """Names and birth dates in prose and in headers that are text; the first of each kind.

    Other dates, and long numbers, are warnings: in notes anywhere, in a README and the like only beside a patient.
    """
    name, first = Path(path).name.lower(), {}
    notes = name.endswith(".txt") and not name.startswith(("readme", "licen", "change", "citation", "require"))
    for number, line in enumerate(_text_of(path, TEXT).splitlines(), 1):
        told = telltales(line)
        label = re.match(r"\W*([^\W\d][\w' ]{1,40}?|[0-9a-fA-F]{4}[,|][0-9a-fA-F]{4})[)'\"]?\s*[:=]+\s*(.+)", line)
        if label and _is_name(label[1]) and _PROPER.fullmatch(label[2].strip(" '\"{},;")):
            told = [("error", f"`{label[1]}`")]
        elif re.search(r"birth|\bborn\b|\bdob\b", line, re.I):
            told = [one for one in told if "e-mail" not in one[1]]
        elif notes or _OF_PATIENTS.search(line):
            told = [("error" if "^" in what else "warning", what) for _, what in told if "e-mail" not in what]
        else:
            told = [one for one in told if "^" in one[1]]
        for severity, what in told:
            first.setdefault((severity, what.split(" (")[0]), (severity, f"{what} in line {number}"))
    return _told(path, list(first.values()), "", "delete it")


def findings_in_map(path: Path) -> list[Finding]:
    """As in a text, and keys and values of YAML that look like a name, date or UID; codes for missing may be dates."""
    import yaml

    findings = findings_in_text(path)
    try:
        content = yaml.safe_load(_text_of(path))
    except (yaml.YAMLError, ValueError):
        return findings
    leaves = [(above, str(value)) for above, value in _leaves(content) if "missing" not in above]
    texts = dict.fromkeys([*(key for above, _ in leaves for key in above), *(value for _, value in leaves)])
    told = [
        one for text in texts for one in telltales(text)
        if not any(one[1] in two.found for two in findings)
        and not (_TABLE.search(text) and one[1].startswith("a date"))  # told of where the file is
    ]  # fmt: skip
    return findings + _told(path, told, "", "delete it")


def findings_in_name(path: Path, root: Path, digits: bool = True) -> list[Finding]:
    """Identifiers in the name of a file or folder; a date is certain of a scan alone: tables are named by their release."""
    told = telltales(Path(path).relative_to(root).name, digits)
    if Path(path).is_file() and not _SCAN.search(Path(path).name):
        told = [("warning" if what.startswith("a date") else severity, what) for severity, what in told]
    return _told(path, told, "in the name", "rename it")


def findings_in_file(path: Path) -> list[Finding]:
    """All that identifies, or may identify, a patient in a file; of images the header alone is read."""
    try:
        return _in_file(path)
    except (OSError, EOFError, zlib.error):  # what cannot be read is reported where it is needed
        return []


def _in_file(path: Path) -> list[Finding]:
    name = path.name.lower()
    plain = name.removesuffix(".gz")
    if plain.endswith((".nii", ".hdr")):
        return findings_in_header(path)
    if plain.endswith(".json"):
        return findings_in_sidecar(path)
    if plain.endswith((".tsv", ".csv", ".xlsx", ".xls")):
        return findings_in_table(path)
    if plain.endswith((".yaml", ".yml")):
        return findings_in_map(path)
    if plain.endswith((".txt", ".md", ".rst", ".log", ".xml", ".mha", ".mhd", ".nrrd", ".nhdr")):
        return findings_in_text(path)
    if name == "dicomdir" or name.endswith((".dcm", ".ima")) or _is_dicom(path):
        return [_finding("error", path, "a DICOM file", "NIfTI only", "convert it: python -m survpack dicom")]
    return []


def folder_findings(root: Path, known: frozenset[str] = frozenset()) -> list[Finding]:
    """All that identifies, or may identify, a patient in a folder; headers and tables are read, voxels are not.

    Parameters
    ----------
    root : Path
    known : set of str
        Names of files that are as they must be.

    Returns
    -------
    list of Finding
        "error" for what is certain, "warning" for what only looks like an identifier. That nothing is found
        does not prove the folder anonymous: the face in a head scan and text burnt into pixels are not looked for.
    """
    root, findings = Path(root), []
    paths = sorted(root.rglob("*"))
    strange = no_dates(path.name for path in paths)
    for path in paths:
        if path.name not in known:
            findings += findings_in_name(path, root, shape(path.name) not in strange)
        if path.is_file():
            findings += findings_in_file(path)
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


_OF_PATIENTS = re.compile(
    r"patient|died|death|deceased|admi(ss|tt)|discharg|surger|visit|\bseen\b|\bmrn\b|\bscanned on", re.IGNORECASE
)
_IMAGES = ("nii", "nifti", "image", "imaging", "img", "scan", "volume", "crop", "seg", "segm", "mask", "label", "labels",
           "segmentation", "tumor", "tumour", "lung", "brain", "flair", "tmp", "temp", "output", "data")  # fmt: skip
_PROPER = re.compile(  # John Smith, "Smith, J."
    r"(?!(?:Anon|Unknown|None|Removed|Replaced|Blank|Empty|Deleted|The)\w*)"
    r"(?:[\"'(]?[^\W\d_a-z](?:[^\W\d_]|[.'’-])*[\"'),]?\s*){1,4}"
)
_SCAN = re.compile(
    r"(^|/)[^.]*$|\.(nii|hdr|img|dcm|ima|mha|mhd|nrrd|nhdr|mgz|mgh|mnc|raw|zraw|\d+)(\.gz)?$", re.IGNORECASE
)
_TABLE = re.compile(r"\.(tsv|csv|xlsx?|parquet)(\.gz)?$", re.IGNORECASE)
_CLEAR = "clear the header, or convert the images again with: python -m survpack dicom"


def _finding(severity: str, path: Path, found: str, expected: str, fix: str) -> Finding:
    return Finding(severity, str(path), found, expected, fix)


def _told(path: Path, told: list[tuple[str, str]], where: str, fix: str) -> list[Finding]:
    expected = "a name without personal data" if where == "in the name" else "no personal data"
    return [_finding(severity, path, f"{what} {where}".strip(), expected, fix) for severity, what in told]


def _tables(path: Path) -> dict[str, pd.DataFrame]:
    """The sheets of a table as text; each with what to add to a sentence about it."""
    if ".xls" in Path(path).name.lower():
        sheets = pd.read_excel(path, sheet_name=None, dtype=str, keep_default_na=False)
        named = {f" of sheet `{name}`" if len(sheets) > 1 else "": sheet for name, sheet in sheets.items()}
        return {what: sheet.rename(columns=str) for what, sheet in named.items()}
    text = _text_of(path)
    between = "\t" if ".tsv" in Path(path).name.lower() else max(",;\t|", key=text.partition("\n")[0].count)
    return {"": pd.read_csv(StringIO(text), sep=between, dtype=str, keep_default_na=False)}


def _text_of(path: Path, most: int = -1) -> str:
    """A text file, gzip or not, whatever its encoding; of an image, what stands before the voxels."""
    with Path(path).open("rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        content = (gzip.GzipFile(fileobj=raw) if packed else raw).read(most)
    if Path(path).suffix.lower() in (".mha", ".nrrd"):
        content = re.split(rb"\r?\n\r?\n|ElementDataFile", content)[0]
    try:
        return content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _about_stored_name(path: Path) -> list[Finding]:
    """What the name tells under which a file was compressed: it outlives renaming."""
    with Path(path).open("rb") as stream:
        start = stream.read(1024)
    if start[:2] != b"\x1f\x8b" or not start[3:4] or not start[3] & 8:
        return []
    skipped = 12 + int.from_bytes(start[10:12], "little") if start[3] & 4 else 10
    name = start[skipped:].partition(b"\0")[0].decode("latin-1")
    told = telltales(name)
    if not told and not _same_name(name, Path(path).name):
        told = [("warning", f"another name of the file ('{name}')")]
    return _told(path, told, "kept by gzip", "compress it again with `gzip -n`")


def _same_name(stored: str, own: str) -> bool:
    """Whether a name says no more than another, but for codes and what any image is called."""
    words, known = (set(re.findall(r"[^\W\d_]{3,}", name.lower())) for name in (stored, own))
    return words - known <= set(_IMAGES)


def _is_dicom(path: Path) -> bool:
    """By the preamble, or, where there is none, by how the first element is written."""
    with path.open("rb") as stream:
        start = stream.read(132)
    return start[128:] == b"DICM" or bool(re.match(rb"[\x02\x08]\0[\0\x01\x05\x08\x16]\0(UL|OB|CS|UI|SH)", start))


def _names_people(path: Path, table: pd.DataFrame, name: str, filled: pd.Series) -> str:
    """ "error" where a column names people, "warning" where it may, by its name and values; "" where it does not."""
    plain, texts = snake(name), filled.drop_duplicates()
    if _STAFF.fullmatch(plain):
        return "" if texts.str.fullmatch(_PLAIN).all() else "error"
    if re.fullmatch(r"yob|geburtsjahr|year_of_birth", plain):
        return "warning"
    if not _of_person(name, table=True):
        return ""
    others = [snake(other) for other in table.columns if other != name]
    if plain not in _BARE or plain == "initials" or any(map(_OF_CHARTS.fullmatch, others)):
        return "error"
    if Path(path).name.endswith(("dseg.tsv", "channels.tsv", "electrodes.tsv")) or any(
        map(_OF_REGIONS.fullmatch, others)
    ):
        return "error" if texts.map(_is_two_names).any() else ""  # `name` of labels, not of people
    return "error"


def _is_two_names(text: str) -> bool:
    return bool(re.fullmatch(r"[^\W\d_]{2,}, ?[^\W\d_]{2,}", text)) or "^" in text


def _of_person(name: str, table: bool = False) -> bool:
    """Whether a column of a table, or a key, names people."""
    plain = snake(name)
    told = _COLUMNS.fullmatch(plain) or _CONTACTS.fullmatch(plain) or _STAFF.fullmatch(plain) or _is_names(plain)
    return bool(told) and (table or plain not in _BARE)


def _is_names(plain: str) -> bool:
    """Whether each word of a column's name is `name`, in some language, or says of whom."""
    words = plain.split("_")
    named = [word for word in words if _NAMES.fullmatch(word)]
    rest = [word for word in words if word not in named]
    return bool(_IN_SIGNS.fullmatch(plain)) or bool(named) and all(map(_OF_WHOM.fullmatch, rest))


def _is_name(label: str) -> bool:
    """Whether what follows a label is someone's name."""
    tag = tag_for_keyword(_keyword(label))
    names = bool(re.search(r"name$", plain := snake(label.replace("'s", "")))) and plain not in _BARE
    return (names and _is_names(plain)) or (tag is not None and dictionary_VR(tag) == "PN")


def _keyword(key: str) -> str:
    """A key as a DICOM keyword: 00100010, (0010,0010) and Patient's Name are PatientName."""
    digits = re.sub(r"[(),|\s]", "", str(key))
    if re.fullmatch(r"[0-9a-fA-F]{8}", digits):
        return keyword_for_tag(int(digits, 16)) or str(key)
    words = str(key).replace("'s", "").split()
    return "".join(word[:1].upper() + word[1:] for word in words) if len(words) > 1 else str(key)


def _leaves(content, keys: tuple = ()):
    """Every value of nested JSON, with the keys above it; a column that is described there is no value of its name."""
    if isinstance(content, dict):
        described = {"Description", "LongName", "Levels", "Units"} & set(content)
        for name, value in content.items():
            if not (name == "vr" and value in ("PN", "DA", "DT", "TM", "UI")):  # of DICOM's own JSON
                yield from _leaves(value, (*(() if described else keys), str(name)))
    elif isinstance(content, list):
        for value in content:
            yield from _leaves(value, keys)
    else:
        yield keys, content


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
