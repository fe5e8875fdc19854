"""Command line: python -m survpack report · run · render · score · bundle · predict · serve · conformance · check · new · dicom · fetch."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from survpack import machine
from survpack.processes import end_with_owner


def main(arguments: list[str] | None = None) -> int:
    """Run one command; 0 when all is well, 2 when something other than the code is at fault (told in one sentence)."""
    given = _parser().parse_args(arguments)
    end_with_owner()
    try:
        return given.command(given) or 0
    except KeyboardInterrupt:
        print("survpack: stopped; what is finished is kept, and the next run goes on from there.", file=sys.stderr)
        return 130
    except Exception as error:
        from survpack import faults
        from survpack.pipeline import tell

        sentence = faults.sentence(type(error).__name__, str(error))
        if sentence is None:
            raise
        tell(sentence)
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

    score = commands.add_parser("score", help="someone else's predictions: everyone together, or as ours are")
    score.add_argument(
        "predictions", type=Path, help="CSV with patient_id and risk, days, or s_180 (survival at 180 days) …"
    )
    score.add_argument("cohort", help="whose patients were predicted")
    score.add_argument("--folds", action="store_true", help="within the study's folds, without its locked test set")
    score.add_argument("--test", action="store_true", help="the same, and the test set apart; the reading is logged")
    score.add_argument("--horizon", type=float, help="day of Brier score and calibration (default: params.yaml)")
    score.add_argument(
        "--threshold", type=float, default=0.5, help="risk from which a patient is called (default: 0.5)"
    )
    score.set_defaults(command=_score)

    bundle = commands.add_parser("bundle", help="a trained network as a folder that can be given to others")
    bundle.add_argument("cohort")
    bundle.add_argument("model", nargs="?", help="default: prognosis.model of params.yaml")
    bundle.add_argument("--out", type=Path, help="default: data/derived/COHORT/bundle")
    bundle.add_argument("--onnx", type=Path, help="the network as ONNX too, checked against the original")
    bundle.set_defaults(command=_bundle)

    predict = commands.add_parser("predict", help="one patient's prognosis, as a page")
    predict.add_argument("--model", type=Path, required=True, help="a bundle, such as data/derived/mets/bundle")
    predict.add_argument(
        "--scan", action="append", default=[], help="MODALITY=FILE, repeated, or one folder (DICOM too)"
    )
    predict.add_argument("--mask", action="append", default=[], help="FILE, or MODALITY=FILE, repeated")
    predict.add_argument("--chart", type=Path, help="JSON, or CSV of one row")
    predict.add_argument("--out", type=Path, default=Path("card.html"), help="default: card.html")
    predict.add_argument("--json", action="store_true", help="the answer as JSON too, beside the page")
    predict.add_argument("--label", default="patient", help="what the card calls the patient")
    predict.add_argument("--expect", default="", help="refuse a bundle of another id")
    predict.set_defaults(command=_predict)

    serve = commands.add_parser("serve", help="the same as a local service, with a page to try it")
    serve.add_argument("bundle", type=Path)
    serve.add_argument("--host", default="127.0.0.1")
    serve.add_argument("--port", type=int, default=8000)
    serve.add_argument("--expect", default="", help="refuse a bundle of another id")
    serve.add_argument("--beyond-this-machine", action="store_true", help="needed for a host that others can reach")
    serve.set_defaults(command=_serve)

    conformance = commands.add_parser("conformance", help="our features against the IBSI reference values")
    conformance.set_defaults(command=_conformance)

    check = commands.add_parser("check", help="everything that is wrong with a cohort, and how to mend it")
    check.add_argument("cohorts", nargs="+", metavar="cohort", help="a name or a folder; of several, overlaps too")
    check.set_defaults(command=_check)

    new = commands.add_parser("new", help="a folder to fill with a cohort of your own")
    new.add_argument("name", help="of the folder, in data/raw")
    new.add_argument("--table", action="store_true", help="a table of paths and a column map, instead of BIDS")
    new.set_defaults(command=_new)

    dicom = commands.add_parser("dicom", help="a folder of DICOM, made a BIDS folder that names nobody")
    dicom.add_argument("download", type=Path, help="DICOM series, RTSTRUCT and SEG in any nesting")
    dicom.add_argument("out", type=Path, help="the BIDS folder to write, such as data/raw/NAME")
    dicom.add_argument(
        "--tumour",
        help="pattern of the regions that make up the tumour, taken as it is (default: GTV, tumour, mass, lesion, …, but no "
        "PTV, CTV, margin, node, or organ without its tumour)",
    )
    dicom.add_argument(
        "--structures",
        default="",
        help="pattern of the file or label of the structure sets to read, where several differ",
    )
    dicom.add_argument("--keep-ids", action="store_true", help="for public, pseudonymous sets")
    dicom.add_argument("--key", type=Path, help="where the table of old and new ids goes, outside OUT")
    dicom.add_argument("--deface", choices=["none", "skull"], default="none", help="skull: keep the brain only")
    dicom.set_defaults(command=_dicom)

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


def _score(given) -> None:
    from survpack import scoring

    page = scoring.report(
        given.predictions, given.cohort,
        test=given.test, folds=given.folds, horizon=given.horizon, threshold=given.threshold,
    )  # fmt: skip
    print((page.parent / "scores.md").read_text(encoding="utf-8"))
    print(f"report: {page}")


def _bundle(given) -> None:
    from survpack.deploy import bundle
    from survpack.study import Study

    study = Study.open(given.cohort)
    made = bundle.make(study, given.model or study.params.prognosis.model, given.out or study.paths.bundle)
    print(f"{made.folder}: {made.about['id']}")
    if given.onnx:
        from survpack.deploy import onnx

        print(f"{given.onnx}: differs from the original by {onnx.export(made, given.onnx):.1e} at most")


def _predict(given) -> None:
    from survpack.deploy import answer

    print(
        answer.run(
            given.model, given.scan, given.mask, given.chart, given.out, given.json, given.label, expect=given.expect
        )
    )


def _serve(given) -> None:
    from survpack.deploy import service

    service.serve(given.bundle, host=given.host, port=given.port, expect=given.expect, beyond=given.beyond_this_machine)


def _conformance(given) -> None:
    from survpack import conformance

    print(conformance.write().to_string(index=False))


def _check(given) -> int:
    from survpack import checking

    return checking.print_findings(given.cohorts)


def _new(given) -> None:
    from survpack import template

    print(template.new(given.name, table=given.table))


def _dicom(given) -> None:
    from survpack.dicom import convert

    chosen = {"structures": given.structures} | ({"tumour": given.tumour} if given.tumour else {})
    for line in convert(
        given.download, given.out, keep_ids=given.keep_ids, key=given.key, deface=given.deface, **chosen
    ):
        print(line)


def _fetch(given) -> None:
    from survpack.adapters.catalogue import catalogue

    print("\n".join(catalogue()))


if __name__ == "__main__":
    machine.hold()
    sys.exit(main())
