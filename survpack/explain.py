"""What a model looks at: permutation importance, Grad-CAM, SHAP."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd

from survpack.cohort import TUMOUR
from survpack.errors import BadInput
from survpack.metrics import concordance
from survpack.models import Classical, Deep, Patients, build
from survpack.preprocess import CropSet
from survpack.study import TEST_FOLD, Study


def permutation_importance(
    risk_of, parts: dict[str, np.ndarray], patients: Patients, *, repeats: int, confidence: float, seed: int
) -> pd.DataFrame:
    """How much Harrell's C falls when one input is shuffled among patients.

    Each repeat draws the patients anew with replacement and shuffles within the draw, so that
    the interval holds both the luck of the shuffle and the luck of the patients.

    Parameters
    ----------
    risk_of : callable
        `risk_of(parts)` to risk, shape (n,).
    parts : dict of str to ndarray
        Input by name, rows are patients.
    patients : Patients
        None of whom the model was trained on.

    Returns
    -------
    DataFrame
        `feature`, `importance` (mean fall), `low`, `high`; most important first.
    """
    falls = _falls(risk_of, parts, patients, repeats, np.random.default_rng(seed))
    return _importance(falls, confidence)


def _falls(risk_of, parts: dict, patients: Patients, repeats: int, rng: np.random.Generator) -> pd.DataFrame:
    """Fall of Harrell's C, a row a repeat, a column an input."""
    time, event = patients.outcome["time_days"].to_numpy(), patients.outcome["event"].to_numpy(dtype=bool)
    rows = []
    for _ in range(repeats):
        drawn = rng.choice(len(time), len(time))
        sample = {name: values[drawn] for name, values in parts.items()}
        whole = concordance(time[drawn], event[drawn], risk_of(sample))
        rows.append({})
        for name in parts:
            shuffled = sample | {name: sample[name][rng.permutation(len(drawn))]}
            rows[-1][name] = whole - concordance(time[drawn], event[drawn], risk_of(shuffled))
    return pd.DataFrame(rows)


def _importance(falls: pd.DataFrame, confidence: float) -> pd.DataFrame:
    tail = (1 - confidence) / 2
    columns = {"importance": falls.mean(), "low": falls.quantile(tail), "high": falls.quantile(1 - tail)}
    table = pd.DataFrame(columns).rename_axis("feature").reset_index()
    return table.sort_values("importance", ascending=False, ignore_index=True)


def out_of_fold_importance(study: Study, model: str, *, repeats: int, confidence: float, seed: int) -> pd.DataFrame:
    """`permutation_importance` of a classical model's columns, each fold's model on the patients it left out.

    The folds are averaged repeat by repeat; a column that a fold's model does not see has no importance in it.
    """
    rng, each = np.random.default_rng(seed), []
    for fold in sorted(set(study.splits["fold"]) - {TEST_FOLD}):
        train, held = (study.patients.take(ids) for ids in study.fold(fold))
        fitted_model = build(model, study.params).fit(train)
        frame = fitted_model.read(held)

        def risk_of(given: dict[str, np.ndarray], fitted_model=fitted_model, frame=frame) -> np.ndarray:
            columns = pd.DataFrame(given).astype(frame.dtypes.to_dict())
            return fitted_model.estimator.predict(fitted_model.prepare.transform(columns))

        parts = {name: frame[name].to_numpy() for name in frame}
        each.append(_falls(risk_of, parts, held, repeats, rng))
    names = list(dict.fromkeys(name for falls in each for name in falls))
    return _importance(sum(falls.reindex(columns=names).fillna(0) for falls in each) / len(each), confidence)


def hybrid_importance(model: Deep, patients: Patients, **choices) -> pd.DataFrame:
    """`permutation_importance` of the image and of every column of chart and lesion biomarkers."""
    frame = model.frame(patients)
    parts = {name: frame[name].to_numpy() for name in frame}
    if "image" in parts:
        raise BadInput("participants table: a column is named `image`, which is the scan's name here; rename it.")

    def risk_of(given: dict[str, np.ndarray]) -> np.ndarray:
        columns = pd.DataFrame({name: given[name] for name in frame}).astype(frame.dtypes.to_dict())
        return model.fuse(given["image"], columns)

    return permutation_importance(risk_of, {"image": model.embed(patients)} | parts, patients, **choices)


def gradcam(model: Deep, patients: Patients) -> np.ndarray:
    """Grad-CAM of each patient's risk or days, shape (n, x, y, z), from 0 to 1 (Selvaraju 2017).

    A map without any positive value is all NaN: there is nothing to show, and nothing is shown.
    """
    import torch
    from monai.visualize import GradCAM

    from survpack.networks import CAM_LAYER

    layer = CAM_LAYER.get(model.encoder)
    if not layer:
        raise BadInput(
            f"params.yaml: explain.model has the encoder `{model.encoder}`, which has no layer for Grad-CAM; explain a "
            f"model with one of {', '.join(name for name, known in CAM_LAYER.items() if known)}."
        )
    seen = _seen_with(model)
    where = next(seen.net.parameters()).device
    camera = GradCAM(seen, target_layers=f"net.{layer}", postprocessing=lambda raw: raw)
    samples, maps = model.samples(patients), []
    for at in range(len(samples.images)):
        seen.rest = [
            torch.as_tensor(part[at][None], device=where) for part in (samples.masks, samples.table, samples.present)
        ]
        raw = camera(torch.as_tensor(samples.images[at][None].astype(np.float32), device=where), class_idx=0)[:, 0]
        raw = raw.detach().cpu().numpy() if hasattr(raw, "detach") else raw
        raw = np.clip(raw, 0, None).sum(axis=0)  # a shared encoder gives a map a modality
        maps.append(raw / raw.max() if raw.max() > 0 else np.full_like(raw, np.nan))
    return np.stack(maps)


def spread_over_risk(model: Deep, patients: Patients, count: int) -> list[int]:
    """Positions of `count` patients from the lowest to the highest risk, chosen without looking at any map."""
    order = np.argsort(model.predict(patients, np.array([1.0])).risk)
    return [int(order[at]) for at in np.unique(np.linspace(0, len(order) - 1, count).round().astype(int))]


def overlays(patients: Patients, maps: np.ndarray, chosen: list[int], crops: CropSet) -> list[dict]:
    """One axial slice a chosen patient for `figures.gradcam`: that of the tumour with most attribution.

    Arrays are (row, column) with the patient's right on the left, as radiologists look at them. The
    image is T1c, else CT, else the first modality there is; the mask itself where there is none.
    """
    preferred = [crops.modalities.index(name) for name in ("t1c", "ct") if name in crops.modalities]
    modality = (preferred + [0])[0] if crops.modalities else None
    panels = []
    for at in chosen:
        patient = patients.outcome.index[at]
        tumour = _tumour(patients.masks[at], crops.labels)
        inside = np.where(tumour, np.nan_to_num(maps[at]) + 1e-6, 0).sum(axis=(0, 1))
        level = int(inside.argmax())
        background = tumour.astype(float) if modality is None else patients.images[at, modality].astype(float)
        panels.append(
            {
                "image": background[:, :, level].T,
                "attribution": maps[at][:, :, level].T,
                "mask": tumour[:, :, level].T.astype(int),
                "title": patient,
                "spacing": (crops.spacing_mm, crops.spacing_mm),
                "left_label": "R",
                "right_label": "L",
            }
        )
    return panels


def attribution_inside(patients: Patients, maps: np.ndarray, labels: list[str]) -> pd.DataFrame:
    """Share of the attribution that lies in the tumour, beside the tumour's share of the cube.

    Returns
    -------
    DataFrame
        `patient_id`, `attribution_in_tumour`, `tumour_in_cube`; NaN where there is no map.
    """
    tumour = np.stack([_tumour(masks, labels) for masks in patients.masks])
    inside = np.where(tumour, maps, 0).sum(axis=(1, 2, 3)) / maps.sum(axis=(1, 2, 3))
    return pd.DataFrame(
        {
            "patient_id": patients.outcome.index,
            "attribution_in_tumour": inside,
            "tumour_in_cube": tumour.mean(axis=(1, 2, 3)),
        }
    )


def shap_linear(model: Classical, train: Patients, patients: Patients) -> tuple[pd.DataFrame, pd.DataFrame]:
    """SHAP values of a linear Cox model's log risk (Lundberg and Lee 2017), against the training patients.

    Returns
    -------
    values, features : DataFrame, shape (n, columns)
        Contribution of, and (scaled) value of, each column.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a notebook widget that nothing here needs
        import shap

    names = model.prepare.get_feature_names_out()
    background = model.prepare.transform(model.read(train))
    table = model.prepare.transform(model.read(patients))
    everyone = shap.maskers.Independent(background, max_samples=len(background))  # its default draws 100 of them
    values = shap.LinearExplainer((model.estimator.coef_, 0.0), everyone).shap_values(table)
    index = patients.outcome.index
    return pd.DataFrame(values, index, names), pd.DataFrame(table, index, names)


def _tumour(masks: np.ndarray, labels: list[str]) -> np.ndarray:
    """Where the tumour is, shape (x, y, z)."""
    return masks[[channel for channel, label in enumerate(labels) if label in TUMOUR]].max(axis=0) > 0


def _seen_with(model: Deep):
    """The first network's risk as a function of the image alone, the rest held: what MONAI's Grad-CAM asks for."""
    from torch import nn

    zero, one = (model.objective.risk(np.full((1, model.objective.outputs), value))[0] for value in (0.0, 1.0))
    towards = 1.0 if one > zero else -1.0  # what raises the risk, or shortens the days

    class OneChart(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.rest = model.nets[0], None

        def forward(self, image):
            mask, table, present = self.rest
            return towards * self.net(image, mask.float(), table, present).sum(dim=1, keepdim=True)

    return OneChart().eval()
