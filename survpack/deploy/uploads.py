"""What a client sends, onto disk: each part of a multipart body goes to a file of its own as it comes in."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from survpack.deploy.answer import LONGEST_LABEL
from survpack.deploy.limits import MB, Budget, Limits, Refused

CHARTS = (".csv", ".tsv", ".json")
SCANS = (".nii.gz", ".nii")
TEXT = ("chart", "label")


@dataclass(frozen=True)
class Upload:
    """Files of one request, all in its own folder.

    Attributes
    ----------
    chart : Path or None
    scans, masks : dict of str to Path
        By modality; a mask for all of them is under "".
    dicom : Path or None
        A folder of numbered files, of which each may be a zip.
    label : str
        What the patient is called on the card.
    size : int
        Bytes of the body.
    budget : Budget
        What may be unpacked of it.
    """

    chart: Path | None
    scans: dict[str, Path]
    masks: dict[str, Path]
    dicom: Path | None
    label: str
    size: int
    budget: Budget


async def receive(request, folder: Path, modalities: Iterable[str], limits: Limits, budget: Budget) -> Upload:
    """The body of a request, in files under `folder`; no name that the client gave becomes a path.

    Raises
    ------
    Refused
        400 for what is no multipart body, 408 for one that comes too slowly, 413 for one too large, 415 for another
        kind, 422 for a part that nothing is known of, 503 where there is no room.
    ClientDisconnect
        Where the client is gone.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser

    length = request.headers.get("content-length", "0")
    if length.isdigit() and int(length) > limits.body_bytes:
        raise _too_large(limits)
    parts = _Parts(folder, modalities, limits)
    try:
        parser = MultipartParser(_boundary(request), parts.callbacks(), max_header_size=1024)

        def take(piece: bytes) -> None:
            parts.size += len(piece)
            if parts.size > limits.body_bytes:
                raise _too_large(limits)
            budget.hold(len(piece))
            parser.write(piece)

        await _each_piece(request, limits, take)
    except FormParserError:
        raise Refused(400, "The body is not multipart/form-data as its header says; send it with curl -F.") from None
    finally:
        parts.close()
    if not parts.ended:
        raise Refused(400, "The body ends before its last boundary; send it again, whole.")
    return parts.upload(budget)


async def _each_piece(request, limits: Limits, take: Callable[[bytes], None]) -> None:
    """The body as it comes, for as long as it does come."""
    try:
        async with asyncio.timeout(limits.upload_seconds), contextlib.aclosing(request.stream()) as stream:
            while True:
                async with asyncio.timeout(limits.idle_seconds):
                    piece = await anext(stream, b"")
                if not piece:
                    return
                take(piece)
    except TimeoutError:
        raise Refused(
            408,
            f"The body stopped for {limits.idle_seconds:g} s, or took over {limits.upload_seconds:g} s; send it again.",
        ) from None


def _boundary(request) -> bytes:
    from python_multipart.multipart import parse_options_header

    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        raise Refused(415, "The body is no multipart/form-data; send files as curl -F does, see /openapi.json.")
    if not options.get(b"boundary"):
        raise Refused(400, "The content type names no boundary; send it with curl -F, which does.")
    return options[b"boundary"]


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, f"The body is larger than {limits.body_bytes / MB:.3g} MB; send the scans that are needed only."
    )


class _Parts:
    """The files of one body, as the parser calls for them; `MultipartParser` names the methods."""

    def __init__(self, folder: Path, modalities: Iterable[str], limits: Limits):
        from python_multipart.multipart import parse_options_header

        self.folder, self.limits, self.options = folder, limits, parse_options_header
        self.modalities = list(modalities)
        self.single = {*TEXT, "mask", *(f"{kind}_{name}" for kind in ("scan", "mask") for name in self.modalities)}
        self.found: dict[str, list[Path]] = {}
        self.size = self.count = 0
        self.ended = False
        self.out = None

    def callbacks(self) -> dict:
        return {name: getattr(self, name) for name in dir(self) if name.startswith("on_")}

    def on_part_begin(self) -> None:
        self.count += 1
        if self.count > self.limits.files:
            raise Refused(413, f"The body has more than {self.limits.files} parts; send fewer files, or a zip of them.")
        self.disposition, self.field, self.value = b"", b"", b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        if self.field.lower() == b"content-disposition":
            self.disposition = self.value
        self.field, self.value = b"", b""

    def on_headers_finished(self) -> None:
        _, options = self.options(self.disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        self.left = self.limits.text_bytes if name in TEXT else self.limits.file_bytes
        self.name, self.filename = name, options.get(b"filename", b"").decode("latin-1").lower()
        self.path = self._path(name, self.filename)
        self.out = self.path.open("xb")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.left -= end - start
        if self.left < 0:
            most = (self.limits.text_bytes if self.name in TEXT else self.limits.file_bytes) / MB
            raise Refused(413, f"The part `{self.name}` is larger than {most:.3g} MB; send a smaller file.")
        self.out.write(memoryview(data)[start:end])

    def on_part_end(self) -> None:
        self.close()
        if self.filename or self.path.stat().st_size:
            self.found.setdefault(self.name, []).append(self.path)
        else:
            self.path.unlink()  # an input of a form that was left empty

    def on_end(self) -> None:
        self.ended = True

    def close(self) -> None:
        if self.out:
            self.out.close()
        self.out = None

    def _path(self, name: str, filename: str) -> Path:
        """Where a part goes; of its name only a known ending is kept, since readers go by it."""
        if name == "dicom":
            (self.folder / "dicom").mkdir(exist_ok=True)
            return self.folder / "dicom" / f"{self.count:05d}.dcm"
        if name not in self.single:
            scans = ", ".join(f"scan_{modality}" for modality in self.modalities)
            raise Refused(
                422, f"A part has a name that is not known here, expected chart, label, mask, dicom, {scans}."
            )
        if name in self.found:
            raise Refused(422, f"The part `{name}` came twice, expected one file; leave the other out.")
        known = CHARTS if name in TEXT else SCANS
        ending = next((one for one in known if filename.endswith(one)), known[-1] if name in TEXT else known[1])
        return self.folder / f"{name}{ending}"

    def upload(self, budget: Budget) -> Upload:
        one = {name: paths[0] for name, paths in self.found.items()}
        scans, masks = ({name.removeprefix(f"{kind}_"): path for name, path in one.items() if name.startswith(f"{kind}_")}
                        for kind in ("scan", "mask"))  # fmt: skip
        masks |= {"": one["mask"]} if "mask" in one else {}
        dicom = self.folder / "dicom" if "dicom" in one else None
        return Upload(one.get("chart"), scans, masks, dicom, _label(one.get("label")), self.size, budget)


def _label(file: Path | None) -> str:
    text = file.read_text(encoding="utf-8", errors="replace").strip() if file else ""
    if len(text) > LONGEST_LABEL or not text.isprintable():
        raise Refused(422, f"The label is longer than {LONGEST_LABEL} characters or not printable; shorten it.")
    return text or "patient"
