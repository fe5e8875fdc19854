"""The hybrid networks behind `fit` and `predict`."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from survpack.errors import BadInput
from survpack.models import Deep, build
from survpack.models.columns import lesion

TIMES = np.array([100.0, 300, 600])


@pytest.fixture
def made(params, tiny_encoder):
    def deep(fusion="concat", objective="cox", **training) -> Deep:
        chosen = params.model_copy(update={"training": params.training.model_copy(update=training)})
        return Deep("tiny", fusion, objective, chosen)

    return deep


@pytest.fixture(scope="module")
def cohort(make_patients):
    return make_patients(30, voxels=8)


@pytest.mark.parametrize("fusion", ["chart", "image", "concat", "film", "gated", "cross", "additive"])
@pytest.mark.parametrize("objective", ["mse", "mse-censored", "cox", "cox-rank", "hazard"])
def test_every_fusion_and_objective_gives_each_patient_a_risk_days_and_a_falling_curve(made, cohort, fusion, objective):
    forecast = made(fusion, objective).fit(cohort).predict(cohort, TIMES)
    assert forecast.survival.shape == (30, 3) and np.isfinite(forecast.risk).all() and (forecast.days > 0).all()
    assert (np.diff(forecast.survival) <= 1e-9).all() and forecast.survival.min() >= 0 and forecast.survival.max() <= 1


@pytest.mark.parametrize("objective", ["cox", "hazard", "mse"])
def test_networks_from_their_weights_predict_exactly_what_they_did(made, cohort, objective, tmp_path):
    model = made(objective=objective, members=2).fit(cohort)
    model.save(tmp_path / "weights.safetensors")
    again = made(objective=objective, members=2).fit(cohort, weights=tmp_path / "weights.safetensors")
    for before, after in zip(model.predict(cohort, TIMES), again.predict(cohort, TIMES), strict=True):
        np.testing.assert_array_equal(before, after)
    assert len(again.history) == 0 and again.costs == {"parameters": model.costs["parameters"]}


def test_an_ensemble_is_the_mean_of_its_members_and_each_is_another(made, cohort):
    several = made(members=3, learning_rate=0.01).fit(cohort)
    alone = [made(seed=several.choice.seed + k, members=1, learning_rate=0.01).fit(cohort) for k in range(3)]
    outputs = [one.outputs(cohort) for one in alone]
    np.testing.assert_allclose(several.outputs(cohort), np.mean(outputs, axis=0), rtol=1e-6)
    assert not np.allclose(outputs[0], outputs[1])
    assert list(several.history["member"].unique()) == [0, 1, 2]


@pytest.mark.parametrize("fusion", ["concat", "film", "gated", "cross", "additive", "image"])
def test_an_image_and_a_chart_put_together_anew_give_the_same_risk(made, cohort, fusion):
    model = made(fusion, members=2).fit(cohort)
    again = model.fuse(model.embed(cohort), model.frame(cohort))
    np.testing.assert_allclose(again, model.predict(cohort, TIMES).risk, rtol=1e-5, atol=1e-6)


def test_a_modality_taken_away_is_one_that_was_never_scanned(made, cohort):
    two = replace(
        cohort,
        images=np.concatenate([cohort.images, cohort.images[::-1]], axis=1),
        present=np.ones((30, 2), bool),
        modalities=["t1c", "ct"],
    )
    gone = two.images.copy()
    gone[:, 1] = 0
    never = replace(two, images=gone, present=np.array([[True, False]] * 30))
    model = made("gated").fit(two)
    np.testing.assert_array_equal(model.predict(two, TIMES, without=("ct",)).risk, model.predict(never, TIMES).risk)
    assert not np.array_equal(model.predict(two, TIMES).risk, model.predict(never, TIMES).risk)
    assert two.images[:, 1].any()  # what was given is as it was
    with pytest.raises(BadInput, match="no modality pt to leave out; choose from t1c, ct"):
        model.predict(two, TIMES, without=("pt",))


def test_a_network_of_the_image_alone_does_not_know_the_chart(made, cohort):
    model = made("image").fit(cohort)
    other = replace(cohort, clinical=cohort.clinical.iloc[::-1].set_index(cohort.clinical.index))
    np.testing.assert_array_equal(model.predict(cohort, TIMES).risk, model.predict(other, TIMES).risk)


def test_deepsurv_knows_the_chart_alone(cohort, params):
    model = build("deepsurv", params).fit(cohort)
    assert list(model.frame(cohort)) == list(cohort.clinical)
    other = replace(cohort, images=cohort.images[::-1], masks=cohort.masks[::-1])
    np.testing.assert_array_equal(model.predict(cohort, TIMES).risk, model.predict(other, TIMES).risk)


def test_a_hybrid_sees_the_chart_and_each_lesion_biomarker_under_one_name(made, cohort, params):
    assert list(made().frame(cohort)) == [*cohort.clinical, *lesion(cohort, params.classical.lesion)]


def test_squared_error_is_trained_on_deaths_alone_and_its_days_are_theirs(made, make_patients):
    many = make_patients(40, voxels=8)
    dead = many.outcome["event"].to_numpy()
    later = many.outcome.assign(time_days=np.where(dead, many.outcome["time_days"], 9 * many.outcome["time_days"]))
    forecasts = [made(objective="mse").fit(one).predict(many, TIMES) for one in (many, replace(many, outcome=later))]
    np.testing.assert_array_equal(forecasts[0].days, forecasts[1].days)
    deaths = many.outcome.loc[dead, "time_days"]
    assert abs(np.median(forecasts[0].days) - deaths.mean()) < deaths.std()


def test_a_fit_that_was_interrupted_ends_as_the_unbroken_one(made, cohort, tmp_path, monkeypatch):
    from survpack import training

    unbroken = made(epochs={"other": 5}, learning_rate=0.01).fit(cohort)
    real, written = training._write_checkpoint, []

    def killed(*given):
        real(*given)
        written.append(1)
        if len(written) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(training, "_write_checkpoint", killed)
    with pytest.raises(KeyboardInterrupt):
        made(epochs={"other": 5}, learning_rate=0.01).fit(cohort, checkpoints=tmp_path)
    monkeypatch.setattr(training, "_write_checkpoint", real)
    resumed = made(epochs={"other": 5}, learning_rate=0.01).fit(cohort, checkpoints=tmp_path)
    np.testing.assert_array_equal(resumed.outputs(cohort), unbroken.outputs(cohort))
    pd.testing.assert_series_equal(resumed.history["loss"], unbroken.history["loss"])


@pytest.mark.parametrize("encoder", ["compact", "efficientnet"])
def test_a_killed_fit_of_channels_last_weights_ends_as_the_unbroken_one(encoder, make_patients, params, tmp_path):
    from survpack import training

    cohort = make_patients(12, voxels=32)
    chosen = params.training.model_copy(update={"epochs": {"other": 3}, "learning_rate": 0.01, "batch_size": 6})
    chosen = params.model_copy(update={"training": chosen})
    unbroken = Deep(encoder, "concat", "cox", chosen).fit(cohort)
    real = training._write_checkpoint

    def killed(*given):
        real(*given)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training, "_write_checkpoint", killed)
        Deep(encoder, "concat", "cox", chosen).fit(cohort, checkpoints=tmp_path)
    resumed = Deep(encoder, "concat", "cox", chosen).fit(cohort, checkpoints=tmp_path)
    np.testing.assert_array_equal(resumed.outputs(cohort), unbroken.outputs(cohort))


def test_published_weights_are_loaded_where_their_file_is(made, cohort, tmp_path, monkeypatch):
    from survpack import encoders

    given = []
    monkeypatch.setattr(encoders, "load_published", lambda encoder, path: given.append((type(encoder).__name__, path)))
    made(published={"tiny": str(tmp_path / "absent.pth"), "resnet50": str(tmp_path)}).fit(cohort)
    assert given == []
    (tmp_path / "here.pth").write_bytes(b"")
    made(published={"tiny": str(tmp_path / "here.pth")}, members=2).fit(cohort)
    assert given == [("Tiny", tmp_path / "here.pth")] * 2
