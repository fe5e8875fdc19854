"""How much each part matters is what is lost without it, and the parts' shares sum to the whole."""

from dataclasses import replace
from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch

from survpack.explain import parts
from survpack.figures.parts import parts as parts_figure
from survpack.metrics import concordance
from survpack.models import Deep

ASKED = {"repeats": 100, "confidence": 0.9, "seed": 1}
TIMES = np.array([100.0])


def two_modalities(cohort):
    """A second sequence, which every seventh patient lacks."""
    images = np.concatenate([cohort.images, cohort.images[::-1] + 1], axis=1)
    present = np.ones((len(images), 2), bool)
    present[::7, 1] = False
    images[~present] = 0
    return replace(cohort, images=images, present=present, modalities=["t1c", "ct"])


@pytest.fixture
def world(make_patients, params, tiny_encoder, study_of, tmp_path, monkeypatch):
    """`world(fusion)`: a study and its two folds' networks, far from linear, beside the patients they left out."""

    def made(fusion: str = "concat", encoder: str = "tiny", masks: bool = True) -> tuple:
        cohort = two_modalities(make_patients(50, 4, voxels=8))
        study = study_of(tmp_path / "study", cohort)
        vars(study)["patients"] = cohort
        named = params.classical.model_copy(update={"lesion": ["tumour_ml", "sphericity"]})
        pairs = []
        for fold in (0, 1):
            train, held = (cohort.take(ids) for ids in study.fold(fold))
            model = Deep(encoder, fusion, "cox", params.model_copy(update={"classical": named}), masks=masks).fit(train)
            with torch.no_grad():
                model.nets[0].fusion.head.weight.normal_(0, 2.0)
            pairs.append((model, held))
        monkeypatch.setattr(parts, "out_of_fold", lambda *asked: pairs)
        return study, pairs

    return made


@pytest.mark.parametrize(
    ("fusion", "masks", "expected"),
    [
        ("concat", True, ["chart", "volumes", "outlines", "t1c", "ct"]),
        ("concat", False, ["chart", "volumes", "t1c", "ct"]),
        ("image", True, ["outlines", "t1c", "ct"]),
        ("chart", True, ["chart", "volumes"]),
    ],
)
def test_the_parts_are_what_the_network_reads(fusion, masks, expected, world):
    study, pairs = world(fusion, masks=masks)
    assert parts.parts_of(*pairs[0]) == expected
    risks = parts.coalition_risks(study, "any")
    assert risks.shape == (len(study.development), 2 ** len(expected)) and risks.columns[-1] == "+".join(expected)
    assert parts.shapley(study, "any", risks, **ASKED)["value"].notna().all()


@pytest.mark.parametrize(("fusion", "encoder"), [("concat", "tiny"), ("gated", "compact"), ("additive", "compact")])
def test_the_risk_without_a_part_is_that_of_a_patient_who_lacks_it(fusion, encoder, world):
    study, pairs = world(fusion, encoder)
    risks = parts.coalition_risks(study, "any")
    assert (risks[""] == 0).all()
    for fold, (model, held) in enumerate(pairs):
        nobody = held.clinical.astype(object).mask(np.ones(held.clinical.shape, bool), None).assign(age=np.nan)
        unmeasured = held.biomarkers * np.nan
        lacking = {
            "chart+volumes+outlines+t1c+ct": (held, ()),
            "volumes+outlines+t1c+ct": (replace(held, clinical=nobody), ()),
            "chart+outlines+t1c+ct": (replace(held, biomarkers=unmeasured), ()),
            "chart+volumes+t1c+ct": (replace(held, masks=np.zeros_like(held.masks)), ()),
            "chart+volumes+outlines+t1c": (held, ("ct",)),
            "chart": (replace(held, biomarkers=unmeasured, masks=np.zeros_like(held.masks)), ("t1c", "ct")),
        }
        for name, (patients, without) in lacking.items():
            expected = model.predict(patients, TIMES, without).risk
            np.testing.assert_allclose(risks.loc[fold, name], expected, rtol=1e-4, atol=1e-4)


def test_values_are_those_of_every_order_in_which_parts_can_come_and_sum_to_what_is_above_chance(world):
    study, _ = world()
    risks = parts.coalition_risks(study, "any")
    names, outcome = risks.columns[-1].split("+"), study.outcome(risks.index.get_level_values("patient_id"))

    def worth(some) -> float:
        """C within folds, by folds that are scored one by one and weighed by their comparable pairs."""
        won = pairs = 0.0
        for fold in (0, 1):
            here = risks.index.get_level_values("fold") == fold
            time, event = outcome["time_days"].to_numpy()[here], outcome["event"].to_numpy(bool)[here]
            count = sum(((time > t) | ((time == t) & ~event)).sum() for t in time[event])
            risk = risks["+".join(name for name in names if name in some)].to_numpy()[here]
            won, pairs = won + count * concordance(time, event, risk), pairs + count
        return won / pairs

    expected, orders = dict.fromkeys(names, 0.0), list(permutations(names))
    for order in orders:
        for at, name in enumerate(order):
            expected[name] += (worth(order[: at + 1]) - worth(order[:at])) / len(orders)
    found = parts.shapley(study, "any", risks, **ASKED)
    assert found.set_index("part")["value"].to_dict() == pytest.approx(expected, abs=1e-9)
    assert found["value"].is_monotonic_decreasing and (found["low"] < found["high"]).all()
    table = parts.ablation(study, "any", risks, **ASKED)
    whole = table.set_index(["kind", "part"]).loc[("all", "all"), "concordance"]
    assert whole == pytest.approx(worth(names)) and found["value"].sum() == pytest.approx(whole - 0.5)
    for kind in ("without", "alone"):
        some = table[table["kind"] == kind].set_index("part")
        for name in names:
            left = [name] if kind == "alone" else [other for other in names if other != name]
            assert some.loc[name, "concordance"] == pytest.approx(worth(left))
            assert some.loc[name, "difference"] == pytest.approx(worth(left) - whole)


def test_the_part_that_was_planted_has_all_and_what_the_network_ignores_has_nothing(world):
    """Line and encoder are made to read nothing but the mean of the CT."""
    study, pairs = world("additive")
    for model, _ in pairs:
        with torch.no_grad():
            model.nets[0].fusion.line.weight.zero_()
            first = model.nets[0].encoder.first[0]
            first.weight.zero_()
            first.bias.zero_()
            first.weight[:, 1] = 0.1
            first.bias[:] = 10.0  # clear of the ReLU
    found = parts.shapley(study, "any", **ASKED).set_index("part")
    table = parts.ablation(study, "any", **ASKED).set_index(["kind", "part"])
    whole = table.loc[("all", "all"), "concordance"]
    assert found.loc["ct", "value"] == pytest.approx(whole - 0.5) and whole != 0.5
    ignored = ["chart", "volumes", "outlines", "t1c"]
    assert (found.loc[ignored, "value"].abs() < 1e-12).all() and found.loc[ignored, ["low", "high"]].isna().all(
        axis=None
    )
    without = table.loc["without"]
    assert (without.loc[ignored, "difference"] == 0).all()
    assert without.loc[ignored, ["difference_low", "difference_high"]].isna().all(axis=None)
    assert without.loc["ct", "concordance"] == 0.5 and table.loc[("alone", "ct"), "concordance"] == whole


def test_the_figure_tells_values_and_what_is_left_without_each_part():
    table = pd.DataFrame({"part": ["volumes", "t1c"], "value": [0.2, -0.01], "low": [0.1, -0.03], "high": [0.3, 0.02]})
    rows = [("all", "all", 0.7), ("volumes", "without", 0.55), ("t1c", "without", 0.71), ("volumes", "alone", 0.69),
            ("t1c", "alone", 0.5)]  # fmt: skip
    ablated = pd.DataFrame([(*row, row[2] - 0.05, row[2] + 0.05, row[2] - 0.7, -0.1, 0.1) for row in rows])
    ablated.columns = parts.ABLATION
    left, right = parts_figure(table, ablated).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["Lesion biomarkers", "T1c"]
    drawn = [line.get_xdata() for line in right.lines]
    assert any(np.array_equal(xs, [0.55, 0.71]) for xs in drawn) and any(
        np.array_equal(xs, [0.69, 0.5]) for xs in drawn
    )
    alone = parts_figure(table)
    assert len(alone.axes) == 1
    assert {"0.20", "−0.01"} <= {text.get_text() for text in alone.axes[0].texts}
