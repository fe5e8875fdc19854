"""A phantom beside a real scan, where one is there: the same windows, the same measures, no verdict.

The real scans are one brain with metastases (BraTS-METS, example data of BrainLesion/AURORA, Apache-2.0) for `mets`
and the CT of one patient with a soft-tissue sarcoma (TCIA, CC BY 3.0) for `chest`. Neither is part of this study.
Tissues are found alike in both, without a mask.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.ndimage import distance_transform_edt, gaussian_filter

from survpack.adapters import places
from survpack.cohort import IMAGES, Cohort
from survpack.numbers import interval_text
from survpack.preprocess import at_baseline
from survpack.slices import contact, panel, spread, volume

BRAIN = "BraTS-MET-00110-000"
TRUNK = "STS_037"  # a shoulder: its box reaches into the lung
CREDIT = {
    "mets": "one brain with a metastasis (BraTS-METS, example data of BrainLesion/AURORA, Apache-2.0)",
    "chest": "one shoulder with a sarcoma (STS_037, TCIA, CC BY 3.0)",
}
SEQUENCES = ("t1n", "t1c", "t2w", "t2f")
EDGE_MM = 4.0  # the outermost voxels are half skull, in the real scan above all
PEAKS = {"fat": (-150, -30), "muscle": (10, 110)}  # HU, where the mode of each tissue is looked for
BINS = {"mr": np.arange(0, 3.01, 0.06), "ct": np.arange(-200, 401, 12)}
MEASURES = {
    "t1n csf": "T1, CSF to white matter", "t1n grey": "T1, grey to white matter",
    "t1c csf": "T1c, CSF to white matter", "t1c grey": "T1c, grey to white matter",
    "t2w csf": "T2, CSF to white matter", "t2w grey": "T2, grey to white matter",
    "t2f csf": "FLAIR, CSF to white matter", "t2f grey": "FLAIR, grey to white matter",
    "fat": "Fat, HU", "muscle": "Muscle, HU", "bone": "Bone, median HU above 300", "noise": "Noise in muscle, HU",
}  # fmt: skip


def comparator(name: str) -> pd.DataFrame | None:
    """Image rows (as `Cohort.images`) of the real scan that stands beside a phantom; None where there is none."""
    for place in places():
        if name == "mets" and (place / "brats-met" / BRAIN).is_dir():
            folder = place / "brats-met" / BRAIN
            rows = [[BRAIN, "baseline", 0.0, key, str(folder / f"{BRAIN}-{key}.nii.gz"), ""] for key in SEQUENCES]
            return pd.DataFrame(rows, columns=IMAGES)
        trunk = place / "sts" / TRUNK
        if name == "chest" and (trunk / "CT_image.nii.gz").exists():
            row = [TRUNK, "baseline", 0.0, "ct", str(trunk / "CT_image.nii.gz"), str(trunk / "CT_mask.nii.gz")]
            return pd.DataFrame([row], columns=IMAGES)
    return None


def beside(real: pd.DataFrame, cohort: Cohort, patients: int = 6) -> list[list[dict]]:
    """Columns for `figures.contact_sheet`: the real scan first, then patients of the phantom."""
    level = None if real["mask_path"].ne("").all() else _brightest_level(real)
    tumour = cohort.tumour_labels
    rows = {row.modality: row for row in real.itertuples()}
    columns = contact(cohort, patients)
    present = [one["modality"] for one in columns[0]]
    first = [panel(rows[name], tumour, title="Real scan", level=level) if name in rows else None for name in present]
    return [first, *columns]


def intensities(real: pd.DataFrame, cohort: Cohort, patients: int = 6) -> pd.DataFrame:
    """Histograms on common bins.

    Returns
    -------
    DataFrame
        `who` ("real" or a patient), `modality`, `value` (middle of the bin: HU, or the intensity over its median in
        the brain), `density` (share of the voxels counted).
    """
    rows = []
    for who, images in _scans(real, cohort, patients):
        for modality, values in _voxels(images).items():
            edges = BINS["ct" if modality == "ct" else "mr"]
            counts, _ = np.histogram(values if modality == "ct" else values / np.median(values), edges)
            middle = (edges[:-1] + edges[1:]) / 2
            density = counts / max(counts.sum(), 1)
            rows.append(pd.DataFrame({"who": who, "modality": modality, "value": middle, "density": density}))
    return pd.concat(rows, ignore_index=True)


def contrasts(real: pd.DataFrame, cohort: Cohort, patients: int = 6) -> pd.DataFrame:
    """Ratios of tissues (MR), or HU of tissues and noise (CT): `measure`, `real`, `median`, `low`, `high`."""
    found = {who: _measures(_voxels(images, whole=True)) for who, images in _scans(real, cohort, patients)}
    table = pd.DataFrame(found)
    phantom = table.drop(columns="real")
    columns = {
        "real": table["real"],
        "median": phantom.median(axis=1),
        "low": phantom.min(axis=1),
        "high": phantom.max(axis=1),
    }
    return pd.DataFrame(columns).rename_axis("measure").reset_index()


def contrasts_text(table: pd.DataFrame) -> pd.DataFrame:
    """`contrasts` as the report prints it."""
    digits = [0 if measure in (*PEAKS, "bone", "noise") else 2 for measure in table["measure"]]
    phantom = table[["median", "low", "high"]].rename(columns={"median": "estimate"}).to_dict("records")
    return pd.DataFrame({
        "Measure": table["measure"].map(MEASURES),
        "Real scan": [interval_text({"estimate": one}, n) or "–" for one, n in zip(table["real"], digits, strict=True)],
        "Phantom, median (range)": [interval_text(one, n) or "–" for one, n in zip(phantom, digits, strict=True)],
    })  # fmt: skip


def tissues(t1: np.ndarray, t2: np.ndarray) -> np.ndarray:
    """Class of each voxel by k-means on the logarithms of T1 and T2: 0 white, 1 grey matter, 2 CSF, brighter in T2."""
    from sklearn.cluster import KMeans

    pair = np.log(np.stack([values / np.median(values) for values in (t1, t2)], axis=1).clip(0.05))
    fit = KMeans(3, n_init=3, random_state=0).fit(pair[:: max(1, len(pair) // 20000)])
    rank = np.argsort(np.argsort(fit.cluster_centers_[:, 1]))
    return rank[fit.predict(pair)]


def _measures(voxels: dict[str, np.ndarray]) -> dict[str, float]:
    if "ct" in voxels:
        return _peaks(voxels["ct"])
    classes, found = tissues(voxels["t1n"], voxels["t2w"]), {}
    for name, values in voxels.items():
        white, grey, csf = (np.median(values[classes == kind]) for kind in range(3))
        found |= {f"{name} csf": csf / white, f"{name} grey": grey / white}
    return found


def _peaks(image: np.ndarray) -> dict[str, float]:
    """Modes of fat and muscle, the middle of bone, and the spread between neighbours in muscle."""
    found = {}
    for name, (low, high) in PEAKS.items():
        counts, edges = np.histogram(image, np.arange(low, high + 1, 5))
        peak = counts.argmax()  # at the end of the range there is no peak: hardly any of that tissue
        found[name] = float(edges[peak] + 2.5) if counts.sum() > 200 and 0 < peak < len(counts) - 1 else np.nan
    bone = image[image > 300]
    found["bone"] = float(np.median(bone)) if bone.size > 200 else np.nan
    soft = (image > found["muscle"] - 60) & (image < found["muscle"] + 60)
    steps = np.diff(image.astype(float), axis=0)[soft[1:] & soft[:-1]]
    found["noise"] = float(1.4826 * np.median(np.abs(steps)) / np.sqrt(2)) if steps.size else np.nan
    return found


def _voxels(images: pd.DataFrame, *, whole: bool = False) -> dict[str, np.ndarray]:
    """Values of the brain `EDGE_MM` from its surface, or of a CT: all of it, or those between fat and bone."""
    volumes = {row.modality: volume(row.path) for row in images.itertuples()}
    if "ct" in volumes:
        ct = volumes["ct"][0]
        return {"ct": ct if whole else ct[(ct > BINS["ct"][0]) & (ct < BINS["ct"][-1])]}
    brain = np.all([values > 0 for values, _ in volumes.values()], axis=0)
    inner = distance_transform_edt(brain, sampling=next(iter(volumes.values()))[1]) > EDGE_MM
    return {name: volumes[name][0][inner] for name in SEQUENCES if name in volumes}


def _scans(real: pd.DataFrame, cohort: Cohort, patients: int):
    yield "real", real
    images = at_baseline(cohort.images)
    for patient in spread(images["patient_id"].unique().tolist(), patients):
        yield patient, images[images["patient_id"] == patient]


def _brightest_level(real: pd.DataFrame) -> int:
    """Slice through the oedema: where FLAIR is brightest over some millimetres, away from the surface."""
    (path,) = real.loc[real["modality"] == "t2f", "path"]
    flair, spacing = volume(path)
    inner = distance_transform_edt(flair > 0, sampling=spacing) > 2 * EDGE_MM
    smooth = gaussian_filter(flair.astype(np.float32), [4 / size for size in spacing])
    return int(np.unravel_index(np.argmax(smooth * inner), flair.shape)[2])
