"""A run folder, or several, as one self-contained HTML page."""

from data2vec2.reporting.build import write_comparison, write_report

__all__ = ["write_comparison", "write_report"]
