"""Figures of networks: what they say is counted on the network, read off the arrays, or computed another way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from numpy.testing import assert_allclose
from scipy.stats import spearmanr

from survpack import anatomy, figures
from survpack.figures import style
from survpack.models import MODELS
from survpack.networks import FUSIONS, HybridNet

MODALITIES, MASKS, COLUMNS = ["t1c", "ct"], ["oedema", "enhancing"], 5


class Seen(NamedTuple):
    """As `training.Samples`."""

    images: np.ndarray
    masks: np.ndarray
    present: np.ndarray
    table: np.ndarray
    target: np.ndarray


def samples(count: int = 3, modalities: int = 2, labels: int = 2, side: int = 16, seed: int = 0) -> Seen:
    rng = np.random.default_rng(seed)
    images = rng.normal(5, 1, (count, modalities, side, side, side)).astype(np.float16)
    masks = np.zeros((count, labels, side, side, side), np.float16)
    masks[:, :, 4:9, 5:12, 6:10] = 1
    present = np.ones((count, modalities), bool)
    if modalities > 1:
        present[-1, 1] = False
        images[-1, 1] = 0
    return Seen(images, masks, present, rng.normal(size=(count, COLUMNS)).astype(np.float32), np.zeros((count, 1)))


def built(fusion: str, encoder: str = "compact", outputs: int = 1, masks: bool = True, **shape) -> tuple:
    torch.manual_seed(0)
    seen = samples(**shape)
    counts = seen.images.shape[1], seen.masks.shape[1]
    net = HybridNet(encoder, fusion, *counts, COLUMNS, outputs, 0.1, masks=masks)
    names = {"modalities": MODALITIES[: counts[0]], "labels": MASKS[: counts[1]]}
    return net, seen, anatomy.parts(net, seen, encoder=encoder, fusion=fusion, **names)


def texts(figure) -> str:
    figure.draw_without_rendering()
    return "\n".join(found.get_text() for found in figure.findobj(Text))


# --- architecture


@pytest.mark.parametrize("fusion", FUSIONS)
def test_the_weights_of_the_parts_are_all_those_of_the_network(fusion):
    net, _, parts = built(fusion)
    assert parts["weights"].sum() == sum(weight.numel() for weight in net.parameters())
    encoder = parts.set_index("part")["weights"].get("encoder", 0)
    assert encoder == sum(weight.numel() for weight in net.encoder.parameters()) if net.encoder else encoder == 0


@pytest.mark.parametrize("fusion", FUSIONS)
def test_a_network_has_the_boxes_of_what_it_sees_and_an_arrow_into_each_but_the_first_of_a_chain(fusion):
    parts = built(fusion)[2]
    figure = figures.architecture(parts)
    assert ("image" in set(parts["part"])) == (fusion != "chart")
    assert ("chart" in set(parts["part"])) == (fusion != "image")
    axes = figure.axes[0]
    assert len(axes.patches) == len(parts)
    arrows = [text for text in axes.texts if getattr(text, "arrow_patch", None)]
    assert len(arrows) == len(parts) - 1
    shown = texts(figure)
    for title in parts["title"]:
        assert title in shown


@pytest.mark.parametrize("encoder", ["compact", "vit", "efficientnet-2d"])
def test_tokens_are_those_that_the_encoder_gives(encoder):
    net, seen, parts = built("concat", encoder, side=32, count=1)
    image = torch.as_tensor(np.concatenate([seen.images, seen.masks], 1)).float()
    with torch.no_grad():
        _, width, count = net.encoder(image, torch.as_tensor(seen.masks).float()).shape
    words = parts.set_index("part").loc["tokens", "detail"]
    assert words.startswith(f"{count} of {width} numbers")


def within(one, box) -> bool:
    return box.x0 <= one.x0 and one.x1 <= box.x1 and box.y0 <= one.y0 and one.y1 <= box.y1


@pytest.mark.parametrize(("fusion", "encoder"), [*((fusion, "compact") for fusion in FUSIONS), ("additive", "vit")])
def test_texts_stay_in_their_boxes_and_boxes_in_the_figure(fusion, encoder):
    parts = built(fusion, encoder, outputs=10)[2]
    if encoder == "vit":  # the longest words there are
        parts.loc[parts["part"] == "encoder", "detail"] = anatomy.ENCODERS["resnet50-2d"][1]
    figure = figures.architecture(parts, copies=5)
    figure.draw_without_rendering()
    boxes = [patch.get_window_extent() for patch in figure.axes[0].patches]
    assert all(within(box, figure.bbox) for box in boxes)
    written = [text for text in figure.axes[0].texts if text.get_text() and "trained" not in text.get_text()]
    assert len(written) >= 2 * len(parts) - 1
    for text in written:
        assert any(within(text.get_window_extent(), box) for box in boxes), text.get_text()


def test_a_network_without_masks_says_nothing_of_masks_and_an_ensemble_says_how_many():
    net, _, parts = built("concat", masks=False)
    assert "mask" not in " ".join(parts["detail"]) and "region" not in " ".join(parts["detail"])
    shown = texts(figures.architecture(parts, copies=5))
    total = sum(weight.numel() for weight in net.parameters())
    assert "5 networks of" in shown and str(total) in shown.replace("\u202f", "")


def test_looking_at_a_network_leaves_it_as_it_was():
    net, seen, _ = built("film")
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    anatomy.parts(net, seen, encoder="compact", fusion="film", modalities=MODALITIES, labels=MASKS)
    assert net.training and not net.encoder._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


# --- the batch


def test_augmented_twins_are_repeatable_leave_the_stored_alone_and_the_random_state_too(params):
    seen = samples()
    images = seen.images.copy()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = (anatomy.augmented(seen, params.training.augment, mirror=True, seed=2) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert_allclose(one.images, other.images)
    assert_allclose(seen.images, images)
    assert not np.allclose(one.images, seen.images)
    assert not (one.present & ~seen.present).any() and one.present.any(axis=1).all()


def test_a_batch_shows_the_middle_slices_from_the_front_and_says_which_scan_is_missing_and_why():
    seen = samples()
    twins = seen._replace(present=seen.present.copy(), images=seen.images[:, :, ::-1].copy())
    twins.present[0, 0] = False
    figure = figures.batch(seen, twins, ["a", "b", "c"], MODALITIES, MASKS)
    said = texts(figure)
    assert said.count("dropped") == 1 and said.count("not\nscanned") == 2
    drawn = [axes for axes in figure.axes if axes.images]
    assert len(figure.axes) == 12 and len(drawn) == 9
    assert_allclose(drawn[0].images[0].get_array(), seen.images[0, 0, :, :, 8].T)
    assert_allclose(figure.axes[6].images[0].get_array(), twins.images[1, 0, :, :, 8].T)
    outline = np.concatenate([path.vertices for found in drawn[0].collections for path in found.get_paths()])
    assert_allclose([outline.min(0), outline.max(0)], [[3.5, 4.5], [8.5, 11.5]])


def test_a_network_of_planes_is_shown_all_three_each_right_way_up():
    seen = samples(modalities=4)
    figure = figures.batch(seen, seen, ["a", "b", "c"], ["t1n", "t1c", "t2w", "t2f"], MASKS, planes=(2, 1, 0))
    assert len(figure.axes) == 6 * 12
    axial, coronal, sagittal = (axes.images[0].get_array() for axes in figure.axes[:3])
    volume = seen.images[0, 0]
    assert_allclose(axial[0, 0], volume[0, 0, 8])  # front left of the page: the patient's right
    assert_allclose(coronal[0, 0], volume[0, 8, -1])  # head at the top
    assert_allclose(sagittal[0, 0], volume[8, 0, -1])


def test_a_cohort_of_masks_is_shown_as_masks():
    seen = samples(modalities=0)
    figure = figures.batch(seen, seen, ["a", "b", "c"], [], MASKS)
    assert_allclose(figure.axes[0].images[0].get_array(), seen.masks[0].max(axis=0)[:, :, 8].T)
    assert "Masks" in texts(figure)


def test_the_patients_shown_hold_one_who_lacks_a_scan():
    present = np.ones((9, 2), bool)
    present[7, 1] = False
    assert anatomy.few(present) == [0, 1, 2, 7] and anatomy.few(present[:3]) == [0, 1, 2]
    assert sorted(anatomy.few(~present)) == sorted(set(anatomy.few(~present))) and len(anatomy.few(~present)) == 4


# --- curves and the oracle


def test_curves_show_the_mean_of_the_fits_and_the_inner_loss_only_where_there_is_one():
    rng = np.random.default_rng(0)
    table = pd.DataFrame([(f, m, e, rng.random(), np.nan) for f in (0, 1) for m in (0, 1) for e in (1, 2, 3)],
                         columns=["fold", "member", "epoch", "loss", "inner_loss"])  # fmt: skip
    axes = figures.learning_curves(table).axes[0]
    lines = {drawn.get_label(): drawn for drawn in axes.lines}
    assert len(axes.lines) == 5 and "inner" not in lines
    assert_allclose(lines["mean"].get_ydata(), table.groupby("epoch")["loss"].mean())
    held = table.assign(inner_loss=rng.random(12))
    (inner,) = [drawn for drawn in figures.learning_curves(held).axes[0].lines if drawn.get_label() == "inner"]
    assert_allclose(inner.get_ydata(), held.groupby("epoch")["inner_loss"].mean())


def test_the_oracle_figure_puts_every_patient_and_every_part_where_they_are():
    rng = np.random.default_rng(1)
    patients = pd.DataFrame({"generating": rng.normal(size=30), "predicted": rng.normal(size=30),
                             "event": rng.random(30) < 0.5})  # fmt: skip
    parts = pd.DataFrame({"part": ["all", "volume", "image"], "estimate": [0.5, 0.2, -0.1], "low": [0.3, 0.0, None],
                          "high": [0.6, 0.3, None], "oracle": [1.0, 0.4, 0.8]})  # fmt: skip
    left, right = figures.against_oracle(patients, parts).axes
    found = {drawn.get_label(): drawn.get_xydata() for drawn in left.lines}
    assert_allclose(found["Event"], patients.loc[patients["event"], ["generating", "predicted"]])
    assert_allclose(found["Censored"], patients.loc[~patients["event"], ["generating", "predicted"]])
    own = {drawn.get_label(): drawn.get_xdata()[0] for drawn in right.lines}
    assert {name: own[name] for name in parts["part"]} == dict(zip(parts["part"], parts["estimate"], strict=True))
    assert [text.get_text() for text in right.get_yticklabels()][1] == "Volume"


def test_agreement_with_a_hazard_is_scipys_and_knows_a_model_that_is_the_oracle(tmp_path, params):
    from types import SimpleNamespace

    from survpack.phantom.oracle import compared
    from survpack.prognosis import Prognosis

    rng = np.random.default_rng(2)
    ids = [f"s{k}" for k in range(90)]
    planted = pd.DataFrame({name: rng.normal(size=90) for name in ("clinical", "volume", "oedema", "rim")})
    planted = planted.assign(site=0.0, linear_predictor=planted.sum(axis=1), patient_id=ids)
    time = rng.exponential(400 * np.exp(-planted["linear_predictor"])) + 1
    outcome = pd.DataFrame({"time_days": time, "event": rng.random(90) < 0.8}).set_axis(ids)
    planted.to_parquet(tmp_path / "planted.parquet")
    study = SimpleNamespace(name="mets", paths=SimpleNamespace(truth=tmp_path / "planted.parquet"), params=params,
                            outcome=lambda wanted: outcome.loc[list(wanted)])  # fmt: skip

    def said(risk, fold) -> Prognosis:
        keys = {"cohort": "mets", "model": "one", "seed": 0, "repeat": 0, "fold": fold, "split": "cv"}
        return Prognosis(
            pd.DataFrame({**keys, "patient_id": ids, "risk": risk, "days": 1.0, "s_0": 0.5}), np.array([9.0])
        )

    best = compared(study, said(planted["linear_predictor"], np.arange(90) % 3))
    assert best.scores["recovered"] == {"estimate": 1, "low": None, "high": None}  # in every resample
    assert_allclose(best.agreement["estimate"], best.agreement["oracle"])
    assert list(best.agreement["part"]) == ["all", "clinical", "volume", "oedema", "rim", "image"]

    alone = compared(study, said(planted["volume"] + 50 * (np.arange(90) < 45), (np.arange(90) < 45).astype(int)))
    found = alone.agreement.set_index("part")["estimate"]
    assert found["volume"] == pytest.approx(1)  # one fold's risks are fifty higher, which no rank within a fold sees
    assert_allclose(alone.patients.groupby("fold")["predicted"].agg(["mean", "std"]), [[0, 1], [0, 1]], atol=0.02)
    one = compared(study, said(planted["oedema"] + planted["volume"], np.zeros(90, int))).agreement.set_index("part")
    for part in ("all", "rim", "oedema"):
        of = planted["linear_predictor" if part == "all" else part]
        assert one.loc[part, "estimate"] == pytest.approx(spearmanr(planted["oedema"] + planted["volume"], of)[0])
    ranks = planted.assign(risk=planted["oedema"] + planted["volume"], image=planted["oedema"] + planted["rim"]).rank(
        numeric_only=True
    )
    left = [
        ranks[name] - np.poly1d(np.polyfit(ranks["volume"], ranks[name], 1))(ranks["volume"])
        for name in ("risk", "image")
    ]
    assert one.loc["image", "estimate"] == pytest.approx(np.corrcoef(*left)[0, 1])

    (tmp_path / "planted.parquet").unlink()
    assert compared(study, said(planted["volume"], 0)) is None


# --- names and colours of models


def test_every_model_of_the_study_has_a_name_a_heading_and_a_colour_of_its_family():
    assert set(MODELS) <= set(style.LABELS)
    assert len(set(style.LABELS.values())) == len(style.LABELS)
    for model in style.LABELS:
        assert style.family(model) in style.COLOURS and style.family(model) in style.MARKERS
        assert style.section(model) in style.MODELS
    assert {style.family(model) for model in style.LABELS if model.startswith(("hybrid-", "late-"))} == {"hybrid"}
    assert style.family("deepsurv") == style.family("image-compact-cox") == "deep"


def test_by_section_keeps_every_model_once_and_those_it_does_not_know():
    given = ["somebody-elses", "hybrid-new-cox", "late-fusion", "age", "clinical-new", "hybrid-film-cox"]
    found = style.by_section(given)
    assert sorted(model for members in found.values() for model in members) == sorted(given)
    assert (
        list(found)[0] == "Baseline" and found["Other"] == ["somebody-elses"] and found["Classical"] == ["clinical-new"]
    )


def test_families_are_told_apart_by_those_who_do_not_see_red_or_green():
    """CIELAB distance after simulating deuteranopia and protanopia (Machado et al. 2009, severity 1)."""
    seen = {
        "all": np.eye(3),
        "deuteranopia": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
        "protanopia": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
    }
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])

    def lab(colour: str, by) -> np.ndarray:
        coded = np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
        linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
        x = to_xyz @ np.clip(np.asarray(by) @ linear, 0, 1) / [0.95047, 1, 1.08883]
        f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    colours = list(style.COLOURS.values())
    for by in seen.values():
        apart = [np.linalg.norm(lab(a, by) - lab(b, by)) for i, a in enumerate(colours) for b in colours[:i]]
        assert min(apart) > 30


# --- many models in one forest plot


def test_a_forest_of_many_models_has_a_row_each_and_both_splits_numbers_in_columns():
    rng = np.random.default_rng(3)
    models = list(reversed(style.LABELS))
    given = {split: {m: {"estimate": c, "low": c - 0.1, "high": c + 0.1} for m, c in
             zip(models, rng.uniform(0.5, 0.8, len(models)).round(2), strict=True)} for split in ("cv", "test")}  # fmt: skip
    figure = figures.forest(given, 0.8, metric_label="Harrell's C")
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert figure.get_figheight() < 0.36 * len(models) + 3
    drawn = {one.get_label(): one for one in axes.lines}
    names = [text.get_text() for text in axes.get_yticklabels()]
    assert [name for name in names if name in style.MODELS] == list(style.MODELS)
    assert [name.replace("\n", " ") for name in names if name not in style.MODELS] == list(style.LABELS.values())
    rows = {
        text.get_text().replace("\n", " "): y for text, y in zip(axes.get_yticklabels(), axes.get_yticks(), strict=True)
    }
    beside = [text for text in axes.texts if hasattr(text, "xy")]
    for split, at in (("cv", 0), ("test", 1)):
        for model, score in given[split].items():
            assert_allclose(drawn[f"{split} {model}"].get_xdata(), score["estimate"])
            told = [text for text in beside if text.xy[1] == rows[style.label(model)]]
            told = sorted(told, key=lambda text: text.get_window_extent().x0)
            assert told[at].get_text() == f"{score['estimate']:.2f} ({score['low']:.2f} to {score['high']:.2f})"
    spans = [text.get_window_extent() for text in beside]
    assert not any(a.overlaps(b) for i, a in enumerate(spans) for b in spans[:i])


def test_roc_over_time_gives_panels_to_the_models_shown_and_grey_lines_to_all():
    table = pd.DataFrame({"model": np.repeat(["age", "volume", "late-fusion"], 3), "time_days": [100, 200, 300] * 3,
                          "auc": np.linspace(0.5, 0.8, 9)})  # fmt: skip
    figure = figures.roc_over_time(table, ["volume"])
    (axes,) = figure.axes
    assert axes.get_title("left") == style.label("volume") and len(axes.lines) == 1 + 3 + 1
    assert len(figures.roc_over_time(table, ["nobody"]).axes) == 3
