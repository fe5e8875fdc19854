"""ComBat against Johnson's formula written out, a planted scanner, and what a held-out patient may not do."""

import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from survpack.errors import BadInput
from survpack.harmonise import Combat, shrunk, variance_by_site


def table(patients: int = 90, features: int = 12, sites: int = 3, seed: int = 0) -> tuple[pd.DataFrame, pd.Series]:
    """Normal features without any effect of the site."""
    rng = np.random.default_rng(seed)
    ids = pd.Index([f"P{k:03d}" for k in range(patients)], name="patient_id")
    values = pd.DataFrame(rng.normal(size=(patients, features)), ids, [f"rad_{k}" for k in range(features)])
    return values, pd.Series([f"site-{k % sites}" for k in range(patients)], ids, name="site")


def scanned(values: pd.DataFrame, site: pd.Series, seed: int = 1) -> tuple[pd.DataFrame, np.ndarray, np.ndarray]:
    """`values` as each site's scanner shows them, its shifts and its scales (sites x features)."""
    rng = np.random.default_rng(seed)
    names = sorted(site.unique())
    shifts = rng.normal([[2.0 * k] for k in range(len(names))], 0.3, (len(names), values.shape[1]))
    scales = rng.uniform([[0.5 + k] for k in range(len(names))], [[0.7 + k] for k in range(len(names))], shifts.shape)
    own = site.map(names.index).to_numpy()
    return values * scales[own] + shifts[own], shifts, scales


def by_hand(values: pd.DataFrame, site: pd.Series) -> pd.DataFrame:
    """Johnson, Li and Rabinovic 2007 as they write it: one site and one feature at a time, no array tricks."""
    out, n = values.copy(), len(values)
    names, features = sorted(set(site)), list(values)
    grand = {f: sum(values[f]) / n for f in features}
    pooled = {f: sum(sum((x - values.loc[site == s, f].mean()) ** 2 for x in values.loc[site == s, f]) for s in names) / n
              for f in features}  # fmt: skip
    for s in names:
        z = {f: [(x - grand[f]) / pooled[f] ** 0.5 for x in values.loc[site == s, f]] for f in features}
        count = len(z[features[0]])
        gamma = {f: sum(z[f]) / count for f in features}
        delta = {f: sum((x - gamma[f]) ** 2 for x in z[f]) / (count - 1) for f in features}
        gamma_bar, tau2 = np.mean(list(gamma.values())), np.var(list(gamma.values()), ddof=1)
        v, s2 = np.mean(list(delta.values())), np.var(list(delta.values()), ddof=1)
        lam, theta = (v**2 + 2 * s2) / s2, (v**3 + v * s2) / s2
        for f in features:
            g, d = gamma[f], delta[f]
            for _ in range(300):
                g = (count * tau2 * gamma[f] + d * gamma_bar) / (count * tau2 + d)
                d = (theta + sum((x - g) ** 2 for x in z[f]) / 2) / (count / 2 + lam - 1)
            out.loc[site == s, f] = [(x - g) / d**0.5 * pooled[f] ** 0.5 + grand[f] for x in z[f]]
    return out


# --- the formula


@pytest.mark.parametrize(("sites", "patients"), [(2, 24), (3, 41)])
def test_it_is_johnsons_formula_written_out(sites, patients):
    values, site = table(patients, 5, sites)
    seen = scanned(values, site)[0]
    found = Combat().fit(seen, site).transform(seen, site)
    pd.testing.assert_frame_equal(found, by_hand(seen, site), atol=1e-6, rtol=0)


def test_it_gives_the_numbers_of_neurocombat():
    """Made with neuroCombat 0.2.12: `neuroCombat(table.T, DataFrame({"site": list("aaaabbbb")}), "site")["data"].T`."""
    rows = [[1.0, 10.0, 0.3], [2.0, 14.0, 0.1], [1.5, 11.0, 0.6], [3.0, 19.0, 0.2],
            [4.0, 12.0, 0.9], [6.5, 13.0, 0.8], [5.0, 17.0, 1.4], [4.5, 30.0, 0.7]]  # fmt: skip
    expected = [[2.30121, 13.03007, 0.61244], [3.41829, 17.6767, 0.38568], [2.85975, 14.19172, 0.95257],
                [4.53536, 23.485, 0.49906], [2.88017, 9.80396, 0.60246], [4.72124, 10.5371, 0.52885],
                [3.6166, 13.46967, 0.97051], [3.24839, 23.00051, 0.45524]]  # fmt: skip
    values, site = pd.DataFrame(rows), pd.Series(list("aaaabbbb"))
    found = Combat(smallest=4).fit(values, site).transform(values, site)
    np.testing.assert_allclose(found, expected, rtol=1e-3)  # it stops once steps are below 1e-4


@pytest.mark.xfail(strict=True, reason="combatlearn 2.3.0 takes its prior over sites; when this passes, drop _johnson")
def test_combatlearn_by_itself_is_johnsons_formula():
    from combatlearn.core import ComBatModel

    values, site = table(41, 5)
    seen = scanned(values, site)[0]
    found = ComBatModel(method="johnson").fit(seen, batch=site).transform(seen, batch=site)
    pd.testing.assert_frame_equal(found, by_hand(seen, site), atol=1e-3, rtol=0)


def test_with_many_patients_shrinkage_vanishes_and_each_site_has_the_pooled_mean_and_spread():
    values, site = table(6000, 4)
    seen = scanned(values, site)[0]
    found = Combat().fit(seen, site).transform(seen, site)
    pooled = np.sqrt((seen.groupby(site).var(ddof=0) * site.value_counts(normalize=True).to_numpy()[:, None]).sum())
    for name in site.unique():
        np.testing.assert_allclose(found[site == name].mean(), seen.mean(), atol=0.02 * pooled.max())
        np.testing.assert_allclose(found[site == name].std(), pooled, rtol=0.02)


def test_shrinkage_lies_between_the_site_and_the_mean_of_its_features():
    rng = np.random.default_rng(3)
    shift, scale = rng.normal(1, 0.5, (2, 40)), rng.uniform(0.5, 2, (2, 40))
    for patients in (8, 80):
        now, wide = shrunk(shift, scale, np.array([patients] * 2))
        centre = shift.mean(axis=1, keepdims=True)
        assert (np.abs(now - centre) < np.abs(shift - centre)).all()
        assert (wide.std(axis=1) < scale.std(axis=1)).all()
    few, many = (np.abs(shrunk(shift, scale, np.array([n] * 2))[0] - shift).max() for n in (8, 80))
    assert many < few


# --- what it does to a cohort


def test_a_planted_scanner_is_removed():
    values, site = table(300, 20)
    seen = scanned(values, site)[0]
    after = Combat().fit(seen, site).transform(seen, site)
    assert variance_by_site(seen, site).median() > 0.3
    assert variance_by_site(after, site).max() < 0.03
    spread = after.groupby(site).std()
    assert (
        (spread.max() / spread.min()).max()
        < 1.3
        < (seen.groupby(site).std().max() / seen.groupby(site).std().min()).min()
    )


def test_without_a_scanner_little_changes():
    values, site = table(300, 20)
    moved = (Combat().fit(values, site).transform(values, site) - values).abs()
    assert moved.mean().max() < 0.15  # standard deviations; the error of a mean of 100 is 0.1
    assert 0 < moved.mean().mean() < 0.06


def test_what_differs_within_a_site_survives():
    values, site = table(300, 20)
    signal = values["rad_0"].copy()
    seen = scanned(values, site)[0]
    after = Combat().fit(seen, site).transform(seen, site)
    assert np.corrcoef(seen["rad_0"], signal)[0, 1] < 0.75 < 0.98 < np.corrcoef(after["rad_0"], signal)[0, 1]
    for name in site.unique():
        ours, before = after.loc[site == name, "rad_0"], seen.loc[site == name, "rad_0"]
        assert np.corrcoef(ours, before)[0, 1] == pytest.approx(1)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 99), unit=st.sampled_from([1e-9, 1e-5, 1.0, 1e6]), zero=st.sampled_from([0.0, 3.0]))
def test_the_unit_of_a_feature_does_not_matter(seed, unit, zero):
    values, site = table(40, 4, 2, seed)
    seen = scanned(values, site)[0]
    found = Combat().fit(seen * unit + zero * unit, site).transform(seen * unit + zero * unit, site)
    expected = Combat().fit(seen, site).transform(seen, site)
    np.testing.assert_allclose(found / unit - zero, expected, atol=1e-5)


# --- what it may not know


def test_held_out_patients_do_not_influence_the_fit_nor_each_other():
    values, site = table(60)
    seen = scanned(values, site)[0]
    train, held = seen.index[:40], seen.index[40:]
    fitted = Combat().fit(seen.loc[train], site)
    before = fitted.transform(seen, site)
    changed = seen.copy()
    changed.loc[held[0]] = 1e6
    after = Combat().fit(changed.loc[train], site[train]).transform(changed, site)
    pd.testing.assert_frame_equal(after.drop(held[0]), before.drop(held[0]))
    one = fitted.transform(seen.loc[[held[3]]], site)
    pd.testing.assert_frame_equal(one, before.loc[[held[3]]])


def test_a_site_not_seen_in_training_or_seen_too_little_is_left_and_counted():
    values, site = table(60)
    seen = scanned(values, site)[0]
    seen.index = site.index = [f"Q{k}" for k in range(60)]
    site.iloc[50:57], site.iloc[57:59], site.iloc[59] = "small", "new", None
    fitted = Combat().fit(seen.drop(["Q57", "Q58"]), site)
    found = fitted.transform(seen, site)
    pd.testing.assert_frame_equal(found.iloc[50:], seen.iloc[50:])
    assert (found.iloc[:50] != seen.iloc[:50]).all(axis=None)
    assert fitted.unseen(site).to_dict() == {"(not told)": 1, "new": 2, "small": 7}
    assert fitted.unseen(site.iloc[:50]).empty
    assert fitted.sites == ["site-0", "site-1", "site-2"]


def test_patients_without_a_site_are_no_site_however_many():
    values, site = table(60)
    fitted = Combat().fit(values, site.mask(site == "site-2"))
    assert fitted.sites == ["site-0", "site-1"] and fitted.unseen(site).to_dict() == {"site-2": 20}


@pytest.mark.parametrize("smallest", [7, 8])
def test_the_smallest_site_that_is_learnt_is_the_one_asked_for(smallest):
    values, site = table(37, 4)
    site.iloc[:] = ["a"] * 30 + ["b"] * 7
    assert Combat(smallest).fit(values, site).sites == ([] if smallest == 8 else ["a", "b"])


def test_one_site_is_the_identity_and_nobody_is_unseen():
    values, site = table(30, sites=1)
    fitted = Combat().fit(values, site)
    pd.testing.assert_frame_equal(fitted.transform(values, site), values)
    assert fitted.unseen(site).empty and fitted.sites == []


def test_what_is_missing_stays_missing_and_the_rest_is_as_if_the_median_stood_there():
    values, site = table(60)
    seen = scanned(values, site)[0]
    holes = seen.mask(np.random.default_rng(2).random(seen.shape) < 0.1)
    holes.iloc[0, 0] = np.inf
    found = Combat().fit(holes, site).transform(holes, site)
    assert (found.isna() == holes.isna()).all(axis=None) and found.iloc[0, 0] == np.inf
    gone = holes.replace(np.inf, np.nan)
    filled = gone.fillna(gone.groupby(site).transform("median"))
    expected = Combat().fit(filled, site).transform(filled, site)
    pd.testing.assert_frame_equal(found.where(gone.notna()), expected.where(gone.notna()))


def test_a_feature_constant_or_never_measured_within_a_site_passes_through():
    values, site = table(60)
    seen = scanned(values, site)[0]
    seen["rad_1"] = 7.0
    seen.loc[site == "site-2", "rad_4"] = 0.1 + 0.2
    seen.loc[site == "site-0", "rad_6"] = np.nan
    fitted = Combat().fit(seen, site)
    found = fitted.transform(seen, site)
    same = [name for name in seen if found[name].equals(seen[name])]
    assert same == ["rad_1", "rad_4", "rad_6"] == [name for name in seen if name not in fitted.adjusted]


@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_patients_and_of_columns_is_kept_and_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    values, site = table(45, 5)
    seen = scanned(values, site)[0]
    shuffled = seen.iloc[rng.permutation(45), rng.permutation(5)]
    expected = Combat().fit(seen, site).transform(seen, site)
    found = Combat().fit(shuffled, site).transform(shuffled, site)  # the sites are found by patient
    pd.testing.assert_frame_equal(found, expected.loc[shuffled.index, shuffled.columns], atol=1e-6)
    again = Combat().fit(seen, site).transform(shuffled, site.loc[shuffled.index])
    pd.testing.assert_frame_equal(again, expected.loc[shuffled.index, shuffled.columns])


def test_a_patient_drawn_twice_is_harmonised_twice():
    values, site = table(45, 5)
    fitted = Combat().fit(values, site)
    twice = [*values.index[:3], values.index[0]]
    found = fitted.transform(values.loc[twice], site)
    pd.testing.assert_frame_equal(found, fitted.transform(values, site).loc[twice])


@pytest.mark.filterwarnings("error")
def test_a_single_feature_gets_its_sites_plain_mean_and_spread():
    values, site = table(60, 1)
    seen = scanned(values, site)[0]
    found = Combat().fit(seen, site).transform(seen, site)
    np.testing.assert_allclose(found.groupby(site).mean(), np.full((3, 1), seen.mean()))
    assert np.ptp(found.groupby(site).std().to_numpy()) < 1e-6


# --- mistakes


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda values, site: (values.drop(columns="rad_3"), site), "lack rad_3, expected the 12 columns"),
        (lambda values, site: (values.rename(columns={"rad_3": "x"}), site), "lack rad_3 and have besides x"),
        (lambda values, site: (values, site.drop("P002")), "P002 without a site"),
        (lambda values, site: (values.assign(rad_1="high"), site), "rad_1 is no number"),
        (lambda values, site: (values.rename(columns={"rad_3": "rad_1"}), site), "rad_1 comes twice"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(spoil, said):
    values, site = table()
    fitted = Combat().fit(values, site)
    with pytest.raises(BadInput, match=said):
        fitted.transform(*spoil(values, site))


# --- the share of variance


def test_the_share_of_variance_is_that_of_an_analysis_of_variance():
    from scipy.stats import f_oneway

    values, site = table(50, 4)
    seen = scanned(values, site)[0].mask(np.random.default_rng(5).random(values.shape) < 0.2)
    share = variance_by_site(seen, site)
    for name in seen:
        told = seen[name].dropna()
        f = f_oneway(*(rows for _, rows in told.groupby(site))).statistic
        assert share[name] == pytest.approx(2 * f / (2 * f + len(told) - 3))


def test_the_share_is_one_where_the_site_is_all_and_none_for_a_constant():
    values, site = table(30, 2)
    share = variance_by_site(values.assign(rad_0=site.str[-1].astype(float), rad_1=0.1), site)
    assert share["rad_0"] == pytest.approx(1) and np.isnan(share["rad_1"])


# --- cost


@pytest.mark.filterwarnings("error")
def test_the_whole_table_of_a_cohort_takes_under_two_seconds_and_says_nothing(capfd):
    values, site = table(118, 2400)
    seen = scanned(values, site)[0]
    begun = time.process_time()
    Combat().fit(seen, site).transform(seen, site)
    assert time.process_time() - begun < 2
    assert capfd.readouterr() == ("", "")


def test_the_module_is_light_until_it_is_used():
    code = "import sys, survpack.harmonise; print([m for m in ('combatlearn', 'sklearn', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
