"""A bundle's networks as ONNX, checked against the original: for those who serve with another runtime.

The file holds the networks alone, prepared table and crop to their mean output. Preparing them, and making a curve of
the output, is in `bundle.json`.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import numpy as np

from survpack.deploy.writing import require_writable
from survpack.errors import BadInput
from survpack.paths import written_whole

TOLERANCE = 1e-4
BATCHES = (1, 3)  # patients at once, on which both are compared
INPUTS = ("image", "mask", "table", "present")


def export(bundle, path: Path, seed: int = 0) -> float:
    """Write a bundle's networks to `path`.

    Inputs are those that the network reads of `image` (n, modalities, x, y, z), `mask` (n, labels, x, y, z), `table`
    (n, columns), float32, and `present` (n, modalities), bool; the output is `output` (n, outputs). n is free. The
    bundle's id is in the file's metadata.

    Parameters
    ----------
    bundle : bundle.Bundle
    path : Path
    seed : int
        Of the inputs on which both are compared.

    Returns
    -------
    float
        The largest difference from torch.

    Raises
    ------
    BadInput
        Where they differ by more than 1e-4 (no file is then left), or no file can be written there.
    """
    import torch

    require_writable(path)
    shapes, net = _shapes(bundle), _mean(bundle.model)
    names = [name for name in INPUTS if shapes[name] is not None]
    net.names = names
    rng = np.random.default_rng(seed)
    with written_whole(Path(path)) as part, torch.no_grad():
        _write(net, _drawn(shapes, names, 2, rng), names, part, attends=bundle.model.fusion == "cross")
        _sign(part, bundle.about["id"])
        worst = max(_difference(net, part, _drawn(shapes, names, count, rng)) for count in BATCHES)
        if not worst <= TOLERANCE:
            raise BadInput(
                f"{path}: ONNX and torch differ by {worst:.1e}, expected {TOLERANCE:.0e} at most; keep to the bundle's own "
                "weights, and report this model."
            )
    return worst


def _mean(model):
    """The networks' mean output, as a module of the inputs in `names`."""
    import torch
    from torch import nn

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.nets, self.names = nn.ModuleList(model.nets).cpu(), []

        def forward(self, *given):
            known = dict(zip(self.names, given, strict=True))
            if "image" not in known and "mask" not in known:  # of the chart alone
                nothing = known["table"].new_zeros(len(known["table"]), 0)
                said = [net.fuse(nothing, known["table"]) for net in self.nets]
                return torch.stack(said).mean(dim=0)
            cube = known.get("image", known.get("mask"))
            image, mask = known.get("image", cube[:, :0]), known.get("mask", cube[:, :0])
            table = known.get("table", cube[:, :0, 0, 0, 0])
            present = known.get("present", table[:, :0] > 0)
            return torch.stack([net(image, mask, table, present) for net in self.nets]).mean(dim=0)

    return Mean().eval()  # the whole of it: the exporter sets back what it finds


def _shapes(bundle) -> dict[str, tuple | None]:
    """Of one patient's inputs; None for what the network does not read."""
    model, schema, side = bundle.model, bundle.about["schema"], bundle.about["params"]["crops"]["size"]
    seen = model.fusion != "chart"
    modalities = len(schema["modalities"]) if seen else 0
    told = bundle.about["network"]
    labels = int(told["labels"]) if seen and model.masks else 0  # two numbers in a mask may mean the same
    columns = 0 if model.fusion == "image" else int(told["columns"])
    return {
        "image": (modalities, side, side, side) if modalities else None,
        "mask": (labels, side, side, side) if labels else None,
        "table": (columns,) if columns else None,
        "present": (modalities,) if modalities else None,
    }


def _drawn(shapes: dict, names: list[str], count: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Inputs at random; every patient has the first modality, and perhaps the others."""
    made = []
    for name in names:
        shape = (count, *shapes[name])
        values = rng.standard_normal(shape).astype(np.float32)
        if name == "present":
            values = (values > -1) | (np.arange(shape[1]) == 0)
        made.append((values > 0).astype(np.float32) if name == "mask" else values)
    return made


def _write(net, given: list[np.ndarray], names: list[str], path: Path, *, attends: bool) -> None:
    """Traced; but the tracer fixes the number of patients where tokens attend, and only there the newer exporter does not."""
    import torch

    tensors = tuple(torch.as_tensor(one) for one in given)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if attends:
            free = torch.export.Dim("patients")
            program = torch.export.export(net, tensors, dynamic_shapes=(tuple({0: free} for _ in names),), strict=True)
            torch.onnx.export(program, dynamo=True, input_names=names, output_names=["output"], verbose=False).save(
                path
            )
        else:
            free = {name: {0: "patients"} for name in [*names, "output"]}
            torch.onnx.export(
                net, tensors, path, dynamo=False, input_names=names, output_names=["output"], dynamic_axes=free
            )


def _sign(path: Path, identity: str) -> None:
    """Say in the file which bundle it was made from."""
    import onnx

    model = onnx.load(path)
    entry = model.metadata_props.add()
    entry.key, entry.value = "survpack_bundle", identity
    onnx.save(model, path)


def _difference(net, path: Path, given: list[np.ndarray]) -> float:
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    asked = {one.name for one in session.get_inputs()}
    said = session.run(None, {name: one for name, one in zip(net.names, given, strict=True) if name in asked})[0]
    return float(np.abs(said - net(*(torch.as_tensor(one) for one in given)).numpy()).max())


def tried(bundle, path: Path) -> dict:
    """`onnx_difference` of `export`; or `onnx`, why there is none: not every network can be traced for any patient."""
    try:
        return {"onnx_difference": export(bundle, path)}
    except BadInput as error:
        return {"onnx": str(error)}
    except Exception as error:  # torch's exporter and onnxruntime raise what they like
        path.unlink(missing_ok=True)
        return {
            "onnx": f"{bundle.about['model']}: cannot be exported ({type(error).__name__}); export another network."
        }
