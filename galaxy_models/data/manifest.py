"""The manifest of a converted survey: what its shards hold, how they were made, and how to tell them unaltered."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

from galaxy_models.errors import ConfigError, ManifestError, ShardError
from galaxy_models.task import Task

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
SPLIT_NAMES = ("train", "val", "test")

_REMEDY = "convert the survey again, or restore the file"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def file_digest(path: Path) -> str:
    """Digest of a file's content, as `sha256:` and 64 hexadecimal digits."""
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its name inside the survey's folder, and what tells that it is whole.

    Attributes:
        file: plain file name, such as `train-00000.arrow`.
        num_rows: galaxies in the shard.
        num_bytes: size of the file.
        digest: SHA-256 of the file, as written by `file_digest`.
    """

    file: str
    num_rows: int
    num_bytes: int
    digest: str

    def locate(self, directory: Path) -> Path:
        """Path of the shard, once it is known to be there and of the listed size.

        Raises:
            ShardError: the file is missing or of another size.
        """
        path = directory / self.file
        if not path.is_file():
            raise ShardError(f"shard {path}: no such file, the manifest lists {self.num_rows:,} rows in it: {_REMEDY}")
        num_bytes = path.stat().st_size
        if num_bytes != self.num_bytes:
            raise ShardError(f"shard {path}: {num_bytes:,} bytes, manifest says {self.num_bytes:,}: {_REMEDY}")
        return path


@dataclass(frozen=True)
class SplitEntry:
    """One split: its shards in order.

    Attributes:
        num_rows: galaxies in the split.
        shards: the shards, whose rows follow one another.
        class_counts: galaxies of each class, in the order of the task's names; empty for votes.
    """

    num_rows: int
    shards: tuple[ShardEntry, ...]
    class_counts: tuple[int, ...]


@dataclass(frozen=True)
class Manifest:
    """What a folder of shards holds.

    Attributes:
        schema_version: layout of the manifest and the shards; this code reads `SCHEMA_VERSION`.
        survey: the survey's name.
        simulated: whether the galaxies were drawn rather than observed.
        task: the answers that each galaxy's target gives.
        px: side of the stored images, in pixels.
        splits: `train`, `val` and `test`; a split may be empty.
        rejected: images that could not be read.
        left_out: galaxies that meet no rule of the class recipe.
        made_by: how the shards were made, in plain JSON types.
    """

    schema_version: int
    survey: str
    simulated: bool
    task: Task
    px: int
    splits: dict[str, SplitEntry]
    rejected: int
    left_out: int
    made_by: dict[str, Any]

    @property
    def digest(self) -> str:
        """Identity of the survey: SHA-256 over its task and the digests of its shards."""
        shards = {name: [shard.digest for shard in split.shards] for name, split in self.splits.items()}
        text = json.dumps({"task": asdict(self.task), "shards": shards}, sort_keys=True)
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def num_repeated_names(self) -> int:
        """File names that the survey's own split has in several parts, each taken as another galaxy."""
        options = self.made_by.get("options")
        found: Any = options.get("num_repeated_names") if isinstance(options, Mapping) else None
        return int(found) if _is_count(found) else 0

    def write(self, directory: Path | str) -> None:
        """Write `manifest.json` in one step, so that a folder with a manifest is always complete.

        Args:
            directory: the folder that already holds the shards.
        """
        target = Path(directory) / MANIFEST_NAME
        partial = target.with_name(f".{MANIFEST_NAME}.partial")
        with partial.open("w", encoding="utf-8") as file:
            json.dump(asdict(self), file, indent=2, allow_nan=False)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        partial.replace(target)

    @classmethod
    def load(cls, directory: Path | str) -> "Manifest":
        """Read the manifest of a folder of shards.

        Raises:
            ManifestError: there is none, it is damaged, or of another schema version.
        """
        path = Path(directory) / MANIFEST_NAME
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            raise ManifestError(
                f"{directory}: found no {MANIFEST_NAME}, expected a folder of shards: "
                "make one with python -m galaxy_models.data.convert"
            ) from None
        except ValueError as error:
            raise ManifestError(f"{path}: found malformed JSON ({error}), expected a manifest: {_REMEDY}") from None
        return _Parser(path).manifest(values)

    def verify(self, directory: Path | str, *, splits: Iterable[str] = SPLIT_NAMES) -> None:
        """Read shards and compare the size and SHA-256 of each with the manifest's.

        Args:
            directory: the folder that holds them.
            splits: whose shards; those that nobody is going to read can be spared.

        Raises:
            ShardError: a shard is missing, truncated or altered.
        """
        for name in splits:
            for shard in self.splits[name].shards:
                path = shard.locate(Path(directory))
                found = file_digest(path)
                if found != shard.digest:
                    raise ShardError(f"shard {path}: digest {found}, manifest says {shard.digest}: {_REMEDY}")


def _is_count(value: Any) -> bool:
    # A bool is an int to Python, not to a reader of the manifest.
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True)
class _Parser:
    """Turns JSON into a Manifest, naming the key that is wrong."""

    path: Path

    def fail(self, where: str, found: object, expected: str) -> ManifestError:
        return ManifestError(f"{self.path}: {where}: found {found!r}, expected {expected}: {_REMEDY}")

    def get(self, values: object, where: str, key: str, kind: type) -> Any:
        if not isinstance(values, Mapping):
            raise self.fail(where or "top level", values, "an object")
        place = f"{where}.{key}" if where else key
        if key not in values:
            raise ManifestError(f"{self.path}: found no key {place!r}, expected one: {_REMEDY}")
        if not isinstance(values[key], kind):
            raise self.fail(place, values[key], f"a {kind.__name__}")
        return values[key]

    def count(self, values: object, where: str, key: str) -> int:
        value = self.get(values, where, key, object)
        if not _is_count(value):
            raise self.fail(f"{where}.{key}" if where else key, value, "a whole number, 0 or more")
        return int(value)

    def manifest(self, values: object) -> Manifest:
        version = self.count(values, "", "schema_version")
        if version != SCHEMA_VERSION:
            raise ManifestError(
                f"{self.path}: found schema version {version}, expected {SCHEMA_VERSION}: "
                "convert the survey again with this version of galaxy_models"
            )
        task = self.task(self.get(values, "", "task", dict))
        splits = self.get(values, "", "splits", dict)
        if set(splits) != set(SPLIT_NAMES):
            raise self.fail("splits", sorted(splits), f"{', '.join(SPLIT_NAMES)}")
        px = self.count(values, "", "px")
        if px == 0:
            raise self.fail("px", px, "at least 1")
        return Manifest(
            schema_version=version,
            survey=self.get(values, "", "survey", str),
            simulated=self.get(values, "", "simulated", bool),
            task=task,
            px=px,
            splits={name: self.split(splits, name, task) for name in SPLIT_NAMES},
            rejected=self.count(values, "", "rejected"),
            left_out=self.count(values, "", "left_out"),
            made_by=self.get(values, "", "made_by", dict),
        )

    def task(self, values: dict[str, Any]) -> Task:
        pairs = self.get(values, "task", "mirror_pairs", list)
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise self.fail("task.mirror_pairs", pairs, "pairs of class names")
        names = self.get(values, "task", "names", list)
        if not all(isinstance(name, str) for name in names):
            raise self.fail("task.names", names, "a list of names")
        try:
            return Task(
                kind=self.get(values, "task", "kind", str),
                names=tuple(names),
                mirror_pairs=cast(tuple[tuple[str, str], ...], tuple(tuple(pair) for pair in pairs)),
            )
        except ConfigError as error:
            raise ManifestError(f"{self.path}: {error}: {_REMEDY}") from None

    def split(self, splits: dict[str, Any], name: str, task: Task) -> SplitEntry:
        where = f"splits.{name}"
        values = self.get(splits, "splits", name, dict)
        listed = self.get(values, where, "shards", list)
        shards = tuple(self.shard(shard, f"{where}.shards[{i}]") for i, shard in enumerate(listed))
        num_rows = self.count(values, where, "num_rows")
        if num_rows != sum(shard.num_rows for shard in shards):
            raise self.fail(f"{where}.num_rows", num_rows, f"its shards' {sum(shard.num_rows for shard in shards)}")
        counts = self.get(values, where, "class_counts", list)
        if not all(_is_count(count) for count in counts):
            raise self.fail(f"{where}.class_counts", counts, "whole numbers, 0 or more")
        expected = len(task.names) if task.kind == "classes" else 0
        if len(counts) != expected or (expected and sum(counts) != num_rows):
            raise self.fail(f"{where}.class_counts", counts, f"{expected} counts that add up to {num_rows}")
        return SplitEntry(num_rows=num_rows, shards=shards, class_counts=tuple(counts))

    def shard(self, values: object, where: str) -> ShardEntry:
        file = self.get(values, where, "file", str)
        # A manifest may come from elsewhere: it must not make us read outside its own folder.
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", file):
            raise self.fail(f"{where}.file", file, "a plain file name inside the manifest's folder")
        digest = self.get(values, where, "digest", str)
        if not _DIGEST.fullmatch(digest):
            raise self.fail(f"{where}.digest", digest, "sha256: and 64 hexadecimal digits")
        return ShardEntry(
            file=file,
            num_rows=self.count(values, where, "num_rows"),
            num_bytes=self.count(values, where, "num_bytes"),
            digest=digest,
        )
