#!/usr/bin/env bash
# scikit-survival's Brier score is too high for exact probabilities where days are coarse.
#
# Behaviour (scikit-survival 0.28.0): a death on day T weighs 1 / G(T), G(T) = P(C > T). On one day deaths come before
# censorings, in its own Kaplan-Meier curve of censoring too, so the death is seen where C >= T, and the weight that undoes
# censoring is 1 / G(T-), as R's riskRegression has it. The two part where somebody is
# censored on a day of death: with time in months or quarters nearly always. Concordance (Uno) and AUC weigh alike.
# Seen: every death beside every day of censoring, as often as it is likely, so that nothing is left to chance. The true
# score is the mean of S (1 - S); scikit-survival is 0.028 to 0.043 above it, and equal once censorings are moved a moment on.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env && env/bin/pip install --quiet --disable-pip-version-check scikit-survival==0.28.0
env/bin/python - <<'PY'
import numpy as np
from sksurv.metrics import brier_score
from sksurv.util import Surv

deaths, censorings = {0: [1, 1, 2, 3, 3, 4, 5, 5], 1: [1, 1, 1, 2, 2, 3, 4, 5]}, [1, 2, 2, 3, 5, 6]  # quarters
group, died, last = np.array([(g, d, c) for g, days in deaths.items() for d in days for c in censorings], float).T
quarters = np.arange(1.0, 4)
exact = np.array([[(died[group == g] > q).mean() for q in quarters] for g in group])
truth = (exact * (1 - exact)).mean(0)


def said(moment):
    event, time = died <= last, np.where(died <= last, died, last + moment)
    return brier_score(Surv.from_arrays(event, time), Surv.from_arrays(event, np.minimum(time, 5.5)), exact, quarters)[1]


print("true", truth, "scikit-survival", said(0), "censorings a moment later", said(1e-6))
assert (said(0) - truth > 0.02).all() and np.allclose(said(1e-6), truth), "the behaviour has changed"
PY
