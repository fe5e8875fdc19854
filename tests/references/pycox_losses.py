"""Make pycox_losses.json: what pycox 0.3.0 says of a dozen made-up patients.

Run once, in an environment of its own (pycox wants other releases than this study):
    python -m venv pycox-env && pycox-env/bin/pip install pycox==0.3.0 torch numpy
    pycox-env/bin/python tests/references/pycox_losses.py
"""

import json
from pathlib import Path

import numpy as np
import torch
from pycox.models import LogisticHazard
from pycox.models.loss import cox_ph_loss, nll_logistic_hazard
from pycox.preprocessing.label_transforms import LabTransDiscreteTime

CUTS = np.array([60.0, 150.0, 240.0, 500.0])
NEVER = -60.0  # pycox has a hazard at day 0 as well; ours begins with the first interval

rng = np.random.default_rng(0)
logits = rng.normal(0, 1.5, (12, len(CUTS))).round(3)
risk = rng.normal(0, 1, 12).round(3)
days = np.array([12, 60, 61, 149, 150, 333, 499, 500, 80, 200, 410, 700.0])
event = np.array([1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0], dtype=bool)

coding = LabTransDiscreteTime(np.concatenate([[0.0], CUTS]))
index, died = coding.transform(days, event)
padded = torch.tensor(np.column_stack([np.full(12, NEVER), logits]))
same = torch.nn.Linear(5, 5, bias=False, dtype=torch.float64)  # pycox wants a network with weights
torch.nn.init.eye_(same.weight)
model = LogisticHazard(same, duration_index=np.concatenate([[0.0], CUTS]))
curve = model.interpolate(7, "const_pdf").predict_surv_df(padded)

found = {
    "logits": logits.tolist(),
    "risk": risk.tolist(),
    "days": days.tolist(),
    "event": event.tolist(),
    "cuts": CUTS.tolist(),
    "index": index.tolist(),  # of the interval of death; of the last one outlived
    "nll_logistic_hazard": float(nll_logistic_hazard(padded, torch.tensor(index), torch.tensor(died).double())),
    "times": curve.index.tolist(),
    "survival": curve.to_numpy().T.tolist(),
    "cox_ph_loss": float(cox_ph_loss(torch.tensor(risk), torch.tensor(days), torch.tensor(event).double())),
}
Path(__file__).with_suffix(".json").write_text(json.dumps(found) + "\n")
