"""A plain table of paths and a column map, `cohort.yaml`: a cohort of one's own that is not in BIDS.

    table: clinical.csv                  or .tsv, .xlsx (and `sheet`)
    patient_id: PatientID                the columns, as they are called there
    site: Hospital                       optional
    time_days: {column: OS, unit: months}
    event: {column: status, codes: {dead: true, alive: false}}
    missing: [999, "--"]                 codes for missing, in every column
    covariates:
      age: {column: Age, kind: numeric, unit: years}
      sex: {column: Sex, kind: categorical, levels: [f, m]}
    images:
      ct: {path: "scans/{PatientID}/ct.nii.gz", mask: "scans/{PatientID}/tumour.nii.gz"}    or a column of paths
    labels: {1: tumour}

Paths are relative to the folder, or absolute. A path made from a pattern may be absent for a patient who has no such
image. Columns that the map does not name may select patients; they predict nothing.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from survpack.adapters.bids import NAMES
from survpack.adapters.reading import DAYS, MISSING, coded, need, numbers, read_table
from survpack.cohort import IMAGES, TUMOUR
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
    images: dict[str, Image]
    labels: dict[int, str] = {1: "tumour"}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: the outcome in days, the covariates by their new names, and all other columns as text."""
    said = column_map(root)
    source, path = _source(root, said)
    kept = source.drop(columns=[said.patient_id, said.time_days.column, said.event.column], errors="ignore")
    time = numbers(source[said.time_days.column])
    table = pd.DataFrame({
        "patient_id": source[said.patient_id],
        "site": source[said.site].fillna(SITE) if said.site else SITE,
        "time_days": time.map(lambda days: days if isinstance(days, str) else days * DAYS[said.time_days.unit]),
        "event": coded(source[said.event.column], said.event.codes, path),
    })  # fmt: skip
    for name, entry in said.covariates.items():
        table[name] = numbers(source[entry.column]) if entry.kind == "numeric" else source[entry.column]
    return table.join(kept[[column for column in kept if column not in table]])


def dictionary(root: Path) -> dict[str, dict]:
    """The covariates, as `Cohort.dictionary` has them."""
    entries = column_map(root).covariates
    return {name: entry.model_dump(exclude_none=True, exclude={"column"}) for name, entry in entries.items()}


def labels(root: Path) -> dict[int, str]:
    """What each number in a mask means."""
    return {number: name for number, name in column_map(root).labels.items() if number}


def discover(root: Path) -> pd.DataFrame:
    """One row an image, at day 0.

    Raises
    ------
    BadInput
        Where a pattern fits no file at all.
    """
    said = column_map(root)
    source, path = _source(root, said)
    rows = []
    for modality, entry in said.images.items():
        images = _paths(entry.path, source, root, path, f"images.{modality}.path")
        masks = _paths(entry.mask, source, root, path, f"images.{modality}.mask")
        for patient, image, mask in zip(source[said.patient_id], images, masks, strict=True):
            if image or (mask and modality == "mask"):
                rows.append([patient, "baseline", 0.0, modality, image, mask])
    return pd.DataFrame(rows, columns=IMAGES).drop_duplicates(["patient_id", "modality"]).reset_index(drop=True)


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
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)
        if not isinstance(content, dict):
            raise BadInput(f"{path}: no `key: value` in it, expected a map of columns (data/README.md shows one).")
        said = Map.model_validate(content)
    except (yaml.YAMLError, UnicodeDecodeError, OSError, RecursionError) as error:
        raise BadInput(f"{path}: not YAML ({' '.join(str(error).split())[:200]}); correct it there.") from None
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
    strange = [modality for modality in said.images if modality not in MODALITIES]
    if strange or not said.images:
        return f"images has {', '.join(strange) or 'nothing'}, but takes {', '.join(MODALITIES)}; rename it."
    for modality, entry in said.images.items():
        if not (entry.mask if modality == "mask" else entry.path):
            return f"images.{modality} has no {'mask' if modality == 'mask' else 'path'}; give it."
    if not set(said.labels.values()) & set(TUMOUR):
        return f"no label is named {' or '.join(TUMOUR)} ({', '.join(said.labels.values())}); rename what is tumour."
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
    table = read_table(path, missing=(), sheet=said.sheet or 0)
    levels = {entry.column: entry.levels or [] for entry in said.covariates.values()}
    columns = [said.patient_id, *([said.site] if said.site else []), said.time_days.column, said.event.column, *levels]
    need(columns, table, path)
    for name in table.columns.drop(said.patient_id):
        codes = {*MISSING, *said.missing} - set(levels.get(name, [])) - set(said.event.codes)
        number = {float(code) for code in codes if re.fullmatch(r"-?\d+(\.\d+)?", code)}  # Excel writes 999 as 999.0
        table[name] = table[name].mask(
            table[name].isin(codes) | pd.to_numeric(table[name], errors="coerce").isin(number)
        )
    table[said.patient_id] = table[said.patient_id].mask(table[said.patient_id] == "")
    return table.dropna(how="all").reset_index(drop=True), path


def _paths(pattern: str, source: pd.DataFrame, root: Path, table: Path, where: str) -> list[str]:
    """A path a row, "" where there is none."""
    if not pattern:
        return [""] * len(source)
    columns = re.findall(r"\{([^{}]*)\}", pattern)
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
