"""Shares of variance are those planted, and harmonisation is judged on patients it has not seen."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import statsmodels.formula.api as smf
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.anova import anova_lm

from survpack import scanner
from survpack.harmonise import Combat

SHARES = scanner.SHARES


def table(values: np.ndarray, names=None) -> pd.DataFrame:
    """`values`, shape (patients, scanners, features), as `variance_shares` takes them."""
    patients, scanners, features = values.shape
    index = pd.MultiIndex.from_product(
        [[f"P{k}" for k in range(patients)], [f"site-{k + 1}" for k in range(scanners)]],
        names=["patient_id", "scanner"],
    )
    return pd.DataFrame(values.reshape(-1, features), index, names or [f"f{k}" for k in range(features)])


def effects(rng, patients=12, scanners=4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of patients and of scanners, and what neither explains: each orthogonal to the others."""
    patient, scanner_, rest = (
        rng.normal(size=(patients, 1)),
        rng.normal(size=scanners),
        rng.normal(size=(patients, scanners)),
    )
    rest -= rest.mean(axis=0)
    rest -= rest.mean(axis=1, keepdims=True)
    return patient - patient.mean(), scanner_ - scanner_.mean(), rest


def test_components_are_those_solved_by_hand_from_planted_effects():
    patient, seen, rest = effects(np.random.default_rng(0))
    n, k = rest.shape
    of_rest = (rest**2).sum() / ((n - 1) * (k - 1))
    of_patient = (patient**2).sum() / (n - 1) - of_rest / k
    of_scanner = (seen**2).sum() / (k - 1) - of_rest / n
    expected = np.array([of_patient, of_scanner, of_rest])
    found = scanner.variance_shares(table((7 + patient + seen + rest)[..., None]))
    np.testing.assert_allclose(found.loc["f0", SHARES].astype(float), expected / expected.sum())
    assert (expected > 0).all() and found.loc["f0", "n"] == 12


def test_shares_agree_with_the_analysis_of_variance_of_statsmodels():
    values = np.random.default_rng(1).normal(size=(9, 3, 1)) + np.array([0, 2, -1])[:, None]
    long = table(values, ["y"]).reset_index()
    squares = anova_lm(smf.ols("y ~ C(patient_id) + C(scanner)", long).fit())["mean_sq"]
    rest = squares["Residual"]
    parts = np.clip([(squares["C(patient_id)"] - rest) / 3, (squares["C(scanner)"] - rest) / 9, rest], 0, None)
    np.testing.assert_allclose(scanner.variance_shares(table(values))[SHARES].to_numpy()[0], parts / parts.sum())


def test_many_patients_and_scanners_give_back_the_variances_they_were_drawn_with():
    rng = np.random.default_rng(2)
    drawn = 2.0 * rng.normal(size=(300, 1, 4)) + rng.normal(size=(1, 300, 4)) + 0.5 * rng.normal(size=(300, 300, 4))
    found = scanner.variance_shares(table(drawn))
    np.testing.assert_allclose(found[SHARES], [[4 / 5.25, 1 / 5.25, 0.25 / 5.25]] * 4, atol=0.06)


def test_a_feature_of_the_patient_alone_or_of_the_scanner_alone_has_all_its_variance_there():
    patient, seen, _ = effects(np.random.default_rng(3))
    both = np.stack(np.broadcast_arrays(1e6 + patient, 1e-6 * seen), axis=-1)
    np.testing.assert_allclose(scanner.variance_shares(table(both))[SHARES], [[1, 0, 0], [0, 1, 0]], atol=1e-9)


def test_a_component_that_comes_out_negative_counts_as_nothing_and_shares_still_add_up():
    rest = effects(np.random.default_rng(4))[2]
    found = scanner.variance_shares(table(rest[..., None]))
    np.testing.assert_allclose(found[SHARES], [[0, 0, 1]], atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_shares_add_up_to_one_and_do_not_know_unit_or_order(seed, scale, shift):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(6, 3, 5)) + rng.normal(size=(6, 1, 5)) + rng.normal(size=(1, 3, 5))
    found = scanner.variance_shares(table(values))
    np.testing.assert_allclose(found[SHARES].sum(axis=1), 1)
    moved = scanner.variance_shares(table(scale * values + shift).sample(frac=1, random_state=seed % 1000))
    np.testing.assert_allclose(moved[SHARES], found[SHARES], atol=1e-6)


def test_a_patient_without_the_feature_under_one_scanner_is_left_out_of_that_feature_only():
    values = np.random.default_rng(5).normal(size=(8, 3, 2))
    gap = values.copy()
    gap[2, 1, 0] = np.nan
    found, without = scanner.variance_shares(table(gap)), scanner.variance_shares(table(np.delete(values, 2, axis=0)))
    assert found["n"].tolist() == [7, 8]
    np.testing.assert_allclose(found.loc["f0", SHARES].astype(float), without.loc["f0", SHARES].astype(float))
    dropped = scanner.variance_shares(table(values).drop(("P2", "site-2")))  # a row that is not there at all
    np.testing.assert_allclose(dropped[SHARES].to_numpy()[0], found[SHARES].to_numpy()[0])


def test_what_is_constant_never_measured_or_of_one_scanner_has_no_shares():
    values = np.stack([np.full((5, 3), 0.1), np.full((5, 3), np.nan), np.arange(15.0).reshape(5, 3)], axis=-1)
    found = scanner.variance_shares(table(values))
    assert found[SHARES].isna().all(axis=1).tolist() == [True, True, False] and found["n"].tolist() == [5, 0, 5]
    assert scanner.variance_shares(table(values[:, :1]))[SHARES].isna().all(axis=None)


# --- the experiment

NAMES = ["rad_tumour_t1c_stat_mean", "rad_tumour_t1c_cm_contrast", "rad_tumour_morph_volume", "tumour_ml"]
GAIN, SHIFT = {"site-1": 1.0, "site-2": 1.5, "site-3": 0.7}, {"site-1": 0.0, "site-2": 3.0, "site-3": -2.0}


def seen_by(truth: pd.DataFrame, sites: pd.Series) -> pd.DataFrame:
    """Grey values and textures are the scanner's gain and shift of the truth, geometry is the truth."""
    found = truth.copy()
    for name in NAMES[:2]:
        found[name] = sites.map(GAIN).to_numpy() * truth[name] + sites.map(SHIFT).to_numpy()
    return found


@pytest.fixture(scope="module")
def scanned():
    """90 patients under their own scanner, 20 more under each of three."""
    rng = np.random.default_rng(6)
    truth = pd.DataFrame(rng.normal(size=(110, 4)), [f"P{k:03d}" for k in range(110)], NAMES).rename_axis("patient_id")
    site = pd.Series(np.resize(list(GAIN), 110), truth.index, name="site")
    native = seen_by(truth.head(90), site.head(90))
    rescans = pd.concat(
        {name: seen_by(truth.iloc[85:], pd.Series(name, truth.index[85:])) for name in GAIN}, names=["scanner"]
    ).swaplevel()
    return native, site.head(90), rescans


def test_combat_takes_the_planted_scanner_out_of_patients_it_has_not_seen(scanned):
    found, summary = scanner.experiment(*scanned, Combat())
    grey = found[found["family"].isin(["intensity", "glcm"])]
    assert (grey["before"] > 0.5).all() and (grey["after"] < 0.1).all()
    assert (grey["patient_after"] > grey["patient_before"] + 0.4).all()
    assert (found["n"] == 20).all()  # five of the 25 rescanned are among those it is learnt from
    assert summary.loc["intensity", "before"] == found.loc[NAMES[0], "before"]
    assert set(summary.index) == {"intensity", "glcm", "morphology", "lesion"} and (summary["features"] == 1).all()


def test_geometry_has_no_scanner_share_before_and_gets_a_little_by_being_harmonised(scanned):
    found, _ = scanner.experiment(*scanned, Combat())
    geometry = found.loc[NAMES[2:]]
    assert (geometry["before"] < 1e-12).all() and (geometry["patient_before"] > 1 - 1e-12).all()
    assert (geometry["after"] > 1e-4).all() and (geometry["after"] < 0.1).all()


def test_what_is_learnt_is_learnt_from_the_development_patients_alone(scanned):
    native, site, rescans = scanned

    class Watched:
        def fit(self, features, sites):
            self.patients, self.sites = set(features.index), set(sites)
            return self

        def transform(self, features, sites):
            assert not self.patients & set(features.index) and set(sites) <= self.sites
            return features

    found, _ = scanner.experiment(native, site, rescans, Watched())
    pd.testing.assert_series_equal(found["before"], found["after"], check_names=False)


def test_a_scanner_of_no_development_patient_is_left_out(scanned):
    native, site, rescans = scanned
    own = site != "site-3"
    found, _ = scanner.experiment(native[own], site[own], rescans, Combat())
    two, _ = scanner.experiment(native[own], site[own], rescans.drop(index="site-3", level="scanner"), Combat())
    pd.testing.assert_frame_equal(found, two)


def test_a_study_without_features_of_intensity_has_no_experiment():
    index = pd.Index(["P0", "P1"], name="patient_id")
    study = SimpleNamespace(name="mets", development=list(index), sites=pd.Series(["site-1", "site-2"], index))
    assert scanner.shifted(study, pd.DataFrame({"rad_tumour_morph_volume": [1.0, 2.0], "rim_mm": 3.0}, index)) is None


def test_2400_features_take_no_noticeable_time():
    from time import perf_counter

    wide = table(np.random.default_rng(7).normal(size=(30, 3, 2400)))
    start = perf_counter()
    assert len(scanner.variance_shares(wide)) == 2400
    assert perf_counter() - start < 2
