"""Command line: python -m survpack report · run · render · check · fetch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from survpack.errors import BadInput


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when all is well, 2 when the input is at fault (told in one sentence)."""
    given = _parser().parse_args(arguments)
    try:
        return given.command(given) or 0
    except BadInput as error:
        from survpack.pipeline import tell

        tell(error)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m survpack", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")

    report = commands.add_parser("report", help="the whole study, to reports/paper.html")
    report.add_argument("--cohorts", default="", help="this run only: names, separated by spaces or commas")
    report.add_argument("--profile", default="", help="this run only: default, smoke or full")
    report.set_defaults(command=_report)

    run = commands.add_parser("run", help="one notebook as a stage (dvc.yaml calls this)")
    run.add_argument("notebook", help="such as 01-cohort")
    run.add_argument("--cohort", required=True)
    run.add_argument("--model")
    run.set_defaults(command=_run)

    render = commands.add_parser("render", help="the page from what the pipeline wrote")
    render.set_defaults(command=_render)

    check = commands.add_parser("check", help="everything that is wrong with a cohort, and how to mend it")
    check.add_argument("cohort", help="a cohort's name, or a BIDS folder")
    check.set_defaults(command=_check)

    fetch = commands.add_parser("fetch", help="the public data sets: what, where from, whether present")
    fetch.set_defaults(command=_fetch)
    return parser


def _report(given) -> None:
    from survpack.pipeline import report

    report(given.cohorts.replace(",", " ").split() or None, given.profile or None)


def _run(given) -> None:
    from survpack.pipeline import run_notebook

    run_notebook(given.notebook, given.cohort, given.model)


def _render(given) -> None:
    from survpack import params, render

    print(render.render(params.load().cohorts))


def _check(given) -> int:
    from survpack import adapters, params

    folder = Path(given.cohort)
    name = str(folder.resolve()) if folder.is_dir() and given.cohort not in adapters.names() else given.cohort
    findings = adapters.load(name, params.load()).check()
    for finding in findings:
        print(f"{finding.severity}: {finding}")
    errors = sum(finding.severity == "error" for finding in findings)
    print(f"{given.cohort}: {errors} errors, {len(findings) - errors} warnings")
    return 2 if errors else 0


def _fetch(given) -> None:
    from survpack import adapters

    for line in adapters.catalogue():
        print(line)


if __name__ == "__main__":
    sys.exit(main())
