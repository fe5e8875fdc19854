"""`Cohort`: who the patients are, what was imaged, what happened to them; and the checks of all three."""

from __future__ import annotations

import json
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from tqdm import tqdm

from survpack.errors import BadInput
from survpack.paths import written_whole

OUTCOME = ["patient_id", "site", "time_days", "event"]
IMAGES = ["patient_id", "session", "day", "modality", "path", "mask_path"]
KINDS = ("numeric", "ordered", "categorical")
TUMOUR = ("enhancing", "necrosis", "tumour")  # labels that make up the tumour; oedema is not of it


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a cohort, and how to mend it."""

    severity: str  # "error" or "warning"
    where: str
    found: str
    expected: str
    fix: str

    def __str__(self) -> str:
        return f"{self.where}: {self.found}, expected {self.expected}; {self.fix}."


@dataclass(frozen=True)
class Cohort:
    """Three tables and a dictionary.

    Attributes
    ----------
    name : str
    participants : DataFrame
        One row a patient: `patient_id` (str), `site` (str), `time_days` (float > 0),
        `event` (bool, True for the event), then the baseline covariates of `dictionary`.
        Missing is NaN.
    images : DataFrame
        One row an image: `patient_id`, `session`, `day` (from baseline), `modality`
        (`t1n t1c t2w t2f ct pt`, or `mask` where only a segmentation exists), `path`
        (empty for a mask without image), `mask_path`.
    dictionary : dict
        Covariate to `{"kind": numeric | ordered | categorical, "unit": …, "levels": […]}`.
    labels : dict of int to str
        What each number in a mask means.
    flow : list of dict
        Selection, step by step: `step`, `excluded`, `remaining`.
    table : str
        The file that lists the patients, named when something is wrong with them.
    """

    name: str
    participants: pd.DataFrame
    images: pd.DataFrame
    dictionary: dict[str, dict]
    labels: dict[int, str]
    flow: list[dict] = field(default_factory=list)
    table: str = ""

    @property
    def outcome(self) -> pd.DataFrame:
        """`patient_id`, `site`, `time_days`, `event`."""
        return self.participants[OUTCOME]

    @property
    def covariates(self) -> pd.DataFrame:
        """Baseline covariates, indexed by `patient_id`."""
        return self.participants.set_index("patient_id")[list(self.dictionary)]

    @property
    def modalities(self) -> list[str]:
        """Modalities in the order in which the networks see them."""
        return sorted(self.images["modality"].unique())

    @property
    def tumour_labels(self) -> list[int]:
        return [number for number, meaning in self.labels.items() if meaning in TUMOUR]

    def validated(self) -> Cohort:
        """Self, or the first error as one sentence.

        Raises
        ------
        BadInput
        """
        errors = [finding for finding in self.check() if finding.severity == "error"]
        if errors:
            more = f" ({len(errors) - 1} more like it: python -m survpack check {self.name})" if errors[1:] else ""
            raise BadInput(f"{errors[0]}{more}")
        return self

    def check(self) -> list[Finding]:
        """Everything that is wrong, worst first; masks are read, headers compared."""
        findings = check_participants(self.participants, self.dictionary, self.table or f"{self.name} participants")
        findings += check_images(self.images, self.participants, self.labels, self.name)
        return sorted(findings, key=lambda finding: finding.severity)

    def save(self, folder: Path) -> None:
        """Write the cohort into `folder` (two parquet tables and a JSON), whole or not at all."""
        with written_whole(folder) as part:
            part.mkdir()
            self.participants.to_parquet(part / "participants.parquet")
            self.images.to_parquet(part / "images.parquet")
            facts = {"name": self.name, "dictionary": self.dictionary, "flow": self.flow, "table": self.table}
            facts["labels"] = {str(number): meaning for number, meaning in self.labels.items()}
            (part / "cohort.json").write_text(json.dumps(facts, indent=2))

    @classmethod
    def load(cls, folder: Path) -> Cohort:
        """Read back what `save` wrote."""
        facts = json.loads((Path(folder) / "cohort.json").read_text())
        return cls(
            name=facts["name"],
            participants=pd.read_parquet(Path(folder) / "participants.parquet"),
            images=pd.read_parquet(Path(folder) / "images.parquet"),
            dictionary=facts["dictionary"],
            labels={int(number): meaning for number, meaning in facts["labels"].items()},
            flow=facts["flow"],
            table=facts["table"],
        )


def select(table: pd.DataFrame, rules: dict[str, str], where: str) -> tuple[pd.DataFrame, list[dict]]:
    """Keep the rows that meet every rule, counting as we go.

    Parameters
    ----------
    table : DataFrame, one row a patient
    rules : dict
        Step to pandas query, in order.
    where : str
        Named when a rule cannot be read.

    Returns
    -------
    DataFrame, list of dict
        The selected rows; one `{"step", "excluded", "remaining"}` a step, the first with all.
    """
    flow = [{"step": "in the source", "excluded": 0, "remaining": len(table)}]
    for step, rule in rules.items():
        try:
            kept = table.query(rule)
        except Exception as error:
            raise BadInput(
                f"{where}: the selection rule '{step}: {rule}' cannot be applied ({error}); "
                f"correct it in params.yaml (columns: {', '.join(table.columns)})."
            ) from None
        flow.append({"step": step, "excluded": len(table) - len(kept), "remaining": len(kept)})
        table = kept
    return table.reset_index(drop=True), flow


def check_participants(table: pd.DataFrame, dictionary: dict, where: str) -> list[Finding]:
    """Findings about outcome and covariates; every one names the patients it concerns."""
    absent = [column for column in [*OUTCOME, *dictionary] if column not in table]
    if absent:
        return [
            Finding(
                "error", where, f"no column {_listed(absent)}", f"{_listed([*OUTCOME, *dictionary])}",
                f"add or rename it (columns found: {', '.join(map(str, table.columns))})",
            )
        ]  # fmt: skip
    findings = []

    def report(bad: pd.Series, found: str, expected: str, fix: str, severity: str = "error") -> None:
        if bad.any():
            patients = _listed(table.loc[bad.to_numpy(), "patient_id"].astype(str))
            findings.append(Finding(severity, f"{where}, patient {patients}", found, expected, fix))

    time = pd.to_numeric(table["time_days"], errors="coerce")
    report(time.isna(), "`time_days` is missing or not a number", "days > 0",
           "give the days from baseline to death or last contact, or exclude the patient")  # fmt: skip
    report(time <= 0, "`time_days` is 0 or negative", "days > 0",
           "correct it, or exclude the patient with a selection rule `time_days > 0` in params.yaml")  # fmt: skip
    report(table["patient_id"].duplicated(keep=False), "patient listed more than once", "one row a patient",
           "keep the baseline row; follow-up scans are sessions, not patients")  # fmt: skip
    report(~table["event"].isin([0, 1]), "`event` is neither 0 nor 1", "1 for the event, 0 for censored",
           "code it so; unknown status means the patient is excluded, not censored")  # fmt: skip
    for name, entry in dictionary.items():
        if entry.get("kind") not in KINDS:
            findings.append(
                Finding("error", where, f"covariate `{name}` is of kind {entry.get('kind')!r}",
                        f"one of {', '.join(KINDS)}", "correct the dictionary (participants.json)")
            )  # fmt: skip
        elif entry["kind"] == "numeric":
            number = pd.to_numeric(table[name], errors="coerce")
            report(number.isna() & table[name].notna(), f"`{name}` is not a number", "a number or nothing",
                   "leave missing values empty (n/a in BIDS)")  # fmt: skip
        else:
            report(~table[name].isin(entry["levels"]) & table[name].notna(), f"`{name}` has an unknown level",
                   _listed(entry["levels"]), "correct the value, or add the level to the dictionary")  # fmt: skip
    return findings


def check_images(images: pd.DataFrame, participants: pd.DataFrame, labels: dict, where: str) -> list[Finding]:
    """Findings about images and masks; masks are read, two at a time."""
    findings = []
    for patient in participants["patient_id"][~participants["patient_id"].isin(images["patient_id"])]:
        findings.append(
            Finding("error", f"{where}, patient {patient}", "no image", "at least one image or mask",
                    "add it, or remove the patient from the table")
        )  # fmt: skip
    rows = [row for row in images.itertuples() if row.patient_id in set(participants["patient_id"])]
    bar = tqdm(rows, desc=f"{where}: reading masks", mininterval=2, disable=len(rows) < 20)
    checked = Parallel(n_jobs=-1, prefer="threads")(delayed(_check_image)(row, labels) for row in bar)
    return findings + [finding for one in checked for finding in one]


def _check_image(row, labels: dict[int, str]) -> list[Finding]:
    def finding(path, found, expected, fix):
        return [Finding("error", f"{path}, patient {row.patient_id}", found, expected, fix)]

    if not row.mask_path:
        return finding(row.path, "no mask beside this image", "a segmentation on the same grid",
                       "add the mask (*_dseg.nii.gz), or remove the image")  # fmt: skip
    for path in filter(None, [row.path, row.mask_path]):
        if not Path(path).exists():
            return finding(path, "file not found", "a NIfTI file", "put it there, or correct the table of images")
    try:
        mask = nib.load(row.mask_path)
        image = nib.load(row.path) if row.path else mask
        values = np.asarray(mask.dataobj)
        if row.path:
            np.asarray(image.dataobj)  # SimpleITK fills a file that was cut off with zeros, and says nothing
    except (nib.filebasedimages.ImageFileError, OSError, EOFError, ValueError, zlib.error) as error:
        return finding(row.path or row.mask_path, f"image or mask unreadable ({' '.join(str(error).split())[:200]})",
                       "whole NIfTI files", "fetch or convert it again, as .nii.gz")  # fmt: skip
    if image.shape != mask.shape or not np.allclose(image.affine, mask.affine, atol=1e-3):
        return finding(row.mask_path, f"mask on another grid (shape {mask.shape}) than its image (shape {image.shape})",
                       "the same shape and affine",
                       "resample the mask onto the image (nearest neighbour)")  # fmt: skip
    present = set(pd.unique(values.ravel(order="K")).tolist()) - {0}
    tumour = {number for number, meaning in labels.items() if meaning in TUMOUR}
    if not present & tumour:
        return finding(row.mask_path, "empty mask (no voxel of the tumour)",
                       f"at least one voxel labelled {_listed(sorted(tumour))}",
                       "draw the lesion, or exclude the patient")  # fmt: skip
    if not present <= set(labels):
        return finding(row.mask_path, f"unknown labels {_listed(sorted(present - set(labels)))}",
                       _listed([f"{number} {meaning}" for number, meaning in labels.items()]),
                       "relabel the mask, or name the label in dseg.tsv")  # fmt: skip
    return []


def _listed(items, most: int = 5) -> str:
    items = [str(item) for item in items]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
