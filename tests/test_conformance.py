"""The IBSI's phantoms, its published tables, and a value that is wrong on purpose."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk

from survpack import conformance, paths, tables
from survpack.conformance import CONFIGURATIONS, DIGITAL, DIGITAL_REFERENCE, compare, run
from survpack.errors import BadInput
from survpack.radiomics import names

SHARED = os.environ.get("SURVPACK_DATA")


@pytest.fixture(scope="module")
def ibsi() -> Path:
    if not SHARED:
        pytest.skip("SURVPACK_DATA is not set: the IBSI's CT phantom is not here")
    return Path(SHARED) / "ibsi"


def test_every_feature_of_the_study_is_within_tolerance_on_the_digital_phantom():
    found = run()
    assert list(found) == [DIGITAL]
    assert {tag: one["value"] for tag, one in found[DIGITAL].items() if not one["within"]} == {}
    assert set(found[DIGITAL]) == set(names().index)


def test_every_feature_of_the_study_is_within_tolerance_on_the_ct_phantom(ibsi):
    found = run(ibsi)
    assert list(found) == [DIGITAL, *CONFIGURATIONS]
    outside = [(name, tag) for name, compared in found.items() for tag, one in compared.items() if not one["within"]]
    assert outside == [] and {len(compared) for compared in found.values()} == {len(names())}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_ct_is_prepared_as_the_ibsis_diagnostics_say(ibsi, name, monkeypatch):
    regions = {}
    monkeypatch.setattr(conformance, "_measured", lambda values, intact, kept, bins: regions.update(all=(intact, kept)))
    image, mask, reference = conformance._files(ibsi, name)
    conformance._ct(CONFIGURATIONS[name], image, mask, reference)
    published = pd.read_csv(reference, encoding="utf-8-sig").query("family == 'Diagnostics-resegmented ROI'")
    published = published.set_index("feature")["reference value"]
    intact, kept = regions["all"]
    assert intact.sum() == published["Morph. mask voxel count"] and kept.sum() == published["Int. mask voxel count"]
    assert intact.shape == tuple(int(published[f"Int. mask dimension {axis}"]) for axis in "xyz")


def test_the_digital_phantom_and_its_values_are_those_the_ibsi_publishes(ibsi):
    import SimpleITK as sitk

    volumes = [sitk.ReadImage(str(ibsi / "ibsi1_digital_phantom" / f"{what}.nii.gz")) for what in ("phantom", "mask")]
    values, mask = (sitk.GetArrayFromImage(volume) for volume in volumes)
    rows = [line.split() for line in conformance.DIGITAL_VOXELS.split("\n") if line]
    ours = np.array([[list(row) for row in line] for line in rows])
    assert np.array_equal(ours, np.where(mask == 1, values.astype(str), "."))
    published = conformance._published(ibsi / "reference" / "ibsi_1_reference_values_digital_phantom.csv")
    kept = pd.read_csv(DIGITAL_REFERENCE, comment="#", index_col="tag")
    pd.testing.assert_frame_equal(kept, published.loc[kept.index])


def test_a_wrong_value_is_reported_by_name():
    reference = pd.read_csv(DIGITAL_REFERENCE, comment="#", index_col="tag")
    measured = reference["reference"].to_dict()
    measured["morph_volume"] += 1.5 * reference.loc["morph_volume", "tolerance"]
    measured["cm_contrast"] *= 1.01
    measured["stat_mean"] = np.nan
    found = {DIGITAL: compare(measured, reference)}
    assert [tag for tag, one in found[DIGITAL].items() if not one["within"]] == [
        "morph_volume",
        "stat_mean",
        "cm_contrast",
    ]
    assert found[DIGITAL]["stat_mean"]["value"] is None  # JSON knows no NaN
    assert tables.conformance_text(found).iloc[0, 1:3].tolist() == [str(len(reference)), str(len(reference) - 3)]


def test_a_value_at_the_edge_of_its_tolerance_is_within():
    reference = pd.DataFrame({"reference": [556.0, 0.0411], "tolerance": [4.0, 0.0]}, ["morph_volume", "morph_comp_1"])
    found = compare({"morph_volume": 560.4, "morph_comp_1": 0.04106}, reference)  # to three digits 560 and 0.0411
    assert all(one["within"] for one in found.values())


def test_what_the_study_does_not_use_and_what_the_ibsi_does_not_state_are_left_out():
    reference = pd.DataFrame({"reference": [1.0, np.nan], "tolerance": [0.0, np.nan]}, ["loc_peak_loc", "morph_av"])
    assert compare({"morph_av": 1.0}, reference) == {}


def test_a_folder_without_the_phantom_leaves_the_digital_one(tmp_path):
    assert list(run(tmp_path)) == [DIGITAL]


def test_what_is_written_is_what_was_found(raw, tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "METRICS", tmp_path / "metrics")
    monkeypatch.setattr(paths, "REPORTS", tmp_path)
    told = conformance.write()
    assert json.loads((tmp_path / "metrics" / "conformance.json").read_text()) == run()
    assert len(told) == 1 and "| Digital phantom" in (tmp_path / "tables" / "study" / "conformance.md").read_text()


def test_a_broken_phantom_is_named(tmp_path):
    for file in conformance._files(tmp_path, "C"):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"not a volume")
    with pytest.raises(BadInput, match=r"phantom\.nii\.gz: unreadable .* fetch or convert it again"):
        run(tmp_path)


def test_a_table_of_other_columns_is_named(tmp_path):
    (tmp_path / "values.csv").write_text("feature,value\nMean,1\n")
    with pytest.raises(BadInput, match=r"values\.csv: no column reference value, tag, tolerance"):
        conformance._published(tmp_path / "values.csv")


@pytest.mark.parametrize(
    "content", [b"", bytes(range(256)), b"tag,reference value,tolerance\nmorph_volume_3D,much,1\n"]
)
def test_a_table_that_cannot_be_read_is_named(content, tmp_path):
    (tmp_path / "values.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"values\.csv: .* copy the IBSI's table anew"):
        conformance._published(tmp_path / "values.csv")


@pytest.mark.parametrize("mask", [np.zeros((8, 8, 8), np.uint8), np.ones((4, 4, 4), np.uint8)])
def test_a_mask_that_does_not_belong_to_the_phantom_is_no_result(mask, tmp_path):
    image, drawn, table = conformance._files(tmp_path, "C")
    for file, values in ((image, np.ones((8, 8, 8), np.int16)), (drawn, mask)):
        file.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(values), str(file))
    table.parent.mkdir()
    table.write_text("tag,reference value,tolerance\nmorph_volume_3D,1,1\n")
    with pytest.raises(BadInput, match="empty or on another grid"):
        run(tmp_path)
