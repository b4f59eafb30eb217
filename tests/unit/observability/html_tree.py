"""A small HTML tree, so that tests can ask for the numbers on a page."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

_VOID = {"meta", "br"}


@dataclass
class Node:
    name: str
    attributes: dict[str, str] = field(default_factory=dict[str, str])
    children: list["Node | str"] = field(default_factory=list["Node | str"])

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    @property
    def classes(self) -> list[str]:
        return self.attributes.get("class", "").split()

    def walk(self) -> Iterator["Node"]:
        yield self
        for child in self.children:
            if isinstance(child, Node):
                yield from child.walk()

    def all(self, name: str | None = None, class_: str | None = None) -> list["Node"]:
        """Descendants by tag name and class, in document order."""
        return [
            n
            for n in self.walk()
            if n is not self and (name is None or n.name == name) and (class_ is None or class_ in n.classes)
        ]

    def one(self, name: str | None = None, class_: str | None = None) -> "Node":
        found = self.all(name, class_)
        assert len(found) == 1, f"{len(found)} of {name}.{class_}"
        return found[0]

    def by_id(self, id_: str) -> "Node":
        found = [n for n in self.walk() if n.attributes.get("id") == id_]
        assert len(found) == 1, f"{len(found)} with id {id_}"
        return found[0]

    def tables(self) -> list[list[list[str]]]:
        """The text of all cells of all tables, header rows included."""
        return [
            [[cell.text for cell in row.walk() if cell.name in ("td", "th")] for row in table.all("tr")]
            for table in self.all("table")
        ]


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Node("#root")
        self.open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"repeated attribute in <{tag}>: {attrs}"
        node = Node(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(node)
        if tag not in _VOID:
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1].name == tag, f"</{tag}> closes <{self.open[-1].name}>"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)


def parse(page: str) -> Node:
    """The tree of a page. Fails unless every element is closed in its place."""
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert [n.name for n in builder.open] == ["#root"], "an element is left open"
    return builder.root
