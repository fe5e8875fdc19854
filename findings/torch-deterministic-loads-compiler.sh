#!/usr/bin/env bash
# PyTorch's switch to deterministic algorithms loads its compiler; the switch that is documented as the same one does not.
#
# Behaviour (torch 2.13.0, numpy 2.4.6): `torch.use_deterministic_algorithms` also sets a field of `torch._inductor.config`,
# and imports that package for it. `torch.set_deterministic_debug_mode`, "an alternative interface" by its documentation,
# sets the same flags and not that field. A process that only predicts pays seconds for a compiler that it never uses.
# Seen: 823 modules more (sympy among them) and 2 seconds by the one, none by the other; the flags agree.
set -euo pipefail
place=$(mktemp -d); trap 'rm -rf "$place"' EXIT; cd "$place"
python3 -m venv env
env/bin/pip install --quiet --disable-pip-version-check torch==2.13.0 numpy==2.4.6
for switch in 'use_deterministic_algorithms(True, warn_only=True)' 'set_deterministic_debug_mode("warn")'; do
  env/bin/python - "$switch" <<'PY'
import sys
import time

import torch

before, began = set(sys.modules), time.perf_counter()
eval(f"torch.{sys.argv[1]}")
more, seconds = len(set(sys.modules) - before), time.perf_counter() - began
print(f"{sys.argv[1]}: {more} modules more, {seconds:.2f} s")
assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
loads = "torch._inductor" in sys.modules
assert loads == sys.argv[1].startswith("use"), "the behaviour has changed"
PY
done
