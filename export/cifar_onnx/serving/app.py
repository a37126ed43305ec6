"""The HTTP interface: health, metrics and the contract, beside predictions, the protocol and the page."""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import cifar_onnx
from cifar_onnx.serving import page, predictions, protocol
from cifar_onnx.serving.gate import Gate, RequestError, refusals
from cifar_onnx.serving.metrics import Metrics
from cifar_onnx.serving.model import ModelFile, Settings
from cifar_onnx.serving.predictions import Model

_SUMMARY = "One ONNX file answers what is in a picture, how sure it is, and when it does not know."


class Health(BaseModel):
    """Whether requests are served, and by which model."""

    status: str
    model: Model


def build(
    path: Path, settings: Settings, hosts: Collection[str], body: int, capacity: int, runtime: str | None = None
) -> Gate:
    """The app of one model file, behind its gate.

    Args:
        path: of the model file.
        settings: how the model is served.
        hosts: names that the server goes by, besides localhost and addresses.
        body: bytes of a request at most.
        capacity: requests that are served at a time.
        runtime: the folder of onnxruntime-web; None looks where npm puts it.

    Raises:
        ContractError: the model cannot be served.
        InputError: onnxruntime-web is not in the folder that is named.
    """
    metrics = Metrics()
    file = ModelFile(path, settings, metrics)

    @asynccontextmanager
    async def watching(_app: FastAPI) -> AsyncIterator[None]:
        watch = asyncio.create_task(file.watch())
        yield
        watch.cancel()

    app = FastAPI(
        title="cifar-onnx",
        version=cifar_onnx.__version__,
        summary=_SUMMARY,
        lifespan=watching,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # to http:// and the name that a proxy calls this server by
    )
    gate = Gate(app, metrics, hosts, body, capacity)
    _answer_errors(app)

    @app.get("/healthz", summary="Whether requests are served", response_model=Health, responses=refusals(421, 503))
    async def health() -> Response:
        if gate.draining:
            raise RequestError(503, "the server is shutting down")
        model = {"name": file.name, "digest": file.current.digest}
        return JSONResponse({"status": "ok", "model": model})

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses=refusals(421))
    async def counters() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/contract", summary="What the model says of itself", responses=refusals(421))
    async def contract() -> dict[str, Any]:
        return {"name": file.name, **file.current.about}

    app.include_router(predictions.router(file))
    app.include_router(protocol.router(file, gate))
    app.include_router(page.router(file, runtime))
    return gate


def _answer_errors(app: FastAPI) -> None:
    """Answer every error as `{"error": sentence}`."""

    @app.exception_handler(RequestError)
    async def refused(_request: Request, error: RequestError) -> Response:
        return error.answer()

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path, error.headers or {}
        methods = sorted(headers.get("Allow", "").split(", "))
        sentences = {
            404: f"there is no {path}: /docs says what there is",
            405: f"{path} takes {' or '.join(methods)}, not {request.method}",
        }
        return JSONResponse({"error": sentences.get(error.status_code, error.detail)}, error.status_code, headers)

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": "the server has failed, and its log says why"}, 500)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; the counters do
