"""The valid name that is meant by a misspelt one: `did you mean`."""

from collections.abc import Iterable
from difflib import get_close_matches


def hint(name: str, valid: Iterable[str]) -> str:
    """The end of a sentence: the closest of the valid names, if any is close."""
    near = nearest(name, valid)
    return f": did you mean {near!r}?" if near else ""


def nearest(name: str, valid: Iterable[str]) -> str | None:
    """The closest of the valid names, if any is close: fewest typing errors first, then fewest wrong capitals."""
    known = sorted(set(valid))
    close = get_close_matches(name.lower(), sorted({each.lower() for each in known}), n=5)
    errors = {
        each: (_typing_errors(name.lower(), each.lower()), _typing_errors(name, each))
        for each in known
        if each.lower() in close
    }
    return min(errors, key=lambda each: errors[each], default=None)


def _typing_errors(a: str, b: str) -> int:
    """Letters to insert, delete, replace or swap with their neighbour to make `b` of `a` (Damerau 1964)."""
    rows = [list(range(len(b) + 1))]
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            row.append(min(rows[-1][j] + 1, row[-1] + 1, rows[-1][j - 1] + (x != y)))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                row[-1] = min(row[-1], rows[-2][j - 2] + 1)
        rows.append(row)
    return rows[-1][-1]
