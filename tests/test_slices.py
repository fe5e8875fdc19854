"""Slices as they are seen: sides, level and volume against a lesion planted where we know."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack import slices
from survpack.cohort import Cohort

RAS, LPS = np.diag([2.0, 3.0, 4.0, 1.0]), np.diag([-2.0, -3.0, 4.0, 1.0])


def planted(folder, affine=RAS, modality="t1n", background=0.0, name="scan", size=(4, 4, 3)) -> SimpleNamespace:
    """A large lesion at the patient's right front, in slices 5 to 7, a small one at the left back in slice 1."""
    shape = (20, 16, 10)
    mask = np.zeros(shape, np.uint8)
    mask[14 : 14 + size[0], 11 : 11 + size[1], 5 : 5 + size[2]] = 3
    mask[3:5, 3:5, 1] = 3
    mask[14, 11, 5] = mask[14, 11, 7] = 0  # slice 6 is the widest
    image = np.where(mask > 0, 200.0, 100.0 if modality != "ct" else background).astype(np.float32)
    if (affine == LPS).all():
        image, mask = image[::-1, ::-1], mask[::-1, ::-1]
    paths = [folder / f"{name}{what}.nii.gz" for what in ("", "_dseg")]
    for path, array in zip(paths, (image, mask), strict=True):
        nib.save(nib.Nifti1Image(array, affine), path)
    return SimpleNamespace(path=str(paths[0]), mask_path=str(paths[1]), modality=modality, day=0.0)


@pytest.mark.parametrize("affine", [RAS, LPS])
def test_right_is_left_and_front_is_up_whatever_the_files_axes(tmp_path, affine):
    one = slices.panel(planted(tmp_path, affine), [3])
    rows, columns = np.nonzero(one["labels"])
    assert one["labels"].shape == (16, 20) and len(rows) == 16
    assert rows.max() < 8 and columns.max() < 10
    assert one["spacing"] == (3.0, 2.0)


def test_the_slice_is_that_in_which_the_largest_lesion_is_widest(tmp_path):
    one = slices.panel(planted(tmp_path), [3])
    assert (one["labels"] == 3).sum() == 16
    assert one["volume_ml"] == pytest.approx((2 * 15 + 16 + 4) * 24 / 1000)


def test_a_field_cuts_a_square_around_the_lesion(tmp_path):
    one = slices.panel(planted(tmp_path), [3], field_mm=12.0)
    height, width = (count * step for count, step in zip(one["labels"].shape, one["spacing"], strict=True))
    assert 12 <= height <= 18 and 12 <= width <= 16
    assert (one["labels"] == 3).sum() == 16


@pytest.mark.parametrize(("background", "airy"), [(-850.0, True), (40.0, False)])
def test_a_lesion_in_air_is_known_by_what_surrounds_it(tmp_path, background, airy):
    assert slices.panel(planted(tmp_path, modality="ct", background=background), [3])["airy"] is airy


def test_a_mask_without_image_is_shown_as_it_is(tmp_path):
    row = planted(tmp_path)
    row.path, row.modality = "", "mask"
    one = slices.panel(row, [3])
    assert set(np.unique(one["image"])) == {np.float32(0.0), np.float32(0.4)}


def cohort(folder, sessions: dict[str, list[float]], modalities=("t1n", "t1c")) -> Cohort:
    rows = []
    for patient, days in sessions.items():
        for number, day in enumerate(days):
            for modality in modalities:
                made = planted(folder, modality=modality, name=f"{patient}-{number}-{modality}")
                rows.append([patient, f"ses-{number}", day, modality, made.path, made.mask_path])
    images = pd.DataFrame(rows, columns=["patient_id", "session", "day", "modality", "path", "mask_path"])
    people = pd.DataFrame({"patient_id": list(sessions), "site": "a", "time_days": 9.0, "event": True})
    return Cohort("toy", people, images, {}, {3: "enhancing"})


def test_a_contact_sheet_has_a_column_a_patient_and_leaves_gaps_where_a_scan_is_missing(tmp_path):
    made = cohort(tmp_path, {f"p{k}": [0.0] for k in range(5)})
    made.images.drop(made.images.index[1], inplace=True)
    columns = slices.contact(made, 3)
    assert [column[0]["title"] for column in columns] == ["p0", "p2", "p4"]
    assert columns[0][1] is None and columns[1][1]["modality"] == "t1c"
    assert slices.table(columns)["patient_id"].tolist() == ["p0", "p2", "p2", "p4", "p4"]


def test_visits_are_of_those_seen_most_and_in_the_order_of_their_days(tmp_path):
    made = cohort(tmp_path, {"p0": [0.0], "p1": [0.0, 90.0, 40.0], "p2": [0.0, 50.0]}, modalities=("t1c",))
    rows = slices.visits(made, 2)
    assert [[one["day"] for one in row] for row in rows] == [[0.0, 40.0, 90.0], [0.0, 50.0]]
    assert rows[0][1]["title"].startswith("day 40, ") and list(slices.table(rows)["day"]) == [0, 40, 90, 0, 50]


def test_a_cohort_without_images_has_no_sheet(tmp_path):
    made = cohort(tmp_path, {"p0": [0.0]})
    empty = Cohort("toy", made.participants, made.images.head(0), {}, {3: "enhancing"})
    assert slices.contact(empty) == [] and slices.visits(empty) == []
