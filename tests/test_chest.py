"""The chest phantom: its hazard is the stated one, its masks grow as planted, nobody is scanned after the end."""

import json
from hashlib import sha256

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from lifelines import CoxPHFitter, KaplanMeierFitter, WeibullAFTFitter
from lifelines.utils import concordance_index
from scipy.ndimage import binary_erosion, uniform_filter

from survpack import adapters, paths
from survpack.adapters import bids
from survpack.errors import BadInput
from survpack.params import load
from survpack.phantom import chest, thorax
from survpack.phantom.shared import followed

SMALL = {**chest.DEFAULTS, "patients": 20, "spacing_mm": 5.0}
SHARP, SMOOTH = thorax.Scanner(1, 0.8, 0.6, 20, 0.0, 0, 150), thorax.Scanner(2, 1.2, 0.0, 14, 1.5, 0, 125)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A smoke-sized phantom: its BIDS folder and its truth."""
    place = tmp_path_factory.mktemp("chest")
    chest.generate(place / "bids", place / "truth.parquet", **SMALL, n_jobs=1)
    return place


@pytest.fixture(scope="module")
def truth(made):
    return pd.read_parquet(made / "truth.parquet").set_index("patient_id")


@pytest.fixture(scope="module")
def participants(made):
    return bids.clinical(made / "bids").set_index("patient_id")


@pytest.fixture(scope="module")
def images(made):
    return bids.discover(made / "bids")


@pytest.fixture(scope="module")
def body():
    return thorax.thorax(np.random.default_rng(4), 4.0)


def charted(patients: int, seed: int, **choices) -> tuple[pd.DataFrame, dict]:
    """The truth of patients whose masks would be exactly as planted, and the facts of their hazard."""
    known = chest.facts({**chest.DEFAULTS, **choices})
    chart = chest.charts(np.random.default_rng(seed), patients, known["choices"]["sites"])
    return chest.hazard(chart.assign(volume_ml=chart["planted_ml"]), known), known


def volume_ml(path) -> float:
    mask = nib.load(path)
    return float(np.count_nonzero(np.asarray(mask.dataobj)) * np.prod(mask.header.get_zooms()) / 1000)


def digests(place) -> dict:
    return {
        str(path.relative_to(place)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def test_cox_regression_recovers_every_planted_coefficient():
    truth, known = charted(1500, seed=1, site_hazard=0.8)
    terms = truth.filter(like="term_").rename(columns=lambda name: name.removeprefix("term_"))
    assert list(terms) == list(known["coefficients"]) and known["coefficients"]["site"] == 0.8
    outcome = followed(np.random.default_rng(1), truth["linear_predictor"], known)
    fit = CoxPHFitter().fit(terms.join(outcome), "time_days", "event")
    assert ((fit.params_ - pd.Series(known["coefficients"])) / fit.standard_errors_).abs().max() < 3
    assert fit.standard_errors_.max() < 0.2


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_a_weibull_model_recovers_shape_and_scale_whatever_the_noise(noise):
    truth, known = charted(3000, seed=2, survival_noise=noise)
    outcome = followed(np.random.default_rng(2), truth["linear_predictor"], known)
    fit = WeibullAFTFitter().fit(truth[["linear_predictor"]].join(outcome), "time_days", "event")
    shape, scale = np.exp(fit.params_["rho_"]["Intercept"]), np.exp(fit.params_["lambda_"]["Intercept"])
    assert shape == pytest.approx(known["weibull_shape"], rel=0.06)
    assert scale == pytest.approx(known["weibull_scale_days"], rel=0.08)


def test_noise_of_survival_scales_the_spread_of_log_time_and_leaves_its_expectation():
    log_times = {}
    for noise in (0.25, 1.0):
        truth, known = charted(4000, seed=3, survival_noise=noise)
        endless = known | {"follow_up": {"accrual_days": 1.0, "study_days": 1e12, "dropout_days": 1e15}}
        alike = pd.Series(np.full(20000, truth["linear_predictor"][0]))
        log_times[noise] = np.log(followed(np.random.default_rng(0), alike, endless)["time_days"])
    assert log_times[0.25].std() / log_times[1.0].std() == pytest.approx(0.25, rel=0.05)
    assert log_times[0.25].mean() == pytest.approx(log_times[1.0].mean(), abs=0.03)


def test_the_linear_predictor_is_the_sum_of_coefficients_times_terms_and_of_its_parts(truth, made):
    known = json.loads((made / "truth.json").read_text())
    assert set(known) == {"coefficients", "weibull_shape", "weibull_scale_days", "choices", "follow_up"}
    summed = sum(value * truth[f"term_{name}"] for name, value in known["coefficients"].items())
    np.testing.assert_allclose(truth["linear_predictor"], summed)
    np.testing.assert_allclose(truth["linear_predictor"], truth[[*chest.HAZARD.parts, "site"]].sum(axis=1), atol=1e-12)
    np.testing.assert_allclose(truth["linear_predictor_baseline"], truth["linear_predictor"] - truth["growth"])
    survival = np.exp(-((truth["true_median_days"] / truth["weibull_scale_days"]) ** truth["weibull_shape"])
                      * np.exp(truth["linear_predictor"]))  # fmt: skip
    np.testing.assert_allclose(survival, 0.5)


@pytest.mark.parametrize("part", ["clinical", "volume", "growth", "texture"])
def test_a_part_without_strength_is_taken_out_and_the_others_stay(part):
    strength = chest.DEFAULTS["strength"]
    with_it, _ = charted(50, seed=4)
    without, _ = charted(50, seed=4, strength={**strength, part: 0.0})
    assert (without[part] == 0).all() and with_it[part].std() > 0.1
    rest = [name for name in strength if name != part]
    pd.testing.assert_frame_equal(without[rest], with_it[rest])


def test_the_simulated_cohort_is_in_the_range_of_real_ones_and_growth_adds_what_baseline_lacks():
    truth, known = charted(6000, seed=5)
    outcome = followed(np.random.default_rng(5), truth["linear_predictor"], known)
    days, event = outcome["time_days"], outcome["event"]
    score = {name: concordance_index(days, -truth[name], event) for name in
             ("linear_predictor", "linear_predictor_baseline", "clinical", "volume", "texture")}  # fmt: skip
    assert 0.25 < 1 - event.mean() < 0.40
    assert 10 * 30.4 < KaplanMeierFitter().fit(days, event).median_survival_time_ < 16 * 30.4
    assert 0.76 < score["linear_predictor"] < 0.84
    assert score["linear_predictor"] - score["linear_predictor_baseline"] > 0.06
    assert all(0.55 < score[name] < 0.66 for name in ("clinical", "volume", "texture"))


def test_growth_cannot_be_told_from_the_baseline():
    truth, _ = charted(20000, seed=6)
    others = truth[["clinical", "volume", "texture", "linear_predictor_baseline"]]
    assert others.corrwith(truth["growth"], method="spearman").abs().max() < 0.03


def test_most_lesions_grow_at_published_rates_and_a_third_shrink():
    rate = chest.growth(np.random.default_rng(7), 20000)
    assert np.mean(rate < 0) == pytest.approx(0.35, abs=0.02)
    assert 98 < 30 * np.log(2) / np.median(rate[rate > 0]) < 207  # days; the medians of two series


def test_same_seed_same_bytes_whatever_the_number_of_processes(tmp_path):
    few = {**SMALL, "patients": 4}
    for jobs in (1, 2):
        chest.generate(tmp_path / f"{jobs}/bids", tmp_path / f"{jobs}/truth.parquet", **few, n_jobs=jobs)
    assert digests(tmp_path / "1") == digests(tmp_path / "2")
    assert len(digests(tmp_path / "1")) > 4 * 3


def test_another_seed_makes_other_patients(made, tmp_path):
    chest.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, "patients": 2, "seed": 1}, n_jobs=1)
    scan = "sub-001/ses-1/anat/sub-001_ses-1_ct.nii.gz"
    assert (tmp_path / "bids" / scan).read_bytes() != (made / "bids" / scan).read_bytes()


def test_the_folder_is_read_back_without_findings(made, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DERIVED", tmp_path)
    cohort = adapters.load("chest", load().model_copy(update={"cohort": {"chest": SMALL}}))
    assert cohort.check() == []
    assert cohort.dictionary == chest.DICTIONARY and cohort.labels == chest.LABELS
    assert cohort.modalities == ["ct"] and len(cohort.participants) == SMALL["patients"]
    assert digests(tmp_path / "chest/source/bids") == digests(made / "bids")


def test_visits_are_before_the_end_of_follow_up_and_six_weeks_apart_or_more(images, participants, truth):
    days = images.groupby("patient_id")["day"]
    assert (days.min() == 0).all() and days.size().between(1, 4).all()
    assert days.size().nunique() > 1
    assert (days.max() < participants["time_days"].reindex(days.max().index)).all()
    gaps = images.sort_values(["patient_id", "day"]).groupby("patient_id")["day"].diff().dropna()
    assert gaps.min() >= 42
    pd.testing.assert_series_equal(days.size(), truth["visits"], check_names=False, check_index_type=False)


def test_some_visits_are_missed_and_longer_lives_have_more():
    rng = np.random.default_rng(8)
    long_lived = [len(chest.visit_days(rng, 1e4)) for _ in range(2000)]
    brief = [len(chest.visit_days(rng, 100)) for _ in range(2000)]
    assert np.mean(np.array(long_lived) == 4) == pytest.approx((1 - chest.MISSED) ** 3, abs=0.04)
    assert np.mean(brief) < np.mean(long_lived) - 1
    assert all(len(chest.visit_days(rng, 1)) == 1 for _ in range(20))


def test_the_masks_as_written_measure_the_planted_volume_and_growth(images, truth):
    images = images.assign(ml=images["mask_path"].map(volume_ml))
    baseline = images[images["day"] == 0].set_index("patient_id")["ml"]
    np.testing.assert_allclose(baseline.reindex(truth.index), truth["volume_ml"])
    np.testing.assert_allclose(truth["volume_ml"], truth["planted_ml"], rtol=0.05)
    followed_up = {patient: visits for patient, visits in images.groupby("patient_id") if len(visits) > 1}
    slopes = pd.Series({patient: 30 * np.polyfit(visits["day"], np.log(visits["ml"]), 1)[0]
                        for patient, visits in followed_up.items()})  # fmt: skip
    assert len(slopes) > 8
    np.testing.assert_allclose(slopes, truth.loc[slopes.index, "growth_measured"])
    assert (slopes - truth.loc[slopes.index, "growth_per_30_days"]).abs().max() < 0.08
    assert truth["growth_measured"].isna().equals(truth["visits"] == 1)


def test_tissues_have_the_hounsfield_units_of_a_chest(body):
    hu, core = body.hu, binary_erosion
    assert np.median(hu[core(body.lungs > 0.95)]) == pytest.approx(-860, abs=30)
    assert 30 < np.median(hu[core((body.blood > 0.95) & (body.lungs < 0.05))]) < 60
    outside = hu[[0, -1], :5].ravel()
    assert (outside == -1000).all()
    solid = hu[(hu > -300) & (body.lungs < 0.01) & (body.blood < 0.01)]
    count, edge = np.histogram(solid, bins=np.arange(-300, 900, 10))
    fat, muscle = edge[:-1][count[:40].argmax()], edge[30:-1][count[30:50].argmax()]
    assert -115 <= fat <= -85 and 40 <= muscle <= 60
    assert 0.02 < np.mean(solid > 200) < 0.35
    assert 1.5 < body.lungs.sum() * 4.0**3 / 1e6 < 6  # litres


def test_images_are_int16_and_the_lesion_is_soft_tissue_inside_lung(images):
    for row in images.itertuples():
        image, mask = nib.load(row.path), np.asarray(nib.load(row.mask_path).dataobj) > 0
        values = np.asarray(image.dataobj)
        assert image.get_data_dtype() == np.int16 and values.min() >= -1024 and values.max() < 3072
        assert -500 < np.median(values[mask]) < 120  # a small one is blurred over a 5 mm voxel
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")


def test_two_scanners_differ_in_slices_and_noise(body):
    rng = np.random.default_rng(9)
    tumour = thorax.lesion(rng, body, thorax.lesion_place(rng, body, 20, 4.0), 20, 0.2, 4.0)
    sharp, thin = thorax.scan(rng, body, tumour, 30, 10, SHARP, 4.0)
    smooth, thick = thorax.scan(rng, body, tumour, 30, 10, SMOOTH, 4.0)
    assert sharp.shape[2] == 2 * smooth.shape[2] and sharp.shape[:2] == smooth.shape[:2]
    assert thin.sum() * 4.0**3 == pytest.approx(30_000, rel=0.01)
    assert thick.sum() * 2 * 4.0**3 == pytest.approx(30_000, rel=0.01)

    def grain(image):
        values = image.astype(float)
        mean = uniform_filter(values, (3, 3, 1))
        inside_lung = (mean > -900) & (mean < -820)
        spread = np.sqrt((uniform_filter(values**2, (3, 3, 1)) - mean**2).clip(0))
        return np.percentile(spread[inside_lung], 25)

    assert grain(sharp) > 1.2 * grain(smooth)


def test_a_site_keeps_its_scanner_and_sites_take_turns(images, participants):
    thickness = images["path"].map(lambda path: float(nib.load(path).header.get_zooms()[2]))
    by_site = thickness.groupby(images["patient_id"].map(participants["site"])).unique()
    assert by_site["site-1"].tolist() == [5.0] and by_site["site-2"].tolist() == [10.0]


@pytest.mark.parametrize("sites", [1, 2, 5])
def test_every_site_has_patients_and_a_hazard_between_sites_is_as_large_as_asked(sites):
    truth, known = charted(2 * sites, seed=13, sites=sites, site_hazard=1.5)
    assert chest.charts(np.random.default_rng(13), 2 * sites, sites)["site"].value_counts().tolist() == [2] * sites
    assert ("site" in known["coefficients"]) == ("term_site" in truth) == (sites > 1)
    assert np.ptp(truth["site"]) == pytest.approx(1.5 if sites > 1 else 0)


def test_spikes_raise_the_surface_of_a_lesion_of_equal_volume(body):
    def surface(spiculation):
        rng = np.random.default_rng(10)
        place = thorax.lesion_place(rng, body, 22, 4.0)
        tumour = thorax.lesion(rng, body, place, 22, spiculation, 4.0)
        mask = thorax.scan(rng, body, tumour, 45, 10, SHARP, 4.0)[1] > 0
        return mask.sum(), (mask & ~binary_erosion(mask)).sum()

    (smooth_voxels, smooth), (spiky_voxels, spiky) = surface(0.0), surface(1.0)
    assert smooth_voxels == spiky_voxels and spiky > 1.15 * smooth


def test_the_planted_unevenness_shows_in_the_lesion_despite_the_scanner(body):
    planted, seen = np.linspace(5, 45, 9), []
    for heterogeneity in planted:
        rng = np.random.default_rng(11)
        tumour = thorax.lesion(rng, body, thorax.lesion_place(rng, body, 22, 4.0), 22, 0.2, 4.0)
        image, mask = thorax.scan(rng, body, tumour, 45, heterogeneity, SHARP, 4.0)
        seen.append(image[binary_erosion(mask > 0)].std())
    assert np.corrcoef(planted, seen)[0, 1] > 0.9


def test_a_growing_lesion_keeps_the_voxels_it_had(body):
    rng = np.random.default_rng(12)
    tumour = thorax.lesion(rng, body, thorax.lesion_place(rng, body, 20, 4.0), 20, 0.8, 4.0)
    smaller, larger = (
        thorax.scan(np.random.default_rng(1), body, tumour, ml, 10, SHARP, 4.0)[1] > 0 for ml in (20, 90)
    )
    assert larger[smaller].all() and larger.sum() > 4 * smaller.sum()


def test_only_some_of_the_chart_is_missing_and_nothing_of_the_truth(participants, truth):
    chart = chest.charts(np.random.default_rng(0), 3000, 2)
    gaps = chest.with_missing(np.random.default_rng(0), chart).isna().mean()
    for name, share in chest.MISSING.items():
        assert gaps[name] == pytest.approx(share, abs=0.02)
    assert gaps.drop(list(chest.MISSING)).sum() == 0
    assert truth.drop(columns="growth_measured").notna().all(axis=None)


def test_sicker_and_later_stage_patients_are_frailer_and_have_larger_lesions():
    chart = chest.charts(np.random.default_rng(0), 5000, 2)
    stage = chart["stage"].map(chest.STAGES.index)
    assert stage.corr(chart["ecog"].astype(int), method="spearman") > 0.1
    assert stage.corr(chart["planted_ml"], method="spearman") > 0.1
    assert chart["age"].corr(chart["ecog"].astype(int), method="spearman") > 0.1
    never = chart["pack_years"] == 0
    assert (chart.loc[never, "histology"] == "adenocarcinoma").mean() > 0.6


def test_nothing_a_model_reads_tells_the_truth(made):
    shown = pd.read_csv(made / "bids/participants.tsv", sep="\t").columns
    assert set(shown) == {"participant_id", "site", "time_days", "event", *chest.DICTIONARY}
    sessions = list((made / "bids").rglob("*_sessions.tsv"))
    assert len(sessions) == SMALL["patients"]
    assert all(path.read_text().startswith("session_id\tday\n") for path in sessions)


@pytest.mark.parametrize(
    "choice",
    [
        {"patients": 0},
        {"patients": 2.5},
        {"sites": 21},
        {"sites": 0},
        {"spacing_mm": 0.5},
        {"spacing_mm": 9},
        {"spacing_mm": "fine"},
        {"seed": -1},
        {"survival_noise": 0},
        {"survival_noise": float("nan")},
        {"strength": {"growth": -1.0}},
        {"strength": {"size": 1.0}},
        {"strength": {"growth": "much"}},
        {"site_hazard": 9},
    ],
    ids=str,
)
def test_a_choice_that_makes_no_cohort_is_refused_in_one_sentence(choice, tmp_path):
    with pytest.raises(BadInput, match=r"params\.yaml"):
        chest.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, **choice}, n_jobs=1)
    assert not list(tmp_path.iterdir())


def test_a_killed_generation_leaves_nothing(tmp_path, monkeypatch):
    def killed(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(bids, "write_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        chest.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, "patients": 2}, n_jobs=1)
    assert not list(tmp_path.iterdir())
