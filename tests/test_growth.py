"""Growth against closed forms, RECIST at its thresholds, and a landmark that never looks ahead."""

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from survpack.cohort import IMAGES, Cohort
from survpack.errors import BadInput
from survpack.growth import FEATURES, RESPONSES, SIZE, changes, diameter_sum, landmark, recist, slope, visits
from survpack.lesions import measure
from survpack.phantom import chest


def seen(days, volumes, diameters=None, patient="P1") -> pd.DataFrame:
    """Visits of one patient; a sphere's diameters unless told otherwise."""
    volumes = np.asarray(volumes, dtype=float)
    return pd.DataFrame({
        "patient_id": patient,
        "session": [f"ses-{k + 1}" for k in range(len(days))],
        "day": days,
        "tumour_ml": volumes,
        "diameter_sum_mm": np.cbrt(6000 * volumes / np.pi) if diameters is None else diameters,
    })  # fmt: skip


@st.composite
def followed(draw):
    """Several patients with visits in disorder: days that tie or are unknown, tumours that vanish."""
    parts = []
    for patient in range(draw(st.integers(1, 3))):
        count = draw(st.integers(1, 6))
        days = draw(st.lists(st.sampled_from([0, 0, 30, 61, 90, 150, 200, np.nan]), min_size=count, max_size=count))
        volumes = draw(st.lists(st.sampled_from([0, 0.5, 8, 20, 33, np.nan]), min_size=count, max_size=count))
        parts.append(seen(days, volumes, patient=f"P{patient}"))
    return pd.concat(parts, ignore_index=True)


# --- growth


def test_a_sphere_that_doubles_every_60_days_is_told_so_at_every_visit():
    days = np.array([0, 45, 100, 220])
    found = changes(seen(days, 5 * 2.0 ** (days / 60)))
    assert found["doubling_days"].iloc[1:].to_numpy() == pytest.approx([60] * 3)
    monthly = 100 * (2**0.5 - 1)
    assert found["growth_pct"].iloc[1:].to_numpy() == pytest.approx([monthly] * 3)
    assert found["last_growth_pct"].iloc[1:].to_numpy() == pytest.approx([monthly] * 3)
    assert found["growth_log"].iloc[-1] == pytest.approx(np.log(2) / 2)
    assert found["change_pct"].iloc[1:].to_numpy() == pytest.approx(100 * (2.0 ** (days[1:] / 60) - 1))
    across = 100 * (2.0 ** (days[1:] / 180) - 1)
    assert found["diameter_change_pct"].iloc[1:].to_numpy() == pytest.approx(across)
    assert found["note"].tolist() == ["first visit", "", "", ""]
    assert found[list(FEATURES)[1:]].iloc[0].isna().all()


def test_a_sphere_that_halves_every_40_days_shrinks_and_has_no_doubling_time():
    days = np.array([0, 40, 80])
    found = changes(seen(days, 8 * 0.5 ** (days / 40)))
    assert found["growth_log"].iloc[2] == pytest.approx(-0.75 * np.log(2))
    assert found["doubling_days"].isna().all()
    assert found["note"].iloc[2] == "not growing, no doubling time"
    assert found["change_pct"].iloc[2] == pytest.approx(-75)


def test_linear_growth_in_ml_is_the_rate_it_was_made_with():
    found = changes(seen([0, 20, 70], [10.0, 14.0, 24.0]))  # 0.2 mL a day
    assert found["growth_ml"].iloc[1:].to_numpy() == pytest.approx([6, 6])
    assert found["last_growth_ml"].iloc[1:].to_numpy() == pytest.approx([6, 6])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 400), st.floats(0.1, 200)), min_size=2, max_size=6, unique_by=lambda v: v[0]))
def test_growth_over_all_visits_is_numpys_straight_line_and_the_phantoms_own(points):
    days, volumes = np.array(sorted(points)).T
    found = changes(seen(days, volumes))
    for k in range(1, len(days)):
        until = slice(0, k + 1)
        expected = 30 * np.polyfit(days[until], np.log(volumes[until]), 1)[0]
        assert found["growth_log"].iloc[k] == pytest.approx(expected, abs=1e-6)
        assert found["growth_ml"].iloc[k] == pytest.approx(30 * np.polyfit(days[until], volumes[until], 1)[0], abs=1e-5)
    assert found["growth_log"].iloc[-1] == pytest.approx(chest.measured_growth(days, volumes), abs=1e-9)


def test_the_nadir_is_the_least_before_the_visit_and_never_the_visit_itself():
    found = changes(seen([0, 30, 60, 90], [10.0, 4.0, 8.0, 2.0], [20.0, 10.0, 16.0, 8.0]))
    assert found["change_nadir_pct"].iloc[1:].to_numpy() == pytest.approx([-60, 100, -50])
    assert found["diameter_change_nadir_mm"].iloc[1:].to_numpy() == pytest.approx([-10, 6, -2])
    assert found["diameter_change_nadir_pct"].iloc[1:].to_numpy() == pytest.approx([-50, 60, -20])
    assert found["response"].tolist()[1:] == ["PR", "PD", "PR"]
    assert found["best_response"].tolist()[1:] == ["PR"] * 3


def test_a_tumour_that_vanishes_is_a_complete_response_and_its_return_is_progression():
    found = changes(seen([0, 30, 60, 90, 120], [10.0, 0.0, 0.0, 1.0, 2.0], [27.0, 0.0, 0.0, 12.0, 16.0]))
    assert found["response"].tolist() == [None, "CR", "CR", "PD", "PD"]
    assert found["best_response"].tolist()[1:] == ["CR"] * 4
    assert found["change_pct"].iloc[1] == -100 and found["note"].iloc[1] == "no tumour left"
    assert found["growth_log"].iloc[:4].isna().all()
    assert found["growth_log"].iloc[4] == pytest.approx(np.log(2))  # since it was back
    assert found["change_nadir_pct"].iloc[3:].isna().all()
    assert found["growth_ml"].notna().iloc[1:].all()


def test_nothing_at_the_first_visit_gives_no_relative_change_and_no_response():
    found = changes(seen([0, 30, 60], [0.0, 1.0, 2.0]))
    assert found[["change_pct", "diameter_change_pct", "response"]].isna().all(axis=None)
    assert found["note"].iloc[2] == "no tumour at the first visit"
    assert found["doubling_days"].iloc[2] == pytest.approx(30)


def test_two_visits_on_one_day_have_no_rate_between_them_and_later_ones_do():
    found = changes(seen([0, 0, 30], [10.0, 12.0, 11.0]))
    assert found[["growth_ml", "growth_log", "last_growth_ml", "last_growth_pct"]].iloc[1].isna().all()
    assert found["note"].iloc[1] == "on the day of the visit before"
    assert found["change_pct"].iloc[1] == pytest.approx(20)
    assert found["growth_ml"].iloc[2] == pytest.approx(0, abs=1e-9)


def test_a_visit_of_unknown_day_or_volume_is_kept_last_and_changes_nothing():
    known = changes(seen([0, 30, 60], [10.0, 12.0, 15.0]))
    table = seen([np.nan, 0, 30, 45, 60], [99.0, 10.0, 12.0, np.nan, 15.0])
    found = changes(table)
    assert found["note"].tolist() == ["first visit", "", "volume not measured", "", "day unknown"]
    assert found.iloc[[2, 4]][list(FEATURES)].isna().all(axis=None)
    pd.testing.assert_frame_equal(found.iloc[[0, 1, 3]][list(FEATURES)].reset_index(drop=True), known[list(FEATURES)])


def test_one_visit_has_sizes_and_no_change():
    found = changes(seen([0], [10.0]))
    assert found["tumour_ml"].tolist() == [10] and found[list(FEATURES)[1:]].isna().all(axis=None)


def test_a_thousandfold_in_a_minute_is_no_infinite_number():
    found = changes(seen([0, 0.001], [0.001, 400.0]))
    assert not np.isinf(found.select_dtypes("number")).any(axis=None)


@settings(deadline=None, max_examples=25)
@given(table=followed(), seed=st.integers(0, 99))
def test_the_order_of_the_rows_changes_nothing_no_visit_is_lost_and_no_number_is_infinite(table, seed):
    found = changes(table)
    pd.testing.assert_frame_equal(changes(table.sample(frac=1, random_state=seed)), found)
    pd.testing.assert_frame_equal(changes(found), found)  # its own columns are made anew
    assert len(found) == len(table) and not np.isinf(found.select_dtypes("number")).any(axis=None)
    assert set(FEATURES) | {*table, "note"} == set(found)
    assert (found["growth_log"].isna() <= (found["note"] != "")).all()  # what is not told is explained
    assert (found["doubling_days"].isna() <= (found["note"] != "")).all()


@settings(deadline=None, max_examples=25)
@given(table=followed())
def test_a_visit_sees_only_itself_and_what_came_before(table):
    found = changes(table)
    for row in found[found["day"].notna()].itertuples():
        before = found[(found["patient_id"] == row.patient_id) & (found.index <= row.Index)]
        pd.testing.assert_frame_equal(
            changes(before).iloc[[-1]].reset_index(drop=True), found.loc[[row.Index]].reset_index(drop=True),
            check_dtype=False,
        )  # fmt: skip


# --- RECIST 1.1


@pytest.mark.parametrize(
    ("baseline", "nadir", "now", "expected"),
    [
        (100, 100, 70, "PR"), (100, 100, 70.1, "SD"),
        (100, 100, 120, "PD"), (100, 100, 119.9, "SD"),
        (100, 20, 25, "PD"), (100, 20, 24.9, "PR"),  # 25 % over the nadir, but short of 5 mm
        (100, 50, 60, "PD"), (100, 50, 59.9, "PR"),  # both hold at 60: progression wins
        (100, 0, 5, "PD"), (100, 0, 4, "PR"),
        (3, 3, 2.1, "PR"), (9, 3.2, 8.2, "PD"),  # 0.7 x 3 and 8.2 - 3.2 fall short in binary
        (25.05, 25.05, 30.06, "PD"),  # so does 5 x 30.06
        (100, 10, 0, "CR"), (0, 0, 30, None), (np.nan, np.nan, 30, None), (100, 100, np.nan, None),
    ],
)  # fmt: skip
def test_the_response_turns_at_the_thresholds_of_recist(baseline, nadir, now, expected):
    assert recist(baseline, nadir, now) == expected


sums = st.integers(1, 3000).map(lambda tenths: tenths / 10)


@settings(deadline=None)
@given(baseline=sums, share=st.floats(0, 1), now=sums, unit=st.sampled_from([1.0, 0.1, 1 / 3]))
def test_the_response_is_recists_in_whole_tenths_of_a_millimetre(baseline, share, now, unit):
    nadir = round(baseline * share, 1)
    b, n, s = (round(10 * each) for each in (baseline, nadir, now))  # exact arithmetic
    progressed = 10 * (s - n) >= 2 * n and s - n >= 50
    expected = "PD" if progressed else "PR" if 10 * s <= 7 * b else "SD"
    assert recist(baseline, nadir, now) == expected
    if unit != 1 and not progressed and nadir == baseline:  # a partial response has no unit
        assert recist(baseline * unit, nadir * unit, baseline * unit * 0.7) == "PR"


@settings(deadline=None, max_examples=60)
@given(sizes=st.lists(sums | st.just(0.0), min_size=2, max_size=7))
def test_the_best_response_never_gets_worse_and_stands_still_after_progression(sizes):
    assume(sizes[0] > 0)
    found = changes(seen(np.arange(len(sizes)) * 30, np.ones(len(sizes)), sizes))
    response, best = found["response"].tolist()[1:], found["best_response"].tolist()[1:]
    ranks = [RESPONSES.index(each) for each in best]
    assert ranks == sorted(ranks, reverse=True)
    until = response.index("PD") + 1 if "PD" in response else len(response)
    assert best[until - 1] == min(response[:until], key=RESPONSES.index)
    assert len(set(best[until - 1 :])) == 1


# --- landmark


@settings(deadline=None, max_examples=40)
@given(table=followed(), day=st.sampled_from([0, 60, 61, 120]), volume=st.floats(0, 500), seed=st.integers(0, 99))
def test_a_landmark_never_looks_at_a_later_visit(table, day, volume, seed):
    found = landmark(table, day)
    rng = np.random.default_rng(seed)
    later = (table["day"] > day) | table["day"].isna()
    changed = table.assign(
        tumour_ml=table["tumour_ml"].mask(later, volume),
        diameter_sum_mm=table["diameter_sum_mm"].mask(later, 1000 * rng.random()),
        day=table["day"].mask(later, table["day"] + rng.integers(1, 500)),
    )
    pd.testing.assert_frame_equal(landmark(changed, day), found)
    pd.testing.assert_frame_equal(landmark(changes(table), day), found)  # not even where they were worked out before
    gone = table[~later]
    pd.testing.assert_frame_equal(
        landmark(gone, day), found.loc[sorted(gone["patient_id"].unique())], check_dtype=False
    )
    assert list(found.index) == sorted(table["patient_id"].unique())


def test_a_landmark_is_the_last_visit_until_then():
    table = pd.concat([seen([0, 60, 120], [10, 20, 40]), seen([0], [5], patient="P2"), seen([90], [5], patient="P3")])
    found = landmark(table, 100)
    assert found["tumour_ml"].tolist()[:2] == [20, 5] and found["visits_so_far"].tolist() == [2, 1, 1]
    assert found["days_since_visit"].tolist() == [40, 100, 10]
    assert found.loc["P1", "doubling_days"] == pytest.approx(60)
    early = landmark(table, 60)
    assert early.loc["P1", "days_since_visit"] == 0  # a visit on the day counts
    assert early.loc["P3", "visits_so_far"] == 0 and early.loc["P3", SIZE].isna().all()


# --- mistakes


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda table: table.drop(columns="day"), "without day, expected patient_id"),
        (lambda table: pd.concat([table, table.iloc[[1]]]), "patient P1, session ses-2 is listed twice"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(spoil, said):
    with pytest.raises(BadInput, match=said):
        changes(spoil(seen([0, 30], [1.0, 2.0])))


def test_without_diameters_there_is_growth_and_no_response():
    found = changes(seen([0, 30], [1.0, 2.0]).drop(columns="diameter_sum_mm"))
    assert found["doubling_days"].iloc[1] == pytest.approx(30) and found["response"].isna().all()


def test_no_visits_give_no_rows():
    assert len(changes(seen([], []))) == 0 and len(landmark(seen([], []), 60)) == 0


def test_a_slope_needs_two_days():
    assert np.isnan(slope([3, 3], [1, 2])) and np.isnan(slope([3], [1])) and slope([0, 2], [1, 5]) == 2


# --- from the masks


def ball(path, *balls, shape=(60, 50, 40), spacing=(1.0, 1.0, 2.0)) -> str:
    """A mask of label 1 with balls (centre and radius, mm)."""
    grid = np.stack(np.meshgrid(*(np.arange(n) * s for n, s in zip(shape, spacing, strict=True)), indexing="ij"), -1)
    inside = np.zeros(shape, bool)
    for centre, radius in balls:
        inside |= np.linalg.norm(grid - centre, axis=-1) <= radius
    image = sitk.GetImageFromArray(inside.transpose(2, 1, 0).astype(np.uint8))
    image.SetSpacing(spacing)
    sitk.WriteImage(image, str(path))
    return str(path)


def cohort(rows) -> Cohort:
    images = pd.DataFrame(rows, columns=IMAGES)
    ids = images["patient_id"].unique()
    outcome = {"patient_id": ids, "site": "a", "time_days": 900.0, "event": True}
    return Cohort("trial", pd.DataFrame(outcome), images, {}, {1: "tumour"})


def test_the_visits_of_a_cohort_are_measured_on_their_masks_one_row_a_visit(tmp_path):
    first = ball(tmp_path / "a.nii.gz", ((20, 25, 40), 8))
    both = ball(tmp_path / "b.nii.gz", ((20, 25, 40), 10), ((45, 25, 40), 6))
    none = ball(tmp_path / "c.nii.gz")
    found = visits(cohort([
        ["P2", "ses-1", 0.0, "ct", "", first],
        ["P1", "ses-2", 60.0, "ct", "", both],
        ["P1", "ses-1", 0.0, "pt", "", none],  # PET comes after CT
        ["P1", "ses-1", 0.0, "ct", "", first],
        ["P1", "ses-3", 90.0, "ct", "", none],
        ["P1", "ses-4", 120.0, "ct", "x.nii.gz", ""],
    ]))  # fmt: skip
    assert found[["patient_id", "session"]].apply("/".join, axis=1).tolist() == [
        "P1/ses-1", "P1/ses-2", "P1/ses-3", "P2/ses-1"
    ]  # fmt: skip
    volumes = [4 / 3 * np.pi * each / 1000 for each in (8**3, 10**3 + 6**3, 0, 8**3)]
    np.testing.assert_allclose(found["tumour_ml"], volumes, rtol=0.05)
    np.testing.assert_allclose(found["diameter_sum_mm"], [16, 32, 0, 16], atol=2.5)
    assert changes(found)["response"].tolist() == [None, "PD", "CR", None]


def test_the_diameter_of_one_lesion_is_the_lesion_biomarker_whatever_the_direction(tmp_path):
    mask = sitk.ReadImage(ball(tmp_path / "a.nii.gz", ((20, 25, 40), 9), spacing=(1.0, 1.5, 3.0)))
    for direction in (np.eye(3), np.eye(3)[[2, 0, 1]], np.diag([-1, -1, 1])):
        mask.SetDirection(direction.ravel().tolist())
        assert diameter_sum(mask, [1]) == pytest.approx(measure(mask, {1: "tumour"})[0]["axial_diameter_mm"])


def test_a_lesion_under_10_mm_counts_and_a_speck_only_where_it_is_all_there_is(tmp_path):
    small, speck = ((20, 25, 40), 3), ((45, 25, 40), 0.5)
    sums = [diameter_sum(sitk.ReadImage(ball(tmp_path / "a.nii.gz", *balls)), [1])
            for balls in ([small], [small, speck], [speck], [])]  # fmt: skip
    assert sums[0] == sums[1] == pytest.approx(7, abs=1)
    assert sums[2:] == [pytest.approx(1), 0]  # across one voxel, between the centres of its faces


def test_growth_of_the_chest_phantom_is_what_was_planted(tmp_path):
    from survpack.adapters import bids

    chest.generate(
        tmp_path / "bids", tmp_path / "truth.parquet", **{**chest.DEFAULTS, "patients": 8, "spacing_mm": 5.0}, n_jobs=1
    )
    truth = pd.read_parquet(tmp_path / "truth.parquet").set_index("patient_id")
    participants = bids.clinical(tmp_path / "bids")
    found = changes(visits(Cohort("chest", participants, bids.discover(tmp_path / "bids"), {}, chest.LABELS)))
    last = found.drop_duplicates("patient_id", keep="last").set_index("patient_id").loc[truth.index]
    np.testing.assert_allclose(last["growth_log"], truth["growth_measured"], atol=1e-9)
    often = truth["visits"] > 1
    assert np.corrcoef(last["growth_log"][often], truth["growth_per_30_days"][often])[0, 1] > 0.97
    assert found["patient_id"].value_counts().loc[truth.index].tolist() == truth["visits"].tolist()
