"""Our radiomics beside pyradiomics: the same cases, the same two cores, turn by turn; then a whole patient, and memory.

`python -m benchmarks.radiomics` prints a table and merges it into reports/metrics/benchmarks.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable
from functools import cache, lru_cache, partial
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
if Path(sys.path[0]).resolve() == HERE:  # started by its path: the peer has this file's name, and must be found instead
    sys.path[0] = str(HERE.parent)

import pandas as pd  # noqa: E402

from benchmarks import cases  # noqa: E402
from survpack import paths  # noqa: E402

CORES = 2
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"), "1")
TEXTURES = ("intensity", "histogram", "glcm", "glrlm", "glszm", "ngldm", "ngtdm")
PEER = ("firstorder", "glcm", "glrlm", "glszm", "gldm", "ngtdm")  # the same, by its names
CLOSE = 1e-4
OFFSET = {"stat_kurt": 3.0}  # the IBSI's kurtosis is the excess over a normal distribution's, the peer's is not
UNIT = "cases a second, two processes"


def ours(case: cases.Case) -> dict[str, float]:
    """Every feature of a case, by its IBSI tag."""
    from survpack import radiomics

    found, _ = radiomics.features(case.values, case.inside, case.spacing_mm, radiomics.Bins(**case.bins), TEXTURES)
    return {**found, **(radiomics.morphology(case.inside, case.spacing_mm)[0] if case.shape else {})}


def peer(case: cases.Case, merged: bool = True) -> dict[str, float]:
    """The same by pyradiomics, by its names; `merged` pools the 13 directions of GLCM and GLRLM, as ours does."""
    image, mask = _as_images(case.name)
    found = _extractor(tuple(sorted(case.bins.items())), case.shape, merged).execute(image, mask)
    return {name: float(value) for name, value in found.items()}


TOOLS = {"ours": ours, "peer": peer, "peer, 13 directions apart": partial(peer, merged=False)}


@lru_cache
def _extractor(bins: tuple, shape: bool, merged: bool):
    from radiomics import featureextractor, setVerbosity

    setVerbosity(logging.CRITICAL)
    bins = dict(bins)
    extractor = featureextractor.RadiomicsFeatureExtractor(
        additionalInfo=False,
        **({"binCount": bins["number"]} if "number" in bins else {"binWidth": bins["width"]}),
        **({"weightingNorm": "no_weighting"} if merged else {}),
    )
    extractor.disableAllFeatures()
    extractor.enableFeaturesByName(**{family: [] for family in PEER + ("shape",) * shape})
    return extractor


_LOADED: dict[str, cases.Case] = {}


@cache
def _as_images(name: str):
    """The arrays of a case as the peer takes them, made before the clock runs."""
    import SimpleITK as sitk

    case = _LOADED[name]
    images = [sitk.GetImageFromArray(array.transpose(2, 1, 0)) for array in (case.values, case.inside.astype("uint8"))]
    for image in images:
        image.SetSpacing(case.spacing_mm)
    return images


def _load(loaded: list[cases.Case]) -> None:
    """In each process: hold the cases, keep to one thread."""
    import SimpleITK as sitk

    warnings.simplefilter("ignore")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    _LOADED.update({case.name: case for case in loaded})
    for name in _LOADED:
        _as_images(name)


def _run(tool: str, name: str) -> tuple[str, float, dict[str, float]]:
    """Name, seconds of processor, and what was found."""
    start = time.process_time()
    found = TOOLS[tool](_LOADED[name])
    return name, time.process_time() - start, found


def timed(loaded: list[cases.Case], repeats: int) -> tuple[pd.DataFrame, dict[str, dict[str, dict]]]:
    """Seconds of every tool on every group of cases, and the values found.

    Two processes hold the cases; each tool in turn is given all cases of a group, the largest first, each process
    taking the next when it is free. A pass of each is not timed: it imports, fills caches and gives the values. The
    order of tools turns from pass to pass.

    Returns
    -------
    DataFrame
        One row a pass: `group`, `tool`, `wall` and `cpu` in seconds.
    dict
        Tool to case to values.
    """
    rows, values = [], {tool: {} for tool in TOOLS}
    size = {case.name: -int(case.inside.sum()) for case in loaded}
    with multiprocessing.get_context("spawn").Pool(CORES, _load, (loaded,)) as pool:
        for group in dict.fromkeys(case.group for case in loaded):
            names = sorted((case.name for case in loaded if case.group == group), key=size.get)
            for repeat in range(repeats + 1):
                for tool in _turned(list(TOOLS), repeat):
                    start = time.perf_counter()
                    done = list(pool.imap_unordered(partial(_run, tool), names, chunksize=1))
                    wall = time.perf_counter() - start
                    if repeat == 0:
                        values[tool] |= {name: found for name, _, found in done}
                    else:
                        rows.append((group, tool, wall, sum(seconds for _, seconds, _ in done)))
    return pd.DataFrame(rows, columns=["group", "tool", "wall", "cpu"]), values


def _turned(tools: list[str], by: int) -> list[str]:
    return tools[by % len(tools) :] + tools[: by % len(tools)]


def throughput(times: pd.DataFrame, loaded: list[cases.Case]) -> dict[str, dict]:
    """Cases a second, by group and over all: medians of the passes; ratio above 1 where ours is faster."""
    number = pd.Series([case.group for case in loaded]).value_counts()
    typical = times.groupby(["group", "tool"])[["wall", "cpu"]].median()
    wall = typical["wall"].unstack()
    found = {
        f"radiomics-{group}": _entry(number[group] / wall.loc[group, ["ours", "peer"]], UNIT) for group in wall.index
    }
    total, cpu = wall.sum(), typical["cpu"].unstack().sum()
    apart = "peer, 13 directions apart"
    return {
        "radiomics-all-cases": _entry(len(loaded) / total[["ours", "peer"]], UNIT),
        **found,
        "processor": _entry(len(loaded) / cpu[["ours", "peer"]], "cases a second of processor"),
        "directions-apart": _entry(len(loaded) / total[["ours", apart]], UNIT + "; the peer as it comes"),
    }


def _entry(pair, unit: str) -> dict:
    one, other = map(float, pair)
    return {"ours": one, "peer": other, "ratio": one / other, "unit": unit}


def compared(values: dict[str, dict[str, dict]]) -> pd.DataFrame:
    """Every value that both tools have: `case`, `tag`, `family`, `ours`, `peer`, `apart` (relative), `agrees`.

    Which is which says `survpack.radiomics.names`; what neither could measure is left out.
    Known to differ: the peer divides the covariance of voxels by n where ours has n - 1 (axes), has another mesh of the
    surface (volume, area, sphericity), and counts a voxel without neighbours (NGTDM), which the IBSI leaves out.
    """
    from survpack.radiomics import names

    known = names()
    known = known[known["pyradiomics"] != ""]
    rows = [
        (case, tag, one.family, own[tag], theirs[one.pyradiomics] - OFFSET.get(tag, 0))
        for case, own in values["ours"].items()
        for theirs in [values["peer"][case]]
        for tag, one in known.iterrows()
        if tag in own and one.pyradiomics in theirs
    ]
    table = pd.DataFrame(rows, columns=["case", "tag", "family", "ours", "peer"])
    table = table[table["ours"].notna() | table["peer"].notna()]
    pairs = table[["ours", "peer"]]
    return table.assign(
        apart=(pairs["ours"] - pairs["peer"]).abs() / pairs.abs().max(axis=1),
        agrees=[math.isclose(one, other, rel_tol=CLOSE, abs_tol=1e-9) for one, other in pairs.to_numpy()],
    )


def agreement(table: pd.DataFrame) -> dict[str, dict]:
    """Share of values alike, over all and by family."""
    parts = {"agreement": table["agrees"]}
    parts |= {f"agreement-{family}": part for family, part in table.groupby("family")["agrees"]}
    return {
        name: _alone(part.mean(), f"share of {len(part)} values within {CLOSE:g} of the peer's")
        for name, part in parts.items()
    }


def _alone(value: float, unit: str) -> dict:
    return {"ours": float(value), "peer": None, "ratio": None, "unit": unit}


def extraction(bids_folder: Path, patients: int) -> dict[str, dict]:
    """From files on disk to biomarkers, all regions and sequences of `mets`: seconds a patient, memory at n and 4n."""
    few, many = (_in_a_new_process(bids_folder, number) for number in (patients, 4 * patients))
    return {
        "mets-patient": _alone(many["seconds"] / (4 * patients), "seconds a patient, two processes"),
        "mets-memory": {"ours": many["peak_mb"], "peer": few["peak_mb"], "ratio": many["peak_mb"] / few["peak_mb"],
                        "unit": f"MB at the peak: {4 * patients} patients beside {patients}"},
    }  # fmt: skip


def _in_a_new_process(bids_folder: Path, patients: int) -> dict:
    """With a study's folder of its own, so that nothing is remembered from another run."""
    with tempfile.TemporaryDirectory() as root:
        environment = os.environ | {"SURVPACK_ROOT": root, "LOKY_MAX_CPU_COUNT": str(CORES)}
        command = [sys.executable, "-m", "benchmarks.radiomics", "--extract", str(bids_folder), str(patients)]
        done = subprocess.run(command, cwd=HERE.parent, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def extract(bids_folder: Path, patients: int) -> None:
    """Print the seconds and the peak of memory: that of this process and that of its largest child."""
    from joblib.externals.loky import get_reusable_executor

    from survpack import biomarkers, params
    from survpack.adapters import bids
    from survpack.cohort import Cohort

    participants, images = bids.clinical(bids_folder).head(patients), bids.discover(bids_folder)
    images = images[images["patient_id"].isin(participants["patient_id"])].reset_index(drop=True)
    cohort = Cohort("mets", participants, images, bids.dictionary(bids_folder), bids.labels(bids_folder))
    chosen = params.load(HERE.parent / "params.yaml")
    start = time.perf_counter()
    biomarkers.extract(cohort, chosen, development=[])  # nobody is measured again under perturbations
    seconds = time.perf_counter() - start
    get_reusable_executor().shutdown(wait=True)  # a child's memory is known once it has ended
    peak = sum(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(json.dumps({"seconds": seconds, "peak_mb": peak / 1024}))


def merged(found: dict[str, dict], path: Path) -> dict[str, dict]:
    """What is in the file already, with these entries new; written whole."""
    before = json.loads(path.read_text()) if path.exists() else {}
    with paths.written_whole(path) as part:
        part.write_text(json.dumps(before | found, indent=2) + "\n")
    return before | found


def gathered(bids_folder: Path, patients: int, only_phantom: bool) -> list[cases.Case]:
    """The cases of the first `patients` of the phantom, and the real ones where they are."""
    first = {f"sub-{number + 1:03d}" for number in range(patients)}
    found = [case for case in cases.phantom(bids_folder) if case.name.split()[0] in first]
    data = None if only_phantom else cases.data_folder()
    if data is None and not only_phantom:
        print("SURVPACK_DATA names no folder with sts, ibsi and pyradiomics: the phantom alone is timed.")
    return found + (list(cases.real(data, 6)) if data else [])


def say(found: dict[str, dict], table: pd.DataFrame) -> None:
    """The table on the terminal, and which features are not the peer's."""
    shown = pd.DataFrame(found).T.reindex(columns=["ours", "peer", "ratio", "unit"])
    print(shown.to_string(float_format="{:.3g}".format, na_rep=""))
    odd = table.groupby("tag").agg(agree=("agrees", "mean"), furthest=("apart", "max")).query("agree < 1")
    print(
        f"\nFeatures that do not all lie within {CLOSE:g} of the peer's: share that does, largest relative difference"
    )
    print(odd.sort_values("agree").to_string(float_format="{:.2g}".format) if len(odd) else "none")


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--patients", type=int, default=12, help="of the mets phantom; memory is looked at with 4 times"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed passes of each tool")
    parser.add_argument("--spacing", type=float, default=2.0, help="mm, voxels of the phantom")
    parser.add_argument("--phantom-only", action="store_true", help="without the real images")
    parser.add_argument("--no-extraction", action="store_true", help="without the run through whole patients")
    parser.add_argument("--out", type=Path, default=paths.METRICS / "benchmarks.json")
    parser.add_argument("--extract", nargs=2, metavar=("FOLDER", "N"), help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))  # of this process and its children
    if chosen.extract:
        extract(Path(chosen.extract[0]), int(chosen.extract[1]))
        return 0
    if find_spec("radiomics") is None:
        print("pyradiomics is not here to be compared with: pip install -e '.[benchmarks]' (it compiles, with gcc).")
        return 2
    return _whole_run(chosen)


def _whole_run(chosen: argparse.Namespace) -> int:
    from survpack.phantom import mets

    os.environ |= ONE_THREAD  # of the processes to come
    with tempfile.TemporaryDirectory() as place:
        folder, number = Path(place, "bids"), chosen.patients * (1 if chosen.no_extraction else 4)
        mets.generate(folder, Path(place, "truth.parquet"), patients=number, sites=min(3, number),
                      spacing_mm=chosen.spacing, seed=mets.DEFAULTS["seed"])  # fmt: skip
        loaded = gathered(folder, chosen.patients, chosen.phantom_only)
        print(f"{len(loaded)} cases; each tool once without the clock, then {chosen.repeats} times in turn.")
        times, values = timed(loaded, chosen.repeats)
        table = compared(values)
        found = throughput(times, loaded) | agreement(table)
        found |= {} if chosen.no_extraction else extraction(folder, chosen.patients)
    merged(found, chosen.out)
    say(found, table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
