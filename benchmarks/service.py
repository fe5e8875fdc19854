"""The service under 200 requests from 8 clients: errors, times, and the memory of its process.

`python -m benchmarks.service` prints a table and merges it into reports/metrics/benchmarks.json; a minute or two. It needs
a study that has run (`make report`): the bundle is of its network, and what is sent are its test patients' own files.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import requests

from benchmarks.radiomics import merged
from survpack import params, paths
from survpack.study import TEST_FOLD, Study

UNIT = "of {requests} requests from {clients} clients at once, cards of {cohort} ({model})"


def submissions(study: Study, count: int) -> list[list[tuple]]:
    """Test patients as parts of a form: their scans, the mask of each, their chart."""
    from survpack.deploy.examples import chart_of, files_of

    held, found = study.splits.loc[study.splits["fold"] == TEST_FOLD, "patient_id"].tolist()[:count], []
    for patient in held:
        parts = [("chart", (None, json.dumps(chart_of(study, patient), default=lambda value: value.item())))]
        for kind, files in zip(("scan", "mask"), files_of(study, patient), strict=True):
            parts += [(f"{kind}_{name}".rstrip("_"), (path.name, path.read_bytes())) for name, path in files.items()]
        found.append(parts)
    return found


class Served:
    """A service in a process of its own, whose memory is watched."""

    def __init__(self, bundle: Path):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "survpack", "serve", str(bundle), "--port", "0"], stdout=subprocess.PIPE, text=True
        )
        self.address = next(word for word in self.process.stdout.readline().split() if word.startswith("http")).rstrip(
            ";"
        )
        self.memory, self.peak, self.done = psutil.Process(self.process.pid), 0.0, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def now(self) -> float:
        """MB."""
        return self.memory.memory_info().rss / 2**20

    def _watch(self) -> None:
        while not self.done.wait(0.02):
            self.peak = max(self.peak, self.now())

    def __enter__(self) -> Served:
        return self

    def __exit__(self, *_) -> None:
        self.done.set()
        self.process.terminate()
        self.process.wait(30)


def asked(address: str, parts: list[tuple]) -> tuple[bool, float]:
    """Whether a card came, and the seconds until it was there."""
    start = time.perf_counter()
    said = requests.post(f"{address}/predict", files=parts, headers={"Accept": "text/html"}, timeout=300)
    return said.status_code == 200 and "<html" in said.text, time.perf_counter() - start


def measured(bundle: Path, sent: list[list[tuple]], count: int, clients: int) -> dict[str, tuple[float, str]]:
    """What is measured, by name: the value and its unit."""
    with Served(bundle) as service:
        for parts in sent[:2]:  # caches, and the first pages of memory
            asked(service.address, parts)
        before, start = service.now(), time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            found = list(pool.map(lambda k: asked(service.address, sent[k % len(sent)]), range(count)))
        wall = time.perf_counter() - start
        time.sleep(1)
        after = service.now()
    good, seconds = (np.array(column) for column in zip(*found, strict=True))
    return {
        "service-errors": (float((~good).sum()), "requests without a card,"),
        "service-median": (float(np.median(seconds)), "s, median"),
        "service-p99": (float(np.quantile(seconds, 0.99)), "s, 99th percentile"),
        "service-rate": (count / wall, "cards a second,"),
        "service-memory-peak": (service.peak, "MB at the peak"),
        "service-memory-after": (after, f"MB afterwards ({before:.0f} before),"),
    }


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cohort", default="mets")
    parser.add_argument("--model", default="", help="a network (default: prognosis.model of params.yaml)")
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--out", type=Path, default=paths.METRICS / "benchmarks.json")
    chosen = parser.parse_args(arguments)
    model = chosen.model or params.load().prognosis.model
    study = Study.open(chosen.cohort)
    from survpack.deploy import bundle

    with tempfile.TemporaryDirectory() as folder:
        bundle.make(study, model, Path(folder))
        found = measured(Path(folder), submissions(study, 16), chosen.requests, chosen.clients)
    told = UNIT.format(requests=chosen.requests, clients=chosen.clients, cohort=chosen.cohort, model=model)
    table = {
        name: {"ours": value, "peer": None, "ratio": None, "unit": f"{unit} {told}"}
        for name, (value, unit) in found.items()
    }
    merged(table, chosen.out)
    print(pd.DataFrame(table).T[["ours", "unit"]].to_string(float_format="{:.3g}".format))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
