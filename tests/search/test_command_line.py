"""The command line of a search, of a new run and of one that goes on."""

import json
from pathlib import Path
from typing import Any

import pytest

from search.command_line import parse_options
from search.errors import RunError
from search.options import SearchOptions
from search.run import main
from search.run_dir import SCHEMA_VERSION


def options(*words: str) -> SearchOptions:
    return parse_options(["--space", "spaces/cnn.py", *words], "python -m search.run ...")


def test_what_is_not_typed_has_the_default_of_the_options() -> None:
    assert options() == SearchOptions(spaces=(Path("spaces/cnn.py"),), command="python -m search.run ...")


def test_every_option_arrives() -> None:
    words = (
        "--num-trials 7 --max-epochs 8 --time-budget 2m --epoch-budget 9 --gpu-hours 0.5 --patience 3 --terminator "
        "--sampler gp --scheduler median --share race --min-complete 4 --finalists 2 --repeats 3 --warm-start w "
        "--final-seeds 5 --keep-top 6 --cpus-per-trial 2 --gpus-per-trial 0.5 --max-concurrent 3 --precision float32 "
        "--trial-timeout 90 --max-restarts 1 --objective accuracy --fix lr=0.1 --fix norm=batch --seed 5 --name n "
        "--runs-dir r --weights-dir wd --price-per-hour 1.5 --data d --space spaces/vgg16.py"
    )
    assert options(*words.split()) == SearchOptions(
        spaces=(Path("spaces/cnn.py"), Path("spaces/vgg16.py")), data=Path("d"), num_trials=7, max_epochs=8,
        time_budget_s=120.0, epoch_budget=9, gpu_hours=0.5, objective="accuracy",
        fixed={"lr": 0.1, "norm": "batch"}, sampler="gp", scheduler="median", share="race", patience=3,
        terminator=True, repeats=3, num_finalists=2, min_complete=4, warm_start=Path("w"), final_seeds=5, seed=5,
        name="n", runs_dir=Path("r"), cpus_per_trial=2, gpus_per_trial=0.5, max_concurrent=3, precision="float32",
        weights_dir=Path("wd"), trial_timeout_s=90.0, max_restarts=1, keep_top=6, price_per_hour=1.5,
        command="python -m search.run ...",
    )  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [
        ("--num-trials", "0"), ("--num-trials", "+0"), ("--max-epochs", "-1"), ("--max-epochs", "0"),
        ("--time-budget", "soon"), ("--time-budget", "0"), ("--epoch-budget", "0"), ("--patience", "0"),
        ("--gpu-hours", "-1"), ("--seed", "x"), ("--name", "../elsewhere"), ("--gpus-per-trial", "1.5"),
        ("--precision", "float8"), ("--sampler", "genetic"), ("--scheduler", "later"), ("--share", "fair"),
        ("--finalists", "0"), ("--no-such-option",),
    ],
)  # fmt: skip
def test_wrong_values_end_with_code_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        options(*words)
    assert words[0] in capsys.readouterr().err


def test_neither_a_space_nor_a_run_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse_options([], "")
    assert "--space or --resume is needed" in capsys.readouterr().err


CONTRADICTIONS = [
    (("--space", "elsewhere/cnn.py"), "--space: got cnn, cnn, expected files of different names"),
    (("--fix", "lr=1", "--fix", "lr=2"), r"--fix: got \['lr', 'lr'\], expected each parameter once"),
    (("--scheduler", "pbt", "--sampler", "grid"), "--sampler grid: got --scheduler pbt, which leaves the grid"),
    (("--scheduler", "pbt", "--share", "race"), "--share race: got --scheduler pbt, whose trials all end together"),
    (("--scheduler", "pbt", "--patience", "3"), "--patience: got --scheduler pbt, whose trials all end together"),
    (("--scheduler", "pbt", "--num-trials", "1"), "--num-trials: got 1 with --scheduler pbt, expected at least 2"),
    (("--scheduler", "pbt", "--terminator"), "--terminator: got --scheduler pbt, whose trials all end together"),
    (("--gpu-hours", "0"), "--gpu-hours: got 0, expected more"),
    (("--min-complete", "3"), "--min-complete: got no --share race with it"),
    (("--accept-changes",), "--accept-changes: got no --resume with it"),
    (("--num-trials", "+5"), r"--num-trials: got \+5 for a new run, expected a plain number: \+ goes with --resume"),
]


@pytest.mark.parametrize(("words", "message"), CONTRADICTIONS)
def test_options_that_contradict_each_other(words: tuple[str, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        options(*words)


def test_a_contradiction_is_one_line_and_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--space", "spaces/cnn.py", "--gpu-hours", "0"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: --gpu-hours: ")
    assert len(err.splitlines()) == 1


def begun(folder: Path, **values: Any) -> Path:
    """A run's folder as far as the command line reads it."""
    (folder / "here.py").touch()
    began = SearchOptions(
        spaces=(folder / "here.py", Path("gone/other.py")), num_trials=10, max_epochs=9, epoch_budget=50, seed=3
    )
    run_dir = folder / "run"
    run_dir.mkdir()
    record: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "options": began.to_json()}
    record |= {"survey": {}, "spaces": {}, "code": {}, "sessions": []}
    (run_dir / "run.json").write_text(json.dumps({**record, **values}))
    return run_dir


def resumed(run_dir: Path, *words: str) -> SearchOptions:
    return parse_options(["--resume", str(run_dir), *words], "again")


def test_a_run_goes_on_as_it_began(tmp_path: Path) -> None:
    run_dir = begun(tmp_path)
    options = resumed(run_dir)
    assert (options.num_trials, options.max_epochs, options.epoch_budget, options.seed) == (10, 9, 50, 3)
    assert (options.resume, options.command, options.accept_changes) == (run_dir, "again", False)
    # A space file that is gone is the run's own copy.
    assert options.spaces == (tmp_path / "here.py", run_dir / "spaces" / "other.py")


def test_bounds_may_be_raised_and_spaces_added_or_moved(tmp_path: Path) -> None:
    run_dir = begun(tmp_path)
    options = resumed(
        run_dir, "--num-trials", "+5", "--max-epochs", "27", "--epoch-budget", "90", "--accept-changes",
        "--space", "new/third.py", "--space", "new/other.py",
    )  # fmt: skip
    assert (options.num_trials, options.max_epochs, options.epoch_budget) == (15, 27, 90)
    assert options.accept_changes
    assert options.spaces == (tmp_path / "here.py", Path("new/other.py"), Path("new/third.py"))
    assert resumed(run_dir, "--num-trials", "12").num_trials == 12


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--num-trials", "9"), "--num-trials: got 9, expected at least the 10 that the run began with"),
        (("--max-epochs", "3"), "--max-epochs: got 3, expected at least the run's 9"),
        (("--seed", "3"), "--seed: a run keeps what it began with"),
        (("--warm-start", "w"), "--warm-start: a run keeps what it began with"),
        (("--storage", "there"), "--storage: got there, expected a URI such as s3://bucket/runs: for a folder that"),
        *(
            ((f"--{name}", value), f"--{name}: a run keeps what it began with")
            for name, value in {
                "objective": "f1", "fix": "lr=1", "sampler": "gp", "scheduler": "none", "share": "race",
                "repeats": "2", "name": "n", "runs-dir": "r", "precision": "float32",
            }.items()
        ),
    ],
)  # fmt: skip
def test_what_a_run_began_with_is_kept(tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(RunError, match=message):
        resumed(begun(tmp_path), *words)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.unlink(), r"no run\.json in it, expected a run's folder"),
        (lambda path: path.write_text("{"), "expected a run's record: copy the run's folder again, whole"),
        (lambda path: path.write_text("[]"), "expected a run's record: copy the run's folder again, whole"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "expected a run's record: copy the run's folder"),
        (
            lambda path: path.write_text(path.read_text().replace('"sessions"', '"other"')),
            "no 'sessions' in it, expected a whole record: copy the run's folder again, whole",
        ),
    ],
)
def test_no_run_and_half_a_run_end_with_code_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: Any, message: str
) -> None:
    run_dir = begun(tmp_path)
    break_it(run_dir / "run.json")
    with pytest.raises(RunError, match=message):
        resumed(run_dir)
    assert main(["--resume", str(run_dir)]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize("version", [SCHEMA_VERSION + 1, 0, "1", None])
def test_a_record_of_another_version_is_refused(tmp_path: Path, version: Any) -> None:
    with pytest.raises(RunError, match=rf"schema version {version!r}, expected {SCHEMA_VERSION}: use the version of"):
        resumed(begun(tmp_path, schema_version=version))


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"nowhere: no run\.json in it"):
        resumed(tmp_path / "nowhere")


def test_a_search_on_a_cluster_goes_on_on_one_machine(tmp_path: Path) -> None:
    assert options("--address", "auto").address == "auto"
    assert options("--address", "local").address is None
    began = SearchOptions(spaces=(Path("gone/other.py"),), address="auto").to_json()
    run_dir = begun(tmp_path, options=began)
    assert resumed(run_dir).address == "auto"
    assert resumed(run_dir, "--address", "local").address is None


def test_what_a_cluster_was_given_is_in_its_storage(tmp_path: Path) -> None:
    root, digest = (tmp_path / "kept").as_uri(), "sha256:0123456789abcdef0"
    began = SearchOptions(spaces=(Path("gone/other.py"),), address="auto", storage=root, data=Path("gone"))
    run_dir = begun(tmp_path, options=began.to_json(), survey={"digest": digest})
    assert resumed(run_dir).data == f"{root}/_shards/0123456789abcdef"
    assert resumed(run_dir, "--address", "local").data == f"{root}/_shards/0123456789abcdef"
    assert resumed(run_dir, "--data", str(tmp_path)).data == tmp_path


def test_a_run_goes_on_where_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_dir, root = begun(tmp_path), (tmp_path / "kept").as_uri()
    with pytest.raises(RunError, match=r"kept/run: no run\.json in it, expected the folder of a run in a storage"):
        parse_options(["--resume", f"{root}/run"], "again")
    (tmp_path / "kept" / "run").mkdir(parents=True)
    (tmp_path / "kept" / "run" / "run.json").write_bytes((run_dir / "run.json").read_bytes())
    here = parse_options(["--resume", f"{root}/run"], "again")
    assert (here.storage, here.resume) == (root, Path("runs/run"))
    words = "--storage: got file:///x with --resume .*/kept/run, expected none, since the run goes on where it is"
    with pytest.raises(RunError, match=words):
        parse_options(["--resume", f"{root}/run", "--storage", "file:///x"], "again")
