"""`kits` and `kits23` in one study, a miniature of both: shared patients on one side only, and "the first N against the rest"."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pandas as pd
import pytest

from survpack import (
    adapters,
    biomarkers,
    designs,
    gate,
    paths,
    preprocess,
    pretraining,
    settings,
    shared,
    splits,
    tables,
)
from survpack import params as params_module
from survpack import study as study_module
from survpack.designs import EXTERNAL
from survpack.models import lacking
from survpack.paths import CohortPaths
from survpack.study import Study

OLD, ALL = 36, 90  # KiTS19's patients are the first of KiTS23's, followed for longer there
MODELS = ["age", "volume", "clinical-cox", "clinical-lesion-coxnet", "radiomics-coxnet", "clinical-radiomics-rsf",
          "clinical-radiomics-boosting", "deepsurv", "hybrid-tiny-cox"]  # fmt: skip


def charts(rng):
    """Those of KiTS23: survival is shorter with a larger tumour."""
    cases = []
    for number in range(ALL):
        radius = rng.uniform(3.0, 8.0)
        death, lost = rng.exponential(4000 / radius), rng.uniform(300, 1500)
        cases.append({
            "case_id": f"case_{number:05d}", "radius": radius, "age_at_nephrectomy": int(rng.integers(30, 88)),
            "gender": str(rng.choice(["male", "female"])), "bmi": round(rng.uniform(19, 40), 2),
            "comorbidities": {"copd": bool(rng.random() < 0.3), "dementia": bool(rng.random() < 0.2)},
            "smoking_history": str(rng.choice(["never_smoked", "previous_smoker", "current_smoker"])), "malignant": True,
            "radiographic_size": round(0.2 * radius * 2, 1), "tumor_isup_grade": 3,
            "last_preop_egfr": {"value": round(rng.uniform(40, 95), 1), "days_before_nephrectomy": 5},
            "vital_status": "dead" if death < lost else "censored", "vital_days_after_surgery": 1 + int(min(death, lost)),
        })  # fmt: skip
    return cases


def mask(path, radius, rng, cyst=False):
    path.parent.mkdir(parents=True)
    grid = (
        np.stack(np.meshgrid(*[np.arange(28)] * 3, indexing="ij")) - (14 + rng.uniform(-2, 2, 3))[:, None, None, None]
    )
    stretch = rng.uniform(0.75, 1.25, 3)[:, None, None, None]
    inside = ((grid / stretch) ** 2).sum(0)
    values = np.where(inside < radius**2, 2, np.where(inside < (radius + 2) ** 2, 1, 0)).astype(np.uint8)
    if cyst:
        values[:2, :2, :2] = 3
    nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 4.0, 1])).to_filename(path)


@pytest.fixture(scope="module")
def both(tmp_path_factory, params):
    """Stages 01 and 02 of both cohorts, as the notebooks do them; kits23's first 36 train, the rest are its test set."""
    root, rng = tmp_path_factory.mktemp("kits"), np.random.default_rng(4)
    cases = charts(rng)
    for case in cases:
        place = root / "raw" / "kits23" / case["case_id"] / "segmentation.nii.gz"
        mask(place, case.pop("radius"), rng, cyst=case["case_id"].endswith("7"))
        if int(case["case_id"][-5:]) < OLD:
            copy = root / "raw" / "kits" / case["case_id"] / "segmentation.nii.gz"
            copy.parent.mkdir(parents=True)
            drawn = nibabel.load(place)
            values = np.asarray(drawn.dataobj)
            nibabel.Nifti1Image(np.where(values == 3, 0, values).astype(np.uint8), drawn.affine).to_filename(copy)
    (root / "raw" / "kits23" / "kits23.json").write_text(json.dumps(cases))
    earlier = [
        {
            **case,
            "body_mass_index": case["bmi"],
            "vital_days_after_surgery": max(case["vital_days_after_surgery"] // 2, 1),
        }
        | ({"vital_status": "censored"} if case["vital_status"] == "dead" and k % 3 == 0 else {})
        for k, case in enumerate(cases[:OLD])
    ]
    (root / "raw" / "kits" / "kits.json").write_text(json.dumps(earlier))
    who = pd.DataFrame({"patient_id": [case["case_id"] for case in cases]})
    who.assign(split=np.where(np.arange(ALL) < OLD, "train", "test")).to_csv(
        root / "raw" / "kits23" / "first.csv", index=False
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paths, "RAW", root / "raw")
        patch.setattr(paths, "DERIVED", root / "derived")
        patch.setattr(paths, "REPORTS", root / "reports")
        patch.setattr(paths, "METRICS", root / "reports" / "metrics")
        patch.delenv("SURVPACK_DATA", raising=False)
        yield {name: stages(name, chosen(params)) for name in ("kits", "kits23")}


def chosen(params):
    """Choices with little to compute; voxels of one size for both, as a user writes who means them for one model."""
    fresh = params_module.load()
    sizes = {
        "crops": {"spacing_mm": {"kits": 4.0, "kits23": 4.0, "other": "auto"}},
        "biomarkers": {"spacing_mm": {"kits": 4.0, "kits23": 4.0, "other": "auto"}, "families": ["morphology"]},
        "robustness": {"patients": 4, "perturbations": ["shrink"]},
        "splits": {"folds": 2, "given": {"kits23": "first.csv"}},
        "designs": {
            "models": ["volume"],
            "repeats": 1,
            "network_repeats": 1,
            "folds": 2,
            "seeds": 1,
            "external": MODELS,
        },
        "scores": {"bootstrap": 20, "small_cell": {"patients": 8, "events": 3}},
    }
    raw = fresh.model_dump(mode="json")
    for section, values in sizes.items():
        raw[section] |= values
    raw |= {"cohorts": ["kits", "kits23"], "cohort": {"public": {"selection": {}}}}
    made = params_module.Params.model_validate(raw)
    return made.model_copy(update={"training": params.training, "classical": params.classical})


def stages(name, choice):
    own = CohortPaths(name)
    patients = adapters.load(name, choice)
    findings, hashes = patients.examined()
    patients.refuse(findings)
    split = splits.make_splits(patients.outcome, **choice.splits.model_dump(exclude={"given"}), given=patients.split)
    development = split.loc[split["split"] == "dev", "patient_id"].tolist()
    patients.save(own.cohort)
    split.to_parquet(own.cohort / "splits.parquet")
    tables.save_csv(hashes, own.tables("cohort"), "hashes")
    study = Study(name, choice, own, unsettled=True).settled(settings.resolve(patients, development, choice))
    biomarkers.extract(patients, study.params, development).save(own.biomarkers)
    preprocess.make_crops(patients, study.params.crops, study.params.preprocess).save(own.crops)
    return study


def test_who_is_in_both_is_found_counted_and_named(both):
    found = shared.pairs(both["kits23"], both["kits"])
    assert sorted(found["patient_id"]) == [f"case_{k:05d}" for k in range(OLD)]
    assert (found["patient_id"] == found["other_patient_id"]).all()
    told = shared.taken_out(both["kits"], [both["kits23"]])
    locked = both["kits"].fold(study_module.TEST_FOLD)[1]
    assert told["patients"].sum() == OLD and told["in the test set here"].sum() == len(locked) > 0
    assert shared.unknown(both["kits"], both["kits23"]) == ""


@pytest.mark.parametrize(("here", "there"), [("kits", "kits23"), ("kits23", "kits")])
def test_nobody_is_on_both_sides_of_any_design(both, here, there):
    study, other = both[here], both[there]
    same = set(shared.pairs(other, study)["patient_id"])
    everyone, locked = set(study.sites.index), set(study.fold(study_module.TEST_FOLD)[1])
    for plan in designs.plans(study, [other]):
        train, held = set(plan.train), set(plan.held)
        assert not held & locked
        if plan.design == EXTERNAL:
            assert not train & same and not (train & everyone)  # ids are alike in these two
        else:
            assert not train & held and not train & locked
    if here == "kits":  # all of its patients are in kits23's training set, which is then empty for it
        assert not any(plan.design == EXTERNAL for plan in designs.plans(study, [other]))
        assert "cohort" in designs.absent(study, [other])[EXTERNAL]


def test_transfer_takes_no_encoder_of_a_cohort_that_shares_patients(both):
    for here, there in (("kits", "kits23"), ("kits23", "kits")):
        study = both[here]
        transfer = study.params.transfer.model_copy(update={"sources": {here: [here, there]}})
        asked = Study(here, study.params.model_copy(update={"transfer": transfer}), study.paths)
        assert pretraining.sources_of(asked) == [here]


def test_the_first_of_a_cohort_train_and_the_rest_are_its_test_set(both):
    study = both["kits23"]
    assert study.development == [f"case_{k:05d}" for k in range(OLD)]
    train, held = study.fold(study_module.TEST_FOLD)
    assert sorted(train) == study.development and len(held) == ALL - OLD


def test_every_model_is_fitted_to_the_first_and_read_on_the_rest_and_the_gate_is_passed(both, tiny_encoder):
    study = both["kits23"]
    hashes = pd.read_csv(study.paths.tables("cohort") / "hashes.csv", dtype=str, keep_default_na=False)
    crops = preprocess.CropSet.load(study.paths.crops)
    proven = gate.check(study.cohort, study.splits, study.biomarkers, crops, study.params.gate, hashes, study.times_of)
    gate.require_passed(proven)
    table = gate.table(proven)
    small = {"no outcome in the scans", "shuffled voxels"}  # 36 patients without radiomics
    assert set(table.loc[table["verdict"] != "passed", "check"]) == small and "failed" not in set(table["verdict"])
    assert table.loc[0, "found"] == f"{ALL} patients, each in one place"
    ranked = {}
    for model in MODELS:
        assert lacking(model, study.patients) == "", model
        found = study_module.fit_all(study, model)
        test, cv = found.of("test").table, found.of("cv").table
        assert sorted(test["patient_id"]) == [f"case_{k:05d}" for k in range(OLD, ALL)]
        assert sorted(cv["patient_id"]) == study.development
        ranked[model] = found
    assert set(ranked) == set(MODELS)


def test_a_cohort_that_comes_later_is_read_by_every_model_that_both_can_have(both, tiny_encoder, tmp_path):
    """kits23 without the patients of kits teaches kits: charts, forests, boosting, and networks, though one has cysts too."""
    new = [f"case_{k:05d}" for k in range(OLD, ALL)]
    other = both["kits23"]
    turned = other.splits.assign(split=np.where(other.splits["patient_id"].isin(new), "dev", "test"))
    turned["fold"] = np.where(turned["split"] == "dev", np.arange(len(turned)) % 2, -1)
    later = replace(other)
    object.__setattr__(later, "__dict__", {**later.__dict__, "splits": turned})
    (plan,) = [one for one in designs.plans(both["kits"], [later]) if one.design == EXTERNAL]
    assert sorted(plan.train) == new and sorted(plan.held) == sorted(both["kits"].development)
    learnt, read = designs.in_common(both["kits"], later)
    assert learnt.masks.shape[1] == read.masks.shape[1] == 2 and both["kits23"].patients.masks.shape[1] == 3
    fits = [one for one in designs.fits(both["kits"], [plan])]
    for fit in fits:
        designs._fit_one(both["kits"], later, fit, tmp_path / f"{fit.model}.parquet")
        rows = pd.read_parquet(tmp_path / f"{fit.model}.parquet")
        assert sorted(rows["patient_id"]) == sorted(plan.held), fit.model
    assert {fit.model for fit in fits} >= {*MODELS, designs.SHARED}
