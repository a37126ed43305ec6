"""Pages, pictures and texts from templates."""

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape


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
