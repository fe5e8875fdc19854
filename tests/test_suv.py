"""SUV: from headers whose times, units and nuclides are told in the ways that scanners and careless programs tell them."""

from datetime import datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from test_dicom import pet, setattr_raw, values_of

from survpack.dicom import convert
from survpack.dicom.series import Series
from survpack.dicom.suv import HALF_LIVES, odd, suv_factor
from survpack.errors import BadInput

pytestmark = pytest.mark.filterwarnings("ignore:Invalid value for VR")
SCAN = datetime(2019, 4, 12, 11, 15)
FLUORINE, ZIRCONIUM = HALF_LIVES["_18Fluorine"], HALF_LIVES["_89Zirconium"]


def head(weight=80, dose=2e8, half_life=FLUORINE, injected=SCAN - timedelta(hours=1), scan=SCAN, code=None, **tags):
    """A PET header alone; `injected` a date-time, a text of that, or None."""
    ds, drug = Dataset(), Dataset()
    ds.Modality, ds.Units, ds.DecayCorrection, ds.CorrectedImage = "PT", "BQML", "START", ["ATTN", "DECY"]
    ds.PatientWeight, ds.SeriesDate, ds.SeriesTime = weight, f"{scan:%Y%m%d}", f"{scan:%H%M%S}"
    drug.RadionuclideTotalDose, drug.RadionuclideHalfLife = dose, half_life
    if injected is not None:
        written = injected if isinstance(injected, str) else f"{injected:%Y%m%d%H%M%S}.00"
        drug.RadiopharmaceuticalStartDateTime = written
    if code:
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code
        drug.RadionuclideCodeSequence = [item]
    for name, value in tags.items():
        setattr(drug if name.startswith("Radio") else ds, name, value)
    ds.RadiopharmaceuticalInformationSequence = [drug]
    return ds


class Slice:
    parent = "folder"


def factor(ds, acquired=(("20190412", "111500"),)):
    return suv_factor(Series(ds, [(Slice,)] * len(acquired), list(acquired)))


def expected(hours, half_life=FLUORINE, weight=80, dose=2e8):
    return 1000 * weight / (dose * 2 ** (-hours * 3600 / half_life))


# Times


def test_an_injection_a_minute_after_the_series_is_no_injection_of_the_day_before(tmp_path):
    """The starred case: 0.378 g/mL, of which the day before made 3343."""
    activity = 0.378 / expected(0)
    for told in ({}, {"RadiopharmaceuticalStartDateTime": "20190412111600"}):
        series = pet(
            tmp_path / str(len(told)), RadiopharmaceuticalStartTime="111600", RadionuclideHalfLife=FLUORINE, **told
        )
        found, how = suv_factor(series)
        assert activity * found == pytest.approx(0.378, rel=1e-6)
        assert "stamped after the scan began" in how


def test_an_injection_an_hour_before_has_the_suv_of_the_closed_form(tmp_path):
    series = pet(tmp_path, RadionuclideHalfLife=FLUORINE)
    assert 0.378 / expected(0) * suv_factor(series)[0] == pytest.approx(0.378 * 2 ** (3600 / FLUORINE))


@pytest.mark.parametrize(
    ("injected", "told"),
    [("111800", "-3 min"), ("114500", "-30 min"), ("151500", "-4.0 h"), ("231500", "-12.0 h")],
)
def test_an_injection_well_after_the_scan_is_refused_with_its_distance(injected, told):
    with pytest.raises(BadInput, match=f"a scan {told} after the injection"):
        factor(head(injected=f"20190412{injected}"))
    with pytest.raises(BadInput, match=f"a scan {told} after the injection"):
        factor(head(injected=None, RadiopharmaceuticalStartTime=injected))


@pytest.mark.parametrize("hours", [5.6, 8, 12, 25, 49])
def test_an_uptake_over_three_half_lives_is_refused(hours):
    with pytest.raises(BadInput, match="after the injection, expected 0 to 5.5 h"):
        factor(head(injected=SCAN - timedelta(hours=hours)))


@pytest.mark.parametrize(
    ("clock", "scan", "hours"), [("233000", "003000", 1), ("193000", "005900", 329 / 60), ("235000", "000600", 4 / 15)]
)
def test_a_scan_past_midnight_is_of_the_evening_before(clock, scan, hours):
    ds = head(injected=None, RadiopharmaceuticalStartTime=clock, SeriesTime=scan)
    assert factor(ds, [("", "")])[0] == pytest.approx(expected(hours), rel=1e-4)


@pytest.mark.parametrize(("clock", "scan"), [("235500", "000500"), ("180000", "010000"), ("101600", "101000")])
def test_past_midnight_means_neither_minutes_nor_a_day(clock, scan):
    with pytest.raises(BadInput, match="after the injection"):
        factor(head(injected=None, RadiopharmaceuticalStartTime=clock, SeriesTime=scan), [("", "")])


@pytest.mark.parametrize(
    ("name", "days"), [("_89Zirconium", 6), ("_124Iodine", 4), ("_64Copper", 1.5), ("_90Yttrium", 2)]
)
def test_a_nuclide_that_lasts_is_scanned_days_later(name, days):
    half_life = HALF_LIVES[name]
    ds = head(half_life=half_life, dose=5e7, injected=SCAN - timedelta(days=days))
    assert factor(ds)[0] == pytest.approx(expected(24 * days, half_life, dose=5e7))


def test_a_nuclide_that_lasts_needs_the_date_of_its_injection():
    ds = head(half_life=ZIRCONIUM, injected=None, RadiopharmaceuticalStartTime="101500")
    with pytest.raises(BadInput, match="without the date of the injection"):
        factor(ds)


@pytest.mark.parametrize(
    ("injected", "zone", "hours"),
    [
        ("20190412101500+0200", "+0200", 1), ("20190412081500+0000", "+0200", 1), ("20190412081500.000000+0000", "+0200", 1),
        ("20190412041500-0400", "+0200", 1), ("20190411221500-1000", "+0200", 1), ("20190412101500", "+0200", 1),
        ("20190412094500.5+0530", "+0530", 1.5), ("20190412101500+0200", None, 1),
    ],
)  # fmt: skip
def test_offsets_from_utc_are_applied(injected, zone, hours):
    tags = {"TimezoneOffsetFromUTC": zone} if zone else {}
    assert factor(head(injected=injected, **tags))[0] == pytest.approx(expected(hours), rel=1e-3)


def test_where_only_the_injection_has_an_offset_the_start_time_has_the_scans_clock():
    ds = head(injected="20190412081500+0000", RadiopharmaceuticalStartTime="101500")
    assert factor(ds)[0] == pytest.approx(expected(1))
    ds = head(injected="20190412104500+0200", RadiopharmaceuticalStartTime="101500")  # half an hour is no zone
    assert factor(ds)[0] == pytest.approx(expected(0.5))
    lasting = head(half_life=ZIRCONIUM, injected="20190409221500+0000", RadiopharmaceuticalStartTime="001500")
    assert factor(lasting)[0] == pytest.approx(expected(59, ZIRCONIUM))


@pytest.mark.parametrize(
    ("written", "hours"),
    [
        ("20190412101500", 1), ("20190412101500.", 1), ("20190412101500.000000", 1), ("201904121015", 1), ("2019041210", 1.25),
        ("20190412101500.0000000000", 1),
    ],
)  # fmt: skip
def test_date_times_without_a_fraction_or_cut_short_are_read(written, hours):
    ds = head(injected=None)
    setattr_raw(ds.RadiopharmaceuticalInformationSequence[0], "RadiopharmaceuticalStartDateTime", written.encode())
    assert factor(ds)[0] == pytest.approx(expected(hours))


@pytest.mark.parametrize("written", ["10:15:00", "101500.123456", "1015"])
def test_times_in_the_old_way_are_read(written):
    ds = head(injected=None, SeriesTime="11:15:00")
    setattr_raw(ds, "SeriesDate", b"2019.04.12")
    setattr_raw(ds.RadiopharmaceuticalInformationSequence[0], "RadiopharmaceuticalStartTime", written.encode())
    assert factor(ds, [("", "")])[0] == pytest.approx(expected(1))


@pytest.mark.parametrize("written", ["20190412", "2019", "noon", "00000000000000"])
def test_a_date_without_a_time_is_no_time(written):
    with pytest.raises(BadInput, match="without Radiopharmaceutical Start Time"):
        ds = head(injected=None)
        setattr_raw(ds.RadiopharmaceuticalInformationSequence[0], "RadiopharmaceuticalStartDateTime", written.encode())
        factor(ds)


@pytest.mark.parametrize("day", ["20190413", "20190512", "20180101", "20301231"])
def test_a_date_that_was_shifted_apart_leaves_the_time_of_day(day):
    """As of STS_002: injected the day after its scan."""
    found, how = factor(head(injected=f"{day}101500"))
    assert found == pytest.approx(expected(1)) and "shifted" in how
    with pytest.raises(BadInput, match="after the injection"):
        factor(head(injected=f"{day}051500"))


@pytest.mark.parametrize(
    ("decay", "hours"), [(1.01, 4), (2 ** (3 * 3600 / FLUORINE), 1)]
)  # of the first slice, three hours after Series Time
def test_a_series_time_hours_before_the_first_slice_is_settled_by_the_decay_factor(decay, hours):
    late = [("20190412", "141500"), ("20190412", "141800")]
    assert factor(head(DecayFactor=decay), late)[0] == pytest.approx(expected(hours))
    with pytest.raises(BadInput, match="Series Time 3.0 h before the first slice"):
        factor(head(), late)


def test_a_series_time_before_the_injection_cannot_be_meant():
    ds = head(injected=None, RadiopharmaceuticalStartTime="101500", SeriesTime="070000")
    assert factor(ds)[0] == pytest.approx(expected(1))


def test_acquisition_date_time_counts_where_there_is_nothing_else(tmp_path):
    series = pet(
        tmp_path,
        SeriesTime=None,
        AcquisitionTime=None,
        AcquisitionDateTime="20190412111500.00",
        RadionuclideHalfLife=FLUORINE,
    )
    assert suv_factor(series)[0] == pytest.approx(expected(1))


@given(st.floats(0.01, 5.9), st.sampled_from(sorted(HALF_LIVES)), st.floats(1.5, 300), st.floats(7, 10))
def test_activity_that_decays_as_the_nuclide_does_has_one_suv_whenever_it_is_scanned(waited, name, weight, log_dose):
    half_life = HALF_LIVES[name]
    hours = waited * half_life / 3600 / 2
    ds = head(weight, 10**log_dose, half_life, SCAN - timedelta(seconds=round(hours * 3600)))
    left = 10**log_dose * 2 ** (-round(hours * 3600) / half_life)
    assert factor(ds)[0] * left / (1000 * weight) == pytest.approx(1, rel=1e-4)


NONE = [("", "")]  # no Acquisition Time


@pytest.mark.parametrize("scan", ["101500", "081500", "030000", "015900", "000500"])
@pytest.mark.parametrize("dated", [False, True])
def test_an_injection_at_midnight_is_none_unless_its_date_says_that_it_was_within_two_hours(scan, dated):
    """Of 33 and 15.6 times the SUV, with scans at 10:15 and 08:15."""
    told = (
        {"injected": "20190412000000.00"} if dated else {"injected": None, "RadiopharmaceuticalStartTime": "000000.00"}
    )
    ds = head(SeriesTime=scan, **told)
    if dated and scan < "02":
        hours = int(scan[:2]) + int(scan[2:4]) / 60
        assert factor(ds, NONE)[0] == pytest.approx(expected(hours))
    else:
        with pytest.raises(BadInput, match="without Radiopharmaceutical Start Time"):
            factor(ds, NONE)


def test_a_day_of_injection_and_a_time_of_injection_make_one():
    ds = head(injected="20190412000000", RadiopharmaceuticalStartTime="101500")
    assert factor(ds)[0] == pytest.approx(expected(1))
    lasting = head(half_life=ZIRCONIUM, injected="20190409000000", RadiopharmaceuticalStartTime="101500")
    assert factor(lasting)[0] == pytest.approx(expected(73, ZIRCONIUM))
    with pytest.raises(BadInput, match="without Radiopharmaceutical Start Time"):
        factor(head(half_life=ZIRCONIUM, injected="20190409000000"))
    assert factor(head(RadiopharmaceuticalStartTime="000000"))[0] == pytest.approx(expected(1))


def test_a_scan_at_midnight_is_none():
    ds = head(injected=None, RadiopharmaceuticalStartTime="101500", SeriesTime="000000")
    assert factor(ds)[0] == pytest.approx(expected(1))  # by the first slice
    with pytest.raises(BadInput, match="without Series Time and Acquisition Time"):
        factor(ds, [("20190412", "000000.00")])
    with pytest.raises(BadInput, match="without"):
        factor(head(injected=None, RadiopharmaceuticalStartTime="000000", SeriesTime="000000"), [("", "000000")])


@pytest.mark.parametrize("clock", ["120000", "120000.00", "010101", "111111", "235959"])
@pytest.mark.parametrize("acquired", [True, False])
def test_times_that_were_all_set_to_one_are_refused(clock, acquired):
    """Of 0.685 times the SUV."""
    stamps = [("20190412", clock)] * 3 if acquired else NONE
    for told in ({"injected": None, "RadiopharmaceuticalStartTime": clock}, {"injected": "20190412" + clock}):
        with pytest.raises(BadInput, match="in the very second of the scan"):
            factor(head(SeriesTime=clock, **told), stamps)
    with pytest.raises(BadInput, match="in the very second of the scan"):
        factor(head(injected="20190410" + clock, SeriesTime=clock), stamps)


def test_what_is_gone_in_minutes_is_scanned_as_it_is_injected_and_a_late_frame_is_of_a_scan_that_began_then():
    half_life = HALF_LIVES["_15Oxygen"]
    assert factor(head(half_life=half_life, injected=SCAN))[0] == pytest.approx(expected(0))
    late = [("20190412", "115500")]
    assert factor(head(injected=SCAN), late)[0] == pytest.approx(expected(0))


@pytest.mark.parametrize("day", ["", None, "20190412"])
@pytest.mark.parametrize("dates", [{}, {"StudyDate": "20190412"}, {"StudyDate": "20190412", "SeriesDate": ""}])
def test_a_bare_acquisition_time_is_of_the_day_of_its_study_or_series(day, dates):
    """Of 4.14 times the SUV, by the time of a later reconstruction."""
    ds = head(injected=None, RadiopharmaceuticalStartTime="101500", SeriesTime="150000", **dates)
    assert factor(ds, [(day, "111500")] * 2)[0] == pytest.approx(expected(1))


def test_the_day_of_a_bare_acquisition_time_may_stand_in_the_date_time_beside_it(tmp_path):
    times = {"AcquisitionDate": None, "AcquisitionDateTime": "20190412111500", "SeriesTime": "150000"}
    series = pet(tmp_path, RadionuclideHalfLife=FLUORINE, **times)
    assert series.acquired == [("20190412", "111500")] * 4
    assert suv_factor(series)[0] == pytest.approx(expected(1))


def test_beds_of_their_own_times_and_factors_have_one_start():
    beds = [("20190412", clock) for clock in ("112400", "112100", "111800", "111500")]
    decays = [2 ** ((seconds + 90) / FLUORINE) for seconds in (540, 360, 180, 0)]
    for clock in ("111500", "104500", "150000"):
        ds = head(SeriesTime=clock, ActualFrameDuration=180_000)
        assert suv_factor(Series(ds, [(Slice,)] * 4, beds, decays))[0] == pytest.approx(expected(1))


def test_a_half_life_in_hours_that_could_be_of_another_nuclide_stands_in_the_sentence():
    with pytest.raises(
        BadInput, match="a scan 4.0 days after the injection, expected 0 to 4 min for a half-life of 78.4 s"
    ):
        factor(head(half_life=78.4, injected=SCAN - timedelta(days=4)))


def test_a_reconstruction_of_the_next_day_is_not_the_scan():
    for clock in ("080000", "104500", "150000"):
        ds = head(StudyDate="20190412", SeriesDate="20190413", SeriesTime=clock)
        assert factor(ds, [("", "111500")])[0] == pytest.approx(expected(1))
    ds = head(half_life=ZIRCONIUM, injected="20190409101500", StudyDate="20190409", SeriesDate="20190412")
    with pytest.raises(BadInput, match="without Acquisition Date"):
        factor(ds, [("", "111500")])


def test_without_any_date_of_the_scan_the_time_of_day_is_enough_but_of_a_nuclide_that_lasts():
    for told in ({"injected": None, "RadiopharmaceuticalStartTime": "101500"}, {"injected": "20190412101500"}):
        assert factor(head(SeriesDate="", **told), [("", "111500")])[0] == pytest.approx(expected(1))
    with pytest.raises(BadInput, match="without the date of the injection, or of the scan"):
        factor(head(half_life=ZIRCONIUM, SeriesDate=""), [("", "111500")])


def test_an_injection_in_utc_needs_the_offset_of_the_scan_or_its_clock():
    """Of 2.13 times the SUV."""
    with pytest.raises(BadInput, match="expected Timezone Offset From UTC"):
        factor(head(injected="20190412081500+0000"))
    assert factor(head(injected="20190412081500+0000", TimezoneOffsetFromUTC="+0200"))[0] == pytest.approx(expected(1))
    ds = head(injected="20190412044500+0000", RadiopharmaceuticalStartTime="101500")  # in India
    assert factor(ds)[0] == pytest.approx(expected(1))
    assert factor(head(injected="20190412101500+0200"))[0] == pytest.approx(expected(1))


@pytest.mark.parametrize(("decay", "hours"), [(1.0063, 1), (2 ** (1800 / FLUORINE), 0.5), (None, 0.5)])
def test_a_decay_factor_is_asked_wherever_it_is(decay, hours):
    """Series Time half an hour before the first slice; of 0.83 times the SUV."""
    tags = {"DecayFactor": decay} if decay else {}
    assert factor(head(SeriesTime="104500", **tags))[0] == pytest.approx(expected(hours))


def test_the_decay_factor_of_the_first_bed_counts_even_where_all_beds_have_one_time():
    ds = head(SeriesTime="104500", DecayFactor=1.2)
    beds = Series(ds, [(Slice,)] * 3, [("20190412", "111500")] * 3, [1.2, 1.0063, 1.1])
    assert suv_factor(beds)[0] == pytest.approx(expected(1))


def test_a_long_frame_decays_in_itself_and_a_factor_that_fits_nothing_is_refused():
    long = {"ActualFrameDuration": 1200_000, "DecayFactor": 2 ** (600 / FLUORINE)}
    assert factor(head(**long))[0] == pytest.approx(expected(1))
    with pytest.raises(BadInput, match="Decay Factor that fits neither"):
        factor(head(DecayFactor=2 ** (3600 / FLUORINE)))  # corrected to the injection


# Dose, weight, half-life


def test_the_starred_suv_is_right_in_bq_and_kg(tmp_path):
    """0.553 g/mL, of which a dose in MBq made 553,000 and one in kBq, or a weight in g, 553."""
    activity = np.float32(0.553 / expected(1))
    series = pet(tmp_path / "in", RadionuclideHalfLife=FLUORINE, SUVType="BW", RescaleType="US")
    assert activity * suv_factor(series)[0] == pytest.approx(0.553)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"dose": 200}, "Radionuclide Total Dose 200, likely MBq, expected 1e\\+06 to 2e\\+10 Bq"),
        ({"dose": 370.5}, "likely MBq"), ({"dose": 2000}, "likely MBq"), ({"dose": 200000}, "Radionuclide Total Dose 200000, likely kBq"),
        ({"dose": 0.37}, "likely GBq"), ({"dose": 2e11}, r"Radionuclide Total Dose 2e\+11, expected"),
        ({"weight": 80000}, "Patient Weight 80000, likely g, expected 1 to 400 kg"), ({"weight": 3500}, "likely g"),
        ({"weight": 0.08}, "Patient Weight 0.08"), ({"weight": 0}, "no SUV without Patient Weight, expected a number of kg"), ({"weight": 600}, "Patient Weight 600"),
        ({"half_life": 109.77, "code": ("C-111A1", "SRT", "^18^Fluorine")}, "Radionuclide Half Life 109.77, likely minutes"),
        ({"half_life": 1.83}, "Radionuclide Half Life 1.83, likely hours"), ({"half_life": 6586200}, "likely milliseconds"),
        ({"half_life": 109.77}, "Half Life 109.77, likely minutes"), ({"half_life": 109.8}, "Half Life 109.8, likely minutes"),
        ({"half_life": 67.7}, "Half Life 67.7, likely minutes"),
    ],
)  # fmt: skip
def test_an_impossible_number_is_refused_with_its_likely_unit(changed, told):
    with pytest.raises(BadInput, match=told):
        factor(head(**changed))


@pytest.mark.parametrize("weight", [1.2, 3.5, 20, 250])
def test_children_and_the_heavy_are_read(weight):
    assert factor(head(weight=weight, dose=2e7))[0] == pytest.approx(expected(1, weight=weight, dose=2e7))


@pytest.mark.parametrize(
    "code",
    [
        ("C-111A1", "SRT", "^18^Fluorine"), ("C-111A1", "SNM3", "18F"), ("77004003", "SCT", "^18^Fluorine"), ("x", "99LOCAL", "F-18"),
        ("C-111A1", "99SDM", ""), ("", "", "Fluorine F^18^"),
    ],
)  # fmt: skip
def test_the_half_life_is_that_of_the_nuclide_however_it_is_coded(code):
    for right in (6586.2, 6588.0, 6584.4, 6600):
        assert factor(head(half_life=right, code=code))[0] > 0
    with pytest.raises(BadInput, match="Radionuclide Half Life 4070, expected 6586.2 s"):
        factor(head(half_life=4070, code=code))


@pytest.mark.parametrize("lacking", [None, "", 0])
def test_a_nuclide_that_is_named_has_its_half_life(lacking):
    found, how = factor(head(half_life=lacking, code=("C-111A1", "SRT", "^18^Fluorine")))
    assert found == pytest.approx(expected(1)) and "by the nuclide's name" in how
    with pytest.raises(BadInput, match="no SUV without Radionuclide Half Life"):
        factor(head(half_life=lacking))


def test_a_nuclide_that_no_list_has_is_trusted():
    assert factor(head(half_life=21624, injected=SCAN - timedelta(hours=2)))[0] == pytest.approx(expected(2, 21624))


def test_two_injections_are_refused_and_the_same_told_twice_is_one():
    ds = head()
    ds.RadiopharmaceuticalInformationSequence.append(ds.RadiopharmaceuticalInformationSequence[0])
    assert factor(ds)[0] == pytest.approx(expected(1))
    ds.RadiopharmaceuticalInformationSequence.append(head(dose=1e8).RadiopharmaceuticalInformationSequence[0])
    with pytest.raises(BadInput, match="3 injections"):
        factor(ds)


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"Units": "Kilo Müller"}, "another Units than is known"), ({"DecayCorrection": "Müller"}, "another Decay Correction"),
        ({"Units": "GML", "SUVType": "Müller"}, "another SUV Type"), ({"DecayCorrection": "NONE"}, "'NONE'"),
        ({"CorrectedImage": ["Müller", "DECY"]}, "without ATTN"), ({"CorrectedImage": "ATTN"}, "without DECY"),
        ({"RadiopharmaceuticalInformationSequence": []}, "without Radionuclide Total Dose"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told_without_repeating_free_text(changed, told):
    ds = head()
    for name, value in changed.items():
        setattr(ds, name, value)
    with pytest.raises(BadInput, match=told) as raised:
        factor(ds)
    assert "Müller" not in str(raised.value)


def test_units_with_a_slash_are_the_same_units():
    assert factor(head(Units="Bq/ml"))[0] == pytest.approx(expected(1))
    assert factor(head(Units="g/ml")) == (1.0, "stored as SUV")


def test_philips_activity_factor_needs_dose_and_weight_too():
    ds = head(Units="CNTS")
    ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x09, "DS", "2.5")
    assert factor(ds)[0] == pytest.approx(2.5 * expected(1))
    ds.private_block(0x7053, "Philips PET Private Group").add_new(0x00, "LO", "none")
    assert factor(ds)[0] == pytest.approx(2.5 * expected(1))


# What cannot be an SUV


def test_a_body_is_an_suv_and_a_body_in_another_unit_is_none():
    rng = np.random.default_rng(0)
    image = np.zeros((40, 40, 40), dtype=np.float32)
    image[10:30, 12:28] = rng.lognormal(0, 0.4, (20, 16, 40))  # mean about 1
    image[18:22, 18:22, 10:14] = 12  # a lesion
    assert odd(image) == odd(image[16:24, 16:24, 8:16]) == ("", "")
    for wrong in (1e6, 1e3, 1e-3, 37, 1 / 37, 5000):
        assert odd(image * wrong)[0] == ("error" if wrong > 100 or wrong < 0.01 else "warning")


def test_real_pet_is_an_suv(tmp_path):
    import os
    from pathlib import Path

    folder = Path(os.environ.get("SURVPACK_DATA", "/nowhere")) / "sts-dicom"
    if not folder.is_dir():
        pytest.skip("SURVPACK_DATA does not hold sts-dicom")
    convert(folder / "STS_003" / "PET", tmp_path / "out", keep_ids=True)
    assert odd(values_of(next((tmp_path / "out").rglob("*_pet.nii.gz")))) == ("", "")
