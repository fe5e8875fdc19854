"""The file every score is made from: what goes in comes back, and what is broken is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sksurv.nonparametric import kaplan_meier_estimator

from survpack.errors import BadInput
from survpack.prognosis import Prognosis, median_days, time_grid

TIMES = np.array([100.5, 200, 300])


def table(patients=6):
    rng = np.random.default_rng(0)
    curves = np.sort(rng.uniform(size=(patients, 3)))[:, ::-1]
    rows = pd.DataFrame({"patient_id": [f"{number:03d}" for number in range(patients)], "cohort": "c", "model": "m"})
    rows = rows.assign(seed=1, repeat=0, fold=[0, 1, 2, 0, -1, -1], split=["cv"] * 4 + ["test"] * 2)
    rows = rows.assign(risk=rng.normal(size=patients), days=250.0, high_risk=[True, False] * 3)
    return pd.concat([rows, pd.DataFrame(curves, columns=["s_0", "s_1", "s_2"])], axis=1)


def test_what_is_saved_comes_back_to_the_last_bit(tmp_path):
    first = Prognosis(table(), TIMES)
    first.save(tmp_path / "deep" / "m.parquet")
    again = Prognosis.load(tmp_path / "deep" / "m.parquet")
    pd.testing.assert_frame_equal(again.table, first.table, check_exact=True)
    np.testing.assert_array_equal(again.times, TIMES)
    assert again.table["patient_id"].iloc[0] == "000"  # an id is a text, its zeros are kept
    assert again.table["high_risk"].dtype == bool
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["m.parquet"]


def test_the_splits_share_no_row_and_lose_none():
    whole = Prognosis(table(), TIMES)
    cv, test = whole.of("cv"), whole.of("test")
    assert len(cv.table) == 4 and len(test.table) == 2
    assert set(cv.table["patient_id"]).isdisjoint(test.table["patient_id"])
    np.testing.assert_array_equal(np.vstack([cv.survival, test.survival]), whole.survival)
    assert cv.survival.shape == (4, 3) and list(test.table.index) == [0, 1]


@pytest.mark.parametrize("column", ["risk", "fold", "patient_id", "s_2"])
def test_a_missing_column_is_refused_and_named(column):
    with pytest.raises(BadInput, match=rf"no column {column};"):
        Prognosis(table().drop(columns=column), TIMES)


@pytest.mark.parametrize("column", ["risk", "days", "s_1"])
def test_a_missing_prediction_is_refused_and_names_the_patient(column):
    broken = table()
    broken.loc[3, column] = np.nan
    with pytest.raises(BadInput, match="of m: NaN for patient 003;"):
        Prognosis(broken, TIMES)


def test_a_failed_save_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "m.parquet"
    Prognosis(table(), TIMES).save(path)
    before = path.read_bytes()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr("survpack.prognosis.pq.write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        Prognosis(table().assign(risk=0.0), TIMES).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@given(st.lists(st.tuples(st.integers(1, 500), st.booleans()), min_size=1, max_size=60), st.integers(2, 40))
@settings(max_examples=100, deadline=None)
def test_the_grid_spans_the_deaths_and_nothing_else(patients, size):
    time, event = map(np.array, zip(*patients, strict=True))
    if not event.any():
        event[0] = True
    grid = time_grid(time, event, size)
    assert 1 <= len(grid) <= size and (np.diff(grid) > 0).all()
    assert grid[0] == time[event].min() and grid[-1] == time[event].max()


def test_the_median_is_where_kaplan_meier_falls_to_one_half():
    rng = np.random.default_rng(1)
    time, event = rng.exponential(300, 80), rng.uniform(size=80) < 0.8
    days, survival = kaplan_meier_estimator(event, time)
    expected = days[np.flatnonzero(survival <= 0.5)[0]]
    assert median_days(survival[None], days) == [expected]
    assert 100 < expected < 400


def test_a_curve_that_never_falls_to_one_half_is_restricted_to_the_last_time():
    found = median_days([[0.9, 0.5, 0.1], [0.9, 0.8, 0.7], [0.4, 0.3, 0.2]], TIMES)
    np.testing.assert_array_equal(found, [200, 300, 100.5])
