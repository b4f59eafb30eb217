"""Pieces that all sections use: sections, tables, numbers as text."""

from collections.abc import Sequence

from seif_nemo.observability.report.markup import Child, Html, tag

Cell = Child


def section(anchor: str, heading: str, lead: str, *children: Child) -> Html:
    """A titled part of the page; `lead` says in a sentence how to read it."""
    return tag("section", tag("h2", heading), tag("p", lead, class_="lead"), children, id=anchor)


def not_yet(what: str) -> Html:
    """Stands where a part of the page has no data."""
    return tag("p", f"Not yet: {what}", class_="empty")


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]], *, caption: str | None = None) -> Html:
    """A table that scrolls sideways in narrow windows. A row's first cell is its name; `td` cells stay as they are."""
    of_words = {column for row in rows for column, cell in enumerate(row) if _is_cell(cell, "words")}
    names = [tag("th", n, scope="col", class_="words" if c in of_words else None) for c, n in enumerate(head)]
    return tag(
        "div",
        tag(
            "table",
            None if caption is None else tag("caption", caption),
            tag("thead", tag("tr", names)),
            tag("tbody", [_row(row) for row in rows]),
        ),
        class_="scroll",
    )


def words(content: Child) -> Html:
    """A cell of running text."""
    return tag("td", content, class_="words", dir="auto")


def heat(value: float | None) -> Html:
    """A cell that is the darker, the nearer a rate is to 1."""
    if value is None:
        return tag("td", "-")
    return tag("td", f"{value:.2f}", class_="heat", style=f"--v:{min(1.0, max(0.0, value)):.3f}")


def change(value: float | None, digits: int = 3) -> Html:
    """A signed difference, coloured by its sign."""
    if value is None:
        return tag("td", "-")
    text = f"{value:+.{digits}f}"
    sign = 0 if float(text) == 0 else value
    return tag("td", text, class_="up" if sign > 0 else "down" if sign < 0 else None)


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _row(cells: Sequence[Cell]) -> Html:
    parts = [
        cell if _is_cell(cell) else tag("th", cell, scope="row") if index == 0 else tag("td", cell)
        for index, cell in enumerate(cells)
    ]
    return tag("tr", parts)


def _is_cell(content: Cell, class_: str | None = None) -> bool:
    """Whether `content` is a `td` already, with this class if one is given."""
    start = "<td" if class_ is None else f'<td class="{class_}"'
    return isinstance(content, Html) and content.startswith(start)
