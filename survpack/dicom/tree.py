"""A folder of DICOM, converted to a BIDS folder that `adapters.bids` reads; written patient by patient, each whole.

A patient without any date whose series are of one study has one session, at day 0; where a study of several has no date,
its series are left out, but those of a study that others date.
Nothing is copied from a header but what `privacy.ALLOWED` names, and of that only what does not repeat the patient.
"""

from __future__ import annotations

import json
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from random import SystemRandom

import numpy as np
import pandas as pd
from tqdm import tqdm

from survpack import privacy
from survpack.adapters.reading import read_table
from survpack.dicom import masks
from survpack.dicom.personal import births_of, names_of, repeats, without
from survpack.dicom.series import Series, find, suffix
from survpack.dicom.sidecar import about, facts_of, notices, study_day
from survpack.dicom.suv import odd, suv_factor
from survpack.dicom.values import NOTED, volume
from survpack.errors import BadInput
from survpack.paths import written_whole

MADE_BY = "survpack dicom"
DEFACE = ("none", "skull")
UNDATED = "day 0"  # the one session of a patient without dates
_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM counts to the left and back, NIfTI to the right and front


@dataclass
class Choice:
    """What was asked for."""

    tumour: str
    keep_ids: bool
    deface: str
    structures: str = ""


@dataclass
class Image:
    """One converted image: voxels, affine (NIfTI's), mask or None, what the mask was made of (or why not), facts."""

    series: Series
    values: np.ndarray
    affine: np.ndarray
    mask: np.ndarray | None
    told: list[str]
    facts: dict = field(default_factory=dict)


def convert(
    download: Path,
    out: Path,
    tumour: str = masks.TUMOUR,
    keep_ids: bool = False,
    key: Path | None = None,
    deface: str = "none",
    structures: str = "",
) -> list[str]:
    """Convert a folder of DICOM to a BIDS folder.

    Parameters
    ----------
    download : Path
        Any nesting and order; files that are no DICOM are counted and left out.
    out : Path
        Absent, empty, or begun by this command: patients that are finished there are kept as they are.
    tumour : str
        Pattern, whatever its case, of the regions that make up the tumour; several are united. The default leaves out what
        its name shows to be something else (`masks`); a pattern that was given is taken as it is.
    keep_ids : bool
        Name patients by their PatientID (letters and digits of it): for public, pseudonymous data.
    key : Path, optional
        Where the table of PatientID and new number goes, outside `out`; needed unless `keep_ids`.
    deface : str
        "none", or "skull": everything outside the brain becomes 0.
    structures : str
        Pattern of the file name or label of the RTSTRUCT and SEG that count; several that draw a tumour are united. Without
        one, several must agree.

    Returns
    -------
    list of str
        What was converted, and what was left out and why, a line each; for the terminal, as it names patients.

    Raises
    ------
    BadInput
        For a folder without usable images, an `out` in use, a missing or misplaced key, ids that tell names, or a
        place that cannot be read or written.
    """
    download, out, choice = Path(download), Path(out), Choice(tumour, keep_ids, deface, structures)
    key = None if key is None else Path(key)
    try:
        _ready(download, out, key, choice)
        absent, begun = [path for path in (out, key) if path and not path.exists()], _begun(out)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pydicom")  # over-long values are common and harm nothing here
            lines, written = _patients(download, out, key, choice)
        if written:
            return lines + _tables(out, written)
        if not begun:
            (out / "dataset_description.json").unlink()
        for path in absent:
            path.rmdir() if path.is_dir() else path.unlink()
    except OSError as error:
        told = f"{error.filename or out}: {(error.strerror or str(error)).lower()}"
        raise BadInput(f"{told}, expected a place to read or write; mend that, and run the command again.") from None
    more = [f"and {len(lines) - 5} lines like these"] if len(lines) > 5 else []
    raise BadInput(f"{download}: no series could be converted: {'; '.join(lines[:5] + more)}.")


def _patients(download: Path, out: Path, key: Path | None, choice: Choice) -> tuple[list[str], dict[str, dict]]:
    """Convert everyone; the lines to tell, and age and sex of each patient whose folder now exists."""
    found = find(download)
    patients = sorted({series.head.PatientID for series in found.series})
    if not patients:
        held = ", ".join(f"{number} {what}" for what, number in found.counted.items()) or "no file"
        raise BadInput(f"{download}: no CT, MR or PET image in DICOM ({held}); give the folder of the images.")
    heads = [*(series.head for series in found.series), *(head for _, head in found.annotations)]
    heads = {patient: [head for head in heads if head.PatientID == patient] for patient in patients}
    _nameless(choice, names_of(*(head for mine in heads.values() for head in mine)))
    names, doubts = _kept(heads) if key is None else (_numbered(patients, key), [])
    _begin(out, choice)
    lines, written = [f"left out: {number} files {what}" for what, number in sorted(found.counted.items())] + doubts, {}
    for patient in tqdm(sorted(patients, key=names.get), desc="converting", mininterval=2, disable=len(patients) < 5):
        mine = [series for series in found.series if series.head.PatientID == patient]
        told = _patient(out, names[patient], mine, found.annotations, choice)
        told += [f"{names[patient]}: {notice}" for notice in notices([series.head for series in mine], choice.deface)]
        people = names_of(*heads[patient])  # a region may be called after one
        lines += ["".join((*line.partition(":")[:2], without(line.partition(":")[2], people))) for line in told]
        if (out / names[patient]).is_dir():
            written[names[patient]] = about([series.head for series in mine])
    return lines, written


def _ready(download: Path, out: Path, key: Path | None, choice: Choice) -> None:
    """Refuse what cannot be asked for, before anything is read."""
    keep_ids, deface = choice.keep_ids, choice.deface
    _pattern("--tumour", choice.tumour)
    _pattern("--structures", choice.structures)
    if not download.is_dir():
        raise BadInput(f"{download} is no folder; give the folder that holds the DICOM files.")
    if deface not in DEFACE:
        raise BadInput(f"--deface {deface}: unknown, expected one of {', '.join(DEFACE)}; choose one of them.")
    if out.exists() and not out.is_dir():
        raise BadInput(f"{out} is a file, expected a folder to write into; name another.")
    if out.is_dir() and any(out.iterdir()) and not _begun(out):
        raise BadInput(f"{out} is not empty and was not made by this command; name a new folder.")
    if _begun(out) and _begun(out) != _asked(choice):
        raise BadInput(f"{out} was begun with other choices ({_begun(out)}); give the same, or name a new folder.")
    if out.resolve().is_relative_to(download.resolve()):
        raise BadInput(f"{out} lies inside {download}; name a folder outside the download.")
    if keep_ids and key is not None:
        raise BadInput("--keep-ids and --key: ids are either kept or replaced; give one of the two.")
    if not keep_ids and key is None:
        raise BadInput("no --key FILE: it holds who is who, outside OUT; give one, or --keep-ids for public ids.")
    if key is not None and key.resolve().is_relative_to(out.resolve()):
        raise BadInput(f"{key}: the key lies inside {out}, where whoever gets the data reads it; put it elsewhere.")
    if not keep_ids and _begun(out) and any(out.glob("sub-*")) and not key.exists():
        raise BadInput(f"{key} not found: {out} was begun with a key; give the same, or name a new folder.")
    if (out / "participants.tsv").exists():
        read_table(out / "participants.tsv", required=["participant_id"])


def _pattern(option: str, given: str) -> None:
    try:
        re.compile(given)
    except re.error as error:
        raise BadInput(f"{option} '{given}' is no pattern ({error}); write a name, or several as 'GTV|mass'.") from None


def _asked(choice: Choice) -> str:
    ids = "kept" if choice.keep_ids else "replaced"
    structures = f", structures {choice.structures}" if choice.structures else ""
    return f"ids {ids}, tumour {choice.tumour}, deface {choice.deface}{structures}"


def _nameless(choice: Choice, people: set[str]) -> None:
    """Refuse patterns that repeat a name: they are written, as the choices."""
    for option, given in (("--tumour", choice.tumour), ("--structures", choice.structures)):
        if given != masks.TUMOUR and repeats(given, people):
            raise BadInput(f"{option} repeats a name in the headers, and would be written; give a part without it.")


def _begun(out: Path) -> str | None:
    """The choices an earlier run of this command began `out` with; None where there was none."""
    path = out / "dataset_description.json"
    try:
        made = json.loads(path.read_text(encoding="utf-8"))["GeneratedBy"][0]
        return made["Description"] if made["Name"] == MADE_BY else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _begin(out: Path, choice: Choice) -> None:
    out.mkdir(parents=True, exist_ok=True)
    made = {"Name": MADE_BY, "Description": _asked(choice)}
    description = {"Name": "converted from DICOM", "BIDSVersion": "1.9.0", "GeneratedBy": [made]}
    _write(out / "dataset_description.json", json.dumps(description, indent=2) + "\n")


def _kept(heads: dict[str, list]) -> tuple[dict[str, str], list[str]]:
    """PatientID to sub-<letters and digits>, and what to look at; refused where an id is no pseudonym."""
    names = {patient: "sub-" + re.sub(r"[^A-Za-z0-9]", "", patient) for patient in heads}
    wrong, doubts = [], []
    for _, severity, what in privacy.column_telltales(pd.Series(list(heads)), "patient_id"):
        told = "a date" if re.match("a (date|number that may be a date)", what) else what.split(" (")[0]
        (wrong if severity == "error" or told == "a date" else doubts).append(told)
    for patient, mine in heads.items():
        wrong += ["the patient's name"] * repeats(patient, names_of(*mine, patient=True))
        wrong += ["the date of birth"] * repeats(patient, births_of(*mine))
        wrong += ["no letter or digit"] * (names[patient] == "sub-")
    if wrong:
        raise BadInput(f"--keep-ids: a PatientID has {wrong[0]}, expected a pseudonym; use --key FILE instead.")
    if len(set(names.values())) < len(names):
        raise BadInput("--keep-ids: two PatientIDs differ only in punctuation; use --key FILE instead.")
    return names, [f"--keep-ids: a PatientID has {what}; if it is one, use --key FILE instead" for what in doubts]


def _numbered(patients: list[str], key: Path) -> dict[str, str]:
    """PatientID to a running number, drawn by lot, so that it tells nothing of the id; the key file remembers."""
    names = {}
    if key.exists():
        try:
            table = pd.read_csv(key, sep="\t", dtype=str, keep_default_na=False)
        except ValueError:  # empty, not text, or of other columns in each row
            table = pd.DataFrame()
        known = list(table.columns) == ["patient_id", "participant_id"] and all(table.nunique() == len(table))
        if not known or not table["participant_id"].str.fullmatch(r"sub-\d+").all():
            raise BadInput(
                f"{key} is no key of this command, expected patient_id and participant_id (sub-001 …), each once; "
                "put the key back as it was, or name a new file."
            )
        names = dict(zip(table["patient_id"], table["participant_id"], strict=True))
    new = sorted(set(patients) - set(names))
    SystemRandom().shuffle(new)  # an order that follows from the ids would tell who has which to one who knows them
    last = max((int(name.removeprefix("sub-")) for name in names.values()), default=0)
    names |= {patient: f"sub-{number:03d}" for number, patient in enumerate(new, last + 1)}
    with written_whole(key) as part:
        pd.DataFrame(names.items(), columns=["patient_id", "participant_id"]).to_csv(part, sep="\t", index=False)
        part.chmod(0o600)
    return names


def _patient(out: Path, name: str, mine: list[Series], annotations: list, choice: Choice) -> list[str]:
    """Write one patient's folder; a line for each image, and for each series that was left out."""
    if (out / name).is_dir():
        return [f"{name}: converted before, left as it is"]
    lines, chosen, dated = [], {}, _days(mine)
    if UNDATED in dated.values():
        lines.append(f"{name}: no Study Date, so its one study is day 0")
    for series in sorted(mine, key=lambda one: _rank(one, annotations, choice)):
        kind, day = suffix(series.head), study_day(series.head) or dated[series.head.get("StudyInstanceUID")]
        if kind is None:
            lines.append(f"{name}: left out {series.name}: its description names no T1, T2 or FLAIR")
        elif day is None:
            found = f"no Study Date in its study, of {len(dated)}, expected one in each, shifted or not"
            lines.append(f"{name}: left out {series.name}: {found}; ask for the days between the studies")
        elif (day, kind) in chosen:
            lines.append(f"{name}: left out {series.name}: a second {kind} of the session")
        else:
            try:
                chosen[day, kind] = _image(series, annotations, choice, mine)
            except BadInput as error:
                told = str(error).removeprefix(f"{series.name}: ").removesuffix(".")
                lines.append(f"{name}: left out {series.name}: {told}")
    if choice.deface == "skull":
        lines += _stripped(name, chosen)
    if not chosen:
        return [*lines, f"{name}: nothing left"]
    hidden = out / f".{name}"  # until it is whole, no reader of sub-* sees it
    with written_whole(hidden) as part:
        lines += _write_patient(part, name, chosen)
    hidden.replace(out / name)
    return lines


def _days(mine: list[Series]) -> dict[str | None, str | None]:
    """The first day of each study of a patient by its UID, for series without one; None where no series tells."""
    days = {}
    for head in (series.head for series in mine):
        days.setdefault(head.get("StudyInstanceUID"), set()).add(study_day(head))
    if list(days.values()) == [{None}] and None not in days:
        return dict.fromkeys(days, UNDATED)
    return {study: min(found - {None}, default=None) for study, found in days.items()}


def _image(series: Series, annotations: list, choice: Choice, mine: list[Series]) -> Image:
    values, affine, facts = volume(series)
    notes = [facts[name] for name in NOTED if name in facts]
    if series.head.Modality == "PT":
        factor, kind = suv_factor(series)
        values, facts = values * np.float32(factor), {**facts, "Units": "g/mL", "SUVType": "BW", "SUVFrom": kind}
        notes += [f"SUV: {kind}", *(f"SUV: {told}" for told in odd(values)[1:] if told)]
    elif series.head.Modality == "CT":
        facts["Units"] = "HU"
    asked = choice.tumour, choice.structures
    mask, told = masks.tumour_of(series, annotations, *asked, affine, values.shape, mine)
    return Image(series, _compact(values), _TO_RAS @ affine, mask, told + notes, facts_of(series.head, facts))


def _rank(series: Series, annotations: list, choice: Choice) -> tuple:
    """Of several images of a kind in a session: the one with a tumour drawn, then original, then the most slices."""
    heads = [head for _, head in masks.annotations_of(series, annotations, choice.structures)]
    drawn = any(masks.regions(head, choice.tumour) for head in heads)
    derived = "DERIVED" in (series.head.get("ImageType") or [])
    return (not drawn, derived, -len(series.slices), str(series.slices[0][0]))


def _stripped(name: str, chosen: dict) -> list[str]:
    """Strip skulls in place: T1 by deepbet, others by the T1 of their session and frame; the rest is left out."""
    from survpack.deface import brain_mask

    brains, lines = {}, []
    for (day, kind), image in sorted(chosen.items(), key=lambda item: "T1w" not in item[0][1]):
        frame = day, image.series.head.get("FrameOfReferenceUID")
        try:
            if "T1w" in kind:
                brain = brain_mask(image.values, image.affine)
                brains[frame] = brain, image.affine
            elif frame in brains:
                source, affine = brains[frame]
                brain = masks.onto_grid(source, np.linalg.inv(affine) @ image.affine, image.values.shape)
            else:
                raise BadInput("no T1 in its session and frame of reference to take the brain from")
        except BadInput as error:
            lines.append(f"{name}: left out {image.series.name}: {error}")
            del chosen[day, kind]
            continue
        keep = brain if image.mask is None else brain | image.mask
        image.values = np.where(keep, image.values, 0)
        image.facts["SkullStripped"] = True
    return lines


def _write_patient(part: Path, name: str, chosen: dict) -> list[str]:
    part.mkdir()
    days, lines = sorted({day for day, _ in chosen}), []
    for (day, kind), image in sorted(chosen.items(), key=lambda item: item[0]):
        session = f"ses-{days.index(day) + 1}" if len(days) > 1 else ""
        folder = part / session / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        stem = "_".join(filter(None, [name, session, kind]))
        _save(folder / f"{stem}.nii.gz", image.values, image.affine)
        _write(folder / f"{stem}.json", json.dumps(image.facts, indent=2, ensure_ascii=False) + "\n")
        if image.mask is not None:
            _save(folder / f"{stem}_dseg.nii.gz", image.mask.astype(np.uint8), image.affine)
        lines.append(f"{stem}: {image.values.shape[2]} slices, {image.told[0]}")
        lines += [f"{stem}: {more}" for more in image.told[1:]]
    if len(days) > 1:
        sessions = [(f"ses-{number}", privacy.days_between(days[0], day)) for number, day in enumerate(days, 1)]
        table = pd.DataFrame(sessions, columns=["session_id", "day"])
        _write(part / f"{name}_sessions.tsv", table.to_csv(sep="\t", index=False, lineterminator="\n"))
    return lines


def _tables(out: Path, written: dict[str, dict]) -> list[str]:
    """participants.tsv as a skeleton, unless there is one; dseg.tsv and participants.json beside it."""
    if (out / "participants.tsv").exists():
        have = read_table(out / "participants.tsv")["participant_id"].str.removeprefix("sub-")
        new = sorted(set(written) - set("sub-" + have))
        return [f"participants.tsv is kept as it is; add {', '.join(new)}"] if new else []
    table = pd.DataFrame([{"participant_id": name, **told} for name, told in sorted(written.items())])
    table[["time_days", "event"]] = np.nan
    described = {
        "age": {"Description": "Age at the first scan; 90 stands for all over 89", "Units": "years"},
        "sex": {"Description": "Sex", "Levels": {"female": "F", "male": "M"}},
        "time_days": {"Description": "From baseline to death or last contact", "Units": "days"},
        "event": {"Description": "1 the event, 0 censored"},
    }
    _write(out / "dseg.tsv", "index\tname\n1\ttumour\n")
    _write(out / "participants.json", json.dumps(described, indent=2) + "\n")
    text = table.to_csv(sep="\t", index=False, na_rep="n/a", lineterminator="\n", float_format="%.0f")
    _write(out / "participants.tsv", text)
    return ["participants.tsv: fill in time_days and event"]


def _compact(values: np.ndarray) -> np.ndarray:
    """As int16 where nothing is lost by it, else as float32."""
    values = np.asarray(values, dtype=np.float32)
    whole = np.abs(values).max(initial=0) < 2**15 and np.array_equal(values, np.rint(values))
    return values.astype(np.int16 if whole else np.float32)


def _save(path: Path, values: np.ndarray, affine: np.ndarray) -> None:
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(values), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def _write(path: Path, text: str) -> None:
    with written_whole(path) as part:
        part.write_text(text, encoding="utf-8")
