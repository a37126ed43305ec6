"""CSV files of people's own, as spreadsheets save them."""

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from cifar_onnx.errors import InputError


def rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row, the names of the columns first; not those that are blank.

    Between cells is what a first line `sep=;` says, as programs write it for Excel, or commas, semicolons or tabs,
    whichever the first row has most of; spaces around them are left out.

    Raises:
        InputError: the file is not text in UTF-8, or no CSV file.
        OSError: it cannot be read.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as text:
            stated = re.match("sep=(.)", text.readline(), re.IGNORECASE)
            text.seek(0)
            first = next((line for line in text if line.strip()), "")
            text.seek(0)
            delimiter = stated[1] if stated else max(",;\t", key=first.count)
            reader = csv.reader(text, delimiter=delimiter, skipinitialspace=True)
            for row in reader:
                if stated and reader.line_num == 1:
                    continue
                if any(cells := [cell.strip() for cell in row]):
                    yield reader.line_num, cells
    except UnicodeDecodeError as error:
        raise InputError(f"{path} cannot be read as a CSV file: save it as CSV UTF-8 ({error})") from None
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as a CSV file: {error}") from None
