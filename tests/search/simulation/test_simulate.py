"""`python -m search.simulate` as a user starts it."""

import re
from pathlib import Path

import pandas as pd
import pytest
from few_curves import table

from galaxy_models.errors import MachineError
from search.errors import RunError
from search.ledger import Ledger
from search.simulate import main

CURVES = {str(x): [abs(x - 20) / 40 + 1 / epoch for epoch in range(1, 4)] for x in range(40)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    table(CURVES).to_parquet(tmp_path / "curves.parquet")
    return tmp_path / "curves.parquet"


def test_each_setting_has_a_row_and_each_search_too(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--workers", "1", "5", "--sampler", "tpe", "random", "--scheduler", "asha", "none", "--stock"]
    out = path.parent / "out"
    assert main([str(path), *words, "--seeds", "3", "--num-trials", "12", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "40 configurations of 1 parameters, up to 3 epochs; best value 0.333333" in text
    assert len(re.findall(r"│ (?:ours|stock) (?:tpe|random) (?:asha|none) ", text)) == 2 * 16
    searches = pd.read_parquet(out / "simulations.parquet")
    assert len(searches) == 16 * 3
    assert set(searches[searches["scheduler"] == "none"]["num_epochs"]) == {36}
    regret = pd.read_parquet(out / "regret.parquet")
    assert (regret.groupby(["stack", "sampler", "scheduler", "workers", "seed"])["regret"].diff().dropna() <= 0).all()
    # More workers take less time for the same epochs.
    times = searches[searches["scheduler"] == "none"].groupby("workers")["elapsed_s"].max()
    assert (times[1], times[5]) == (36, 9)


def test_a_text_table_with_names_of_its_own_is_replayed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"config": "learner", "epoch": "anchor", "seconds": "train_s", "value": "loss"}
    table(CURVES).rename(columns=names).to_csv(path.with_name("other.csv"), index=False)
    words = ["--config-column", "learner", "--epoch-column", "anchor", "--seconds-column", "train_s"]
    found = []
    for given in ([str(path)], [str(path.with_name("other.csv")), *words, "--objective", "loss"]):
        assert main([*given, "--seeds", "2", "--num-trials", "6", "--out", str(path.parent / "out")]) == 0
        found.append(pd.read_parquet(path.parent / "out" / "regret.parquet"))
    assert "40 configurations of 1 parameters, up to 3 epochs; best loss 0.333333" in capsys.readouterr().out
    pd.testing.assert_frame_equal(*found)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--time-budget", "0.5s"], "--time-budget: got 0.5 s, expected at least the 1 s of the slowest first epoch"),
        (["--objective", "loss"], "no column 'loss'"),
        (["--params", "y"], "no column 'y'"),
        (["--epoch-column", "step"], "no column 'step' among config, epoch, value, seconds, x, expected config, step"),
    ],
)
def test_a_mistake_ends_with_2_and_words(
    words: list[str], message: str, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(path), *words]) == 2
    captured = capsys.readouterr()
    assert message in " ".join((captured.err + captured.out).split())
    assert "Traceback" not in captured.err


@pytest.mark.parametrize("code", [1, 2])
def test_a_fault_in_a_simulated_search_ends_the_command_with_its_code_and_words(
    code: int, path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(*_: object) -> bool:
        raise {1: MachineError, 2: RunError}[code]("planted")

    monkeypatch.setattr(Ledger, "report", report)
    assert main([str(path), "--seeds", "1", "--num-trials", "5"]) == code
    captured = capsys.readouterr()
    assert captured.err == "error: planted\n"
    assert "What a search took" not in captured.out
