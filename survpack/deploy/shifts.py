"""Ways in which a patient's scan or chart is not what a model was trained on, planted to see whether it is noticed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from survpack.models.patients import Patients

BLUR, MOVED = 2.0, 10  # voxels
FAR = 6.0  # standard deviations
NOT_MR = ("ct", "pt")
SPATIAL = (-3, -2, -1)


def swapped(patients: Patients) -> Patients | None:
    """The first two sequences in each other's place."""
    if len(patients.modalities) < 2:
        return None
    order = [1, 0, *range(2, len(patients.modalities))]
    return replace(patients, images=patients.images[:, order], present=patients.present[:, order])


def ct_for_mr(patients: Patients) -> Patients | None:
    """A CT where an MR is expected: the cohort's own, or one in which soft tissues are all but alike."""
    mr = [k for k, name in enumerate(patients.modalities) if name not in NOT_MR]
    if not mr:
        return None
    images = patients.images.copy()
    if "ct" in patients.modalities:
        images[:, mr] = images[:, [patients.modalities.index("ct")]]
    else:
        soft = 0.5 + 0.02 * np.tanh(images[:, mr].astype(np.float32))
        for at in np.ndindex(soft.shape[:2]):
            soft[at] = _noisy(soft[at], 0.02, at)
        images[:, mr] = soft
    return replace(patients, images=images)


def noise(patients: Patients) -> Patients | None:
    """White noise as strong as the image itself."""
    return _imaged(patients, lambda image, at: _noisy(image, image.std(), at))


def blur(patients: Patients) -> Patients | None:
    return _imaged(patients, lambda image, _: ndimage.gaussian_filter(image, BLUR))


def inverted(patients: Patients) -> Patients | None:
    return _imaged(patients, lambda image, _: 2 * np.median(image) - image)


def brighter(patients: Patients) -> Patients | None:
    """Not normalised: three times the values."""
    return _imaged(patients, lambda image, _: 3 * image)


def mask_moved(patients: Patients) -> Patients:
    """The mask beside the lesion."""
    return replace(patients, masks=np.roll(patients.masks, MOVED, axis=-3))


def upside_down(patients: Patients) -> Patients:
    return replace(patients, images=np.flip(patients.images, -1), masks=np.flip(patients.masks, -1))


def twice_as_large(patients: Patients) -> Patients:
    """A header that gives double the spacing: all is twice as large a side."""
    size = patients.images.shape[-1]
    inner = np.arange(size) // 2 + size // 4
    here = np.ix_(*[range(count) for count in patients.images.shape[:2]], inner, inner, inner)
    there = np.ix_(*[range(count) for count in patients.masks.shape[:2]], inner, inner, inner)
    return replace(patients, images=patients.images[here], masks=patients.masks[there])


def no_image(patients: Patients) -> Patients | None:
    """White noise alone, of the image's mean and spread."""
    return _imaged(patients, lambda image, at: _noisy(np.full_like(image, image.mean()), image.std(), at))


def chart_far_out(patients: Patients) -> Patients | None:
    """The first number of the chart, as the age, far above anybody's."""
    numbers = [name for name in patients.clinical if _kind(patients, name) == "numeric"]
    if not numbers:
        return None
    values = patients.clinical[numbers[0]].astype(float)
    return replace(patients, clinical=patients.clinical.assign(**{numbers[0]: values + FAR * values.std()}))


def volumes_in_mm3(patients: Patients) -> Patients | None:
    """A thousand times too large."""
    volumes = [name for name in patients.biomarkers if name.endswith("_ml") and name in patients.lesion]
    if not volumes:
        return None
    larger = {name: 1000 * patients.biomarkers[name] for name in volumes}
    return replace(patients, biomarkers=patients.biomarkers.assign(**larger))


SHIFTS = {
    "sequences swapped": swapped,
    "CT for MR": ct_for_mr,
    "noise": noise,
    "blur": blur,
    "intensities inverted": inverted,
    "three times as bright": brighter,
    "mask moved off the lesion": mask_moved,
    "upside down": upside_down,
    "twice as large": twice_as_large,
    "noise for an image": no_image,
    "chart far out": chart_far_out,
    "volumes in mm³": volumes_in_mm3,
}


def _kind(patients: Patients, name: str) -> str:
    return patients.dictionary.get(name, {"kind": "numeric"})["kind"]


def _imaged(patients: Patients, change) -> Patients | None:
    """Each image that is there, changed by itself; `change(image, (patient, sequence))`. None where nobody has one."""
    if not patients.present.any():
        return None
    images = patients.images.copy()
    for at in np.argwhere(patients.present):
        images[tuple(at)] = change(images[tuple(at)].astype(np.float32), at)
    return replace(patients, images=images)


def _noisy(image: np.ndarray, spread: float, at) -> np.ndarray:
    """White noise on an image, another for each patient and sequence (`at`)."""
    return image + np.random.default_rng([*at]).normal(0, spread, image.shape)
