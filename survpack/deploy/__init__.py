"""From a model of the study to one patient's prognosis: bundle, intake, answer, card, service."""

from __future__ import annotations

import sys


def quick_imports() -> None:
    """Spare a process that only predicts four seconds: MONAI draws in jsonschema, whose check of IRIs nothing here uses."""
    sys.modules.setdefault("rfc3987_syntax", None)  # jsonschema takes it as not installed
