import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seif_nemo.observability.report.charts import (
    Band,
    Bar,
    Dumbbell,
    Segment,
    Series,
    as_number,
    as_rate,
    dumbbells,
    line_chart,
    nice_ticks,
    stacked_bars,
)
from tests.unit.observability.html_tree import Node, parse


def numbers(node: Node, *names: str) -> list[float]:
    return [float(node.attributes[name]) for name in names]


def texts(chart: Node, class_: str) -> list[str]:
    return [n.text for n in chart.all("text", class_)]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0.42, 0.73, [0.4, 0.5, 0.6, 0.7, 0.8]),
        (0, 7, [0, 2, 4, 6, 8]),
        (-3, 3, [-4, -2, 0, 2, 4]),
        (5, 5, [4.5, 4.75, 5.0, 5.25, 5.5]),
        (0, 0, [-0.5, -0.25, 0, 0.25, 0.5]),
    ],
)
def test_ticks_by_hand(low: float, high: float, ticks: list[float]) -> None:
    assert nice_ticks(low, high) == pytest.approx(ticks)


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9))
def test_ticks_cover_the_range_evenly(low: float, width: float) -> None:
    ticks = nice_ticks(low, low + width)
    spacing = ticks[1] - ticks[0]
    assert ticks[0] <= low + 1e-6 * spacing
    assert ticks[-1] >= low + width - 1e-6 * spacing
    assert 2 <= len(ticks) <= 8


def test_points_lie_where_their_values_are() -> None:
    series = Series("rate", "c-follower", ((0, 0.0), (1, 0.5), (2, 1.0)))
    chart = parse(line_chart("t", [series], x_label="round", x_ticks=[0, 1, 2], limits=(0, 1)))
    # The plot is 50..502 wide with an inset of 14, and 26..216 high.
    assert chart.one("polyline").attributes["points"] == "64.0,216.0 276.0,121.0 488.0,26.0"
    assert [numbers(c, "cx", "cy") for c in chart.all("circle")] == [[64, 216], [276, 121], [488, 26]]
    assert [c.one("title").text for c in chart.all("circle")] == ["rate, 0: 0", "rate, 1: 0.5", "rate, 2: 1"]
    assert texts(chart, "tick") == ["0", "0.25", "0.5", "0.75", "1", "0", "1", "2", "round"]
    assert chart.one("svg").attributes["aria-label"] == "t"


def test_error_bars_have_the_length_of_the_error_twice() -> None:
    series = Series("rate", "c-follower", ((0, 0.5), (1, 0.5)), errors=(0.25, None))
    chart = parse(line_chart("t", [series], x_label="", limits=(0, 1)))
    (bar,) = [n for n in chart.all("line", "line") if n.attributes["x1"] == n.attributes["x2"]]
    ys = {t.text: float(t.attributes["y"]) - 4 for t in chart.all("text", "tick") if t.text}
    assert numbers(bar, "y1") == pytest.approx([ys["0.2"] + (ys["0.4"] - ys["0.2"]) / 4], abs=0.02)
    assert numbers(bar, "y2") == pytest.approx([ys["0.8"] + (ys["0.6"] - ys["0.8"]) / 4], abs=0.02)


def test_a_missing_value_breaks_the_line() -> None:
    points = ((1, 1.0), (2, 2.0), (3, math.nan), (4, 1.0), (5, 2.0), (6, math.inf), (7, 3.0))
    chart = parse(line_chart("t", [Series("s", "c-blue", points)], x_label=""))
    assert [len(p.attributes["points"].split()) for p in chart.all("polyline")] == [2, 2]
    assert len(chart.all("circle")) == 5
    assert "nan" not in str(chart)
    with pytest.raises(AssertionError):
        line_chart("t", [Series("s", "c-blue", ((1, math.nan),))], x_label="")


def test_values_beyond_the_limits_stay_on_the_chart() -> None:
    chart = parse(line_chart("t", [Series("s", "c-blue", ((1, -0.2), (2, 0.9)))], x_label="", limits=(0, 1)))
    assert [numbers(c, "cy")[0] for c in chart.all("circle")] == [216.0, pytest.approx(26 + 190 * 0.1 / 1.2, abs=0.02)]


def test_bands_and_rule() -> None:
    bands = [Band(0.5, 2.5, "round 1"), Band(2.5, 4.5, "round 2")]
    series = Series("s", "c-blue", ((1, 1.0), (4, 1.02)))
    chart = parse(line_chart("t", [series], x_label="step", bands=bands, rule=1.05))
    assert [numbers(r, "x", "width") for r in chart.all("rect")] == [[50, 226], [276, 226]]
    assert {"round 1", "round 2"} <= set(texts(chart, "tick"))
    ys = {t.text: float(t.attributes["y"]) - 4 for t in chart.all("text", "tick")}
    rule = chart.one("line", "rule")
    assert numbers(rule, "y1") == pytest.approx([(ys["1.04"] + ys["1.06"]) / 2], abs=0.02)


def test_long_lines_carry_no_circles_and_one_line_no_legend() -> None:
    long = Series("long", "c-blue", tuple((float(x), float(x)) for x in range(61)))
    assert parse(line_chart("t", [long], x_label="")).all("circle") == []
    assert parse(line_chart("t", [long], x_label="")).all("ul") == []
    chart = parse(line_chart("t", [long, Series("b", "c-red", ((0, 1.0),))], x_label=""))
    assert [li.text for li in chart.all("li")] == ["long", "b"]


def test_bar_widths_are_shares_of_the_whole() -> None:
    bars = [
        Bar("R1", (Segment("kept", "c-blue", 0.75), Segment("conflict", "c-red", 0.25)), "1,440"),
        Bar("R2", (Segment("kept", "c-blue", 0.5), Segment("conflict", "c-red", 0.0)), "10"),
    ]
    chart = parse(stacked_bars("t", bars, whole=1.0, number=as_rate, x_label="share"))
    # The bars begin at 120 and the whole is 316 wide; a unit between segments is left free.
    assert [numbers(r, "x", "width") for r in chart.all("rect")] == [[120, 236], [357, 78], [120, 157]]
    assert [r.one("title").text for r in chart.all("rect")] == ["R1: kept 0.75", "R1: conflict 0.25", "R2: kept 0.50"]
    assert [li.text for li in chart.all("li")] == ["kept", "conflict"]
    assert {"1,440", "10", "share"} <= set(texts(chart, "tick"))


def test_bars_without_a_whole_end_at_the_longest() -> None:
    bars = [Bar("a", (Segment("x", "c-blue", 4.0),), ""), Bar("b", (Segment("x", "c-blue", 1.0),), "")]
    chart = parse(stacked_bars("t", bars, whole=None, number=as_number, x_label=""))
    assert [numbers(r, "width")[0] for r in chart.all("rect")] == [315, 78]


def test_dumbbells() -> None:
    rows = [Dumbbell("Round 1", 0.25, 0.5), Dumbbell("Round 2", 0.5, 0.25), Dumbbell("Round 3", 0.5, None)]
    chart = parse(dumbbells("t", rows, x_label="difficulty"))
    # The scale begins at 100 and is 376 wide.
    assert [(c.classes[0], *numbers(c, "cx")) for c in chart.all("circle")] == [
        ("ring", 194), ("dot", 288), ("ring", 288), ("dot", 194), ("ring", 288),
    ]  # fmt: skip
    labels = [(t.text, t.attributes["text-anchor"]) for t in chart.all("text", "value")]
    assert labels == [("0.25", "end"), ("0.50", "start"), ("0.50", "start"), ("0.25", "end"), ("0.50", "end")]
    assert len(chart.all("line", "line")) == 2
