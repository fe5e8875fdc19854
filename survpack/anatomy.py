"""What a built network is made of, and what it sees: facts for a reader, measured on the network itself."""

from __future__ import annotations

import numpy as np
import pandas as pd

ENCODERS = {  # as the report names them, and what they read
    "compact": ("Compact CNN", "3-D"),
    "efficientnet": ("EfficientNet-B0", "3-D"),
    "resnet50": ("ResNet-50", "3-D"),
    "efficientnet-2d": ("EfficientNet-B0", "2-D, on three orthogonal slices through the middle"),
    "resnet50-2d": ("ResNet-50", "2-D, on three orthogonal slices through the middle"),
    "vit": ("Transformer", "3-D, patches of 8 voxels"),
}
FUSIONS = {
    "chart": ("No image", ""),
    "image": ("No chart", ""),
    "concat": ("Concatenation", "image and chart side by side"),
    "film": ("FiLM", "chart and image scale and shift the channels of the tokens"),
    "gated": ("Gated attention", "a weight a modality and one for the chart; absent ones have none"),
    "cross": ("Cross-attention", "each column of the chart asks the image's tokens"),
    "additive": ("Sum", "image's number plus the chart's line"),
}
CHART = {  # what the chart goes through before it meets the image
    "chart": ("Dense layer", ["table_dense"]),
    "concat": ("Dense layer", ["table_dense"]),
    "gated": ("Dense layer", ["table_dense"]),
    "additive": ("Line", ["line"]),
    "cross": ("A token a column", ["slope", "offset"]),
}
MEETING = ["bottleneck", "affine", "content", "gate", "score", "attend", "mixing"]


def parts(
    net, samples, *, encoder: str, fusion: str, modalities: list[str], labels: list[str], measured: bool = True
) -> pd.DataFrame:
    """The parts of a built network in the order in which data pass them, sizes read from one patient's passage.

    Parameters
    ----------
    net : HybridNet
    samples : Samples
        Of at least one patient.
    encoder, fusion : str
        As the network was built.
    modalities, labels : list of str
    measured : bool
        Whether the table has lesion biomarkers beside the chart.

    Returns
    -------
    DataFrame
        `part` (image, encoder, tokens, chart, columns, fusion, output: those that there are), `title`, `detail`, and
        `weights`, the number of trained parameters; all of them together are the network's.
    """
    masks = labels if net.labels else []
    tokens, outputs = _passage(net, samples)
    counts = _weights(net)
    rows = []
    if tokens is not None:
        name, how = ENCODERS.get(encoder, (encoder, ""))
        shared = f", one for all {len(modalities)} modalities" if net.shared and len(modalities) > 1 else ""
        last = "" if fusion in ("film", "cross") else ", pooled, dense layer"
        projected = {"film": [], "additive": ["image_dense", "head"]}.get(fusion, ["image_dense"])
        rows += [
            ("image", "Image", _image_words(modalities, masks, samples.images.shape[2:] or samples.masks.shape[2:]), 0),
            ("encoder", name, how + shared, counts.pop("encoder")),
            ("tokens", "Tokens", _token_words(tokens, encoder, masks) + last, _taken(counts, projected)),
        ]
    if fusion != "image":
        rows.append(
            (
                "chart",
                "Chart",
                f"{samples.table.shape[1]} columns" + (", with lesion biomarkers" if measured else ""),
                0,
            )
        )
        if fusion in CHART:
            title, own = CHART[fusion]
            rows.append(("columns", title, "32 numbers" if own == ["table_dense"] else "", _taken(counts, own)))
    if fusion not in ("chart", "image"):
        rows.append(("fusion", *FUSIONS.get(fusion, (fusion, "")), _taken(counts, MEETING)))
    before = "tokens pooled, dense layer, " if fusion == "film" else ""
    rows.append(
        (
            "output",
            "Output" if fusion == "additive" else "Head",
            f"{before}{outputs} number{'s' * (outputs > 1)} a patient",
            sum(counts.values()),
        )
    )
    return pd.DataFrame(rows, columns=["part", "title", "detail", "weights"])


def few(present: np.ndarray, count: int = 4) -> list[int]:
    """Positions of a few patients to show: one who lacks a modality, where there is one, and the first of the others.

    Parameters
    ----------
    present : ndarray of bool, shape (n, modalities)
    """
    complete = np.asarray(present).all(axis=1)
    lacking = np.flatnonzero(~complete)[:1].tolist()
    others = [at for at in range(len(complete)) if at not in lacking]
    others.sort(key=lambda at: not complete[at])
    return [*others[: count - len(lacking)], *lacking]


def augmented(samples, choice, *, mirror: bool, seed: int):
    """The patients as one epoch of training would show them; the samples given stay as they were.

    Parameters
    ----------
    samples : Samples
    choice : Augment
        The `training.augment` of params.yaml.
    mirror : bool
    seed : int

    Returns
    -------
    Samples
        Of arrays.
    """
    import torch

    from survpack.augmentation import augment

    tensors = type(samples)(*(torch.as_tensor(np.asarray(one, np.float32)) for one in samples))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        seen = augment(tensors._replace(present=torch.as_tensor(np.asarray(samples.present))), choice, mirror)
    return type(samples)(*(one.numpy() for one in seen))


def scanned(before, after, patients: list[str], modalities: list[str]) -> pd.DataFrame:
    """Whether each modality of each patient is there as `stored` and as `augmented`; a row a patient and modality."""
    rows = [
        (patient, name, bool(before.present[at][channel]), bool(after.present[at][channel]))
        for at, patient in enumerate(patients)
        for channel, name in enumerate(modalities)
    ]
    return pd.DataFrame(rows, columns=["patient_id", "modality", "stored", "augmented"])


def _passage(net, samples) -> tuple[tuple[int, int] | None, int]:
    """(width, tokens) of what the encoder gives of a patient, None without encoder; and the numbers that come out."""
    import torch

    where = next(net.parameters()).device

    def one(array) -> torch.Tensor:
        return torch.as_tensor(np.asarray(array[:1]), device=where)

    seen = []
    hook = net.encoder.register_forward_hook(lambda *found: seen.append(found[2].shape[1:])) if net.encoder else None
    training = net.training
    with torch.no_grad():
        net.eval()
        images, masks, table = (one(array).float() for array in (samples.images, samples.masks, samples.table))
        outputs = net(images, masks, table, torch.ones(1, images.shape[1], dtype=torch.bool, device=where))
    net.train(training)
    if hook:
        hook.remove()
    return (tuple(seen[0]) if seen else None), outputs.shape[1]


def _weights(net) -> dict[str, int]:
    """Trained parameters of the encoder and of each part of the fusion."""
    counts = {}
    for name, values in net.named_parameters():
        words = name.split(".")
        key = "encoder" if words[0] == "encoder" else words[1]
        counts[key] = counts.get(key, 0) + values.numel() * values.requires_grad
    return counts


def _taken(counts: dict[str, int], names: list[str]) -> int:
    return sum(counts.pop(name, 0) for name in names)


def _image_words(modalities: list[str], masks: list[str], shape) -> str:
    from survpack.figures import tidy

    seen = [", ".join(map(tidy, modalities))] if modalities else []
    seen += [f"masks: {', '.join(masks)}"] if masks else []
    size = f"{shape[0]}³" if len(set(shape)) == 1 else "\u00a0×\u00a0".join(map(str, shape))
    return f"{'; '.join(seen)}; {size} voxels"


def _token_words(tokens: tuple[int, int], encoder: str, masks: list[str]) -> str:
    width, count = tokens
    if encoder != "compact":
        return f"{count} of {width} numbers"
    regions = "the whole cube" if not masks else f"{count - 1} region{'s' * (count > 2)} and the whole cube"
    return f"{count} of {width} numbers: {regions}"
