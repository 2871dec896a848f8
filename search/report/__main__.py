"""`python -m search.report RUN [RUN ...]`: writes the report of a run again, or one page that compares several."""

import argparse
import sys
from pathlib import Path

from galaxy_models.cli import run_command
from search.storage import is_uri


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns its exit code."""
    options = _parser().parse_args(arguments)
    return run_command(lambda: _write(options.runs, options.out))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m search.report",
        description="Write the report of a search from its folder, also while it runs; or compare several on one page. "
        "Nothing else in the folders is changed.",
    )
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="a run's folder, such as runs/<name>; s3://bucket/runs/<name> is copied to runs/<name> first",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the files go (default: RUN/report for one run, joint-report beside the first of several)",
    )
    return parser


def _write(named: list[str], out: Path | None) -> int:
    from search.lock import read_holder
    from search.remote_run import brought_here, local_folder
    from search.report.joint import write_joint_report
    from search.report.source import read_run
    from search.report.write import write_findings

    folders = {run: local_folder(run) for run in named}
    # A search of this machine has the latest itself.
    run_dirs = [
        brought_here(run) if is_uri(run) and not read_holder(folder).holds else folder
        for run, folder in folders.items()
    ]
    runs = [read_run(run_dir) for run_dir in run_dirs]
    if len(runs) == 1:
        page = write_findings(runs[0], out)
    else:
        page = write_joint_report(runs, out or run_dirs[0].parent / "joint-report")
    print(f"report: {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
