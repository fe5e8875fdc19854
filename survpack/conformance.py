"""Do our features agree with the IBSI's? The first part of its standard: a digital phantom, and a CT in three ways.

Reference values and tolerances are the consensus of 25 teams (Zwanenburg et al., Radiology 2020,
DOI 10.1148/radiol.2020191145). The CT is resampled by the study's own functions, then prepared as the IBSI says.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from survpack.errors import BadInput
from survpack.radiomics import Bins, features, morphology, names

DIGITAL = "digital phantom"
DIGITAL_REFERENCE = Path(__file__).with_name("ibsi_digital_phantom.csv")
# 5 x 4 x 4 voxels of 2 mm: a slice a line, its rows parted by blanks; a dot is outside. theibsi/data_sets, CC BY 4.0
DIGITAL_VOXELS = """
14411 14611 41641 44641
14411 11611 .1311 44611
144.. 11111 11.11 11611
144.. 11111 11111 11611
"""


@dataclass(frozen=True)
class Configuration:
    """How the IBSI prepares its CT phantom."""

    image: str  # interpolation of intensities: linear, or spline (cubic)
    range_hu: tuple[float, float] | None  # voxels outside are not of the region
    sigmas: float | None  # nor those further from the mean than this many standard deviations
    bins: Bins


CONFIGURATIONS = {
    "C": Configuration("linear", (-1000, 400), None, Bins(width=25, low=-1000)),
    "D": Configuration("linear", None, 3, Bins(number=32)),
    "E": Configuration("spline", (-1000, 400), 3, Bins(number=32)),
}
SPACING_MM = 2.0


def run(folder: Path | None = None) -> dict[str, dict[str, dict]]:
    """Compare the study's features with the IBSI's reference values.

    Parameters
    ----------
    folder : Path, optional
        The IBSI's data: `ibsi1_ct_phantom/{phantom,mask}.nii.gz` and `reference/*config_{C,D,E}.csv`. Without it, or
        where it lacks a file, only what needs no file: the digital phantom.

    Returns
    -------
    dict
        Configuration (`digital phantom`, `C`, `D`, `E`) to tag to `feature`, `value`, `reference`, `tolerance` and
        `within`: whether the value, to the reference's three digits, lies within the tolerance. A feature of the
        study without a reference value is not among them.

    Raises
    ------
    BadInput
        For a file that is there but is not what the IBSI publishes.
    """
    found = {DIGITAL: compare(*_digital())}
    for name in CONFIGURATIONS if folder is not None else ():
        files = _files(Path(folder), name)
        if all(file.is_file() for file in files):
            found[name] = compare(*_ct(CONFIGURATIONS[name], *files))
    return found


def write() -> pd.DataFrame:
    """Run on what data are here, and write `metrics/conformance.json` and `tables/study/conformance`.

    Returns
    -------
    DataFrame
        The report's table.
    """
    from survpack import adapters, paths, tables

    folders = [place / "ibsi" for place in adapters.places()]
    found = run(next((folder for folder in folders if folder.is_dir()), None))
    with paths.written_whole(paths.METRICS / "conformance.json") as part:
        part.write_text(json.dumps(found, indent=1))
    told = tables.conformance_text(found)
    tables.save(told, paths.REPORTS / "tables" / "study", "conformance")
    return told


def compare(measured: dict[str, float], reference: pd.DataFrame) -> dict[str, dict]:
    """Each measured feature that has a reference value, beside it.

    Parameters
    ----------
    measured : dict of str to float
        Tag to value.
    reference : DataFrame
        Index `tag`; columns `reference` and `tolerance`.
    """
    feature, found = names()["feature"], {}
    for tag, row in reference[reference.index.isin(list(measured))].dropna().iterrows():
        value = float(measured[tag])
        found[tag] = {
            "feature": feature[tag],
            "value": value if np.isfinite(value) else None,
            "reference": float(row["reference"]),
            "tolerance": float(row["tolerance"]),
            "within": bool(abs(float(f"{value:.3g}") - row["reference"]) <= row["tolerance"] * (1 + 1e-6) + 1e-12),
        }
    return found


# --- the phantoms


def _digital() -> tuple[dict[str, float], pd.DataFrame]:
    rows = [line.split() for line in DIGITAL_VOXELS.split("\n") if line]
    symbols = np.array([[list(row) for row in line] for line in rows]).transpose(2, 1, 0)
    inside = symbols != "."
    values = np.where(inside, symbols, "0").astype(float)
    measured = _measured(values, inside, inside, Bins(width=1))
    return measured, pd.read_csv(DIGITAL_REFERENCE, comment="#", index_col="tag")


def _measured(values, intact, kept, bins: Bins) -> dict[str, float]:
    """Shape of the region as it was drawn, all else of the voxels that were kept."""
    spacing = (SPACING_MM,) * 3
    return morphology(intact, spacing)[0] | features(values, kept, spacing, bins)[0]


def _files(folder: Path, name: str) -> tuple[Path, Path, Path]:
    phantom = folder / "ibsi1_ct_phantom"
    reference = folder / "reference" / f"ibsi_1_reference_values_config_{name}.csv"
    return phantom / "phantom.nii.gz", phantom / "mask.nii.gz", reference


def _ct(how: Configuration, image: Path, mask: Path, reference: Path) -> tuple[dict[str, float], pd.DataFrame]:
    import SimpleITK as sitk  # slow to import

    from survpack import grids
    from survpack.preprocess import read_image, read_mask

    on_grid = (
        grids.resampled(read_image(str(image)), SPACING_MM, how.image),
        grids.resampled_mask(read_mask(str(mask))[0], SPACING_MM, "half"),
    )
    values, numbers = (sitk.GetArrayFromImage(volume).transpose(2, 1, 0) for volume in on_grid)
    values, intact = np.rint(values), numbers == 1  # CT numbers are whole
    if intact.shape != values.shape or not intact.any():
        raise BadInput(f"{mask}: empty or on another grid than {image.name}, expected the IBSI's mask; copy it anew.")
    kept = intact.copy()
    if how.range_hu:
        kept &= (values >= how.range_hu[0]) & (values <= how.range_hu[1])
    if how.sigmas:
        mean, spread = values[kept].mean(), values[kept].std()
        kept &= abs(values - mean) <= how.sigmas * spread
    return _measured(values, intact, kept, how.bins), _published(reference)


def _published(path: Path) -> pd.DataFrame:
    """The IBSI's table of one configuration, of the 3-D, merged features, under our tags."""
    try:
        table = pd.read_csv(path, encoding="utf-8-sig")  # begins with a byte-order mark
        if missing := {"tag", "reference value", "tolerance"} - set(table):
            raise ValueError(f"no column {', '.join(sorted(missing))}")
        table = table.astype({"tag": str, "reference value": float, "tolerance": float})
    except ValueError as error:  # as pandas' own are
        raise BadInput(
            f"{path}: {' '.join(str(error).split())}, expected tag, reference value and tolerance; "
            "copy the IBSI's table anew."
        ) from None
    table["tag"] = table["tag"].str.replace(r"_3D(_comb)?$", "", regex=True)
    table = table.rename(columns={"reference value": "reference"}).drop_duplicates("tag").set_index("tag")
    return table[["reference", "tolerance"]]
