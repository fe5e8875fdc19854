"""What one request may cost, and how the service says no."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from math import inf

MB = 2**20


class Refused(Exception):
    """A request that is not answered: an HTTP status, and one sentence for whoever sent it."""

    def __init__(self, status: int, sentence: str):
        super().__init__(sentence)
        self.status = status


@dataclass(frozen=True)
class Limits:
    """What clients may ask of the service.

    Attributes
    ----------
    body_bytes, file_bytes, text_bytes : int
        Of one request, of one file in it, of a chart or a label.
    files : int
        In a request; in all its zips.
    unpacked_bytes, voxels : int
        Of all that one request unpacks, zips and scans and masks together.
    unpacked_ratio : int
        How often what is in a zip may be its own size.
    held_bytes : int
        Of all requests together, on disk at one time.
    at_work, places : int
        Patients worked on at one time; those, and all who send or wait.
    connections : int
    head_seconds, idle_seconds, upload_seconds, wait_seconds, read_seconds : float
        For the headers; between two pieces of a body; for the whole of it; in the queue; for taking the answer.
    """

    body_bytes: int = 512 * MB
    file_bytes: int = 256 * MB
    text_bytes: int = 64 * 2**10
    files: int = 3000
    unpacked_bytes: int = 1024 * MB
    voxels: int = 200_000_000  # a GB or so of memory while they are read
    unpacked_ratio: int = 200
    held_bytes: int = 3072 * MB  # two requests at their most
    at_work: int = 2
    places: int = 16
    connections: int = 64
    head_seconds: float = 10.0
    idle_seconds: float = 10.0
    upload_seconds: float = 120.0
    wait_seconds: float = 60.0
    read_seconds: float = 30.0


LIMITS = Limits()


class Room:
    """How many requests, and how many bytes of them, there are at one time; bytes may be taken from any thread."""

    def __init__(self, limits: Limits):
        self.limits, self.inside, self.held, self.lock = limits, 0, 0, threading.Lock()

    def enter(self) -> None:
        if self.inside >= self.limits.places:
            raise Refused(503, f"The service has {self.inside} requests at hand, which is all it takes; send it again.")
        self.inside += 1

    def take(self, count: int) -> None:
        with self.lock:
            if self.held + count > self.limits.held_bytes:
                raise Refused(503, "The service holds as many files of other requests as it may; send it again.")
            self.held += count

    def leave(self, count: int) -> None:
        """One request is done, with the `count` bytes that it took."""
        self.inside -= 1
        with self.lock:
            self.held -= count


@dataclass
class Budget:
    """What one request or patient may still unpack: every zip and every gzip of it takes from the same.

    Attributes
    ----------
    bytes, files, voxels : float
        What is left.
    room : Room or None
        Of the service, where all requests' bytes are counted.
    held : int
        Bytes that this request takes of the room.
    """

    bytes: float
    files: float
    voxels: float = inf
    room: Room | None = None
    held: int = field(default=0, init=False)

    def take(self, count: int, files: int = 0, voxels: int = 0) -> bool:
        """Whether there is as much left, which is then taken.

        Raises
        ------
        Refused
            503 where other requests hold what would be needed.
        """
        if count > self.bytes or files > self.files or voxels > self.voxels:
            return False
        self.hold(count)
        self.bytes, self.files, self.voxels = self.bytes - count, self.files - files, self.voxels - voxels
        return True

    def hold(self, count: int) -> None:
        """Count bytes in the room of all requests; those of the body too, which are not unpacked."""
        if self.room:
            self.room.take(count)
        self.held += count
