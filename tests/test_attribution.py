"""Maps lie on causes planted by construction, agree with closed forms, and stand where they belong on the scan."""

import gc
from dataclasses import replace
from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import torch
from monai.visualize import OcclusionSensitivity
from torch import nn

from survpack import encoders, models, params
from survpack.errors import BadInput
from survpack.explain import attribution
from survpack.explain.attribution import METHODS, attribute
from survpack.explain.overlays import averaged, grid_of, native, overlays, overlays_by_method
from survpack.figures import explanation as figures
from survpack.models import Deep
from survpack.objectives import OBJECTIVES
from survpack.preprocess import CropSet, crop_patient, onto, read_image

SIDE = 16


class ByHand(nn.Module):
    """The number is what `seen` makes of the first layer's maps, and a little of the chart."""

    shared = False

    def __init__(self, channels: int, seen, layer=None):
        super().__init__()
        self.encoder = nn.ModuleDict({"first": layer or nn.Sequential(nn.Conv3d(channels, 1, 1), nn.ReLU())})
        self.seen = seen

    def forward(self, image, mask, table, present):
        own = image if image.shape[1] else mask
        return self.seen(self.encoder["first"](own)).flatten(1).sum(dim=1, keepdim=True) + table.sum(1, keepdim=True)


def deep(patients, params, *nets, encoder="tiny", fusion="concat", objective="cox") -> Deep:
    model = Deep(encoder, fusion, objective, params)
    frame = model.frame(patients)
    model.prepare = models.prepare_table(frame, patients.dictionary).fit(frame)
    model.objective = OBJECTIVES[objective].learn(np.array([100.0, 200, 300]), np.ones(3, bool))
    model.nets = list(nets)
    return model


def with_images(patients, images, modalities=("t1c", "t2f"), masks=None):
    images = np.asarray(images, np.float16)
    given = {"images": images, "present": images.any(axis=(2, 3, 4)), "modalities": list(modalities)}
    return replace(patients, **given, **({} if masks is None else {"masks": masks}))


def fitted(patients, params, encoder="compact", fusion="concat") -> Deep:
    """Random weights, large enough for the image to count."""
    model = Deep(encoder, fusion, "cox", params)
    frame = model.frame(patients)
    model.prepare = models.prepare_table(frame, patients.dictionary).fit(frame)
    model.objective = OBJECTIVES["cox"].learn(np.array([100.0, 200, 300]), np.ones(3, bool))
    model.nets = [model._network(patients, 0)]
    with torch.no_grad():
        model.nets[0].fusion.head.weight.mul_(100)
    return model.settle(patients)


@pytest.fixture
def bright():
    """A network that adds up how far voxels of the first channel exceed 1; the second it does not use."""
    net = ByHand(2, lambda maps: maps)
    with torch.no_grad():
        net.encoder["first"][0].weight[:] = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
        net.encoder["first"][0].bias.fill_(-1.0)
    return net


@pytest.fixture
def blobs(make_patients):
    """Each patient's blob of 4 voxels a side is elsewhere; a brighter one, in the channel not used, is opposite."""
    starts = [(0, 0, 0), (12, 0, 4), (4, 8, 12), (8, 12, 0), (0, 4, 8)]
    images = np.zeros((5, 2, *[SIDE] * 3))
    for at, start in enumerate(starts):
        images[at, 0][tuple(slice(one, one + 4) for one in start)] = 3
        images[at, 1][tuple(slice(12 - one, 16 - one) for one in start)] = 9
    return with_images(make_patients(5, voxels=SIDE), images)


@pytest.fixture
def gappy(make_patients):
    return with_gaps(make_patients, SIDE)


def with_gaps(make_patients, side: int):
    """Eleven patients of two sequences: one lacks the first, one the second, one both."""
    images = np.random.default_rng(3).normal(size=(11, 2, *[side] * 3))
    images[2, 0] = images[5, 1] = images[7] = 0
    return with_images(make_patients(11, voxels=side), images)


# --- what a map points at -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("objective", "worse"), [("cox", 1.0), ("mse", -1.0)])
def test_every_method_points_at_the_planted_cause_and_not_at_the_brighter_decoy(
    method, objective, worse, blobs, bright, params, tiny_encoder
):
    bright.seen = lambda maps: worse * maps
    maps = attribute(deep(blobs, params, bright, objective=objective), blobs, method, window=4)
    assert maps.shape == (5, SIDE, SIDE, SIDE) and maps.dtype == np.float32
    cause = blobs.images[:, 0] > 0
    for one, own in zip(maps, cause, strict=True):
        assert one[own].min() == pytest.approx(1) and one[~own].max() == 0 and one.min() == 0


@pytest.mark.parametrize("method", METHODS)
def test_where_there_is_nothing_to_show_the_map_is_nan_whatever_the_chart_says(
    method, blobs, bright, params, tiny_encoder
):
    dark = with_images(blobs, np.where(np.arange(5)[:, None, None, None, None] == 1, 0, blobs.images))
    maps = attribute(deep(dark, params, bright), dark, method, window=4)
    assert np.isnan(maps[1]).all() and np.isfinite(maps[[0, 2, 3, 4]]).all()
    bright.seen = lambda maps: 0 * maps
    assert np.isnan(attribute(deep(dark, params, bright), dark, method)).all()


def test_a_network_that_ignores_the_image_has_no_occlusion_map_for_all_its_rounding(make_patients, params):
    cohort = with_images(make_patients(9, voxels=SIDE), np.random.default_rng(0).normal(size=(9, 2, *[SIDE] * 3)))
    model = fitted(cohort, params)
    with torch.no_grad():
        model.nets[0].fusion.head.weight[:, :32] = 0
    assert np.isnan(attribute(model, cohort, "occlusion")).all()


def test_what_lowers_the_risk_is_in_occlusion_and_integrated_gradients_but_not_in_grad_cam(
    blobs, bright, params, tiny_encoder
):
    bright.seen = lambda maps: -maps
    model = deep(blobs, params, bright)
    assert np.isnan(attribute(model, blobs, "gradcam")).all()
    for method in ("integrated-gradients", "occlusion"):
        assert np.nanmin(attribute(model, blobs, method, window=4)[blobs.images[:, 0] > 0]) == pytest.approx(1)


# --- closed forms and other libraries -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 16])
def test_integrated_gradients_of_a_linear_network_are_weight_times_input(steps, blobs, params, tiny_encoder):
    rng = np.random.default_rng(1)
    weight = rng.normal(size=(2, *[SIDE] * 3)).astype(np.float32)
    cohort = with_images(blobs, rng.normal(size=blobs.images.shape))
    net = ByHand(2, lambda maps: maps * torch.as_tensor(weight), nn.Identity())
    maps = attribute(deep(cohort, params, net), cohort, "integrated-gradients", steps=steps)
    expected = np.abs(weight * cohort.images.astype(np.float32)).sum(axis=1)
    np.testing.assert_allclose(maps, expected / expected.max(axis=(1, 2, 3), keepdims=True), rtol=1e-4, atol=1e-6)


def test_integrated_gradients_add_up_to_the_change_from_an_image_of_zeros(gappy, params):
    model = fitted(gappy, params, fusion="gated")
    seen = attribution._seen_with(model.nets[0], model, True)
    batch = attribution._given(model.samples(gappy), seen)
    found = attribution._integrated(seen, batch, 128).sum(dim=(1, 2, 3, 4)).detach().numpy()
    blank = with_images(gappy, 0 * gappy.images)
    change = model.outputs(gappy)[:, 0] - model.outputs(replace(blank, present=gappy.present))[:, 0]
    assert np.abs(change).max() > 0.5 and change[7] == found[7] == 0
    np.testing.assert_allclose(found, change, atol=0.03 * np.abs(change).max())


@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence")  # of MONAI's
@pytest.mark.parametrize("window", [4, 8])
def test_occlusion_of_captum_agrees_with_monai_s(window, make_patients, params):
    cohort = with_images(make_patients(3, voxels=SIDE), np.random.default_rng(5).normal(size=(3, 2, *[SIDE] * 3)))
    model = fitted(cohort, params)
    seen = attribution._seen_with(model.nets[0], model, True)
    maps = attribute(model, cohort, "occlusion", window=window)
    for at in range(3):
        varied, *rest = attribution._given(model.samples(cohort).take(slice(at, at + 1)), seen)

        class OneChart(nn.Module):
            def forward(self, image, rest=rest):
                return seen(image, *(part.expand(len(image), *part.shape[1:]) for part in rest))

        choice = {"mask_size": window, "overlap": 0, "mode": 0.0, "activate": False, "verbose": False}
        with torch.no_grad():
            hidden = OcclusionSensitivity(OneChart(), **choice)(varied.detach())[0][0, 0]
            change = (hidden - seen(varied, *rest)[0, 0]).abs().numpy()
        np.testing.assert_allclose(maps[at], change / change.max(), atol=1e-4)


def kept_at(model, cohort, layer: str):
    """Activations of a layer of the first network, and the gradient of its output, in double precision."""
    net, kept = model.nets[0].double().eval(), []
    hook = net.get_submodule(layer).register_forward_hook(lambda *seen: kept.append(seen[2]))
    samples = model.samples(cohort)
    given = [torch.as_tensor(part.astype(np.float64)) for part in (samples.images, samples.masks, samples.table)]
    score = net(*given, torch.as_tensor(samples.present))
    hook.remove()
    (gradient,) = torch.autograd.grad(score.sum(), kept[0])
    net.float()
    return kept[0].detach(), gradient


def upsampled(raw, mode="trilinear") -> np.ndarray:
    size = [SIDE] * (raw.ndim - 2)
    full = nn.functional.interpolate(raw.relu(), size=size, mode=mode, align_corners=False)[:, 0].numpy()
    return full


def test_grad_cam_of_the_compact_encoder_sees_what_goes_past_its_deepest_layer(make_patients, params):
    """Its regional statistics of the first maps are read beside those of the last, which here say nothing."""
    cohort = with_images(make_patients(6, voxels=SIDE), np.random.default_rng(5).normal(size=(6, 2, *[SIDE] * 3)))
    model = fitted(cohort, params)
    with torch.no_grad():
        for weight in model.nets[0].encoder.second.parameters():
            weight.zero_()
    assert np.ptp(model.outputs(cohort)) > 0
    assert np.isfinite(attribute(model, cohort, "gradcam")).any()


@pytest.mark.parametrize("size", [1.0, 1e-6])
def test_grad_cam_plus_plus_is_its_formula_also_where_gradients_are_small(size, make_patients, params, monkeypatch):
    monkeypatch.setitem(attribution.LAYERS, "compact", "encoder.second")  # of few maps no denominator is near zero
    cohort = with_images(make_patients(6, voxels=SIDE), np.random.default_rng(5).normal(size=(6, 2, *[SIDE] * 3)))
    model = fitted(cohort, params)
    with torch.no_grad():
        model.nets[0].fusion.head.weight.mul_(size)
    act, grad = kept_at(model, cohort, "encoder.second")
    alpha = grad**2 / (2 * grad**2 + (act * grad**3).sum(dim=(2, 3, 4), keepdim=True)).where(grad != 0, 1.0)
    weight = (alpha * grad.relu()).sum(dim=(2, 3, 4), keepdim=True)
    expected = upsampled((weight * act).sum(dim=1, keepdim=True))
    maps = np.nan_to_num(attribute(model, cohort, "gradcam++"))
    assert maps.any(axis=(1, 2, 3)).sum() >= 3
    for one, own in zip(maps, expected, strict=True):
        np.testing.assert_allclose(one, own / max(own.max(), 1e-300), atol=2e-3)


def test_grad_cam_of_a_transformer_is_the_weighted_sum_of_its_last_tokens(make_patients, params):
    cohort = with_images(make_patients(6, voxels=SIDE), np.random.default_rng(5).normal(size=(6, 2, *[SIDE] * 3)))
    model = fitted(cohort, params, encoder="vit")
    with torch.no_grad():
        model.nets[0].fusion.head.weight.mul_(-1)  # else there is nothing above zero to see
    act, grad = kept_at(model, cohort, "encoder.blocks")  # (n, tokens, width)
    raw = (grad.mean(dim=1, keepdim=True) * act).sum(dim=2).view(6, 1, 2, 2, 2)
    expected = upsampled(raw)
    maps = np.nan_to_num(attribute(model, cohort, "gradcam"))
    assert maps.any(axis=(1, 2, 3)).sum() >= 3
    for one, own in zip(maps, expected, strict=True):
        np.testing.assert_allclose(one, own / max(own.max(), 1e-300), atol=1e-3)


# --- encoders, ensembles, batches -----------------------------------------------------------------------------------


class BrightPixels(nn.Module):
    """What stands above 1 in the first channel of a slice."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(4, 1, 1), nn.ReLU())
        with torch.no_grad():
            self.first[0].weight.zero_()
            self.first[0].weight[0, 0] = 1.0
            self.first[0].bias.fill_(-1.0)

    def forward(self, slices):
        return self.first(slices).flatten(1)


@pytest.mark.parametrize(("point", "on"), [((3, 8, 9), 1), ((8, 2, 13), 0), ((5, 14, 8), 2)])
def test_a_tri_planar_map_is_on_the_slice_that_saw_it_at_the_voxel_itself(
    point, on, make_patients, params, monkeypatch
):
    monkeypatch.setitem(encoders.ENCODERS, "pixels", lambda *_: encoders.Planes(BrightPixels(), 1))
    monkeypatch.setitem(attribution.LAYERS, "pixels", "encoder.net.first")
    images = np.zeros((2, 2, *[SIDE] * 3))
    images[:, 0][:, *point] = 5
    cohort = with_images(make_patients(2, voxels=SIDE), images)
    model = fitted(cohort, params, encoder="pixels")
    with torch.no_grad():
        fusion = model.nets[0].fusion
        fusion.image_dense[1].weight.fill_(1.0)
        fusion.head.weight.fill_(1.0)
    maps = attribute(model, cohort, "gradcam")
    assert [tuple(map(int, place)) for place in np.argwhere(maps[0] > 0)] == [point]


def test_a_tri_planar_efficientnet_s_map_is_zero_off_its_three_slices(make_patients, params):
    cohort = with_images(make_patients(3, voxels=32), np.random.default_rng(5).normal(size=(3, 2, *[32] * 3)))
    maps = np.nan_to_num(attribute(fitted(cohort, params, encoder="efficientnet-2d"), cohort, "gradcam"))
    off = np.ix_(range(3), *[np.delete(np.arange(32), 16)] * 3)
    assert maps.any() and not maps[off].any()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("encoder", "fusion"), [("compact", "gated"), ("efficientnet-2d", "gated"), ("vit", "concat")])
def test_maps_of_all_together_are_those_of_each_alone_whichever_images_are_missing(
    method, encoder, fusion, make_patients, params
):
    gappy = with_gaps(make_patients, 32 if encoder == "efficientnet-2d" else SIDE)
    model = fitted(gappy, params, encoder, fusion)
    ids = gappy.outcome.index
    together = attribute(model, gappy, method, steps=4, window=16)
    alone = np.concatenate(
        [attribute(model, gappy.take([one]), method, steps=4, window=16) for one in ids[[0, 2, 5, 7, 10]]]
    )
    np.testing.assert_allclose(
        together[[0, 2, 5, 7, 10]], alone, atol=3e-2
    )  # Grad-CAM++ divides by what may be near zero
    assert np.isfinite(together).any()
    if fusion == "gated" or not method.startswith("gradcam"):
        assert np.isnan(together[7]).all()  # who has no image


def test_an_ensemble_s_map_is_the_mean_of_its_members_before_scaling(blobs, params, tiny_encoder):
    corner, other = np.zeros((2, 2, *[SIDE] * 3), np.float32)
    corner[:, 0, 0, 0], other[:, 5, 5, 5] = 1, 3
    cohort = with_images(blobs, np.ones_like(blobs.images))
    nets = [ByHand(2, lambda maps, own=own: maps * torch.as_tensor(own), nn.Identity()) for own in (corner, other)]
    maps = attribute(deep(cohort, params, *nets), cohort, "integrated-gradients")
    assert maps[0, 0, 0, 0] == pytest.approx(1 / 3) and maps[0, 5, 5, 5] == 1 and np.count_nonzero(maps[0]) == 2


@pytest.mark.parametrize("method", METHODS)
def test_without_any_modality_the_mask_is_the_image(method, blobs, params, tiny_encoder):
    masks = np.zeros_like(blobs.images)
    masks[:, 0, 4:8, 8:12, :4] = 1
    net = ByHand(2, lambda maps: maps)
    with torch.no_grad():
        net.encoder["first"][0].weight[:] = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)
        net.encoder["first"][0].bias.zero_()
    bare = replace(blobs, images=blobs.images[:, :0], present=blobs.present[:, :0], modalities=[], masks=masks)
    model = deep(bare, params, net)
    np.testing.assert_allclose(attribute(model, bare, method, window=4), masks[:, 0], atol=1e-6)


def test_looking_leaves_no_hook_and_no_change_behind_and_says_the_same_again(gappy, params):
    model = fitted(gappy, params)
    before = {name: value.clone() for name, value in model.nets[0].state_dict().items()}
    for method in METHODS:
        one, again = (attribute(model, gappy, method, steps=4) for _ in range(2))
        np.testing.assert_array_equal(one, again)
    for module in model.nets[0].modules():
        assert not module._forward_hooks and not module._backward_hooks
    for name, parameter in model.nets[0].named_parameters():
        assert parameter.requires_grad and parameter.grad is None and torch.equal(before[name], parameter)


@pytest.mark.parametrize("method", METHODS)
def test_looking_again_and_again_keeps_no_network_in_memory(method, gappy, params):
    model = fitted(gappy, params)

    def alive():
        gc.collect()
        return sum(isinstance(one, torch.nn.Module) for one in gc.get_objects())

    attribute(model, gappy, method, steps=2)
    before = alive()
    for _ in range(3):
        attribute(model, gappy, method, steps=2)
    assert alive() == before


@pytest.mark.parametrize(
    ("encoder", "fusion", "method", "said"),
    [
        ("compact", "concat", "lime", "no method `lime`"),
        ("compact", "chart", "occlusion", "sees no image"),
        ("blind", "concat", "gradcam++", "no layer for Grad-CAM"),
    ],
)
def test_what_cannot_be_explained_is_said_in_a_sentence(encoder, fusion, method, said, gappy, params, monkeypatch):
    monkeypatch.setitem(encoders.ENCODERS, "blind", encoders.Compact)
    with pytest.raises(BadInput, match=said):
        attribute(fitted(gappy, params, encoder, fusion), gappy, method)


# --- on the scan as it was taken ------------------------------------------------------------------------------------

POINT = (22, 7, 13)  # of the cube: on the patient's left, at the front, towards the feet


def scan(direction, *, size=(60, 56, 50), spacing=(1.0, 1.2, 1.5)):
    """A bright ellipsoid in the air, its mask with a lesion, and the voxel axes turned as `direction` says."""
    image = sitk.Image(size, sitk.sitkFloat32)
    image.SetSpacing(spacing)
    image.SetDirection(np.asarray(direction, float).ravel().tolist())
    middle = image.TransformContinuousIndexToPhysicalPoint([(one - 1) / 2 for one in size])
    image.SetOrigin([12.0 - one for one in middle])  # the middle of the scan is at (12, 12, 12) mm
    indices = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1)
    places = (indices * spacing) @ np.reshape(image.GetDirection(), (3, 3)).T + image.GetOrigin()
    away = np.linalg.norm(places - 12.0, axis=-1)
    lesion = np.linalg.norm(places - [10.0, 14.0, 12.0], axis=-1) < 6
    made = []
    for values in (np.where(away < 28, 100, 0).astype(np.float32), lesion.astype(np.uint8)):
        one = sitk.GetImageFromArray(values.transpose(2, 1, 0))
        one.CopyInformation(image)
        made.append(one)
    return *made, places


def turned(about_x: float, about_z: float) -> np.ndarray:
    x, z = np.radians([about_x, about_z])
    first = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    return first @ [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]


AXES = [np.eye(3)[list(order)] * signs for order, signs in product(permutations(range(3)), [(1, 1, 1), (-1, 1, -1)])]


@pytest.mark.parametrize("orientation", ["LPS", "RAS"])
@pytest.mark.parametrize("direction", [*AXES, turned(15, 0), turned(-10, 20) @ AXES[5]], ids=str)
def test_a_planted_point_stands_at_its_place_in_the_scan_however_the_axes_run(direction, orientation, choices):
    image, mask, places = scan(direction)
    grid = grid_of(mask, [1], choices.crops.model_copy(update={"size": 30}), 2.0, orientation)
    index = POINT if orientation == "LPS" else (29 - POINT[0], 29 - POINT[1], POINT[2])
    where = np.array(grid.TransformIndexToPhysicalPoint(index))
    blob = np.exp(-(np.linalg.norm(places - where, axis=-1) ** 2) / 18)  # the same place, painted on the scan
    marked = sitk.GetImageFromArray((sitk.GetArrayFromImage(image).transpose(2, 1, 0) + 900 * blob).transpose(2, 1, 0))
    marked.CopyInformation(image)
    cube = np.stack(np.meshgrid(*[np.arange(30)] * 3, indexing="ij"), axis=-1) - index
    panel = native(marked, mask, [1], np.exp(-((2 * np.linalg.norm(cube, axis=-1)) ** 2) / 18), grid)
    heat, shown = panel["attribution"], panel["image"]
    assert panel["level_mm"] == pytest.approx(where[2], abs=6)  # an oblique slice rises towards its side
    peak, seen = (np.array(np.unravel_index(one.argmax(), one.shape)) for one in (heat, shown))
    assert np.abs(peak - seen).max() <= 1 and heat.max() > 0.8
    rows, columns = np.nonzero(panel["mask"])
    assert peak[1] > columns.mean() + 5 and peak[0] < rows.mean() - 5  # patient's left on the right, front on top
    assert 0 < panel["mass_share"] < 0.6 and panel["air_share"] < 0.3
    assert panel["cube"].shape == shown.shape == heat.shape == panel["mask"].shape


def test_spacing_is_that_of_rows_and_of_columns_of_the_native_scan(choices):
    image, mask, _ = scan(np.eye(3)[[1, 2, 0]])  # x of the patient runs along the third axis
    grid = grid_of(mask, [1], choices.crops.model_copy(update={"size": 20}), 2.0, "LPS")
    panel = native(image, mask, [1], np.ones([20] * 3), grid, margin_mm=np.inf)
    oriented = sitk.DICOMOrient(image, "LPS")
    assert panel["spacing"] == (oriented.GetSpacing()[1], oriented.GetSpacing()[0])
    assert panel["image"].shape == (oriented.GetSize()[1], oriented.GetSize()[0])  # the whole slice


def test_the_cube_is_the_one_that_stage_02_cuts(tmp_path, choices):
    image, mask, _ = scan(turned(15, 20))
    for one, name in ((image, "image"), (mask, "mask")):
        sitk.WriteImage(one, str(tmp_path / f"{name}.nii.gz"))
    rows = pd.DataFrame(
        [{"path": str(tmp_path / "image.nii.gz"), "mask_path": str(tmp_path / "mask.nii.gz"), "modality": "ct"}]
    )
    cohort = SimpleNamespace(labels={1: "tumour"}, tumour_labels=[1])
    crops = choices.crops.model_copy(update={"size": 24, "ct_window_hu": (0.0, 200.0)})
    images, masks, *_ = crop_patient(rows, ["ct"], cohort, crops, choices.preprocess, 1.5)
    mask, image = (read_image(rows[name][0]) for name in ("mask_path", "path"))  # as a prognosis reads them
    grid = grid_of(mask, [1], crops, 1.5, choices.preprocess.orientation)
    np.testing.assert_array_equal(onto(mask, grid, sitk.sitkNearestNeighbor), masks[0])
    scaled = sitk.IntensityWindowing(sitk.Cast(image, sitk.sitkFloat32), 0, 200, 0, 1)
    np.testing.assert_array_equal(onto(scaled, grid, sitk.sitkLinear), images[0])
    assert masks[0].any()


@pytest.fixture
def choices():
    return params.load()


@pytest.fixture
def upright(choices):
    image, mask, _ = scan(np.eye(3), size=(60, 60, 60), spacing=(1.0, 1.0, 1.0))
    return image, mask, grid_of(mask, [1], choices.crops.model_copy(update={"size": 32}), 2.0, "LPS")


def test_the_slice_is_that_of_most_attribution_wherever_the_tumour_is_but_not_for_what_lies_in_the_air(upright):
    image, mask, grid = upright
    heat = np.zeros([32] * 3)
    heat[14:18, 14:18, 24] = 0.5  # above the tumour, in the head
    heat[4:8, 4:8, 2] = 1.0  # and most of it under the chin
    panel = native(image, mask, [1], heat, grid)
    assert panel["level_mm"] == pytest.approx(grid.TransformIndexToPhysicalPoint((0, 0, 24))[2], abs=1.01)
    assert panel["air_share"] == pytest.approx(16 / 24, abs=0.08) and not panel["mask"].any()


def test_the_slice_is_that_of_most_tumour_where_attribution_is_the_same_in_all_or_nowhere(upright):
    image, mask, grid = upright
    everywhere = sitk.Add(image, 1000)  # no air
    for heat, none in ((np.ones([32] * 3), False), (np.zeros([32] * 3), True), (np.full([32] * 3, np.nan), True)):
        panel = native(everywhere, mask, [1], heat, grid)
        assert panel["level_mm"] == pytest.approx(12, abs=2) and panel["mask"].sum() > 100
        assert np.isnan(panel["mass_share"]) == np.isnan(panel["air_share"]) == none
        assert np.isnan(panel["attribution"]).all() == none
    figure = figures.gradcam([panel])
    said = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert "no attribution" in said and "dotted: what the network sees" in figure.axes[-1].get_xlabel()


def test_a_field_is_the_cube_and_a_margin_and_ends_where_the_scan_does(upright):
    image, mask, grid = upright
    heat = np.ones([32] * 3)
    assert native(image, mask, [1], heat, grid, margin_mm=np.inf)["image"].shape == (60, 60)
    small = sitk.Resample(grid, [16] * 3, sitk.Transform(), sitk.sitkNearestNeighbor, grid.GetOrigin(), [2.0] * 3)
    inner = native(image, mask, [1], np.ones([16] * 3), small, margin_mm=0)
    assert max(inner["image"].shape) <= 34 and inner["cube"].mean() > 0.85


def test_intensities_are_cut_to_the_window_asked_for(upright):
    image, mask, grid = upright
    shown = native(image, mask, [1], np.ones([32] * 3), grid, window=(20, 60))["image"]
    assert (shown.min(), shown.max()) == (20, 60)


def test_a_lesion_outside_the_scan_and_an_empty_mask_are_refused(upright, choices):
    image, mask, grid = upright
    grid.SetOrigin((900.0, 0.0, 0.0))
    with pytest.raises(BadInput, match="lies outside it"):
        native(image, mask, [1], np.ones([32] * 3), grid)
    with pytest.raises(BadInput, match="no voxel of label 2 or 3"):
        grid_of(mask, [2, 3], choices.crops, 2.0, "LPS")


# --- crops, averages, figures ---------------------------------------------------------------------------------------


@pytest.fixture
def four(make_patients):
    cohort = make_patients(4, voxels=SIDE)
    masks = np.zeros((4, 2, *[SIDE] * 3), np.float16)
    masks[:, 0, 2:6, 9:12, 4:7] = 1
    masks[:, 0, 2:6, 9:13, 5] = 1  # the widest slice
    images = np.random.default_rng(2).normal(size=(4, 1, *[SIDE] * 3)).astype(np.float16)
    return replace(cohort, images=images, masks=masks)


def cropset(patients) -> CropSet:
    return CropSet(list(patients.outcome.index), patients.images, patients.masks, ["t1c"], ["enhancing", "oedema"], 2.0)


def test_crops_cut_with_axes_to_the_right_and_front_give_the_same_picture(four):
    maps = np.random.default_rng(1).random((4, *[SIDE] * 3))
    other = replace(four, images=four.images[:, :, ::-1, ::-1], masks=four.masks[:, :, ::-1, ::-1])
    here = overlays(four, maps, [0, 3], cropset(four))
    there = overlays(other, maps[:, ::-1, ::-1], [0, 3], cropset(other), orientation="RAS")
    for one, same in zip(here, there, strict=True):
        for key in ("image", "attribution", "mask"):
            np.testing.assert_array_equal(one[key], same[key])
    labels = ["enhancing", "oedema"]
    mean, turned_mean = averaged(four, maps, labels), averaged(other, maps[:, ::-1, ::-1], labels, orientation="RAS")
    for key in ("attribution", "tumour"):
        np.testing.assert_array_equal(mean["All patients"][key], turned_mean["All patients"][key])


def test_methods_are_shown_on_one_slice_the_tumour_s_widest(four):
    rng = np.random.default_rng(1)
    maps = {method: rng.random((4, *[SIDE] * 3)) for method in METHODS}
    panels = overlays_by_method(four, maps, [1, 2], cropset(four))
    assert list(panels) == list(METHODS)
    for method, own in panels.items():
        for place, at in enumerate((1, 2)):
            np.testing.assert_array_equal(own[place]["attribution"], maps[method][at, :, :, 5].T)
    figure = figures.attribution_methods(panels)
    titles = [axes.get_title(loc="center") for axes in figure.axes]
    assert titles[:4] == ["Grad-CAM", "Grad-CAM++", "Integrated gradients", "Occlusion"]
    assert len([axes for axes in figure.axes if axes.images]) == 8
    said = [text.get_text() for text in figure.axes[0].texts]
    assert panels["gradcam"][0]["title"] in said and {"R", "L"} <= set(said)


def test_averages_are_of_those_who_have_a_map_in_all_and_in_either_half_of_risk(four):
    maps = np.arange(4.0)[:, None, None, None] * np.ones((4, *[SIDE] * 3))
    maps[3] = np.nan
    means = averaged(four, maps, ["enhancing", "oedema"], risk=np.array([4.0, 1, 3, 2]))
    assert {name: one["patients"] for name, one in means.items()} == {
        "All patients": 3, "Lower risk": 1, "Higher risk": 2,
    }  # fmt: skip
    assert [one["attribution"].mean() for one in means.values()] == [1.0, 1.0, 1.0]  # of 0, 1, 2; of 1; of 0, 2
    np.testing.assert_array_equal(means["All patients"]["tumour"], four.masks[0, 0])
    nobody = averaged(four, np.full_like(maps, np.nan), ["enhancing", "oedema"])["All patients"]
    assert nobody["patients"] == 0 and np.isnan(nobody["attribution"]).all()
    figures.average_maps({"All patients": nobody}, spacing_mm=2.0)  # drawn, and says that there is nothing


def test_an_average_is_seen_from_three_sides_with_head_and_front_where_they_belong():
    heat = np.zeros([SIDE] * 3)
    heat[12, 3, 13] = 1  # left, front, head
    one = {"attribution": heat, "tumour": np.zeros([SIDE] * 3), "patients": 5}
    figure = figures.average_maps({"All patients": one}, spacing_mm=2.0)
    views = {axes.get_title(loc="left"): axes for axes in figure.axes if axes.images}
    places = {"Axial": (3, 12), "Coronal": (2, 12), "Sagittal": (2, 3)}  # row from the top, column from the left
    for view, place in places.items():
        share = np.asarray(views[view].images[-1].get_array())[..., 3]
        assert np.unravel_index(share.argmax(), share.shape) == place
    assert [text.get_text() for text in views["Sagittal"].texts][:2] == ["A", "P"]
