"""Where a command that uses trained networks computes."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from galaxy_models.training.runtime import Runtime


def add_machine_options(parser: argparse.ArgumentParser) -> None:
    """Declare `--device` and `--threads`."""
    parser.add_argument("--device", metavar="NAME", help="cpu, cuda or cuda:N (default: cuda if there is one)")
    parser.add_argument("--threads", type=int, metavar="N", help="processors to use (default: as many as torch sees)")


def make_runtime(device: str | None, threads: int | None) -> "Runtime":
    """What the options ask for, or else all that the machine has.

    Raises:
        ConfigError: less than one thread.
    """
    import torch

    from galaxy_models.training.runtime import Runtime

    return Runtime(
        device=device or ("cuda" if torch.cuda.is_available() else "cpu"),
        threads=torch.get_num_threads() if threads is None else threads,
    )
