"""What a model looks at, and how far such an explanation can be believed."""

from survpack.explain.attribution import METHODS, attribute, gradcam
from survpack.explain.contributions import drivers, partial_dependence, shap_chart, shap_linear, survshap
from survpack.explain.importance import out_of_fold_importance, permutation_importance
from survpack.explain.overlays import attribution_inside, averaged, overlays, overlays_by_method, spread_over_risk

__all__ = [
    "METHODS",
    "attribute",
    "attribution_inside",
    "averaged",
    "drivers",
    "gradcam",
    "out_of_fold_importance",
    "overlays",
    "overlays_by_method",
    "partial_dependence",
    "permutation_importance",
    "shap_chart",
    "shap_linear",
    "spread_over_risk",
    "survshap",
]
