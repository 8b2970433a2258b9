"""One self-contained HTML page about a run, made from the files of its folder alone."""

from nas.report.page import write_report

__all__ = ["write_report"]
