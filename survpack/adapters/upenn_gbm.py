"""UPENN-GBM: glioblastoma MRI of 630 patients, 671 scans (DOI 10.7937/TCIA.709X-DN49, CC BY 4.0).

The table has a row a scan: `_11` is before the operation, `_21` a follow-up of the same patient; 19 patients have only
the latter (`baseline_scan`). `Not Available` is missing; the event is in `Survival_Status`, what `Survival_Censor`
means is not told. An expert's mask (`images_segm`) comes before the automatic one (`automated_segm`); follow-ups have
neither in the release and are then left out. Extent of resection is known only after the scan.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from survpack.adapters import Source
from survpack.adapters.mri import AGE, IDH, KPS, MGMT, SEX, SEXES, images_table, nifti, session_rows
from survpack.adapters.reading import coded, numbers, read_table

NAME = "upenn-gbm"
FOLDERS = ("upenn-gbm", "UPENN-GBM", "NIfTI-files")
SITE = "Pennsylvania"
TABLE = "UPENN-GBM_clinical_info_v2.1.csv"
SOURCE = Source(
    title="UPENN-GBM (TCIA), version 2",
    url="https://doi.org/10.7937/TCIA.709X-DN49",
    licence="CC BY 4.0",
    size="69 GB (NIfTI)",
    patients=630,
    instructions=f"images_structural, images_segm and automated_segm of the NIfTI package, and {TABLE} beside them",
    overlaps=("brats2020",),
)
LABELS = {1: "necrosis", 2: "oedema", 4: "enhancing"}
SEQUENCES = {"t1n": "T1", "t1c": "T1GD", "t2w": "T2", "t2f": "FLAIR"}
OUTCOMES = {"overall-survival": ("overall_survival_days", "death")}
STATUS = {
    "Deceased": True, "Alive": False, "Censored": False, "Lost to Follow-up": False, "Lost to follow up": False,
    "Lost": False,
}  # fmt: skip
DICTIONARY = {"age": AGE, "sex": SEX, "kps": KPS, "idh": IDH, "mgmt": MGMT}


def clinical(root: Path) -> pd.DataFrame:
    """One row a patient, from the scan before the operation where there is one; two columns for selection only."""
    path = Path(root) / TABLE
    needed = ["ID", "Gender", "Age_at_scan_years", "Survival_from_surgery_days_UPDATED", "Survival_Status", "IDH1",
              "MGMT", "KPS", "GTR_over90percent"]  # fmt: skip
    scans = read_table(path, required=needed)
    scans[["patient", "scan"]] = scans["ID"].str.rsplit("_", n=1, expand=True).reindex(columns=[0, 1])
    table = scans.sort_values(["patient", "scan"]).drop_duplicates("patient").reset_index(drop=True)
    return pd.DataFrame({
        "patient_id": table["patient"],
        "site": SITE,
        "overall_survival_days": numbers(table["Survival_from_surgery_days_UPDATED"]),
        "death": coded(table["Survival_Status"], STATUS, path),
        "age": numbers(table["Age_at_scan_years"]),
        "sex": coded(table["Gender"], SEXES, path),
        "kps": numbers(table["KPS"]),
        "idh": coded(table["IDH1"], {"Wildtype": "wildtype", "Mutated": "mutated", "NOS/NEC": None, "NOS": None}, path),
        "mgmt": coded(table["MGMT"], {"Methylated": "methylated", "Unmethylated": "unmethylated",
                                      "Indeterminate": None}, path),
        "baseline_scan": table["scan"] == "11",
        "resection_over_90": table["GTR_over90percent"],
    })  # fmt: skip


def discover(root: Path) -> pd.DataFrame:
    """One row a sequence: session 11 on day 0, session 21, where it has a mask, on a day that is not told."""
    rows = []
    for folder in sorted(Path(root).glob("images_structural/UPENN-GBM-*")):
        patient, session = folder.name.rsplit("_", 1)
        mask = nifti(Path(root) / "images_segm" / f"{folder.name}_segm") or nifti(
            Path(root) / "automated_segm" / f"{folder.name}_automated_approx_segm"
        )
        if session == "11" or mask:
            stems = {modality: folder / f"{folder.name}_{name}" for modality, name in SEQUENCES.items()}
            rows += session_rows(patient, session, 0.0 if session == "11" else float("nan"), stems, mask)
    return images_table(rows, root, "images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_T1GD.nii.gz")
