"""A plain table of paths and a column map, `cohort.yaml`: a cohort of one's own that is not in BIDS.

    table: clinical.csv                  or .tsv, .xlsx (and `sheet`)
    patient_id: PatientID                the columns, as they are called there
    site: Hospital                       optional; who has none, or `unknown`, is of no site
    time_days: {column: OS, unit: months}
    event: {column: status, codes: {dead: true, alive: false}}
    missing: [999, "--"]                 codes for missing, in every column
    covariates:
      age: {column: Age, kind: numeric, unit: years}
      sex: {column: Sex, kind: categorical, levels: [f, m]}
    images:                            optional
      ct: {path: "scans/{PatientID}/ct.nii.gz", mask: "scans/{PatientID}/tumour.nii.gz"}    or a column of paths
      pt: {path: PET, mask: PETMask, day: {column: PET day, unit: days}}    from baseline; else 0
    labels: {1: tumour}
    features: {prefix: original_}      optional: what was measured elsewhere; or columns: […], pattern: a regular
                                       expression, and file: another table (CSV, Excel, parquet) with a row a patient
    overlaps: [other]                  optional: cohorts that have some of these patients; no_overlap: those that have none

Paths are relative to the folder, or absolute. A path made from a pattern may be absent for a patient who has no such
image. Columns that the map does not name may select patients; they predict nothing. Scans are of one session, `baseline`;
one that was taken over 30 days after the patient's first is of a later one, and no crop is cut from it. Features are numbers,
however many: models choose among them inside the training fold; a column that is already id, outcome, site or covariate is
none of them. With features, or with the chart alone, no image is needed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, ValidationError

from survpack import params_file
from survpack.adapters.bids import NAMES
from survpack.adapters.reading import (
    DAYS,
    MISSING,
    coded,
    in_days,
    need,
    numbers,
    read_table,
    read_wide,
    refuse_twice,
    told_site,
)
from survpack.checks import CENTURY, spelled_alike
from survpack.cohort import IMAGES, TUMOUR, listed
from survpack.errors import BadInput

NAME = "table"
TABLE = "cohort.yaml"
FOLDERS = ()  # the folder's name is the cohort's
SITE = "single"
OUTCOMES = {"survival": ("time_days", "event")}
MODALITIES = (*NAMES, "mask")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Time(_Strict):
    """The column of the time from baseline, and its unit."""

    column: str
    unit: Literal["days", "weeks", "months", "years"]


class Event(_Strict):
    """The column of the status, and what each code in it means: true for the event."""

    column: str
    codes: dict[str, bool]


class Covariate(_Strict):
    """A baseline covariate; ordered and categorical ones have levels."""

    column: str
    kind: Literal["numeric", "ordered", "categorical"]
    unit: str | None = None
    levels: list[str] | None = None
    description: str | None = None


class Image(_Strict):
    """A pattern with columns in braces, or a column of paths; `mask` alone where there is only a segmentation."""

    path: str = ""
    mask: str = ""
    day: Time | None = None  # from baseline on, negative before; absent, all are of day 0


class Features(_Strict):
    """Numbers measured elsewhere, such as radiomics or an encoder's: columns of the table, or of a file of their own."""

    columns: list[str] = []
    prefix: str = ""
    pattern: str = ""
    file: str = ""
    sheet: str | None = None
    patient_id: str = ""


class Map(_Strict):
    """What cohort.yaml says."""

    table: str
    sheet: str | None = None
    patient_id: str
    site: str | None = None
    time_days: Time
    event: Event
    covariates: dict[str, Covariate] = {}
    missing: list[str] = []
    images: dict[str, Image] = {}
    features: Features | None = None
    labels: dict[int, str] = {1: "tumour"}
    overlaps: list[str] = []
    no_overlap: list[str] = []


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: the outcome in days, the covariates by their new names, and all other columns as text."""
    said = column_map(root)
    source, path = _source(root, said)
    kept = source.drop(columns=[said.patient_id, said.time_days.column, said.event.column], errors="ignore")
    time = numbers(source[said.time_days.column])
    table = pd.DataFrame({
        "patient_id": source[said.patient_id],
        "site": told_site(source[said.site]) if said.site else SITE,
        "time_days": time.map(lambda days: days if isinstance(days, str) else days * DAYS[said.time_days.unit]),
        "event": coded(source[said.event.column], said.event.codes, path),
    })  # fmt: skip
    covariates = {
        name: numbers(source[entry.column]) if entry.kind == "numeric" else source[entry.column]
        for name, entry in said.covariates.items()
    }
    table = pd.concat([table, pd.DataFrame(covariates, table.index)], axis=1)  # a column at a time, many take minutes
    wide = set(_features_of(source, said, path)) if said.features and not said.features.file else set()
    return table.join(kept[[column for column in kept if column not in table and column not in wide]])


def features(root: Path) -> pd.DataFrame:
    """What was measured elsewhere: `patient_id`, then a column of floats a feature; no row where there is none.

    Raises
    ------
    BadInput
        For columns that are not there or hold no numbers, a patient listed twice, and ids none of which are the table's.
    """
    said = column_map(root)
    if not said.features:
        return pd.DataFrame(columns=["patient_id"])
    source, path = _source(root, said)
    key, ids = said.patient_id, source[said.patient_id]
    if said.features.file:
        path, key = Path(root) / said.features.file, said.features.patient_id or said.patient_id
        source = read_wide(path, key, missing={*MISSING, *said.missing}, sheet=said.features.sheet or 0)
    names = _features_of(source, said, path, key)
    given = source[names]
    dated = given.select_dtypes(["datetime", "datetimetz", "timedelta"])  # pandas makes nanoseconds of them
    given = given.astype(dict.fromkeys(dated, str))
    found = given.apply(pd.to_numeric, errors="coerce").astype(float)
    odd = (found.isna() & given.notna()) | np.isinf(found)
    if odd.to_numpy().any():
        name = odd.columns[odd.any()][0]
        raise BadInput(
            f"{path}: column `{name}` ({odd.any().sum()} such columns) has what is no number in row "
            f"{int(odd[name].argmax()) + 1}, expected features of numbers; name those wanted by `columns`, `prefix` or "
            "`pattern`, or correct it there."
        )
    found = pd.concat([source[key].astype(str).str.strip().rename("patient_id"), found], axis=1)[
        source[key].notna().to_numpy()
    ]
    twice = found["patient_id"][found["patient_id"].duplicated()]
    if len(twice):
        raise BadInput(
            f"{path}: patient {twice.iloc[0]} has several rows, expected one a patient; keep that at baseline."
        )
    strangers = found["patient_id"][~found["patient_id"].isin(ids)]
    alike = spelled_alike(strangers, ids[~ids.isin(found["patient_id"])].dropna())
    if alike and len(strangers) < len(found):
        raise BadInput(
            f"{path}: {len(strangers)} of {len(found)} ids are not in {said.table} ({alike}), expected ids as there, zeros "
            "and case too; write them alike."
        )
    if len(strangers) == len(found):
        hint = alike or (f"{found['patient_id'].iloc[0]} here" if len(found) else "no row")
        raise BadInput(f"{path}: features of nobody in {said.table} ({hint}), expected ids as there; write them alike.")
    return found.reset_index(drop=True)


def _features_of(source: pd.DataFrame, said: Map, path: Path, key: str = "") -> list[str]:
    """Names of the columns that are features."""
    asked, known = said.features, [column for column in source if column != key]
    need(asked.columns, source, path)
    names = set(asked.columns)
    if asked.prefix:
        names |= {column for column in known if column.startswith(asked.prefix)}
    if asked.pattern:
        names |= {column for column in known if re.search(asked.pattern, column)}
    if not (asked.columns or asked.prefix or asked.pattern):
        names = set(known)
    names -= _used(said)
    if not names:
        told = listed(known)
        raise BadInput(
            f"{path}: no column begins with or matches `features` of {TABLE} (columns found: {told}); correct it there."
        )
    found = [column for column in known if column in names]
    if "patient_id" in found:
        raise BadInput(
            f"{path}: column `patient_id` would be a feature, expected ids under that name; rename it, or leave it out of "
            f"`features` in {TABLE}."
        )
    refuse_twice(path, found, (asked.sheet if asked.file else said.sheet) or 0)
    return found


def _used(said: Map) -> set[str]:
    """Columns that are ids, outcome, site or covariates: no prefix and no pattern makes a feature of them."""
    own = {said.patient_id, said.time_days.column, said.event.column, *([said.site] if said.site else [])}
    return own | {entry.column for entry in said.covariates.values()}


def dictionary(root: Path) -> dict[str, dict]:
    """The covariates, as `Cohort.dictionary` has them."""
    entries = column_map(root).covariates
    return {name: entry.model_dump(exclude_none=True, exclude={"column"}) for name, entry in entries.items()}


def overlaps(root: Path) -> tuple[list[str], list[str]]:
    """Cohorts that are said to have some of these patients, and those said to have none."""
    said = column_map(root)
    return said.overlaps, said.no_overlap


def labels(root: Path) -> dict[int, str]:
    """What each number in a mask means."""
    return {number: name for number, name in column_map(root).labels.items() if number}


def discover(root: Path) -> pd.DataFrame:
    """One row an image, at day 0 or the day that its column tells (NaN where that is empty).

    Raises
    ------
    BadInput
        Where a pattern fits no file at all, or a day is no number of days.
    """
    from survpack.preprocess import BASELINE_DAYS

    said = column_map(root)
    source, path = _source(root, said)
    rows = []
    for modality, entry in said.images.items():
        images = _paths(entry.path, source, root, path, f"images.{modality}.path")
        masks = _paths(entry.mask, source, root, path, f"images.{modality}.mask")
        days = _days(entry.day, source, path, f"images.{modality}.day")
        for patient, day, image, mask in zip(source[said.patient_id], days, images, masks, strict=True):
            if image or (mask and modality == "mask"):
                rows.append([patient, "baseline", day, modality, image, mask])
    images = pd.DataFrame(rows, columns=IMAGES).drop_duplicates(["patient_id", "modality"]).reset_index(drop=True)
    nearest = images.sort_values("day", key=abs, kind="stable").groupby("patient_id")["day"].first()
    later = images["day"] > images["patient_id"].map(nearest) + BASELINE_DAYS
    return images.assign(session=images["session"].mask(later, "day " + images["day"].map("{:g}".format)))


def imaged(root: Path) -> bool:
    """Whether the map names images."""
    return bool(column_map(root).images)


def column_map(root: Path) -> Map:
    """Read and validate cohort.yaml.

    Raises
    ------
    BadInput
        With the first mistake in it, as one sentence.
    """
    path = Path(root) / TABLE
    if not path.exists():
        raise BadInput(f"{path} not found: it maps the columns of your table (data/README.md shows one).")
    try:  # as text: YAML would read the code `no` as false, and 1e3 or 012 as other than it is written
        said = Map.model_validate(params_file.read(path, as_text=True))
    except ValidationError as error:
        raise BadInput(f"{path}: {_first(error)}") from None
    wrong = _wrong(said)
    if wrong:
        raise BadInput(f"{path}: {wrong}")
    return said


def _wrong(said: Map) -> str:
    """What the types do not tell."""
    for name, entry in said.covariates.items():
        if entry.kind != "numeric" and not entry.levels:
            return f"covariates.{name} is {entry.kind} but has no levels; list them, the lowest first."
        if name in ("patient_id", "site", "time_days", "event", "segmented"):
            return f"covariates.{name} has a name that means something else here; give it another."
        if twice := [level for level in entry.levels or [] if entry.levels.count(level) > 1]:
            return f"covariates.{name} has the level '{twice[0]}' twice; list each level once."
    strange = [modality for modality in said.images if modality not in MODALITIES]
    if strange:
        return f"images has {', '.join(strange)}, but takes {', '.join(MODALITIES)}; rename it."
    if not (said.images or said.features or said.covariates):
        return "no images, no features and no covariates; name what is to predict."
    if asked := said.features:
        if not (asked.columns or asked.prefix or asked.pattern or asked.file):
            return "features names no columns; give `columns`, a `prefix`, a `pattern`, or a `file` of its own."
        try:
            re.compile(asked.pattern)
        except re.error as error:
            return f"features.pattern '{asked.pattern}' is no pattern ({error}); write a prefix, or mend it."
        both = [column for column in asked.columns if column in _used(said)]
        if both:
            return f"features.columns has {both[0]}, which is used as id, outcome or covariate; take it out of one."
    for modality, entry in said.images.items():
        if not (entry.mask if modality == "mask" else entry.path):
            return f"images.{modality} has no {'mask' if modality == 'mask' else 'path'}; give it."
    if not set(said.labels.values()) & set(TUMOUR):
        return f"no label is named {' or '.join(TUMOUR)} ({', '.join(said.labels.values())}); rename what is tumour."
    meaning: dict[str, tuple[str, bool]] = {}
    for code, event in said.event.codes.items():
        other, same = meaning.setdefault(code.strip().casefold(), (code, event))
        if same != event:
            return (
                f"event.codes has '{other}' and '{code}', which differ only in case (case is not told apart) and mean two "
                "things; keep one."
            )
    if set(said.event.codes.values()) != {True, False}:
        return "event.codes needs a code for the event (true) and one for censored (false); give both."
    return ""


def _first(error: ValidationError) -> str:
    first, where = error.errors()[0], ".".join(map(str, error.errors()[0]["loc"])) or "the file"
    more = f" ({error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "missing":
        return f"no {where}; add it (data/README.md shows a whole file){more}."
    if first["type"] == "extra_forbidden":
        return f"{where} is not known; take it out or correct its spelling{more}."
    expected = first["msg"].removeprefix("Input should be ").rstrip(".")
    return f"{where} is {first['input']!r}, expected {expected}; correct it there{more}."


def _source(root: Path, said: Map) -> tuple[pd.DataFrame, Path]:
    """The table as text, codes for missing as NaN (never in the column of ids, nor where they are a level)."""
    path = Path(root) / said.table
    stamp = (path.stat().st_mtime_ns, path.stat().st_size) if path.exists() else ()
    return _read(path, said.model_dump_json(), stamp), path


@lru_cache(maxsize=1)
def _read(path: Path, told: str, stamp: tuple) -> pd.DataFrame:
    """Read once while neither the file nor its map changes: thousands of columns take seconds."""
    said = Map.model_validate_json(told)
    table = read_table(path, missing=(), sheet=said.sheet or 0)
    levels = {entry.column: entry.levels or [] for entry in said.covariates.values()}
    days = [entry.day.column for entry in said.images.values() if entry.day]
    columns = [*_used(said), *days]
    need(columns, table, path)
    refuse_twice(path, columns, said.sheet or 0)
    missing = {*MISSING, *said.missing} - set(said.event.codes)

    def without(part: pd.DataFrame, codes: set[str]) -> pd.DataFrame:
        number = {float(code) for code in codes if re.fullmatch(r"-?\d+(\.\d+)?", code)}  # Excel writes 999 as 999.0
        found = part.isin(codes)
        if number:
            found |= part.apply(pd.to_numeric, errors="coerce").isin(number)
        return part.mask(found)

    own = {said.patient_id, *levels}
    parts = [without(table[[name for name in table if name not in own]], missing)]
    parts += [without(table[[name]], missing - set(levels[name])) for name in levels if name != said.patient_id]
    ids = table[[said.patient_id]].mask(table[[said.patient_id]] == "")
    return pd.concat([ids, *parts], axis=1)[list(table)].dropna(how="all").reset_index(drop=True)


def _days(day: Time | None, source: pd.DataFrame, table: Path, where: str) -> pd.Series:
    """The day of each row's scan, from baseline."""
    if day is None:
        return pd.Series(0.0, source.index)
    days = in_days(source[day.column], day.unit)
    dates = days.map(lambda value: isinstance(value, str) or abs(value) > CENTURY)
    if dates.any():
        raise BadInput(
            f"{table}: `{day.column}` ({where}) is a date or no number in row {int(dates.argmax()) + 1}, expected {day.unit} "
            "from baseline; count the days from baseline."
        )
    return days


def _paths(pattern: str, source: pd.DataFrame, root: Path, table: Path, where: str) -> list[str]:
    """A path a row, "" where there is none."""
    if not pattern:
        return [""] * len(source)
    columns = [*dict.fromkeys(re.findall(r"\{([^{}]*)\}", pattern))]
    if not columns:
        if pattern not in source:
            raise BadInput(
                f"{Path(root) / TABLE}: {where} is '{pattern}', neither a column of {table.name} nor a pattern with a "
                f"column in braces, such as '{{PatientID}}/ct.nii.gz' (columns found: {', '.join(source)})."
            )
        return [str(root / path) if isinstance(path, str) else "" for path in source[pattern]]
    need(columns, source, table)
    made = source[columns].apply(lambda row: re.sub(r"\{([^{}]*)\}", lambda name: str(row[name[1]]), pattern), axis=1)
    there = [str(root / path) if (root / path).exists() else "" for path in made]
    if not any(there):
        raise BadInput(
            f"{Path(root) / TABLE}: {where} fits no file (the first would be {root / made.iloc[0]}); correct the pattern."
            if len(made)
            else f"{table}: no row; fill in your patients."
        )
    return there
