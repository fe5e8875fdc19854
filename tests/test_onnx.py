"""ONNX says what torch says: with one patient or many, with scans missing, of every fusion."""

from types import SimpleNamespace

import numpy as np
import pytest

from survpack.deploy import onnx as exporting
from survpack.errors import BadInput

pytest.importorskip("onnxruntime")
MODALITIES, LABELS, COLUMNS, SIDE = 2, 1, 5, 32


def _bundle(fusion: str, encoder: str = "compact", members: int = 1, masks: bool = True):
    import torch

    from survpack.networks import HybridNet

    torch.manual_seed(4)
    nets = [HybridNet(encoder, fusion, MODALITIES, LABELS, COLUMNS, 3, 0.1, masks=masks) for _ in range(members)]
    for net in nets:
        torch.nn.init.normal_(net.fusion.head.weight)  # outputs of a size at which 1e-4 says something
    about = {
        "id": "sha256:0123",
        "schema": {"modalities": ["ct", "pt"], "labels": {"1": "tumour", "2": "tumour"}},
        "params": {"crops": {"size": SIDE}},
        "network": {"columns": COLUMNS, "labels": LABELS},
    }
    return SimpleNamespace(model=SimpleNamespace(nets=nets, fusion=fusion, masks=masks), about=about)


def _given(count: int, seed: int = 9) -> dict:
    rng = np.random.default_rng(seed)
    cube = (SIDE, SIDE, SIDE)
    return {
        "image": rng.standard_normal((count, MODALITIES, *cube)).astype(np.float32),
        "mask": (rng.random((count, LABELS, *cube)) > 0.7).astype(np.float32),
        "table": rng.standard_normal((count, COLUMNS)).astype(np.float32),
        "present": np.arange(count * MODALITIES).reshape(count, MODALITIES) % 3 > 0,
    }


def _agree(bundle, path, count: int) -> None:
    import onnxruntime
    import torch

    given = _given(count)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    said = session.run(["output"], {one.name: given[one.name] for one in session.get_inputs()})[0]
    with torch.no_grad():
        parts = [torch.as_tensor(given[name]) for name in ("image", "mask", "table", "present")]
        known = np.mean([net.eval()(*parts).numpy() for net in bundle.model.nets], axis=0)
    assert np.ptp(known) > 0.1
    np.testing.assert_allclose(said, known, atol=1e-4)


@pytest.mark.parametrize(
    "fusion", ["image", "chart", "concat", "film", "gated", pytest.param("cross", marks=pytest.mark.slow), "additive"]
)
def test_every_fusion_agrees_with_torch(fusion, tmp_path):
    bundle, path = _bundle(fusion), tmp_path / "network.onnx"
    assert 0 <= exporting.export(bundle, path) <= 1e-4
    _agree(bundle, path, 5)


@pytest.mark.parametrize(
    ("encoder", "more"),
    [
        pytest.param("efficientnet", {}, marks=pytest.mark.slow),
        ("compact", {"members": 2}),
        ("compact", {"masks": False}),
    ],
)
def test_deep_encoders_ensembles_and_networks_without_masks_agree(encoder, more, tmp_path):
    bundle, path = _bundle("concat", encoder, **more), tmp_path / "network.onnx"
    exporting.export(bundle, path)
    _agree(bundle, path, 2)


def test_file_names_its_bundle_and_leaves_the_number_of_patients_free(tmp_path):
    import onnx

    exporting.export(_bundle("additive"), tmp_path / "network.onnx")
    model = onnx.load(tmp_path / "network.onnx")
    onnx.checker.check_model(model)
    assert {one.key: one.value for one in model.metadata_props}["survpack_bundle"] == "sha256:0123"
    assert [one.name for one in model.graph.input] == ["image", "mask", "table", "present"]
    assert all(one.type.tensor_type.shape.dim[0].dim_param for one in model.graph.input)


def test_a_file_that_differs_from_torch_is_refused_and_not_left(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_difference", lambda *given: 2e-3)
    with pytest.raises(BadInput, match=r"differ by 2\.0e-03"):
        exporting.export(_bundle("chart"), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())
