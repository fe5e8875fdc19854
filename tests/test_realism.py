"""A phantom beside a real scan: measures against tissues that were planted."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from survpack import paths, realism
from survpack.cohort import Cohort

RATIOS = {"t1n": (1.0, 0.8, 0.3), "t1c": (1.0, 0.75, 0.25), "t2w": (1.0, 1.5, 3.0), "t2f": (1.0, 1.2, 0.4)}


def brain(folder: Path, patient: str, seed: int, gain: float = 1.0) -> list[list]:
    """White, grey and CSF in thirds, with noise, in a cube of brain with a rim of half its intensity."""
    rng = np.random.default_rng(seed)
    tissue = np.repeat([0, 1, 2], 10)[:, None, None] * np.ones((30, 24, 24), int)
    rows = []
    for modality, values in RATIOS.items():
        image = 400 * gain * np.take(values, tissue) + rng.normal(0, 6, tissue.shape)
        image = np.pad(image, 4, constant_values=60 * gain)
        image = np.pad(image, 2)
        path = folder / f"{patient}_{modality}.nii.gz"
        nib.save(nib.Nifti1Image(image.astype(np.float32), np.eye(4)), path)
        rows.append([patient, "baseline", 0.0, modality, str(path), ""])
    return rows


def cohort(rows: list) -> Cohort:
    images = pd.DataFrame(rows, columns=["patient_id", "session", "day", "modality", "path", "mask_path"])
    people = pd.DataFrame({"patient_id": images["patient_id"].unique(), "site": "a", "time_days": 9.0, "event": True})
    return Cohort("mets", people, images, {}, {3: "enhancing"})


def test_tissue_ratios_are_those_planted_whatever_the_gain_and_the_rim(tmp_path):
    phantom = cohort([*brain(tmp_path, "a", 0), *brain(tmp_path, "b", 1, gain=2.5)])
    real = cohort(brain(tmp_path, "r", 2, gain=0.4)).images
    found = realism.contrasts(real, phantom, 2).set_index("measure")
    for modality, (white, grey, csf) in RATIOS.items():
        for column in ("real", "median", "low", "high"):
            assert found.loc[f"{modality} csf", column] == pytest.approx(csf / white, rel=0.05)
            assert found.loc[f"{modality} grey", column] == pytest.approx(grey / white, rel=0.05)
    text = realism.contrasts_text(found.reset_index())
    assert text["Measure"].notna().all() and len(text) == 8


def test_histograms_sum_to_one_and_peak_at_the_tissues(tmp_path):
    phantom = cohort(brain(tmp_path, "a", 0))
    table = realism.intensities(cohort(brain(tmp_path, "r", 1)).images, phantom, 1)
    sums = table.groupby(["who", "modality"])["density"].sum()
    assert len(sums) == 8
    assert sums.drop("t2w", level="modality").to_numpy() == pytest.approx(1)
    t1 = table[(table["who"] == "real") & (table["modality"] == "t1n")]
    assert abs(t1.loc[t1["density"].idxmax(), "value"] - 1.0) < 0.4


def test_ct_peaks_and_noise_are_those_planted(tmp_path):
    rng = np.random.default_rng(4)
    tissue = np.repeat([-1000.0, -95.0, 50.0, 700.0], 12)[:, None, None] * np.ones((48, 40, 40))
    path = tmp_path / "ct.nii.gz"
    nib.save(nib.Nifti1Image((tissue + rng.normal(0, 10, tissue.shape)).astype(np.float32), np.eye(4)), path)
    given = cohort([["p", "baseline", 0.0, "ct", str(path), ""]])
    found = realism.contrasts(given.images, given, 1).set_index("measure")["real"]
    assert found["fat"] == pytest.approx(-95, abs=6) and found["muscle"] == pytest.approx(50, abs=6)
    assert found["bone"] == pytest.approx(700, abs=3) and found["noise"] == pytest.approx(10, rel=0.1)


def test_without_a_real_scan_there_is_no_comparator(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "RAW", tmp_path)
    monkeypatch.delenv("SURVPACK_DATA", raising=False)
    assert all(realism.comparator(name) is None for name in ("mets", "chest", "kits"))


@pytest.mark.parametrize(("name", "modalities"), [("mets", ["t1n", "t1c", "t2w", "t2f"]), ("chest", ["ct"])])
def test_the_real_scan_is_found_where_the_data_are(name, modalities):
    if not os.environ.get("SURVPACK_DATA"):
        pytest.skip("SURVPACK_DATA is not set: no real scan to find")
    real = realism.comparator(name)
    if real is None:
        pytest.skip(f"no real scan beside which to put {name}")
    assert real["modality"].tolist() == modalities and all(Path(path).exists() for path in real["path"])
