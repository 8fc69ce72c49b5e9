"""A table that is written once and shown on the terminal, as Markdown, as HTML and as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape as escape_html
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Level", "Marked", "ReportTable", "csv_text"]

Level = Literal["good", "watch", "bad", "unknown"]

_STYLES = {"good": "green", "watch": "yellow", "bad": "bold red", "unknown": "dim"}


class Marked(NamedTuple):
    """A text with a judgement, which the terminal shows as a colour."""

    text: str
    level: Level


@dataclass(frozen=True)
class ReportTable:
    """Texts in rows and columns.

    Parameters
    ----------
    title : str
    columns : sequence of str
        Heads; all empty for a table without.
    rows : sequence of sequence of str or Marked
        Shown as they are: no text is read as markup.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | Marked]]

    def terminal(self) -> Table:
        """Return the table for a `rich` console."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(title=escape(self.title), show_header=any(self.columns))
        for name in self.columns:
            table.add_column(escape(name), overflow="fold")
        for row in self.rows:
            table.add_row(*(_coloured(cell, escape) for cell in row))
        return table

    def markdown(self) -> str:
        """Return a table of GitHub's Markdown under its title in bold."""
        lines = [f"**{self.title}**", ""] if self.title else []
        lines += [_markdown_row(self.columns), "|" + "---|" * len(self.columns)]
        return "\n".join([*lines, *map(_markdown_row, self.rows)]) + "\n"

    def html(self) -> str:
        """Return a table of HTML, every text escaped."""
        heads = "".join(f"<th>{_html_cell(name)}</th>" for name in self.columns)
        rows = "".join(f"<tr>{''.join(f'<td>{_html_cell(cell)}</td>' for cell in row)}</tr>" for row in self.rows)
        caption = f"<caption>{_html_cell(self.title)}</caption>" if self.title else ""
        head = f"<thead><tr>{heads}</tr></thead>" if any(self.columns) else ""
        return f'<div class="scroll"><table>{caption}{head}<tbody>{rows}</tbody></table></div>\n'


def _html_cell(cell: str | Marked) -> str:
    text = escape_html(cell.text if isinstance(cell, Marked) else cell).replace("\n", "<br>")
    return f'<span class="{cell.level}">{text}</span>' if isinstance(cell, Marked) else text


def _coloured(cell: str | Marked, escape: Any) -> str:
    if isinstance(cell, Marked):
        return f"[{_STYLES[cell.level]}]{escape(cell.text)}[/]"
    return escape(cell)


def _markdown_row(cells: Iterable[str | Marked]) -> str:
    texts = (cell.text if isinstance(cell, Marked) else cell for cell in cells)
    return f"| {' | '.join(text.replace('|', chr(92) + '|').replace(chr(10), '<br>') for text in texts)} |"


def csv_text(records: Sequence[Mapping[str, Any]]) -> str:
    """Write records as CSV: the columns of the first, None and NaN as nothing.

    Examples
    --------
    >>> print(csv_text([{"name": "a", "value": 0.5}, {"name": "b", "value": float("nan")}]), end="")
    name,value
    a,0.5
    b,
    """
    page = io.StringIO()
    writer = csv.writer(page, lineterminator="\n")
    writer.writerow(records[0] if records else [])
    for record in records:
        writer.writerow(None if value != value else value for value in record.values())
    return page.getvalue()
