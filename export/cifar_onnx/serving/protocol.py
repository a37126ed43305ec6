"""The Open Inference Protocol, version 2, with its extension for binary tensors.

https://github.com/kserve/open-inference-protocol; notation: `B` pictures, `H W` their size, `K` classes.
"""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse
from pydantic import BaseModel

import cifar_onnx
from cifar_onnx.images import Pixels
from cifar_onnx.prediction import Scores, finite
from cifar_onnx.serving import tensors
from cifar_onnx.serving.disconnect import unless_gone
from cifar_onnx.serving.gate import Gate, RequestError, refusals
from cifar_onnx.serving.model import ModelFile, Served

_VERSION = 12  # first characters of a digest, which are the version of a model


class Server(BaseModel):
    """What the server is."""

    name: str
    version: str
    extensions: list[str]


class Live(BaseModel):
    """Whether the server runs."""

    live: bool


class Ready(BaseModel):
    """Whether requests are served."""

    ready: bool


class ModelReady(BaseModel):
    """Whether requests to the model are served."""

    name: str
    ready: bool


class TensorType(BaseModel):
    """A tensor; -1 is any length."""

    name: str
    datatype: str
    shape: list[int]


class Metadata(BaseModel):
    """What a model takes and gives."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorType]
    outputs: list[TensorType]


class Tensor(BaseModel):
    """A tensor's elements, row by row, nested or flat; in binary form they follow the JSON."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    parameters: dict[str, Any] | None = None


class Answer(BaseModel):
    """The outputs of a model."""

    model_name: str
    model_version: str
    id: str
    parameters: dict[str, str]
    outputs: list[Tensor]


_PIXELS = {
    "type": "object",
    "required": ["name", "datatype", "shape"],
    "properties": {
        "name": {"const": "image"},
        "datatype": {"const": "UINT8"},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 4, "maxItems": 4},
        "data": {"type": "array", "description": "nested or flat; in binary form it follows the JSON"},
        "parameters": {"type": "object", "properties": {"binary_data_size": {"type": "integer"}}},
    },
}
_OUTPUT = {"type": "object", "required": ["name"], "properties": {"name": {"enum": [*tensors.outputs(0)]}}}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["inputs"],
                "properties": {
                    "id": {"type": "string"},
                    "inputs": {"type": "array", "minItems": 1, "maxItems": 1, "items": _PIXELS},
                    "outputs": {"type": "array", "items": _OUTPUT},
                    "parameters": {"type": "object", "properties": {"binary_data_output": {"type": "boolean"}}},
                },
            }
        }
    },
}


def router(file: ModelFile, gate: Gate) -> APIRouter:
    """The routes of one model."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    reading = ThreadPoolExecutor(1)  # one at a time: what is parsed takes many times the memory of its text

    Name = Annotated[str, PathParameter(examples=[file.name])]  # noqa: N806

    def named(name: str, version: str | None = None) -> Served:
        served = file.current
        if name != file.name:
            raise RequestError(404, f"there is no model {name!r}: this server has {file.name!r}")
        if version not in (None, own := served.digest[:_VERSION]):
            raise RequestError(404, f"there is no version {version!r} of it: this server has {own!r}")
        return served

    @routes.get("/", include_in_schema=False)  # as the protocol's OpenAPI file has it
    @routes.get("", summary="The server", response_model=Server, responses=refusals(421))
    async def server() -> Any:
        return {"name": "cifar-onnx", "version": cifar_onnx.__version__, "extensions": ["binary_tensor_data"]}

    @routes.get("/health/live", summary="Whether it runs", response_model=Live, responses=refusals(421))
    async def live() -> Any:
        return {"live": True}

    @routes.get(
        "/health/ready",
        summary="Whether requests are served",
        response_model=Ready,
        responses={503: {"model": Ready, "description": "The server is shutting down"}, **refusals(421)},
    )
    async def ready() -> Response:
        return JSONResponse({"ready": not gate.draining}, 503 if gate.draining else 200)

    for path in ("/models/{name}", "/models/{name}/versions/{version}"):

        @routes.get(
            path, summary="What the model takes and gives", response_model=Metadata, responses=refusals(404, 421)
        )
        async def metadata(name: Name, version: str | None = None) -> Any:
            served = named(name, version)
            return {
                "name": file.name,
                "versions": [served.digest[:_VERSION]],
                "platform": "onnxruntime_onnx",
                "inputs": [{"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
                "outputs": [
                    {"name": output, "datatype": kind, "shape": [-1, *shape]}
                    for output, (kind, shape) in tensors.outputs(len(served.classifier.classes)).items()
                ],
            }

        @routes.get(
            f"{path}/ready",
            summary="Whether requests to the model are served",
            response_model=ModelReady,
            responses={503: {"model": ModelReady, "description": "The server is shutting down"}, **refusals(404, 421)},
        )
        async def model_ready(name: Name, version: str | None = None) -> Response:
            named(name, version)
            return JSONResponse({"name": file.name, "ready": not gate.draining}, 503 if gate.draining else 200)

        @routes.post(
            f"{path}/infer",
            summary="Run the model on pixels of pictures of one size, UINT8 (B, H, W, 3)",
            response_model=Answer,
            responses=refusals(400, 403, 404, 413, 415, 421, 503),
            openapi_extra={"requestBody": _BODY},
        )
        async def infer(request: Request, name: Name, version: str | None = None) -> Response:
            served = named(name, version)
            await request.body()  # after which it can be told whether its client goes
            return await unless_gone(request, _infer(request, reading, served, file.name))

    return routes


async def _infer(request: Request, reading: ThreadPoolExecutor, served: Served, name: str) -> Response:
    classes = len(served.classifier.classes)
    sent = await request.body(), request.headers.get(tensors.LENGTH), served.limit, classes
    wanted = await asyncio.get_running_loop().run_in_executor(reading, tensors.read, *sent)
    known = tensors.outputs(classes)

    async def row(picture: Pixels) -> tuple[str, bool, Scores, Scores, float]:
        found = await served.answer(await served.square(picture))  # which itself takes more than what is sent of it
        return found.prediction.label, found.prediction.unknown, found.probabilities, found.logits, found.familiarity

    rows = await served.room.each(row, list(wanted.pictures))
    labels, unknown, probabilities, logits, familiarity = zip(*rows, strict=True)
    values: dict[str, tensors.Value] = {
        "label": [label.encode() for label in labels],
        "probabilities": np.stack(probabilities),  # (B, K)
        "unknown": np.array(unknown),
        "logits": np.stack(logits),
        "familiarity": np.array(familiarity, np.float32),
    }
    if "in_set" in wanted.outputs:
        values["in_set"] = served.classifier.contract.sets.of(np.stack(probabilities))
    given, blobs = [], []
    for output, as_binary in wanted.outputs.items():
        (kind, shape), value = known[output], values[output]
        tensor: dict[str, Any] = {"name": output, "datatype": kind, "shape": [len(rows), *shape]}
        if as_binary:
            blobs.append(tensors.blob(value))
            tensor["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            tensor["data"] = _plain(value)
        given.append(tensor)
    head = {
        "model_name": name,
        "model_version": served.digest[:_VERSION],
        "id": (wanted.id or request.state.request_id).encode(errors="replace").decode(),
        "parameters": {"digest": served.digest, "request_id": request.state.request_id},
        "outputs": given,
    }
    if not blobs:
        return JSONResponse(head)
    text = json.dumps(head).encode()
    headers = {tensors.LENGTH: str(len(text))}
    return Response(b"".join([text, *blobs]), media_type="application/octet-stream", headers=headers)


def _plain(value: tensors.Value) -> list[Any]:
    """The elements of an output in JSON's types, null for numbers that are not finite."""
    if isinstance(value, list):
        return [each.decode() for each in value]
    return [finite(each) if isinstance(each, float) else each for each in value.ravel().tolist()]
