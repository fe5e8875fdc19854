"""The door of the service: who may knock, how long one may stand in it, and what every answer says to browsers."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from uvicorn.protocols.http.h11_impl import H11Protocol

from survpack.deploy.limits import LIMITS

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
CARD_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'none'"
HEADERS = {
    "Content-Security-Policy": CARD_POLICY,  # of whatever brings none of its own
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def names_of(host: str) -> list[str]:
    """What a client may call this machine in its Host header; a name of someone else's is DNS rebinding."""
    if is_loopback(host):
        return list(dict.fromkeys([*LOOPBACK, f"[{host}]" if ":" in host else host]))
    own = {host, socket.gethostname(), socket.getfqdn()}
    with contextlib.suppress(OSError):  # a machine that does not know its own address
        own |= {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
    return [*LOOPBACK, *sorted(f"[{name}]" if ":" in name else name for name in own)]


class Guard:
    """Refuse another name than `hosts` and what another site's page sends, and put `HEADERS` on every answer."""

    def __init__(self, app, hosts: Sequence[str] = LOOPBACK):
        self.app, self.hosts = app, {name.lower() for name in hosts}

    async def __call__(self, scope, receive, send) -> None:
        async def told(message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = Headers(scope=scope)
        if _name(headers.get("host", "")) not in self.hosts:
            sentence = "The Host header has another name than this machine's; use the address that serve printed."
            answer = JSONResponse({"error": sentence}, 400)
        elif scope["method"] not in ("GET", "HEAD") and _from_elsewhere(headers):
            sentence = "The request comes from a page of another site, expected this service's own page, or no browser."
            answer = JSONResponse({"error": sentence}, 403)
        else:
            answer = self.app
        await answer(scope, receive, told)


def _name(host: str) -> str:
    """A Host header without its port."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[^][:@/\s]+)(:\d*)?", host.lower())
    return found[1] if found else ""


def _from_elsewhere(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


class Timed(H11Protocol):
    """uvicorn's connection, closed where the client does not send its headers, or does not take its answer."""

    limits = LIMITS
    head = taking = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc) -> None:
        for timer in (self.head, self.taking):
            if timer:
                timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._expect_head()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.taking = self.taking or self.loop.call_later(self.limits.read_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.taking:
            self.taking.cancel()
        self.taking = None

    def _expect_head(self) -> None:
        """A clock runs from the first byte to the last of the headers; then the app has clocks of its own."""
        waiting = self.cycle is None or self.cycle.response_complete
        if waiting and not self.head:
            self.head = self.loop.call_later(self.limits.head_seconds, self.transport.abort)
        elif not waiting and self.head:
            self.head.cancel()
            self.head = None
