"""Rescanned patients are those of the cohort: same anatomy, same draws, another scanner."""

from hashlib import sha256

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack.adapters import bids
from survpack.cohort import IMAGES
from survpack.errors import BadInput
from survpack.phantom import mets
from survpack.phantom.rescan import rescanned

CHOICES = {"patients": 7, "sites": 3, "spacing_mm": 6.0, "seed": 5, "survival_noise": 1.0, "site_hazard": 0.4}
WHO = ["sub-002", "sub-004", "sub-006"]
BEFORE = {"t1n": 6814582, "t1c": 3873448, "t2w": 7734296, "t2f": 4872738, "mask": 1846}
BEFORE_ML = [10.125, 2.375, 6.5, 1.125]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The cohort's BIDS folder and participants; images of three of its patients under each of three scanners."""
    place = tmp_path_factory.mktemp("rescan")
    mets.generate(place / "bids", place / "truth.parquet", **CHOICES, n_jobs=1)
    images = rescanned(CHOICES, WHO, place / "rescans", n_jobs=1)
    return place / "bids", bids.clinical(place / "bids").set_index("patient_id"), images


def voxels(path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_under_a_patients_own_scanner_image_and_mask_are_the_cohorts_voxel_for_voxel(made):
    cohort, participants, images = made
    own = images[images["session"] == images["patient_id"].map(participants["site"])]
    assert len(own) == len(WHO) * len(mets.SEQUENCES)
    for row in own.itertuples():
        original = bids.image_path(cohort, row.patient_id, row.modality)
        np.testing.assert_array_equal(voxels(row.path), voxels(original))
        np.testing.assert_array_equal(nib.load(row.path).affine, nib.load(original).affine)
        np.testing.assert_array_equal(voxels(row.mask_path), voxels(bids.image_path(cohort, row.patient_id, "mask")))


def test_another_scanner_changes_every_image_and_no_mask_and_no_anatomy(made):
    for (_patient, sequence), rows in made[2].groupby(["patient_id", "modality"]):
        masks, seen = [voxels(path) for path in rows["mask_path"]], [voxels(path) for path in rows["path"]]
        assert all(np.array_equal(mask, masks[0]) for mask in masks) and masks[0].any()
        assert all(np.array_equal(image > 0, seen[0] > 0) for image in seen)  # the same brain
        for image in seen[1:]:
            assert (image != seen[0]).mean() > 0.1, sequence
            brain = seen[0] > 0
            assert np.corrcoef(np.argsort(np.argsort(image[brain])), np.argsort(np.argsort(seen[0][brain])))[0, 1] > 0.9


def test_the_table_is_one_of_a_cohort_and_its_files_are_read_as_a_bids_folder(made):
    _, participants, images = made
    assert list(images) == IMAGES and (images["day"] == 0).all()
    assert set(images["session"]) == set(participants["site"]) and len(images) == 3 * 3 * 4
    for site, rows in images.groupby("session"):
        found = bids.discover(rows["path"].iloc[0].split(f"/{site}/")[0] + f"/{site}")
        same = found.sort_values(["patient_id", "modality"])[["path", "mask_path"]].to_numpy()
        assert (rows.sort_values(["patient_id", "modality"])[["path", "mask_path"]].to_numpy() == same).all()


def test_the_same_choices_give_the_same_bytes_on_two_processes_and_for_other_companions(made, tmp_path):
    again = rescanned(CHOICES, [WHO[2], WHO[0]], tmp_path / "again", n_jobs=2)
    both = made[2].merge(again, on=["patient_id", "session", "modality"])
    assert len(both) == 2 * 3 * 4
    for row in both.itertuples():
        for one, other in ((row.path_x, row.path_y), (row.mask_path_x, row.mask_path_y)):
            assert digest(one) == digest(other)


def digest(path) -> str:
    with open(path, "rb") as file:
        return sha256(file.read()).hexdigest()


def test_a_patient_of_another_cohort_is_refused_by_name_before_anything_is_written(tmp_path):
    with pytest.raises(BadInput, match="sub-008 not in this mets cohort of 7"):
        rescanned(CHOICES, ["sub-001", "sub-008"], tmp_path / "rescans")
    assert not list(tmp_path.iterdir())


def test_a_choice_that_is_not_made_has_the_default_that_the_cohort_was_made_with(tmp_path):
    few = {"patients": 7, "spacing_mm": 6.0}
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **mets.DEFAULTS | few, n_jobs=1)
    site = bids.clinical(tmp_path / "bids").set_index("patient_id")["site"]["sub-002"]
    seen = rescanned(few, ["sub-002"], tmp_path / "rescans", n_jobs=1)
    own = seen[(seen["session"] == site) & (seen["modality"] == "t1c")]["path"].item()
    np.testing.assert_array_equal(voxels(own), voxels(bids.image_path(tmp_path / "bids", "sub-002", "t1c")))


def test_the_cohort_itself_is_as_it_was_before_rescans_were_thought_of(tmp_path):
    """Voxels of a cohort of before; its bytes repeat only where the mathematical libraries do, hence sums."""
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", patients=4, sites=2, spacing_mm=5.0, seed=3, n_jobs=1)
    found = {
        name: int(voxels(bids.image_path(tmp_path / "bids", "sub-003", name)).sum(dtype=np.int64))
        for name in (*mets.SEQUENCES, "mask")
    }
    assert found == pytest.approx(BEFORE, rel=1e-4)
    assert pd.read_parquet(tmp_path / "truth.parquet")["enhancing_ml"].tolist() == pytest.approx(BEFORE_ML)
