"""The table of runs as text for people, on a terminal or in a pipe, and as CSV for programs."""

import csv
import io

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cifar_lightning.leaderboard.board import NAMES, Board, Column

_GAP = 2  # letters between columns
_LEAST = 24  # letters in a line of the last column


def text(board: Board, console: Console) -> str:
    """The table, and what it shows in sentences; as wide as the terminal, or as it needs to be where there is none."""
    cells = {each.title: [each.cell(entry) for entry in board.entries] for each in board.columns}
    widths = {title: max(map(cell_len, (title, *column))) for title, column in cells.items()}
    columns, left_out = board.columns, list[str]()
    if console.is_terminal:
        columns, left_out = _fitting(columns, widths, console.width - _GAP)
    table = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("")
    for each in columns:
        wraps = each in (columns[0], columns[-1])
        table.add_column(each.title, justify="right" if each.number else "left", no_wrap=not wraps, overflow="fold")
    for place, entry in enumerate(board.entries):
        row = [Text("*" if entry is board.best else " "), *(Text(cells[each.title][place]) for each in columns)]
        table.add_row(*row, style="bold" if entry is board.best else None)
    sentences = board.findings
    if left_out:
        sentences.append(f"no room for {', '.join(left_out)}: widen the terminal, or ask for --csv or --html")
    if not console.is_terminal:  # nothing is wrapped: a line is a run
        console.width = max(sum(widths.values()) + _GAP * (len(widths) + 1), *map(cell_len, sentences), 0)
    with console.capture() as capture:
        console.print(table)
        console.print(*(Text(f"\n{each}") for each in sentences), sep="")
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def _fitting(columns: list[Column], widths: dict[str, int], room: int) -> tuple[list[Column], list[str]]:
    """The columns that there is room for, and the titles of the others."""
    last = columns[-1].title

    def needed(shown: list[Column]) -> int:
        return sum(
            (min(widths[each.title], _LEAST) if each.title == last else widths[each.title]) + _GAP for each in shown
        )

    shown = list(columns)
    while needed(shown) > room and any(each.dropped for each in shown):
        shown.remove(max(shown, key=lambda each: each.dropped))
    return shown, [each.title for each in columns if each not in shown]


def comma_separated(board: Board) -> str:
    """One line a run, with every figure as it is known and every key in which configs differ."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    keys = list(board.differences.keys)
    writer.writerow([*NAMES, *keys])
    for entry in board.entries:
        writer.writerow([*(getattr(entry, name) for name in NAMES), *(entry.settings.get(key) for key in keys)])
    return buffer.getvalue()
