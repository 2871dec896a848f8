"""Population based training as a user starts it, killed on the way; what it found can be trained from scratch."""

import time
from collections import Counter
from pathlib import Path

from blobs import SPACE, run, start
from optuna.trial import FrozenTrial

from galaxy_models.config import TrainConfig
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData
from search.entry import BRANCHED_AFTER, PARENT
from search.journal import JOURNAL
from search.study import load_studies


def course(trials: list[FrozenTrial], trial: FrozenTrial) -> dict[int, float]:
    """Validation NLL by epoch of a trial, that of its forerunners until it began included."""
    number = trial.user_attrs.get(PARENT)
    after = trial.user_attrs.get(BRANCHED_AFTER, 0)
    before = {} if number is None else course(trials, trials[number])
    return {epoch: value for epoch, value in before.items() if epoch <= after} | trial.intermediate_values


def test_a_population_that_was_killed_goes_on_and_its_trials_can_be_trained_from_scratch(
    survey: Path, tmp_path: Path
) -> None:
    (tmp_path / "one.py").write_text(SPACE.replace("trial.number == 5", "False"))
    words = ("--scheduler", "pbt", "--num-trials", "4", "--max-epochs", "4", "--final-seeds", "1")
    process = start(tmp_path, "--space", "one.py", "--data", str(survey), "--name", "pbt", *words)
    run_dir = tmp_path / "runs" / "pbt"
    deadline = time.monotonic() + 150
    # In the midst of the third generation.
    while not (run_dir / JOURNAL).exists() or (run_dir / JOURNAL).read_bytes().count(b'"epoch:') < 9:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.communicate()
    code, out, err = run(tmp_path, "--resume", str(run_dir))
    assert code == 0, err
    assert "stopping pbt: after each epoch new trials go on from the best quarter in place of the worst quarter" in out
    assert "replaced after epoch 3 by trial 6, which goes on from " in out

    trials = load_studies(run_dir)["one"].get_trials()
    assert Counter(trial.state.name for trial in trials) == {"COMPLETE": 4, "PRUNED": 3}
    assert sum(len(trial.intermediate_values) for trial in trials) == 4 * 4
    found = max(trials, key=lambda trial: (len(trial.user_attrs["config"].get("changes", ())), trial.number))
    config = TrainConfig.from_dict(found.user_attrs["config"])
    assert config.changes
    trainer = Trainer(config, SurveyData(survey), runtime=Runtime(threads=1))
    expected = course(trials, found)
    assert {epoch: trainer.run_epoch()["val_nll"] for epoch in sorted(expected)} == expected
