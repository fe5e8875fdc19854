"""Which group of like patients is each of them in: by sex, age, site, chart and lesion size."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack import few
from survpack.study import Study

UNKNOWN = "not recorded"
EDGES = (50.0, 65.0, 75.0)  # between bands of age, years
LEVELS = (2, 8)  # of a chart column that makes groups
SITES = 8  # with a group of their own; of more, the smaller ones share one


def strata(study: Study) -> pd.DataFrame:
    """The group of each development patient, a column a variable, indexed by `patient_id`; ordered categories.

    Age bands, site, the chart's categorical and ordered columns of two to eight levels, and thirds of tumour volume,
    cut on development patients. Age bands too small to be scored join a neighbour. A variable that does not part the
    patients is left out; where a value is missing the group is `not recorded`.
    """
    chart = study.cohort.participants.set_index("patient_id").loc[study.development]
    dictionary, rules = study.cohort.dictionary, study.params.scores.small_cell
    ordinal = [name for name, about in dictionary.items() if about["kind"] in ("categorical", "ordered")]
    found = {name: _by_level(chart[name], dictionary[name].get("levels")) for name in ordinal}
    sex = {"sex": found.pop("sex")} if "sex" in found else {}
    age = {"age": _age_bands(chart["age"], chart["event"], rules)} if _in_years(dictionary) else {}
    found = {**sex, **age, "site": _sites(chart["site"]), **found}
    features = study.biomarkers.features
    if "tumour_ml" in features:
        found["lesion_size"] = _thirds(features["tumour_ml"].reindex(chart.index))
    parted = {name: groups for name, groups in found.items() if LEVELS[0] <= groups.nunique() <= LEVELS[1]}
    return pd.DataFrame(
        {name: groups.cat.add_categories(UNKNOWN).fillna(UNKNOWN) for name, groups in parted.items()}, chart.index
    )


def _in_years(dictionary: dict) -> bool:
    about = dictionary.get("age", {})
    return about.get("kind") == "numeric" and about.get("unit", "years") == "years"


def _by_level(values: pd.Series, levels) -> pd.Series:
    """Groups in the dictionary's order; levels nobody has are left out."""
    present = values.dropna().astype(str)
    levels = [str(level) for level in levels or sorted(present.unique())]
    return pd.Series(pd.Categorical(values.astype(str).where(values.notna()), levels), values.index).pipe(_used)


def _used(groups: pd.Series) -> pd.Series:
    return groups.cat.remove_unused_categories()


def _sites(site: pd.Series) -> pd.Series:
    """Sites by size; past the seventh they are one group where there are more than eight."""
    names = list(site.value_counts().index)
    if len(names) > SITES:
        site = site.where(site.isin(names[: SITES - 1]), "other sites")
        names = [*names[: SITES - 1], "other sites"]
    return pd.Series(pd.Categorical(site, names), site.index)


def _age_bands(age: pd.Series, event: pd.Series, rules) -> pd.Series:
    """Bands of age; one too small to be scored joins the smaller of its neighbours, until all are large enough."""
    edges = [0.0, *EDGES, np.inf]
    died = event[age.notna()].to_numpy(bool)
    while len(edges) > 2:
        band = np.digitize(age.dropna(), edges[1:-1])
        sizes = [((band == k).sum(), died[band == k].sum()) for k in range(len(edges) - 1)]
        small = [k for k in range(len(sizes)) if not few.enough(died[band == k], rules)]
        if not small:
            break
        k = min(small, key=lambda k: sizes[k])
        neighbour = min((j for j in (k - 1, k + 1) if 0 <= j < len(sizes)), key=lambda j: sizes[j])
        del edges[max(k, neighbour)]
    return pd.cut(age, edges, right=False, labels=_named(edges)).pipe(_used)


def _named(edges: list[float]) -> list[str]:
    names = []
    for low, high in zip(edges, edges[1:], strict=False):
        below, above = low == 0, np.isinf(high)
        names.append("all ages" if below and above else f"under {high:g}" if below
                     else f"{low:g} and over" if above else f"{low:g}–{high - 1:g}")  # fmt: skip
    return names


def _thirds(volume: pd.Series) -> pd.Series:
    """Thirds of the volume, named with where they were cut, mL."""
    cuts = np.unique(volume.quantile([1 / 3, 2 / 3]).dropna())
    if len(cuts) < 2:
        return pd.Series(pd.Categorical([None] * len(volume)), volume.index)
    low, high = (f"{cut:.3g}" for cut in cuts)
    names = [f"under {low} mL", f"{low} to {high} mL", f"over {high} mL"]
    return pd.cut(volume, [-np.inf, *cuts, np.inf], labels=names)
