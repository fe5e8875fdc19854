"""The file every score is made from: what goes in comes back, and what is broken is refused."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planted_leaks import days_of_events
from scipy.interpolate import interp1d

from survpack.errors import BadInput
from survpack.params import load
from survpack.prognosis import Prognosis, curve_at, day_at, time_grid

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


# --- the days of curves, and how curves are read between them

CURVES = load().curves
DAYS = np.arange(1, 6000)
WEIBULLS = [(median, shape) for median in (60, 90, 200, 365, 1000, 2000) for shape in (0.7, 1.0, 1.2, 1.5, 2.0)]


def weibull(days, median, shape):
    return np.exp(-np.log(2) * (np.asarray(days, float) / median) ** shape)


def stepped(curve, grid, days):
    """As it was: a curve keeps its value from one day of the grid to the next."""
    return np.r_[1.0, curve][np.searchsorted(grid, days, side="right")]


@pytest.mark.parametrize(("median", "shape"), WEIBULLS)
def test_a_weibull_curve_is_read_to_less_than_0002_on_any_day_and_its_median_to_a_day_in_a_hundred(median, shape):
    grid = time_grid(CURVES, [365])
    curve = weibull(grid, median, shape)[None]
    assert np.abs(curve_at(curve, grid, DAYS)[0] - weibull(DAYS, median, shape)).max() < 0.002
    assert curve_at(curve, grid, [365])[0, 0] == weibull(365, median, shape)  # a horizon is a day of the grid
    assert day_at(curve, grid, 0.5) == pytest.approx(median, rel=0.01)


@given(st.floats(10, 20000), st.integers(10, 400), st.lists(st.integers(1, 5000), max_size=5))
def test_days_of_curves_rise_to_the_last_closer_at_first_and_hold_every_horizon(last, count, horizons):
    grid = time_grid(SimpleNamespace(last_day=last, days=count), horizons)
    assert (np.diff(grid, prepend=0) > 0).all() and grid[-1] == max([last, *horizons])
    assert set(horizons) <= set(grid) and count <= len(grid) <= count + len(horizons)
    own = time_grid(SimpleNamespace(last_day=last, days=count))
    assert (np.diff(own, 2) > 0).all()


curves_drawn = st.lists(st.floats(0.001, 1), min_size=1, max_size=12).flatmap(
    lambda falls: st.tuples(st.just(falls), st.lists(st.floats(0.1, 500), min_size=len(falls), max_size=len(falls)))
)


@given(curves_drawn, st.floats(0.01, 0.99))
def test_the_day_of_a_level_is_where_the_curve_has_it_or_none(drawn, level):
    falls, widths = drawn
    times, curve = np.cumsum(widths), np.cumprod(falls)[None]
    (day,) = day_at(curve, times, level)
    if not np.isfinite(day):
        assert curve[0, -1] > level
    else:
        assert 0 < day <= times[-1]
        assert curve_at(curve, times, [day])[0, 0] == pytest.approx(level, abs=1e-9)
        assert curve_at(curve, times, [day * (1 - 1e-6)])[0, 0] >= level - 1e-9  # and not before


@given(curves_drawn, st.lists(st.floats(0, 9000), min_size=1, max_size=8))
def test_curves_are_read_as_scipy_reads_straight_lines(drawn, days):
    falls, widths = drawn
    times, curve = np.cumsum(widths), np.cumprod(falls)
    line = interp1d(np.r_[0, times], np.r_[1, curve], bounds_error=False, fill_value=(1.0, curve[-1]))
    np.testing.assert_allclose(curve_at(curve[None], times, days)[0], line(days), atol=1e-9)
    two = np.stack([curve, curve**2])
    own = curve_at(two, times, [[days[0]], [days[-1]]])  # a day of each curve's own
    np.testing.assert_allclose(own[:, 0], [curve_at(two, times, days)[k, -k] for k in (0, 1)], atol=1e-12)


def test_without_days_everyone_is_alive_and_day_0_is_1_whatever_is_given_there():
    nothing = np.empty((2, 0))
    np.testing.assert_array_equal(curve_at(nothing, [], [0, 10]), np.ones((2, 2)))
    np.testing.assert_array_equal(day_at(nothing, [], 0.5), [np.inf, np.inf])
    np.testing.assert_array_equal(curve_at([[0.2, 0.4]], [0, 10], [0, 5, 10]), [[1, 0.7, 0.4]])
    assert day_at([[0.2, 0.4]], [0, 10], 0.7)[0] == pytest.approx(5)


def test_levels_of_each_curve_s_own_and_a_curve_that_never_falls_to_its():
    found = day_at([[0.9, 0.5, 0.1], [0.9, 0.8, 0.7], [0.4, 0.3, 0.2]], TIMES, [0.5, 0.6, 0.7])
    np.testing.assert_allclose(found, [200, np.inf, 100.5 / 2])


def test_risk_at_the_horizon_and_medians_of_exact_curves_are_right_where_steps_of_deaths_were_not():
    """True Weibull curves of drawn cohorts, no model: as they were kept and read, and as they are."""
    rng, told = np.random.default_rng(3), []
    for _ in range(60):
        medians = 300 * np.exp(rng.normal(0, 0.7, 148))
        death, end = medians * rng.weibull(1.2, 148) / np.log(2) ** (1 / 1.2), rng.uniform(365, 2200, 148)
        time, event = np.minimum(death, end), death <= end
        old, new = days_of_events(time, event), time_grid(CURVES, [365])
        exact = weibull(365, medians, 1.2)
        was = np.array([stepped(weibull(old, one, 1.2), old, [365])[0] for one in medians])
        curves = weibull(new, medians[:, None], 1.2)
        low = weibull(old, medians[:, None], 1.2) <= 0.5
        late = old[low.argmax(axis=1)][low.any(axis=1)] - medians[low.any(axis=1)]
        now = day_at(curves, new, 0.5) - medians
        told.append([(exact - was).mean(), (1 - exact).sum() / (1 - was).sum(), late.mean(),
                     np.abs(curve_at(curves, new, [365])[:, 0] - exact).max(), np.abs(now).max()])  # fmt: skip
    bias, ratio, late = np.mean(told, axis=0)[:3]
    assert (bias, ratio) == pytest.approx((-0.015, 1.03), abs=0.005) and 20 < late < 80  # O/E of exact probabilities
    assert np.max(told, axis=0)[3] < 1e-12 and np.max(told, axis=0)[4] < 1
