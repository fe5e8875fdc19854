"""A service that runs, of a bundle that is not there: it tells back what came."""

import contextlib
import socket
import threading

from survpack.deploy import guard, service
from survpack.deploy.limits import LIMITS

MODALITIES = ["t1c", "t1n"]
CHART = {
    "age": {"kind": "numeric", "unit": "years", "description": "Age", "levels": None, "low": 40.0, "high": 84.0},
    "sex": {"kind": "categorical", "unit": "", "description": "Sex", "levels": ["female", "male"], "low": None,
            "high": None},
}  # fmt: skip
ABOUT = {
    "id": "sha256:" + "ab" * 32,
    "model": "hybrid-toy",
    "survpack": "0.1.0",
    "cohort": {"name": "toy", "title": "Toy cohort", "patients": 40, "events": 26, "simulated": True},
    "schema": {"chart": CHART, "modalities": MODALITIES, "labels": {"1": "enhancing", "2": "oedema"}, "measured": []},
    "training": {"patients": 32, "events": 20},
    "params": {},
}


def echo(bundle, sent, as_page, limits):
    """What came, told back."""
    said = {"label": sent.label, "chart": sent.chart and sent.chart.read_text(), "size": sent.size}
    said |= {"scans": {name: path.read_bytes().hex() for name, path in sent.scans.items()}}
    said |= {"names": sorted(path.name for path in (*sent.scans.values(), *sent.masks.values()))}
    if sent.dicom:
        said["dicom"] = sorted(path.name for path in service._scans(sent, limits).rglob("*.dcm"))
    return f"<h1>{sent.label}</h1>" if as_page else said


@contextlib.contextmanager
def running(bundle, prognose=echo, limits=LIMITS, hosts=guard.LOOPBACK):
    """The address of a service that runs in a thread, as `serve` would run it."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = service.server(service.app(bundle, limits, hosts, prognose), limits)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
