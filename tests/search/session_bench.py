"""A run's folder and its record, for tests of sessions."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from two_spaces import write_space

from galaxy_models.data.manifest import Manifest, ShardEntry, SplitEntry
from galaxy_models.task import Task
from search.experiment import Job
from search.options import Places, SearchOptions
from search.preflight import Plan
from search.run_dir import load_record
from search.session import Session
from search.shards import Shards


class Bench:
    """A run's folder, and what is asked of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.space = write_space(folder, "a")
        self.options = SearchOptions(spaces=(self.space.path,), command="first")
        self.manifest = make_manifest("0")
        self.fixed: dict[str, Any] = {}

    @property
    def plan(self) -> Plan:
        return Plan(
            spaces={"a": self.space}, fixed={"a": self.fixed}, parameters=["lr"], data=self.folder,
            manifest=self.manifest, metric="nll", direction="min", queues={"a": []}, distributions={"a": {}},
        )  # fmt: skip

    def begin(self, **options: Any) -> Session:
        self.run_dir.mkdir()
        session = Session.begin(self.run_dir, replace(self.options, **options), self.plan, Console(quiet=True))
        (self.run_dir / "study.journal").write_bytes(b"12345678")
        return session

    def go_on(self, *, accept: bool = False) -> Session:
        options = replace(self.options, resume=self.run_dir, accept_changes=accept, command="second")
        return Session.begin(self.run_dir, options, self.plan, Console(quiet=True))

    def describe(self, session: Session) -> None:
        shards = Shards(str(self.folder), "sha256:0")
        session.describe(Job(self.options, self.plan, Places(1, 0.0, 1), self.run_dir, shards), baseline_rmse=None)

    @property
    def record(self) -> dict[str, Any]:
        return load_record(self.run_dir)


def make_manifest(digit: str) -> Manifest:
    shard = ShardEntry("train-00000.arrow", 4, 100, "sha256:" + digit * 64)
    splits = {name: SplitEntry(4, (shard,), (2, 2)) for name in ("train", "val", "test")}
    return Manifest(1, "my survey", False, Task("classes", ("x", "y")), 64, splits, 0, 0, {})
