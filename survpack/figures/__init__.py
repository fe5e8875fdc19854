"""One function a figure, by the part of the paper it stands in.

Each takes plain tables and arrays, never a model, and gives a matplotlib Figure; `save` writes it beside the
CSV it was drawn from.
"""

from survpack.figures.biomarkers import (
    FALSE_DISCOVERIES,
    biomarker_distributions,
    biomarker_heatmap,
    crops,
    estimable,
    response_spider,
    univariate_forest,
)
from survpack.figures.cohort import flow, follow_up, kaplan_meier, missingness, recovery
from survpack.figures.evaluation import (
    forest,
    forest_table,
    predicted_vs_observed,
    risk_groups,
    roc_over_time,
)
from survpack.figures.explanation import attribution_methods, average_maps, gradcam, importance, shap_summary
from survpack.figures.faithfulness import faithfulness
from survpack.figures.networks import against_oracle, architecture, batch, learning_curves
from survpack.figures.parts import partial_dependence, parts, survshap
from survpack.figures.probabilities import calibration, decision_curves
from survpack.figures.prognosis import recalibration, survival_card
from survpack.figures.robustness import control_forest, icc_chart, scanner_chart
from survpack.figures.scans import contact_sheet, in_lung, intensities, visits
from survpack.figures.style import (
    COLOURS,
    LABELS,
    biomarker_words,
    by_section,
    family,
    feature_name,
    in_words,
    label,
    save,
    tag_words,
    tidy,
)
from survpack.figures.subgroups import subgroups

__all__ = [
    "COLOURS", "FALSE_DISCOVERIES", "LABELS", "against_oracle", "architecture", "attribution_methods",
    "average_maps", "batch", "biomarker_distributions", "biomarker_heatmap", "biomarker_words", "by_section",
    "calibration", "contact_sheet", "control_forest", "crops", "decision_curves", "estimable", "faithfulness",
    "family", "feature_name", "flow", "follow_up", "forest", "forest_table", "gradcam", "icc_chart", "importance",
    "in_lung", "in_words", "intensities", "kaplan_meier", "label", "learning_curves", "missingness",
    "partial_dependence", "parts", "predicted_vs_observed", "recalibration", "recovery", "response_spider", "risk_groups",
    "roc_over_time", "save", "scanner_chart", "shap_summary", "subgroups", "survival_card", "survshap", "tag_words",
    "tidy", "univariate_forest", "visits",
]  # fmt: skip
