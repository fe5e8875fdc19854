"""The benchmark of training runs from end to end on a tiny cohort, and both loops are given the same patients."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks import training as benchmark
from survpack.phantom import mets


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    place = tmp_path_factory.mktemp("mets")
    mets.generate(place / "bids", place / "truth.parquet", patients=3, sites=2, spacing_mm=5.0, seed=1)
    return place / "bids"


def test_the_peers_transforms_end_in_the_crops_shape_with_the_lesion_in_it_and_the_same_target(tiny):
    given = benchmark.task(tiny, 3)
    data = benchmark.data_set(given, cached=False)
    for number in range(3):
        seen = data[number]
        assert seen["image"].shape == given.samples.images[number].shape
        assert seen["mask"].shape == given.samples.masks[number].shape
        inside = seen["image"][1][seen["mask"][2] > 0]
        assert seen["mask"].any() and inside.mean() > seen["image"][1].mean()  # what enhances is bright in T1c
        np.testing.assert_array_equal(seen["target"], given.samples.target[number])


def test_a_fit_counts_what_is_done_once_before_it():
    given = benchmark.Task([{}] * 10, None, None, benchmark.params.load().training, prepared=24.0)
    speed = pd.Series({"ours": 10.0, "plain": 2.0, "cached": 5.0})
    found = benchmark.speeds("compact", speed, 12.0, given)
    epochs = benchmark.params.per_cohort(given.choice.epochs, "compact")
    assert found["training-compact"]["ratio"] == 5.0 and found["training-compact-cached"]["ratio"] == 2.0
    assert found["training-compact-fit"]["ours"] == pytest.approx(10 * epochs / (epochs + 24))
    assert found["training-compact-fit-cached"]["peer"] == pytest.approx(10 * epochs / (2 * epochs + 12))


def test_it_runs_and_leaves_other_entries_of_the_file(tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(benchmark.os, "sched_setaffinity", lambda *_: None, raising=False)
    out = tmp_path / "benchmarks.json"
    out.write_text('{"radiomics": {"ours": 2}}')
    small = ["--patients", "3", "--epochs", "1", "--repeats", "1", "--workers", "0", "--threads", "1"]
    few = ["--encoders", "compact", "--sizes", "32"]
    assert benchmark.main([*small, *few, "--bids", str(tiny), "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    assert found.pop("radiomics") == {"ours": 2}
    assert all(set(entry) == {"ours", "peer", "ratio", "unit"} for entry in found.values())
    assert found["training-compact-reading"]["ours"] == 0 < found["training-compact-reading"]["peer"]
    assert found["training-compact"]["ours"] > 0 and "training-compact-32-float32" in found
    assert "random transforms" in capsys.readouterr().out
