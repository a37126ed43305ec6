"""POST /predict: labels, probabilities and prediction sets of pictures, and which are unknown."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel

from cifar_onnx.errors import ImageError
from cifar_onnx.serving import forms
from cifar_onnx.serving.disconnect import unless_gone
from cifar_onnx.serving.gate import RequestError, refusals
from cifar_onnx.serving.model import ModelFile, Served

_SHARES = 100_000  # in an answer: 7 MB of JSON


class Share(BaseModel):
    """A class and its probability, 0 to 1; none where the net gave no number."""

    label: str
    probability: float | None


class Map(BaseModel):
    """What in the picture supports the label: shares, 0 to 1, row by row, over the square that the net sees."""

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


_PICTURE = {"schema": {"type": "string", "format": "binary"}}
_BODIES = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "properties": {"files": {"type": "array", "items": _PICTURE["schema"], "minItems": 1}},
            "required": ["files"],
        }
    },
    **{f"image/{kind}": _PICTURE for kind in ("png", "jpeg", "webp", "gif", "bmp")},
}
_PARAMETERS = [
    {
        "name": "top_k",
        "in": "query",
        "description": f"classes to name, the most probable first; {_SHARES:,} at most of all pictures together",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 5},
    },
    {
        "name": "map",
        "in": "query",
        "description": "with what supports the label, if the model can tell",
        "schema": {"type": "boolean", "default": False},
    },
]


class _Direct(APIRoute):
    """Hands its endpoint the request alone: finding arguments for it takes FastAPI as long as a small net takes."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def router(file: ModelFile) -> APIRouter:
    """The route, for one model file."""
    routes = APIRouter(route_class=_Direct)

    @routes.post(
        "/predict",
        summary="Classify pictures",
        response_model=Predictions,
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
        shares = len(sent) * min(top_k, len(served.classifier.classes))
        if shares > _SHARES:
            raise RequestError(
                413,
                f"the answer would name {shares:,} classes with their probabilities, and {_SHARES:,} are the most: "
                "send fewer pictures at a time, or ask for a smaller top_k",
            )
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

    return routes


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
        415,
        "send pictures as multipart/form-data in the field 'files', or one as the body with its Content-Type, "
        "such as image/jpeg",
    )


async def _rows(served: Served, sent: list[tuple[str, bytes]], top_k: int, with_map: bool) -> list[dict[str, Any]]:
    await served.admit([encoded for _, encoded in sent])
    return await served.room.each(lambda picture: _row(served, *picture, top_k, with_map), sent)


async def _row(served: Served, name: str, encoded: bytes, top_k: int, with_map: bool) -> dict[str, Any]:
    try:
        square = await served.square(encoded)
    except ImageError as error:
        return {"name": name, "error": error.reason}
    prediction = (await served.answer(square)).prediction
    row = {"name": name, **prediction.as_dict(top_k)}
    if with_map and (heat := await served.map_of(square, prediction.label)):
        row["map"] = heat
    return row
