"""Answers for the study's own test patients, from the files of their scans, as a user's own would be read."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import SimpleITK as sitk

from survpack.deploy.answer import Answer, answer
from survpack.deploy.bundle import Bundle
from survpack.deploy.card import headline
from survpack.deploy.intake import read_for
from survpack.preprocess import at_baseline
from survpack.study import TEST_FOLD, Study

TAKEN = "pt"  # the scan that one example lacks, where the cohort has it; else the last by name


def examples(study: Study, bundle: Bundle, count: int) -> dict[str, Answer]:
    """Test patients from the lowest to the highest risk, then the middle one with a scan missing, and with a wrong one.

    No outcome is read, and none of the patients is chosen by what the answer looks like.

    Parameters
    ----------
    study : Study
    bundle : Bundle
        Of this cohort.
    count : int
        Patients as they are.

    Returns
    -------
    dict of str to Answer
        By patient; then "<patient>-without-<sequence>" and "<patient>-noise", where the cohort has scans.
    """
    test = study.patients.take(study.fold(TEST_FOLD)[1])
    order = test.outcome.index[np.argsort(bundle.model.predict(test, bundle.times).risk, kind="stable")]
    chosen = [order[at] for at in np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]
    middle = order[len(order) // 2]
    found = {name: _answered(study, bundle, name, *files_of(study, name)) for name in chosen}
    scans, masks = files_of(study, middle)
    if len(scans) > 1:
        away = TAKEN if TAKEN in scans else max(scans)
        found[f"{middle}-without-{away}"] = _answered(
            study, bundle, middle, {name: path for name, path in scans.items() if name != away}, masks
        )
    if scans:
        with _noise(scans) as wrong:
            found[f"{middle}-noise"] = _answered(study, bundle, middle, wrong, masks)
    return found


def files_of(study: Study, patient: str) -> tuple[dict[str, Path], dict[str, Path]]:
    """A patient's scans and masks at baseline, by modality; the mask of a patient without scans is that of all."""
    images = study.cohort.images
    rows = at_baseline(images[images["patient_id"] == patient])
    scans = {row.modality: Path(row.path) for row in rows.itertuples() if row.path}
    return scans, {row.modality if row.path else "": Path(row.mask_path) for row in rows.itertuples() if row.mask_path}


def chart_of(study: Study, patient: str) -> dict:
    """What is known of a patient at baseline."""
    return {
        name: value
        for name, value in study.cohort.covariates.loc[patient].items()
        if value == value and value is not None
    }


def in_a_line(said: Answer) -> str:
    """For a list of answers."""
    return said.refused or f"median {headline(said)['median']}; {headline(said)['sentence']}"


def _answered(study: Study, bundle: Bundle, patient: str, scans: dict[str, Path], masks: dict[str, Path]) -> Answer:
    given = read_for(bundle, chart=chart_of(study, patient), scans=scans, masks=masks)
    return answer(bundle, given, label=patient)


@contextmanager
def _noise(scans: dict[str, Path]):
    """White noise of each scan's mean, spread and range in its place, on its grid."""
    rng = np.random.default_rng(0)
    with TemporaryDirectory(prefix="survpack-") as folder:
        wrong = {name: Path(folder) / f"{name}.nii.gz" for name in scans}
        for name, path in scans.items():
            image = sitk.ReadImage(str(path), sitk.sitkFloat32)
            values = sitk.GetArrayViewFromImage(image)
            drawn = rng.normal(values.mean(), values.std(), values.shape).clip(values.min(), values.max())
            noise = sitk.GetImageFromArray(drawn.astype(np.float32))
            noise.CopyInformation(image)
            sitk.WriteImage(noise, str(wrong[name]))
        yield wrong
