"""How much of a feature is the scanner: the same patients seen by several, before and after harmonisation."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from survpack.radiomics import parsed
from survpack.robustness import mean_squares, stacked
from survpack.selection import carries_intensity
from survpack.study import Study

SHARES = ["patient", "scanner", "residual"]


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
    """
    rated, levels = stacked(table)
    scanners, (patients, between, across, error) = len(levels), mean_squares(rated)
    with np.errstate(all="ignore"):
        parts = np.stack([(between - error) / scanners, (across - error) / patients, error]).clip(0)
        shares = parts / parts.sum(axis=0)
    return pd.DataFrame(shares.T, index=pd.Index(table.columns, name="feature"), columns=SHARES).assign(n=patients)


def experiment(
    native: pd.DataFrame, site: pd.Series, rescans: pd.DataFrame, harmonise
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Scanner's share of each feature before and after a harmonisation that has seen none of the rescanned patients.

    Geometry has no scanner share, since the mask is the same under all, and gets a little if it is harmonised too:
    sites whose patients differ by chance are then levelled.

    Parameters
    ----------
    native : DataFrame, indexed by `patient_id`
        Features of the development patients, each under their own scanner; on these the harmonisation is learnt.
    site : Series, indexed by `patient_id`
        The scanner of each patient of `native`.
    rescans : DataFrame, indexed by (`patient_id`, `scanner`)
        The same features under every scanner. Patients of `native` are left out, and scanners of none of them, of
        which nothing can be learnt.
    harmonise : object with `fit(features, site)` and `transform(features, site)`
        As `survpack.harmonise.Combat()`.

    Returns
    -------
    DataFrame, indexed by `feature`
        `family`; `before` and `after`, the scanner's share; `patient_before`, `patient_after`, the patients'; `n`,
        rescanned patients.
    DataFrame, indexed by `family`
        `features`, those that vary; median `before`, `after`, `patient_before`, `patient_after`.
    """
    columns = [name for name in native.columns if name in rescans.columns]
    patient, scanner = (rescans.index.get_level_values(level) for level in ("patient_id", "scanner"))
    others = rescans.loc[~patient.isin(native.index) & scanner.isin(site[native.index]), columns]
    learnt = harmonise.fit(native[columns], site[native.index])
    after = pd.concat({
        scanner: learnt.transform(
            seen.droplevel("scanner"), pd.Series(scanner, seen.index.get_level_values("patient_id"), name=site.name)
        )
        for scanner, seen in others.groupby(level="scanner")
    }, names=["scanner"]).swaplevel()  # fmt: skip
    was, now = variance_shares(others), variance_shares(after[columns])
    found = pd.DataFrame({
        "family": parsed(columns)["family"].to_numpy(),
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
    None for any other cohort, which nobody can scan again, for a single site, and without features of intensity.
    """
    from joblib import delayed

    from survpack.biomarkers import measure_patient
    from survpack.harmonise import Combat
    from survpack.phantom.rescan import rescanned
    from survpack.processes import workers

    native = features.loc[study.development, [name for name in features if carries_intensity(name)]]
    sites = study.sites[study.development]
    if study.name != "mets" or sites.nunique() < 2 or native.empty:
        return None
    patients = study.splits.loc[study.splits["split"] == "test", "patient_id"].tolist()
    with TemporaryDirectory() as folder:
        images = rescanned(study.params.cohort.get("mets", {}), patients, Path(folder) / "rescanned")
        keys, groups = zip(*images.groupby(["patient_id", "session"]), strict=True)
        found = workers()(
            delayed(measure_patient)(rows, study.cohort.labels, study.params, study.name, controls=False)
            for rows in groups
        )
    index = pd.MultiIndex.from_tuples(keys, names=["patient_id", "scanner"])
    rescans = pd.DataFrame([one["features"] for one in found], index).astype(float)
    return experiment(native, sites, rescans, Combat())
