"""Crops that cut the tumour: how much of each patient's mask lies outside the cube, in voxels of the cube.

A cube is put around the largest lesion. *Cut* is the share of that lesion's volume that lies outside; *outside* that of the
whole tumour, with other lesions that the cube was never to hold; *filled* the share of the cube that is tumour: above
`gate.scans.FILLED` there is hardly an outline in it.
"""

from __future__ import annotations

from math import ceil

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import Parallel, delayed

from survpack.cohort import Cohort
from survpack.gate.scans import FILLED
from survpack.preprocess import (
    CropSet,
    at_baseline,
    cube_around,
    largest_lesion_centre,
    onto,
    read_mask,
    tumour_of,
)

COLUMNS = ["patient_id", "outside", "cut", "filled"]


def shares(cohort: Cohort, crops: CropSet, orientation: str = "LPS") -> pd.DataFrame:
    """`COLUMNS`, a row a patient with a mask at baseline: shares from 0 to 1, of several cubes the worst."""
    size, spacing = crops.masks.shape[-1], crops.spacing_mm
    rows = at_baseline(cohort.images).drop_duplicates(["patient_id", "mask_path"])
    rows = rows[rows["mask_path"] != ""]
    first = ~rows["patient_id"].duplicated()
    rows = rows[
        first | ~rows["patient_id"].map(lambda one: crops.aligned.get(one, True)).astype(bool)
    ]  # one cube where all is on one grid
    found = Parallel(n_jobs=-1, prefer="threads")(
        delayed(of_mask)(path, cohort.tumour_labels, size, spacing, orientation) for path in rows["mask_path"]
    )
    table = pd.DataFrame(found, columns=COLUMNS[1:]).assign(patient_id=rows["patient_id"].to_numpy())
    return table.groupby("patient_id", sort=False).max().reset_index()[COLUMNS]


def of_mask(
    path: str, tumour: list[int], size: int, spacing: float, orientation: str = "LPS"
) -> tuple[float, float, float]:
    """`outside`, `cut` and `filled` of one mask and a cube of `size` voxels of `spacing` mm a side."""
    mask = tumour_of(read_mask(path)[0], tumour)
    centre = largest_lesion_centre(mask, [1])
    more = max(ceil(_reach(mask, centre) / spacing - size / 2), 0) + 1  # voxels a side to hold the whole tumour
    whole = cube_around(centre, size + 2 * more, spacing, orientation)
    parts = sitk.RelabelComponent(sitk.ConnectedComponent(mask, True))  # the largest is 1
    lesions = onto(sitk.Cast(parts, sitk.sitkUInt32), whole, sitk.sitkNearestNeighbor)
    inside = lesions[(slice(more, -more),) * 3]
    filled = float((inside > 0).mean())
    return _share(inside > 0, lesions > 0), _share(inside == 1, lesions == 1), filled


def counts(found: pd.DataFrame) -> dict:
    """For the page: `imaged`, `cut` and `worst` of the largest lesion, `filled`, and `outside` of the whole tumour."""
    return {
        "imaged": len(found),
        "cut": int((found["cut"] > 0).sum()),
        "worst": float(found["cut"].max()) if len(found) else 0.0,
        "filled": int((found["filled"] > FILLED).sum()),
        "outside": int((found["outside"] > 0).sum()),
        "worst_outside": float(found["outside"].max()) if len(found) else 0.0,
    }


def flow(patients: int, found: pd.DataFrame) -> pd.DataFrame:
    """From the patients in the study to those whose largest lesion lies whole in the crop: `Step`, `Patients`, `Worst share`."""
    told = counts(found)
    cut = found["cut"] > 0
    rows = [
        ("In the study", patients, None),
        ("With a mask at baseline", told["imaged"], None),
        ("… whose largest lesion lies whole in the crop", int((~cut).sum()), None),
        ("… whose largest lesion leaves the crop", told["cut"], told["worst"]),
        (f"… whose crop is tumour for more than {_percent(FILLED)}", told["filled"], None),
        ("… with any tumour outside the crop, other lesions among it", told["outside"], told["worst_outside"]),
    ]
    text = [(step, count, _percent(worst) if worst else "–") for step, count, worst in rows]
    return pd.DataFrame(text, columns=["Step", "Patients", "Worst share of volume outside"])


def said(found: dict) -> str:
    """`counts` as sentences; "" where nobody was imaged."""
    imaged, parts = found["imaged"], []
    if not imaged:
        return ""
    if not found["cut"]:
        what = "largest lesion" if found["outside"] else "tumour"
        parts.append(f"The crop holds the {what} of all {imaged} patients who have a mask.")
    else:
        parts.append(
            f"In {found['cut']} of {imaged} patients the largest lesion leaves the crop, by {_percent(found['worst'])} of its "
            "volume at worst."
        )
    if found["filled"]:
        parts.append(f"{found['filled']} of the crops {'is' if found['filled'] == 1 else 'are'} filled by tumour.")
    if found["outside"] > found["cut"]:
        parts.append(
            f"Counting other lesions, {found['outside']} have tumour outside it, {_percent(found['worst_outside'])} of the "
            "volume at worst."
        )
    return " ".join(parts)


def _percent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def _share(inside: np.ndarray, whole: np.ndarray) -> float:
    """Of `whole`, what is not `inside`; 0 where voxels of the cube are too coarse to hit it at all."""
    total = np.count_nonzero(whole)
    return 1 - np.count_nonzero(inside) / total if total else 0.0


def _reach(mask: sitk.Image, centre) -> float:
    """How far the box of a mask reaches from a point along the patient's axes, mm."""
    ends = [-0.5, *(size - 0.5 for size in mask.GetSize())]
    corners = np.array(np.meshgrid(*[(ends[0], end) for end in ends[1:]], indexing="ij")).reshape(3, -1).T
    places = [mask.TransformContinuousIndexToPhysicalPoint(corner.tolist()) for corner in corners]
    return float(np.abs(np.array(places) - centre).max())
