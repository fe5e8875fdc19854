"""`MODELS`: every predictor of the study by name, behind one `fit` and `predict`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from survpack.biomarkers import Biomarkers
from survpack.cohort import Cohort
from survpack.errors import BadInput
from survpack.params import Params
from survpack.preprocess import CropSet
from survpack.prognosis import median_days
from survpack.radiomics import RADIOMIC


class Forecast(NamedTuple):
    """What a model says of n patients."""

    risk: np.ndarray  # (n,), higher is worse
    days: np.ndarray  # (n,), predicted survival
    survival: np.ndarray  # (n, times), event-free probability


@dataclass(frozen=True)
class Patients:
    """All that a model may know of some patients; never a phantom's truth.

    Attributes
    ----------
    outcome, clinical, biomarkers : DataFrame, indexed by patient_id, rows in one order
    shuffled, noise : DataFrame, the same index
        Radiomics of voxels in random order, and of noise: what the negative controls see.
    perturbed : DataFrame, indexed by (patient_id, perturbation)
        Biomarkers of some of them under perturbations of scan and mask.
    images, masks : ndarray, shape (n, channels, x, y, z)
    dictionary : dict
        Kinds and levels of the clinical columns.
    """

    outcome: pd.DataFrame
    clinical: pd.DataFrame
    biomarkers: pd.DataFrame
    shuffled: pd.DataFrame
    noise: pd.DataFrame
    perturbed: pd.DataFrame
    images: np.ndarray
    masks: np.ndarray
    dictionary: dict

    @classmethod
    def of(cls, cohort: Cohort, measured: Biomarkers, crops: CropSet) -> Patients:
        ids = cohort.participants["patient_id"]
        if list(ids) != list(measured.features.index) or list(ids) != crops.patient_ids:
            raise BadInput(
                f"{cohort.name}: participants, biomarkers and crops list other patients; run `dvc repro` to remake them."
            )
        outcome = cohort.outcome.set_index("patient_id")
        tables = (measured.features, measured.shuffled, measured.noise, measured.perturbed)
        return cls(outcome, cohort.covariates, *tables, crops.images, crops.masks, cohort.dictionary)

    def take(self, ids) -> Patients:
        """The patients named, in that order; a KeyError for one who is not here."""
        at = [self.outcome.index.get_loc(one) for one in ids]
        tables = {
            name: getattr(self, name).iloc[at] for name in ("outcome", "clinical", "biomarkers", "shuffled", "noise")
        }
        perturbed = self.perturbed[self.perturbed.index.get_level_values("patient_id").isin(ids)]
        return replace(self, **tables, perturbed=perturbed, images=self.images[at], masks=self.masks[at])

    @property
    def target(self) -> np.ndarray:
        """scikit-survival's structured array of event and time."""
        from sksurv.util import Surv

        return Surv.from_arrays(self.outcome["event"].astype(bool), self.outcome["time_days"])

    @property
    def lesion(self) -> pd.DataFrame:
        return self.biomarkers[[name for name in self.biomarkers if not name.startswith(RADIOMIC)]]


class RiskCurve:
    """Survival curves from one risk score: Cox on the score, Breslow's baseline.

    The coefficient is not allowed below zero, so that the curves never contradict the risk.
    """

    def fit(self, risk: np.ndarray, target: np.ndarray) -> RiskCurve:
        from sksurv.linear_model import CoxPHSurvivalAnalysis
        from sksurv.linear_model.coxph import BreslowEstimator

        self.mean, self.sd = float(np.mean(risk)), max(float(np.std(risk)), 1e-9)
        scaled = self._scaled(risk)
        self.slope = max(float(CoxPHSurvivalAnalysis(alpha=0.1).fit(scaled[:, None], target).coef_[0]), 0.0)
        self.breslow = BreslowEstimator().fit(self.slope * scaled, target["event"], target["time"])
        return self

    def survival(self, risk: np.ndarray, times: np.ndarray) -> np.ndarray:
        """Shape (n, times)."""
        return _at(self.breslow.get_survival_function(self.slope * self._scaled(risk)), times)

    def _scaled(self, risk):
        return (np.asarray(risk, dtype=float) - self.mean) / self.sd


class OneNumber:
    """Age alone, or log tumour volume alone: the risk is the number itself, not learnt."""

    def __init__(self, read):
        self.read = read

    def fit(self, patients: Patients, label: str = "") -> OneNumber:
        self.typical = float(np.nanmedian(self.read(patients)))
        risk = self._risk(patients)
        self.usual_risk = float(np.median(risk))
        self.curve = RiskCurve().fit(risk, patients.target)
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        risk = self._risk(patients)
        survival = self.curve.survival(risk, times)
        return Forecast(risk, median_days(survival, times), survival)

    def _risk(self, patients: Patients) -> np.ndarray:
        return np.nan_to_num(self.read(patients).to_numpy(dtype=float), nan=self.typical)


class Chosen:
    """Biomarkers as a model sees them: chosen and harmonised by what was learnt in the training fold.

    Parameters
    ----------
    read : callable
        Patients to the columns to choose from.
    chart : bool
        With the chart beside them, which is never chosen from.
    """

    def __init__(self, read, params: Params, chart: bool = False):
        self.read, self.choice, self.chart = read, params.selection, chart

    def fit(self, patients: Patients) -> Chosen:
        from survpack.selection import Selection

        table = self.read(patients)
        self.selection = Selection(self.choice).fit(table, patients.outcome["site"], patients.perturbed)
        if not self.selection.columns and not self.chart:
            steps = "; ".join(f"{one['step']}: {one['remaining']}" for one in self.selection.steps)
            raise BadInput(
                f"biomarkers: none of {table.shape[1]} columns is left to learn from ({steps}); "
                "ask for less in `selection` of params.yaml, or drop the model there."
            )
        return self

    def __call__(self, patients: Patients) -> pd.DataFrame:
        table = self.selection.transform(self.read(patients), patients.outcome["site"])
        return _beside(patients.clinical, table) if self.chart else table


class Classical:
    """A scikit-survival estimator on columns that are imputed and scaled in the training fold."""

    def __init__(self, read, estimator):
        self.read, self.estimator = read, estimator

    def fit(self, patients: Patients, label: str = "") -> Classical:
        frame = learn_columns(self.read, patients)
        self.prepare = prepare_table(frame, patients.dictionary)
        table = self.prepare.fit_transform(frame)
        self.estimator.fit(table, patients.target)
        if hasattr(self.estimator, "n_jobs"):
            self.estimator.n_jobs = 1  # a forest adds up its trees as threads finish: other last digits each time
        self.usual_risk = float(np.median(self.estimator.predict(table)))
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        table = self.prepare.transform(self.read(patients))
        survival = _at(self.estimator.predict_survival_function(table), times)
        return Forecast(self.estimator.predict(table), median_days(survival, times), survival)


class ElasticNet(Classical):
    """Cox elastic net; its penalty is chosen by cross-validation inside the training fold."""

    def __init__(self, read, choice):
        self.read, self.l1_ratio, self.inner_folds, self.seed = read, choice.l1_ratio, choice.inner_folds, choice.seed

    def fit(self, patients: Patients, label: str = "") -> ElasticNet:
        from sklearn.model_selection import StratifiedKFold

        frame, target = learn_columns(self.read, patients), patients.target
        self.prepare = prepare_table(frame, patients.dictionary)
        table = self.prepare.fit_transform(frame)
        alphas = self._path(table, target).alphas_[1:]  # the first keeps no feature at all
        folds = StratifiedKFold(self.inner_folds, shuffle=True, random_state=self.seed)
        inner = [self._inner_scores(alphas, frame, patients, *fold) for fold in folds.split(table, target["event"])]
        best = alphas[int(np.argmax(np.mean(inner, axis=0)))]
        self.estimator = self._path(table, target, alphas=[best], fit_baseline_model=True)
        self.usual_risk = float(np.median(self.estimator.predict(table)))
        return self

    def _path(self, table: np.ndarray, target: np.ndarray, **choices):
        from sksurv.linear_model import CoxnetSurvivalAnalysis

        # below a fifth of the largest penalty, a few events and many features have no finite solution
        choices = {"alpha_min_ratio": 0.2, "n_alphas": 20, "max_iter": 20000} | choices
        return CoxnetSurvivalAnalysis(l1_ratio=self.l1_ratio, **choices).fit(table, target)

    def _inner_scores(self, alphas, frame: pd.DataFrame, patients: Patients, train, test) -> list[float]:
        """Harrell's C of each penalty on an inner fold; without a solution, or two patients to compare, chance."""
        from sksurv.exceptions import NoComparablePairException
        from sksurv.metrics import concordance_index_censored

        prepare = prepare_table(frame, patients.dictionary)
        table, held = prepare.fit_transform(frame.iloc[train]), patients.target[test]
        seen = prepare.transform(frame.iloc[test])
        scores = []
        for alpha in alphas:
            try:
                risk = self._path(table, patients.target[train], alphas=[alpha]).predict(seen)
                scores.append(concordance_index_censored(held["event"], held["time"], risk)[0])
            except (ArithmeticError, NoComparablePairException):
                scores.append(0.5)
        return scores


class ShuffledLabels:
    """Any model, trained on the outcomes of other patients: what is left of its score is not learnt."""

    def __init__(self, model, seed: int):
        self.model, self.seed = model, seed

    def fit(self, patients: Patients, label: str = "") -> ShuffledLabels:
        order = np.random.default_rng([self.seed, *label.encode()]).permutation(len(patients.outcome))
        outcome = patients.outcome.copy()
        outcome[["time_days", "event"]] = patients.outcome[["time_days", "event"]].to_numpy()[order]
        outcome = outcome.astype(patients.outcome.dtypes.to_dict())
        self.model.fit(replace(patients, outcome=outcome), label)
        self.usual_risk = self.model.usual_risk
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        return self.model.predict(patients, times)


class Hybrid:
    """An image network fused with the chart and the lesion biomarkers.

    `mse` predicts days and is trained on observed deaths only, as in the brain-metastasis paper;
    `cox` predicts risk and is trained on everyone.
    """

    def __init__(self, encoder: str, objective: str, params: Params):
        self.encoder, self.objective, self.params = encoder, objective, params.training
        self.history: list[float] = []

    def fit(self, patients: Patients, label: str = "", weights: Path | None = None) -> Hybrid:
        """Train; or, given `weights`, load them and relearn only what is around the network."""
        from survpack import training

        self._learn_scales(patients)
        training.seed_everything(self.params.seed)
        self.net = self._build(patients)
        time, event = patients.outcome["time_days"].to_numpy(), patients.outcome["event"].to_numpy(dtype=bool)
        if weights is None:
            used = event if self.objective == "mse" else np.ones_like(event)
            target = (time - self.days_mean) / self.days_sd if self.objective == "mse" else time
            seen = (patients.images[used], patients.masks[used], self.table(patients)[used], target[used], event[used])
            self.history = training.train(self.net, *seen, self.objective, self.params, self.params.seed, label)
        else:
            training.load_weights(self.net, weights)
        risk = self._risk(patients)
        self.usual_risk = float(np.median(risk))
        self.curve = RiskCurve().fit(risk, patients.target)
        return self

    def predict(self, patients: Patients, times: np.ndarray) -> Forecast:
        risk = self._risk(patients)
        survival = self.curve.survival(risk, times)
        if self.objective == "mse":
            return Forecast(risk, np.clip(-risk * self.days_sd + self.days_mean, 1, None), survival)
        return Forecast(risk, median_days(survival, times), survival)

    def table(self, patients: Patients) -> np.ndarray:
        """Chart and lesion biomarkers as the network sees them."""
        return self.prepare.transform(chart_and_lesion(patients))

    def embed(self, patients: Patients) -> np.ndarray:
        """What the network keeps of each image, shape (n, width)."""
        from survpack.training import embed

        return embed(self.net, patients.images, patients.masks)

    def fuse(self, embedding: np.ndarray, frame: pd.DataFrame) -> np.ndarray:
        """The network's number from image embeddings and the columns of `chart_and_lesion`."""
        from survpack.training import fuse

        return fuse(self.net, embedding, self.prepare.transform(frame))

    def save(self, path: Path) -> None:
        from survpack.training import save_weights

        save_weights(self.net, path)

    def _learn_scales(self, patients: Patients) -> None:
        frame = chart_and_lesion(patients)
        self.prepare = prepare_table(frame, patients.dictionary).fit(frame)
        dead = patients.outcome.loc[patients.outcome["event"].astype(bool), "time_days"]
        self.days_mean, self.days_sd = float(dead.mean()), max(float(dead.std(ddof=0)), 1.0)

    def _build(self, patients: Patients):
        from survpack.networks import HybridNet

        channels = patients.images.shape[1] + patients.masks.shape[1]
        columns = self.table(patients).shape[1]
        return HybridNet(self.encoder, channels, columns, self.params.dropout)

    def _risk(self, patients: Patients) -> np.ndarray:
        number = self.fuse(self.embed(patients), chart_and_lesion(patients))
        return -number if self.objective == "mse" else number


def age(patients: Patients) -> pd.Series:
    if "age" not in patients.clinical:
        raise BadInput(
            "model `age`: the participants table has no column `age`; add it, or drop the model in params.yaml."
        )
    return patients.clinical["age"]


def log_tumour_volume(patients: Patients) -> pd.Series:
    return np.log(patients.biomarkers["tumour_ml"])


def clinical(patients: Patients) -> pd.DataFrame:
    return patients.clinical


def learn_columns(read, patients: Patients) -> pd.DataFrame:
    """The columns that `read` gives, after it has learnt from these patients which they are, where it learns."""
    return (read.fit(patients) if hasattr(read, "fit") else read)(patients)


def lesion(patients: Patients, names: list[str]) -> pd.DataFrame:
    """Those of the lesion biomarkers named that the cohort has, in the order of the names."""
    return patients.lesion[[name for name in names if name in patients.lesion]]


def radiomic(patients: Patients) -> pd.DataFrame:
    """Lesion biomarkers, shape, intensity and texture."""
    return patients.biomarkers


def texture(patients: Patients) -> pd.DataFrame:
    """Intensity and texture of the tumour, which the controls have too: no volume, no shape, no other compartment."""
    return patients.biomarkers[list(patients.biomarkers.columns.intersection(patients.shuffled.columns, sort=False))]


def shuffled(patients: Patients) -> pd.DataFrame:
    return patients.shuffled


def noise(patients: Patients) -> pd.DataFrame:
    return patients.noise


def chart_and_lesion(patients: Patients) -> pd.DataFrame:
    return _beside(patients.clinical, patients.lesion)


def _beside(chart: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    both = [name for name in chart if name in measured]
    if both:
        raise BadInput(
            f"participants table: column {', '.join(both)} has the name of a biomarker that is measured from the mask; "
            "rename it there."
        )
    return chart.join(measured)


def prepare_table(frame: pd.DataFrame, dictionary: dict):
    """Imputation and scaling of mixed columns, to be fitted in the training fold only.

    Numbers: median, logarithm where the name says volume or ratio, standardised. Ordered levels: their rank.
    Categories: the most frequent, one column a level.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

    kinds = {name: dictionary.get(name, {"kind": "numeric"})["kind"] for name in frame}
    skewed = [name for name in frame if name.endswith(("_ml", "_to_tumour"))]
    numeric = [name for name in frame if kinds[name] == "numeric" and name not in skewed]
    ordered = [name for name in frame if kinds[name] == "ordered"]
    categorical = [name for name in frame if kinds[name] == "categorical"]
    levels = {name: list(dictionary[name]["levels"]) for name in ordered + categorical}
    known = FunctionTransformer(_known, kw_args={"levels": levels}, feature_names_out="one-to-one")
    mode = SimpleImputer(strategy="most_frequent", keep_empty_features=True)
    fill = SimpleImputer(strategy="median", keep_empty_features=True)
    log = FunctionTransformer(lambda x: np.log(np.clip(x, 1e-2, None)), feature_names_out="one-to-one")
    rank = OrdinalEncoder(
        categories=[levels[name] for name in ordered],
        handle_unknown="use_encoded_value", unknown_value=np.nan, encoded_missing_value=np.nan,
    )  # fmt: skip
    one_hot = OneHotEncoder(
        categories=[levels[name] for name in categorical],
        handle_unknown="ignore",
        sparse_output=False,
        drop="if_binary",
    )
    return make_pipeline(
        ColumnTransformer(
            [
                ("skewed", make_pipeline(fill, log, StandardScaler()), skewed),
                ("numeric", make_pipeline(fill, StandardScaler()), numeric),
                ("ordered", make_pipeline(rank, fill, StandardScaler()), ordered),
                ("categorical", make_pipeline(known, mode, one_hot), categorical),
            ],
            verbose_feature_names_out=False,
        ),
        VarianceThreshold(),
    )


def _known(table: pd.DataFrame, levels: dict[str, list]) -> pd.DataFrame:
    """NaN for what is no level: scikit-learn's imputer does not see None, which parquet makes of missing text."""
    return table.apply(lambda column: column.astype(object).mask(~column.isin(levels[column.name]), np.nan))


def _cox(params: Params):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    return Classical(clinical, CoxPHSurvivalAnalysis(alpha=params.classical.ridge))


def _lesion_cox(params: Params):
    from sksurv.linear_model import CoxPHSurvivalAnalysis

    named = partial(lesion, names=params.classical.lesion)
    return Classical(Chosen(named, params), CoxPHSurvivalAnalysis(alpha=params.classical.ridge))


def _coxnet(params: Params, read=radiomic):
    return ElasticNet(Chosen(read, params), params.classical)


def _forest(params: Params):
    from sksurv.ensemble import RandomSurvivalForest

    choice = params.classical
    forest = RandomSurvivalForest(
        choice.trees, min_samples_leaf=choice.min_leaf, max_features="sqrt", n_jobs=-1, random_state=choice.seed
    )
    return Classical(Chosen(radiomic, params, chart=True), forest)


MODELS = {
    "age": lambda params: OneNumber(age),
    "volume": lambda params: OneNumber(log_tumour_volume),
    "clinical-cox": _cox,
    "lesion-cox": _lesion_cox,
    "texture-coxnet": partial(_coxnet, read=texture),
    "radiomics-coxnet": _coxnet,
    "clinical-radiomics-rsf": _forest,
    "hybrid-efficientnet-mse": lambda params: Hybrid("efficientnet", "mse", params),
    "hybrid-resnet50-mse": lambda params: Hybrid("resnet50", "mse", params),
    "hybrid-efficientnet-cox": lambda params: Hybrid("efficientnet", "cox", params),
    "control-shuffled-voxels": partial(_coxnet, read=shuffled),
    "control-noise-voxels": partial(_coxnet, read=noise),
    "control-shuffled-labels": lambda params: ShuffledLabels(_coxnet(params, texture), params.classical.seed),
}
CONTROL = "control-"  # begins the name of every negative control
CONTROLLED = ("texture-coxnet", "volume")  # what the controls are set beside
NEEDS_IMAGES = ("texture-coxnet", "control-shuffled-voxels", "control-noise-voxels", "control-shuffled-labels")


def build(name: str, params: Params):
    """A fresh model by name.

    Raises
    ------
    BadInput
        For a name that is not in `MODELS`.
    """
    _require_name(name)
    return MODELS[name](params)


def _require_name(name: str) -> None:
    if name not in MODELS:
        raise BadInput(f"params.yaml: model '{name}' does not exist; choose from {', '.join(MODELS)}.")


def lacking(name: str, patients: Patients) -> str:
    """Why a model cannot be fitted to these patients, or nothing."""
    if name in NEEDS_IMAGES and patients.shuffled.empty:
        return f"{name} needs grey values of the tumour, and none are measured (a cohort of masks, or not asked for)"
    return ""


def require_known(params: Params) -> None:
    """Raise BadInput where params.yaml names a model that does not exist, or explains one that is not fitted."""
    named = [*params.models, *params.scores.shown, *(model for pair in params.scores.compare for model in pair)]
    for name in [*named, params.explain.model, params.explain.shap_model]:
        _require_name(name)
    for key in ("model", "shap_model"):
        if getattr(params.explain, key) not in params.models:
            raise BadInput(
                f"params.yaml: explain.{key} is '{getattr(params.explain, key)}', which is not among `models`; add it "
                f"there, or explain one of {', '.join(params.models)}."
            )


def describe(name: str, params: Params) -> str:
    """A model in one line, for the reader of a notebook."""
    built = build(name, params)
    inputs = {
        OneNumber: "one number, not fitted; Cox and Breslow turn it into curves",
        Classical: "scikit-survival on imputed and scaled columns",
        ElasticNet: "Cox elastic net on radiomics chosen inside the fold, penalty too",
        ShuffledLabels: "Cox elastic net on radiomics, trained on the outcomes of other patients",
        Hybrid: "image network, concatenated with dense layers on the chart and the lesion biomarkers",
    }
    return f"{name}: {inputs[type(built)]}"


def _at(functions, times: np.ndarray) -> np.ndarray:
    """scikit-survival's step functions at `times`: 1 before their first step (theirs give the value after it)."""
    return np.stack([np.where(times < fn.x[0], 1.0, fn(np.clip(times, *fn.domain))) for fn in functions])
