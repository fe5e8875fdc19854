"""Clinical scores that a chart alone gives."""

from __future__ import annotations

import numpy as np
import pandas as pd


def graded_prognostic_assessment(chart: pd.DataFrame) -> pd.Series:
    """The graded prognostic assessment (GPA) of patients with brain metastases, 0 to 4: higher is better.

    | points                  | 0       | 0.5      | 1         |
    |-------------------------|---------|----------|-----------|
    | age, years              | over 60 | 50 to 59 | under 50  |
    | Karnofsky               | < 70    | 70 to 80 | 90 to 100 |
    | brain metastases        | over 3  | 2 to 3   | 1         |
    | extracranial metastases | present | –        | absent    |

    The table leaves out age 60, which scores 0 here.

    Parameters
    ----------
    chart : DataFrame
        `age` (years), `karnofsky`, `lesion_count`, `extracranial_disease` ("present" or "absent").

    Returns
    -------
    Series of float
        On the chart's index; NaN where an item is missing.

    References
    ----------
    Sperduto 2008, Int J Radiat Oncol Biol Phys 70:510.
    """
    age, fitness, count = (chart[name].astype(float) for name in ("age", "karnofsky", "lesion_count"))
    items = pd.DataFrame({
        "age": np.select([age >= 60, age >= 50], [0, 0.5], 1.0),
        "karnofsky": np.select([fitness < 70, fitness < 90], [0, 0.5], 1.0),
        "lesion_count": np.select([count > 3, count > 1], [0, 0.5], 1.0),
        "extracranial_disease": np.where(chart["extracranial_disease"] == "absent", 1.0, 0.0),
    }, index=chart.index)  # fmt: skip
    return items.where(chart[items.columns].notna()).sum(axis=1, skipna=False).rename("gpa")
