"""The page for people and the documentation, as files."""

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse, HTMLResponse

from cifar_onnx import site
from cifar_onnx.errors import InputError
from cifar_onnx.serving.model import ModelFile


def router(file: ModelFile, runtime: str | None) -> APIRouter:
    """The routes of the page, which runs the model in the browser where onnxruntime-web is found.

    Args:
        file: the model.
        runtime: the folder of onnxruntime-web; None looks where npm puts it.

    Raises:
        InputError: it is not in the folder that is named.
    """
    routes = APIRouter()
    files = site.pages()
    try:
        files |= site.runtime(runtime)
    except InputError:
        if runtime is not None:
            raise
    in_browser = any(name.startswith("ort/") for name in files)
    index = site.index("server" if in_browser else "server-only")

    async def page(_request: Request) -> Response:
        return HTMLResponse(index)

    async def model(request: Request) -> Response:
        served = file.current
        return _once(request, served.digest, lambda: Response(served.data, media_type=site.MEDIA_TYPES[".onnx"]))

    async def part(path: Path, request: Request) -> Response:
        # A server may pass Range over (RFC 9110, 14.2): FileResponse refuses bad ones with no sentence in JSON.
        request.scope["headers"] = [each for each in request.scope["headers"] if each[0] != b"range"]
        status = path.stat()
        mark = f"{status.st_mtime_ns:x}-{status.st_size:x}"
        return _once(request, mark, lambda: FileResponse(path, media_type=site.MEDIA_TYPES[path.suffix]))

    routes.add_route("/", page)
    for name, path in {**files, "docs": files["api.html"]}.items():
        routes.add_route(f"/{name}", partial(part, path))
    if in_browser:
        routes.add_route("/model.onnx", model)
    return routes


def _once(request: Request, mark: str, make: Callable[[], Response]) -> Response:
    """A response that a browser asks for again only when it has changed."""
    headers = {"cache-control": "no-cache", "etag": f'"{mark}"'}
    known = request.headers.get("if-none-match", "")
    if known == "*" or mark in re.findall(r'"([^"]*)"', known):
        return Response(status_code=304, headers=headers)
    response = make()
    response.headers.update(headers)
    return response
