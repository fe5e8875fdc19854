"""LUMIERE: glioblastoma followed over time, 91 patients, 638 visits (Sci Data 2022 9:768); time is in weeks.

The release tells no event; `LUMIERE_TD_FINAL.csv` (github somayehsarirchi/GBM-LUMIERE-Radiomics-Survival) does, for
90 patients in 584 start-stop rows with the radiomics of each visit; Patient-026 is not in it. `week-040-2` is its
week 40.2: tenths order the scans of a week, so their days are nominal. Some enter only after week 0. Ratings are given
after baseline: no covariates. Masks are DeepBraTumIA's, 1 enhancing, 2 necrosis, 3 oedema: the order of the volumes
shipped beside them, not of the release's feature table. A visit without a mask is left out.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, IDH, MGMT, SEX, SEXES, nifti, session_rows, with_unlisted
from survpack.adapters.reading import coded, in_days, numbers, read_table
from survpack.cohort import IMAGES
from survpack.errors import BadInput

NAME = "lumiere"
FOLDERS = ("lumiere", "LUMIERE")
SITE = "Bern"
TABLE = "LUMIERE_TD_FINAL.csv"
DEMOGRAPHICS = "LUMIERE-Demographics_Pathology.csv"
TD = "https://github.com/somayehsarirchi/GBM-LUMIERE-Radiomics-Survival"
SOURCE = Source(
    title="LUMIERE",
    url="https://doi.org/10.6084/m9.figshare.c.5904905",
    licence="MIT (table), as figshare states (images)",
    size="0.3 MB of features at each visit, 33 GB with the images",
    patients=91,
    instructions=f"{TABLE} from {TD}; for the images too, Patient-001 … of Imaging-v202211.zip beside it",
)
LABELS = {1: "enhancing", 2: "necrosis", 3: "oedema"}
SEQUENCES = {"t1n": "t1", "t1c": "ct1", "t2w": "t2", "t2f": "flair"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
DICTIONARY = {"age": AGE, "sex": SEX, "idh": IDH, "mgmt": MGMT}
NO_ROW = ("Patient-026",)  # scanned, but not in the table
IDH_CODES = {"WT": "wildtype", "R132H mut": "mutated", "IDH1 neg, Sequencing required": None}
MGMT_CODES = {"methylated": "methylated", "not methylated": "unmethylated"}
_CHART = ["Patient", "Timepoint", "week", "Rating", "Rating2", "Rating3", "Survival", "Sex", "Age.at.surgery..years.",
          "IDH", "MGMT", "start", "stop", "event"]  # fmt: skip


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient: days to death or to the end of the last interval, and the baseline covariates."""
    path = Path(root) / TABLE
    rows = _rows(root)
    first, by_patient = rows.drop_duplicates("Patient"), rows.groupby("Patient", sort=False)
    listed = pd.DataFrame({
        "patient_id": first["Patient"].to_numpy(),
        "site": SITE,
        "overall_survival_days": by_patient["stop"].max().to_numpy(),
        "death": by_patient["event"].max().to_numpy(),
        "age": numbers(first["Age.at.surgery..years."]).to_numpy(),
        "sex": coded(first["Sex"], SEXES, path).to_numpy(),
        "idh": coded(first["IDH"], IDH_CODES, path).to_numpy(),
        "mgmt": coded(first["MGMT"], MGMT_CODES, path).to_numpy(),
    })  # fmt: skip
    return with_unlisted(listed, {folder.parent.name for folder in _visits(root)} & set(NO_ROW), SITE)


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence of each visit that has a mask; no row where only the table is here."""
    rows = []
    for folder in _visits(root):
        atlas = folder / "DeepBraTumIA-segmentation" / "atlas"
        whole = atlas.is_dir()  # else a copy with the scans in the folder of the visit
        mask = nifti(atlas / "segmentation" / "seg_mask" if whole else folder / "seg_mask")
        scans = atlas / "skull_strip" if whole else folder
        if mask:
            stems = {modality: scans / f"{name}_skull_strip" for modality, name in SEQUENCES.items()}
            rows += session_rows(folder.parent.name, folder.name, 7 * week_of(folder.name), stems, mask)
    return pd.DataFrame(rows, columns=IMAGES)


def visits(root: Path) -> pd.DataFrame:
    """What was measured at each visit.

    Returns
    -------
    DataFrame
        One row a visit: `patient_id`, `session`, `day` (from week 0), then numeric features, NaN where missing.
    """
    rows = _rows(root)
    visit = pd.DataFrame({"patient_id": rows["Patient"], "session": rows["Timepoint"], "day": rows["start"]})
    return visit.join(rows.drop(columns=_CHART).apply(numbers)).sort_values(["patient_id", "day"], ignore_index=True)


def week_of(session: str) -> float:
    """40.2 of `week-040-2`, as the table counts."""
    parts = re.fullmatch(r"week-(\d+)(?:-(\d))?", session)
    if not parts:
        raise BadInput(
            f"LUMIERE visit '{session}' found, expected a name like week-044 or week-040-2; rename the folder."
        )
    return float(f"{int(parts[1])}.{parts[2] or 0}")


def _rows(root: Path) -> pd.DataFrame:
    """The start-stop rows, in time, `start` and `stop` in days, `event` true or false."""
    path = Path(root) / TABLE
    if not path.exists() and (Path(root) / DEMOGRAPHICS).exists():
        raise BadInput(
            f"{Path(root) / DEMOGRAPHICS} tells survival but not who died, so {TABLE} is needed: take it from {TD} and "
            f"put it beside."
        )
    table = read_table(path, required=_CHART)
    start, stop = (pd.to_numeric(table[name], errors="coerce") for name in ("start", "stop"))
    wrong = ~(start < stop)
    if wrong.any():
        said = table[wrong].iloc[0]
        raise BadInput(
            f"{path}, patient {said['Patient']}, {said['Timepoint']}: from week {said['start']} to {said['stop']} is no "
            f"interval ({wrong.sum()} such rows), expected start before stop; correct it, or take the table from {TD}."
        )
    event = coded(table["event"], {1: True, 0: False}, path)
    table = table.assign(start=in_days(start, "weeks"), stop=in_days(stop, "weeks"), event=event)
    return table.sort_values(["Patient", "start"], ignore_index=True)


def _visits(root: Path) -> list[Path]:
    """The folders of visits, wherever the archive was unpacked."""
    places = (".", "Imaging", "Imaging-v202211", "Imaging-v202211/Imaging")
    return sorted(folder for place in places for folder in (Path(root) / place).glob("Patient-*/week-*"))
