"""One search at a time in a folder, and a dead one's lock is nobody's."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from search.errors import RunError
from search.lock import LOCK, RunLock

HOLD = "import sys, time; from pathlib import Path; from search.lock import RunLock\n" + (
    "with RunLock(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)\n"
)


def hold(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_live_search_is_named_and_a_killed_one_holds_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(RunError, match=rf"in use by process {process.pid} on \S+, expected no other search in it"):
            RunLock(tmp_path)
        # Asking did not take the name away.
        assert f"process {process.pid} on" in (tmp_path / LOCK).read_text()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    with RunLock(tmp_path):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_the_folder_is_free_again_after_the_search(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path), pytest.raises(RunError, match=f"in use by process {os.getpid()} on"):
            RunLock(tmp_path)


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_refused_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Any, *_: Any) -> int:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr("search.lock.os.open", refuse)
    with pytest.raises(RunError, match=f"{tmp_path}: {os.strerror(number)}, expected a folder that can be written"):
        RunLock(tmp_path)


def test_no_lock_is_left_on_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No such file or directory, expected a folder that can be written"):
        RunLock(tmp_path / "nowhere")
