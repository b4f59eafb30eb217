"""The HTML report of a run: one self-contained page, no scripts, no requests."""

from seif_nemo.observability.report.page import write_report

__all__ = ["write_report"]
