"""From a run's folder to a report: read, judge, tabulate, draw, write."""

from search.report.write import write_report

__all__ = ["write_report"]
