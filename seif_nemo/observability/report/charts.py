"""Line charts, stacked bars and dumbbells as inline SVG. Colours are CSS classes: dark mode and print restyle them.

Charts are drawn for a width of 520 units: in a two-column page a unit is about a pixel, on a telephone about 0.7.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from seif_nemo.observability.report.markup import Html, tag

WIDTH = 520
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 18, 26, 44
_PLOT_HEIGHT = 190
_MAX_MARKED_POINTS = 60  # more points than these get no circles and no tooltips
_LABEL_GAP = 9

Number = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    """One line. `errors`: half lengths of the error bars, per point; empty for none. NaN values break the line."""

    label: str
    color: str  # CSS class
    points: tuple[tuple[float, float], ...]
    errors: tuple[float | None, ...] = ()
    faint: bool = False
    marks: bool = True  # circles on the points
    labels: int = 0  # write the values next to the points: 1 above, -1 below, 0 not
    in_legend: bool = True


@dataclass(frozen=True, slots=True)
class Band:
    """A part of the x axis with a name, such as a round."""

    start: float
    end: float
    label: str


@dataclass(frozen=True, slots=True)
class Segment:
    label: str
    color: str  # CSS class
    value: float


@dataclass(frozen=True, slots=True)
class Bar:
    """A row of stacked segments; `note` stands at its right end."""

    label: str
    segments: tuple[Segment, ...]
    note: str


@dataclass(frozen=True, slots=True)
class Dumbbell:
    """A row with a value before and a value after. None: not measured, or not yet."""

    label: str
    before: float | None
    after: float | None


def as_rate(value: float) -> str:
    return f"{value:.2f}"


def as_number(value: float) -> str:
    """Four significant digits at most; scientific where it is shorter."""
    return f"{value:.4g}"


def nice_ticks(low: float, high: float, target: int = 5) -> list[float]:
    """Round numbers, evenly spaced, about `target` of them, the first ≤ low and the last ≥ high.

    An empty range is widened around its value. Raises nothing for finite numbers with low ≤ high.
    """
    if high - low <= 1e-12 * max(abs(low), abs(high), 1e-300):
        pad = abs(low) * 0.1 or 0.5
        low, high = low - pad, high + pad
    rough = (high - low) / max(1, target - 1)
    power = 10.0 ** math.floor(math.log10(rough))
    spacing = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / spacing + 1e-9), math.ceil(high / spacing - 1e-9)
    return [index * spacing for index in range(first, last + 1)]


def line_chart(
    title: str,
    series: Sequence[Series],
    *,
    x_label: str,
    x_ticks: Sequence[float] | None = None,
    bands: Sequence[Band] = (),
    limits: tuple[float, float] | None = None,
    number: Number = as_number,
    rule: float | None = None,
) -> Html:
    """A figure with lines over a common pair of axes.

    `limits`: where the y axis ends unless a value lies beyond, such as (0, 1) for rates. `rule`: a y value to mark
    with a dashed line. Needs at least one finite point.
    """
    values = [(x, y, e) for s in series for (x, y), e in _with_errors(s) if math.isfinite(y)]
    assert values, f"chart {title!r} has nothing to draw"
    lows, highs = [y - e for _, y, e in values], [y + e for _, y, e in values]
    if any(s.labels for s in series):  # room for them
        room = 0.1 * (max(highs) - min(lows))
        lows, highs = [low - room for low in lows], [high + room for high in highs]
    if rule is not None:
        lows, highs = [*lows, rule], [*highs, rule]
    y_ticks = nice_ticks(min(lows), max(highs))
    if limits is not None:
        y_ticks = [t for t in y_ticks if limits[0] - 1e-9 <= t <= limits[1] + 1e-9]
        y_low, y_high = min([*y_ticks, *lows]), max([*y_ticks, *highs])
        ys = [y for _, y, _ in values]
        y_low, y_high = min(max(y_low, limits[0]), *ys), max(min(y_high, limits[1]), *ys)
    else:
        y_low, y_high = y_ticks[0], y_ticks[-1]
    xs = [x for x, _, _ in values] + [b.start for b in bands] + [b.end for b in bands]
    x_low, x_high = min(xs), max(xs)
    if x_high == x_low:
        x_low, x_high = x_low - 0.5, x_high + 0.5
    if x_ticks is None:
        x_ticks = [t for t in nice_ticks(x_low, x_high, 6) if x_low <= t <= x_high and t == round(t)]
    inset = 14 if not bands else 0  # room between the axis and the first point
    scale = _Scale(x_low, x_high, y_low, y_high, inset)

    parts: list[Html] = _bands(bands, scale)
    parts += _axes(x_ticks, y_ticks, scale, number, x_label)
    if rule is not None:
        parts.append(_line(_LEFT, scale.y(rule), WIDTH - _RIGHT, scale.y(rule), "rule"))
    for one in series:
        parts += _series(one, scale, number)
    height = _TOP + _PLOT_HEIGHT + _BOTTOM
    return figure(title, [(s.label, s.color) for s in series if s.in_legend], svg(title, height, parts))


def stacked_bars(title: str, bars: Sequence[Bar], *, whole: float | None, number: Number, x_label: str) -> Html:
    """A figure with one horizontal bar per row, all on one scale that ends at `whole` (None: at the longest bar).

    Segments of value 0 are left out of the drawing; the legend has each label that has a value in any row.
    """
    top, row_height, bar_height, left, right = 6, 34, 22, 120, 84
    end = whole if whole is not None else max((sum(s.value for s in bar.segments) for bar in bars), default=0.0)
    end = end or 1.0
    span = WIDTH - left - right
    bottom = top + row_height * len(bars)
    parts: list[Html] = []
    ticks = [t for t in nice_ticks(0, end, 5) if t <= end * (1 + 1e-9)]
    for tick in ticks:
        x = left + span * tick / end
        parts.append(_line(x, top, x, bottom, "grid"))
        parts.append(_text(x, bottom + 16, number(tick), "tick", "middle"))
    for row, bar in enumerate(bars):
        y = top + row * row_height + (row_height - bar_height) / 2
        parts.append(_text(left - 8, y + bar_height / 2 + 4, bar.label, "label", "end"))
        x = float(left)
        for segment in bar.segments:
            width = span * segment.value / end
            if segment.value > 0:
                tip = tag("title", f"{bar.label}: {segment.label} {number(segment.value)}")
                gap = 1.0 if width > 2 else 0.0
                box = {"x": x, "y": y, "width": max(width - gap, 0.4), "height": bar_height}
                parts.append(tag("rect", tip, class_=f"bar {segment.color}", **box))
            x += width
        parts.append(_text(WIDTH - right + 6, y + bar_height / 2 + 4, bar.note, "tick", "start"))
    parts.append(_text(left + span / 2, bottom + 34, x_label, "tick", "middle"))
    legend = {s.label: s.color for bar in bars for s in bar.segments if s.value > 0}
    return figure(title, list(legend.items()), svg(title, bottom + _BOTTOM, parts))


def dumbbells(title: str, rows: Sequence[Dumbbell], *, x_label: str, number: Number = as_rate) -> Html:
    """A figure with one row per pair: a ring before, a dot after, a line between. The scale goes from 0 to 1."""
    top, row_height, left, right = 8, 36, 100, 44
    bottom = top + row_height * len(rows)
    span = WIDTH - left - right
    parts: list[Html] = []
    for tick in nice_ticks(0, 1, 6):
        x = left + span * tick
        parts.append(_line(x, top, x, bottom, "grid"))
        parts.append(_text(x, bottom + 16, number(tick), "tick", "middle"))
    for row, pair in enumerate(rows):
        y = top + row_height * (row + 0.5)
        parts.append(_text(left - 36, y + 4, pair.label, "label", "end"))
        if pair.before is not None and pair.after is not None:
            x_1, x_2 = left + span * pair.before, left + span * pair.after
            parts.append(_line(x_1, y, x_2, y, "line c-instructor"))
        outward = -1 if (pair.before or 0) <= (pair.after if pair.after is not None else 1) else 1
        for name, value, side in (("before", pair.before, outward), ("after", pair.after, -outward)):
            if value is None:
                continue
            x = left + span * value
            tip = tag("title", f"{pair.label}, {name}: {number(value)}")
            shape = "ring c-instructor" if name == "before" else "dot c-instructor"
            parts.append(tag("circle", tip, class_=shape, cx=x, cy=y, r=5.5))
            parts.append(_text(x + side * _LABEL_GAP, y + 4, number(value), "value", "start" if side > 0 else "end"))
    parts.append(_text(left + span / 2, bottom + 34, x_label, "tick", "middle"))
    legend = [("before the phase", "c-instructor hollow"), ("after the phase", "c-instructor")]
    return figure(title, legend, svg(title, bottom + _BOTTOM, parts))


def figure(title: str, legend: Sequence[tuple[str, str]], drawing: Html) -> Html:
    """A drawing with its title and, for more than one entry, its legend of (label, CSS class)."""
    keys = [
        tag("li", tag("span", class_=f"swatch {color}"), tag("span", label))
        for label, color in (legend if len(legend) > 1 else ())
    ]
    return tag("figure", tag("figcaption", title), tag("ul", keys, class_="legend") if keys else None, drawing)


def svg(title: str, height: float, parts: Sequence[Html]) -> Html:
    return tag("svg", parts, viewBox=f"0 0 {WIDTH} {height:g}", role="img", aria_label=title)


@dataclass(frozen=True, slots=True)
class _Scale:
    """Data to drawing units."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float
    inset: float

    def x(self, value: float) -> float:
        span = WIDTH - _LEFT - _RIGHT - 2 * self.inset
        return _LEFT + self.inset + span * (value - self.x_low) / (self.x_high - self.x_low)

    def y(self, value: float) -> float:
        return _TOP + _PLOT_HEIGHT * (1 - (value - self.y_low) / (self.y_high - self.y_low))


def _with_errors(series: Series) -> list[tuple[tuple[float, float], float]]:
    errors = series.errors or (None,) * len(series.points)
    return [(point, error or 0.0) for point, error in zip(series.points, errors, strict=True)]


def _bands(bands: Sequence[Band], scale: _Scale) -> list[Html]:
    parts: list[Html] = []
    for index, band in enumerate(bands):
        x_1, x_2 = scale.x(band.start), scale.x(band.end)
        box = {"x": x_1, "y": _TOP, "width": x_2 - x_1, "height": _PLOT_HEIGHT}
        parts.append(tag("rect", class_="band" if index % 2 else "band clear", **box))
        if index:
            parts.append(_line(x_1, _TOP - 12, x_1, _TOP + _PLOT_HEIGHT, "edge"))
        parts.append(_text((x_1 + x_2) / 2, _TOP - 8, band.label, "tick", "middle"))
    return parts


def _axes(
    x_ticks: Sequence[float], y_ticks: Sequence[float], scale: _Scale, number: Number, x_label: str
) -> list[Html]:
    floor = _TOP + _PLOT_HEIGHT
    parts: list[Html] = []
    for tick in y_ticks:
        y = scale.y(tick)
        parts.append(_line(_LEFT, y, WIDTH - _RIGHT, y, "grid"))
        parts.append(_text(_LEFT - 7, y + 4, number(tick), "tick", "end"))
    parts.append(_line(_LEFT, floor, WIDTH - _RIGHT, floor, "axis"))
    parts += [_text(scale.x(tick), floor + 17, f"{tick:g}", "tick", "middle") for tick in x_ticks]
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, floor + 36, x_label, "tick", "middle"))
    return parts


def _series(series: Series, scale: _Scale, number: Number) -> list[Html]:
    parts: list[Html] = []
    runs: list[list[str]] = [[]]
    for x, y in series.points:
        if math.isfinite(y):
            runs[-1].append(f"{scale.x(x):.1f},{scale.y(y):.1f}")
        else:
            runs.append([])
    shape = f"line {series.color}{' faint' if series.faint else ''}"
    parts += [tag("polyline", class_=shape, points=" ".join(run)) for run in runs if len(run) > 1]
    marked = series.marks and len(series.points) <= _MAX_MARKED_POINTS
    for (x, y), error in _with_errors(series):
        if not math.isfinite(y):
            continue
        if error:
            low, high = scale.y(y - error), scale.y(y + error)
            parts.append(_line(scale.x(x), low, scale.x(x), high, f"line {series.color}"))
        if marked or all(len(run) <= 1 for run in runs):
            tip = tag("title", f"{series.label}, {x:g}: {number(y)}")
            parts.append(tag("circle", tip, class_=f"dot {series.color}", cx=scale.x(x), cy=scale.y(y), r=3.5))
        if series.labels:
            shift = -_LABEL_GAP - 1 if series.labels > 0 else _LABEL_GAP + 9
            shift += (scale.y(y + error) if series.labels > 0 else scale.y(y - error)) - scale.y(y)
            parts.append(_text(scale.x(x), scale.y(y) + shift, number(y), "value", "middle"))
    return parts


def _line(x_1: float, y_1: float, x_2: float, y_2: float, class_: str) -> Html:
    return tag("line", class_=class_, x1=x_1, y1=y_1, x2=x_2, y2=y_2)


def _text(x: float, y: float, content: str, class_: str, anchor: str) -> Html:
    return tag("text", content, class_=class_, x=x, y=y, text_anchor=anchor)
