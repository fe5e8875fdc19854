"""Settings that a cohort gets from itself: planted sizes and days found, of development patients alone; crops that cut."""

import json
from types import SimpleNamespace

import nibabel
import numpy as np
import pandas as pd
import pytest
from conftest import Elsewhere
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from survpack import cut, preprocess, settings
from survpack import params as params_module
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.study import Study

NAMED = ("mets", "chest", "sts", "kits")
VOXELS = 48


def as_written(**changed):
    """params.yaml with some places changed: `crops_spacing_mm={…}`."""
    chosen = params_module.load()
    for place, table in changed.items():
        section, _, key = place.partition("_")
        part = getattr(chosen, section).model_copy(update={key: table})
        chosen = chosen.model_copy(update={section: part})
    return chosen


def block(path, sides, spacing=(2.0, 2.0, 2.0), shift=(0, 0, 0), turn=None, other=()):
    """A box of tumour (label 1) of `sides` voxels in the middle, and single voxels of it elsewhere; CT that is 300 in it."""
    mask = np.zeros((VOXELS,) * 3, np.uint8)
    start = [VOXELS // 2 - side // 2 + off for side, off in zip(sides, shift, strict=True)]
    mask[tuple(slice(a, a + side) for a, side in zip(start, sides, strict=True))] = 1
    for place in other:
        mask[place] = 1
    affine = np.eye(4)
    affine[:3, :3] = (np.eye(3) if turn is None else turn) @ np.diag(spacing)
    nibabel.Nifti1Image(mask, affine).to_filename(path)
    image = np.where(mask, 300, -50).astype(np.int16)
    nibabel.Nifti1Image(image, affine).to_filename(str(path).replace("mask", "ct"))
    return str(path)


def cohort_of(folder, boxes, modality="mask", name="mine", **more):
    ids = [f"P{k}" for k in range(len(boxes))]
    masks = [block(folder / f"mask{k}.nii.gz", **box) for k, box in enumerate(boxes)]
    images = pd.DataFrame({
        "patient_id": ids, "session": "0", "day": 0.0, "modality": modality,
        "path": "" if modality == "mask" else [mask.replace("mask", "ct") for mask in masks], "mask_path": masks,
    })  # fmt: skip
    people = pd.DataFrame({"patient_id": ids, "site": "a", "time_days": np.linspace(10, 2000, len(ids)), "event": True})
    return Cohort(name, people, images, {}, {1: "tumour"}, **more)


def found_of(cohort, development=None, chosen=None):
    everyone = cohort.participants["patient_id"].tolist()
    return settings.resolve(cohort, everyone if development is None else development, chosen or as_written())


# --- sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sides", "spacing", "expected"), [
    ((16, 8, 8), (2.0, 2.0, 2.0), 2.0),  # 32 mm and a tenth, over 32 voxels: 1.1, but the voxel is 2 mm
    ((30, 8, 8), (2.0, 2.0, 2.0), 2.5),  # 66 / 32 = 2.06
    ((40, 20, 20), (1.0, 1.0, 3.0), 2.5),  # 60 mm along z: 66 / 32
    ((12, 12, 4), (0.8, 0.8, 3.0), 1.0),  # 13.2 / 32, and no finer than 0.8
])  # fmt: skip
def test_the_crop_is_the_least_half_millimetre_that_holds_the_lesion_and_a_tenth(tmp_path, sides, spacing, expected):
    told = found_of(cohort_of(tmp_path, [{"sides": sides, "spacing": spacing}] * 3))["crops.spacing_mm"]
    assert told["value"] == expected and "3 development patients" in told["from"]


def test_an_oblique_lesion_is_measured_along_the_patients_axes_which_are_the_crops(tmp_path):
    angle = np.deg2rad(45)
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    table = settings._lesions(cohort_of(tmp_path, [{"sides": (20, 20, 4), "turn": turn}]).images, [1])
    assert table["reach_mm"].item() == pytest.approx(40 / 2 * np.sqrt(2), abs=0.1)  # half the diagonal of 40 mm


def test_five_in_a_hundred_may_be_cut_and_the_rest_are_whole(tmp_path):
    """Nineteen of 20 mm and one of 90: the one does not set the size of all."""
    sizes = pd.DataFrame({"reach_mm": [10.0] * 19 + [45.0], "diameter_mm": 20.0, "finest_mm": 1.0, "cube_mm": 1.0})
    assert settings.crop_spacing(sizes, 32)[0] == 1.0
    assert settings.crop_spacing(pd.concat([sizes, sizes.tail(1)]), 32)[0] == 3.5  # two of 21: 99 / 32


def test_a_cap_that_binds_is_told_with_what_it_cuts():
    """Most lesions of 8 mm and a tenth of 100 mm: the usual one stays four voxels across."""
    sizes = pd.DataFrame({"reach_mm": [4.0] * 9 + [50.0], "diameter_mm": 8.0, "finest_mm": 1.0, "cube_mm": 1.0})
    value, told = settings.crop_spacing(sizes, 32)
    assert value == 2.0 and "capped" in told and "10% of them are cut" in told and "3.5 mm would hold them" in told


@examples(max_examples=60)
@given(
    st.lists(st.floats(1, 150), min_size=1, max_size=40), st.floats(0.3, 6), st.sampled_from([32, 64]), st.floats(2, 80)
)
def test_a_crop_is_in_half_millimetres_never_finer_than_the_voxel_and_holds_its_share_unless_capped(
    reaches, native, voxels, diameter
):
    sizes = pd.DataFrame({"reach_mm": reaches, "diameter_mm": diameter, "finest_mm": native, "cube_mm": native})
    spacing, told = settings.crop_spacing(sizes, voxels)
    assert (2 * spacing) % 1 == 0 and spacing >= native - 1e-5
    whole = np.mean(2 * np.array(reaches) <= voxels * spacing + 1e-5)
    assert whole >= settings.FITS or "capped" in told
    if "capped" in told:
        assert spacing <= max(diameter / settings.ACROSS, native + settings.STEP_MM)


@pytest.mark.parametrize(("spacing", "expected"), [
    ((1.0, 1.0, 1.0), 1.0), ((0.5, 0.5, 0.5), 1.0), ((0.8, 0.8, 5.0), 1.5), ((2.0, 2.0, 2.0), 2.0), ((4.0, 4.0, 5.0), 4.5),
])  # fmt: skip
def test_radiomics_are_measured_in_cubes_as_large_as_the_native_voxel(tmp_path, spacing, expected):
    box = {"sides": (6, 6, 6), "spacing": spacing}
    assert found_of(cohort_of(tmp_path, [box] * 2))["biomarkers.spacing_mm"]["value"] == expected


def test_the_window_of_a_ct_is_that_of_the_tumour_and_what_is_about_it(tmp_path):
    told = found_of(cohort_of(tmp_path, [{"sides": (8, 8, 8)}] * 2, "ct"))["crops.ct_window_hu"]
    assert told["value"] == [-50, 300]


def test_what_a_cohort_has_not_is_said_not_to_be_used(tmp_path):
    """A table of features alone."""
    cohort = cohort_of(tmp_path, [{"sides": (6, 6, 6)}] * 2)
    found = found_of(Cohort("mine", cohort.participants, cohort.images.iloc[:0], {}, {}))
    for place in ("crops.spacing_mm", "crops.ct_window_hu", "biomarkers.spacing_mm", "longitudinal.landmarks_days"):
        assert "not used" in found[place]["from"]


@pytest.mark.parametrize("modality", ["mask", "ct"])
def test_nothing_of_the_test_set_or_of_a_later_scan_is_looked_at(tmp_path, modality):
    """Larger lesions, other voxels, other outcomes, files that are gone: nobody notices."""
    small = {"sides": (8, 8, 8)}
    cohort = cohort_of(tmp_path, [small] * 6 + [{"sides": (44, 44, 44), "spacing": (3, 3, 3)}] * 3, modality)
    development = [f"P{k}" for k in range(6)]
    before = found_of(cohort, development)
    people = cohort.participants.copy()
    people.loc[6:, ["time_days", "event"]] = [9999.0, False]
    late = cohort.images.iloc[6:].assign(patient_id=development[:3], session="late", day=200.0)
    images = pd.concat([cohort.images.iloc[:6], cohort.images.iloc[6:].assign(mask_path="/gone.nii.gz"), late])
    after = found_of(Cohort("mine", people, images.reset_index(drop=True), {}, {1: "tumour"}), development)
    assert {**after, "longitudinal.landmarks_days": None} == {**before, "longitudinal.landmarks_days": None}


# --- days --------------------------------------------------------------------------------------------------------


def followed(time, event):
    return pd.DataFrame({"time_days": time, "event": event})


def test_the_horizon_is_the_latest_day_with_events_before_and_after_and_a_fifth_at_risk():
    """One event a month of 100 patients; a fifth are left after the 80th: day 2400, so 1825 is the last usual day."""
    value, told = settings.horizon(followed(np.arange(1, 101) * 30.0, True))
    assert value == 1825 and "60 had the event, 40 were at risk" in told
    assert settings.horizons(followed(np.arange(1, 101) * 30.0, True))[0] == [1095, 1460, 1825]


def test_with_few_events_half_of_them_are_enough_and_a_late_follow_up_without_events_is_no_horizon():
    """Six events in the first year of fifty who are followed for eight: after it nothing happens."""
    time = np.r_[100, 130, 160, 200, 300, 340, np.full(44, 2900.0)]
    assert settings.horizon(followed(time, np.arange(50) < 6))[0] == 180  # 3 by then, 3 to come


def test_where_no_usual_day_will_do_it_is_the_median_time_of_an_event():
    value, told = settings.horizon(followed([3.0, 5, 8, 9, 10], True))
    assert value == 7 and "no usual day" in told  # the median is day 8, which is somebody's own
    assert settings.horizon(followed([3.0, 5, 8], False))[0] == 5


@examples(max_examples=80)
@given(st.lists(st.tuples(st.floats(1, 5000), st.booleans()), min_size=3, max_size=80))
def test_a_horizon_is_a_day_of_follow_up_and_the_last_of_the_days_of_decision_curves(rows):
    outcome = followed(*map(list, zip(*rows, strict=True)))
    day, days = settings.horizon(outcome)[0], settings.horizons(outcome)[0]
    assert 1 <= day <= max(outcome["time_days"].max(), 1) + 0.5
    assert days[-1] == day and days == sorted(set(days)) and len(days) <= 3


def test_landmarks_are_where_patients_have_been_seen_again_and_events_are_to_come(tmp_path):
    ids = [f"P{k}" for k in range(40)]
    people = pd.DataFrame({"patient_id": ids, "site": "a", "time_days": 400.0 + np.arange(40) * 10, "event": True})
    visits = pd.concat(
        [pd.DataFrame({"patient_id": ids, "session": str(day), "day": float(day)}) for day in (0, 100, 300)]
    )
    cohort = Cohort("mine", people, pd.DataFrame(columns=["patient_id", "session", "day", "modality", "path", "mask_path"]),
                    {}, {}, visits=visits.reset_index(drop=True), imaged=False)  # fmt: skip
    assert found_of(cohort)["longitudinal.landmarks_days"]["value"] == [180, 270, 365]


def test_a_pet_after_the_ct_is_no_visit(tmp_path):
    cohort = cohort_of(tmp_path, [{"sides": (6, 6, 6)}] * 30, "ct")
    pet = cohort.images.assign(modality="pt", session="1", day=5.0)
    both = Cohort("mine", cohort.participants, pd.concat([cohort.images, pet], ignore_index=True), {}, {1: "tumour"})
    assert "nobody was seen twice" in found_of(both)["longitudinal.landmarks_days"]["from"]
    again = Cohort("mine", cohort.participants, pd.concat([cohort.images, pet.assign(modality="ct")], ignore_index=True), {},
                   {1: "tumour"})  # fmt: skip
    assert found_of(again)["longitudinal.landmarks_days"]["value"] == [30, 60, 90]


# --- where they are kept -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMED)
def test_the_cohorts_of_params_yaml_keep_their_numbers(name, tmp_path):
    cohort = cohort_of(tmp_path, [{"sides": (6, 6, 6)}] * 3, name=name)
    assert found_of(cohort) == {}
    assert settings.applied(as_written(), name, {"crops.spacing_mm": {"value": 9.0}}) == as_written()


@pytest.mark.parametrize("table", [{"other": 3.0}, {"mine": 3.0, "other": "auto"}])
def test_a_number_in_place_of_auto_holds(table, tmp_path):
    chosen = as_written(crops_spacing_mm=table)
    assert "crops.spacing_mm" not in found_of(cohort_of(tmp_path, [{"sides": (6, 6, 6)}] * 3), chosen=chosen)
    late = settings.applied(
        chosen, "mine", {"crops.spacing_mm": {"value": 9.0, "from": ""}}
    )  # found before it was written
    assert params_module.per_cohort(late.crops.spacing_mm, "mine") == 3.0


def test_a_study_reads_what_stage_01_found_and_without_it_says_what_to_run(tmp_path):
    paths = Elsewhere("mine", tmp_path / "derived")
    cohort = cohort_of(tmp_path, [{"sides": (30, 8, 8)}] * 4, "ct")
    bare = Study("mine", as_written(), paths, unsettled=True)
    found = found_of(cohort, chosen=bare.params)
    with pytest.raises(BadInput, match="`auto` in params.yaml.*run 01-cohort --cohort mine"):
        preprocess.make_crops(cohort, Study("mine", as_written(), paths).params.crops, bare.params.preprocess)
    bare.settled(found)
    study = Study("mine", as_written(), paths)
    assert study.horizon_days == found["scores.horizon_days"]["value"]
    crops = preprocess.make_crops(cohort, study.params.crops, study.params.preprocess)
    assert (
        crops.spacing_mm == 2.5 and crops.images.max() == 1 and crops.images.min() == 0
    )  # in the window of -50 to 300
    assert Study("mine", as_written(), paths, unsettled=True).params == as_written()  # stage 01 asks anew
    paths.settings.write_text('{"crops.spacing_mm": 3')
    with pytest.raises(BadInput, match="settings.json: damaged.*run stage 01 again"):
        Study("mine", as_written(), paths)


def test_another_cohorts_values_are_not_this_ones(tmp_path):
    chosen = settings.applied(as_written(), "mine", {"crops.spacing_mm": {"value": 9.0, "from": ""}})
    with pytest.raises(BadInput, match="cohort 'theirs'"):
        params_module.per_cohort(chosen.crops.spacing_mm, "theirs")


def test_a_bundles_choices_hold_the_numbers_and_nothing_is_found_anew(tmp_path):
    found = {
        "crops.spacing_mm": {"value": 2.5, "from": "x"},
        "crops.ct_window_hu": {"value": [-930.0, 370.0], "from": "x"},
    }
    chosen = settings.applied(as_written(), "mine", found)
    again = params_module.Params.model_validate(json.loads(json.dumps(chosen.model_dump(mode="json"))))
    assert again == chosen
    assert params_module.per_cohort(again.crops.spacing_mm, "mine") == 2.5
    assert params_module.per_cohort(again.crops.ct_window_hu, "mine") == (-930, 370)


def test_the_table_says_of_each_setting_its_value_and_where_it_comes_from(tmp_path):
    cohort = cohort_of(tmp_path, [{"sides": (30, 8, 8)}] * 4)
    chosen = as_written(scores_horizon_days={"mine": 500.0, "other": "auto"}, crops_ct_window_hu=(-100.0, 200.0))
    told = settings.table(chosen, "mine", found_of(cohort, chosen=chosen)).set_index("Setting")
    assert len(told) == len(settings.PLACES)
    assert told.loc["`scores.horizon_days`"].tolist() == ["500 days", "params.yaml, `mine`"]
    assert told.loc["`crops.ct_window_hu`"].tolist() == ["-100, 200 HU", "params.yaml"]
    assert told.loc["`crops.spacing_mm`", "Value"] == "2.5 mm"
    assert "4 development patients" in told.loc["`crops.spacing_mm`", "From"]
    mets = settings.table(as_written(), "mets", {})["From"]
    assert set(mets) == {"params.yaml, `mets`"}


# --- crops that cut ----------------------------------------------------------------------------------------------


def crops_of(cohort, size=32, spacing=2.0):
    masks = np.zeros((len(cohort.participants), 1, *[size] * 3), np.float16)
    return SimpleNamespace(
        masks=masks, spacing_mm=spacing, aligned=dict.fromkeys(cohort.participants["patient_id"], True)
    )


def test_the_share_outside_is_that_of_the_planted_box(tmp_path):
    """48 x 8 x 8 voxels of 2 mm in a cube of 64 mm: a third lies outside; 48³ fill it."""
    boxes = [{"sides": (8, 8, 8)}, {"sides": (48, 8, 8)}, {"sides": (48, 48, 48)},
             {"sides": (8, 8, 8), "other": [(0, 0, 0)]}]  # fmt: skip
    cohort = cohort_of(tmp_path, boxes)
    found = cut.shares(cohort, crops_of(cohort)).set_index("patient_id")
    assert found.loc["P0", ["outside", "cut"]].tolist() == [0, 0]
    assert found.loc["P1", "cut"] == pytest.approx(1 / 3)
    assert found.loc["P2", "cut"] == pytest.approx(1 - (32 / 48) ** 3) and found.loc["P2", "filled"] == 1
    assert found.loc["P3", "cut"] == 0 and found.loc["P3", "outside"] == pytest.approx(1 / 513)
    told = cut.counts(found.reset_index())
    assert (told["imaged"], told["cut"], told["filled"], told["outside"]) == (4, 2, 1, 3)
    said = cut.said(told)
    assert "In 2 of 4 patients the largest lesion leaves the crop, by 70 % of its volume at worst" in said
    assert "1 of the crops is filled" in said and "Counting other lesions, 3 have" in said


@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
@pytest.mark.parametrize("shift", [(0, 0, 0), (9, -7, 3)])
def test_the_part_inside_is_what_the_crop_shows(tmp_path, orientation, shift):
    cohort = cohort_of(tmp_path, [{"sides": (30, 20, 10), "shift": shift, "spacing": (2.5, 2.0, 3.0)}])
    chosen = as_written(crops_spacing_mm={"other": 2.0}, crops_ct_window_hu=(-160.0, 240.0))
    choice = chosen.preprocess.model_copy(update={"orientation": orientation})
    crops = preprocess.make_crops(cohort, chosen.crops, choice)
    shown = crops.masks[0, 0].astype(float).sum() * 8
    (row,) = cut.shares(cohort, crops, orientation).itertuples()
    assert shown == pytest.approx((1 - row.cut) * 30 * 20 * 10 * 15, rel=0.07)
    assert row.filled == pytest.approx(crops.masks[0, 0].astype(float).mean())


@pytest.mark.parametrize(("row", "expected"), [
    ((0, 0, 0.2), "The crop holds the tumour of all 1 patients who have a mask."),
    ((0.3, 0, 0.2), "The crop holds the largest lesion of all 1 patients who have a mask. Counting other lesions, 1 have tumour "
                    "outside it, 30 % of the volume at worst."),
    ((0.001, 0.001, 0.2), "In 1 of 1 patients the largest lesion leaves the crop, by under 1 % of its volume at worst."),
    ((0, 0, 0.95), "The crop holds the tumour of all 1 patients who have a mask. 1 of the crops is filled by tumour."),
])  # fmt: skip
def test_the_sentence_is_of_what_was_counted(row, expected):
    assert cut.said(cut.counts(pd.DataFrame([("P", *row)], columns=cut.COLUMNS))) == expected


def test_nobody_imaged_is_nobody_cut_and_nothing_is_said(tmp_path):
    cohort = cohort_of(tmp_path, [{"sides": (8, 8, 8)}])
    nobody = Cohort("mine", cohort.participants, cohort.images.iloc[:0], {}, {1: "tumour"})
    found = cut.shares(nobody, crops_of(nobody))
    assert found.empty and cut.said(cut.counts(found)) == ""


def test_the_count_goes_from_the_study_to_those_who_are_whole(tmp_path):
    found = pd.DataFrame(
        {"patient_id": ["a", "b", "c"], "outside": [0, 0.2, 0.5], "cut": [0, 0, 0.5], "filled": [0.1, 0.2, 0.95]}
    )
    told = cut.flow(5, found)
    assert told["Patients"].tolist() == [5, 3, 2, 1, 1, 2]
    assert told["Worst share of volume outside"].tolist() == ["–", "–", "–", "50 %", "–", "50 %"]
