"""Files in a form, `multipart/form-data` (RFC 7578).

By python-multipart's parser itself: Starlette's way to it, with a file for each part, takes longer than a small net.
"""

import re

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from cifar_onnx.serving.gate import RequestError

FILES = 1000  # in one form


def files(body: bytes, kind: str, field: str) -> list[tuple[str, bytes]]:
    """Names and contents of the files in a field.

    Args:
        body: of the request.
        kind: its `Content-Type`, with the boundary.
        field: name of the field.

    Raises:
        RequestError: it is no whole form, has no such file, or too many.
    """
    parts: list[tuple[dict[bytes, bytes], list[bytes]]] = []  # headers, and pieces of what follows them
    names, ended = list[bytes](), list[bool]()
    boundary = parse_options_header(kind)[1].get(b"boundary", b"")
    if not boundary:
        raise RequestError(400, "the form's content type names no boundary")
    # Beforehand: the parser looks byte by byte at all that begins like a boundary, in the event loop; thousands would
    # hold up every other request.
    if body.count(b"\r\n--" + boundary) > FILES:
        raise RequestError(400, f"the form has more than {FILES:,} parts")
    if re.search(rb"--%b[ \t]{100}" % re.escape(boundary), body):
        raise RequestError(400, "the form has a hundred blanks behind a boundary")
    try:
        MultipartParser(
            boundary,
            {
                "on_part_begin": lambda: parts.append(({}, [])),
                "on_part_data": lambda data, start, end: parts[-1][1].append(data[start:end]),
                "on_header_field": lambda data, start, end: names.append(data[start:end].lower()),
                "on_header_value": lambda data, start, end: parts[-1][0].update({names[-1]: data[start:end]}),
                "on_end": lambda: ended.append(True),
            },
        ).write(body)
    except FormParserError:
        ended.clear()
    if not ended:
        raise RequestError(400, "the form cannot be read, or is cut off")
    found = []
    for headers, pieces in parts:
        options = parse_options_header(headers.get(b"content-disposition"))[1]
        if options.get(b"name") == field.encode() and b"filename" in options:
            found.append((options[b"filename"].decode(errors="replace"), b"".join(pieces)))
    if not found:
        raise RequestError(400, f"no file in the field {field!r}")
    return found
