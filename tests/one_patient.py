"""A bundle and a patient whose answer is known in closed form: survival is exponential, the band a fifth to either side."""

from types import SimpleNamespace

import numpy as np
import pandas as pd

from survpack import conformal
from survpack.recalibration import Recalibration

TIMES = np.arange(10.0, 1001.0, 10.0)
SCORE = {"estimate": 0.71, "low": 0.63, "high": 0.79}
SHARES = {"all": {"estimate": 0.907, "low": 0.841, "high": 0.947},
          "riskiest": {"estimate": 0.853, "low": 0.694, "high": 0.937}}  # fmt: skip
BOUND_SAYS = conformal.words(0.9, SHARES)
TYPICAL = {"age": 60.0, "sex": "female"}


class Exponential:
    """Survival exp(-t / mean) of every patient; a network of the chart alone."""

    fusion, masks, encoder = "chart", False, "compact"

    def __init__(self, mean: float):
        self.mean = mean

    def outputs(self, patients):
        return np.array([[self.mean]])

    def forecast(self, output, times):
        return SimpleNamespace(survival=np.exp(-np.asarray(times)[None] / output))

    def frame(self, patients):
        return pd.DataFrame([{"age": 71.0, "sex": "male"}])


def about(**changes) -> dict:
    curves = {name: {"times": [0.0, 500.0], "survival": [1.0, 0.5]} for name in ("high", "low", "middle")}
    column = {"unit": "", "description": "", "low": None, "high": None, "missing_share": 0.1}
    return {
        "id": "sha256:abc", "model": "hybrid-additive-cox", "about": "a network of `chart`", "survpack": "0.1.0",
        "cohort": {"name": "mine", "title": "Mine", "outcome": "overall survival", "patients": 120, "events": 80,
                   "simulated": False, "source": "a folder", "licence": "its owner's", "sites": 2,
                   "modalities": ["t1c", "pt"]},
        "training": {"patients": 100, "events": 66, "seed": 3, "profile": "default", "fit_digest": "0123"},
        "params": {
            "prognosis": {"horizons_days": [91, 183, 365], "drawn": 10, "seed": 1},
            "scores": {"horizons_days": {"other": [180, 365, 730, 1500]}, "confidence": 0.95, "shown": []},
            "crops": {"size": 32, "ct_window_hu": [-160, 240]},
        },
        "schema": {
            "chart": {
                "age": column | {"kind": "numeric", "unit": "years", "levels": None, "low": 30.0, "high": 80.5,
                                 "typical": 60.0},
                "sex": column | {"kind": "categorical", "levels": ["female", "male"], "typical": "female"},
            },
            "modalities": ["t1c", "pt"], "labels": {"1": "tumour"}, "measured": ["tumour_ml"],
        },
        "network": {"members": 1, "encoder": "compact", "fusion": "chart", "columns": 2},
        "curve": None,
        "reference": {"horizon_days": 365.0, "groups": [1 / 3, 2 / 3], "curves": curves, "frame": TYPICAL, "embedding": [],
                      "percentiles": {"levels": [0, 100], "risk": [0.0, 1.0]},
                      "bounds": {"coverage": 0.9, "days": {"low": 120.0, "middle": 42.0, "high": 0.0}, "why": "",
                                 "said": BOUND_SAYS}},
        "explanation": {"method": "gradcam", "verdict": "not tested", "said": "This explanation was not tested."},
        "metrics": {"cv": {"harrell_c": SCORE, "ibs": {"estimate": 0.1234, "low": 0.1, "high": 0.15}}, "test": None},
        "recalibration": {"confidence": 0.95, "deaths": 60},
        "likeness": {"limit": 2.5},
    } | changes  # fmt: skip


def likeness(score: float = 1.0) -> dict:
    return {"score": score, "limit": 2.5, "percentile": 61.0, "refused": score > 2.5, "group": "image",
            "why": f"the image differs {score} times as much"}  # fmt: skip


def bundle(mean: float = 400.0, score: float = 1.0, patients: int = 10**9, **changes) -> SimpleNamespace:
    """`mean` survival in days; `score`: how unlike the training patients, of 2.5 at most."""
    days, none = TIMES[[0, -1]], np.zeros(2)
    learnt = Recalibration(days, none, none, 1.0, 0.04 * np.eye(3) * [1, 1, 0], 1.0, 0.95, patients, 60)
    judge = SimpleNamespace(judge=lambda model, patients: [likeness(score)])
    told = about(**changes)
    return SimpleNamespace(
        about=told, params=told["params"], model=Exponential(mean), likeness=judge, times=TIMES,
        recalibration=learnt, reference_frame=pd.DataFrame([TYPICAL]),
        reference_embedding=np.zeros((1, 0), np.float32),
    )  # fmt: skip


def intake(**changes) -> SimpleNamespace:
    same = {"patients": None, "images": {}, "mask": None, "grid": None, "notes": [], "imputed": {},
            "missing": {"chart": [], "modalities": [], "measured": []}, "facts": {"lesion_ml": 3.0}}  # fmt: skip
    return SimpleNamespace(**same | changes)


def panel() -> dict:
    """A slice of 40 by 20 mm, a square tumour, a map beside it."""
    mask, heat = np.zeros((20, 20), int), np.zeros((20, 20))
    mask[5:10, 5:10], heat[12:16, 12:16] = 1, 1.0
    return {"image": np.ones((20, 20)) * np.arange(20), "mask": mask, "attribution": heat, "title": "", "modality": "t1c",
            "spacing": (2.0, 1.0), "left_label": "R", "right_label": "L", "level_mm": 4.0, "mass_share": 0.3,
            "method": "gradcam", "said": "This explanation was not tested."}  # fmt: skip


def drivers(*args, **choices) -> pd.DataFrame:
    return pd.DataFrame({"feature": ["age", "sex", "image"], "value": [71.0, "male", None],
                         "contribution": [0.1, -0.6, 0.3]})  # fmt: skip
