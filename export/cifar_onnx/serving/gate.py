"""What every request passes before it reaches the app: who may ask, how much, and how many at a time."""

import asyncio
import ipaddress
import re
import time
import uuid
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cifar_onnx.serving.metrics import Metrics
from cifar_onnx.site import CSP

_BODIES = 16  # as large as a body may be, that are held at a time
_ENDING = "the server is shutting down: try again, or another server"
_ELSEWHERE = (
    "pages of other sites are refused: let the page's own server ask, or put both behind one proxy, whose name "
    "serve --allow-host adds"
)
_ID = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_HEADERS = [
    (b"content-security-policy", f"{CSP}; frame-ancestors 'none'".encode()),
    (b"cross-origin-embedder-policy", b"require-corp"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]


class RequestError(Exception):
    """A request that is not served, with the status and the sentence that its client gets."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence

    def answer(self) -> JSONResponse:
        """What its client gets."""
        headers = {"retry-after": "1"} if self.status == 503 else None
        return JSONResponse({"error": self.sentence}, self.status, headers)


class Error(BaseModel):
    """Why a request was not served."""

    error: str


_REFUSALS = {
    400: "The request is not what it must be",
    403: "A page of another site has asked",
    404: "There is no such model",
    413: "The request is too large",
    415: "The body is of no type that is taken",
    421: "The server does not go by this name",
    422: "No picture in it can be read",
    503: "Too many requests, or the server is shutting down: try again",
}


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """What the documentation of an operation says of the errors that it may answer with."""
    return {code: {"model": Error, "description": _REFUSALS[code]} for code in codes}


class Gate:
    """Middleware that refuses, counts and marks requests.

    Args:
        app: what is behind it.
        metrics: where they are counted.
        hosts: names that the server goes by, besides addresses and localhost: a page elsewhere whose name has been
            made to point here (DNS rebinding) goes by another.
        body: bytes of a request at most.
        capacity: requests that are served at a time once they have arrived; others are told to come back.

    Attributes:
        draining: whether new work is refused, because the server is shutting down.
        working: POST requests that have arrived and are not yet answered.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: Collection[str], body: int, capacity: int) -> None:
        self._app, self._metrics, self._body, self._capacity = app, metrics, body, capacity
        self._hosts = {"localhost", *(host.lower().rstrip(".") for host in hosts)}
        self.draining = False
        self.working = 0
        self._held = 0  # bytes of all bodies, also of those that are still arriving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # answered like GET; uvicorn, whose scope says HEAD, leaves the body out
            scope = {**scope, "method": "GET"}
        headers, began = Headers(scope=scope), time.perf_counter()
        asked = headers.get("x-request-id", "")
        request_id = asked if _ID.fullmatch(asked) else uuid.uuid4().hex
        scope["state"]["request_id"] = request_id
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                marks = [(b"x-request-id", request_id.encode()), *_HEADERS]
                message["headers"] = [*message["headers"], *marks]
            await send(message)

        received, counted = 0, False

        async def limited() -> Message:
            nonlocal received, counted
            message = await receive()
            if message["type"] != "http.request":
                return message
            size = len(message.get("body", b""))
            received += size
            self._held += size
            if received > self._body:
                raise self._too_large()
            if self._held > _BODIES * self._body:
                raise RequestError(503, "there is no room for more pictures: try again in a second")
            if not message.get("more_body") and not counted:
                if self.working >= self._capacity:
                    raise RequestError(503, f"{self._capacity} requests are being served: try again in a second")
                counted = True
                self.working += 1
            return message

        self._metrics.in_flight.inc()
        try:
            try:
                work = scope["method"] == "POST"
                self._check(headers, work)
                # Of other requests nobody reads a body: it is by receiving that FileResponse watches for its client.
                await self._app(scope, limited if work else receive, answer)
            except RequestError as error:
                await error.answer()(scope, receive, answer)
            except asyncio.CancelledError:  # by uvicorn as it ends, which would log it and answer 500, as plain text
                if not status:
                    await RequestError(503, _ENDING).answer()(scope, receive, answer)
        finally:
            self.working -= counted
            self._held -= received
            self._metrics.in_flight.dec()
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.requests.labels(route, status or 500).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)

    def _check(self, headers: Headers, work: bool) -> None:
        host = headers.get("host", "")
        if not self._knows(host):
            raise RequestError(421, f"unknown host name {host!r}: serve --allow-host adds one")
        length = headers.get("content-length", "").lstrip("0")
        if length.isdecimal() and (len(length) > 19 or int(length) > self._body):
            raise self._too_large()
        if work and self.draining:
            raise RequestError(503, _ENDING)
        if work and headers.get("content-encoding", "identity").lower() != "identity":
            raise RequestError(415, "send the body as it is, without Content-Encoding")
        if work and self._from_elsewhere(headers, host):
            raise RequestError(403, _ELSEWHERE)

    def _from_elsewhere(self, headers: Headers, host: str) -> bool:
        """Whether a browser asks for a page of another site.

        It sends Sec-Fetch-Site to HTTPS and localhost only; elsewhere there is Origin alone.
        """
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site or not origin:
            return site == "cross-site"
        own = origin.partition("://")[2]
        return own != host and _name(own).lower() not in self._hosts

    def _knows(self, host: str) -> bool:
        name = _name(host)
        try:
            ipaddress.ip_address(name[1:-1] if name.startswith("[") and name.endswith("]") else name)
        except ValueError:
            return name.lower().rstrip(".") in self._hosts
        return True

    def _too_large(self) -> RequestError:
        return RequestError(413, f"the request is larger than the limit of {self._body:,} bytes")


def _name(host: str) -> str:
    """A host without its port."""
    return re.sub(r":\d*$", "", host)
