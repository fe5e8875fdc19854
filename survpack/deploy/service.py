"""The prognosis as a small local service: a page to try it, and POST /predict.

Nothing of a request is kept or logged. A patient's files lie in a folder that only this user can open, which is removed
before the answer is sent. `limits` says what a request may cost, `guard` who may send one, `uploads` how it is read.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import importlib
import logging
import re
import socket
import tempfile
import threading
import traceback
import warnings
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from survpack import __version__
from survpack.deploy import archive, guard, quick_imports, uploads
from survpack.deploy.answer import LONGEST_LABEL
from survpack.deploy.limits import LIMITS, Budget, Limits, Refused, Room
from survpack.errors import BadInput

PAGE = Path(__file__).with_name("page.html")
PAGE_POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
RETRY_SECONDS = 5
NEEDED = ("survpack.deploy.intake", "survpack.deploy.answer", "survpack.deploy.card", "survpack.figures.prognosis",
          "survpack.explain.attribution", "monai.visualize", "nibabel")  # fmt: skip
CHATTY = ("pydicom", "nibabel", "survpack", "PIL")  # loggers that may say what stands in a file
SAID = {404: "There is nothing at this address; see /openapi.json.", 405: "Use another method; see /openapi.json."}
log = logging.getLogger("uvicorn.error")


def app(bundle, limits: Limits = LIMITS, hosts: Sequence[str] = guard.LOOPBACK, prognose=None) -> FastAPI:
    """The service of one bundle.

    Parameters
    ----------
    bundle : bundle.Bundle
    limits : Limits
    hosts : sequence of str
        What a client may call this machine.
    prognose : callable, optional
        `prognose(bundle, upload, as_page, limits)` to the answer, a dict or a page; as here where it is not given.
    """
    prognose = prognose or Prognoses()
    room, pool = Room(limits), ThreadPoolExecutor(limits.at_work, thread_name_prefix="prognosis")

    @contextlib.asynccontextmanager
    async def lifespan(_):
        yield
        pool.shutdown(wait=False, cancel_futures=True)

    service = FastAPI(
        title="survpack: a prognosis for one patient",
        description=f"{_name(bundle)}. For research only.",
        version=__version__,
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages of documentation load their scripts from elsewhere
        redoc_url=None,
    )
    service.add_middleware(guard.Guard, hosts=hosts)
    service.add_exception_handler(HTTPException, lambda _, error: _error(error.status_code, SAID[error.status_code]))
    _add_reading(service, bundle, limits, room)

    @service.post("/predict", openapi_extra=_form(bundle), responses=_answers(), response_model=None)
    async def predict(request: Request) -> Response:
        """One patient's prognosis: JSON, or the card where the client accepts text/html."""
        try:
            return await _predicted(request, bundle, limits, room, pool, prognose)
        except Refused as error:
            return _error(error.status, str(error))
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it
        except Exception as error:  # its message may hold what was sent
            log.error("%s in %s", type(error).__name__, _place(error))
            return _error(500, "The service failed, which is no fault of what was sent; tell whoever runs it.")

    return service


async def _predicted(request: Request, bundle, limits: Limits, room: Room, pool, prognose) -> Response:
    room.enter()
    budget = Budget(limits.unpacked_bytes, limits.files, limits.voxels, room)
    try:
        with tempfile.TemporaryDirectory(prefix="survpack-service-", ignore_cleanup_errors=True) as name:
            try:
                sent = await uploads.receive(request, Path(name), _modalities(bundle), limits, budget)
                as_page = "text/html" in request.headers.get("accept", "")
                found = await _worked_on(request, pool.submit(prognose, bundle, sent, as_page, limits), limits)
            except BadInput as error:
                raise Refused(422, _without_folder(str(error), name)) from None
    finally:
        room.leave(budget.held)
    return HTMLResponse(found) if as_page else JSONResponse(found)


async def _worked_on(request: Request, job: Future, limits: Limits):
    """The job's result; it is dropped from the queue where the client is gone or has waited too long."""
    done, gone = asyncio.wrap_future(job), asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({done, gone}, return_when=asyncio.FIRST_COMPLETED, timeout=limits.wait_seconds)
        if job.cancel():
            raise ClientDisconnect if gone.done() else Refused(503, "The queue did not move on; send it again later.")
        return await done  # a thread that runs cannot be stopped, and its files must stay until it is done
    finally:
        gone.cancel()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Prognoses:
    """From files to the answer. Files are read side by side; one patient at a time is with the network, whose maps hang
    on hooks in it."""

    def __init__(self):
        self.network = threading.Lock()

    def __call__(self, bundle, sent: uploads.Upload, as_page: bool, limits: Limits):
        from survpack.deploy import answer, card

        one = taken_in(bundle, sent, limits)
        with self.network:
            found = answer.answer(bundle, one, label=sent.label)
            return card.page(found, bundle) if as_page else found.as_json()


def taken_in(bundle, sent: uploads.Upload, limits: Limits):
    """`intake.read` of what was sent, within the service's limits."""
    from survpack.deploy import intake

    most = replace(
        intake.LIMITS,
        file_bytes=min(limits.file_bytes, intake.LIMITS.file_bytes),
        unpacked_bytes=min(limits.unpacked_bytes, intake.LIMITS.unpacked_bytes),
    )
    return intake.read_for(
        bundle,
        chart=sent.chart,
        scans=_scans(sent, limits),
        masks=sent.masks or None,
        limits=most,
        budget=sent.budget,
    )


def _scans(sent: uploads.Upload, limits: Limits) -> dict[str, Path] | Path:
    if not sent.dicom:
        return sent.scans
    if sent.scans:
        raise BadInput("Both scan_… and dicom were sent, expected one kind; leave the other out.")
    for file in sorted(sent.dicom.iterdir()):
        if archive.is_zip(file):
            inside = sent.dicom / file.stem
            inside.mkdir()
            archive.unpack(file, inside, limits, sent.budget)
            file.unlink()
    return sent.dicom


def _add_reading(service: FastAPI, bundle, limits: Limits, room: Room) -> None:
    """What can be asked without a patient."""
    page, policy = _page(bundle, limits)

    @service.get("/", response_class=HTMLResponse, include_in_schema=False)
    def home() -> HTMLResponse:
        return HTMLResponse(page, headers={"Content-Security-Policy": policy})

    @service.get("/health")
    async def health() -> dict[str, str | int]:
        """Whether the service is up, and how many requests it has at hand."""
        return {"status": "ok", "requests": room.inside, "places": limits.places}

    @service.get("/version")
    def version() -> dict[str, str]:
        """What answers: the bundle's id, its model and cohort, and survpack's version."""
        about = bundle.about
        return {
            "bundle": about["id"],
            "model": about["model"],
            "cohort": about["cohort"]["name"],
            "survpack": about["survpack"],
            "service": __version__,
        }


def _page(bundle, limits: Limits) -> tuple[str, str]:
    """The page to try it, and the policy that lets its one script run and no other."""
    from jinja2 import Environment, StrictUndefined

    from survpack.adapters.bids import NAMES

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(PAGE.read_text(encoding="utf-8"))
    page = template.render(about=bundle.about, limits=limits, endings=NAMES, longest_label=LONGEST_LABEL)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return page, PAGE_POLICY.format(digest=digest)


def _form(bundle) -> dict:
    """OpenAPI's words for the body of POST /predict."""
    binary = {"type": "string", "format": "binary"}
    fields = {f"scan_{name}": binary | {"description": f"NIfTI, {name}"} for name in _modalities(bundle)}
    fields |= {f"mask_{name}": binary | {"description": f"NIfTI, of {name} alone"} for name in _modalities(bundle)}
    labels = ", ".join(f"{number} {meaning}" for number, meaning in bundle.about["schema"]["labels"].items())
    fields |= {
        "mask": binary | {"description": f"NIfTI, of all scans: {labels}"},
        "dicom": {"type": "array", "items": binary, "description": "DICOM files instead, or one zip of them"},
        "chart": {"type": "string", "description": f"JSON object of {', '.join(bundle.about['schema']['chart'])}"},
        "label": {
            "type": "string",
            "maxLength": LONGEST_LABEL,
            "description": "what the card calls the patient",
        },
    }
    content = {"multipart/form-data": {"schema": {"type": "object", "properties": fields}}}
    return {"requestBody": {"required": True, "content": content}}


def _answers() -> dict:
    error = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    meaning = {
        400: "no multipart body, or a zip that is not safe",
        403: "sent by another site's page",
        408: "sent too slowly",
        413: "too large",
        415: "another kind of body",
        422: "something is wrong with the patient's chart, scans or mask",
        503: "no room at the moment",
    }
    content = {"application/json": {"schema": error}}
    good = {"application/json": {"schema": {"type": "object"}}, "text/html": {"schema": {"type": "string"}}}
    told = {status: {"description": words, "content": content} for status, words in meaning.items()}
    return {200: {"description": "the prognosis, or why there is none", "content": good}, **told}


def _error(status: int, sentence: str) -> JSONResponse:
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return JSONResponse({"error": sentence}, status, headers=headers)


def _without_folder(sentence: str, folder: str) -> str:
    """A sentence that names files as they were sent, not where they lay."""
    return re.sub(rf"(?:{re.escape(str(Path(folder).resolve()))}|{re.escape(folder)})/?", "", sentence)


def _modalities(bundle) -> list[str]:
    return list(bundle.about["schema"]["modalities"])


def _name(bundle) -> str:
    return f"{bundle.about['model']}, trained on {bundle.about['cohort']['name']}"


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{Path(last.filename).name}:{last.lineno}"


def serve(folder: Path, host: str = "127.0.0.1", port: int = 8000, expect: str = "", *, beyond: bool = False) -> None:
    """`python -m survpack serve`: answer until interrupted.

    Parameters
    ----------
    folder : Path
        Of a bundle.
    host : str
        Where to listen; another than this machine's loopback only with `beyond`.
    port : int
        0 takes any that is free.
    expect : str
        The bundle's id, if another is to be refused.
    beyond : bool
        Whoever reaches the port may then use the service: it knows no password, and encrypts nothing.

    Raises
    ------
    BadInput
        For a bundle that is refused, a host beyond this machine without `beyond`, a port that is taken.
    """
    if not (beyond or guard.is_loopback(host)):
        raise BadInput(
            f"--host {host}: others could reach the service, which has no password and encrypts nothing; "
            "leave --host out, or add --beyond-this-machine if that is meant."
        )
    with _socket(host, port) as listening:
        quick_imports()
        from survpack.deploy import bundle

        _quiet()
        for name in NEEDED:  # or the first patient waits for them
            importlib.import_module(name)
        known = bundle.load(Path(folder), expect)
        address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        names = guard.names_of(host)
        open_to = f", open to the network without password or encryption, under the names {', '.join(names)}"
        told = "" if guard.is_loopback(host) else open_to
        print(f"{_name(known)}: {address}{told}; for research only. Ctrl+C ends it.", flush=True)
        server(app(known, hosts=names)).run(sockets=[listening])


def server(service: FastAPI, limits: Limits = LIMITS):
    """A `uvicorn.Server` that logs no request, and waits for nobody without end."""
    import uvicorn

    config = uvicorn.Config(
        service,
        http=type("Timed", (guard.Timed,), {"limits": limits}),
        ws="none",
        access_log=False,  # who asked what is nobody's business
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=10,
    )
    return uvicorn.Server(config)


def _socket(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        raise BadInput(f"--host {host} --port {port}: cannot listen there ({error}); choose another port.") from None


def _quiet() -> None:
    """Nothing that a reader of files has to say of them goes to the terminal."""
    import SimpleITK as sitk

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    warnings.simplefilter("ignore")
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL)
