"""A run folder, or several, as one self-contained HTML page."""

from data2vec2.reporting.build import write_report
from data2vec2.reporting.compare import write_comparison

__all__ = ["write_comparison", "write_report"]
