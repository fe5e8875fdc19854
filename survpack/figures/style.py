"""The house style: colours, words and sizes; and `save`.

Colours mean one thing throughout: the family of a model. Families, groups and splits also differ in marker,
line or lightness, so that a print in grey loses nothing.
"""

from __future__ import annotations

import re
import textwrap
from functools import cache
from pathlib import Path
from typing import NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from survpack.errors import BadInput
from survpack.numbers import known
from survpack.paths import written_whole
from survpack.radiomics import COLUMN, GIVEN, names

INK, MUTED, PALE = "#222222", "#5f5f5f", "#cccccc"
PLAIN = "#47617c"  # of what belongs to no model
WIDTH = 6.5  # inches: the text width of a page; 9 points in it stay legible on a phone
# Told apart under deuteranopia and protanopia too: at least 31 CIELAB units between any two (Machado et al., 2009).
COLOURS = {
    "baseline": "#808080",
    "clinical": "#0b4f94",
    "radiomics": "#4aa3df",
    "deep": "#7c3aed",
    "hybrid": "#c2410c",
    "other": "#222222",
}
MARKERS = {"baseline": "o", "clinical": "s", "radiomics": "D", "deep": "P", "hybrid": "^", "other": "v"}
MODELS = {  # headings of tables and figures: their models in order, and the names the report prints
    "Baseline": {
        "age": "Age alone",
        "volume": "Tumour volume alone",
        "gpa": "Graded prognostic assessment",
    },
    "Classical": {
        "clinical-cox": "Clinical, Cox",
        "lesion-cox": "Lesion biomarkers, Cox",
        "clinical-lesion-coxnet": "Chart + lesion, elastic net",
        "texture-coxnet": "Texture, elastic net",
        "radiomics-coxnet": "Radiomics, elastic net",
        "clinical-radiomics-rsf": "Clinical + radiomics, forest",
        "clinical-radiomics-boosting": "Clinical + radiomics, boosting",
    },
    "Deep, one source": {
        "deepsurv": "DeepSurv, chart only",
        "image-compact-cox": "Compact, image only",
    },
    "Hybrid: encoders": {
        "hybrid-efficientnet-mse": "Hybrid EfficientNet, MSE",
        "hybrid-resnet50-mse": "Hybrid ResNet-50, MSE",
        "hybrid-efficientnet2d-mse": "Tri-planar EfficientNet, MSE",
        "hybrid-resnet2d-mse": "Tri-planar ResNet-50, MSE",
        "hybrid-efficientnet-cox": "Hybrid EfficientNet, Cox",
        "hybrid-vit-cox": "Hybrid transformer, Cox",
        "hybrid-compact-cox": "Hybrid compact, Cox",
    },
    "Hybrid: objectives": {
        "hybrid-compact-mse": "Hybrid compact, MSE",
        "hybrid-compact-mse-censored": "Hybrid compact, censored MSE",
        "hybrid-compact-hazard": "Hybrid compact, hazard",
        "hybrid-compact-rank": "Hybrid compact, Cox + ranks",
    },
    "Hybrid: fusions": {
        "hybrid-film-cox": "Hybrid FiLM, Cox",
        "hybrid-gated-cox": "Hybrid gated, Cox",
        "hybrid-cross-cox": "Hybrid cross-attention, Cox",
        "hybrid-additive-cox": "Hybrid additive, Cox",
        "hybrid-nomask-cox": "Hybrid without masks, Cox",
    },
    "Ensembles": {
        "hybrid-ensemble-cox": "Hybrid ensemble, Cox",
        "late-fusion": "Late fusion",
    },
    "Controls": {
        "control-shuffled-voxels": "Control: voxels shuffled",
        "control-noise-voxels": "Control: noise",
        "control-shuffled-labels": "Control: labels shuffled",
    },
}
LABELS = {model: name for models in MODELS.values() for model, name in models.items()}
ELSEWHERE = {"hybrid": "Hybrid: encoders", "deep": "Deep, one source", "other": "Other"}  # of models without a heading
WORDS = {  # of column names, as the report prints them
    "ml": "(mL)", "mm": "(mm)", "kps": "KPS", "gpa": "GPA", "suv": "SUV", "ct": "CT", "pt": "PET", "t1n": "T1",
    "t1c": "T1c", "t2w": "T2", "t2f": "FLAIR", "glcm": "GLCM", "glrlm": "GLRLM", "glszm": "GLSZM",
    "ngtdm": "NGTDM", "ngldm": "NGLDM", "adc": "ADC", "bmi": "BMI", "egfr": "eGFR", "mskcc": "MSKCC", "ecog": "ECOG", "idh": "IDH",
    "mgmt": "MGMT", "hpv": "HPV", "gi": "gastrointestinal",
}  # fmt: skip
UNITS = {"ml": "mL", "mm": "mm", "mm2": "mm²"}  # that end a column's name
REGIONS = {"whole": "whole lesion"}
TEXTURES = {"morph": "", "stat": "intensity", "ih": "histogram", "cm": "GLCM", "rlm": "GLRLM", "szm": "GLSZM",
            "ngt": "NGTDM", "ngl": "NGLDM"}  # fmt: skip
SHORTER = [  # taken in this order until a name is short enough
    ("emphasis", "emph."), ("normalised", "norm."), ("non-uniformity", "non-unif."), ("coefficient", "coeff."),
    ("dependence", "dep."), ("difference", "diff."), ("information", "inf."), ("whole lesion", "whole"),
    ("wavelet ", ""), ("grey level", "grey"), ("robust mean absolute", "robust mean abs."), ("histogram", "hist."), (" emph.", ""),
    ("quartile coeff. of dispersion", "quartile disp."),
]  # fmt: skip
LEVELS = {"gi": "gastrointestinal"}
SPLITS = {"cv": "Cross-validation", "development": "Development (cross-validation)", "test": "Held-out test"}
# Of groups of patients: dark and solid against light and dashed, none of them a family's colour.
SERIES = [("#882255", "-"), ("#3a9e8d", (0, (4, 1.5))), ("#c9a227", (0, (1, 1))), ("#444444", (0, (6, 1, 1, 1)))]
STYLE = {
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same outlines on every machine
    "font.size": 9,
    "figure.labelsize": 9,
    "axes.labelsize": 9,
    "legend.fontsize": 9,
    "legend.title_fontsize": 9,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    "figure.constrained_layout.use": True,
    "text.parse_math": False,  # a dollar in somebody's column is one
    "svg.fonttype": "path",
    "svg.hashsalt": "survpack",
}


class Unit(NamedTuple):
    """A unit of time for an axis: its name, its length in days, the step between ticks."""

    name: str
    days: float
    step: float


def save(figure: Figure, folder: Path, name: str, table, *, kind: str = "svg", colours: int | None = None) -> Path:
    """Write `name`.svg (or .png) and `name`.csv into `folder`, both or neither, and let the figure go.

    Parameters
    ----------
    figure : Figure
    folder : path, made if absent
    name : str, without suffix
    table : DataFrame, or dict of model to DataFrame
        What the figure was drawn from. An index of names is written, a plain count is not.
    kind : {"svg", "png"}
        PNG, at 150 dots an inch, is for overlays on images.
    colours : int, optional
        Of a PNG's palette: a sheet of scans with 48 is a quarter of its size, and looks the same.

    Returns
    -------
    Path
        Of the figure. The same figure gives the same bytes.

    Raises
    ------
    BadInput
        For another kind.
    """
    if kind not in ("svg", "png"):
        raise BadInput(f"figure '{name}': kind is '{kind}', expected svg or png; pass kind='svg' or kind='png'.")
    if isinstance(table, dict):
        table = pd.concat(table, names=["model"]).reset_index(level=0).reset_index(drop=True)
    target = Path(folder) / f"{name}.{kind}"
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    named = not pd.api.types.is_integer_dtype(table.index)
    with written_whole(target) as drawn, written_whole(target.with_suffix(".csv")) as data, mpl.rc_context(STYLE):
        figure.savefig(drawn, format=kind, metadata=metadata, dpi=200 if kind == "svg" else 150)
        if kind == "svg":  # hundredths of a point are enough, and a third smaller; glyph scales stay exact
            drawn.write_text(
                re.sub(r"scale\([^)]*\)|(\d+\.\d\d)\d+", lambda found: found[1] or found[0], drawn.read_text())
            )
        elif colours:
            _with_palette(drawn, colours)
        table.to_csv(data, index=named, lineterminator="\n")
    figure.clear()
    return target


def _with_palette(path: Path, colours: int) -> None:
    """Greys, and 16 colours for what is not grey: a palette of the whole would turn scans pink."""
    from PIL import Image

    with Image.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    greys = colours - 16
    index = np.round(pixels.mean(axis=2) / 255 * (greys - 1)).astype(np.uint8)
    palette = np.repeat(np.linspace(0, 255, greys).round(), 3).astype(int).tolist()
    vivid = np.ptp(pixels.astype(int), axis=2) > 40
    if vivid.any():
        hues = Image.fromarray(pixels[vivid][None]).quantize(16, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        index[vivid] = greys + np.asarray(hues)[0]
        palette += hues.getpalette()[:48]
    small = Image.fromarray(index, mode="P")
    small.putpalette(palette)
    small.save(path, format="PNG", optimize=True)


def family(model: str) -> str:
    """Family of a model, which is its colour: baseline, clinical, radiomics, deep (one source), hybrid or other."""
    if model in MODELS["Baseline"]:
        return "baseline"
    words = model.split("-")
    first = {"control": "other", "deepsurv": "deep", "image": "deep", "late": "hybrid"}.get(words[0])
    kinds = {"hybrid": "hybrid", "radiomics": "radiomics", "texture": "radiomics", "lesion": "radiomics",
             "clinical": "clinical"}  # fmt: skip
    return first or next((kind for word, kind in kinds.items() if word in words), "other")


def section(model: str) -> str:
    """The heading under which the report's tables and figures have a model."""
    known = (heading for heading, models in MODELS.items() if model in models)
    return next(known, None) or ELSEWHERE.get(family(model), "Classical")


def by_section(models) -> dict[str, list[str]]:
    """Headings to those of the models that stand under them: known ones in the report's order, then any others."""
    order = [*LABELS, *(model for model in models if model not in LABELS)]
    found = {heading: [] for heading in [*MODELS, "Other"]}
    for model in order:
        if model in models:
            found[section(model)].append(model)
    return {heading: members for heading, members in found.items() if members}


def label(model: str) -> str:
    """A model's name as the report prints it; a name we do not know is tidied."""
    return LABELS.get(model, tidy(model))


def tidy(name: str) -> str:
    """A column's name in words: `extracranial_disease` is "Extracranial disease"."""
    words = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", str(name)).replace("-", " ").replace("_", " ").split()
    words = [word.lower() if word[1:].islower() and word[0].isupper() else word for word in words]
    text = " ".join(filter(None, (WORDS.get(word, word) for word in words)))
    first = text.split(" ")[0]
    return text[:1].upper() + text[1:] if first.islower() else text  # eGFR stays as it is


def in_words(level: str) -> str:
    """A level of a covariate as the report prints it: `never_smoked` is "never smoked"."""
    return LEVELS.get(str(level), str(level).replace("_", " "))


def panel_grid(count: int, columns: int, height: float, **shared) -> tuple[Figure, list]:
    """A grid of `count` panels; inner axes keep their ticks where the panel below is missing."""
    if columns == 3 and count == 4:  # two wider ones a row rather than one left over
        columns, height = 2, 1.45 * height
    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(WIDTH, max(height * rows + 0.6, 3.2 if columns == 1 else 0)))
    grid = figure.subplots(rows, columns, squeeze=False, **shared).ravel()
    for spare in grid[count:]:
        spare.remove()
    for axes in grid[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    return figure, list(grid[:count])


def label_axes(figure: Figure, panels: list, x: str, y: str) -> None:
    """One label for all panels; beside its axes where there is only one."""
    if len(panels) == 1:
        panels[0].set(xlabel=x, ylabel=y)
    else:
        figure.supxlabel(x)
        figure.supylabel(y)


def name_rows(axes, names: list[str]) -> None:
    """Names in place of an axis, the first at the top."""
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def beside(axes, row: float, text: str, **looks) -> None:
    """Text at the right of a row, outside the axes."""
    axes.text(1.03, row, text, transform=axes.get_yaxis_transform(), **{"va": "center"} | looks)


def head(axes, text: str) -> None:
    """What the texts `beside` the rows are."""
    beside(axes, -0.75, text, va="bottom", color=MUTED)


def unit_of_time(longest_days: float) -> Unit:
    """Days, months or years, with at most seven ticks."""
    units = [("Days", 1, 90, (1, 2, 5, 10, 15)), ("Months", 365.25 / 12, 5 * 365.25, (1, 2, 3, 6, 12)),
             ("Years", 365.25, np.inf, (1, 2, 5, 10, 20))]  # fmt: skip
    name, days, _, steps = next(unit for unit in units if longest_days <= unit[2])
    return Unit(name, days, next((step for step in steps if longest_days / days / step <= 6.5), steps[-1]))


def group_styles(count: int) -> list:
    if count == 1:
        return [(PLAIN, "-")]
    many = len(SERIES)  # past the fourth group the colours return with another dash
    return [(SERIES[k % many][0], SERIES[(k + k // many) % many][1]) for k in range(count)]


def digits_of(values: list) -> int:
    """Two decimals for scores about one, none for days."""
    return 0 if max((abs(value) for value in values if known(value)), default=0) >= 20 else 2


def feature_name(name: str, longest: int = 60) -> str:
    """A column of the biomarker table in words, with its unit: `rad_tumour_t1c_cm_contrast` is "Tumour, T1c: GLCM
    contrast", `rim_mm` "Rim thickness (mm)".

    Parameters
    ----------
    name : str
        Radiomics have IBSI's names, what was measured elsewhere the name that it came with; any other column is tidied.
    longest : int
        Longer names are abbreviated word by word, in the end by leaving out their middle.
    """
    if str(name).startswith(GIVEN):
        return shorten(str(name).removeprefix(GIVEN), longest)
    found = COLUMN.match(str(name))
    if not found:
        words, unit = biomarker_words(name)
        return shorten(f"{words} ({unit})" if unit not in ("", "count") else words, longest)
    where = [REGIONS.get(found["region"], found["region"]), tidy(found["sequence"] or ""), _filter(found["filter"])]
    words = f"{', '.join(filter(None, where))}: {tag_words(found['tag'])}"
    for long, short in SHORTER:
        words = words if len(words) <= longest else words.replace(long, short)
    return shorten(words[0].upper() + words[1:], longest)


def axis_name(name: str, characters: int = 32) -> str:
    """`feature_name`, wrapped for the side of an axis."""
    return wrap(feature_name(name), characters)


def tag_words(tag: str) -> str:
    """A feature by its IBSI tag, in IBSI's words: `rlm_sre` is "GLRLM short runs emphasis"."""
    kind, _, rest = tag.partition("_")
    feature = _ibsi().get(tag, rest.replace("_", " ")).replace("(Excess)", "excess")
    feature = feature[0].lower() + feature[1:] if feature[1:2].islower() and "'" not in feature else feature
    feature = feature.replace("histogram ", "") if kind == "ih" else feature
    return " ".join(filter(None, (TEXTURES.get(kind, kind), feature)))


def biomarker_words(name: str) -> tuple[str, str]:
    """A lesion biomarker in words, and its unit, which may be empty (`lesions.FEATURES`); else the name, tidied."""
    from survpack.lesions import FEATURES

    stem, _, last = str(name).rpartition("_")
    unit = UNITS.get(last, "") if stem else ""
    return FEATURES.get(str(name)) or (tidy(stem if unit else name), unit)


@cache
def _ibsi() -> dict[str, str]:
    return names()["feature"].to_dict()


def _filter(name: str | None) -> str:
    """`log2` is "LoG 2 mm", `wavLLH` "wavelet LLH"."""
    return re.sub(r"^log([\d.]+)$", r"LoG \1 mm", re.sub(r"^wav(?=[LH]+$)", "wavelet ", name or ""))


def wrap(text: str, characters: int) -> str:
    return "\n".join(textwrap.wrap(text, characters)) or text


def two_lines(text: str) -> str:
    """The text, broken at its comma where it is wider than a third of the page."""
    return wrap(text, 22) if "," not in text or len(text) <= 20 else text.replace(", ", ",\n")


def shorten(text: str, characters: int) -> str:
    """The text, its middle left out where it is too long: radiomics names differ at their ends."""
    if len(text) <= characters:
        return text
    half = (characters - 1) // 2
    return f"{text[:half]}…{text[-half:]}"
