"""One patient's answer against a patient whose survival is known in closed form."""

import json
import sys

import numpy as np
import one_patient
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_patient import TIMES, bundle, intake

from survpack.deploy import answer as answering
from survpack.deploy.answer import Answer, answer, horizons, paths_of, run
from survpack.errors import BadInput

PROGNOSIS = ("curve", "median_days", "probabilities", "bound", "group", "drivers", "attribution")


@pytest.fixture(autouse=True)
def _known_drivers(monkeypatch):
    from survpack.explain import contributions

    monkeypatch.setattr(sys.modules[contributions.__name__], "drivers", one_patient.drivers, raising=False)


@settings(max_examples=25, deadline=None)
@given(st.floats(20, 3000))
def test_curve_median_and_chances_are_those_of_the_exponential(mean):
    said = answer(bundle(mean), intake(), explained=False)
    for one in said.probabilities:
        assert one["estimate"] == pytest.approx(np.exp(-one["days"] / mean), abs=1e-9)
        assert 0 <= one["low"] <= one["estimate"] <= one["high"] <= 1
    half = mean * np.log(2)
    if half > TIMES[-1]:
        assert said.median_days["estimate"] is None
    else:
        late = said.median_days["estimate"] - half  # a chord of 10 days lies above an exponential
        assert -1e-6 <= late <= 1.5 * 10**2 / 8 / mean
    assert said.curve["days"][0] == 0 and said.curve["survival"][0] == 1
    assert np.all(np.diff(said.curve["survival"]) <= 0)


@pytest.mark.parametrize(("mean", "group", "days"), [(2000.0, "low", 120.0), (600.0, "middle", 42.0)])
def test_bound_is_that_of_the_patients_third_and_says_what_it_promises(mean, group, days):
    found = answer(bundle(mean), intake(), explained=False).bound
    assert found == {"coverage": 0.9, "days": days, "group": group, "said": one_patient.BOUND_SAYS}


def test_where_no_bound_can_be_given_the_answer_says_why():
    found = answer(bundle(200.0), intake(), explained=False).bound
    assert found["days"] is None and found["why"].startswith("No lower bound is given")


@pytest.mark.parametrize(("mean", "group"), [(2000.0, "low"), (600.0, "middle"), (200.0, "high")])
def test_group_is_the_third_in_which_the_risk_at_the_horizon_lies(mean, group):
    found = answer(bundle(mean), intake(), explained=False).group
    risk = 1 - np.exp(-365 / mean)
    assert found["name"] == group
    assert found["percentile"] == pytest.approx(100 * risk)


def test_a_patient_unlike_the_training_patients_gets_no_number():
    one = bundle(score=9.0)
    one.model.outputs = None  # nobody asks the network
    said = answer(one, intake())
    assert "too unlike" in said.refused and "The image differs 9.0 times" in said.refused
    assert not any(getattr(said, name) for name in PROGNOSIS)


def test_answer_is_json_without_pixels_and_without_nan():
    said = answer(bundle(5000.0), intake(notes=["a note"]))
    told = json.loads(json.dumps(said.as_json(), allow_nan=False))
    assert told["median_days"] == {"estimate": None, "low": None, "high": None}  # 0.82 - 0.2 are alive on the last day
    pixels = Answer(**{**vars(said), "attribution": one_patient.panel() | {"mass_share": np.nan}}).as_json()
    assert set(pixels["attribution"]) == {"method", "level_mm", "mass_share", "said"}
    assert pixels["attribution"]["mass_share"] is None


def test_drivers_come_strongest_first_with_their_value_and_the_typical_one():
    said = answer(bundle(), intake()).drivers
    assert [one["feature"] for one in said] == ["sex", "image", "age"]
    assert said[0]["words"] == "Sex: male (typically female)"
    assert said[2]["words"] == "Age: 71 years (typically 60 years)"
    assert sum(one["share"] for one in said) == pytest.approx(1)


def test_an_imputed_driver_is_told_as_not_given():
    said = answer(bundle(), intake(imputed={"age": 60.0})).drivers
    assert next(one for one in said if one["feature"] == "age")["words"] == "Age: not given"


def test_horizons_that_are_near_are_told_once_and_none_lies_beyond_the_curve():
    assert horizons(one_patient.about(), TIMES) == [91, 183, 365, 730]


def test_a_horizon_beyond_the_last_predicted_day_is_left_out_with_a_word():
    beyond = "No probability is given beyond day 1\u202f000."
    assert beyond in answer(bundle(), intake(), explained=False).notes  # 1500 was asked for
    params = one_patient.about()["params"]
    fewer = params | {"scores": params["scores"] | {"horizons_days": {"other": [365]}}}
    assert not answer(bundle(params=fewer), intake(), explained=False).notes


@pytest.mark.parametrize(
    ("risk", "percentile", "group"),
    [(0.1, 1, "low"), (0.2, 20, "low"), (0.3, 30, "low"), (0.35, 35, "middle"), (0.5, 65, "middle"), (0.9, 99, "high")],
)
def test_of_tied_risks_the_percentile_is_the_share_strictly_below_and_names_the_group(risk, percentile, group):
    """From 65 % on all are at 0.5, the upper cut among them."""
    levels = [1, 20, 40, 65, 80, 99]
    reference = one_patient.about()["reference"] | {
        "groups": [0.2 + 0.2 * (100 / 3 - 20) / 20, 0.5],
        "percentiles": {"levels": levels, "risk": [0.2 - 1e-3, 0.2, 0.4, 0.5, 0.5, 0.5]},
    }
    model = one_patient.Exponential(1.0)
    model.forecast = lambda output, times: one_patient.SimpleNamespace(survival=np.array([[1 - risk]]))
    found = answering._group({"reference": reference}, model, None)
    assert found["name"] == group and found["percentile"] == pytest.approx(percentile)


def _mapped(monkeypatch, found, **images):
    """Scans that are no more than names, and what is asked to be drawn of them."""
    from survpack.explain import attribution, overlays  # noqa: F401 (modules, whose names functions bear too)

    asked = []
    monkeypatch.setattr(sys.modules["survpack.explain.attribution"], "attribute", lambda *given: [np.array([found])])
    monkeypatch.setattr(
        sys.modules["survpack.explain.overlays"],
        "native",
        lambda image, *rest, **more: asked.append(image) or one_patient.panel(),
    )
    one = bundle()
    one.model.fusion = "concat"
    return answer(one, intake(images=images, mask="mask")), asked


def test_the_map_is_drawn_on_the_first_scan_whose_mask_it_is_centred_on(monkeypatch):
    said, asked = _mapped(monkeypatch, 1.0, pt="the PET", ct="the CT")
    assert asked == ["the PET"] and said.attribution["modality"] == "pt"


def test_without_a_map_it_says_why_and_of_masks_alone_that_there_is_no_scan(monkeypatch):
    said, asked = _mapped(monkeypatch, np.nan, ct="the CT")
    assert said.attribution is None and "nothing in it raises" in said.notes[-1]
    said, asked = _mapped(monkeypatch, 1.0)
    assert said.attribution is None and not asked
    assert said.notes[-1] == "There is no map: there is no scan to show it on."


def test_a_network_that_sees_masks_alone_sees_the_outline():
    words = {one["feature"]: one["words"] for one in answer(bundle(), intake()).drivers}
    assert words["image"] == "What the network sees in the scan"
    schema = one_patient.about()["schema"] | {"modalities": []}
    words = {one["feature"]: one["words"] for one in answer(bundle(schema=schema), intake()).drivers}
    assert words["image"] == "What the network sees in the outline"


def test_a_network_that_says_no_number_is_refused():
    with pytest.raises(BadInput, match="no number"):
        answer(bundle(np.nan), intake())


@pytest.mark.parametrize("label", ["", "  ", "x" * 61, "a\nb", "a\x00b"])
def test_a_label_that_no_card_can_bear_is_refused(label):
    with pytest.raises(BadInput, match="patient label"):
        answer(bundle(), intake(), label=label)


def test_paths_come_by_name_or_alone():
    assert paths_of([], "--scan") is None
    assert str(paths_of(["folder"], "--scan")) == "folder"
    assert {name: str(path) for name, path in paths_of(["t1c=a=b.nii", "pt=c"], "--scan").items()} == {
        "t1c": "a=b.nii",
        "pt": "c",
    }


@pytest.mark.parametrize("given", [["a", "b"], ["t1c=a", "t1c=b"], ["t1c="], ["=a"]])
def test_paths_without_a_name_or_with_one_twice_are_refused(given):
    with pytest.raises(BadInput, match="--scan"):
        paths_of(given, "--scan")


def _stand_in(monkeypatch):
    from survpack.deploy import bundle as bundles
    from survpack.deploy import intake as intakes

    asked = {}
    monkeypatch.setattr(bundles, "load", lambda folder, expect: bundle())
    monkeypatch.setattr(intakes, "read", lambda *args, **given: asked.update(given) or intake())
    return asked


def test_run_writes_a_page_and_beside_it_the_json(tmp_path, monkeypatch):
    asked = _stand_in(monkeypatch)
    out = run(tmp_path, ["t1c=a.nii"], ["m.nii"], None, tmp_path, as_json=True, label="P 7")
    assert out == tmp_path / "card.html" and "P 7" in out.read_text()
    assert json.loads((tmp_path / "card.json").read_text())["patient"] == "P 7"
    assert list(asked["scans"]) == ["t1c"] and str(asked["masks"]) == "m.nii"


@pytest.mark.parametrize(
    ("out", "said"),
    [
        ("file/card.html", "file is a file, not a folder"),
        ("file/deeper/card.html", "file is a file, not a folder"),
        ("x" * 300 + ".html", "File name too long"),
        ("new/" + "x" * 300 + ".html", "a name longer than 250 bytes"),
        ("shut/card.html", "no right to write in"),
        ("card.html", "card.json: a folder"),
    ],
)
def test_a_place_that_takes_no_page_is_refused_before_any_work(out, said, tmp_path, monkeypatch):
    _stand_in(monkeypatch)
    (tmp_path / "file").touch()
    (tmp_path / "card.json").mkdir()
    monkeypatch.setattr("os.access", lambda place, mode: place.name != "shut")  # root may write anywhere
    (tmp_path / "shut").mkdir()
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(answering, "answer", None)
    with pytest.raises(BadInput, match=said) as refused:
        run(tmp_path, [], [], None, tmp_path / out, as_json=True)
    assert "\n" not in str(refused.value) and sorted(tmp_path.rglob("*")) == before


def test_a_page_that_the_disk_does_not_take_is_told_in_a_sentence(tmp_path, monkeypatch):
    _stand_in(monkeypatch)

    def full(*given, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(answering.Path, "write_text", full)
    with pytest.raises(BadInput, match=r"card\.html: not written \(No space left on device\)"):
        run(tmp_path, [], [], None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_label_that_is_too_long_is_refused_before_any_scan_is_read(tmp_path, monkeypatch):
    asked = _stand_in(monkeypatch)
    with pytest.raises(BadInput, match="expected 1 to 60"):
        run(tmp_path, ["t1c=a.nii"], [], None, tmp_path, label="x" * (answering.LONGEST_LABEL + 1))
    assert not asked


def test_a_page_of_another_kind_is_refused_before_any_work(tmp_path, monkeypatch):
    _stand_in(monkeypatch)
    monkeypatch.setattr(answering, "answer", None)
    with pytest.raises(BadInput, match=r"card\.pdf.*\.html"):
        run(tmp_path, [], [], None, tmp_path / "card.pdf")
    assert not list(tmp_path.iterdir())
