"""`python -m search.run`: the command line of a search. Parses, calls, and turns the end into an exit code."""

import shlex
import sys

from galaxy_models.cli import run_command
from search.command_line import parse_options
from search.space import check_space_file


def main(arguments: list[str] | None = None) -> int:
    """Run a search from its command line.

    Returns:
        0; 2 for a user's mistake; 1 for a fault that is nobody's; 129, 130 or 143 after
        the end of its terminal, Ctrl-C or SIGTERM.
    """
    words = sys.argv[1:] if arguments is None else arguments

    def command() -> int:
        options = parse_options(words, shlex.join(["python", "-m", "search.run", *words]))
        for path in options.spaces:
            check_space_file(path)
        from search.job import run_search  # loads torch and ray

        return run_search(options)

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
