"""CSV files of people's own, as spreadsheets save them."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from cifar_onnx.errors import InputError


def table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Names of the columns, none of a file without rows, and the other rows as of `rows`, which says what it raises."""
    (_, columns), *others = [*rows(path)] or [(1, list[str]())]
    return columns, others


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row, the names of the columns first; not those that are blank.

    Between cells is what a first line `sep=;` says, as programs write it for Excel, or commas, semicolons or tabs,
    whichever the first row has most of; spaces around them are left out, and none may follow a closing quote.

    Raises:
        InputError: the file is not text in UTF-8, or a quote is not closed; the line named is where its row begins.
        OSError: it cannot be read.
    """
    line = 1
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            stated = re.match("sep=(.)", text.readline(), re.IGNORECASE)
            text.seek(0)
            first = next((line for line in text if line.strip()), "")
            text.seek(0)
            delimiter = stated[1] if stated else max(",;\t", key=first.count)
            reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True, strict=True)
            for row in reader:
                if not (stated and line == 1) and any(cells := [cell.strip() for cell in row]):
                    yield reader.line_num, cells
                line = reader.line_num + 1
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as a CSV file: save it as CSV UTF-8 ({error})") from None
    except csv.Error as error:
        raise InputError(
            f"{path}, line {line}: {error}: close the quotes that begin there, without a space behind them, and double "
            "those inside"
        ) from None
