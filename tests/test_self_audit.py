"""What benchmarks have left is on the page as it was found, and a page without it says so."""

import json

import pytest

from survpack import paths, self_audit


@pytest.fixture
def left(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "METRICS", tmp_path)
    return lambda name, found: (tmp_path / f"{name}.json").write_text(json.dumps(found))


def share(found: float) -> dict:
    return {"nominal": 0.05, "found": found, "low": 0.0, "high": 1.0}


def test_without_a_simulation_the_page_says_so_and_has_no_table(left):
    assert "not simulated" in self_audit.type_one() and "tbl" not in self_audit.type_one()
    assert "not measured" in self_audit.machines() and "tbl" not in self_audit.machines()


def test_errors_stand_from_least_to_most_over_models_and_sizes_apart_for_each_way(left):
    how = ("fits held fixed", "widened")
    left("type-one", {
        f"AUC, interval, {how[0]} (no signal, long follow-up)": {"Cox": {"50": share(0.11), "300": share(0.09)}},
        f"AUC, interval, {how[1]} (no signal, long follow-up)": {"Cox": {"50": share(0.04)}, "forest": {"50": share(0.062)}},
    })  # fmt: skip
    rows = [line for line in self_audit.type_one().splitlines() if line.startswith("| AUC")]
    assert len(rows) == 1
    cells = [cell.strip() for cell in rows[0].strip("|").split("|")]
    assert cells == ["AUC, interval (no signal, long follow-up)", "5 %", "9.0 to 11.0 %", "2", "4.0 to 6.2 %"]


def test_the_largest_move_counts_whatever_its_sign_and_held_kernels_stand_apart(left):
    def moved(c, days, shown):
        return {"cv_c": c, "test_c": 0.0, "days": days, "curves": 0.01, "ahead": {"shown": shown}}

    left("machines", {"net": {"own": moved(0, 0, True), "old": moved(-0.014, 53, False), "held": moved(0, 0, True)}})
    rows = [line for line in self_audit.machines().splitlines() if line.startswith("| `net`")]
    free, held = ([cell.strip() for cell in row.strip("|").split("|")] for row in rows)
    assert free == ["`net`", "free", "2", "0.0140", "0.0000", "53.0", "0.0100", "1 of 2"]
    assert held[1:4] == ["held", "1", "0.0000"] and held[-1] == "1 of 1"
