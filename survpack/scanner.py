"""How much of a feature is the scanner: the same patients seen by several, before and after harmonisation."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from survpack.cohort import listed
from survpack.errors import BadInput
from survpack.selection import carries_intensity
from survpack.study import Study

SHARES = ["patient", "scanner", "residual"]
PLAIN = "lesions"  # family of what is no radiomic feature: the lesion biomarkers, measured on the mask alone


def variance_shares(table: pd.DataFrame) -> pd.DataFrame:
    """Share of each feature's variance that is between patients, between scanners, and neither.

    Two-way random effects without replication (Searle, Casella & McCulloch 1992, Variance Components, ch. 4): the
    components are solved from the mean squares, and one that comes out negative counts as 0.

    Parameters
    ----------
    table : DataFrame
        A feature a column, indexed by (`patient_id`, `scanner`), each pair at most once. A patient who lacks a
        feature under one of the scanners is left out of that feature.

    Returns
    -------
    DataFrame
        A feature a row: `patient`, `scanner`, `residual`, which add up to 1, and `n`, how many patients it is of.
        The shares are NaN where fewer than two patients or scanners are left, and for a feature that is constant.

    Raises
    ------
    BadInput
        For an index of another form, and for a patient twice under one scanner.
    """
    values = _by_patient_and_scanner(table)  # patients x scanners x features
    whole = np.isfinite(values).all(axis=1)
    patients, scanners = whole.sum(axis=0), values.shape[1]
    values = np.where(whole[:, None], values, 0.0)
    size = np.abs(values).max(axis=(0, 1), initial=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = values.sum(axis=(0, 1)) / (patients * scanners)
        values = np.where(whole[:, None], values - mean, 0.0)
        of_patient, of_scanner = values.mean(axis=1), values.sum(axis=0) / patients
        rest = np.where(whole[:, None], values - of_patient[:, None] - of_scanner, 0.0)
        between = scanners * (of_patient**2).sum(axis=0) / (patients - 1)
        across = patients * (of_scanner**2).sum(axis=0) / (scanners - 1)
        residual = (rest**2).sum(axis=(0, 1)) / ((patients - 1) * (scanners - 1))
        parts = np.stack([(between - residual) / scanners, (across - residual) / patients, residual]).clip(0)
        total = parts.sum(axis=0)
        known = (patients > 1) & (scanners > 1) & (total > (1e-10 * size) ** 2)  # less is rounding of a constant
        shares = np.where(known, parts / total, np.nan)
    return pd.DataFrame(shares.T, index=pd.Index(table.columns, name="feature"), columns=SHARES).assign(n=patients)


def experiment(
    native: pd.DataFrame, site: pd.Series, rescans: pd.DataFrame, harmonise
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scanner's share of each feature before and after a harmonisation that has seen none of the rescanned patients.

    What to expect: geometry has no scanner share, since the mask is the same under all, and gets a little if it is
    harmonised as well, for sites whose patients differ by chance are then levelled; grey values lose most of theirs,
    unless the images were normalised before, which leaves little to lose.

    Parameters
    ----------
    native : DataFrame, indexed by `patient_id`
        Features of the development patients, each under their own scanner; on these the harmonisation is learnt.
    site : Series, indexed by `patient_id`
        The scanner of each patient of `native`.
    rescans : DataFrame, indexed by (`patient_id`, `scanner`)
        The same features under every scanner; patients of `native` among them are left out.
    harmonise : object with `fit(features, site)` and `transform(features, site)`
        As `survpack.harmonise.Combat()`.

    Returns
    -------
    DataFrame, indexed by `feature`
        `family`; `before` and `after`, the scanner's share; `patient_before`, `patient_after`, the patients'; `n`,
        rescanned patients.
    DataFrame, indexed by `family`
        `features`, those that vary; median `before`, `after`, `patient_before`, `patient_after`.

    Raises
    ------
    BadInput
        Where `native` was not scanned by each of the scanners, or nobody else was rescanned, or no feature is shared.
    """
    columns = [name for name in native.columns if name in rescans.columns]
    others = rescans.loc[~rescans.index.get_level_values("patient_id").isin(native.index), columns]
    _require_comparable(site.reindex(native.index), others, columns)
    learnt = harmonise.fit(native[columns], site.reindex(native.index))
    after = pd.concat({
        scanner: learnt.transform(
            seen.droplevel("scanner"), pd.Series(scanner, seen.index.get_level_values("patient_id"), name=site.name)
        )
        for scanner, seen in others.groupby(level="scanner")
    }, names=["scanner"]).swaplevel()  # fmt: skip
    was, now = variance_shares(others), variance_shares(after[columns])
    found = pd.DataFrame({
        "family": [family(name) for name in columns],
        "before": was["scanner"], "after": now["scanner"],
        "patient_before": was["patient"], "patient_after": now["patient"], "n": was["n"],
    })  # fmt: skip
    varying = found.dropna(subset=["before", "after"])
    return found, varying.groupby("family").agg(
        features=("before", "size"),
        **{name: (name, "median") for name in ("before", "after", "patient_before", "patient_after")},
    )


def shifted(study: Study, features: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """`experiment` on the phantom `mets`: its test patients seen by every scanner, ComBat learnt on the others.

    Parameters
    ----------
    features : DataFrame, indexed by `patient_id`
        Of the whole cohort; those of intensity and texture are what a scanner can change and ComBat adjusts.

    Returns
    -------
    None for any other cohort, which nobody can scan again, and for a single site.
    """
    from joblib import Parallel, delayed

    from survpack.biomarkers import measure_patient
    from survpack.harmonise import Combat
    from survpack.phantom.rescan import rescanned

    sites = study.sites
    if study.name != "mets" or sites.nunique() < 2:
        return None
    patients = study.splits.loc[study.splits["split"] == "test", "patient_id"].tolist()
    with TemporaryDirectory() as folder:
        images = rescanned(study.params.cohort["mets"], patients, Path(folder) / "rescanned")
        keys, groups = zip(*images.groupby(["patient_id", "session"]), strict=True)
        found = Parallel(n_jobs=-1)(
            delayed(measure_patient)(rows, study.cohort.labels, study.params, study.name, controls=False)
            for rows in groups
        )
    index = pd.MultiIndex.from_tuples(keys, names=["patient_id", "scanner"])
    rescans = pd.DataFrame([one["features"] for one in found], index).astype(float)
    native = features.loc[study.development, [name for name in features if carries_intensity(name)]]
    return experiment(native, sites[study.development], rescans, Combat())


def family(name: str) -> str:
    """The family of a column of the biomarker table, by its tag; `PLAIN` for a lesion biomarker."""
    from survpack.radiomics import names

    if not name.startswith("rad_"):
        return PLAIN
    families = names()["family"]
    _, _, rest = name.removeprefix("rad_").partition("_")  # the region
    tag = rest if rest in families.index else rest.partition("_")[2]  # else the sequence stands before it
    if tag not in families.index:
        raise BadInput(f"biomarker `{name}`: {tag or 'no tag'} is no radiomic feature known here; rename the column.")
    return families[tag]


def _by_patient_and_scanner(table: pd.DataFrame) -> np.ndarray:
    """Values, shape (patients, scanners, features); NaN for a patient whom a scanner did not see."""
    if list(table.index.names) != ["patient_id", "scanner"]:
        raise BadInput(
            f"features of rescanned patients: indexed by {', '.join(map(str, table.index.names))}, expected patient_id "
            "and scanner; set them as the index."
        )
    if len(twice := table.index[table.index.duplicated()]):
        raise BadInput(
            f"features of rescanned patients: {twice[0][0]} is there twice under scanner {twice[0][1]}; keep one row."
        )
    patients, scanners = (table.index.unique(level) for level in ("patient_id", "scanner"))
    full = table.reindex(pd.MultiIndex.from_product([patients, scanners]))
    return full.to_numpy(dtype=float).reshape(len(patients), len(scanners), table.shape[1])


def _require_comparable(site: pd.Series, others: pd.DataFrame, columns: list[str]) -> None:
    if not columns:
        raise BadInput(
            "scanner experiment: the rescanned patients have none of the features of the others; measure both alike."
        )
    if others.empty:
        raise BadInput(
            "scanner experiment: every rescanned patient is among those the harmonisation is learnt from; rescan "
            "patients of the test set."
        )
    if unseen := sorted(set(others.index.get_level_values("scanner")) - set(site)):
        raise BadInput(
            f"scanner experiment: no patient of the development set was imaged by {listed(unseen)}, so nothing can be "
            "learnt of it; leave that scanner out."
        )
