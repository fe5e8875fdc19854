"""`python -m survpack check`: one cohort or several, each by itself and each two together."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from survpack import adapters, params
from survpack.checks import check_together, ordered
from survpack.cohort import Cohort, Finding, listed


def print_findings(names: list[str]) -> int:
    """Print what is wrong with cohorts, given by name or folder; nothing is written.

    Parameters
    ----------
    names : list of str

    Returns
    -------
    int
        0, or 2 where there is an error.

    Raises
    ------
    BadInput
        Where a cohort cannot be read at all.
    """
    chosen = params.load()
    cohorts = {name: adapters.load(_known_as(name), chosen) for name in dict.fromkeys(names)}
    found = check_all(cohorts)
    errors = 0
    for name, findings in found.items():
        for step in cohorts[name].flow if name in cohorts else []:
            if step["excluded"] and not step.get("own"):  # of one's own it is among the findings
                print(f"excluded: {step['excluded']} by the rule `{step['step']}` ({listed(step['patients'])})")
        for finding in findings:
            print(f"{finding.severity}: {finding}")
        wrong = sum(finding.severity == "error" for finding in findings)
        print(f"{name}: {wrong} errors, {len(findings) - wrong} warnings")
        errors += wrong
    return 2 if errors else 0


def check_all(cohorts: dict[str, Cohort]) -> dict[str, list[Finding]]:
    """Findings of each cohort and its files (personal data), and of each two (`a and b`); worst first."""
    examined = {name: cohort.examined() for name, cohort in cohorts.items()}
    found = {name: ordered(examined[name][0] + _personal(cohort)) for name, cohort in cohorts.items()}
    every = list(cohorts.items())
    for k, (name, one) in enumerate(every):
        for other_name, other in every[k + 1 :]:
            together = check_together(one, other, examined[name][1], examined[other_name][1])
            found[f"{name} and {other_name}"] = together
    return found


def _personal(cohort: Cohort) -> list[Finding]:
    """Personal data in a cohort's folder, and in images that its table names elsewhere, with the sidecars beside them.

    Of a public set a date is a warning, and none in the name of a file that its adapter asks for.
    """
    from survpack import privacy

    if not cohort.table:
        return []
    root = Path(cohort.table).parent
    named = {
        Path(path)
        for column in ("path", "mask_path")
        for path in cohort.images[column]
        if isinstance(path, str) and path
    }
    beside = {path.with_name(re.sub(r"\.nii(\.gz)?$", ".json", path.name)) for path in named}
    elsewhere = [path for path in sorted(named | beside) if path.is_file() and not path.is_relative_to(root)]
    found = [finding for path in elsewhere for finding in privacy.findings_in_file(path)]
    asked_for = _asked_for(cohort.name)
    found += privacy.folder_findings(root, asked_for)
    if asked_for:  # an archive shifts the days of what it publishes
        found = [replace(one, severity="warning") if one.found.startswith("a date (") else one for one in found]
    return found


def _asked_for(name: str) -> frozenset[str]:
    """Names of the files that the adapter of a public set asks for: the archive's own."""
    if name not in adapters.ADAPTERS:
        return frozenset()
    facts = vars(import_module(f"survpack.adapters.{name.replace('-', '_')}")).values()
    return frozenset(Path(fact).name for fact in facts if isinstance(fact, str) and fact)


def _known_as(name: str) -> str:
    """A folder's whole path, unless it is the name of a cohort."""
    folder = Path(name)
    return str(folder.resolve()) if folder.is_dir() and name not in adapters.names() else name
