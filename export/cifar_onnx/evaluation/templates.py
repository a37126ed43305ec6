"""Pages, pictures and texts from templates."""

import base64
import io

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from PIL import Image

from cifar_onnx.images import Pixels, encode_png

_THUMBNAIL = 96  # pixels a side at most


def render(package: str, name: str, /, **values: object) -> str:
    """Fill a template in.

    In HTML and SVG values are text, never markup; one that the template asks for and is not given is an error.

    Args:
        package: beside whose modules the template lies.
        name: of its file.
        **values: by the names that it has for them.
    """
    environment = Environment(
        loader=PackageLoader(package, ""),
        autoescape=select_autoescape(["html.jinja", "svg.jinja"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(values)


def picture(pixels: Pixels) -> str:
    """A picture, uint8 `(H, W, 3)`, as a data address: small ones without loss, larger ones as small JPEG."""
    if max(pixels.shape[:2]) <= _THUMBNAIL // 2:
        return png(pixels)
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    image.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def png(pixels: Pixels) -> str:
    """The same without loss."""
    return f"data:image/png;base64,{base64.b64encode(encode_png(pixels)).decode()}"
