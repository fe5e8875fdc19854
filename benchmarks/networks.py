"""What each encoder learns on other draws of the phantom: the rule by which its training was chosen, and a row each.

`python -m benchmarks.networks` draws `mets` with other seeds than the study's, trains a network of each encoder on 95 patients
(as many as a fold of the study has), and reads the patients held out: how far the image moves their risk
(`survpack.image_effect`), and how much smaller their loss is than that of one number for everyone. The rule: of trainings whose
image effect is above 0.1 in every draw the least loss, and within 0.02 the simpler. Concordance is told, not chosen by.
`--rates` and `--wide` set other choices side by side.
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import product
from pathlib import Path
from time import process_time

import numpy as np
import pandas as pd
import torch

from survpack import lesions, params, preprocess, training
from survpack.adapters import bids
from survpack.biomarkers import on_grid_of
from survpack.cohort import OUTCOME, Cohort
from survpack.image_effect import image_effect
from survpack.metrics import concordance
from survpack.models import Patients, build
from survpack.phantom import mets

ENCODERS = ["compact", "vit", "efficientnet", "resnet50", "efficientnet2d", "resnet2d"]
TRAINED = 95


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.networks", description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, nargs="+", default=[111, 112, 113], help="seeds of the phantom")
    parser.add_argument("--patients", type=int, default=220, help=f"of a draw; {TRAINED} are trained on")
    parser.add_argument("--encoders", nargs="+", default=ENCODERS)
    parser.add_argument("--objective", default="mse")
    parser.add_argument("--rates", type=float, nargs="+", help="learning rates in place of that of params.yaml")
    parser.add_argument("--wide", type=int, nargs="+", default=[training.WIDE], help="inputs beyond which a rate falls")
    asked, choices = parser.parse_args(arguments), params.load()
    if choices.cohort["mets"]["seed"] in asked.draws:
        parser.error("the study's own draw is among --draws; choices are made on others.")
    found = []
    for seed in asked.draws:
        ids = np.random.default_rng(seed).permutation(
            np.array((patients := drawn(seed, asked.patients, choices)).outcome.index)
        )
        train, held = patients.take(ids[:TRAINED]), patients.take(ids[TRAINED:])
        tried = product(asked.encoders, asked.rates or [choices.training.learning_rate], asked.wide)
        for encoder, rate, training.WIDE in tried:
            chosen = choices.model_copy(
                update={"training": choices.training.model_copy(update={"learning_rate": rate})}
            )
            told = {"encoder": encoder, "rate": rate, "wide": training.WIDE, "draw": seed}
            found.append(told | learnt(build(f"hybrid-{encoder}-{asked.objective}", chosen), train, held))
            print(pd.DataFrame(found[-1:]).to_string(index=False, header=len(found) == 1), flush=True)
    mean = pd.DataFrame(found).groupby(["encoder", "rate", "wide"], sort=False).agg(
        {"image_effect": "min", "loss": "mean", "skill": "mean", "c": "mean", "cpu_s": "mean"}
    )  # fmt: skip
    print(f"\nOver {len(asked.draws)} draws: the least image effect, and means\n{mean.round(3).to_string()}")
    return 0


def learnt(model, train: Patients, held: Patients) -> dict[str, float]:
    """Image effect, loss, skill and C of the patients held out, after a fit on the others, and its CPU seconds."""
    began = process_time()
    model.fit(train)
    seconds, said = process_time() - began, model.exchanged(held)
    own = said[said["patient_id"] == said["image_of"]].set_index("patient_id").loc[held.outcome.index]
    time_days, event = held.outcome["time_days"].to_numpy(float), held.outcome["event"].to_numpy(bool)
    use = event if model.objective_name == "mse" else np.ones(len(event), bool)  # the claim's loss knows no censoring
    target = model.objective.target(time_days, event)[use]
    output = model.outputs(held)[use]
    loss, null = (
        float(model.objective.loss(torch.as_tensor(each), torch.as_tensor(target))) for each in (output, 0 * output)
    )
    return {
        "image_effect": image_effect(said.assign(fold=0))["image_effect"]["estimate"],
        "loss": loss,
        "skill": 1 - loss / null,
        "c": float(concordance(time_days, event, own["risk"].to_numpy())),
        "cpu_s": seconds,
    }


def drawn(seed: int, patients: int, choices: params.Params) -> Patients:
    """Patients of another draw of `mets`, by the study's own steps, with lesion biomarkers and without radiomics."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "bids"
        mets.generate(place, Path(folder) / "truth", **choices.cohort["mets"] | {"seed": seed, "patients": patients})
        table, dictionary, labels = bids.clinical(place), bids.dictionary(place), bids.labels(place)
        participants = table[[*OUTCOME, *dictionary]].assign(event=table["event"].astype(bool))
        cohort = Cohort("mets", participants, bids.discover(place), dictionary, labels)
        crops = preprocess.make_crops(cohort, choices.crops, choices.preprocess)
        measured = {}
        for patient, own in preprocess.at_baseline(cohort.images).groupby("patient_id", sort=False):
            mask, _ = preprocess.read_mask(own["mask_path"].iloc[0])
            measured[patient] = lesions.measure(mask, labels, on_grid_of(mask, own))[0]
    features = pd.DataFrame(measured).T.loc[crops.patient_ids].astype(float).rename_axis("patient_id")
    none, seen = features[[]], (crops.images, crops.masks, crops.images.any(axis=(2, 3, 4)), crops.modalities)
    outcome = cohort.outcome.set_index("patient_id")
    perturbed = pd.concat({"original": features[:0]}, names=["perturbation"]).swaplevel()
    return Patients(outcome, cohort.covariates, features, none, none, perturbed, *seen, dictionary, cohort.name)


if __name__ == "__main__":
    raise SystemExit(main())
