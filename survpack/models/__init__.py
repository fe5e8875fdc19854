"""`MODELS`: every predictor of the study by name, behind one `fit` and `predict`."""

from __future__ import annotations

from difflib import get_close_matches
from functools import partial

from survpack.errors import BadInput
from survpack.models.classical import (
    BOOSTING,
    FOREST,
    Classical,
    ElasticNet,
    OneNumber,
    ShuffledLabels,
    Stack,
    Tuned,
)
from survpack.models.columns import (
    GPA_ITEMS,
    Chosen,
    age,
    beside,
    chart_and_lesion,
    clinical,
    controlled,
    gpa,
    lesion,
    log_tumour_volume,
    noise,
    prepare_table,
    radiomic,
    shuffled,
    texture,
)
from survpack.models.curves import RiskCurve
from survpack.models.deep import Deep
from survpack.models.patients import Forecast, Patients
from survpack.params import Params

__all__ = [
    "Classical",
    "Forecast",
    "Deep",
    "MODELS",
    "Patients",
    "RiskCurve",
    "Stack",
    "build",
    "chart_and_lesion",
    "prepare_table",
]


def _cox(params: Params):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    return Classical(clinical, CoxPHSurvivalAnalysis(alpha=params.classical.ridge))


def _lesion_cox(params: Params):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    named = partial(lesion, names=params.classical.lesion)
    return Classical(Chosen(named, params), CoxPHSurvivalAnalysis(alpha=params.classical.ridge))


def _coxnet(params: Params, read=radiomic):
    return ElasticNet(Chosen(read, params), params.classical)


def _chart_and_lesion_coxnet(params: Params):
    def read(patients: Patients):
        return beside(clinical(patients), lesion(patients, params.classical.lesion))

    return ElasticNet(read, params.classical, least=0.01)


def _forest(params: Params):
    from sksurv.ensemble import RandomSurvivalForest

    choice = params.classical
    forest = RandomSurvivalForest(
        choice.trees, min_samples_leaf=choice.min_leaf, max_features="sqrt", random_state=choice.seed
    )
    fewer = {"n_estimators": max(choice.trees // 3, 1)}
    return Tuned(Chosen(radiomic, params, chart=True), forest, FOREST, choice, quick=fewer)


def _boosting(params: Params):
    from sksurv.ensemble import GradientBoostingSurvivalAnalysis

    choice = params.classical
    boosting = GradientBoostingSurvivalAnalysis(
        learning_rate=0.05, max_depth=2, subsample=0.5, max_features="sqrt", random_state=choice.seed
    )
    return Tuned(Chosen(radiomic, params, chart=True), boosting, BOOSTING, choice)


def _late_fusion(params: Params) -> Stack:
    members = ("clinical-lesion-coxnet", "image-compact-cox")
    return Stack([(name, partial(build, name, params)) for name in members], params.classical)


MODELS = {
    "age": lambda params: OneNumber(age),
    "volume": lambda params: OneNumber(log_tumour_volume),
    "gpa": lambda params: OneNumber(gpa),
    "clinical-cox": _cox,
    "lesion-cox": _lesion_cox,
    "texture-coxnet": partial(_coxnet, read=texture),
    "radiomics-coxnet": _coxnet,
    "clinical-lesion-coxnet": _chart_and_lesion_coxnet,
    "clinical-radiomics-rsf": _forest,
    "clinical-radiomics-boosting": _boosting,
    "deepsurv": partial(Deep, "compact", "chart", "cox", measured=False),
    "image-compact-cox": partial(Deep, "compact", "image", "cox"),
    "hybrid-efficientnet-mse": partial(Deep, "efficientnet", "concat", "mse"),
    "hybrid-resnet50-mse": partial(Deep, "resnet50", "concat", "mse"),
    "hybrid-efficientnet-cox": partial(Deep, "efficientnet", "concat", "cox"),
    "hybrid-efficientnet2d-mse": partial(Deep, "efficientnet-2d", "concat", "mse"),
    "hybrid-resnet2d-mse": partial(Deep, "resnet50-2d", "concat", "mse"),
    "hybrid-vit-cox": partial(Deep, "vit", "concat", "cox"),
    "hybrid-compact-mse": partial(Deep, "compact", "concat", "mse"),
    "hybrid-compact-mse-censored": partial(Deep, "compact", "concat", "mse-censored"),
    "hybrid-compact-hazard": partial(Deep, "compact", "concat", "hazard"),
    "hybrid-compact-rank": partial(Deep, "compact", "concat", "cox-rank"),
    "hybrid-compact-cox": partial(Deep, "compact", "concat", "cox"),
    "hybrid-nomask-cox": partial(Deep, "compact", "concat", "cox", masks=False),
    "hybrid-film-cox": partial(Deep, "compact", "film", "cox"),
    "hybrid-gated-cox": partial(Deep, "compact", "gated", "cox"),
    "hybrid-cross-cox": partial(Deep, "compact", "cross", "cox"),
    "hybrid-additive-cox": partial(Deep, "compact", "additive", "cox"),
    "hybrid-ensemble-cox": partial(Deep, "compact", "additive", "cox", members=3),
    "late-fusion": _late_fusion,
    "control-shuffled-voxels": partial(_coxnet, read=shuffled),
    "control-noise-voxels": partial(_coxnet, read=noise),
    "control-shuffled-labels": lambda params: ShuffledLabels(_coxnet(params, controlled), params.classical.seed),
}

CONTROL = "control-"  # begins the name of every negative control
CONTROLLED = ("texture-coxnet", "radiomics-coxnet", "volume")  # what the controls are set beside
CHART_ALONE = ("age", "gpa", "clinical-cox", "deepsurv")  # the models that ask for no scan and nothing measured on one
NEEDS_MASK = ("volume", "lesion-cox", "clinical-lesion-coxnet")
NEEDS_VOXELS = ("texture-coxnet", "control-shuffled-voxels")
NEEDS_CONTROL = ("control-noise-voxels", "control-shuffled-labels")
NEEDS_NO_MASK = ("hybrid-nomask-cox",)  # else the masks are the image of a cohort of masks


def build(name: str, params: Params):
    """A fresh model by name.

    Raises
    ------
    BadInput
        For a name that is not in `MODELS`.
    """
    _require_name(name)
    return MODELS[name](params)


def _require_name(name: str, key: str = "") -> None:
    if name not in MODELS:
        near = get_close_matches(name, MODELS, n=1)
        raise BadInput(
            f"params.yaml{f', {key}' if key else ''}: model '{name}' does not exist; "
            f"{f'`{near[0]}` may be meant, or ' if near else ''}choose from {', '.join(MODELS)}."
        )


def lacking(name: str, patients: Patients) -> str:
    """Why a model cannot be fitted to these patients, or nothing."""
    network = MODELS[name].args[1:2] if isinstance(MODELS[name], partial) and MODELS[name].func is Deep else ()
    if name not in CHART_ALONE and patients.biomarkers.shape[1] == 0:
        return f"{name} needs a scan or what is measured on it, and nobody of cohort {patients.name} was imaged"
    if name in NEEDS_MASK and not patients.lesion.shape[1]:
        return f"{name} needs what is measured on a mask, and nobody of cohort {patients.name} has one"
    if (name == "late-fusion" or network not in ((), ("chart",))) and not (
        patients.modalities or patients.masks.shape[1]
    ):
        return f"{name} needs an image, and nobody of cohort {patients.name} was imaged"
    if name in NEEDS_NO_MASK and not patients.modalities:
        return f"{name} needs an image without its mask, and cohort {patients.name} has masks alone"
    if name in NEEDS_VOXELS and patients.shuffled.empty or name in NEEDS_CONTROL and patients.noise.empty:
        return f"{name} needs grey values of the tumour, and none are measured (a cohort of masks, or not asked for)"
    if name in ("clinical-cox", "deepsurv") and not patients.clinical.shape[1]:
        return f"{name} needs a chart, and cohort {patients.name} has no covariates"
    if name == "age" and "age" not in patients.clinical:
        return "age needs a column `age` in the chart, and there is none"
    absent = [item for item in GPA_ITEMS if item not in patients.clinical]
    if name == "gpa" and absent:
        return f"gpa needs {', '.join(GPA_ITEMS)} in the chart, and it has no {', '.join(absent)}"
    return ""


def left_out_text(found: list[dict], label=str) -> str:
    """`Study.left_out` in a line; "" where nothing is. `label` names a model."""
    told = [f"{', '.join(map(label, one['models']))} ({one['why']})" for one in found]
    return f"Not fitted: {'; '.join(told)}." if told else ""


def require_known(params: Params) -> None:
    """Raise BadInput where params.yaml names a model that does not exist, or explains or gives away one not fitted."""
    explained, scores, designs = params.explain, params.scores, params.designs
    fitted = {
        "explain.model": [explained.model],
        "explain.shap_model": [explained.shap_model],
        "explain.beside": explained.beside,
        "prognosis.model": [params.prognosis.model],
    }
    compared = [model for pair in scores.compare for model in pair]
    named = {"models": params.models, "scores.shown": scores.shown, "scores.compare": compared}
    named |= {"designs.models": designs.models, "designs.harmonised": [designs.harmonised]} | fitted
    for key, names in named.items():
        for name in names:
            _require_name(name, key)
    for key, names in fitted.items():
        if strangers := [name for name in names if name not in params.models]:
            raise BadInput(
                f"params.yaml: {key} is '{strangers[0]}', which is not among `models`; add it there, or name one of "
                f"{', '.join(params.models)}."
            )


def describe(name: str, params: Params) -> str:
    """A model in one line, for the reader of a notebook."""
    return f"{name}: {build(name, params).about}"
