"""The patients of `mets` seen by the scanner of every institution, not by that of their own alone.

Anatomy, lesions and every random draw of a patient stay as they are in the cohort; only the scanner differs. So what
differs between two images of a patient is the scanner, and the noise that one and the same draw makes in it: a patient
who really returned for a second scan would differ by more.
"""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pandas as pd

from survpack.adapters import bids
from survpack.cohort import IMAGES, listed
from survpack.errors import BadInput
from survpack.paths import written_whole
from survpack.phantom import mets
from survpack.phantom.shared import one_by_one


def rescanned(choices: dict, patients: list[str], folder: Path, n_jobs: int = -1) -> pd.DataFrame:
    """Image some patients of a `mets` cohort with every site's scanner; one BIDS folder a scanner, written whole.

    Parameters
    ----------
    choices : dict
        With which the cohort was made; what is not among them has the default of `mets`.
    patients : list of str
        `patient_id` of whom to image.
    folder : Path
        Receives `<site>/<patient_id>/anat/…`.
    n_jobs : int
        Processes; -1 is one a core.

    Returns
    -------
    DataFrame
        The columns of `Cohort.images`, one row an image; `session` is the site whose scanner it was. Under a patient's
        own site the image is that of the cohort; the mask is the same under all.

    Raises
    ------
    BadInput
        For a patient who is not in that cohort.
    """
    choices = mets.DEFAULTS | choices
    chart, looks, seeds, _ = mets.drawn(choices["patients"], choices["sites"], choices["seed"])
    if unknown := [patient for patient in patients if patient not in seeds]:
        raise BadInput(
            f"patients to rescan: {listed(unknown)} not in this mets cohort of {choices['patients']}; name patients "
            "of its participants.tsv."
        )
    patients, count = list(dict.fromkeys(patients)), chart.set_index("patient_id")["lesion_count"]
    with written_whole(folder) as part:
        part.mkdir()
        tasks = ((part, patient, count[patient], looks, choices["spacing_mm"], seeds[patient]) for patient in patients)
        one_by_one(_seen_by_all, tasks, len(patients), "phantom mets: patients rescanned", n_jobs)
    rows = [
        (patient, site, 0.0, sequence, *(str(bids.image_path(folder / site, patient, kind)) for kind in (sequence, "mask")))
        for patient in patients
        for site in looks
        for sequence in mets.SEQUENCES
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=IMAGES)


def _seen_by_all(folder: Path, patient: str, count: int, looks: dict[str, dict], spacing_mm: float, seed) -> dict:
    """Make one patient and write the images of each scanner; every one of them starts from the same draws."""
    rng, brain, mask, rim = mets.body(seed, count, spacing_mm)
    for site, scanner in looks.items():
        volumes = mets.images(deepcopy(rng), brain, mask, rim, scanner)
        mets.write(folder / site, patient, {**volumes, "mask": mask}, brain.affine)
    return {"patient_id": patient}
