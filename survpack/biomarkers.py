"""Numbers of a lesion: volumes and ratios in physical units, shape, and a basic radiomic set."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
import SimpleITK as sitk
from joblib import Parallel, delayed
from tqdm import tqdm

from survpack.cohort import TUMOUR, Cohort
from survpack.params import Biomarkers, per_cohort
from survpack.preprocess import at_baseline, read_image, tumour_of

RADIOMIC = "rad_"  # begins the name of every radiomic feature; the rest are lesion biomarkers


def extract(cohort: Cohort, params: Biomarkers) -> pd.DataFrame:
    """All biomarkers of a cohort, one row a patient, indexed by `patient_id`.

    Volumes come from the first mask of a patient at baseline, on its native grid. Diameter, sphericity and the
    other shapes are those of the largest lesion, intensity and texture those of the whole tumour,
    both on isotropic voxels. A feature that cannot be computed (a lesion smaller
    than two voxels, say) is NaN.
    """
    spacing = per_cohort(params.spacing_mm, cohort.name)
    groups = dict(tuple(at_baseline(cohort.images).groupby("patient_id", sort=False)))
    patients = cohort.participants["patient_id"].tolist()
    bar = tqdm(patients, desc=f"{cohort.name}: biomarkers", mininterval=2)
    rows = Parallel(n_jobs=-1)(
        delayed(_extract_patient)(groups[patient], cohort.labels, spacing, params.bin_count) for patient in bar
    )
    table = pd.DataFrame(rows, index=pd.Index(patients, name="patient_id")).astype(float)
    return table.dropna(axis=1, how="all")


def lesion_volumes(mask: np.ndarray, voxel_ml: float, labels: dict[int, str]) -> dict[str, float]:
    """Volume of every compartment and their ratios.

    Parameters
    ----------
    mask : ndarray of int, shape (x, y, z)
    voxel_ml : float
        Volume of one voxel, mL.
    labels : dict of int to str

    Returns
    -------
    dict
        `<label>_ml`, `tumour_ml` (enhancing and necrosis, or the one tumour label) and, where
        these labels exist, `oedema_to_tumour` and `necrosis_fraction` (NaN without tumour).
    """
    counts = dict.fromkeys(labels.values(), 0.0)  # several numbers may mean one thing: a set that numbers its lesions
    for number, voxels in zip(*np.unique(mask, return_counts=True), strict=True):
        if number in labels:
            counts[labels[number]] += int(voxels) * voxel_ml
    tumour = sum(volume for meaning, volume in counts.items() if meaning in TUMOUR)
    found = {f"{meaning}_ml": volume for meaning, volume in counts.items()} | {"tumour_ml": tumour}
    if "oedema" in counts:
        found["oedema_to_tumour"] = counts["oedema"] / tumour if tumour else np.nan
    if "necrosis" in counts:
        found["necrosis_fraction"] = counts["necrosis"] / tumour if tumour else np.nan
    return found


def lesion_count(tumour: sitk.Image, smallest_ml: float = 0.01) -> int:
    """Connected components (faces, edges or corners touching) of at least `smallest_ml`."""
    statistics = sitk.LabelShapeStatisticsImageFilter()
    statistics.Execute(sitk.ConnectedComponent(tumour, True))
    return sum(statistics.GetPhysicalSize(label) >= 1000 * smallest_ml for label in statistics.GetLabels())


def radiomics(image: sitk.Image, tumour: sitk.Image, spacing: float, bin_count: int, families) -> dict[str, float]:
    """Radiomic features of one region on isotropic voxels, by flash-radiomics (pyradiomics' names).

    The library's `preprocess_case` and `extract_from_preprocessed` are used because its `execute`
    always writes an HDF5 file into the working folder.
    """
    from flash_radiomics import featureextractor

    logging.getLogger("flash_radiomics").setLevel(logging.ERROR)
    extractor = featureextractor.RadiomicsFeatureExtractor(
        resampledPixelSpacing=[spacing] * 3, binCount=bin_count, preCrop=True, additionalInfo=False
    )
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(**{family: [] for family in families})
    try:
        values = extractor.extract_from_preprocessed(extractor.preprocess_case(image, tumour))
    except ValueError:  # the region is too small for the library
        return {}
    return {name.removeprefix("original_"): float(value) for name, value in values.items()}


def _extract_patient(rows: pd.DataFrame, labels: dict[int, str], spacing: float, bin_count: int) -> dict[str, float]:
    tumour_labels = [number for number, meaning in labels.items() if meaning in TUMOUR]
    mask = read_image(rows["mask_path"].iloc[0])
    found = lesion_volumes(sitk.GetArrayViewFromImage(mask), float(np.prod(mask.GetSpacing())) / 1000, labels)
    tumour = tumour_of(mask, tumour_labels)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(tumour, True)) == 1  # sorted by size
    shape = radiomics(largest, largest, spacing, bin_count, ["shape"])
    found["lesions_found"] = lesion_count(tumour)
    found["diameter_mm"] = shape.get("shape_Maximum3DDiameter", np.nan)
    found["sphericity"] = shape.get("shape_Sphericity", np.nan)
    found |= {f"{RADIOMIC}{name}": value for name, value in shape.items()}
    for row in rows[rows["path"] != ""].itertuples():
        image = read_image(row.path, sitk.sitkFloat32)
        own = (
            tumour
            if row.mask_path == rows["mask_path"].iloc[0]
            else tumour_of(read_image(row.mask_path), tumour_labels)
        )
        image = sitk.Resample(image, own, sitk.Transform(), sitk.sitkLinear)  # cut to the same box
        features = radiomics(image, own, spacing, bin_count, ["firstorder", "glcm"])
        found |= {f"{RADIOMIC}{row.modality}_{name}": value for name, value in features.items()}
    return found
