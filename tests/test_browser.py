"""The page in a real browser: Chromium through playwright, against a service that runs."""

import http.server
import json
import os
import shutil
import threading
import time
from types import SimpleNamespace

import pytest
import requests
from served import ABOUT, echo
from served import running as served

from survpack.errors import BadInput

CARD = """<!doctype html><html lang="en"><style>h1 { color: rgb(1, 2, 3) }</style><h1>Card of %s</h1>
<p id="chart">%s</p><img alt="dot" src="data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7">
<script>document.querySelector("h1").textContent = "a script ran"</script>
<img alt="" src="http://127.0.0.1:9/outside.png">"""


def _card(bundle, sent, as_page, limits):
    """A card that tries what no card does: to run a script, and to load a picture from elsewhere."""
    if sent.label == "wrong":
        raise BadInput("scan_t1c.nii.gz: <b>unreadable</b>, expected NIfTI; copy it anew.")
    said = echo(bundle, sent, False, limits)
    return CARD % (said["label"], json.dumps([said["chart"], said["scans"], said["names"]])) if as_page else said


@pytest.fixture(scope="module")
def browser():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; the page is not tried")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with api.sync_playwright() as play:
        if not found and not os.path.exists(play.chromium.executable_path):
            pytest.skip("no Chromium on this machine (apt install chromium); the page is not tried in a browser")
        opened = play.chromium.launch(executable_path=found, args=["--no-sandbox"] if os.geteuid() == 0 else [])
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address():
    with served(SimpleNamespace(about=ABOUT), _card) as at:
        yield at


@pytest.fixture
def page(browser, address):
    """The page, and in `page.complaints` and `page.asked` what the console and the network saw."""
    opened = browser.new_page()
    opened.complaints, opened.asked = [], []
    opened.on(
        "console", lambda said: opened.complaints.append(said.text) if said.type in ("error", "warning") else None
    )
    opened.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.on("request", lambda request: opened.asked.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()


def _file(name: str, content: bytes = b"\x01") -> dict:
    return {"name": name, "mimeType": "application/gzip", "buffer": content}


def test_a_patient_filled_in_by_hand_becomes_a_card(page):
    page.get_by_label("Age").fill("61.5")
    page.get_by_label("Sex").select_option("male")
    page.locator("#scan-t1c").set_input_files(_file("scan.nii.gz", b"\x07"))
    page.get_by_label("Mask of all scans").set_input_files(_file("mask.nii.gz"))
    page.get_by_label("Heading").fill("P-7 <i>")
    assert not page.complaints
    page.get_by_role("button", name="Make the card").press("Enter")
    card = page.frame_locator('iframe[title="The patient\'s card"]')
    card.locator("h1").wait_for()
    chart, scans, names = json.loads(card.locator("#chart").inner_text())
    assert json.loads(chart) == {"age": 61.5, "sex": "male"} and scans == {"t1c": "07"}
    assert names == ["mask.nii.gz", "scan_t1c.nii.gz"]
    assert card.locator("h1").evaluate("one => getComputedStyle(one).color") == "rgb(1, 2, 3)"
    assert card.locator("img[alt=dot]").evaluate("one => one.naturalWidth") == 1
    with page.expect_download() as download:
        page.get_by_role("link", name="Save the card").click()
    assert "Card of P-7" in download.value.path().read_text()


def test_a_card_runs_no_script_and_the_page_loads_nothing_from_elsewhere(page, address):
    page.get_by_role("button", name="Make the card").click()
    heading = page.frame_locator("iframe").locator("h1")
    heading.wait_for()
    page.wait_for_timeout(300)
    assert heading.inner_text() == "Card of patient"
    assert any("outside.png" in said for said in page.complaints)  # refused by the policy, and said so
    assert all(url.startswith((address, "data:", "blob:", "about:")) for url in page.asked if "outside" not in url)


def test_a_mistake_is_told_as_text_and_the_form_stays(page):
    page.get_by_label("Heading").fill("wrong")
    page.get_by_label("Age").fill("50")
    page.get_by_role("button", name="Make the card").click()
    alert = page.get_by_role("alert")
    alert.wait_for()
    assert alert.inner_text() == "scan_t1c.nii.gz: <b>unreadable</b>, expected NIfTI; copy it anew."
    assert page.get_by_label("Age").input_value() == "50" and not page.locator("#result").is_visible()
    page.get_by_label("Heading").fill("right")
    page.get_by_role("button", name="Make the card").click()
    page.frame_locator("iframe").locator("h1").wait_for()
    assert not alert.is_visible()


def test_dropped_files_find_their_field_by_name(page):
    names = ["sub-1_ce-gd_T1w.nii.gz", "sub-1_T1w.nii.gz", "sub-1_dseg.nii.gz", "notes.txt"]
    page.evaluate(
        """names => {
          const held = new DataTransfer();
          for (const name of names) held.items.add(new File(["x"], name));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", {dataTransfer: held, bubbles: true}));
        }""",
        names,
    )
    chosen = {name: page.locator(f"input[name={name}]").evaluate("one => one.files[0]?.name ?? null")
              for name in ("scan_t1c", "scan_t1n", "mask", "mask_t1c")}  # fmt: skip
    assert chosen == {"scan_t1c": names[0], "scan_t1n": names[1], "mask": names[2], "mask_t1c": None}
    assert "notes.txt" in page.locator("#dropped").inner_text()


def test_every_field_has_a_name_and_the_page_fits_a_phone(page):
    for field in page.locator("input, select").all():
        assert field.evaluate("one => one.labels.length") == 1
    page.set_viewport_size({"width": 360, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def test_a_page_of_another_site_can_neither_ask_nor_frame_the_service(browser, address):
    port = address.rsplit(":", 1)[1]
    evil = f"""<!doctype html><iframe src="{address}"></iframe><script>
      const body = new FormData(); body.append("chart", "{{}}"); body.append("label", "evil");
      window.done = Promise.allSettled([
        fetch("{address}/predict", {{method: "POST", mode: "no-cors", body}}),
        fetch("http://localhost:{port}/predict", {{method: "POST", body}}),
        fetch("{address}/version").then(said => said.text()),
      ]).then(all => all.map(one => one.status + " " + (one.value?.type ?? typeof one.value)));
    </script>"""

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(evil.encode())

        def log_message(self, *_):
            pass

    asked = []
    with served(SimpleNamespace(about=ABOUT), lambda *given: asked.append(given) or {}) as target:
        evil = evil.replace(address, target).replace(f"localhost:{port}", f"localhost:{target.rsplit(':', 1)[1]}")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil) as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{server.server_port}/")
            told = page.evaluate("window.done")
            framed = [frame.url for frame in page.frames if frame.url.startswith(target)]
            page.close()
            server.shutdown()
        assert not asked and not framed
        assert told[1].startswith("rejected") and told[2].startswith("rejected"), told
        assert requests.get(f"{target}/health").json()["requests"] == 0


def test_a_service_that_is_gone_is_told_in_words(browser):
    with served(SimpleNamespace(about=ABOUT), _card) as at:
        page = browser.new_page()
        page.goto(at)
    time.sleep(0.1)
    page.get_by_role("button", name="Make the card").click()
    page.get_by_role("alert").wait_for()
    assert "did not answer" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("button", name="Make the card").is_enabled()
    page.close()
