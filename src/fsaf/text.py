"""Plain text in columns, the same in a terminal and in a file."""

from collections.abc import Sequence

from rich.cells import cell_len

from fsaf.errors import printable


def columns(rows: Sequence[Sequence[str]], alignment: str) -> str:
    """Return rows of cells as lines of aligned columns, two spaces apart.

    alignment: ``l`` or ``r`` for each column; the last one is repeated for further columns. Rows may be
    shorter than others. Wide characters, such as Chinese ones, count as two columns of a terminal.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    count = max((len(row) for row in cells), default=0)
    sides = alignment + alignment[-1] * count
    widths = [max(cell_len(row[i]) for row in cells if len(row) > i) for i in range(count)]
    lines = []
    for row in cells:
        padded = []
        for cell, side, width in zip(row, sides, widths, strict=False):
            space = " " * (width - cell_len(cell))
            padded.append(cell + space if side == "l" else space + cell)
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
