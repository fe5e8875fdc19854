"""The report: nothing unresolved, nothing from the net, the same bytes twice, and readable in a browser."""

import asyncio
import json
import re
import shutil
import subprocess
from hashlib import sha256
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pytest
import yaml
from bs4 import BeautifulSoup

from survpack import paths, render
from survpack.errors import BadInput
from survpack.numbers import amount

SOURCES = ["paper.qmd", "_cohort.qmd", "_summary.qmd", "references.bib", "paper.css", "survpack.lua"]
FIGURES = [
    "cohort/flow", "cohort/survival", "biomarkers/heatmap", "biomarkers/distributions", "biomarkers/icc",
    "biomarkers/univariate", "biomarkers/scanner", "biomarkers/growth", "evaluation/controls", "evaluation/forest",
    "explanation/importance-lesion-cox",
    "reliability/risk-groups", "reliability/calibration", "evaluation/roc", "reliability/days",
    "explanation/importance-hybrid-efficientnet-mse",
    "explanation/shap-clinical-cox", "reliability/decision", "reliability/bounds", "reliability/subgroups", "designs/by-design",
    "designs/spread", "audit/audit", "audit/noise", "explanation/parts-hybrid-additive-cox", "explanation/survshap",
    "prognosis/recalibration",
]  # fmt: skip
TABLES = [
    "cohort/characteristics", "cohort/settings", "biomarkers/crops", "biomarkers/lesions", "biomarkers/counts", "evaluation/scores-cv", "evaluation/scores-test",
    "biomarkers/gate", "reliability/calibration", "reliability/groups", "reliability/days", "reliability/bounds",
    "reliability/subgroups", "designs/concordance", "designs/combat", "audit/audit",
    "explanation/faithfulness-hybrid-efficientnet-mse", "explanation/faithfulness-hybrid-additive-cox",
    "explanation/whereabouts-hybrid-additive-cox", "prognosis/unlike",
]  # fmt: skip
RADIOMICS = {
    "features": 2524, "with_icc": 2442, "robust": 748, "icc_threshold": 0.75, "volume_like": 79, "volume_threshold": 0.9,
    "tested": 227, "discoveries": 91,
    "crops": {"imaged": 148, "cut": 3, "worst": 0.041, "filled": 1, "outside": 3, "worst_outside": 0.041},
}  # fmt: skip
MODELS = ["age", "volume", "clinical-cox", "hybrid-efficientnet-mse", "hybrid-efficientnet-cox"]
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="624" height="288"><rect width="600" height="250" fill="teal"/></svg>'
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010806000000"
    "1f15c4890000000d49444154789c6360606060000000050001a5f645400000000049454e44ae426082"
)


def between(estimate, width=0.05):
    return {"estimate": estimate, "low": estimate - width, "high": estimate + width}


def write(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def make_cohort(name: str, *, phantom: bool) -> None:
    """What the pipeline leaves for one cohort; only the phantom has an oracle, Grad-CAM and a median."""
    facts = {
        "cohort": name, "title": f"Cohort <{name}> & *co*", "source": "DOI 10.7937/x_y", "licence": "CC BY 4.0",
        "profile": "default", "outcome": "overall survival", "n": 1148, "events": 111,
        "median_followup_days": 868.4, "median_survival_days": 402.0 if phantom else None, "horizon_days": 365,
        "sites": {"A": 600, "B": 548}, "flow": [{"step": "in the source", "excluded": 0, "remaining": 1148}],
        "splits": {"development": {"n": 918, "events": 89}, "test": {"n": 230, "events": 22}},
        "censored": 0.9033, "duplicates": 0, "visits": {},
    }  # fmt: skip
    alone = {"age": {"harrell_c": between(0.58)}, "volume": {"harrell_c": between(0.57)}}
    write(paths.METRICS / f"univariate-{name}.json", {"all_patients": alone})
    if phantom:
        facts["oracle"] = {"harrell_c": between(0.741)}
    metrics = {"harrell_c": between(0.6), "r2": between(-0.2, 0.15), "mae_days": between(212.4, 31)}
    metrics["ibs"] = {"estimate": None, "low": None, "high": None}
    scores = {split: {model: dict(metrics) for model in MODELS} for split in ("cv", "test")}
    scores["cv"]["clinical-cox"]["harrell_c"] = between(0.634)
    write(paths.METRICS / f"{name}.json", scores)
    write(paths.METRICS / f"radiomics-{name}.json", RADIOMICS)
    write(paths.METRICS / f"cohort-{name}.json", facts)
    reading = "hybrid-efficientnet-cox minus clinical-cox: −0.03 (−0.10 to 0.04): not shown"
    read_once = "The test set, 230 patients, has been read once."
    write(
        paths.METRICS / f"comparisons-{name}.json",
        {"readings": [reading], "null_ibs": 0.2041, "test_reading": read_once},
    )
    write(paths.METRICS / f"audit-{name}.json", {"reading": "Slices *split* at random have R² 0.95."})
    said = {model: "The *image* moves it by 0.3." for model in ("hybrid-efficientnet-mse", "hybrid-additive-cox")}
    write(paths.METRICS / f"faithfulness-{name}.json", {"said": said})
    cards = {"sub-1": {"declined": False}, "sub-1-noise": {"declined": True}}
    told = {"model": "hybrid-additive-cox", "bundle": "sha256:1", "cards": cards, "onnx_difference": 2.4e-7}
    write(paths.METRICS / f"prognosis-{name}.json", told if phantom else {"model": "hybrid-additive-cox"})
    own = paths.CohortPaths(name)
    for figure in FIGURES:
        if figure in ("biomarkers/scanner", "audit/noise") and not phantom:
            continue  # nobody can be imaged again, and no hazard is known
        write(own.figures(".") / f"{figure}.svg", SVG)
    if phantom:
        for shown in ("maps", "mean"):
            write(own.figures("explanation") / f"{shown}-hybrid-efficientnet-mse.png", PNG)
    wide = "| Model | " + " | ".join(f"A long heading {k}" for k in range(9)) + " |\n" + "|:--" * 10 + "|\n"
    shas = [f"{name}-0", "shared" if phantom else f"{name}-1"]
    signatures = [sha256(sha.encode()).hexdigest() * 16 for sha in shas]  # 512 bytes
    rows = "".join(f"p{k},baseline,mask,{shas[k]},{signatures[k]}\n" for k in range(2))
    write(own.tables("cohort") / "hashes.csv", "patient_id,session,modality,sha,signature\n" + rows)
    for table in TABLES:
        write(own.tables(".") / f"{table}.md", wide + "| x | " + "0.63 (0.57 to 0.69) | " * 9 + "\n")


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A repository of its own: the paper's sources, and two cohorts' results."""
    real = paths.ROOT
    places = {"ROOT": tmp_path, "REPORTS": tmp_path / "reports", "METRICS": tmp_path / "reports" / "metrics"}
    for name, place in (places | {"PARAMS": tmp_path / "params.yaml"}).items():
        monkeypatch.setattr(paths, name, place)
    (tmp_path / "reports").mkdir()
    for source in SOURCES:
        shutil.copy(real / "reports" / source, tmp_path / "reports" / source)
    shutil.copy(real / "params.yaml", tmp_path / "params.yaml")
    monkeypatch.setattr(render, "quarto_command", lambda: None)  # by Pandoc, even where Quarto is
    value = {"feature": "Contrast", "value": 1.0, "reference": 1.0, "tolerance": 0.1, "within": True}
    outside = {**value, "value": 2.0, "within": False}
    write(paths.METRICS / "conformance.json", {"digital phantom": {"cm_contrast": value, "cm_energy": outside}})
    write(
        tmp_path / "reports" / "tables" / "study" / "conformance.md",
        "| Configuration | Share |\n|:--|:--|\n| a | 50 % |\n",
    )
    make_cohort("mets", phantom=True)
    make_cohort("my_own", phantom=False)
    return tmp_path


def test_cohorts_that_share_an_image_say_so(study):
    found = render.variables(["mets", "my_own"], "here")
    assert found["mets"]["overlap"] == found["my_own"]["overlap"] == "It shares no image with the other cohorts."
    assert "overlap" not in render.variables(["mets"], "here")["mets"]
    make_cohort("again", phantom=True)
    found = render.variables(["mets", "my_own", "again"], "here")
    assert found["mets"]["overlap"] == "It shares images with again (one image)."


def test_what_conforms_is_counted_over_all_configurations_and_a_missing_benchmark_is_said(study):
    told = render.variables(["mets"], "here")["study"]["conformance"]
    assert told.startswith("1 of 2 benchmarked values lie within tolerance, on the digital phantom.")
    assert "CT phantom of the benchmark was not at hand" in told
    (paths.METRICS / "conformance.json").unlink()
    with pytest.raises(BadInput, match="conformance.json: not found"):
        render.variables(["mets"], "here")


@pytest.mark.parametrize("ratio, said", [(3.2, "3.2 (mets)"), (0.8, "0.8 (mets)")])
def test_the_speed_is_what_was_measured_and_not_called_faster(ratio, said, study):
    assert "not measured" in render.variables(["mets"], "here")["study"]["speed"]
    one = {"ours": ratio, "peer": 1.0, "ratio": ratio, "unit": "cases a second"}
    write(paths.METRICS / "benchmarks.json", {"radiomics-mets": one, "mets-memory": one})
    told = render.variables(["mets"], "here")["study"]["speed"]
    assert said in told and "faster" not in told and "memory" not in told


@pytest.mark.parametrize("ratio, said", [(8.4, "8.4 (compact)"), (0.8, "0.8 (compact)")])
def test_the_speed_of_training_is_what_was_measured_and_not_called_faster(ratio, said, study):
    assert "not measured" in render.variables(["mets"], "here")["study"]["training_speed"]
    one = {"ours": ratio, "peer": 1.0, "ratio": ratio, "unit": "samples a second"}
    found = {"training-compact-fit": one, "training-compact-fit-cached": one | {"ratio": 2.0}, "training-compact": one}
    write(paths.METRICS / "benchmarks.json", found)
    told = render.variables(["mets"], "here")["study"]["training_speed"]
    assert said in told and "2.0 (compact)" in told and "faster" not in told


def test_numbers_of_stage_02_are_in_the_page(study):
    found = render.variables(["mets"], "here")["mets"]["radiomics"]
    assert found["features"] == amount(2524) and found["robust"] == f"748 of {amount(2442)} (31 %)"
    assert found["discoveries"] == "91 features of 227 remain below 5 %."


def test_patients_whose_tumour_leaves_the_crop_are_counted_on_the_page_and_settings_say_whence_they_come(study):
    text = " ".join(page_of(["mets"]).body.get_text().split())
    assert "In 3 of 148 patients the largest lesion leaves the crop, by 4 % of its volume at worst" in text
    assert "1 of the crops is filled by tumour" in text
    assert "What the networks see of the tumour" in text and "Settings of this cohort." in text


def page_of(cohorts) -> BeautifulSoup:
    return BeautifulSoup(render.render(cohorts).read_text(encoding="utf-8"), "html.parser")


@pytest.mark.parametrize("cohorts", [["mets"], ["my_own", "mets"]])
def test_every_reference_and_shortcode_is_resolved(study, cohorts):
    page = page_of(cohorts)
    text = page.body.get_text()
    assert not re.search(r"\{\{<|@(fig|tbl|sec)-|\$cohort|\$title|<!-- |\?\?|:::|\(\?\)", text)
    assert not re.search(r"\b(fig|tbl|sec)-[a-z]", text)
    identifiers = [tag["id"] for tag in page.find_all(id=True)]
    assert len(identifiers) == len(set(identifiers))
    inside = [link["href"][1:] for link in page.find_all("a", href=True) if link["href"].startswith("#")]
    assert inside and set(inside) <= set(identifiers)


def test_figures_and_tables_are_numbered_in_the_order_of_the_page(study):
    page = page_of(["my_own", "mets"])
    labels = [label.get_text().replace("\xa0", " ") for label in page.select(".float-label")]
    for kind, least in (("Figure", 20), ("Table", 10)):
        own = [label for label in labels if label.startswith(kind)]
        assert own == [f"{kind} {k}." for k in range(1, len(own) + 1)] and len(own) >= least
    for link in page.select("a.crossref"):
        target = page.find(id=link["href"][1:])
        number = target.select_one(".float-label") or target.select_one(".header-section-number")
        assert link.get_text().split("\xa0")[1] == number.get_text().rstrip(".").split("\xa0")[-1]


def test_every_figure_has_alt_text_other_than_its_caption(study):
    images = page_of(["mets"]).find_all("img")
    assert len(images) == len(FIGURES) + 2
    for image in images:
        caption = image.find_parent("figure").figcaption.get_text()
        assert len(image["alt"]) > 20 and image["alt"] not in caption


def test_a_narrow_cell_breaks_before_its_interval_and_not_inside(study):
    cells = {cell.get_text() for cell in page_of(["mets"]).select("#tbl-mets-scores-cv td")}
    assert cells == {"x", "0.63 (0.57\xa0to\xa00.69)"}


def test_the_paper_names_every_model_as_the_figures_do():
    from survpack.figures import label
    from survpack.models import MODELS as known

    text = (paths.ROOT / "reports" / "paper.qmd").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| `([^`]+)` \|", text, re.MULTILINE)
    assert dict(map(reversed, rows)) == {name: label(name) for name in known}


def test_drawings_are_embedded_whole_and_lighter(study):
    page = page_of(["mets"])
    drawn = page.find(id="fig-mets-forest").img["src"].removeprefix("data:image/svg+xml,")
    assert ElementTree.canonicalize(unquote(drawn)) == ElementTree.canonicalize(SVG)
    assert page.find(id="fig-mets-maps").img["src"].startswith("data:image/png;base64,")


def test_the_page_asks_nothing_of_the_net(study):
    text = render.render(["mets", "my_own"]).read_text(encoding="utf-8")
    page = BeautifulSoup(text, "html.parser")
    loaded = [tag.get("src") or tag.get("href") for tag in page.find_all(["img", "script", "link", "iframe", "source"])]
    assert loaded and all(address.startswith("data:") for address in loaded)
    styles = "".join(style.get_text() for style in page.find_all("style"))
    assert not re.search(r"url\((?!['\"]?data:)|@import", styles)


def test_numbers_in_the_prose_are_those_of_the_files(study):
    text = page_of(["mets"]).body.get_text().replace("\n", " ")
    numbers = yaml.safe_load((study / "_variables.yml").read_text(encoding="utf-8"))
    assert numbers["mets"]["test"]["hybrid-efficientnet-mse"]["mae_days"] == "212 (181 to 243)"
    assert "R² of −0.20 (−0.35 to −0.05)" in text
    assert "is 0.63 (0.58 to 0.68), of “Clinical, Cox”, which has" in text
    assert "The risk that generated the outcomes has 0.74 (0.69 to 0.79)." in text
    assert "one cohort: Cohort <mets> & *co*." in text and "1\u202f148 patients" in text
    assert "ibs" not in numbers["mets"]["cv"]["age"]  # not estimable: no template may cite it


def test_a_cohort_without_truth_or_gradcam_claims_neither(study):
    text = page_of(["my_own"]).body.get_text()
    results = text[text.index("What the simplest predictors achieve") : text.rindex("Discussion")]
    assert "These are real patients" in results and "phantom" not in results
    assert "no median survival" in text and "Grad-CAM." not in results


def test_a_bundle_s_cards_are_told_and_a_cohort_without_one_tells_of_none(study):
    text = page_of(["mets"]).body.get_text().replace("\n", " ")
    assert "Two cards of test patients are in reports/cards/mets/; declined: sub-1-noise." in text
    assert "differs by 2e-07 at most" in text and "The *image* moves it by 0.3." in text
    assert "reports/cards/" not in page_of(["my_own"]).body.get_text()


def test_two_runs_give_the_same_bytes(study):
    first = render.render(["mets"]).read_bytes()
    assert render.render(["mets"]).read_bytes() == first
    assert not list(study.rglob("*.part"))


def test_an_unknown_variable_is_refused_and_named_with_its_file(study):
    with open(study / "reports" / "paper.qmd", "a", encoding="utf-8") as source:
        source.write("\n{{< var study.nonsense >}}\n")
    with pytest.raises(BadInput, match=r"paper\.qmd.*study\.nonsense"):
        render.render(["mets"])


@pytest.mark.parametrize("key", ["fig-nowhere", "nobody1900"])
def test_a_dangling_reference_stops_the_render_and_keeps_the_old_page(study, key):
    before = render.render(["mets"]).read_bytes()
    with open(study / "reports" / "_cohort.qmd", "a", encoding="utf-8") as source:
        source.write(f"\nSee @{key}.\n")
    with pytest.raises(BadInput, match=key):
        render.render(["mets"])
    assert (study / "reports" / "paper.html").read_bytes() == before


def test_a_cohort_without_results_says_what_to_run(study):
    with pytest.raises(BadInput, match="make report"):
        render.render(["sts"])


def test_quarto_is_preferred_and_gets_the_same_numbers(study, monkeypatch):
    fake = study / "quarto"
    fake.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && echo 1.99 && exit\n'
        'mkdir -p reports/site/reports && echo "$@" > reports/site/reports/paper.html && cat _variables.yml >> reports/site/reports/paper.html'
    )
    fake.chmod(0o755)
    monkeypatch.setattr(render, "quarto_command", lambda: str(fake))
    page = render.render(["mets"]).read_text(encoding="utf-8")
    assert page.startswith("render reports/paper.qmd") and "engine: Quarto 1.99" in page


def test_the_site_is_told_what_quarto_needs():
    site = yaml.safe_load((paths.ROOT / "_quarto.yml").read_text(encoding="utf-8"))
    assert site["execute"] == {"enabled": False}
    assert "reports/paper.qmd" in site["project"]["render"]
    assert site["format"]["html"]["html-math-method"] == "mathml"


# --- in a browser ------------------------------------------------------------------------------------------------


async def _ask(socket, number, method, session=None, **parameters):
    message = {"id": number, "method": method, "params": parameters}
    await socket.write_message(json.dumps(message | ({"sessionId": session} if session else {})))
    seen = []
    while True:
        answer = json.loads(await asyncio.wait_for(socket.read_message(), 30))
        if answer.get("id") == number:
            return answer["result"], seen
        seen.append(answer)


async def _inspect(address: str, page: str, width: int) -> dict:
    """Width of the page in a window `width` pixels wide, and what the console said."""
    from tornado.websocket import websocket_connect

    socket = await websocket_connect(address, max_message_size=2**28)
    target, _ = await _ask(socket, 1, "Target.createTarget", url="about:blank")
    attached, _ = await _ask(socket, 2, "Target.attachToTarget", targetId=target["targetId"], flatten=True)
    session = attached["sessionId"]
    events = []
    for number, method in enumerate(["Log.enable", "Runtime.enable", "Page.enable", "Network.enable"], start=3):
        await _ask(socket, number, method, session)
    screen = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    await _ask(socket, 7, "Emulation.setDeviceMetricsOverride", session, **screen)
    events += (await _ask(socket, 8, "Page.navigate", session, url=page))[1]
    script = "new Promise(done => { const end = () => done([innerWidth, document.documentElement.scrollWidth]);"
    script += " document.readyState == 'complete' ? end() : addEventListener('load', end) })"
    found, seen = await _ask(
        socket, 9, "Runtime.evaluate", session, expression=script, awaitPromise=True, returnByValue=True
    )
    events += seen
    socket.close()
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    errors = [
        e for e in events if e["method"] in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    ]
    inner, content = found["result"]["value"]
    return {"inner": inner, "content": content, "errors": errors, "asked": asked}


@pytest.fixture
def browser(tmp_path):
    """Address of a headless Chromium's debugging socket."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH: the page is not opened in a browser")
    command = [chromium, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--no-first-run", "--disable-dev-shm-usage", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={tmp_path / 'chromium'}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        try:
            yield next(line.split()[-1] for line in process.stderr if line.startswith("DevTools listening"))
        finally:
            process.kill()


@pytest.mark.parametrize("width", [390, 1280])
def test_in_a_browser_the_page_fits_its_window_and_stays_silent(study, browser, width):
    page = render.render(["mets", "my_own"])
    found = asyncio.run(_inspect(browser, page.as_uri(), width))
    assert found["content"] <= found["inner"] == width
    assert found["errors"] == []
    assert found["asked"] and all(address.startswith(("file:", "data:")) for address in found["asked"])


def test_the_page_says_of_each_cohort_whether_an_image_branch_has_collapsed(study):
    assert render.variables(["mets"], "here")["study"]["collapsed"] == "No network was asked in this run."
    gone = {"image_effect": {"estimate": 0.01, "low": 0.0, "high": 0.02}, "collapsed": True}
    write(paths.METRICS / "networks-mets.json", {"hybrid-efficientnet-mse": gone})
    found = render.variables(["mets", "my_own"], "here")
    assert "Hybrid EfficientNet, MSE has collapsed" in found["mets"]["collapsed"] and "collapsed" not in found["my_own"]
    assert "Hybrid EfficientNet, MSE has collapsed" in found["study"]["collapsed"]
