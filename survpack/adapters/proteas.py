"""PROTEAS: brain metastases before and after radiosurgery, 40 patients as 45 units (Zenodo 17253793, CC BY 4.0).

P07a and P07b are one patient treated at two places: units make sessions (`a-baseline`), the earlier one is baseline.
The folder is `tumor segmentation` or `tumor_segmentation`. Labels are 1 necrosis, 2 enhancing, 3 oedema: not BraTS's
order. 16 of 187 visits have no mask; such a follow-up is left out, its day is not told in any case.
How the sheet names survival and death was not seen in print: likely names with a unit are tried, others stop.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, KPS, SEX, SEXES, images_table, session_rows, survival_days
from survpack.adapters.reading import coded, numbers, one_of, read_table

NAME = "proteas"
FOLDERS = ("proteas", "PROTEAS")
SITE = "Cyprus"
TABLE = "PROTEAS-Clinical_and_demographic_data.xlsx"
SOURCE = Source(
    title="PROTEAS brain metastases",
    url="https://doi.org/10.5281/zenodo.17253793",
    licence="CC BY 4.0",
    size="15 GB",
    patients=40,
    instructions=f"P01.zip and so on, unpacked to P01/BraTS/…, and {TABLE} beside these folders",
)
LABELS = {1: "necrosis", 2: "enhancing", 3: "oedema"}
SEQUENCES = {"t1n": "t1", "t1c": "t1c", "t2w": "t2", "t2f": "fla"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
VITAL = {
    "dead": True, "deceased": True, "died": True, "yes": True, 1: True, "alive": False, "no": False, 0: False,
}  # fmt: skip
DICTIONARY = {
    "age": AGE,
    "sex": SEX,
    "kps": KPS,
    "lesions": {"kind": "numeric", "unit": "count", "description": "Brain metastases at baseline"},
}
_UNIT, _IMAGED = "Patient ID (Zenodo)", "Brain Mets Imaging Date"


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient, from the unit imaged first; survival as the sheet counts it."""
    path = Path(root) / TABLE
    units = _units(root)
    units = units[units["day"] == 0].reset_index(drop=True)
    death = one_of(["Death", "Vital status", "Vital Status", "Survival status", "Deceased"], units, path, "death")
    return pd.DataFrame({
        "patient_id": units["patient"],
        "site": SITE,
        "overall_survival_days": survival_days(units, path),
        "death": coded(death, VITAL, path),
        "age": numbers(units["Age (yrs)"]),
        "sex": coded(units["Gender"], SEXES, path),
        "kps": numbers(units["Karnofsky PS (%)"]),
        "lesions": numbers(units["Number of metastases"]),
        "histology": units["Tumour Histology"],  # for selection only: its codes were not seen
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence: `baseline`, `fu1` and so on, for a patient of two units `a-baseline`, `b-baseline`."""
    imaged = _units(root).set_index(_UNIT)["day"]
    rows = []
    for folder in sorted(Path(root).glob("P[0-9]*/BraTS/*")):
        unit, session = folder.parent.parent.name, folder.name
        patient, part = _split(unit)
        masks = folder.parent.parent.glob(f"tumor[_ ]segmentation/{unit}_tumor_mask_{session}.nii*")
        mask = next(map(str, masks), "")
        if session == "baseline" or mask:
            day = imaged.get(unit, float("nan")) if session == "baseline" else float("nan")
            stems = {modality: folder / name for modality, name in SEQUENCES.items()}
            rows += session_rows(patient, f"{part}-{session}" if part else session, day, stems, mask)
    return images_table(rows, root, "P01/BraTS/baseline/t1c.nii.gz")


def _units(root: Path) -> pd.DataFrame:
    """The sheet, a row a unit, with `patient` and `day`, counted from the patient's first unit."""
    needed = [_UNIT, _IMAGED, "Age (yrs)", "Gender", "Karnofsky PS (%)", "Number of metastases", "Tumour Histology"]
    table = read_table(Path(root) / TABLE, sheet="PROTEAS", required=needed)
    table = table[table[_UNIT].notna()].drop_duplicates(_UNIT)  # a unit treated again has a second row
    date = pd.to_datetime(table[_IMAGED], errors="coerce")
    table = table.assign(patient=table[_UNIT].map(lambda unit: _split(unit)[0]), date=date)
    table = table.sort_values(["patient", "date", _UNIT]).reset_index(drop=True)
    elapsed = (table["date"] - table.groupby("patient")["date"].transform("min")).dt.days.astype(float)
    return table.assign(day=elapsed.mask(~table.duplicated("patient"), 0.0))


def _split(unit: str) -> tuple[str, str]:
    """P07 and a of P07a; P01 and nothing of P01."""
    return (unit[:-1], unit[-1]) if unit[-1:] in ("a", "b") else (unit, "")
