"""Puts the page together and writes it."""

import os
import time
from pathlib import Path

from seif_nemo.observability.report.judge import judge_section
from seif_nemo.observability.report.loading import RunData, load_run
from seif_nemo.observability.report.markup import Html, tag
from seif_nemo.observability.report.parts import table, words
from seif_nemo.observability.report.results import (
    data_section,
    difficulty_section,
    follow_rate_section,
    header,
    kinds_section,
)
from seif_nemo.observability.report.samples import instructor_section, samples_section
from seif_nemo.observability.report.style import STYLE
from seif_nemo.observability.report.training import curves_section, diversity_section, gate_section, time_section

_FILE_NAME = "report.html"
# Second wall behind the escaping: even if markup of a model got in, the browser would run and fetch nothing.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_LINKS = (
    ("follow-rate", "Follow rate"),
    ("kinds", "Kinds"),
    ("difficulty", "Difficulty"),
    ("gate", "Gate"),
    ("curves", "Curves"),
    ("judge", "Judge"),
    ("diversity", "Diversity"),
    ("samples", "Answers"),
    ("instructor", "Instructor"),
    ("data", "Data"),
    ("time", "Time"),
    ("environment", "Environment"),
)


def write_report(run_dir: Path, *, now: float | None = None) -> Path:
    """Writes `report.html` into the run directory and returns its path. The file is replaced as a whole.

    Works at any time in a run's life: parts without data say so. `now` is the Unix time that the page is dated with.
    Raises ValueError if `run_dir` is no directory and OSError if the page cannot be written.
    """
    page = render(load_run(run_dir), time.time() if now is None else now)
    path = run_dir / _FILE_NAME
    partial = path.with_name(f".{_FILE_NAME}.{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def render(data: RunData, now: float) -> str:
    """The page as text. `now` is Unix time."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"{data.name}: SEIF report"),
        tag("style", Html(STYLE)),
    )
    main = tag(
        "main",
        header(data, now),
        tag("nav", [tag("a", label, href=f"#{anchor}") for anchor, label in _LINKS]),
        follow_rate_section(data),
        kinds_section(data),
        difficulty_section(data),
        gate_section(data),
        curves_section(data),
        judge_section(data),
        diversity_section(data),
        samples_section(data),
        instructor_section(data),
        data_section(data),
        time_section(data),
        _environment(data),
        tag("footer", f"Written {time.strftime('%Y-%m-%d %H:%M UTC', time.gmtime(now))} by seif_nemo."),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', main), lang='en')}\n"


def _environment(data: RunData) -> Html:
    rows = [[key, words(value)] for key, value in data.provenance]
    versions = (
        table(["name", "value"], rows) if rows else tag("p", "Not yet: there is no provenance.json.", class_="empty")
    )
    if data.config_text is None:
        config = tag("p", "Not yet: there is no config.yaml.", class_="empty")
    else:
        config = tag("pre", data.config_text)
    summary = tag("summary", "Environment and configuration")
    parts = (tag("h3", "Environment"), versions, tag("h3", "Configuration"), config)
    return tag("details", summary, parts, class_="fold", id="environment")
