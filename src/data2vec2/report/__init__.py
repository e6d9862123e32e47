"""A run folder as one self-contained HTML page."""

from data2vec2.report.build import write_report

__all__ = ["write_report"]
