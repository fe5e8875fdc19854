"""The answer as one page that a tumour board can read out: no script, nothing fetched, one sheet of A4."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from functools import cache
from pathlib import Path

import numpy as np

from survpack.deploy.reference import GROUPS
from survpack.numbers import amount, known

MONTH = 365.25 / 12
THIRD = {"low": "Lower third", "middle": "Middle third", "high": "Upper third"}
TEMPLATE = Path(__file__).with_name("card.html")
PIXELS = 480  # of the slice's longer side
OUTLINE, SCALE_MM = (92, 225, 230), 20  # colour of the tumour's outline; length of the bar on the slice
SEQUENCES = {"t1n": "T1", "t1c": "T1 with contrast", "t2w": "T2", "t2f": "FLAIR", "ct": "CT", "pt": "PET"}


def page(answer, bundle) -> str:
    """One self-contained HTML page, which prints on one A4 sheet.

    Parameters
    ----------
    answer : answer.Answer
        A refused patient's page says why, and holds no prognosis.
    bundle : bundle.Bundle
    """
    told = {
        "answer": answer, "model": answer.bundle, "policy": policy(), "alive": alive(answer.bundle["outcome"]),
        "warnings": _warnings(bundle.about), "absent": absent(answer, bundle.about), "likeness": _likeness(answer),
        "headline": None, "name": _name(answer.bundle["model"]),
    }  # fmt: skip
    if answer.refused is None:
        told |= {
            "headline": headline(answer), "last": span(answer.curve["days"][-1]),
            "chances": [_chance(one) for one in answer.probabilities], "bound": _bound(answer.bound),
            "group": _group(answer, bundle.about), "drivers": [_bar(one) for one in answer.drivers],
            "curve": _curve(answer, bundle.about), "slice": _slice(answer.attribution),
        }  # fmt: skip
    return _template().render(told)


@cache
def policy() -> str:
    """The page's Content-Security-Policy: its own style by its hash, its own pictures, nothing else."""
    style = re.search(r"<style>(.*?)</style>", TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'"


def span(days: float | None) -> str:
    """A time as it is read out: `45 days`, `14 months`, `6.2 years`."""
    if days is None:
        return "not reached"
    if round(days) < 61:
        return "1 day" if round(days) == 1 else f"{amount(days)} days"
    return f"{amount(days / MONTH)} months" if days < 60 * MONTH else f"{amount(days / 365.25, 1)} years"


def percent(share: float) -> str:
    """A probability as it is read out, never none and never certainty."""
    return "< 1\u00a0%" if share < 0.005 else "> 99\u00a0%" if share >= 0.995 else f"{amount(100 * share)}\u00a0%"


def alive(outcome: str) -> str:
    """What it is not to have had the event: `alive and free of disease` of disease-free survival."""
    if outcome in ("overall survival", "survival"):
        return "alive"
    event, free, _ = outcome.partition("-free")
    return f"alive and free of {event}" if free else "free of the event"


def headline(answer) -> dict:
    """The median in words, and the sentence to read out."""
    median, last = answer.median_days, answer.curve["days"][-1]
    beyond = median["low"] is None
    band = "the whole band lies beyond it too" if beyond else f"{span(median['low'])} to {_end(median['high'], last)}"
    said = f"over {span(last)}" if median["estimate"] is None else span(median["estimate"])
    told = answer.probabilities
    named = min(told, key=lambda one: abs(one["days"] - answer.group["horizon_days"])) if told else None
    state = alive(answer.bundle["outcome"])
    if named is None:
        return {"median": said, "band": band, "sentence": ""}
    low, high = (amount(100 * named[key]) for key in ("low", "high"))
    share = 100 * named["estimate"]
    about = "fewer than 1 is" if share < 0.5 else "more than 99 are" if share >= 99.5 else f"about {amount(share)} are"
    sentence = (
        f"Of 100 patients whom the model scores like this one, {about} {state} after {span(named['days'])}; the data allow "
        f"{low} to {high}."
    )
    return {"median": said, "band": band, "sentence": sentence}


def absent(answer, about: dict) -> list[str]:
    """What was not handed in and what stands for it, a line each."""
    from survpack.deploy.answer import _value, named

    missing, lines = answer.missing, []
    scans = [SEQUENCES.get(one, one) for one in missing.get("modalities", [])]
    if scans:
        lines.append(f"Not scanned: {', '.join(scans)}. The network sees an empty image in its place.")
    for part, where in (("chart", "the chart"), ("measured", "the scan's measurements")):
        names = []
        for column in missing.get(part, []):
            name, unit = named(about, column)
            stands = answer.imputed.get(column)
            names.append(name if stands is None else f"{name} (taken as {_value(stands)}{unit})")
        if names:
            lines.append(f"Not in {where}: {', '.join(names)}.")
    return lines


def _name(model: str) -> str:
    from survpack.figures.style import label

    return label(model)


def _end(days: float | None, last: float) -> str:
    return f"over {span(last)}" if days is None else span(days)


def _warnings(about: dict) -> list[str]:
    cohort = about["cohort"]
    if not cohort["simulated"]:
        return []
    return [
        f"Simulated cohort: the {about['training']['patients']} patients this model learnt from do not exist. It must not be read "
        "as a prognosis of a real person."
    ]


def _likeness(answer) -> dict:
    """How unlike the training patients, in words and as a share of the limit."""
    found = answer.likeness
    if not known(found["score"]):  # nothing to compare: no distance, no gauge
        return {"words": "There is nothing to compare.", "width": None, "score": None, "limit": None}
    share = min(found["score"] / found["limit"], 1.0) if found["limit"] else 1.0
    if found["refused"]:
        words = "Beyond the limit."
    else:
        words = f"Within the limit. {amount(found['percentile'])}\u00a0% of the training patients are less unusual than this one."
    return {"words": words, "width": round(100 * share, 1), "score": amount(found["score"], 1),
            "limit": amount(found["limit"], 1)}  # fmt: skip


def _chance(one: dict) -> dict:
    low, high = amount(100 * one["low"]), amount(100 * one["high"])
    band = f"{low} to {high}\u00a0%" if one["low"] > 0 or one["high"] < 1 else "band not known"
    band = "over 99\u00a0%" if one["low"] >= 0.995 else band
    return {"when": span(one["days"]), "estimate": percent(one["estimate"]), "band": band}


def _bound(bound: dict) -> dict:
    if bound["days"] is None:
        return {"day": bound["why"], "said": ""}
    day = f"Lower bound on survival: {span(bound['days'])}, that of the {THIRD[bound['group']].lower()} of risk."
    return {"day": day, "said": bound["said"]}


def _group(answer, about: dict) -> dict:
    group = answer.group
    return {
        "name": THIRD[group["name"]],
        "words": f"at higher risk than {amount(group['percentile'])}\u00a0% of the cohort’s {answer.bundle['patients']} patients, "
        f"by the predicted risk within {span(group['horizon_days'])}",
        "at": round(group["percentile"], 1),
    }


def _bar(one: dict) -> dict:
    """A driver as a bar: left of the middle lowers the risk, right of it raises it."""
    way = "raises" if one["contribution"] > 0 else "lowers"
    width = round(50 * min(one["share"], 1.0), 1)
    return {"words": one["words"], "way": way, "width": width, "x": 50 if way == "raises" else 50 - width,
            "share": f"{amount(100 * one['share'])} %"}  # fmt: skip


def _curve(answer, about: dict) -> dict:
    from survpack.figures.prognosis import as_svg, survival_card

    outcome = answer.bundle["outcome"]
    known_of = about["reference"]["curves"]
    groups = {name: known_of[name] for name in GROUPS if name in known_of}
    curve = {key: np.asarray(values) for key, values in answer.curve.items()}
    figure = survival_card(
        curve["days"], curve["survival"], curve["low"], curve["high"], curve["own"], groups,
        [one["days"] for one in answer.probabilities], answer.bound["days"], alive=alive(outcome),
    )  # fmt: skip
    told = "; ".join(
        f"{_chance(one)['estimate']} after {_chance(one)['when']} ({_chance(one)['band']})"
        for one in answer.probabilities
    )
    source = f"data:image/svg+xml;base64,{base64.b64encode(as_svg(figure)).decode()}"
    return {"source": source, "alt": f"Predicted {outcome} over time with its band: {told}."}


def _slice(panel: dict | None) -> dict | None:
    """The slice in grey, the map over it, the tumour's outline; and where its labels go."""
    if panel is None:
        return None
    from PIL import Image

    pixels = overlay(panel)
    drawn = io.BytesIO()
    Image.fromarray(pixels).save(drawn, format="PNG")
    height, width = pixels.shape[:2]
    millimetres = np.asarray(panel["image"]).shape[1] * panel["spacing"][1]
    shown = SEQUENCES.get(panel["modality"], panel["modality"])
    there, held = np.asarray(panel["mask"]).any(), panel.get("mass_share")
    share = f" ({percent(held)} of it)" if known(held) else ""
    reach = "Cyan: the tumour’s outline." if there else "The tumour does not reach it."
    return {
        "source": f"data:image/png;base64,{base64.b64encode(drawn.getvalue()).decode()}", "width": width,
        "height": height, "bar": round(SCALE_MM / millimetres * width, 1), "left": panel["left_label"],
        "right": panel["right_label"], "said": panel["said"],
        "caption": f"Axial {shown}, the slice with most of the map{share}. {reach}",
        "alt": f"Axial slice of the {shown} scan; colours mark where the network’s answer comes from, a line the tumour.",
    }  # fmt: skip


def overlay(panel: dict) -> np.ndarray:
    """A panel of `overlays.native` as pixels, shape (rows, columns, 3), uint8, square millimetres."""
    import matplotlib as mpl
    from scipy.ndimage import binary_erosion, zoom

    image = np.nan_to_num(np.asarray(panel["image"], dtype=float))
    rows, columns = (size * step for size, step in zip(image.shape, panel["spacing"], strict=True))
    scale = PIXELS / max(rows, columns)
    shape = max(round(rows * scale), 1), max(round(columns * scale), 1)
    steps = [new / old for new, old in zip(shape, image.shape, strict=True)]
    low, high = np.percentile(image, [0.5, 99.5])
    grey = np.clip((zoom(image, steps, order=1) - low) / max(high - low, 1e-9), 0, 1)
    share = np.clip(np.nan_to_num(np.asarray(panel["attribution"], dtype=float)), 0, None)
    share = np.clip(zoom(share / share.max() if share.max() > 0 else share, steps, order=1), 0, 1)
    heat, alpha = mpl.colormaps["inferno"](share)[..., :3], 0.75 * share[..., None]
    seen = (255 * (grey[..., None] * (1 - alpha) + heat * alpha)).astype(np.uint8)
    tumour = zoom((np.asarray(panel["mask"]) > 0).astype(float), steps, order=1) >= 0.5
    seen[tumour & ~binary_erosion(tumour, iterations=2)] = OUTLINE
    return seen


@cache
def _template():
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    return found.get_template(TEMPLATE.name)
