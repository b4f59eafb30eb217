from hypothesis import example, given
from hypothesis import strategies as st

from seif_nemo.observability.report.markup import Html, clip, escape, join, tag
from seif_nemo.observability.report.parts import table, words
from tests.unit.observability.fake_run import HOSTILE
from tests.unit.observability.html_tree import Node, parse


def test_tags_by_hand() -> None:
    assert tag("p", "a < b & c", class_="x y") == '<p class="x y">a &lt; b &amp; c</p>'
    assert tag("meta", charset="utf-8") == '<meta charset="utf-8">'
    assert tag("line", x1=1.0, stroke_width=0.125) == '<line x1="1" stroke-width="0.12"></line>'
    assert tag("details", None, tag("b", 3), ["x", [Html("<i></i>")]], open=True, id=None, hidden=False) == (
        "<details open><b>3</b>x<i></i></details>"
    )
    assert tag("a", title='" onclick="x') == '<a title="&quot; onclick=&quot;x"></a>'


def test_what_html_cannot_hold_is_replaced() -> None:
    assert escape("a\x00b\x1bc\ud800d\u202ee\tf\r\ng") == "a\ufffdb\ufffdc\ufffdd\ufffde\tf\ng"
    assert escape("é 😀 العربية") == "é 😀 العربية"


@given(st.text())
@example(HOSTILE)
@example("&lt;script&gt;")
@example("]]><!-- --> <svg onload=x>")
def test_any_text_stays_text(text: str) -> None:
    root = parse(tag("p", text, title=text))
    (p,) = [child for child in root.children if isinstance(child, Node)]
    assert [n.name for n in root.walk()] == ["#root", "p"]
    assert escape(p.text) == escape(text)
    assert escape(p.attributes["title"]) == escape(text)
    root_text = tag("p", text).encode("utf-8")  # never fails
    assert root_text.startswith(b"<p>")


def test_joined_markup_is_not_escaped_again() -> None:
    assert join([tag("b", "<"), "<"]) == "<b>&lt;</b>&lt;"


def test_clipped_text_says_what_is_left_out() -> None:
    assert clip("x" * 10, 10) == "x" * 10
    assert clip("y" * 1510, 10) == "yyyyyyyyyy … (1,500 more characters)"


def test_model_text_that_looks_like_a_cell_is_still_escaped() -> None:
    page = table(["a", "b"], [["<td>x</td>", words("<td>y</td>")], ["z", "-"]])
    assert parse(page).tables() == [[["a", "b"], ["<td>x</td>", "<td>y</td>"], ["z", "-"]]]
    assert [th.classes for th in parse(page).one("thead").all("th")] == [[], ["words"]]
