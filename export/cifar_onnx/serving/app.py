"""The HTTP interface: predictions, health, metrics, and the page."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

import cifar_onnx
from cifar_onnx.errors import ImageError
from cifar_onnx.serving import forms, page, protocol
from cifar_onnx.serving.disconnect import unless_gone
from cifar_onnx.serving.gate import Gate, RequestError, refusals
from cifar_onnx.serving.metrics import Metrics
from cifar_onnx.serving.model import ModelFile, Served, Settings

_SUMMARY = "One ONNX file answers what is in a picture, how sure it is, and when it does not know."


class Share(BaseModel):
    """A class and its probability, 0 to 1."""

    label: str
    probability: float


class Map(BaseModel):
    """What in the picture spoke for the label: shares, 0 to 1, row by row, over the square that the net sees."""

    height: int
    width: int
    values: list[float]


class Prediction(BaseModel):
    """What the model says of one picture; of one that cannot be read, among others, only `name` and `error`."""

    name: str
    label: str | None = None
    probability: float | None = None
    top: list[Share] | None = None
    labels: list[str] | None = None
    unknown: bool | None = None
    map: Map | None = None
    error: str | None = None


class Model(BaseModel):
    """Which model it was."""

    name: str
    digest: str


class Predictions(BaseModel):
    """Predictions in the order of the pictures, and how long they took."""

    model: Model
    request_id: str
    milliseconds: float
    predictions: list[Prediction]


class Health(BaseModel):
    """Whether requests are served, and by which model."""

    status: str
    model: Model


_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BODIES = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}},
            "required": ["files"],
        }
    },
    **{f"image/{kind}": _PICTURE for kind in ("png", "jpeg", "webp", "gif", "bmp")},
}


_PARAMETERS = [
    {
        "name": "top_k",
        "in": "query",
        "description": "classes to name, the most probable first",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5},
    },
    {
        "name": "map",
        "in": "query",
        "description": "with what spoke for the label, of a model that tells",
        "schema": {"type": "boolean", "default": False},
    },
]


class _Direct(APIRoute):
    """Hands its endpoint the request alone: finding arguments for it takes FastAPI as long as a small net takes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


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

    def changed(served: Served) -> None:
        metrics.model.info({"name": path.stem, "digest": served.digest})

    file = ModelFile(path, settings, metrics.batch.observe, changed)

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
    )
    gate = Gate(app, metrics, hosts, body, capacity)
    _refusals(app)

    pictures = APIRouter(route_class=_Direct)

    @pictures.post(
        "/predict",
        summary="Classify pictures",
        response_model=Predictions,
        response_model_exclude_unset=True,
        responses=refusals(400, 403, 413, 415, 421, 422, 503),
        openapi_extra={
            "parameters": _PARAMETERS,
            "requestBody": {"required": True, "content": _BODIES},
            "x-example": "curl -F files=@cat.jpg -F files=@dog.jpg 'http://127.0.0.1:8000/predict?top_k=3'",
        },
    )
    async def predict(request: Request) -> Response:
        top_k, with_map = _settings(request)
        sent = await _pictures(request)
        began, served = asyncio.get_running_loop().time(), file.current
        rows = await unless_gone(request, _rows(served, sent, top_k, with_map))
        if all("error" in row for row in rows):
            raise RequestError(422, rows[0]["error"] if len(rows) == 1 else f"{rows[0]['name']}: {rows[0]['error']}")
        answer = {
            "model": {"name": file.name, "digest": served.digest},
            "request_id": request.state.request_id,
            "milliseconds": round(1000 * (asyncio.get_running_loop().time() - began), 3),
            "predictions": rows,
        }
        return JSONResponse(answer)

    @app.get("/healthz", summary="Whether requests are served", response_model=Health, responses=refusals(421, 503))
    async def health() -> Response:
        if gate.draining:
            raise RequestError(503, "the server is about to end")
        model = {"name": file.name, "digest": file.current.digest}
        return JSONResponse({"status": "ok", "model": model})

    @app.get("/metrics", summary="Counters for Prometheus", response_class=PlainTextResponse, responses=refusals(421))
    async def counters() -> Response:
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/contract", summary="What the model says of itself", responses=refusals(421))
    async def contract() -> dict[str, Any]:
        return {"name": file.name, **file.current.about}

    app.include_router(pictures)
    app.include_router(protocol.router(file, gate))
    app.include_router(page.router(file, runtime))
    return gate


def _settings(request: Request) -> tuple[int, bool]:
    """`top_k` and `map` of the query."""
    top_k, with_map = request.query_params.get("top_k", "5"), request.query_params.get("map", "false")
    if not (top_k.isascii() and top_k.isdecimal() and len(top_k) <= 4 and 1 <= int(top_k) <= 1000):
        raise RequestError(400, "top_k: it must be a whole number from 1 to 1000")
    if with_map not in ("true", "false"):
        raise RequestError(400, "map: it must be true or false")
    return int(top_k), with_map == "true"


async def _pictures(request: Request) -> list[tuple[str, bytes]]:
    """Names and files of the pictures in a request."""
    given = request.headers.get("content-type", "")
    kind = given.partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        return forms.files(await request.body(), given, "files")
    if kind.startswith("image/") or kind == "application/octet-stream":
        return [("", await request.body())]
    raise RequestError(
        415, "send pictures as multipart/form-data in the field 'files', or one as the body, as image/jpeg"
    )


async def _rows(served: Served, sent: list[tuple[str, bytes]], top_k: int, with_map: bool) -> list[dict[str, Any]]:
    await served.admit([encoded for _, encoded in sent])
    return await asyncio.gather(*(_row(served, name, encoded, top_k, with_map) for name, encoded in sent))


async def _row(served: Served, name: str, encoded: bytes, top_k: int, with_map: bool) -> dict[str, Any]:
    try:
        square = await served.square(encoded)
    except ImageError as error:
        return {"name": name, "error": str(error)}
    prediction = (await served.answer(square)).prediction
    row = {"name": name, **prediction.as_dict(top_k)}
    if with_map and (heat := await served.map_of(square, prediction.label)):
        row["map"] = heat
    return row


def _refusals(app: FastAPI) -> None:
    """Answer every error as `{"error": sentence}`."""

    @app.exception_handler(RequestError)
    async def refused(_request: Request, error: RequestError) -> Response:
        headers = {"retry-after": "1"} if error.status == 503 else None
        return JSONResponse({"error": error.sentence}, error.status, headers)

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        path, headers = request.url.path, error.headers or {}
        sentences = {
            404: f"there is no {path}: /docs says what there is",
            405: f"{path} is not asked by {request.method}, but by {headers.get('Allow')}",
        }
        return JSONResponse({"error": sentences.get(error.status_code, error.detail)}, error.status_code, headers)

    @app.exception_handler(Exception)
    async def broken(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": "the server has failed, and its log says why"}, 500)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # nobody reads it; the counters do
