"""The page: whole, safe, legible, on one sheet, and without a number where there must be none."""

import base64
import hashlib
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import one_patient
import pytest
from one_patient import bundle, intake

from survpack.deploy.answer import Answer, answer
from survpack.deploy.card import OUTLINE, overlay, page, percent, policy, span

VOID = {"meta", "img", "br", "link", "input"}


class Parsed(HTMLParser):
    """Elements with their attributes and the text; an element that is not closed is an error."""

    def __init__(self, text: str):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\xa0", " ").split())


@pytest.fixture(autouse=True)
def _known_drivers(monkeypatch):
    from survpack.explain import contributions

    monkeypatch.setattr(sys.modules[contributions.__name__], "drivers", one_patient.drivers, raising=False)


def _card(one=None, given=None, mapped=True, **choices) -> str:
    one = one or bundle()
    said = answer(one, given or intake(), **choices)
    if mapped and said.refused is None:
        said = Answer(**{**vars(said), "attribution": one_patient.panel()})
    return page(said, one)


def test_page_fetches_nothing_runs_nothing_and_allows_nothing_else():
    text = _card()
    elements = Parsed(text).elements
    assert not {tag for tag, _ in elements} & {"script", "iframe", "object", "link", "form", "base"}
    for tag, attributes in elements:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"'sha256-{digest}'" in policy()
    said = next(one["content"] for _, one in elements if one.get("http-equiv") == "Content-Security-Policy")
    assert said == policy() and "url(" not in style and "@import" not in style


def test_every_picture_is_told_in_words_and_the_language_is_named():
    elements = Parsed(_card()).elements
    assert ("html", {"lang": "en"}) in elements
    assert all(one.get("alt") for tag, one in elements if tag == "img")
    assert all(one.get("aria-label") and one.get("role") == "img" for tag, one in elements if tag == "svg")
    assert sum(tag == "h1" for tag, _ in elements) == 1


@pytest.mark.parametrize("hostile", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}"])
def test_words_of_others_stay_words(hostile):
    text = _card(label=hostile, given=intake(notes=[hostile]))
    parsed = Parsed(text)
    assert hostile in parsed.text and "49" not in parsed.text.split(hostile)[0][-10:]
    assert not any(tag == "script" or "onerror" in one for tag, one in parsed.elements)


def test_a_refused_patients_page_says_why_and_holds_no_prognosis():
    told = Parsed(_card(bundle(score=9.0)))
    assert "No prognosis is given" in told.text and "The image differs" in told.text
    assert "For research only" in told.text
    assert not any(tag == "img" for tag, _ in told.elements)
    for word in ("alive", "months", "Lower bound", "third of risk", "Of 100 patients"):
        assert word not in told.text


def test_page_says_the_chances_that_the_answer_has():
    one = bundle(400.0)
    text = Parsed(_card(one)).text
    for day, when in ((91, "3 months"), (183, "6 months"), (365, "12 months"), (730, "24 months")):
        assert f"At {when} {100 * np.exp(-day / 400):.0f} %" in text
    assert "about 40 are alive after 12 months" in text
    assert "Middle third of risk , at higher risk than 60 %" in text  # 1 - exp(-365 / 400)
    assert "Lower bound on survival: 42 days, that of the middle third of risk. This is marginal coverage" in text
    assert "80 % are guaranteed to, whatever the model" in text and "of one patient alone it says nothing" in text
    assert "Out of fold, 91 % (84 to 95 %) did; of the quarter at highest predicted risk, 85 % (69 to 94 %)." in text
    assert "Sex: male (typically female)" in text


def test_a_model_that_has_not_fallen_is_not_said_to_prove_that_nobody_dies():
    text = Parsed(_card(bundle(1e9, patients=41))).text
    assert "At 3 months > 99 % 93 to 100 %" in text and "no death" not in text
    assert "over 99 %" in Parsed(_card(bundle(1e9, patients=1000))).text


@pytest.mark.parametrize(
    ("outcome", "state"),
    [
        ("overall survival", "alive"),
        ("disease-free survival", "alive and free of disease"),
        ("recurrence-free survival", "alive and free of recurrence"),
    ],
)
def test_only_overall_survival_is_called_being_alive_in_words_and_in_the_figure(outcome, state):
    text = _card(bundle(cohort=one_patient.about()["cohort"] | {"outcome": outcome}))
    figure = base64.b64decode(re.search(r"data:image/svg\+xml;base64,([^\"]+)", text)[1]).decode()
    label = " ".join(re.findall(r"<!-- (.*?) -->", figure))
    words = Parsed(text).text
    assert f"Half of such patients are {state} after" in words
    assert f"Predicted {outcome} Grad-CAM" in words and "Median survival" not in text
    assert f"Probability of being {state}" in label and (state == "alive") == ("and free of" not in text + label)


def test_where_nothing_can_be_compared_no_distance_is_told():
    one, why = bundle(), "nothing of this patient can be compared with the training patients"
    nothing = {"score": None, "limit": 2.5, "percentile": None, "refused": True, "group": "", "why": why}
    one.likeness.judge = lambda model, patients: [nothing]
    parsed = Parsed(_card(one))
    assert "Nothing of this patient can be compared" in parsed.text and "There is nothing to compare." in parsed.text
    assert "Distance" not in parsed.text and not any(tag == "svg" for tag, _ in parsed.elements)


def test_a_simulated_cohort_says_so_in_the_colour_of_alarm():
    cohort = one_patient.about()["cohort"] | {"simulated": True}
    plain, warned = _card(), _card(bundle(cohort=cohort))
    assert 'class="alarm"' not in plain
    assert re.search(r'class="alarm"[^>]*>Simulated cohort: the 100 patients', warned)
    assert re.search(r"\.alarm \{ color: var\(--alarm\)", warned) and "--alarm: #b42318" in warned


def test_what_is_missing_is_told_with_what_stands_for_it():
    lacking = {"chart": ["age"], "modalities": ["pt"], "measured": ["tumour_ml"]}
    text = Parsed(_card(given=intake(missing=lacking, imputed={"age": 60.0}))).text
    assert "Not scanned: PET" in text and "Age (taken as 60 years)" in text and "Tumour volume" in text
    reached = one_patient.about()["params"] | {"scores": {"horizons_days": {"other": []}}}
    assert "Nothing: every scan" in Parsed(_card(bundle(params=reached), explained=False, mapped=False)).text
    assert "No probability is given beyond day 1\u202f000." in " ".join(Parsed(_card()).words)


def test_same_answer_gives_the_same_bytes():
    assert _card() == _card()


def test_overlay_keeps_millimetres_square_and_outlines_the_tumour_alone():
    pixels = overlay(one_patient.panel())
    assert pixels.dtype == np.uint8 and pixels.shape[0] == 2 * pixels.shape[1]
    rows, columns = np.nonzero((pixels == OUTLINE).all(axis=2))
    step = pixels.shape[0] / 20, pixels.shape[1] / 20
    assert rows.min() / step[0] == pytest.approx(5, abs=1) and rows.max() / step[0] == pytest.approx(10, abs=1)
    assert columns.min() / step[1] == pytest.approx(5, abs=1) and columns.max() / step[1] == pytest.approx(10, abs=1)


def test_a_tumour_outside_the_slice_is_told():
    one, slice_ = bundle(), one_patient.panel()
    slice_["mask"][:] = 0
    said = Answer(**{**vars(answer(one, intake())), "attribution": slice_})
    assert "The tumour does not reach it." in Parsed(page(said, one)).text


def test_numbers_read_as_people_say_them():
    assert [span(days) for days in (1, 45, 365.25, 1461, None)] == [
        "1 day",
        "45 days",
        "12 months",
        "48 months",
        "not reached",
    ]
    assert span(365.25 * 6.2) == "6.2 years"
    assert [percent(one) for one in (0, 0.004, 0.5, 1)] == ["< 1\xa0%", "< 1\xa0%", "50\xa0%", "> 99\xa0%"]


def test_words_stand_out_from_what_they_are_written_on():
    colours = dict(re.findall(r"--(\w+): (#\w+);", _card()))
    for word in ("ink", "soft", "alarm", "link"):
        for ground in ("#ffffff", colours["wash"]):
            assert _contrast(colours[word], ground) >= 4.5  # WCAG 2.2, level AA


def _contrast(one: str, other: str) -> float:
    def luminance(colour: str) -> float:
        parts = np.array([int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)])
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    bright, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_page_prints_on_one_sheet(tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser:
        pytest.skip("no Chromium on this machine: nothing to print with")
    lacking = {"chart": ["age", "sex"], "modalities": ["pt", "t1c"], "measured": ["tumour_ml"]}
    cohort = one_patient.about()["cohort"] | {
        "simulated": True,
        "title": "A cohort whose title is rather long, of 2025",
    }
    card = _card(
        bundle(cohort=cohort), intake(missing=lacking, imputed={"age": 60.0}, notes=["Something was odd."] * 2)
    )
    (tmp_path / "card.html").write_text(card)
    subprocess.run(
        [browser, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}",
         "--no-pdf-header-footer", f"--print-to-pdf={tmp_path / 'card.pdf'}", f"file://{tmp_path / 'card.html'}"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    assert re.findall(rb"/Count (\d+)", (tmp_path / "card.pdf").read_bytes()) == [b"1"]
