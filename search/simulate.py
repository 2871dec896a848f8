"""`python -m search.simulate`: replays recorded learning curves. Parses, calls, and prints."""

import sys

from galaxy_models.cli import run_command
from search.simulation.options import parse_options


def main(arguments: list[str] | None = None) -> int:
    """Simulate searches from the command line.

    Returns:
        0; 2 for a user's mistake; 1 for a fault that is nobody's; 130 after Ctrl-C.
    """
    words = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_options(words)
        from rich.console import Console

        from search.simulation.job import run_simulation  # loads ray

        # A table is wider than the 80 columns that a pipe is taken for.
        console = Console() if sys.stdout.isatty() else Console(width=200)
        run_simulation(options, console)
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
