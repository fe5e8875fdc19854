"""What a figure shows is what it was given: read back from its artists, against lifelines and the input."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import KaplanMeierFitter
from lifelines.statistics import logrank_test
from matplotlib.colors import to_rgba
from matplotlib.text import Text
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from survpack import figures, lesions, radiomics, tables
from survpack.errors import BadInput

MODELS = ["age", "volume", "clinical-cox", "radiomics-coxnet", "hybrid-efficientnet-mse", "somebody-elses"]
MONTH = 365.25 / 12


def outcome(n: int = 60, seed: int = 0, effect: float = 0.8) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    high = rng.permutation(n) < n // 2
    time, censoring = rng.exponential(400 * np.exp(-effect * high)), rng.uniform(60, 1500, n)
    table = pd.DataFrame({"time_days": np.minimum(time, censoring) + 1, "event": time <= censoring, "high_risk": high})
    return table.assign(site=np.where(rng.random(n) < 0.4, "A", "B"))


def few() -> pd.DataFrame:
    """Ten test patients with three events, all of them in one group."""
    table = outcome(10)
    table["high_risk"] = np.arange(10) < 5
    return table.assign(event=np.arange(10) < 3)


def texts(figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(found.get_text() for found in figure.findobj(Text))


def line(axes, name: str):
    (found,) = [drawn for drawn in axes.lines if drawn.get_label() == name]
    return found


def test_drawn_survival_is_that_of_lifelines_at_every_day():
    table = outcome()
    axes = figures.kaplan_meier(table, "site").axes[0]
    for site, rows in table.groupby("site"):
        x, y = line(axes, site).get_data()
        assert line(axes, site).get_drawstyle() == "steps-post"
        days = np.arange(1, rows["time_days"].max())
        drawn = y[np.searchsorted(x * MONTH, days + 1e-6, side="right") - 1]
        assert_allclose(drawn, KaplanMeierFitter().fit(rows["time_days"], rows["event"]).predict(days), atol=1e-9)


def test_band_is_the_interval_of_lifelines():
    table = outcome()
    fit = KaplanMeierFitter().fit(table["time_days"], table["event"])
    (band,) = figures.kaplan_meier(table).axes[0].collections
    corners = band.get_paths()[0].vertices
    for bound in fit.confidence_interval_.to_numpy().T:
        assert np.isin(bound.round(9), corners[:, 1].round(9)).all()


def test_numbers_at_risk_count_those_still_followed():
    table = outcome()
    above, below = figures.kaplan_meier(table, "site").axes
    months = above.get_xticks()
    expected = [
        int((table.loc[table["site"] == site, "time_days"] >= month * MONTH).sum()) for site in "AB" for month in months
    ]
    assert [int(text.get_text()) for text in below.texts] == expected
    assert_allclose([text.get_position()[0] for text in below.texts], [*months, *months])


@pytest.mark.parametrize(("longest", "unit"), [(40, "Days"), (700, "Months"), (4000, "Years")])
def test_axis_of_time_suits_its_range(longest, unit):
    table = pd.DataFrame({"time_days": np.linspace(5, longest, 12), "event": [True, False] * 6})
    axes = figures.kaplan_meier(table).axes[0]
    assert axes.get_xlabel() == f"{unit} from baseline"
    assert 3 <= len(axes.get_xticks()) <= 8


def test_risk_groups_print_what_the_tables_print_of_them_and_make_no_score_of_their_own():
    table = outcome(effect=0.8)
    found = {"hazard_ratio": {"estimate": 0.324, "low": 0.09, "high": 0.96}}
    told = tables.group_words(found, 0.0504)
    shown = texts(figures.risk_groups({"age": table}, {"age": told}))
    assert "log-rank p = 0.050; HR 0.32 (0.09 to 0.96)" in shown and tables.interval_text(found["hazard_ratio"]) in told
    assert "HR" not in texts(figures.risk_groups({"age": table}))


@pytest.mark.parametrize("effect", [0.0, 0.8, 3.0])
def test_risk_groups_print_the_log_rank_p_of_lifelines(effect):
    table = outcome(effect=effect)
    high, low = table[table["high_risk"]], table[~table["high_risk"]]
    p = logrank_test(high["time_days"], low["time_days"], high["event"], low["event"]).p_value
    shown = texts(figures.risk_groups({"age": table}))
    sign, printed = re.search(r"log-rank p ([=<]) ([\d.]+)", shown).groups()
    assert (p < 0.001) if sign == "<" else abs(float(printed) - p) <= 0.5 * 10 ** -len(printed.split(".")[1])
    assert f"high {high['event'].sum()} of {len(high)}, low {low['event'].sum()} of {len(low)}" in shown


def test_risk_groups_admit_what_cannot_be_estimated():
    nobody_high = texts(figures.risk_groups({"age": few().assign(high_risk=False)}))
    assert "high 0 of 0, low 3 of 10" in nobody_high and "log-rank not estimable" in nobody_high
    one_sided = texts(figures.risk_groups({"age": few()}))
    assert "high 3 of 5, low 0 of 5" in one_sided and "HR" not in one_sided
    assert "log-rank not estimable" in texts(figures.risk_groups({"age": few().assign(event=False)}))


def test_a_hazard_ratio_that_is_not_defined_is_left_out():
    nothing = dict.fromkeys(("estimate", "low", "high"))
    assert tables.group_words({"hazard_ratio": nothing}, None) == "log-rank not estimable"


def scores() -> dict:
    rng = np.random.default_rng(1)
    drawn = {split: dict(zip(MODELS, rng.uniform(0.5, 0.8, len(MODELS)), strict=True)) for split in ("cv", "test")}
    return {
        split: {model: {"estimate": c, "low": c - 0.1, "high": c + 0.08} for model, c in models.items()}
        for split, models in drawn.items()
    }


def test_forest_puts_markers_and_intervals_where_the_scores_are():
    given = scores()
    axes = figures.forest(given, 0.82, metric_label="Concordance").axes[0]
    spans = [tuple(drawn.get_xdata()) for drawn in axes.lines if len(set(drawn.get_ydata())) == 1]
    for split, models in given.items():
        for model, interval in models.items():
            marker = line(axes, f"{split} {model}")
            assert_allclose(marker.get_xdata(), interval["estimate"])
            assert (marker.get_markerfacecolor() == "white") == (split == "test")
            assert to_rgba(marker.get_color()) == to_rgba(figures.COLOURS[figures.family(model)])
            assert (interval["low"], interval["high"]) in spans
    assert_allclose(line(axes, "reference").get_xdata(), 0.82)


def test_forest_prints_the_numbers_of_each_row_beside_its_marker():
    given = scores()
    axes = figures.forest(given, metric_label="Concordance").axes[0]
    printed = {round(text.get_position()[1], 6): text.get_text() for text in axes.texts}
    for split, models in given.items():
        for model, score in models.items():
            y = round(line(axes, f"{split} {model}").get_ydata()[0], 6)
            assert printed[y] == f"{score['estimate']:.2f} ({score['low']:.2f} to {score['high']:.2f})"


def test_forest_groups_by_family_from_baseline_to_hybrid():
    given = {"cv": dict(reversed(scores()["cv"].items()))}
    axes = figures.forest(given, metric_label="Concordance").axes[0]
    place = {model: line(axes, f"cv {model}").get_ydata()[0] for model in MODELS}
    assert max(place["age"], place["volume"]) < min(place["clinical-cox"], place["radiomics-coxnet"])
    assert max(place["clinical-cox"], place["radiomics-coxnet"]) < place["hybrid-efficientnet-mse"]
    assert place["hybrid-efficientnet-mse"] < place["somebody-elses"]


def test_forest_without_intervals_or_estimates_says_so():
    given = {
        "cv": {"age": {"estimate": -0.31, "low": None, "high": np.nan}},
        "test": {"age": {"estimate": np.nan, "low": None, "high": None}},
    }
    shown = texts(figures.forest(given, float("nan"), metric_label="R²", null=0))
    assert "−0.31" in shown and "not estimable" in shown and "Oracle" not in shown


def test_forest_table_holds_every_score():
    table = figures.forest_table(scores()).set_index(["split", "model"])
    assert table.loc[("test", "volume"), "estimate"] == scores()["test"]["volume"]["estimate"]
    assert len(table) == 2 * len(MODELS)


def test_flow_names_every_exclusion_and_adds_up():
    steps = [
        {"step": "in the source", "excluded": 0, "remaining": 160},
        {"step": "follow-up recorded", "excluded": 11, "remaining": 149},
        {"step": "first lesion", "excluded": 0, "remaining": 149},
        {"step": "adult", "excluded": 1, "remaining": 148},
    ]
    shown = texts(figures.flow(steps, {"development": {"n": 118, "events": 84}, "test": {"n": 30, "events": 0}}))
    for text in ("160 patients", "11 patients excluded", "1 patient excluded", "148 patients", "118 patients",
                 "84 events (71%)", "30 patients", "0 events (0%)"):  # fmt: skip
        assert text in shown
    assert "first lesion" not in shown


def test_a_long_step_of_the_flow_stays_in_its_box():
    steps = [{"step": "in the source", "excluded": 0, "remaining": 9},
             {"step": "follow-up, outcome and segmentation known to the centre " * 3, "excluded": 1, "remaining": 8}]  # fmt: skip
    figure = figures.flow(steps, {"development": {"n": 8, "events": 1}})
    assert "1 event (12%)" in texts(figure)
    (text,) = [each for each in figure.axes[0].texts if "did not meet" in each.get_text()]
    (box,) = [each for each in figure.axes[0].patches if getattr(each, "get_x", lambda: 0)() > 5]
    inside, outside = text.get_window_extent(), box.get_window_extent()
    assert outside.y0 < inside.y0 and inside.y1 < outside.y1


def test_calibration_draws_the_curve_its_band_and_the_groups_with_their_intervals():
    group = pd.DataFrame({"predicted": [0.2, 0.7], "observed": [0.3, 0.6], "low": [0.1, 0.4], "high": [0.5, 0.8]})
    band = pd.DataFrame({"predicted": [0.1, 0.9], "observed": [0.2, 0.8], "low": [0.1, 0.7], "high": [0.3, 0.9]})
    figure = figures.calibration({"age": band}, {"age": group}, 730, {"age": "slope 1"})
    axes = figure.axes[0]
    assert_allclose(axes.lines[1].get_xydata(), band[["predicted", "observed"]])
    assert_allclose(axes.lines[2].get_xydata(), group[["predicted", "observed"]])
    segments = next(one for one in axes.collections if hasattr(one, "get_segments")).get_segments()
    assert_allclose(segments, [[[0.2, 0.1], [0.2, 0.5]], [[0.7, 0.4], [0.7, 0.8]]])
    assert "Predicted event probability at 24 months" in texts(figure) and "slope 1" in texts(figure)


def test_roc_over_time_draws_each_model_in_its_own_panel():
    table = pd.DataFrame({"model": ["age"] * 3 + ["volume"] * 3, "time_days": [700, 350, 500] * 2,
                          "auc": [0.6, 0.7, 0.65, 0.5, 0.55, 0.45]})  # fmt: skip
    for axes, model in zip(figures.roc_over_time(table).axes, ["age", "volume"], strict=True):
        rows = table[table["model"] == model].sort_values("time_days")
        x, y = line(axes, model).get_data()
        assert_allclose(x * MONTH, rows["time_days"])
        assert_allclose(y, rows["auc"])


def test_importance_shows_the_fifteen_greatest_from_the_top():
    rng = np.random.default_rng(3)
    table = pd.DataFrame({"feature": [f"f{k}" for k in range(20)], "importance": rng.normal(size=20)})
    table = table.assign(low=table["importance"] - 1, high=np.nan)
    axes = figures.importance(table).axes[0]
    x, y = line(axes, "importance").get_data()
    assert_allclose(x, np.sort(table["importance"])[::-1][:15])
    assert (np.diff(y) > 0).all() and axes.yaxis_inverted()
    best = table.loc[table["importance"].idxmax(), "feature"]
    assert axes.get_yticklabels()[0].get_text() == best.capitalize()


def test_shap_points_lie_at_their_values_coloured_by_the_rank_of_the_feature():
    rng = np.random.default_rng(4)
    values = pd.DataFrame(rng.normal(size=(40, 12)) * np.arange(12, 0, -1), columns=[f"f{k}" for k in range(12)])
    features = np.exp(values / 12)
    axes = figures.shap_summary(values, features).axes[0]
    drawn = {dots.get_label(): dots for dots in axes.collections}
    assert set(drawn) == set(values.abs().mean().nlargest(10).index)
    for name, dots in drawn.items():
        assert_allclose(dots.get_offsets()[:, 0], values[name])
        assert spearmanr(dots.get_array(), features[name]).statistic == pytest.approx(1)
        assert np.ptp(dots.get_offsets()[:, 1]) < 1  # a row keeps to itself


def test_shap_takes_text_and_missing_features():
    values = pd.DataFrame({"site": [0.1, -0.2, 0.3], "kps": [0.0, 0.0, 0.0]})
    features = pd.DataFrame({"site": ["lung", None, "breast"], "kps": [80.0, np.nan, 80.0]})
    colours = {
        dots.get_label(): dots.get_array() for dots in figures.shap_summary(values, features).axes[0].collections
    }
    assert_allclose(np.ma.filled(colours["site"], np.nan), [1, np.nan, 0])
    assert_allclose(np.ma.filled(colours["kps"], np.nan), [0.5, np.nan, 0.5])


def panel(**changes) -> dict:
    rng = np.random.default_rng(5)
    mask = np.zeros((20, 16), int)
    mask[4:9, 6:11] = 1
    base = {"image": rng.random((20, 16)), "attribution": rng.random((20, 16)), "mask": mask, "title": "sub-001",
            "spacing": (3.0, 1.5), "left_label": "R", "right_label": "L"}  # fmt: skip
    return base | changes


def test_gradcam_keeps_sides_spacing_and_the_place_of_the_maximum():
    attribution = np.zeros((20, 16))
    attribution[2, 13] = 4.0
    axes = figures.gradcam([panel(attribution=attribution)]).axes[0]
    image, overlay = axes.images
    assert_allclose(image.get_extent(), (0, 16 * 1.5, 20 * 3.0, 0))
    alpha = np.asarray(overlay.get_array())[..., 3]
    assert np.unravel_index(alpha.argmax(), alpha.shape) == (2, 13) and (alpha > 0).sum() == 1
    place = {text.get_text(): text.get_position()[0] for text in axes.texts}
    assert place["R"] < 0.5 < place["L"]
    outline = np.concatenate(axes.collections[0].get_paths()[0].to_polygons())
    assert_allclose([outline.min(0), outline.max(0)], [[6 * 1.5, 4 * 3.0], [11 * 1.5, 9 * 3.0]], atol=1e-6)


def test_gradcam_says_when_a_map_is_empty_and_draws_without_a_tumour():
    shown = texts(figures.gradcam([panel(attribution=np.zeros((20, 16)), mask=np.zeros((20, 16), int))] * 5))
    assert shown.count("no attribution") == 5


def test_heatmap_is_a_permutation_that_puts_duplicates_together():
    rng = np.random.default_rng(6)
    table = pd.DataFrame(rng.normal(size=(50, 5)), columns=list("abcde")).assign(twin=lambda table: -table["a"])
    axes = figures.biomarker_heatmap(table.corr()).axes[0]
    names = [text.get_text().split()[0].lower() for text in axes.get_yticklabels()]
    assert sorted(names) == sorted(table)
    assert abs(names.index("a") - names.index("twin")) == 1
    assert_allclose(axes.images[0].get_array(), table.corr().loc[names, names])


def clustered(count: int, groups: int, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlation of radiomics in groups of unequal size, and their clusters, in random order."""
    rng = np.random.default_rng(seed)
    tags = [f"rad_tumour_t1c-log{k // 20 + 1}_cm_{k % 20}" for k in range(count)]
    names = rng.permutation(tags)
    group = np.sort(np.minimum(rng.geometric(2 / groups, count), groups))
    values = rng.normal(size=(40, groups + 1))[:, group] + 0.2 * rng.normal(size=(40, count))
    table = pd.DataFrame({"column": names, "cluster": group})
    table["kept"] = ~table.duplicated("cluster")
    order = rng.permutation(count)
    return pd.DataFrame(values, columns=names).corr(method="spearman"), table.iloc[order]


def test_a_heatmap_of_clusters_keeps_each_together_and_names_its_representative_in_bold():
    correlation, clusters = clustered(24, 5)
    correlation = correlation.assign(left_out=0.0)
    correlation.loc["left_out"] = 0.0
    axes = figures.biomarker_heatmap(correlation, clusters).axes[0]
    words = {figures.feature_name(name): name for name in correlation}
    labels = axes.get_yticklabels()
    names = [words[text.get_text().rsplit("  ", 1)[0].replace("\n", " ")] for text in labels]
    assert sorted(names) == sorted(clusters["column"])
    assert_allclose(axes.images[0].get_array(), correlation.loc[names, names])
    by_name = clusters.set_index("column")
    drawn = by_name.loc[names, "cluster"].to_numpy()
    assert (np.diff(drawn) != 0).sum() == clusters["cluster"].nunique() - 1
    sizes = clusters["cluster"].value_counts()
    bold = {name for name, text in zip(names, labels, strict=True) if text.get_fontweight() == "bold"}
    assert bold == set(clusters.loc[clusters["kept"] & (clusters["cluster"].map(sizes) > 1), "column"])
    starts = {(patch.get_x() + 0.5, patch.get_width()) for patch in axes.patches if patch.get_label() == "cluster"}
    expected = {(np.flatnonzero(drawn == one)[0], size) for one, size in sizes.items() if size > 1}
    assert starts == expected


def test_a_large_heatmap_names_its_largest_clusters_and_stays_small(tmp_path):
    correlation, clusters = clustered(900, 40)
    figure = figures.biomarker_heatmap(correlation, clusters)
    axes = figure.axes[0]
    assert axes.get_xlabel() == f"900 biomarkers in {clusters['cluster'].nunique()} clusters"
    assert max(axes.images[0].get_array().shape) <= 150
    heads = clusters[clusters["kept"]].set_index("cluster")["column"]
    largest = clusters["cluster"].value_counts().head(18)
    said = texts(figure).replace("\n", " ")
    for cluster, size in largest.items():
        assert f"{figures.feature_name(heads[cluster])} (+{size - 1})" in said
    squares = [patch.get_width() for patch in axes.patches if patch.get_label() == "cluster"]
    assert sorted(squares) == sorted(largest)
    numbers = sorted(text.get_position()[1] for text in axes.texts)
    assert len(numbers) == 18 and np.diff(numbers).min() > 0.03 * 900  # none upon another
    assert figures.save(figure, tmp_path, "heat", clusters).stat().st_size < 130_000


def test_a_cell_of_a_large_heatmap_is_the_mean_of_its_neighbours():
    correlation, clusters = clustered(300, 10)
    drawn = figures.biomarker_heatmap(correlation, clusters).axes[0].images[0].get_array()
    blocks = clusters["cluster"].value_counts()
    assert drawn.shape == (150, 150) and drawn.max() <= 1
    assert_allclose(drawn.mean(), correlation.to_numpy().mean(), atol=0.03)
    assert (np.diag(drawn) >= 0.4).all() and blocks.max() > 2


def ratios(count: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(8)
    log, error = rng.normal(0, 0.5, count), rng.uniform(0.1, 0.3, count)
    table = pd.DataFrame({"biomarker": [f"rad_tumour_t1c_cm_{k}" for k in range(count)], "hazard_ratio": np.exp(log),
                          "low": np.exp(log - 2 * error), "high": np.exp(log + 2 * error),
                          "p": np.exp(-2 * np.abs(log / error)), "concordance": 0.5 + 0.1 * np.abs(log)})  # fmt: skip
    return table.assign(q=np.minimum(1, 3 * table["p"]))


def test_the_forest_of_biomarkers_fills_what_survives_the_adjustment_and_begins_with_the_smallest_p():
    table = ratios()
    figure = figures.univariate_forest(table, most=26)
    axes, first = figure.axes[0], table.sort_values("p").head(26).reset_index(drop=True)
    assert axes.get_xscale() == "log"
    found = first["q"] < 0.05
    assert 0 < found.sum() < 26
    for name, rows in {"q < 0.05": first[found], "q ≥ 0.05": first[~found]}.items():
        assert_allclose(line(axes, name).get_xydata(), rows[["hazard_ratio"]].assign(row=rows.index))
    assert to_rgba(line(axes, "q ≥ 0.05").get_markerfacecolor()) == to_rgba("white")
    ends = [
        drawn.get_xdata()
        for drawn in axes.lines
        if drawn.get_label().startswith("_") and len(set(drawn.get_ydata())) == 1
    ]
    assert_allclose(ends, first[["low", "high"]])
    assert [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()] == [
        figures.feature_name(name) for name in first["biomarker"]
    ]
    scores = {text.get_position()[1]: text.get_text() for text in axes.texts if text.get_text() != "Harrell's C"}
    assert scores == {row: f"{value:.2f}" for row, value in first["concordance"].items()}
    assert f"q < 0.05: {(table['q'] < 0.05).sum()} of 30 tested" in texts(figure)


def test_the_forest_of_biomarkers_does_not_draw_what_is_not_estimable():
    table = ratios(3)
    table.loc[0, ["low", "high"]] = [1e-4, 1e4]
    table.loc[1, ["hazard_ratio", "low", "high", "p", "q"]] = np.nan
    figure = figures.univariate_forest(table)
    assert texts(figure).count("ratio not estimable") == 2
    low, high = figure.axes[0].get_xlim()
    assert low > 1e-2 and high < 1e2
    assert "of 2 tested" in texts(figure)


@pytest.mark.parametrize("spread", [0.05, 0.4, 1.5, 4])
def test_ticks_of_hazard_ratios_are_legible(spread):
    table = ratios(5).assign(low=np.exp(-spread), high=np.exp(spread))
    axes = figures.univariate_forest(table).axes[0]
    ticks, (low, high) = np.sort(axes.get_xticks()), axes.get_xlim()
    assert 1 in ticks and len(ticks) >= 3 and ticks.min() >= low and ticks.max() <= high
    assert np.diff(np.log(ticks)).min() > np.log(high / low) / 10


def repeated(count: int = 200) -> pd.DataFrame:
    rng = np.random.default_rng(9)
    table = pd.DataFrame({"feature": range(count), "family": np.where(np.arange(count) < 150, "glcm", "morphology"),
                          "sequence": "t1c", "icc": rng.beta(6, 2, count), "low": 0.1, "high": 0.9, "patients": 40,
                          "shrink": rng.beta(3, 2, count), "noise": rng.beta(9, 1, count)})  # fmt: skip
    table.loc[3, "icc"] = np.nan
    return table


def test_the_icc_chart_shows_each_feature_the_quartiles_and_the_share_that_is_robust():
    table = repeated()
    upper, lower = figures.icc_chart(table, 0.75).axes
    assert [text.get_text() for text in upper.get_yticklabels()] == ["GLCM", "Morphology"]
    said = [text.get_text() for text in upper.texts]
    dots = [drawn for drawn in upper.lines if drawn.get_label() == "features"]
    boxes = [patch.get_path().get_extents() for patch in upper.patches]
    for row, (_, rows) in enumerate(table.groupby("family")):
        assert f"{100 * (rows['icc'] >= 0.75).mean():.0f} % of {len(rows)}" in said
        x, y = dots[row].get_data()
        assert_allclose(x, rows["icc"].dropna())
        assert np.abs(y - row).max() < 0.5  # a family keeps to itself
        assert_allclose([boxes[row].x0, boxes[row].x1], rows["icc"].quantile([0.25, 0.75]))
    assert_allclose(line(upper, "threshold").get_xdata(), 0.75)
    assert [text.get_text() for text in lower.get_yticklabels()] == ["Mask shrunk", "Noise added"]
    assert_allclose([bar.get_width() for bar in lower.patches], 100 * (table[["shrink", "noise"]] >= 0.75).mean())


def test_the_control_forest_draws_each_score_with_its_interval_beside_chance():
    rows = pd.DataFrame({"control": ["texture-coxnet", "control-shuffled-voxels", "control-shuffled-labels", "volume"],
                         "estimate": [0.68, 0.6, 0.5, np.nan], "low": [0.6, 0.5, 0.4, np.nan],
                         "high": [0.75, 0.7, 0.6, np.nan]})  # fmt: skip
    axes = figures.control_forest(rows).axes[0]
    assert_allclose(line(axes, "chance").get_xdata(), 0.5)
    for row, one in rows.iterrows():
        assert_allclose(line(axes, one["control"]).get_xydata(), [[one["estimate"], row]])
    assert (
        to_rgba(line(axes, "control-shuffled-labels").get_markerfacecolor())
        == to_rgba("white")
        != to_rgba(line(axes, "texture-coxnet").get_markerfacecolor())
    )
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "Texture, elastic net", "Control: voxels shuffled", "Control: labels shuffled", "Tumour volume alone"
    ]  # fmt: skip
    assert [text.get_text() for text in axes.texts][::3] == ["0.68 (0.60 to 0.75)", "not estimable"]


def test_the_scanner_chart_pairs_before_and_after_by_family():
    rng = np.random.default_rng(10)
    table = pd.DataFrame({"feature": range(60), "family": ["glcm"] * 40 + ["lesions"] * 20,
                          "before": rng.uniform(0.1, 0.6, 60), "after": rng.uniform(0, 0.05, 60)})  # fmt: skip
    table.loc[0, "after"] = np.nan
    axes = figures.scanner_chart(table).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["GLCM (40)", "Lesions (20)"]
    boxes = {(patch.get_label(), round(patch.get_path().get_extents().y0)): patch.get_path().get_extents()
             for patch in axes.patches}  # fmt: skip
    for row, (_, rows) in enumerate(table.groupby("family")):
        for when in ("before", "after"):
            quartiles = 100 * rows[when].quantile([0.25, 0.75])
            assert_allclose([boxes[when, row].x0, boxes[when, row].x1], quartiles)
        medians = " → ".join(f"{100 * rows[when].median():.0f}" for when in ("before", "after"))
        assert f"{medians} %" in [text.get_text() for text in axes.texts]


def followed() -> pd.DataFrame:
    rows = [("a", 0, 0.0, None), ("a", 60, -40.0, "SD"), ("a", 120, -80.0, "PR"), ("b", 30, 90.0, "PD"),
            ("b", 90, 900.0, "PD"), ("c", 0, 0.0, None), ("c", 50, np.nan, None)]  # fmt: skip
    return pd.DataFrame(rows, columns=["patient_id", "day", "change_pct", "response"])


def test_the_spider_starts_every_patient_at_baseline_and_ends_in_the_last_response():
    figure = figures.response_spider(followed())
    axes = figure.axes[0]
    x, y = line(axes, "PR").get_data()
    assert_allclose(np.c_[x * MONTH, y][:3], [[0, 0], [60, -40], [120, -80]])
    x, y = line(axes, "PD").get_data()
    assert_allclose(np.c_[x * MONTH, y][:3], [[0, 0], [30, 90], [90, 900]])
    assert_allclose(line(axes, "progression").get_ydata(), 100 * (1.2**3 - 1), atol=0.05)
    assert_allclose(line(axes, "partial response").get_ydata(), 100 * (0.7**3 - 1), atol=0.05)
    assert {"Partial response: 1", "Progression: 1", "Not evaluated: 1"} <= set(texts(figure).split("\n"))
    assert axes.get_yscale() == "symlog"
    assert figures.response_spider(followed().head(3)).axes[0].get_yscale() == "linear"


def test_the_spider_of_148_patients_keeps_each_line_apart_and_stays_light(tmp_path):
    rng = np.random.default_rng(11)
    table = pd.DataFrame({"patient_id": np.repeat(range(148), 5), "day": np.tile(np.arange(5) * 60, 148),
                          "change_pct": rng.normal(0, 30, 740), "response": "SD"})  # fmt: skip
    table.loc[table["day"] == 0, "change_pct"] = 0.0
    figure = figures.response_spider(table)
    y = line(figure.axes[0], "SD").get_ydata()
    assert np.isnan(y).sum() == 148 and len(y) == 148 * 6
    assert figures.save(figure, tmp_path, "spider", table).stat().st_size < 100_000


def test_distributions_count_every_patient_with_a_value():
    rng = np.random.default_rng(7)
    table = pd.DataFrame(
        {"volume_ml": rng.lognormal(1, 1.3, 80), "age": rng.normal(60, 9, 80), "lesions": rng.poisson(2, 80)}
    )
    table.loc[:4, "age"] = np.nan
    volume, age, lesions = figures.biomarker_distributions(table, list(table)).axes
    assert volume.get_xscale() == "log" and age.get_xscale() == "linear"
    assert [sum(bar.get_height() for bar in axes.patches) for axes in (volume, age, lesions)] == [80, 75, 80]
    assert "5 missing" in age.get_xlabel()
    assert [bar.get_height() for bar in lesions.patches if bar.get_height()] == list(
        table["lesions"].value_counts().sort_index()
    )


def test_learning_curves_thicken_the_mean_over_folds():
    table = pd.DataFrame({"fold": [0, 0, 1, 1], "epoch": [1, 2, 1, 2], "loss": [4.0, 2.0, 2.0, 1.0]})
    axes = figures.learning_curves(table).axes[0]
    assert_allclose(line(axes, "mean").get_ydata(), [3, 1.5])
    assert_allclose(line(axes, "fold 1").get_ydata(), [2, 1])


def test_predicted_vs_observed_keeps_censored_apart_from_events():
    table = outcome(30).assign(model="age", days_predicted=np.linspace(50, 900, 30))
    axes = figures.predicted_vs_observed(table).axes[0]
    for name, kept in {"event": table["event"], "censored": ~table["event"]}.items():
        expected = table.loc[kept, ["days_predicted", "time_days"]] / MONTH
        assert_allclose(line(axes, name).get_xydata(), expected)
    assert line(axes, "censored").get_markerfacecolor() == "none"


@pytest.mark.parametrize("days", [30, 900, 9000, 60_000, 3e9])
def test_predicted_vs_observed_has_few_ticks_that_do_not_overlap_whatever_the_range(days):
    figure = figures.predicted_vs_observed(
        outcome(30).assign(time_days=20.0, model="age", days_predicted=np.r_[[400 / 30] * 29, days])
    )
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert 2 <= len(axes.get_xticks()) <= 7
    places = [text.get_window_extent() for text in axes.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in zip(places, places[1:], strict=False))


def test_follow_up_turns_events_and_censoring_about():
    table = outcome()
    figure = figures.follow_up(table)
    reverse = KaplanMeierFitter().fit(table["time_days"], ~table["event"])
    axes = figure.axes[0]
    x, y = line(axes, "All patients").get_data()
    drawn = y[np.searchsorted(x * MONTH, np.arange(2, 1400), side="right") - 1]
    assert_allclose(drawn, reverse.predict(np.arange(2, 1400)), atol=1e-9)
    median = reverse.median_survival_time_ / MONTH
    assert_allclose(line(axes, "median").get_xdata()[1:], median)
    assert f"median {median:.1f} months" in texts(figure)


def test_follow_up_without_a_median_draws_none():
    everyone_died = figures.follow_up(outcome().assign(event=True))
    assert "median" not in texts(everyone_died)


def gaps() -> pd.DataFrame:
    rows = [("grade", "", 20, 5), ("grade", "A", 12, 5), ("grade", "B", 8, 0), ("t1c scan", "", 20, 2),
            ("t1c scan", "A", 12, 0), ("t1c scan", "B", 8, 2)]  # fmt: skip
    return pd.DataFrame(rows, columns=["what", "site", "patients", "missing"])


def test_missingness_draws_the_share_of_every_site_and_of_all():
    figure = figures.missingness(gaps())
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [25, 10]
    assert_allclose(line(axes, "A").get_xdata(), [100 * 5 / 12, 0])
    assert_allclose(line(axes, "B").get_xdata(), [0, 25])
    assert "5 of 20" in texts(figure) and "T1c scan" in texts(figure)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "sites", [[f"Hospital {k}" for k in range(40)], ["The university hospital of a far city " * 2, "B"]]
)
def test_missingness_has_room_for_its_legend_however_many_or_long_the_sites(sites):
    rows = [("age", site, 10, 3) for site in ["", *sites]]
    figure = figures.missingness(pd.DataFrame(rows, columns=["what", "site", "patients", "missing"]))
    figure.draw_without_rendering()
    (legend,), (axes,) = figure.legends, figure.axes
    told, drawn = legend.get_window_extent(), axes.get_window_extent()
    assert told.y0 >= drawn.y1 and told.x1 <= figure.bbox.x1 and told.y1 <= figure.bbox.y1


def test_recovery_sets_each_interval_beside_its_planted_value():
    table = pd.DataFrame({"term": ["age", "volume"], "true": [0.2, 0.7], "estimate": [0.3, 0.6], "low": [0.1, 0.4],
                          "high": [0.5, 0.8], "coverage": [0.955, 0.9]})  # fmt: skip
    figure = figures.recovery(table)
    axes = figure.axes[0]
    planted, intervals = (found.get_segments() for found in axes.collections)
    assert_allclose([segment[0][0] for segment in planted], table["true"])
    assert_allclose([segment[:, 0] for segment in intervals], table[["low", "high"]])
    assert_allclose(line(axes, "estimate").get_xdata(), table["estimate"])
    assert "95.5 %" in texts(figure)


def scan(**changes) -> dict:
    rng = np.random.default_rng(8)
    labels = np.zeros((20, 16), int)
    labels[4:9, 6:11] = 3
    base = {"image": rng.normal(30, 40, (20, 16)), "labels": labels, "spacing": (2.0, 1.0), "modality": "ct",
            "airy": False, "window": (0.0, 90.0), "volume_ml": 1.2, "title": "sub-001", "patient_id": "sub-001"}  # fmt: skip
    return base | changes


@pytest.mark.parametrize(
    ("changes", "black", "white"),
    [({}, -160, 240), ({"airy": True}, -1350, 150), ({"modality": "pt"}, 0, 10), ({"modality": "t1n"}, 0, 90)],
)
def test_every_modality_has_its_window(changes, black, white):
    image = np.array([[black - 5.0, black], [white, white + 5.0]])
    one = scan(image=image, labels=np.zeros((2, 2), int), **changes)
    axes = figures.contact_sheet([[one]], {3: "tumour"}).axes[0]
    assert_allclose(axes.images[0].get_array(), [[0, 0], [1, 1]])


def test_contact_sheet_keeps_scale_and_outlines_where_the_mask_is():
    small = scan(image=np.zeros((10, 10)), labels=np.zeros((10, 10), int), title="sub-002")
    figure = figures.contact_sheet([[scan(), None], [small, scan(modality="pt")]], {3: "tumour"})
    first, second = figure.axes[:2]
    spans = [abs(np.subtract(*axes.get_xlim())) for axes in (first, second)]
    assert spans == [40, 40]  # the larger is 20 rows of 2 mm
    outline = np.concatenate(first.collections[0].get_paths()[0].to_polygons())
    assert_allclose([outline.min(0), outline.max(0)], [[6, 8], [11, 18]], atol=1e-6)
    assert not second.collections
    shown = texts(figure)
    assert "none" in shown and "sub-002" in shown and "Tumour" in shown


def test_visits_stand_in_a_row_with_day_and_volume():
    rows = [[scan(title="day 0, 1.2 mL"), scan(title="day 60, 2.0 mL")], [scan(title="day 0, 9.9 mL")]]
    figure = figures.visits(rows, {3: "tumour"})
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["day 0, 1.2 mL", "day 60, 2.0 mL", "day 0, 9.9 mL", ""]


def test_intensities_draw_the_real_scan_over_the_phantom():
    table = pd.DataFrame({"who": ["real"] * 2 + ["sub-1"] * 2, "modality": "ct", "value": [0.0, 10.0] * 2,
                          "density": [0.4, 0.6, 0.5, 0.5]})  # fmt: skip
    axes = figures.intensities(table).axes[0]
    assert_allclose(line(axes, "real").get_ydata(), [0.4, 0.6])
    assert line(axes, "real").get_zorder() > line(axes, "sub-1").get_zorder()


def test_a_palette_keeps_white_white_grey_grey_and_colours_apart(tmp_path):
    from PIL import Image

    columns = [[scan(image=np.linspace(-160, 240, 320).reshape(20, 16))]]
    labels = {3: "enhancing", 2: "oedema"}
    columns[0][0]["labels"][12:15, 2:5] = 2
    whole, small = (
        figures.save(
            figures.contact_sheet(columns, labels), tmp_path, name, pd.DataFrame(), kind="png", colours=colours
        )
        for name, colours in (("whole", None), ("small", 64))
    )
    before, after = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (whole, small))
    grey = np.ptp(before, axis=2) == 0
    assert (np.ptp(after[grey], axis=1) == 0).all() and np.abs(after - before)[grey].max() <= 3
    assert (after[(before == 255).all(axis=2)] == 255).all()
    for colour in ("enhancing", "oedema"):
        nearest = np.abs(after.reshape(-1, 3) - 255 * np.array(to_rgba(figures.scans.OUTLINES[colour])[:3])).sum(axis=1)
        assert nearest.min() < 30
    assert small.stat().st_size < whole.stat().st_size


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("egfr", "eGFR"),
        ("eGFR", "eGFR"),
        ("age", "Age"),
        ("Low", "Low"),
        ("t1c_glcm_JointEntropy", "T1c GLCM joint entropy"),
    ],
)
def test_names_read_as_words(name, words):
    assert figures.tidy(name) == words


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("rad_tumour_t1c_cm_contrast", "Tumour, T1c: GLCM contrast"),
        ("rad_whole_t2f-log2_rlm_sre", "Whole lesion, FLAIR, LoG 2 mm: GLRLM short runs emphasis"),
        ("rad_whole_t2f-log1.5_rlm_sre", "Whole lesion, FLAIR, LoG 1.5 mm: GLRLM short runs emphasis"),
        ("rad_tumour_ct-wavLLH_stat_p10", "Tumour, CT, wavelet LLH: intensity 10th percentile"),
        ("rad_oedema_pt_ih_max_grad", "Oedema, PET: histogram maximum gradient"),
        ("rad_necrosis_morph_diam", "Necrosis: maximum 3D diameter"),
        ("rad_tumour_t1c_cm_unheard_of", "Tumour, T1c: GLCM unheard of"),
        ("rim_mm", "Thickness of the enhancing rim (mm)"),
        ("lesions_found", "Lesions of 0.01 mL or more"),
        ("gtv_node_ml", "Gtv node (mL)"),
        ("karnofsky", "Karnofsky"),
    ],
)
def test_columns_of_the_biomarker_table_read_as_words(name, words):
    assert figures.feature_name(name) == words


@given(
    regions=st.lists(st.sampled_from(["tumour", "enhancing", "necrosis", "oedema", "whole"]), min_size=1, unique=True),
    sequences=st.lists(st.sampled_from(["t1n", "t1c", "t2w", "t2f", "ct", "pt"]), min_size=1, unique=True),
    filters=st.lists(
        st.sampled_from(["", "-log2", "-log4", "-wavLLH", "-wavHHH"]), min_size=1, max_size=2, unique=True
    ),
    longest=st.sampled_from([42, 60]),
)
@settings(max_examples=15, deadline=None)
def test_no_name_is_empty_or_long_and_no_two_are_alike(regions, sequences, filters, longest):
    tags = radiomics.names().index
    columns = [f"rad_{region}_{tag}" for region in regions for tag in tags if tag.startswith("morph_")] + [
        f"rad_{region}_{sequence}{one}_{tag}"
        for region in regions for sequence in sequences for one in filters for tag in tags
        if not tag.startswith("morph_")
    ] + list(lesions.FEATURES)  # fmt: skip
    names = [figures.feature_name(column, longest) for column in columns]
    assert all(0 < len(name) <= longest for name in names)
    if longest == 60:
        assert len(set(names)) == len(columns)


def test_levels_read_as_words_and_keep_their_capitals():
    assert figures.in_words("never_smoked") == "never smoked" and figures.in_words("MFH") == "MFH"


@pytest.mark.parametrize(
    ("model", "kind"),
    [("age", "baseline"), ("clinical-cox", "clinical"), ("clinical-radiomics-rsf", "radiomics"),
     ("hybrid-vit-cox", "hybrid"), ("deepsurv", "deep"), ("averages", "other")],
)  # fmt: skip
def test_family_of_any_name(model, kind):
    assert figures.family(model) == kind


DEGENERATE = {
    "follow-up-one-patient": lambda: figures.follow_up(few().head(1)),
    "missing-one-site": lambda: figures.missingness(gaps().head(1)),
    "missing-many-sites": lambda: figures.missingness(
        pd.concat([gaps().head(1), *(gaps().iloc[[1]].assign(site=f"site {k}") for k in range(9))])
    ),
    "recovery-nothing-found": lambda: figures.recovery(
        pd.DataFrame({"term": ["x"], "true": [0.5], "estimate": np.nan, "low": np.nan, "high": np.nan, "coverage": 0.0})
    ),
    "contact-mask-only": lambda: figures.contact_sheet([[scan(modality="mask")]], {3: "tumour"}),
    "contact-nothing": lambda: figures.contact_sheet([[None, scan(labels=np.zeros((20, 16), int))]], {3: "tumour"}),
    "flow-one-step": lambda: figures.flow([{"step": "in the source", "excluded": 0, "remaining": 0}], {}),
    "flow-empty-split": lambda: figures.flow(
        [{"step": "all", "excluded": 0, "remaining": 1}], {"test": {"n": 0, "events": 0}}
    ),
    "km-few": lambda: figures.kaplan_meier(few(), "high_risk"),
    "km-no-event": lambda: figures.kaplan_meier(few().assign(event=False)),
    "km-one-patient": lambda: figures.kaplan_meier(few().head(1)),
    "km-six-groups": lambda: figures.kaplan_meier(outcome().assign(g=np.arange(60) % 6), "g"),
    "risk-three": lambda: figures.risk_groups(dict.fromkeys(MODELS[:3], few())),
    "forest-one": lambda: figures.forest({"cv": {"x": {"estimate": 0.5}}}, metric_label="C"),
    "forest-none": lambda: figures.forest({"cv": {}, "test": {}}, metric_label="C", null=None),
    "calibration-nan": lambda: figures.calibration(
        {"x": pd.DataFrame({"predicted": [0.5], "observed": [np.nan], "low": [np.nan], "high": [np.nan]})}, {}, 30
    ),
    "roc-nan": lambda: figures.roc_over_time(
        pd.DataFrame({"model": ["x"] * 2, "time_days": [10, 20], "auc": [np.nan, 0.5], "low": np.nan, "high": None})
    ),
    "importance-one": lambda: figures.importance(
        pd.DataFrame({"feature": ["x"], "importance": [0.0], "low": [np.nan], "high": [np.nan]})
    ),
    "shap-flat": lambda: figures.shap_summary(pd.DataFrame({"x": [0.0, 0.0]}), pd.DataFrame({"x": [1, 1]})),
    "heatmap-one": lambda: figures.biomarker_heatmap(pd.DataFrame([[1.0]], ["x"], ["x"])),
    "heatmap-nan": lambda: figures.biomarker_heatmap(pd.DataFrame(np.full((4, 4), np.nan))),
    "heatmap-many": lambda: figures.biomarker_heatmap(pd.DataFrame(np.eye(120))),
    "heatmap-one-cluster": lambda: figures.biomarker_heatmap(
        pd.DataFrame(np.ones((60, 60))), pd.DataFrame({"column": range(60), "cluster": 1, "kept": False})
    ),
    "heatmap-single-clusters": lambda: figures.biomarker_heatmap(
        pd.DataFrame(np.full((60, 60), np.nan)), pd.DataFrame({"column": range(60), "cluster": range(60), "kept": True})
    ),
    "univariate-none": lambda: figures.univariate_forest(ratios(3).head(0)),
    "univariate-not-estimable": lambda: figures.univariate_forest(
        ratios(1).assign(hazard_ratio=np.nan, low=np.nan, high=np.nan, p=np.nan, q=np.nan, concordance=np.nan)
    ),
    "icc-nothing-measured": lambda: figures.icc_chart(repeated(9).assign(icc=np.nan), 0.75),
    "icc-no-perturbation": lambda: figures.icc_chart(repeated(9).drop(columns=["shrink", "noise"]), 0.75),
    "scanner-nan": lambda: figures.scanner_chart(
        pd.DataFrame({"feature": ["x"], "family": ["glcm"], "before": [np.nan], "after": [np.nan]})
    ),
    "spider-nobody": lambda: figures.response_spider(followed().head(0)),
    "spider-baseline-only": lambda: figures.response_spider(followed().head(1)),
    "distributions-odd": lambda: figures.biomarker_distributions(
        pd.DataFrame({"nothing": [np.nan] * 3, "same": [2.0] * 3, "flag": [True, False, True], "level": list("abc")}),
        ["nothing", "same", "flag", "level"],
    ),
    "learning-one-epoch": lambda: figures.learning_curves(pd.DataFrame({"fold": [0], "epoch": [1], "loss": [np.nan]})),
    "predicted-no-event": lambda: figures.predicted_vs_observed(
        few().assign(event=False, model="x", days_predicted=100.0)
    ),
}


@pytest.mark.parametrize("draw", DEGENERATE.values(), ids=DEGENERATE)
def test_degenerate_input_is_drawn(draw):
    draw().draw_without_rendering()


@pytest.mark.parametrize("kind", ["svg", "png"])
def test_saving_twice_gives_the_same_bytes_and_the_table_beside_it(tmp_path, kind):
    table = outcome(20)
    first, second = (
        figures.save(figures.kaplan_meier(table, "site"), tmp_path / folder, "km", table, kind=kind) for folder in "ab"
    )
    assert first == tmp_path / "a" / f"km.{kind}"
    assert first.read_bytes() == second.read_bytes()
    pd.testing.assert_frame_equal(pd.read_csv(first.with_suffix(".csv")), table)
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["km.csv", f"km.{kind}"]


def test_saving_keeps_names_in_an_index_and_models_of_a_dictionary(tmp_path):
    correlation = outcome()[["time_days", "high_risk"]].astype(float).corr()
    figures.save(figures.biomarker_heatmap(correlation), tmp_path, "heat", correlation)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "heat.csv", index_col=0), correlation)
    groups = {"age": few(), "volume": few()}
    figures.save(figures.risk_groups(groups), tmp_path, "risk", groups)
    assert pd.read_csv(tmp_path / "risk.csv")["model"].tolist() == ["age"] * 10 + ["volume"] * 10


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path):
    class Broken(pd.DataFrame):
        def to_csv(self, *args, **kwargs):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        figures.save(figures.kaplan_meier(few()), tmp_path, "km", Broken(few()))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(BadInput, match="'km': kind is 'pdf'"):
        figures.save(figures.kaplan_meier(few()), tmp_path, "km", few(), kind="pdf")


def test_svg_rounds_places_but_not_the_scale_of_letters(tmp_path):
    svg = figures.save(figures.kaplan_meier(outcome()), tmp_path, "km", outcome()).read_text()
    assert "scale(0.015625)" in svg
    assert not re.search(r"\d\.\d{3,}", re.sub(r"scale\([^)]*\)", "", svg))
    assert "<dc:date>" not in svg


def test_importing_figures_leaves_the_heavy_libraries_alone():
    code = "import sys, survpack.figures; print({'torch', 'monai', 'shap', 'sksurv', 'lifelines'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"
