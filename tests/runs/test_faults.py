"""Faults in trials, in a whole search."""

import os
from pathlib import Path

from blobs import SPACE, run
from optuna.trial import TrialState

from search.study import load_studies


def test_a_bug_in_every_trial_ends_the_search_after_three_with_code_1(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text(SPACE)
    # Python imports this at its start: the workers' training loop is broken, the driver's is not.
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "if any('default_worker' in word for word in sys.orig_argv):\n"
        "    import galaxy_models.training.loop as loop\n"
        "    def broken(self):\n"
        "        raise ZeroDivisionError('planted')\n"
        "    loop.Trainer.run_epoch = broken\n"
    )
    path = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    words = ("--space", "one.py", "--data", str(survey), "--name", "bug")
    code, _, err = run(tmp_path, *words, PYTHONPATH=path)
    assert code == 1, err
    assert "ZeroDivisionError: planted" in err
    assert "Traceback" not in err
    trials = load_studies(tmp_path / "runs" / "bug")["one"].get_trials()
    assert len([one for one in trials if one.state == TrialState.FAIL]) <= 4
    assert (tmp_path / "runs" / "bug" / "report" / "report.html").is_file()
    logs = sorted((tmp_path / "runs" / "bug" / "errors").iterdir())
    assert "Traceback" in logs[0].read_text()
