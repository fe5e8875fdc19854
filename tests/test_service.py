"""The service as a client meets it: a real server on a port of its own, spoken to over sockets."""

import contextlib
import io
import json
import logging
import os
import re
import select
import socket
import stat
import tempfile
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests
import SimpleITK as sitk
import wrong
from conftest import settled
from served import ABOUT
from served import running as served

from survpack import params as params_module
from survpack.deploy import archive, guard, service
from survpack.deploy.answer import LONGEST_LABEL
from survpack.deploy.limits import LIMITS, Budget, Refused, Room
from survpack.errors import BadInput

SECRET = "Jane Doe"
SMALL = replace(LIMITS, body_bytes=3_000_000, file_bytes=100_000, text_bytes=2000, files=20, unpacked_bytes=300_000)
QUICK = replace(LIMITS, head_seconds=0.25, idle_seconds=0.25, upload_seconds=0.6, wait_seconds=0.25)


@pytest.fixture
def bundle():
    return SimpleNamespace(about=ABOUT)


@pytest.fixture
def held(tmp_path, monkeypatch):
    """Where temporary files go."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def start(bundle, held, plain):
    """`start(prognose, limits)`: the address of a service, which must leave no file behind; one serves all that ask for
    nothing special."""
    with contextlib.ExitStack() as stack:

        def begun(*given, **options) -> str:
            return stack.enter_context(served(bundle, *given, **options)) if given or options else plain

        yield begun
    assert not list(held.iterdir())


@pytest.fixture(scope="module")
def plain():
    """The address of one service as it comes."""
    with served(SimpleNamespace(about=ABOUT)) as address:
        yield address


@pytest.fixture(scope="module")
def small():
    """The address of one service of small limits."""
    with served(SimpleNamespace(about=ABOUT), limits=SMALL) as address:
        yield address


def _raw(address: str, *pieces: bytes, pause: float = 0.0, timeout: float = 10.0) -> bytes:
    """What the service says to these bytes, until it closes or falls silent; `close` in the header ends it."""
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=timeout) as line:
        for piece in pieces:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has closed: what did it say?
                line.sendall(piece)
            time.sleep(pause)
        return _all(line)


def _all(line: socket.socket) -> bytes:
    said = b""
    try:
        while piece := line.recv(65536):
            said += piece
            head, _, body = said.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", head)
            if length and len(body) >= int(length[1]):
                break
    except (TimeoutError, ConnectionResetError):
        pass
    return said


def _head(length: int | None, boundary: str = "edge", **headers: str) -> bytes:
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    lines = [
        "POST /predict HTTP/1.1",
        "Host: 127.0.0.1",
        size,
        f"Content-Type: multipart/form-data; boundary={boundary}",
    ]
    return "\r\n".join([*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]).encode()


def _part(name: str, content: bytes = b"x", extra: str = "") -> bytes:
    return f'--edge\r\nContent-Disposition: form-data; name="{name}"{extra}\r\n\r\n'.encode() + content + b"\r\n"


def _zip(*members, method=zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as out:
        for name, content in members:
            out.writestr(name, content)
    return packed.getvalue()


def _post(address, files=None, **options):
    return requests.post(f"{address}/predict", files=files, timeout=20, **options)


def test_a_patient_is_answered_as_json_or_as_a_card(start):
    address = start()
    files = {"scan_t1c": ("a.nii.gz", b"\x01\x02"), "mask": ("b.nii", b"m"), "chart": (None, '{"age": 61}')}
    said = _post(address, files, data={"label": "P-7"})
    assert said.status_code == 200 and said.headers["content-type"] == "application/json"
    assert said.json()["scans"] == {"t1c": "0102"} and said.json()["chart"] == '{"age": 61}'
    assert said.json()["label"] == "P-7" and said.json()["names"] == ["mask.nii", "scan_t1c.nii.gz"]
    card = _post(address, files, headers={"Accept": "text/html"})
    assert card.text == "<h1>patient</h1>" and card.headers["content-type"].startswith("text/html")
    assert "sandbox" in card.headers["content-security-policy"]


def test_it_says_what_it_is_and_describes_itself(start):
    address = start()
    assert requests.get(f"{address}/health").json()["status"] == "ok"
    version = requests.get(f"{address}/version").json()
    assert version["bundle"] == ABOUT["id"] and version["model"] == "hybrid-toy" and version["cohort"] == "toy"
    described = requests.get(f"{address}/openapi.json").json()
    body = described["paths"]["/predict"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert {"scan_t1c", "scan_t1n", "mask", "dicom", "chart"} <= set(body["properties"])
    assert body["properties"]["label"]["maxLength"] == LONGEST_LABEL
    assert f'maxlength="{LONGEST_LABEL}"' in requests.get(address).text
    assert set(described["paths"]) == {"/predict", "/health", "/version"}


def test_every_answer_tells_a_browser_to_keep_and_frame_nothing(start):
    address = start()
    for path in ("/", "/health", "/nowhere", "/openapi.json"):
        headers = requests.get(address + path).headers
        assert headers["cache-control"] == "no-store" and headers["x-content-type-options"] == "nosniff"
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "access-control-allow-origin" not in headers
    policy = requests.get(address).headers["content-security-policy"]
    assert "script-src 'sha256-" in policy and "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]


def test_an_unknown_address_or_method_is_told_in_a_sentence(start):
    address = start()
    assert requests.get(f"{address}/docs").status_code == 404 and requests.get(f"{address}/docs").json()["error"]
    assert requests.get(f"{address}/predict").status_code == 405
    assert requests.get(f"{address}/../../etc/passwd").status_code == 404


END = b"--edge--\r\n"


def _sent(*parts: bytes, boundary: str = "edge") -> bytes:
    body = b"".join(parts) + END
    return _head(len(body), boundary) + body


WHOLE = _sent(_part("chart", b"{}"))
HOSTILE = {
    "another kind of body": (WHOLE.replace(b"multipart/form-data; boundary=edge", b"application/json"), 415),
    "no boundary": (WHOLE.replace(b"; boundary=edge", b""), 400),
    "a boundary of a kilobyte": (_sent(boundary="b" * 1000), 400),
    "another boundary than the header's": (_sent(_part("chart", b"{}"), boundary="other"), 400),
    "no last boundary": (WHOLE.replace(b"--edge--", b"--edge-x"), 400),
    "nothing at all": (_head(0), 400),
    "ten thousand parts": (_sent(*[_part("dicom", b"", '; filename="x"')] * 10_000), 413),
    "a part's header of a megabyte": (_sent(_part("chart", b"", f'; x="{"y" * 2**20}"')), 400),
    "fifty headers of one part": (_sent(_part("chart", b"", "\r\nX: y" * 50)), 400),
    "a part without a name": (_sent(b"--edge\r\nContent-Type: text/plain\r\n\r\nx\r\n"), 422),
    "a part of an unknown name": (_sent(_part("scan_ct")), 422),
    "a part whose name is a path": (_sent(_part("scan_../../../tmp/evil")), 422),
    "a part with NUL in its name": (_sent(_part("chart\0")), 422),
    "a part twice": (_sent(_part("chart", b"{}"), _part("chart", b"{}")), 422),
    "a chart of three kilobytes": (_sent(_part("chart", b"x" * 3000)), 413),
    "a scan above the limit": (_sent(_part("scan_t1c", b"x" * 120_000)), 413),
    "a label of a page": (_sent(_part("label", b"x" * 400)), 422),
    "a label of one letter more than a card bears": (_sent(_part("label", b"x" * (LONGEST_LABEL + 1))), 422),
    "a label with control characters": (_sent(_part("label", b"a\x1b[2Jb")), 422),
    "two gigabytes announced": (_head(2 * 2**30), 413),
    "a length that is no number": (WHOLE.replace(b"Content-Length: ", b"Content-Length: 1e"), 400),
    "a negative length": (WHOLE.replace(b"Content-Length: ", b"Content-Length: -"), 400),
    "two lengths": (WHOLE.replace(b"Host", b"Content-Length: 7\r\nHost"), 400),
    "a length and chunks too": (WHOLE.replace(b"Host", b"Transfer-Encoding: chunked\r\nHost"), 400),
    "a chunk of no length": (_head(None) + b"zz\r\n", 400),
    "a header of a megabyte": (_head(0, **{"X-Long": "y" * 2**20}), 400),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_gets_a_status_and_the_next_one_an_answer(name, small, held):
    sent, status = HOSTILE[name]
    said = _raw(small, sent)
    assert said.split()[1] == str(status).encode(), said
    if b"application/json" in said:
        assert json.loads(said.partition(b"\r\n\r\n")[2])["error"].count(". ") == 0
    assert _post(small, {"chart": (None, "{}")}).status_code == 200
    assert not list(held.iterdir())


def test_two_gigabytes_are_refused_before_a_byte_is_read(start):
    address = start()
    began = time.perf_counter()
    assert _raw(address, _head(2 * 2**30)).startswith(b"HTTP/1.1 413")  # not one byte of the body follows
    assert time.perf_counter() - began < 2


def test_an_endless_upload_without_length_is_cut_off_and_fills_no_disk(start, held):
    address = start(limits=SMALL)
    host, port = address.removeprefix("http://").split(":")
    begun = _part("scan_t1c", b"")[:-2]
    piece, most, said, end = b"10000\r\n" + b"z" * 65536 + b"\r\n", 0, b"", time.time() + 5
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(_head(None) + b"%x\r\n" % len(begun) + begun + b"\r\n")
        while not said and time.time() < end:
            line.sendall(piece)
            with suppress(FileNotFoundError):  # removed while it is looked at
                most = max(most, sum(file.stat().st_size for file in held.rglob("*.nii")))
            said = line.recv(65536) if select.select([line], [], [], 0)[0] else b""
    assert said.startswith(b"HTTP/1.1 413") and most <= SMALL.file_bytes


def test_a_body_that_stops_or_drips_is_ended_and_a_head_that_never_ends_too(start):
    address = start(limits=QUICK)
    assert _raw(address, _head(1000) + _part("chart")).startswith(b"HTTP/1.1 408")
    drip = _raw(address, _head(1000), *[bytes([byte]) for byte in _part("chart")[:8]], pause=0.1)
    assert drip.startswith(b"HTTP/1.1 408")
    for beginning in (b"", b"POST /pre", _head(10)[:-4]):
        began = time.perf_counter()
        assert _raw(address, beginning) == b"" and time.perf_counter() - began < 5
    drips = _raw(address, *[b"X-%d: 1\r\n" % k if k else b"GET / HTTP/1.1\r\n" for k in range(6)], pause=0.1)
    assert b"200" not in drips
    assert _post(address, {"chart": (None, "{}")}).status_code == 200


def test_a_client_that_does_not_take_its_answer_is_let_go(start):
    address = start(lambda *_: {"long": "x" * 20_000_000}, QUICK_TO_TAKE)
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as line:
        line.sendall(WHOLE)
        time.sleep(0.8)
        taken = len(_all(line))
    assert taken < 20_000_000
    assert requests.get(f"{address}/health").json()["requests"] == 0


QUICK_TO_TAKE = replace(LIMITS, read_seconds=0.2)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "0.0.0.0", ""]
)
def test_another_host_name_is_refused_against_rebinding(host, small):
    said = _raw(small, f"GET /version HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert said.startswith(b"HTTP/1.1 400") and json.loads(said.partition(b"\r\n\r\n")[2])["error"].endswith(".")


def test_loopback_names_are_taken_with_and_without_port(start):
    address = start()
    for host in ("localhost", "LOCALHOST:8000", "127.0.0.1:1", "[::1]:8000"):
        assert requests.get(f"{address}/health", headers={"Host": host}).status_code == 200
    assert _raw(address, b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert _raw(address, b"GET / HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.1 400")
    forwarded = {"X-Forwarded-Host": "evil.example", "X-Forwarded-For": "10.0.0.1", "Forwarded": "host=evil.example"}
    assert "evil" not in requests.get(f"{address}/version", headers=forwarded).text


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:1"}, {"Origin": ""},
     {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}],
)  # fmt: skip
def test_what_another_sites_page_sends_is_refused_unread(headers, start):
    asked = []
    address = start(lambda *given: asked.append(given) or {})
    said = _post(address, {"chart": (None, "{}")}, headers=headers)
    assert said.status_code == 403 and said.json()["error"] and not asked
    assert "access-control-allow-origin" not in said.headers
    assert requests.options(f"{address}/predict", headers=headers).status_code in (403, 405)
    own = {"Origin": address, "Sec-Fetch-Site": "same-origin"}
    assert _post(address, {"chart": (None, "{}")}, headers=own).status_code == 200


def test_no_file_name_of_a_client_becomes_a_path(start, tmp_path):
    address = start()
    for name in ("../../x.nii.gz", "/etc/cron.d/x.nii", "..\\x.NII.GZ", "a" * 200 + ".nii.gz", "\u202ex.nii"):
        said = _post(address, {"scan_t1c": (name, b"s"), "chart": (name, b"{}")}).json()
        assert said["names"][0] in ("scan_t1c.nii", "scan_t1c.nii.gz")
    assert {path.name for path in tmp_path.iterdir()} == {"temporary"}


def test_an_empty_input_of_a_form_is_nothing_that_was_sent(start):
    said = _raw(start(), _sent(_part("scan_t1c", b"", '; filename=""'), _part("label", b"")))
    assert json.loads(said.partition(b"\r\n\r\n")[2])["scans"] == {}


def _links() -> bytes:
    link = zipfile.ZipInfo("link.dcm")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    return _zip((link, "/etc/passwd"))


def _encrypted() -> bytes:
    packed = bytearray(_zip(("a.dcm", b"x")))
    packed[packed.index(b"PK\1\2") + 8] |= 1
    return bytes(packed)


def _lying() -> bytes:
    """A megabyte that the directory calls ten bytes."""
    packed = bytearray(_zip(("a.dcm", bytes(2**20))))
    packed[packed.index(b"PK\1\2") + 24 :][:4] = b""
    at = packed.index(b"PK\1\2") + 24
    packed[at : at + 4] = (10).to_bytes(4, "little")
    return bytes(packed)


ZIPS = {
    "a bomb": (_zip(("a.dcm", bytes(3_000_000))), 413),
    "many small members": (_zip(*((f"{k}.dcm", b"") for k in range(21))), 413),
    "a hundred thousand members": (_zip(*((str(k), b"") for k in range(1)), method=0) + b"PK\5\6" + bytes(8)
                                   + (2**20).to_bytes(4, "little") + bytes(6), 413),
    "a name that climbs": (_zip(("a/../../x.dcm", b"x")), 400),
    "an absolute name": (_zip(("/etc/x.dcm", b"x")), 400),
    "a drive": (_zip(("C:\\x.dcm", b"x")), 400),
    "a name with backslashes": (_zip(("..\\x.dcm", b"x")), 400),
    "NUL in a name": (_zip(("a.dcmzz", b"x")).replace(b"a.dcmzz", b"a.dcm\0z"), 400),
    "a link": (_links(), 400),
    "an encrypted member": (_encrypted(), 400),
    "a size that lies": (_lying(), 400),
    "packed with lzma": (_zip(("a.dcm", b"x" * 99), method=zipfile.ZIP_LZMA), 400),
    "cut off": (_zip(("a.dcm", bytes(99)))[:-30], 400),
    "two members in one place": (_zip(("a.dcm", bytes(99)), ("b.dcm", bytes(99))).replace(b"PK\3\4", b"PK\3\5", 2), 400),
}  # fmt: skip


@pytest.mark.parametrize("name", ZIPS)
def test_a_hostile_zip_is_refused_and_writes_nothing_elsewhere(name, small, held, tmp_path):
    packed, status = ZIPS[name]
    packed = packed if packed.startswith(archive.MAGIC) else archive.MAGIC + packed[4:]
    said = _post(small, {"dicom": ("d.zip", packed)})
    assert said.status_code == status and said.json()["error"].count(". ") == 0, said.text
    assert {path.name for path in tmp_path.iterdir()} == {"temporary"}
    assert requests.get(f"{small}/health").json() == {"status": "ok", "requests": 0, "places": LIMITS.places}
    assert not list(held.iterdir())


def test_a_zip_of_dicom_is_unpacked_under_numbers_and_loose_files_stay(start):
    members = [(f"study/{name}", name.encode()) for name in ("IM1", "é.dcm", "same.dcm")]
    files = [("dicom", ("d.zip", _zip(("study/", b""), *members))), ("dicom", ("IM9", b"DICM"))]
    assert _post(start(), files).json()["dicom"] == ["00000.dcm", "00001.dcm", "00002.dcm", "00002.dcm"]


def test_unpacking_counts_what_comes_out_not_what_the_directory_says(tmp_path):
    packed = io.BytesIO(bytes(5000))
    with pytest.raises(Refused, match="unpacks to more"):
        archive._copied(packed, tmp_path / "a", 4999)
    assert archive._copied(io.BytesIO(bytes(5000)), tmp_path / "b", 5000) == 5000


def test_all_zips_of_a_request_share_one_allowance_of_bytes_and_of_files(small, held):
    bytes_of = [("dicom", (f"{k}.zip", _zip(("a.dcm", os.urandom(30_000))))) for k in range(10)]
    assert _post(small, bytes_of).status_code == 200  # exactly what is allowed: see SMALL
    bytes_of.append(("dicom", ("more.zip", _zip(("a.dcm", b"x")))))
    assert _post(small, bytes_of).status_code == 413
    files_of = [("dicom", (f"{k}.zip", _zip(("a.dcm", b"x"), ("b.dcm", b"x"), ("c.dcm", b"x")))) for k in range(7)]
    assert _post(small, files_of[:6]).status_code == 200
    said = _post(small, files_of)
    assert said.status_code == 413 and "20 files" in said.json()["error"]
    assert not list(held.iterdir())


def test_what_is_unpacked_counts_in_the_room_of_all_requests_until_it_is_gone(start):
    address = start(limits=replace(LIMITS, held_bytes=200_000))
    packed = _zip(("a.dcm", os.urandom(80_000)))
    for _ in range(3):
        assert _post(address, {"dicom": ("d.zip", packed)}).status_code == 200  # 160 KB, which are given back
    packed = _zip(("a.dcm", os.urandom(110_000)))
    for _ in range(3):
        assert _post(address, {"dicom": ("d.zip", packed)}).status_code == 503
    assert _post(address, {"chart": (None, "{}")}).status_code == 200


def test_a_budget_is_never_overdrawn_and_a_room_gets_back_what_was_held():
    budget = Budget(100, 20, room=Room(replace(LIMITS, held_bytes=90)))
    assert not budget.take(101) and not budget.take(1, files=21) and budget.take(60, files=20)
    assert not budget.take(1, files=1) and not budget.take(41)
    with pytest.raises(Refused, match="other requests"):
        budget.take(40)
    assert (budget.bytes, budget.held, budget.room.held) == (40, 60, 60)
    assert not Budget(100, 1, voxels=5).take(1, voxels=6)


def test_beyond_its_places_the_service_says_when_to_come_back(start):
    free = threading.Event()
    address = start(lambda *_: free.wait(10) and {}, replace(LIMITS, places=3, at_work=1))
    with ThreadPoolExecutor(3) as clients:
        waiting = [clients.submit(_post, address, {"chart": (None, "{}")}) for _ in range(3)]
        while requests.get(f"{address}/health").json()["requests"] < 3:
            time.sleep(0.01)
        full = _post(address, {"chart": (None, "{}")})
        free.set()
        assert [one.result().status_code for one in waiting] == [200] * 3
    assert full.status_code == 503 and int(full.headers["retry-after"]) > 0 and full.json()["error"]
    assert _post(address, {"chart": (None, "{}")}).status_code == 200


def test_bytes_of_all_requests_together_are_bounded(start, held):
    free = threading.Event()
    address = start(lambda *_: free.wait(10) and {}, replace(LIMITS, held_bytes=150_000))
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(_post, address, {"scan_t1c": ("a", bytes(100_000))})
        while not sum(file.stat().st_size for file in held.rglob("*.nii")):
            time.sleep(0.01)
        assert _post(address, {"scan_t1c": ("a", bytes(100_000))}).status_code == 503
        free.set()
        assert first.result().status_code == 200
    assert _post(address, {"scan_t1c": ("a", bytes(100_000))}).status_code == 200


def test_a_client_that_leaves_is_not_worked_for_and_leaves_nothing(start, held):
    free, asked = threading.Event(), []
    address = start(lambda *given: asked.append(1) or free.wait(10) and {}, replace(LIMITS, at_work=1))
    host, port = address.removeprefix("http://").split(":")
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(_post, address, {"chart": (None, "{}")})
        while not asked:
            time.sleep(0.01)
        for sent in (WHOLE, _head(5000) + _part("chart")):  # in the queue; while it sends
            with socket.create_connection((host, int(port))) as line:
                line.sendall(sent)
                while requests.get(f"{address}/health").json()["requests"] < 2:
                    time.sleep(0.01)
        end = time.time() + 5
        while requests.get(f"{address}/health").json()["requests"] > 1 and time.time() < end:
            time.sleep(0.01)
        assert len(list(held.iterdir())) == 1
        free.set()
        assert first.result().status_code == 200
    assert asked == [1] and not list(held.iterdir())


def test_who_waits_in_vain_is_told_so(start):
    free, asked = threading.Event(), threading.Event()
    address = start(lambda *_: asked.set() or free.wait(10) and {}, replace(QUICK, at_work=1))
    with ThreadPoolExecutor(1) as clients:
        first = clients.submit(_post, address, {"chart": (None, "{}")})
        assert asked.wait(10)
        assert _post(address, {"chart": (None, "{}")}).status_code == 503
        free.set()
        assert first.result().status_code == 200


def test_a_mistake_is_told_without_where_its_file_lay(start, held):
    def refuse(bundle, sent, *_):
        raise BadInput(f"{sent.scans['t1c']}: unreadable, expected NIfTI; copy it anew.")

    said = _post(start(refuse), {"scan_t1c": ("x.nii.gz", b"x")})
    assert said.status_code == 422
    assert said.json() == {"error": "scan_t1c.nii.gz: unreadable, expected NIfTI; copy it anew."}


def test_a_failure_of_ours_is_told_and_logged_without_what_was_sent(start, caplog, capfd):
    def fail(bundle, sent, *_):
        raise RuntimeError(f"cannot parse {SECRET}")

    with caplog.at_level(logging.DEBUG):
        said = _post(start(fail), {"chart": (SECRET, json.dumps({"name": SECRET}))}, data={"label": SECRET})
    assert said.status_code == 500 and SECRET not in said.text
    logged = caplog.text + "".join(capfd.readouterr())
    assert "RuntimeError in test_service.py" in logged and SECRET not in logged and "Jane" not in logged


def test_eight_clients_at_once_each_get_their_own_answer(start, held):
    address = start()

    def ask(number: int) -> bool:
        said = _post(address, {"chart": (None, str(number)), "scan_t1c": ("a", b"%d" % number)}, data={"label": number})
        return said.json()["label"] == said.json()["chart"] == str(number)

    with ThreadPoolExecutor(8) as clients:
        assert all(clients.map(ask, range(80)))
    assert not list(held.iterdir())


def test_files_of_a_patient_can_be_opened_by_no_other_user(start):
    seen = []
    address = start(lambda bundle, sent, *_: seen.append(sent.chart.parent.stat().st_mode) or {})
    _post(address, {"chart": (None, "{}")})
    assert stat.S_IMODE(seen[0]) == 0o700


def test_listening_beyond_this_machine_has_to_be_asked_for(tmp_path):
    for host in ("0.0.0.0", "::", "192.168.0.7", "example.org"):
        with pytest.raises(BadInput, match="no password.*--beyond-this-machine"):
            service.serve(tmp_path, host)
    assert guard.is_loopback("127.0.0.1") and guard.is_loopback("::1") and guard.is_loopback("localhost")
    assert guard.names_of("127.0.0.1") == list(guard.LOOPBACK)


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "0:0:0:0:0:0:0:1", "localhost"])
def test_the_address_that_is_printed_is_answered(host, start):
    named, address = f"[{host}]" if ":" in host else host, start(hosts=guard.names_of(host))
    assert requests.get(f"{address}/health", headers={"Host": f"{named}:8000"}).status_code == 200
    assert requests.get(f"{address}/health", headers={"Host": "127.0.0.3:8000"}).status_code == 400


def test_a_port_that_is_taken_is_told_in_a_sentence(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadInput, match="another port"):
        service.serve(tmp_path, port=taken.getsockname()[1])
    with pytest.raises(BadInput, match="another port"):
        service.serve(tmp_path, port=99999)


def _as_parts(given: dict) -> list | None:
    """A submission of `wrong` as a form would send it; None for what no form can send (a path that is not there)."""
    parts = []
    chart, scans, masks = (given.get(name) for name in ("chart", "scans", "masks"))
    if isinstance(chart, Path):
        if not chart.is_file():
            return None
        parts.append(("chart", (chart.name, chart.read_bytes())))
    elif chart is not None:
        parts.append(("chart", (None, json.dumps(chart, default=str))))
    if isinstance(scans, Path):
        if not scans.is_dir():
            return None
        files = [file for file in scans.rglob("*") if file.is_file()]
        parts += [("dicom", (file.name, file.read_bytes())) for file in files]
        scans = {}
    masks = masks if isinstance(masks, dict) else {"": masks} if masks else {}
    named = [(f"scan_{name}", path) for name, path in (scans or {}).items()]
    named += [(f"mask_{name}".rstrip("_"), path) for name, path in masks.items()]
    if not all(path.is_file() for _, path in named):
        return None
    return parts + [(name, (path.name, path.read_bytes())) for name, path in named]


@pytest.fixture(scope="module")
def intakes():
    """`intakes(limits)`: a service that takes patients in as the real one does, and says nothing of them."""
    bare = {"unit": "", "description": "", "levels": None, "low": None, "high": None}
    schema = wrong.SCHEMA | {"chart": {name: bare | column for name, column in wrong.SCHEMA["chart"].items()}}
    asked = SimpleNamespace(about=ABOUT | {"schema": schema}, params=settled(params_module.load()))

    def take(bundle, sent, as_page, limits):
        service.taken_in(bundle, sent, limits)
        return {}

    return lambda limits=LIMITS: served(asked, take, limits)


@pytest.fixture(scope="module")
def strict(intakes):
    """The address of one."""
    with intakes() as address:
        yield address


@pytest.fixture(scope="module")
def submission(tmp_path_factory):
    return wrong.good(tmp_path_factory.mktemp("good"))


def test_a_good_patient_is_taken_in(strict, submission, held):
    said = _post(strict, _as_parts(submission.given))
    assert said.status_code == 200, said.text
    assert not list(held.iterdir())


def test_all_scans_and_masks_of_a_request_share_what_the_service_allows(intakes, submission, held):
    files = [*submission.given["scans"].values(), submission.given["masks"]]
    voxels = sum(sitk.ReadImage(str(file)).GetNumberOfPixels() for file in files)
    for most, status in ((voxels, 200), (voxels - 1, 422)):
        with intakes(replace(LIMITS, voxels=most)) as address:
            assert _post(address, _as_parts(submission.given)).status_code == status


@pytest.mark.parametrize("name", wrong.WRONG)
def test_what_is_wrong_with_a_patient_is_told_in_one_sentence_and_nothing_stays(
    name, strict, submission, held, tmp_path
):
    parts = _as_parts(wrong.WRONG[name](tmp_path, submission))
    if parts is None:
        pytest.skip("a form cannot send a file that is not there")
    said = _post(strict, parts or {"label": (None, "p")})
    assert 400 <= said.status_code < 500, said.text
    assert list(said.json()) == ["error"] and wrong.SECRET not in said.text and str(held) not in said.text
    assert requests.get(f"{strict}/health").json()["requests"] == 0
    assert not list(held.iterdir())
