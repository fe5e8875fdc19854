"""One function a figure, by the part of the paper it stands in.

Each takes plain tables and arrays, never a model, and gives a matplotlib Figure; `save` writes it beside the
CSV it was drawn from.
"""

from survpack.figures.biomarkers import biomarker_distributions, biomarker_heatmap, crops
from survpack.figures.cohort import flow, follow_up, kaplan_meier, missingness, recovery
from survpack.figures.evaluation import (
    calibration,
    forest,
    forest_table,
    predicted_vs_observed,
    risk_groups,
    roc_over_time,
)
from survpack.figures.explanation import gradcam, importance, shap_summary
from survpack.figures.scans import contact_sheet, in_lung, intensities, visits
from survpack.figures.style import COLOURS, LABELS, family, in_words, label, save, tidy
from survpack.figures.training import learning_curves

__all__ = [
    "COLOURS", "LABELS", "biomarker_distributions", "biomarker_heatmap", "calibration", "contact_sheet", "crops",
    "family", "flow", "follow_up", "forest", "forest_table", "gradcam", "importance", "in_lung", "in_words",
    "intensities", "kaplan_meier", "label", "learning_curves", "missingness", "predicted_vs_observed", "recovery",
    "risk_groups", "roc_over_time", "save", "shap_summary", "tidy", "visits",
]  # fmt: skip
