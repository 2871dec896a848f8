"""How every command ends: its exit code, and one message where a traceback would help nobody."""

import errno
import inspect
import os
import subprocess
import sys

import pytest

from galaxy_models import errors
from galaxy_models.cli import run_command


def failing(error: BaseException) -> int:
    def command() -> int:
        raise error

    return run_command(command)


@pytest.mark.parametrize("code", [0, 1, 143])
def test_a_command_chooses_its_code(code: int, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: code) == code
    assert capfd.readouterr() == ("", "")


KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.GalaxyError)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_is_one_message(kind: type[errors.GalaxyError], capfd: pytest.CaptureFixture[str]) -> None:
    expected = 1 if issubclass(kind, errors.MachineError) else 2
    assert failing(kind("shard x: got 1 row, expected 2: convert again")) == expected
    assert capfd.readouterr() == ("", "error: shard x: got 1 row, expected 2: convert again\n")


def test_kinds_of_faults() -> None:
    assert {"ConfigError", "ManifestError", "ShardError", "WeightsError"} <= {kind.__name__ for kind in KINDS}
    assert issubclass(errors.ConfigError, ValueError)
    assert issubclass(errors.ManifestError, errors.DataError)
    assert issubclass(errors.ShardError, errors.DataError)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some room or choose another place"),
        (errno.EDQUOT, "free some room or choose another place"),
        (errno.EROFS, "choose another place"),
        (errno.EACCES, "change the permissions or choose another place"),
        (errno.EPERM, "change the permissions or choose another place"),
        (errno.EIO, "check the disk, or the network that it is on"),
        (errno.EMFILE, "allow more open files with ulimit -n, or use fewer processes"),
        (errno.ENFILE, "allow more open files with ulimit -n, or use fewer processes"),
    ],
)
def test_a_machine_that_refuses_is_nobodys_mistake(code: int, remedy: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert failing(OSError(code, "the reason", "runs/x")) == 1
    assert capfd.readouterr().err == f"error: runs/x: the reason: {remedy}, then run again\n"
    assert failing(OSError(code, "the reason")) == 1
    assert capfd.readouterr().err == f"error: the disk: the reason: {remedy}, then run again\n"


@pytest.mark.parametrize("bug", [KeyError("x"), AssertionError("x"), OSError(errno.ENOENT, "x"), ValueError("x")])
def test_bugs_keep_their_traceback(bug: Exception) -> None:
    with pytest.raises(type(bug), match="x"):
        failing(bug)


def test_ctrl_c(capfd: pytest.CaptureFixture[str]) -> None:
    assert failing(KeyboardInterrupt()) == 130
    assert capfd.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize(("mistake", "code"), [("None", 0), ("GalaxyError('a mistake')", 2)])
def test_files_that_are_closed_are_no_error(mistake: str, code: int) -> None:
    text = (
        "import sys; from galaxy_models.cli import run_command; from galaxy_models.errors import GalaxyError\n"
        "def command():\n"
        "    print('words')\n"
        f"    if {mistake}: raise {mistake}\n"
        "    return 0\n"
        "sys.exit(run_command(command))"
    )
    ended = subprocess.run(["sh", "-c", 'exec "$0" -c "$1" >&- 2>&-', sys.executable, text], check=False, timeout=60)
    assert ended.returncode == code


@pytest.mark.parametrize("num_lines", [1, 100_000], ids=["before the only line", "amid many lines"])
def test_a_reader_that_leaves_is_no_error(num_lines: int) -> None:
    code = (
        "import sys; from galaxy_models.cli import run_command\n"
        "def command():\n"
        "    sys.stdin.read()\n"  # until the reader has left
        f"    for i in range({num_lines}): print(i)\n"
        "    return 0\n"
        "sys.exit(run_command(command))"
    )
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, env=buffered) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.close()
        writer.stdin.close()
        assert writer.stderr.read() == b""
    assert writer.returncode == 1
