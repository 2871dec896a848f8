"""From a run's folder to a report: read, judge, tabulate, draw, write."""

from search.report.collect import FinalEvaluation
from search.report.run_info import RunInfo
from search.report.write import write_report

__all__ = ["FinalEvaluation", "RunInfo", "write_report"]
