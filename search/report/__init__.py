"""From the study to a report: collect, judge, tabulate, draw, write."""

from search.report.collect import FinalEvaluation, RunInfo
from search.report.write import write_report

__all__ = ["FinalEvaluation", "RunInfo", "write_report"]
