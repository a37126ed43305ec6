"""The page for people and the documentation, as files."""

from functools import partial
from pathlib import Path

from fastapi import APIRouter, Response
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
    routes = APIRouter(include_in_schema=False)
    files = site.pages()
    try:
        files |= site.runtime(runtime)
    except InputError:
        if runtime is not None:
            raise
    index = site.index("server" if any(name.startswith("ort/") for name in files) else "server-only")

    @routes.get("/")
    async def page() -> Response:
        return HTMLResponse(index)

    @routes.get("/model.onnx")
    async def model() -> Response:
        return Response(file.current.data, media_type="application/octet-stream", headers={"cache-control": "no-cache"})

    for name, path in {**files, "docs": files["api.html"]}.items():
        routes.add_api_route(f"/{name}", partial(_part, path))

    return routes


async def _part(path: Path) -> Response:
    return FileResponse(path, media_type=site.MEDIA_TYPES[path.suffix], headers={"cache-control": "no-cache"})
