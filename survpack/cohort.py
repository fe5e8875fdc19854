"""`Cohort`: who the patients are, what was imaged, what happened to them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from survpack.errors import BadInput
from survpack.paths import written_whole

OUTCOME = ["patient_id", "site", "time_days", "event"]
IMAGES = ["patient_id", "session", "day", "modality", "path", "mask_path"]
VISITS = ["patient_id", "session", "day"]
DAYS = {"days": 1.0, "weeks": 7.0, "months": 30.4375, "years": 365.25}
KINDS = ("numeric", "ordered", "categorical")
TUMOUR = ("enhancing", "necrosis", "tumour")  # labels that make up the tumour; oedema is not of it


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a cohort, and how to mend it."""

    severity: str  # "error" or "warning"
    where: str  # the file, or what else it is about
    found: str
    expected: str
    fix: str
    patients: tuple[str, ...] = ()

    def __str__(self) -> str:
        who = f", patient{'s' * (len(self.patients) > 1)} {listed(self.patients)}" if self.patients else ""
        return f"{self.where}{who}: {self.found}, expected {self.expected}; {self.fix}."


@dataclass(frozen=True)
class Cohort:
    """Three tables and a dictionary.

    Attributes
    ----------
    name : str
    participants : DataFrame
        One row a patient: `patient_id` (str), `site` (str, NaN where not told), `time_days` (float > 0),
        `event` (bool, True for the event), then the baseline covariates of `dictionary`.
        Missing is NaN.
    images : DataFrame
        One row an image: `patient_id`, `session`, `day` (from baseline), `modality`
        (`t1n t1c t2w t2f ct pt`, or `mask` where only a segmentation exists), `path`
        (empty for a mask without image), `mask_path`.
    visits : DataFrame
        Long: `patient_id`, `session`, `day`, then features measured at each visit; empty where there are none.
        A patient with visits needs no image.
    features : DataFrame
        `patient_id`, then a column of floats a feature that was measured elsewhere; empty where there are none. A patient
        with features needs no image.
    split : DataFrame
        `patient_id`, `split`, `fold`: who was put in the test set, and in which fold, before the study; empty where the study
        deals them.
    overlaps, no_overlap : tuple of str
        Cohorts with which a cohort of one's own is said to share patients, or to share none.
    imaged : bool
        Whether the cohort is to have images: not one of a table of features or of charts alone.
    dictionary : dict
        Covariate to `{"kind": numeric | ordered | categorical, "unit": …, "levels": […]}`.
    labels : dict of int to str
        What each number in a mask means.
    flow : list of dict
        Selection, step by step: `step`, `excluded`, `remaining`, and `patients`, those it excluded.
    table : str
        The file that lists the patients, named when something is wrong with them.
    notices : list of Finding
        What was noticed in columns of the source that are not kept here.
    """

    name: str
    participants: pd.DataFrame
    images: pd.DataFrame
    dictionary: dict[str, dict]
    labels: dict[int, str]
    flow: list[dict] = field(default_factory=list)
    table: str = ""
    notices: list[Finding] = field(default_factory=list)
    visits: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=VISITS))
    features: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["patient_id"]))
    split: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=["patient_id", "split", "fold"]))
    imaged: bool = True
    overlaps: tuple[str, ...] = ()
    no_overlap: tuple[str, ...] = ()

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
        self.refuse(self.check())
        return self

    def refuse(self, findings: list[Finding]) -> None:
        """Raise BadInput with the first error among `findings`, if there is one, and how many more there are."""
        errors = [finding for finding in findings if finding.severity == "error"]
        if errors:
            more = f" ({len(errors) - 1} more: python -m survpack check {self.name})" if errors[1:] else ""
            raise BadInput(f"{errors[0]}{more}")

    def check(self) -> list[Finding]:
        """Everything that is wrong, worst first; every image and mask is read once."""
        return self.examined()[0]

    def examined(self) -> tuple[list[Finding], pd.DataFrame]:
        """The findings, and the hashes of the images that were read for them (`overlap.HASHES`)."""
        from survpack.checks import check_features, check_flow, check_participants, check_visits, ordered
        from survpack.scans import examine

        where = self.table or f"{self.name} participants"
        elsewhere = {*self.visits["patient_id"], *self.features["patient_id"]}
        seen = self.participants[~self.participants["patient_id"].isin(elsewhere) & self.imaged]
        findings = check_participants(self.participants, self.dictionary, where) + check_flow(
            self.flow, where, self.imaged
        )
        findings += check_features(self.features, self.participants, where)
        findings += check_visits(self.visits, self.participants, where)
        about_images, hashes = examine(
            self.images, seen["patient_id"], self.participants, self.labels, self.name, self.dictionary
        )
        return ordered(findings + self.notices + about_images), hashes

    def save(self, folder: Path) -> None:
        """Write the cohort into `folder` (three parquet tables and a JSON), whole or not at all."""
        with written_whole(folder) as part:
            part.mkdir()
            self.participants.to_parquet(part / "participants.parquet")
            self.images.to_parquet(part / "images.parquet")
            self.visits.to_parquet(part / "visits.parquet")
            self.features.to_parquet(part / "features.parquet")
            self.split.to_parquet(part / "split.parquet")
            facts = {name: getattr(self, name) for name in ("name", "dictionary", "flow", "table", "imaged")}
            facts |= {name: list(said) for name in ("overlaps", "no_overlap") if (said := getattr(self, name))}
            facts["labels"] = {str(number): meaning for number, meaning in self.labels.items()}
            (part / "cohort.json").write_text(json.dumps(facts, indent=2))

    @classmethod
    def load(cls, folder: Path) -> Cohort:
        """Read back what `save` wrote."""
        facts = json.loads((Path(folder) / "cohort.json").read_text())
        late = {
            name: Path(folder) / f"{name}.parquet" for name in ("visits", "features", "split")
        }  # an earlier version lacks them
        return cls(
            name=facts["name"],
            participants=pd.read_parquet(Path(folder) / "participants.parquet"),
            images=pd.read_parquet(Path(folder) / "images.parquet"),
            imaged=facts.get("imaged", True),
            overlaps=tuple(facts.get("overlaps", ())),
            no_overlap=tuple(facts.get("no_overlap", ())),
            **{name: pd.read_parquet(path) for name, path in late.items() if path.exists()},
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
        The selected rows; one `{"step", "excluded", "remaining", "patients"}` a step (those it excluded), the first with
        all.
    """
    flow = [{"step": "in the source", "excluded": 0, "remaining": len(table), "patients": []}]
    for step, rule in rules.items():
        try:
            kept = table.query(rule)
        except Exception as error:
            raise BadInput(
                f"{where}: the selection rule '{step}: {rule}' cannot be applied ({error}); "
                f"correct it in params.yaml (columns: {', '.join(table.columns)})."
            ) from None
        gone = table.loc[table.index.difference(kept.index), "patient_id"].dropna().astype(str).tolist()
        flow.append({"step": step, "excluded": len(table) - len(kept), "remaining": len(kept), "patients": gone})
        table = kept
    return table.reset_index(drop=True), flow


def listed(items, most: int = 5) -> str:
    """The first few, and how many more there are."""
    items = [str(item) for item in items]
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
