"""The brain phantom is what it says: its masks measure the truth, its brains are brains, its bytes repeat."""

import json
from hashlib import sha256

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lifelines import CoxPHFitter, KaplanMeierFitter
from lifelines.utils import concordance_index
from scipy.ndimage import binary_dilation, label
from scipy.stats import spearmanr

from survpack import adapters, paths
from survpack.adapters import bids
from survpack.clinical import graded_prognostic_assessment
from survpack.errors import BadInput
from survpack.params import load
from survpack.phantom import anatomy, mets
from survpack.phantom.shared import followed

SMALL = {"patients": 6, "sites": 2, "spacing_mm": 5.0, "seed": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small phantom: its BIDS folder and its truth."""
    place = tmp_path_factory.mktemp("phantom")
    mets.generate(place / "bids", place / "truth.parquet", **SMALL, n_jobs=1)
    return place


@pytest.fixture(scope="module")
def brains():
    """Brains with lesions at 4 mm: (brain, mask, count)."""
    made = []
    for seed in range(8):
        rng, count = np.random.default_rng(seed), 1 + seed
        brain = anatomy.brain(rng, 4.0)
        made.append((brain, mets.lesions(rng, brain, count), count))
    return made


def patients(number: int, seed: int) -> tuple[pd.DataFrame, np.random.Generator]:
    """Charts and biomarkers of patients without images."""
    rng = np.random.default_rng(seed)
    return mets.charts(rng, number, sites=3).assign(
        enhancing_ml=rng.lognormal(np.log(3), 0.8, number),
        oedema_ratio=rng.lognormal(np.log(1.9), 0.75, number),
        rim_variation=rng.uniform(0.08, 0.41, number),
    ), rng


def digests(folder) -> dict:
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest() for path in files}


def volume(folder, patient, modality) -> np.ndarray:
    return np.asarray(nib.load(bids.image_path(folder, patient, modality)).dataobj)


def test_cox_regression_recovers_every_planted_coefficient():
    table, rng = patients(900, seed=1)
    truth, facts = mets.hazard(table, site_hazard=0.8, strength={"rim": 0.5})
    columns = truth.filter(like="term_").rename(columns=lambda name: name.removeprefix("term_"))
    fit = CoxPHFitter().fit(columns.join(followed(rng, truth["linear_predictor"], facts)), "time_days", "event")
    z = (fit.params_ - pd.Series(facts["coefficients"])[list(columns)]) / fit.standard_errors_
    assert z.abs().max() < 3.2 and fit.standard_errors_.max() < 0.2
    assert facts["coefficients"]["site"] == 0.8
    assert facts["coefficients"]["rim"] == pytest.approx(0.5 * mets.COEFFICIENTS["rim"])


def test_the_parts_add_up_to_the_linear_predictor_and_the_terms_to_the_parts():
    truth, facts = mets.hazard(patients(50, seed=2)[0], site_hazard=0.5, survival_noise=2.0)
    np.testing.assert_allclose(truth[[*mets.PARTS, "site"]].sum(axis=1), truth["linear_predictor"])
    each = truth.filter(like="term_") * pd.Series(facts["coefficients"]).add_prefix("term_")
    np.testing.assert_allclose(each.sum(axis=1), truth["linear_predictor"])
    survival = np.exp(-((truth["true_median_days"] / truth["weibull_scale_days"]) ** truth["weibull_shape"])
                      * np.exp(truth["linear_predictor"]))  # fmt: skip
    np.testing.assert_allclose(survival, 0.5)


@pytest.mark.parametrize("survival_noise", [0.25, 2.0])
def test_survival_noise_scales_the_spread_of_log_time_and_leaves_its_mean(survival_noise):
    table, _ = patients(1, seed=3)
    alike = pd.concat([table] * 20000, ignore_index=True)
    logs = {}
    for noise in (1.0, survival_noise):
        truth, facts = mets.hazard(alike, survival_noise=noise)
        days = mets.Weibull(facts["weibull_shape"], facts["weibull_scale_days"])
        logs[noise] = np.log(days.draw_days(np.random.default_rng(0), truth["linear_predictor"]))
    assert logs[survival_noise].mean() == pytest.approx(logs[1.0].mean(), abs=0.03)
    assert logs[survival_noise].std() == pytest.approx(survival_noise * logs[1.0].std(), rel=0.02)


def test_sites_differ_by_the_hazard_asked_for_and_not_else():
    table, _ = patients(60, seed=4)
    truth, _ = mets.hazard(table, site_hazard=1.2)
    by_site = truth["site"].groupby(table["site"]).unique().explode().astype(float)
    np.testing.assert_allclose(by_site.loc[["site-1", "site-2", "site-3"]], [-0.6, 0, 0.6])
    assert mets.hazard(table)[0]["site"].eq(0).all()


def test_the_simulated_cohort_is_in_the_range_of_real_ones():
    table, rng = patients(4000, seed=5)
    truth, facts = mets.hazard(table)
    outcome = followed(rng, truth["linear_predictor"], facts)
    days, event = outcome["time_days"], outcome["event"]
    assert 0.18 < 1 - event.mean() < 0.30
    assert 9 < KaplanMeierFitter().fit(days, event).median_survival_time_ / 30.44 < 14
    assert 0.78 < concordance_index(days, -truth["linear_predictor"], event) < 0.84
    assert 0.58 < concordance_index(days, graded_prognostic_assessment(table), event) < 0.64


def test_charts_go_together_as_in_patients():
    chart = mets.charts(np.random.default_rng(0), 6000, 3)
    assert chart.notna().all(axis=None)
    groups = pd.cut(chart["lesion_count"], [0, 1, 4, 10]).value_counts(normalize=True, sort=False)
    np.testing.assert_allclose(groups, [0.41, 0.41, 0.18], atol=0.04)  # see COUNTS for the series
    assert (chart.loc[chart["primary"] == "breast", "sex"] == "female").mean() > 0.97
    assert chart["karnofsky"].corr(chart["age"]) < -0.1 and set(chart["karnofsky"] % 10) == {0}
    fit = chart.groupby("treatment")["karnofsky"].mean()
    assert fit["whole_brain"] < fit["radiosurgery"]
    many = chart.groupby("treatment")["lesion_count"].mean()
    assert many["whole_brain"] > many["radiosurgery"] > many["surgery_and_radiosurgery"]


def test_a_few_percent_are_missing_from_the_chart_more_in_the_first_site():
    rng = np.random.default_rng(0)
    chart = mets.charts(rng, 6000, 3)
    seen = mets.with_missing(rng, chart)
    missing = seen.isna().mean()
    assert 0.03 < missing["karnofsky"] < 0.07 and 0.02 < missing["extracranial_disease"] < 0.05
    assert missing.drop(["karnofsky", "extracranial_disease"]).sum() == 0
    by_site = seen["karnofsky"].isna().groupby(seen["site"]).mean()
    assert by_site["site-1"] > 1.3 * by_site["site-3"]


@pytest.mark.parametrize("sites", [1, 3, 7])
def test_every_site_has_patients(sites):
    assert mets.charts(np.random.default_rng(0), 2 * sites, sites)["site"].nunique() == sites


def test_heads_have_the_volume_of_heads_and_no_two_are_alike(brains):
    litres = [brain.inside.sum() * 4.0**3 / 1e6 for brain, *_ in brains]
    assert 1.2 < min(litres) < max(litres) < 2.0 and np.std(litres) > 0.03
    for brain, *_ in brains:
        total = brain.csf + brain.grey + brain.white
        np.testing.assert_allclose(total[brain.inside], 1, atol=1e-5)
        edges = [np.take(brain.inside, [0, -1], axis=axis).any() for axis in range(3)]
        assert not any(edges)  # the whole head is in the field of view


def test_every_lesion_is_in_the_brain_at_the_junction_and_has_an_enhancing_voxel(brains):
    white = []
    for brain, mask, count in brains:
        assert brain.inside[mask > 0].all()
        tumours, found = label(np.isin(mask, [mets.NECROSIS, mets.ENHANCING]), np.ones((3, 3, 3)))
        assert 1 <= found <= count
        for k in range(1, found + 1):
            assert (mask[tumours == k] == mets.ENHANCING).any()
            white.append(brain.white[tumours == k].mean())
    assert 0.2 < np.mean(white) < 0.8


def test_oedema_touches_tumour_or_oedema_prefers_white_matter_and_avoids_fluid(brains):
    white, grey, csf = 0.0, 0.0, 0.0
    for brain, mask, _ in brains:
        oedema = mask == mets.OEDEMA
        pieces, found = label(oedema, np.ones((3, 3, 3)))
        near = binary_dilation(np.isin(mask, [mets.NECROSIS, mets.ENHANCING]), np.ones((3, 3, 3)))
        assert all(near[pieces == k].any() for k in range(1, found + 1))
        shell = binary_dilation(mask > 0, iterations=4) & (mask != mets.ENHANCING) & (mask != mets.NECROSIS)
        shell &= brain.inside
        white += (brain.white[oedema].sum() / oedema.sum()) / brain.white[shell].mean() if oedema.any() else 1
        grey += (brain.grey[oedema].sum() / oedema.sum()) / brain.grey[shell].mean() if oedema.any() else 1
        csf = max(csf, float(brain.csf[oedema].max(initial=0)))
    assert white > 1.2 * grey and csf < 0.36


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(1, 10), spacing=st.sampled_from([4.0, 6.0, 8.0]))
def test_tumour_never_vanishes(seed, count, spacing):
    rng = np.random.default_rng(seed)
    mask = mets.lesions(rng, anatomy.brain(rng, spacing), count)
    assert count <= (mask == mets.ENHANCING).sum() and set(np.unique(mask)) <= {0, 1, 2, 3}


def test_enhancement_varies_as_asked_whatever_the_volume():
    rng = np.random.default_rng(0)
    for side in (4, 8, 20):
        mask = np.zeros((30, 30, 30), dtype=np.uint8)
        mask[:side, :side, :side] = mets.ENHANCING
        measured = mets.measure(mask, mets.enhancement(rng, mask, 0.3, 2.0), 2.0)
        assert measured["rim_variation"] == pytest.approx(0.3, abs=0.02)
        assert measured["enhancing_ml"] == pytest.approx(side**3 * 0.008) and measured["oedema_ratio"] == 0


def test_the_rim_part_is_seen_in_the_enhanced_image_through_any_scanner():
    looks = list(mets.scanners(np.random.default_rng(0), 3).values())
    rows = []
    for seed in range(24):
        rng = np.random.default_rng([9, seed])
        brain, planted = anatomy.brain(rng, 3.0), rng.uniform(0.08, 0.42)
        mask = mets.lesions(rng, brain, 1 + seed % 4)
        rim = mets.enhancement(rng, mask, planted, 3.0)
        scans = mets.images(rng, brain, mask, rim, looks[seed % 3])
        seen = scans["t1c"][mask == mets.ENHANCING]
        rows.append({**mets.measure(mask, rim, 3.0), "t1c": seen.std() / seen.mean()})
    table = pd.DataFrame(rows)
    assert spearmanr(table["t1c"], table["rim_variation"])[0] > 0.6


def test_the_rim_changes_the_enhanced_image_and_no_other(brains):
    brain, mask, _ = brains[0]
    look = mets.scanners(np.random.default_rng(0), 1)["site-1"]
    even, uneven = (
        mets.images(
            np.random.default_rng(1), brain, mask, mets.enhancement(np.random.default_rng(2), mask, v, 4.0), look
        )
        for v in (0.0, 0.4)
    )
    assert [name for name in mets.SEQUENCES if (even[name] != uneven[name]).any()] == ["t1c"]


def test_each_sequence_ranks_the_tissues_as_it_does_in_patients(brains):
    brain, mask, _ = brains[3]
    plain = {name: np.full(4, value) for name, value in
             {"gain": 1.0, "contrast": 1.0, "noise": 0.01, "blur": 0.3, "slice": 0.3}.items()}  # fmt: skip
    scans = mets.images(np.random.default_rng(0), brain, mask, np.ones(mask.shape, np.float32), plain)
    healthy = mask == 0
    where = {"csf": healthy & (brain.csf > 0.9), "grey": healthy & (brain.grey > 0.9),
             "white": healthy & (brain.white > 0.9), "oedema": mask == mets.OEDEMA,
             "enhancing": mask == mets.ENHANCING}  # fmt: skip
    order = {"t1n": ["white", "grey", "csf"], "t1c": ["enhancing", "white", "grey", "csf"],
             "t2w": ["csf", "oedema", "grey", "white"], "t2f": ["oedema", "grey", "white", "csf"]}  # fmt: skip
    for sequence, tissues in order.items():
        levels = [np.median(scans[sequence][where[tissue]]) for tissue in tissues]
        assert levels == sorted(levels, reverse=True), (sequence, levels)


def test_same_seed_same_bytes_whatever_the_number_of_processes(made, tmp_path):
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **SMALL, n_jobs=2)
    assert digests(tmp_path) == digests(made)


def test_another_seed_makes_other_patients(made, tmp_path):
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, "seed": 4, "patients": 2}, n_jobs=1)
    ours, theirs = digests(tmp_path / "bids"), digests(made / "bids")
    same = {name for name in ours if ours[name] == theirs.get(name)}
    assert same <= {"participants.json", "dseg.tsv"}


def test_the_hazard_changes_no_image(made, tmp_path):
    changed = {"strength": {"rim": 0.0}, "survival_noise": 0.5, "site_hazard": 1.0}
    mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **SMALL, **changed, n_jobs=1)
    ours, theirs = digests(tmp_path / "bids"), digests(made / "bids")
    differ = {name for name in ours if ours[name] != theirs[name]}
    assert differ == {"participants.tsv", "dataset_description.json"}


def test_the_truth_uses_the_biomarkers_of_the_mask_that_was_written(made):
    truth = pd.read_parquet(made / "truth.parquet").set_index("patient_id")
    facts = json.loads((made / "truth.json").read_text())
    assert facts["choices"] == {**mets.DEFAULTS, **SMALL}
    for patient, row in truth.iterrows():
        count = np.bincount(volume(made / "bids", patient, "mask").ravel(), minlength=4)
        assert row["enhancing_ml"] == pytest.approx(count[3] * 0.125)
        assert row["oedema_ratio"] == pytest.approx(count[2] / (count[1] + count[3]))
        assert row["volume"] == pytest.approx(facts["coefficients"]["volume"] * np.log(count[3] * 0.125 / 4))


def test_images_are_skull_stripped_int16_with_every_lesion_inside(made):
    for mask_path in (made / "bids").rglob("*_dseg.nii.gz"):
        patient = mask_path.parts[-3]
        mask = volume(made / "bids", patient, "mask")
        for name in mets.SEQUENCES:
            image = volume(made / "bids", patient, name)
            assert image.dtype == np.int16
            assert (image[mask > 0] > 0).all() and 0.15 < (image > 0).mean() < 0.45


def test_the_folder_is_read_back_equal_and_has_no_findings(made, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "DERIVED", tmp_path)
    params = load().model_copy(update={"cohort": {"mets": {**SMALL, "selection": {}}}})
    cohort = adapters.load("mets", params)
    assert [str(finding) for finding in cohort.check() if finding.severity == "error"] == []
    assert cohort.dictionary == mets.DICTIONARY and cohort.labels == mets.LABELS
    assert cohort.modalities == sorted(mets.SEQUENCES) and len(cohort.images) == 4 * SMALL["patients"]
    written = pd.read_csv(made / "bids/participants.tsv", sep="\t", na_values="n/a")
    written = written.rename(columns={"participant_id": "patient_id"}).astype({"event": bool})
    pd.testing.assert_frame_equal(cohort.participants, written, check_dtype=False)


def test_nothing_in_the_chart_tells_the_truth(made):
    files = [path for path in (made / "bids").rglob("*") if path.suffix in {".tsv", ".json"}]
    truth = pd.read_parquet(made / "truth.parquet")
    text = "".join(path.read_text() for path in files)
    values = truth[["linear_predictor", "true_median_days", "rim_variation", "oedema_ratio"]].to_numpy().ravel()
    assert not [value for value in values if value and f"{value:.6f}"[:7] in text]
    chart = pd.read_csv(made / "bids/participants.tsv", sep="\t", na_values="n/a")
    assert set(chart) == {"participant_id", "site", "time_days", "event", *mets.DICTIONARY}


def test_a_killed_generation_leaves_nothing(tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(mets, "hazard", killed)
    with pytest.raises(KeyboardInterrupt):
        mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, "patients": 2}, n_jobs=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [{"patients": 0}, {"sites": 7}, {"spacing_mm": 0.1}, {"seed": -1}, {"patients": "x"}, {"survival_noise": 0},
     {"strength": {"rims": 1}}, {"strength": {"rim": "much"}}, {"site_hazard": np.nan}],
)  # fmt: skip
def test_an_impossible_phantom_is_refused(tmp_path, wrong):
    with pytest.raises(BadInput, match=r"params\.yaml: cohort\.mets\.\S+ is .*(expected|take it out)"):
        mets.generate(tmp_path / "bids", tmp_path / "truth.parquet", **{**SMALL, **wrong})
