"""A BIDS folder: a cohort of one's own, and what the phantoms write.

    participants.tsv     participant_id, time_days, event (1 the event, 0 censored), site (optional; n/a where not told), covariates
    participants.json    the covariates: Description, Units, Levels, Ordered
    dseg.tsv             index, name: what the numbers in the masks mean (else 1 is tumour)
    dataset_description.json   optional: Overlaps, a list of cohorts that have some of these patients; NoOverlap, of none
    sub-01/[ses-1/]anat/sub-01_[ses-1_]T1w.nii.gz, …_ce-gd_T1w, …_T2w, …_FLAIR, …_ct, …_pet
                        …_dseg.nii.gz, one a session, named after none of its images; or one an image, named after it
    sub-01/sub-01_sessions.tsv   session_id, day (from baseline; needed where there is more than one session)

A column that participants.json does not describe, or gives the Kind "none", is for selection only.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pandas as pd

from survpack.adapters.reading import need, told_site, without_blanks
from survpack.cohort import IMAGES, TUMOUR
from survpack.errors import BadInput

NAME = "bids"
TABLE = "participants.tsv"
FOLDERS = ()  # the folder's name is the cohort's
SITE = "single"
LABELS = {1: "tumour"}
OUTCOMES = {"survival": ("time_days", "event")}
MODALITIES = {"t1w": "t1n", "t2w": "t2w", "flair": "t2f", "ct": "ct", "pet": "pt"}
NAMES = {"t1n": "T1w", "t1c": "ce-gd_T1w", "t2w": "T2w", "t2f": "FLAIR", "ct": "ct", "pt": "pet"}
_NOT_COVARIATES = ("participant_id", "site", "time_days", "event")


def clinical(root: Path) -> pd.DataFrame:
    """participants.tsv with numbers as numbers, levels as text and `n/a` as missing."""
    path = Path(root) / TABLE
    table = _tsv(path)
    described = dictionary(root)
    need(["participant_id", "time_days", "event", *described], table, path)
    levelled = {name for name, entry in described.items() if "levels" in entry}
    for name in table.columns.difference([*levelled, "participant_id", "site"]):
        table[name] = _numbers(table[name])
    if table["event"].isin([0, 1]).all():
        table["event"] = table["event"].astype(bool)
    table["site"] = told_site(table["site"]) if "site" in table else SITE
    table["patient_id"] = "sub-" + table.pop("participant_id").str.removeprefix("sub-")
    return table


def dictionary(root: Path) -> dict[str, dict]:
    """The covariates that participants.json describes; a kind not told follows from the levels."""
    path = Path(root) / "participants.json"
    entries = _json(path)
    return {
        name: _entry(name, entry, path)
        for name, entry in entries.items()
        if name not in _NOT_COVARIATES and entry.get("Kind") != "none"
    }


def labels(root: Path) -> dict[int, str]:
    """dseg.tsv; without it, 1 is tumour and any other number will be reported as unknown."""
    path = Path(root) / "dseg.tsv"
    if not path.exists():
        return LABELS
    table = _tsv(path)
    need(["index", "name"], table, path)
    number = pd.to_numeric(table["index"], errors="coerce")
    if not (number % 1 == 0).all() or table["name"].isna().any() or number.duplicated().any():
        raise BadInput(
            f"{path}: an index that is no whole number, is there twice, or has no name; write one label a line."
        )
    meaning = dict(zip(number.astype(int).tolist(), table["name"], strict=True))
    if not set(meaning.values()) & set(TUMOUR):
        raise BadInput(
            f"{path}: no label is named {' or '.join(TUMOUR)} (names found: {', '.join(meaning.values())}); "
            "rename what is tumour."
        )
    return {number: name for number, name in meaning.items() if number}


def overlaps(root: Path) -> tuple[list[str], list[str]]:
    """Cohorts that are said to have some of these patients, and those said to have none."""
    path = Path(root) / "dataset_description.json"
    if not path.exists():
        return [], []
    try:
        said = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error}); correct it there.") from None
    lists = [said.get(key, []) if isinstance(said, dict) else [] for key in ("Overlaps", "NoOverlap")]
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in lists):
        raise BadInput(f'{path}: Overlaps or NoOverlap is no list of cohorts; write "Overlaps": ["other"].')
    return lists[0], lists[1]


def discover(root: Path) -> pd.DataFrame:
    """One row an image of a known sequence, with its mask ("" where there is none) and its day.

    Where nobody has an image, a row a mask (`modality` "mask", no `path`).
    """
    rows, alone = [], []
    for patient in sorted(path for path in Path(root).glob("sub-*") if path.is_dir()):
        files = sorted(patient.rglob("*.nii")) + sorted(patient.rglob("*.nii.gz"))
        files = [path for path in files if not path.name.startswith(".")]  # macOS puts a ._NAME beside each file
        strange = [path for path in files if path.name.startswith("sub-") and _subject(path) != patient.name]
        if strange:
            raise BadInput(f"{strange[0]}: named after {_subject(strange[0])}; move it to its patient, or rename it.")
        masks = [path for path in files if _stem(path).endswith("_dseg")]
        days = _days(patient, sorted({_session(path) for path in files}))
        alone += [[patient.name, _session(mask), days[_session(mask)], "mask", "", str(mask)] for mask in masks]
        for image in files:
            modality = _modality(image)
            if modality:
                session = _session(image)
                rows.append([patient.name, session, days[session], modality, str(image), _mask_of(image, files, masks)])
    images = pd.DataFrame(rows or alone, columns=IMAGES)
    twice = images[images.duplicated(["patient_id", "session", "modality"], keep=False)]
    if len(twice):
        one, other = twice["path"].where(twice["path"] != "", twice["mask_path"]).iloc[:2]
        raise BadInput(f"{one} and {other} are both the {twice['modality'].iloc[0]} of one session; keep one.")
    return images


def image_path(root: Path, patient: str, modality: str) -> Path:
    """Where an image of a patient with one session lies; `modality` "mask" is the segmentation."""
    return Path(root) / patient / "anat" / f"{patient}_{NAMES.get(modality, 'dseg')}.nii.gz"


def write_tables(root: Path, participants: pd.DataFrame, described: dict, meaning: dict, made_by: dict) -> None:
    """Write the tables of a BIDS folder; `clinical`, `dictionary` and `labels` read the same back.

    Parameters
    ----------
    root : Path
        Exists.
    participants : DataFrame
        As `Cohort.participants`.
    described, meaning : dict
        As `Cohort.dictionary` and `Cohort.labels`.
    made_by : dict
        The BIDS entry `GeneratedBy`.
    """
    table = participants.rename(columns={"patient_id": "participant_id"}).astype({"event": int})
    table.to_csv(root / "participants.tsv", sep="\t", index=False, na_rep="n/a", lineterminator="\n")
    keys = {"description": "Description", "unit": "Units", "kind": "Kind"}
    entries = {name: {keys[key]: entry[key] for key in keys if key in entry} for name, entry in described.items()}
    for name, entry in described.items():
        if "levels" in entry:
            entries[name] |= {"Levels": {level: level for level in entry["levels"]}}
    entries |= {
        "time_days": {"Description": "From baseline to death or last contact", "Units": "days"},
        "event": {"Description": "1 the event, 0 censored"},
    }
    _write_json(root / "participants.json", entries)
    pd.DataFrame({"index": list(meaning), "name": list(meaning.values())}).to_csv(
        root / "dseg.tsv", sep="\t", index=False, lineterminator="\n"
    )
    _write_json(
        root / "dataset_description.json",
        {"Name": made_by["Name"], "BIDSVersion": "1.9.0", "GeneratedBy": [made_by]},
    )


def _entry(name: str, entry: dict, path: Path) -> dict:
    levels = entry.get("Levels", [])
    if not isinstance(levels, list | dict):
        raise BadInput(f"{path}: the Levels of `{name}` are {levels!r}; list them, the lowest first.")
    levels = list(map(str, levels))
    if twice := [level for level in levels if levels.count(level) > 1]:
        raise BadInput(f"{path}: `{name}` has the level {twice[0]!r} twice; list each level once.")
    kind = entry.get("Kind") or (("ordered" if entry.get("Ordered") else "categorical") if levels else "numeric")
    if kind in ("ordered", "categorical") and not levels:
        raise BadInput(f"{path}: `{name}` is {kind} but has no Levels; list them, the lowest first.")
    words = {key: entry.get(key) for key in ("Units", "Description")}
    if strange := [key for key, word in words.items() if not isinstance(word, str | None)]:
        found = json.dumps(words[strange[0]])
        raise BadInput(
            f'{path}: the {strange[0]} of `{name}` are {found}, expected text in quotes such as "years"; mend it.'
        )
    facts = {"kind": kind, "unit": words["Units"], "description": words["Description"]}
    facts |= {"levels": levels} if kind != "numeric" and levels else {}
    return {key: value for key, value in facts.items() if value}


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".nii")


def _subject(path: Path) -> str:
    return _stem(path).split("_")[0]


def _session(path: Path) -> str:
    return next((part for part in _stem(path).split("_") if part.startswith("ses-")), "baseline")


def _modality(path: Path) -> str | None:
    *entities, suffix = _stem(path).split("_")
    contrast = any(entity.startswith("ce-") for entity in entities)
    return "t1c" if contrast and suffix.lower() == "t1w" else MODALITIES.get(suffix.lower())


def _mask_of(image: Path, files: list[Path], masks: list[Path]) -> str:
    """The one mask named after the image, else the one of its session named after none: other grids have their own."""
    beside = [mask for mask in masks if _session(mask) == _session(image)]
    stems = [_stem(path) + "_" for path in files if path not in masks]
    own = [mask for mask in beside if mask.name.startswith(_stem(image) + "_")]
    chosen = own or [mask for mask in beside if not mask.name.startswith(tuple(stems))]
    return str(chosen[0]) if len(chosen) == 1 else ""


def _days(patient: Path, sessions: list[str]) -> dict[str, float]:
    path = patient / f"{patient.name}_sessions.tsv"
    if not path.exists():
        if len(sessions) > 1:
            raise BadInput(f"{path} not found: with more than one session it tells the `day` of each `session_id`.")
        return dict.fromkeys(sessions, 0.0)
    table = _tsv(path)
    need(["session_id", "day"], table, path)
    twice = table["session_id"][table["session_id"].duplicated()]
    if len(twice):
        raise BadInput(f"{path}: {twice.iloc[0]} more than once; keep one row.")
    days = dict(zip(table["session_id"], pd.to_numeric(table["day"], errors="coerce"), strict=True))
    unknown = [session for session in sessions if pd.isna(days.get(session))]
    if unknown:
        raise BadInput(f"{path}: no `day` for {', '.join(unknown)}; give it in days from baseline.")
    return days


def _tsv(path: Path) -> pd.DataFrame:
    if not path.exists():
        raise BadInput(f"{path} not found: a BIDS folder needs it (data/README.md describes one).")
    try:
        table = pd.read_csv(
            path, sep="\t", dtype=str, keep_default_na=False, na_values=["n/a", ""], encoding="utf-8-sig"
        )
    except (ValueError, OSError) as error:
        raise BadInput(
            f"{path}: no table to read ({' '.join(str(error).split())[:150]}); save it as tab-separated UTF-8 text."
        ) from None
    if len(table.columns) == 1 and re.search("[,;]", table.columns[0]):
        raise BadInput(f"{path}: one column `{table.columns[0]}`; separate the columns by tabs, not by commas.")
    return without_blanks(table).rename(columns=str.strip).apply(lambda column: column.str.strip())


def _json(path: Path) -> dict:
    if not path.exists():
        raise BadInput(f"{path} not found: it tells the kind of each covariate (data/README.md describes it).")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"), object_pairs_hook=_once)
    except (ValueError, OSError, RecursionError) as error:
        raise BadInput(f"{path}: not JSON ({error}); correct it there.") from None
    odd = (
        [name for name, entry in content.items() if not isinstance(entry, dict)] if isinstance(content, dict) else [""]
    )
    if odd:
        raise BadInput(f'{path}: {odd[0] or "the file"} is no object; write {{"age": {{"Units": "years"}}}}.')
    return content


def _once(pairs: list[tuple]) -> dict:
    """An object whose keys stand once: JSON's own reader takes the last of two."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"`{next(name for name in names if names.count(name) > 1)}` is there twice")
    return content


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _numbers(column: pd.Series) -> pd.Series:
    """As numbers; what is none stays text, for the checks to name."""
    number = pd.to_numeric(column, errors="coerce")
    return number if (number.notna() | column.isna()).all() else number.astype(object).where(number.notna(), column)
