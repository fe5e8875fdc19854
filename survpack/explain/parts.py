"""How much each part of what a network reads matters: the chart, the volumes, the outlines, each sequence.

Every network is asked about the patients it left out, with parts taken away: a sequence as if it had not been scanned,
outlines as if nothing were outlined, chart and volumes as if they were missing, so that they are imputed.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.explain.folds import out_of_fold
from survpack.explain.inputs import prepared, risk_of
from survpack.explain.shapley import coalitions, weights
from survpack.inference import bootstrap
from survpack.metrics import concordance
from survpack.models import Deep, Patients
from survpack.study import Study

CHART, VOLUMES, OUTLINES = "chart", "volumes", "outlines"
ABLATION = ["part", "kind", "concordance", "low", "high", "difference", "difference_low", "difference_high"]


def parts_of(model: Deep, patients: Patients) -> list[str]:
    """What a network reads: "chart", "volumes" (all lesion biomarkers), "outlines" (masks), and the modalities."""
    frame, image = model.frame(patients), model.fusion != "chart"
    there = {
        CHART: any(name in patients.clinical for name in frame),
        VOLUMES: any(name not in patients.clinical for name in frame),
        OUTLINES: image and model.masks and patients.masks.shape[1] > 0,
    }
    return [name for name, is_there in there.items() if is_there] + (list(patients.modalities) if image else [])


def coalition_risks(study: Study, model: str) -> pd.DataFrame:
    """Out-of-fold risks of every patient from every coalition of parts.

    Returns
    -------
    DataFrame, indexed by `fold` and `patient_id`
        A column a coalition, its parts joined by +, in the order of `shapley.coalitions`; of none ("") everyone has
        the same risk, of all (the last) the one that was predicted.
    """
    found = {fold: _risks(*pair) for fold, pair in enumerate(out_of_fold(study, model))}
    return pd.concat(found, names=["fold", "patient_id"])


def ablation(study: Study, model: str, risks: pd.DataFrame | None = None, **resampling) -> pd.DataFrame:
    """Harrell's C within folds with all parts, without each, and of each alone.

    Parameters
    ----------
    study : Study
    model : str
        A network.
    risks : DataFrame, optional
        `coalition_risks`, where they are known already.
    resampling
        As `Scores.resampling`, over patients within folds; differences are paired.

    Returns
    -------
    DataFrame
        `ABLATION`: `kind` is "all", "without" or "alone"; `difference` is from all.
    """
    risks = coalition_risks(study, model) if risks is None else risks
    parts, inside = _parts_in(risks), coalitions(len(_parts_in(risks)))
    rows = [("all", "all", len(inside) - 1)]
    rows += [(part, "without", len(inside) - 1 - (1 << k)) for k, part in enumerate(parts)]
    rows += [(part, "alone", 1 << k) for k, part in enumerate(parts)]
    chosen = risks.iloc[:, [at for *_, at in rows]]

    def score(counts: np.ndarray) -> dict:
        found = _concordances(study, chosen, counts)
        kinds = {"": found, "difference": found - found[..., :1]}
        return {(kind, at): some[..., at] for kind, some in kinds.items() for at in range(len(rows))}

    told = _bootstrap(score, risks, resampling)
    keys = ("estimate", "low", "high")
    table = [
        (part, kind, *(told["", at][key] for key in keys), *(told["difference", at][key] for key in keys))
        for at, (part, kind, _) in enumerate(rows)
    ]
    return pd.DataFrame(table, columns=ABLATION)


def shapley(study: Study, model: str, risks: pd.DataFrame | None = None, **resampling) -> pd.DataFrame:
    """What each part adds to Harrell's C within folds, averaged over the orders in which parts come in.

    Exact over all coalitions: the values sum to C of all parts less 0.5, which is that of none. A network is not
    trained anew without a part, so this is what this network uses and not what the part could tell. Concordance has
    no scale: a part too faint to be heard beside others is heard in full in the coalitions where it is alone, and can
    have a value though nothing is lost without it; `ablation` tells that.

    Parameters
    ----------
    study, model, risks, resampling
        As in `ablation`.

    Returns
    -------
    DataFrame
        `part`, `value`, `low`, `high`; greatest first.
    """
    risks = coalition_risks(study, model) if risks is None else risks
    parts = _parts_in(risks)
    weight = weights(len(parts)).T

    def score(counts: np.ndarray) -> dict:
        values = _concordances(study, risks, counts) @ weight
        return {part: values[..., k] for k, part in enumerate(parts)}

    told = _bootstrap(score, risks, resampling)
    rows = [(part, *(told[part][key] for key in ("estimate", "low", "high"))) for part in parts]
    table = pd.DataFrame(rows, columns=["part", "value", "low", "high"])
    return table.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def _risks(network: Deep, held: Patients) -> pd.DataFrame:
    """Risks of one fold's patients, a column a coalition; each image is embedded once a coalition of its parts."""
    from survpack.training import embed

    parts, frame, risk = parts_of(network, held), network.frame(held), risk_of(network)
    of_chart = [part for part in parts if part in (CHART, VOLUMES)]
    of_image = parts[len(of_chart) :]
    tables = [prepared(network, _missing(frame, held, _absent(of_chart, some))) for some in coalitions(len(of_chart))]
    found, samples = [], network.samples(held)
    for some in coalitions(len(of_image)):  # the parts of the chart come first, so their coalitions are the inner ones
        seen = _unseen(samples, held.modalities, _absent(of_image, some))
        embedding = np.stack([embed(net, seen) for net in network.nets], axis=1)
        found += [risk(embedding, table) for table in tables]
    found[0] = np.zeros(len(frame))  # what is the same for all must not differ by rounding
    names = ["+".join(np.array(parts, object)[some]) for some in coalitions(len(parts))]
    return pd.DataFrame(np.stack(found, axis=1), held.outcome.index, names)


def _absent(parts: list[str], inside: np.ndarray) -> set[str]:
    return {part for part, there in zip(parts, inside, strict=True) if not there}


def _missing(frame: pd.DataFrame, held: Patients, absent: set[str]) -> pd.DataFrame:
    """The table with every value of the chart, or of the volumes, missing."""
    gone = [name for name in frame if (CHART if name in held.clinical else VOLUMES) in absent]
    nothing = {
        name: pd.Series(np.nan, frame.index, float if frame[name].dtype.kind in "iufb" else object) for name in gone
    }
    return frame.assign(**nothing)


def _unseen(samples, modalities: list[str], absent: set[str]):
    """The samples as if modalities had not been scanned, or nothing outlined."""
    away = np.isin(modalities, list(absent))[: samples.images.shape[1]]  # a network of the chart is given no image
    images, masks = samples.images.copy(), np.zeros_like(samples.masks) if OUTLINES in absent else samples.masks
    images[:, away] = 0
    return samples._replace(images=images, masks=masks, present=samples.present & ~away)


def _parts_in(risks: pd.DataFrame) -> list[str]:
    return risks.columns[-1].split("+")


def _concordances(study: Study, risks: pd.DataFrame, counts: np.ndarray) -> np.ndarray:
    """C within folds of each column of risks, shape (..., columns)."""
    folds, outcome = risks.index.get_level_values("fold"), study.outcome(risks.index.get_level_values("patient_id"))
    time, event = outcome["time_days"].to_numpy(float), outcome["event"].to_numpy(bool)
    each = [concordance(time, event, risk, groups=folds, counts=counts) for risk in risks.to_numpy().T]
    return np.stack(each, axis=-1)


def _bootstrap(score, risks: pd.DataFrame, resampling: dict) -> dict:
    folds = risks.index.get_level_values("fold").to_numpy()
    return bootstrap(score, len(risks), strata=folds, paired=lambda name: name[0] == "difference", **resampling)
