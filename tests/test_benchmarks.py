"""The benchmark runs from end to end on tiny cases, and its file has the form that the report reads."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from benchmarks import radiomics as benchmark  # noqa: E402


def times() -> pd.DataFrame:
    """Three passes of a group of cases: the peer takes twice as long, apart from one disturbed pass."""
    rows = [("mets", tool, wall, wall) for tool, walls in
            {"ours": (1.0, 1.0, 9.0), "peer": (2.0, 2.0, 2.0), "peer, 13 directions apart": (4.0, 4.0, 4.0)}.items()
            for wall in walls]  # fmt: skip
    return pd.DataFrame(rows, columns=["group", "tool", "wall", "cpu"])


def case(**changed):
    values = np.random.default_rng(0).normal(size=(6, 6, 6))
    facts = {"name": "one", "group": "mets", "values": values, "inside": values > -1, "spacing_mm": (1.0, 1.0, 1.0),
             "bins": {"number": 8}, "shape": True}  # fmt: skip
    return benchmark.cases.Case(**(facts | changed))


def test_throughput_is_of_the_median_pass_and_above_1_where_ours_is_faster():
    found = benchmark.throughput(times(), [case()] * 10)
    assert found["radiomics-mets"] == {"ours": 10.0, "peer": 5.0, "ratio": 2.0, "unit": benchmark.UNIT}
    assert found["directions-apart"]["ratio"] == 4.0
    assert all(set(entry) == {"ours", "peer", "ratio", "unit"} for entry in found.values())


def test_every_tool_is_first_as_often_as_the_others():
    orders = [benchmark._turned(["a", "b", "c"], number) for number in range(3)]
    assert {order[0] for order in orders} == {order[1] for order in orders} == {"a", "b", "c"}


def test_values_are_compared_by_the_names_of_both_tools_and_a_wrong_one_is_named(capsys):
    own = {"stat_mean": 1.0, "stat_var": 2.0, "stat_kurt": 0.5, "morph_diam": np.nan, "ih_mode": 3.0}
    peer = {"Mean": 1.00001, "Variance": 2.1, "Kurtosis": 3.5, "Skewness": 1.0}
    peer = {f"original_firstorder_{name}": value for name, value in peer.items()}
    peer["original_shape_Maximum3DDiameter"] = np.nan
    table = benchmark.compared({"ours": {"one": own}, "peer": {"one": peer}})
    assert dict(zip(table["tag"], table["agrees"], strict=True)) == {
        "stat_mean": True, "stat_var": False, "stat_kurt": True,
    }  # fmt: skip
    found = benchmark.agreement(table)
    assert found["agreement"]["ours"] == pytest.approx(2 / 3)
    benchmark.say(found, table)
    said = capsys.readouterr().out
    assert "stat_var" in said and "stat_mean" not in said


def test_a_new_run_leaves_other_entries_of_the_file(tmp_path):
    path = tmp_path / "benchmarks.json"
    path.write_text('{"training": {"ours": 1}, "radiomics": {"ours": 2}}')
    benchmark.merged({"radiomics": {"ours": 3}}, path)
    assert json.loads(path.read_text()) == {"training": {"ours": 1}, "radiomics": {"ours": 3}}


def test_cases_hold_the_region_its_surroundings_and_bins_that_begin_at_or_below_its_least_value():
    import SimpleITK as sitk

    values = np.full((20, 20, 20), -500.0)
    values[5:10, 6:12, 7:9] = np.linspace(-37, 80, 60).reshape(5, 6, 2)
    mask = (values > -500).astype(np.uint8)
    images = [sitk.GetImageFromArray(array.transpose(2, 1, 0)) for array in (values, mask)]
    (cut,) = benchmark.cases._cut("x", "sts", *images, (1,), {"width": 25.0}, True)
    assert cut.values.shape == (9, 10, 6) and cut.inside.sum() == 60
    np.testing.assert_array_equal(cut.values[cut.inside], values[mask > 0])
    assert cut.bins == {"width": 25.0, "low": -50.0}
    assert not list(benchmark.cases._cut("x", "sts", *images, (2,), {"width": 25.0}, True))  # no such region


def test_the_script_runs_started_by_its_path_and_agrees_with_its_peer(tmp_path):
    pytest.importorskip("radiomics", reason="pyradiomics is not installed: pip install -e '.[benchmarks]'")
    small = ["--patients", "1", "--spacing", "5", "--repeats", "1", "--phantom-only", "--no-extraction", "--out"]
    out = tmp_path / "benchmarks.json"
    done = subprocess.run(
        [sys.executable, "benchmarks/radiomics.py", *small, str(out)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert all(set(entry) == {"ours", "peer", "ratio", "unit"} for entry in found.values())
    one = found["radiomics-all-cases"]
    assert one["ratio"] == pytest.approx(one["ours"] / one["peer"])
    textures = ("glcm", "glrlm", "glszm", "ngldm", "intensity", "histogram")  # ngtdm differs for a voxel all alone
    assert {found[f"agreement-{family}"]["ours"] for family in textures} == {1.0}
    assert "mets" in done.stdout and "cases" in done.stdout


def test_without_its_peer_it_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None)
    monkeypatch.setattr(benchmark.os, "sched_setaffinity", lambda *_: None, raising=False)
    assert benchmark.main([]) == 2
    assert ".[benchmarks]" in capsys.readouterr().out
