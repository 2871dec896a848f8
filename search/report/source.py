"""Reads a run's folder without touching it or taking a lock, also while a search is writing there."""

from pathlib import Path

from search.report.collect import Trials, collect
from search.report.evidence.pairs import compare
from search.report.evidence.standing import gather
from search.report.findings import Findings
from search.report.run_info import RunInfo, load_run_info
from search.results import load_results


def read_run(run_dir: Path) -> Findings:
    """Everything that a report says of a run.

    Raises:
        RunError: the folder is no run, or what is in it is damaged.
    """
    from search.study import load_studies

    info = load_run_info(run_dir)
    return found_in(run_dir, info, collect(list(load_studies(run_dir).values())))


def found_in(run_dir: Path, info: RunInfo, trials: Trials) -> Findings:
    """Add what the final evaluation left in the folder.

    Raises:
        RunError: a result is damaged.
    """
    evidence = gather(run_dir, load_results(run_dir), info)
    return Findings(
        run_dir=run_dir, info=info, trials=trials, evidence=evidence, pairs=compare(evidence.standings, info)
    )
