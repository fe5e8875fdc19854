"""The choice of features against planted clusters, planted instability and patients it must not look at."""

import inspect

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack.errors import BadInput
from survpack.params import Selection as Choice
from survpack.robustness import icc
from survpack.selection import Selection, clusters, volume_dependence

LEVELS = ["original", "shrink", "grow", "noise"]


def choice(**changed) -> Choice:
    return Choice(**{"measured": 0.8, "icc": 0.75, "correlation": 0.9, "harmonise": False, **changed})


def ids(count: int, letter="P") -> pd.Index:
    return pd.Index([f"{letter}{number:03d}" for number in range(count)], name="patient_id")


def table(count=60, groups=(4, 3, 1), seed=0, noise=0.1) -> pd.DataFrame:
    """Groups of features about one hidden number each, `rad_t_t1c_stat_<group>_<member>`."""
    rng = np.random.default_rng(seed)
    columns = {}
    for group, members in enumerate(groups):
        hidden = rng.normal(size=count)
        for member in range(members):
            sign = -1 if member % 2 else 1
            columns[f"rad_t_t1c_stat_{group}_{member}"] = sign * np.exp(hidden + noise * rng.normal(size=count))
    return pd.DataFrame(columns, ids(count))


def replicates(features: pd.DataFrame, noise: dict | float = 0.1, seed=0) -> pd.DataFrame:
    """Each feature measured again under every perturbation with noise of so many standard deviations."""
    rng = np.random.default_rng(seed)
    of = noise if isinstance(noise, dict) else dict.fromkeys(features, noise)
    sizes = np.array([of.get(name, 0.1) for name in features]) * features.std().to_numpy()
    index = pd.MultiIndex.from_product([features.index, LEVELS], names=["patient_id", "perturbation"])
    values = features.to_numpy().repeat(len(LEVELS), axis=0)
    return pd.DataFrame(values + sizes * rng.normal(size=values.shape), index, features.columns)


def sites(features: pd.DataFrame, count=2) -> pd.Series:
    return pd.Series([f"site-{number % count}" for number in range(len(features))], features.index)


def fitted(features, perturbed=None, site=None, **changed) -> Selection:
    return Selection(choice(**changed)).fit(features, sites(features) if site is None else site, perturbed)


def removed(selection: Selection) -> list[int]:
    return [step["removed"] for step in selection.steps]


# --- the steps


def test_steps_come_in_order_and_add_up():
    features = table().assign(rad_rare=np.nan, rad_same=3.0)
    features.iloc[:40, features.columns.get_loc("rad_rare")] = np.arange(40)
    noisy = replicates(features, {"rad_t_t1c_stat_2_0": 5.0})
    selection = fitted(features, noisy)
    assert removed(selection) == [0, 1, 1, 1, 0, 5]
    assert [step["step"].split()[0] for step in selection.steps] == [
        *("extracted", "measured", "varies", "ICC", "harmonised", "one")
    ]
    left = [features.shape[1], *(step["remaining"] for step in selection.steps)]
    assert all(a - step["removed"] == b for a, b, step in zip(left, left[1:], selection.steps, strict=False))
    assert left[-1] == len(selection.columns) == 2


def test_measured_counts_infinite_as_missing_and_keeps_what_reaches_the_share():
    features = table(10, (1, 1, 1))
    features.iloc[:2, 0], features.iloc[:3, 1], features.iloc[0, 2] = np.nan, np.inf, -np.inf
    kept = fitted(features).columns
    assert kept == ["rad_t_t1c_stat_0_0", "rad_t_t1c_stat_2_0"]
    assert np.isnan(Selection(choice()).fit(features, sites(features)).transform(features, sites(features)).iloc[0, 1])


def test_a_feature_that_differs_by_rounding_only_does_not_vary():
    features = table(20, (1,)).assign(rad_a=1e9 * (1 + 1e-15 * np.arange(20)), rad_b=1e-9 * np.arange(20.0) ** 1.1)
    assert fitted(features, correlation=1.0).columns == ["rad_t_t1c_stat_0_0", "rad_b"]


def test_unstable_radiomics_go_and_lesion_biomarkers_stay():
    features = table(40, (1, 1)).assign(tumour_ml=np.random.default_rng(9).exponential(size=40))
    noisy = replicates(features, {"rad_t_t1c_stat_1_0": 3.0, "tumour_ml": 3.0})
    assert icc(noisy)["estimate"].iloc[1:].max() < 0.75
    selection = fitted(features, noisy)
    assert selection.columns == ["rad_t_t1c_stat_0_0", "tumour_ml"]
    known = selection.clusters.set_index("column")["icc"]
    assert known["rad_t_t1c_stat_0_0"] == pytest.approx(icc(noisy)["estimate"].iloc[0])
    assert known["tumour_ml"] < 0.75  # known, and not held against it


def test_radiomics_that_were_never_perturbed_are_not_robust():
    features = table(40, (1, 1))
    assert fitted(features, replicates(features).iloc[:, :1]).columns == ["rad_t_t1c_stat_0_0"]


@pytest.mark.parametrize("perturbed", ["none", "empty", "of others", "of four", "nothing but the original"])
def test_without_replicates_of_training_patients_the_step_is_skipped_and_said_to_be(perturbed):
    features = table(40, (1, 1))
    noisy = replicates(features, 9.0)
    given_ = {
        "none": None,
        "empty": noisy.iloc[:0],
        "of others": noisy.rename(index=lambda name: name.replace("P", "Q"), level=0),
        "of four": noisy.iloc[: 4 * len(LEVELS)],
        "nothing but the original": noisy.xs("original", level=1, drop_level=False),
    }[perturbed]
    selection = fitted(features, given_)
    assert len(selection.columns) == 2 and selection.clusters["icc"].isna().all()
    assert "skipped" in selection.steps[3]["step"]


# --- clusters


@pytest.mark.parametrize("missing", [0.0, 0.1])
def test_planted_clusters_are_found_and_one_is_kept_of_each(missing):
    features = table(80, (6, 4, 3, 1, 1), noise=0.05)
    features = features.mask(np.random.default_rng(1).random(features.shape) < missing)
    found = clusters(features, 0.9)
    planted = found["column"].str.extract(r"_(\d)_\d$")[0].astype(int) + 1
    assert found["cluster"].tolist() == planted.tolist()
    assert found.groupby("cluster")["kept"].sum().tolist() == [1] * 5


def test_what_is_kept_is_the_first_lesion_biomarker_else_the_highest_icc_else_the_first():
    features = table(80, (3, 3, 3), noise=0.02)
    features = features.rename(columns={"rad_t_t1c_stat_0_1": "enhancing_ml", "rad_t_t1c_stat_0_2": "tumour_ml"})
    prefer = pd.Series({"rad_t_t1c_stat_0_0": 0.99, "rad_t_t1c_stat_1_0": 0.8, "rad_t_t1c_stat_1_1": 0.9})
    prefer["tumour_ml"] = 0.99
    found = clusters(features, 0.9, prefer)
    assert found.loc[found["kept"], "column"].tolist() == ["enhancing_ml", "rad_t_t1c_stat_1_1", "rad_t_t1c_stat_2_0"]


def test_correlation_is_spearmans_so_a_monotone_twin_is_in_the_cluster_and_a_parabola_is_not():
    x = np.linspace(-3, 3, 61)
    features = pd.DataFrame({"rad_x": x, "rad_twin": -np.exp(3 * x), "rad_parabola": x**2}, ids(61))
    assert clusters(features, 1.0)["cluster"].tolist() == [1, 1, 2]


def test_distances_are_those_of_pandas_where_nothing_is_missing():
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    rng = np.random.default_rng(5)
    features = pd.DataFrame(rng.normal(size=(30, 6)) @ rng.normal(size=(6, 40)), ids(30)).add_prefix("rad_").round(1)
    distance = 1 - features.corr(method="spearman").abs().to_numpy()
    expected = fcluster(linkage(squareform(distance, checks=False), "average"), 0.3, "distance")
    assert len(set(expected)) > 5
    assert clusters(features, 0.7)["cluster"].tolist() == (pd.factorize(expected)[0] + 1).tolist()


def test_features_without_patients_in_common_are_no_cluster():
    x = np.arange(20.0)
    features = pd.DataFrame({"rad_a": np.where(x < 10, x, np.nan), "rad_b": np.where(x >= 10, x, np.nan)}, ids(20))
    assert clusters(features, 0.5)["cluster"].tolist() == [1, 2]


@pytest.mark.parametrize("count, width", [(0, 0), (5, 0), (5, 1), (1, 3)])
def test_clusters_of_little_or_nothing(count, width):
    features = pd.DataFrame(np.arange(float(count * width)).reshape(count, width), ids(count)).add_prefix("rad_")
    found = clusters(features, 0.9)
    assert found.columns.tolist() == ["column", "cluster", "kept", "icc"]
    assert len(found) == width and found["kept"].all()


# --- what it must not look at


def test_no_outcome_is_an_argument_anywhere():
    known = {"self", "choice", "features", "site", "perturbed"}
    for function in (Selection.__init__, Selection.fit, Selection.transform):
        assert set(inspect.signature(function).parameters) <= known


def test_held_out_patients_change_nothing_that_is_learnt():
    everyone = table(80, (4, 3, 1, 1))
    training, held_out = everyone.index[:50], everyone.index[50:]
    noisy, site = replicates(everyone, 0.3), sites(everyone, 2)
    site[everyone.index[25:50]] = "site-1"
    selections = []
    for by in (1.0, -50.0):
        mutated, of = everyone.copy(), noisy.copy()
        mutated.loc[held_out] *= by
        of.loc[held_out] = of.loc[held_out].to_numpy() * by + by * np.random.default_rng(1).normal(size=of.shape)[:120]
        selection = Selection(choice(harmonise=True)).fit(mutated.loc[training], site, of)
        selections.append((selection, selection.transform(mutated.loc[training], site)))
    (first, seen), (second, again) = selections
    assert first.columns == second.columns and first.steps == second.steps
    pd.testing.assert_frame_equal(first.clusters, second.clusters, check_exact=True)
    pd.testing.assert_frame_equal(seen, again, check_exact=True)


def test_icc_is_of_training_patients_a_feature_unstable_in_others_only_is_kept():
    features = table(60, (1, 1))
    noisy = replicates(features)
    rng = np.random.default_rng(2)
    stable, unstable = features.columns
    late, early = features.index[30:], features.index[:30]
    noisy.loc[late, stable] = 50 * rng.normal(size=30 * len(LEVELS))
    noisy.loc[early, unstable] = 50 * rng.normal(size=30 * len(LEVELS))
    assert icc(noisy)["estimate"].max() < 0.75  # over everyone, neither is
    assert fitted(features.loc[early], noisy).columns == [stable]
    assert fitted(features.loc[late], noisy).columns == [unstable]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), missing=st.sampled_from([0.0, 0.1, 0.5]), count=st.integers(1, 40))
def test_the_order_of_patients_does_not_matter(seed, missing, count):
    rng = np.random.default_rng(seed)
    features = table(count, (3, 2, 1), seed).mask(rng.random((count, 6)) < missing)
    features["tumour_ml"] = rng.integers(0, 3, count).astype(float)
    noisy, order = replicates(features, 0.4, seed), rng.permutation(count)
    one = fitted(features, noisy, measured=0.4)
    other = fitted(features.iloc[order], noisy.sample(frac=1, random_state=seed), measured=0.4)
    assert one.columns == other.columns and one.steps == other.steps
    pd.testing.assert_frame_equal(one.clusters, other.clusters, check_exact=True)


def test_fit_leaves_its_tables_as_they_were_and_twice_gives_the_same():
    features = table(40)
    noisy, before = replicates(features), features.copy()
    one, two = fitted(features, noisy), fitted(features, noisy)
    pd.testing.assert_frame_equal(features, before)
    pd.testing.assert_frame_equal(one.clusters, two.clusters)
    assert one.steps == two.steps


# --- transform


def test_transform_gives_the_kept_columns_of_whoever_comes_in_their_order():
    features = table(50)
    selection = fitted(features)
    new = table(7, seed=4).set_axis(ids(7, "Q"))[features.columns[::-1]]
    found = selection.transform(new, sites(new))
    assert found.columns.tolist() == selection.columns
    pd.testing.assert_frame_equal(found, new[selection.columns])


def test_transform_names_the_column_that_is_missing():
    features = table(50)
    selection = fitted(features)
    with pytest.raises(BadInput, match=selection.columns[0]):
        selection.transform(features.drop(columns=selection.columns[0]), sites(features))


def test_harmonising_moves_intensity_between_sites_and_leaves_shape_and_volume():
    rng = np.random.default_rng(3)
    names = [*(f"rad_t_t1c_stat_{k}" for k in range(4)), "rad_t_morph_volume", "tumour_ml"]
    features = pd.DataFrame(rng.normal(size=(80, 6)), ids(80), names)
    site = sites(features)
    features[site == "site-1"] += 5.0
    found = Selection(choice(harmonise=True, correlation=1.0)).fit(features, site).transform(features, site)
    gap = (found[site == "site-1"].mean() - found[site == "site-0"].mean()).abs()
    assert (gap[names[:4]] < 0.5).all()
    pd.testing.assert_frame_equal(found[names[4:]], features[names[4:]])


def test_clusters_are_those_of_harmonised_features():
    rng = np.random.default_rng(6)
    features = pd.DataFrame(rng.normal(size=(80, 5)), ids(80)).add_prefix("rad_t_t1c_stat_")
    site = sites(features)
    features[site == "site-1"] += 100.0  # the scanner alone makes them one cluster
    assert len(fitted(features, site=site, correlation=0.7).columns) == 1
    assert len(fitted(features, site=site, correlation=0.7, harmonise=True).columns) == 5


def test_one_site_or_no_intensity_is_nothing_to_harmonise_and_said_to_be():
    features = table(40, (2, 1))
    one = fitted(features, site=sites(features, 1), harmonise=True)
    assert "skipped" in one.steps[4]["step"]
    pd.testing.assert_frame_equal(one.transform(features, sites(features, 1)), features[one.columns])
    shapes = features.rename(columns=lambda name: name.replace("t1c_stat", "morph"))
    assert "skipped" in fitted(shapes, harmonise=True).steps[4]["step"]


# --- little and bad input


@pytest.mark.parametrize("harmonise", [False, True])
@pytest.mark.parametrize("count, width", [(0, 2), (1, 3), (2, 1), (30, 0), (30, 1)])
def test_a_single_patient_or_feature_is_no_crash(count, width, harmonise):
    features = table(count, (width,)) if width else pd.DataFrame(index=ids(count))
    selection = fitted(features, replicates(features) if width else None, harmonise=harmonise)
    assert len(selection.columns) == (1 if width and count > 1 else 0)
    found = selection.transform(features, sites(features))
    assert found.index.equals(features.index) and found.columns.tolist() == selection.columns


# --- volume


def test_volume_dependence_is_spearmans_over_the_patients_who_have_both():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(7)
    volume = pd.Series(rng.exponential(size=50), ids(50))
    features = pd.DataFrame({"cube": volume**3, "inverse": 1 / volume, "free": rng.normal(size=50)})
    features["some"] = (volume + 0.5 * rng.normal(size=50)).where(np.arange(50) % 3 > 0)
    features["same"], features["pair"] = 1.0, [1.0, 2.0, *[np.nan] * 48]
    volume.iloc[4] = np.nan
    found = volume_dependence(features, volume.sample(frac=1, random_state=0))
    both = features["some"].notna() & volume.notna()
    assert found["some"] == pytest.approx(spearmanr(features["some"][both], volume[both]).statistic)
    assert found[["cube", "inverse"]].tolist() == pytest.approx([1, -1])
    assert found[["same", "pair"]].isna().all()
