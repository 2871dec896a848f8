"""A worker that falls silent without a word, in a whole search: its trial goes on in another."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from blobs import SLOW_EPOCHS, SPACE, start

from search.study import load_studies

SILENCE_S = 4.0
IMPATIENT = f"""
if "search.run" in sys.orig_argv:
    import search.watch
    search.watch.SILENCE_S = {SILENCE_S}
"""


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A Ray of this machine that is none of the search's own; its address."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_EPOCHS + IMPATIENT)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=10**8)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


def test_the_trial_of_a_worker_that_falls_silent_goes_on_in_another(survey: Path, tmp_path: Path, cluster: str) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    words = ("--space", "one.py", "--data", str(survey), "--name", "a", "--num-trials", "1", "--max-epochs", "200")
    process = start(tmp_path, *words, "--address", cluster, "--max-restarts", "1")
    run_dir = tmp_path / "runs" / "a"

    def epochs() -> int:
        studies = load_studies(run_dir) if (run_dir / "study.journal").is_file() else {}
        trials = studies["one"].get_trials() if studies else []
        return len(trials[0].intermediate_values) if trials else 0

    def wait(until: int) -> None:
        deadline = time.monotonic() + 120
        while epochs() < until:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)

    wait(until=2)
    # It keeps its connections, and answers nothing: to Ray it is alive.
    (worker,) = (one for one in psutil.Process().children(recursive=True) if "Trainable" in "".join(one.cmdline()))
    worker.send_signal(signal.SIGSTOP)
    time.sleep(0.5)
    known = epochs()
    wait(until=known + 2)
    process.kill()
    out, err = process.communicate()
    # The last: on a busy machine a worker may be silent for so long while it starts.
    *_, line = (line for line in out.splitlines() if "trial 0:" in line)
    found = re.fullmatch(
        r"one trial 0: no sign of life from its worker on node \S+ \(.+\) for (\d+) s; it goes on after epoch (\d+)",
        line,
    )
    assert found, (out, err)
    assert SILENCE_S <= int(found[1]) <= 2 * SILENCE_S
    assert int(found[2]) == known
    assert not psutil.pid_exists(worker.pid)
