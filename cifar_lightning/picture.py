"""Pictures as SVG files, in the text colour of the page that shows them, so that they can be read on light and dark."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cifar_lightning.files import write_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, BLUE, AMBER = "#010203", "#3b82f6", "#f59e0b"  # the first stands for the text colour
_STYLE = (
    "<style>svg{color:#1c2330;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#e6e9ef;background:#11151c}}</style>"
)


@contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator["Figure"]:
    """A figure to draw into, which then is written to `path`; sizes in inches."""
    from matplotlib import rc_context  # which takes half a second to import
    from matplotlib.figure import Figure

    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": path.name,
        "font.family": "sans-serif",
        "text.parse_math": False,
        "axes.spines.top": False,
        "axes.spines.right": False,
        **dict.fromkeys(("figure.facecolor", "axes.facecolor"), "none"),
        **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
    }
    with rc_context(style):
        figure = Figure((width, height), layout="constrained")
        yield figure
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue().replace(INK, "currentColor")
    write_whole(path, text.replace("<defs>", f"{_STYLE}\n<defs>", 1).encode())
