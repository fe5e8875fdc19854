"""Which columns a model sees, and how they are made numbers inside the training fold."""

from __future__ import annotations

import numpy as np
import pandas as pd

from survpack.clinical import graded_prognostic_assessment
from survpack.errors import BadInput
from survpack.models.patients import Patients
from survpack.params import Params
from survpack.radiomics import GIVEN

GPA_ITEMS = ["age", "karnofsky", "lesion_count", "extracranial_disease"]


def age(patients: Patients) -> pd.Series:
    if "age" not in patients.clinical:
        raise BadInput(
            "model `age`: the participants table has no column `age`; add it, or drop the model in params.yaml."
        )
    return patients.clinical["age"]


def log_tumour_volume(patients: Patients) -> pd.Series:
    return np.log(patients.biomarkers["tumour_ml"])


def gpa(patients: Patients) -> pd.Series:
    """The graded prognostic assessment turned round, so that higher is worse; NaN where an item is missing."""
    return -graded_prognostic_assessment(patients.clinical)


def clinical(patients: Patients) -> pd.DataFrame:
    return patients.clinical


def lesion(patients: Patients, names: list[str]) -> pd.DataFrame:
    """Those of the lesion biomarkers named that the cohort has, in the order of the names."""
    return patients.lesion[[name for name in names if name in patients.lesion]]


def radiomic(patients: Patients) -> pd.DataFrame:
    """Lesion biomarkers, shape, intensity and texture."""
    return patients.biomarkers


def texture(patients: Patients) -> pd.DataFrame:
    """Intensity and texture of the tumour, which the controls have too: no volume, no shape, no other compartment."""
    return patients.biomarkers[list(patients.biomarkers.columns.intersection(patients.shuffled.columns, sort=False))]


def controlled(patients: Patients) -> pd.DataFrame:
    """What the controls are set beside: texture, or what was measured elsewhere."""
    return patients.biomarkers[list(patients.biomarkers.columns.intersection(patients.noise.columns, sort=False))]


def shuffled(patients: Patients) -> pd.DataFrame:
    return patients.shuffled


def noise(patients: Patients) -> pd.DataFrame:
    return patients.noise


def chart_and_lesion(patients: Patients) -> pd.DataFrame:
    return beside(patients.clinical, patients.lesion)


def beside(chart: pd.DataFrame, measured: pd.DataFrame) -> pd.DataFrame:
    both = [name for name in chart if name in measured]
    if both:
        raise BadInput(
            f"participants table: column {', '.join(both)} has the name of a biomarker that is measured from the mask; "
            "rename it there."
        )
    return chart.join(measured)


def learn_columns(read, patients: Patients, label: str = "") -> pd.DataFrame:
    """The columns that `read` gives, after it has learnt from these patients which they are, where it learns.

    Raises
    ------
    BadInput
        Where none of them varies, or there is none.
    """
    frame = (read.fit(patients) if hasattr(read, "fit") else read)(patients)
    if not (frame.nunique() > 1).any():
        raise BadInput(
            f"{label or 'training fold'}: none of {frame.shape[1]} columns varies among {len(frame)} training "
            "patients, expected one at least to learn from; complete the table, or drop the model in params.yaml."
        )
    return frame


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
        return beside(patients.clinical, table) if self.chart else table


def prepare_table(frame: pd.DataFrame, dictionary: dict):
    """Imputation and scaling of mixed columns, to be fitted in the training fold only.

    Numbers: median, logarithm where the name says volume or ratio (not of what others named), standardised. Ordered levels: their rank.
    Categories: the most frequent, one column a level.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.feature_selection import VarianceThreshold
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder, StandardScaler

    kinds = {name: dictionary.get(name, {"kind": "numeric"})["kind"] for name in frame}
    skewed = [name for name in frame if name.endswith(("_ml", "_to_tumour")) and not name.startswith(GIVEN)]
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
