"""A survey in a storage is fetched once by each machine, whole and unaltered, or not at all."""

import json
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from blobs import write_survey
from odd_storage import OddStorage

from galaxy_models.data.manifest import MANIFEST_NAME, Manifest
from search import shards as module
from search.errors import RunError, StorageError
from search.places import CACHE_VARIABLE
from search.shards import Shards, fetch_shards, share_shards, shared_uri
from search.storage import Storage

ALTERED = "val-00000.arrow"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_survey(tmp_path_factory.mktemp("survey"))


@pytest.fixture
def survey(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "survey"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache" / "shards"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def folders(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.is_dir())


def test_what_is_shared_is_fetched(survey: Path, tmp_path: Path) -> None:
    root, digest = Storage((tmp_path / "kept").as_uri()), Manifest.load(survey).digest
    uri = share_shards(survey, Manifest.load(survey), root)
    assert uri == shared_uri(root.uri, digest)
    folder = fetch_shards(uri, digest)
    assert contents(folder) == contents(survey)
    assert Manifest.load(folder).digest == digest
    assert fetch_shards(uri) == folder
    assert Shards(str(survey), digest, uri).local() == folder
    assert Shards.at(survey).local() == survey.resolve()


def test_what_is_there_is_not_brought_again(survey: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = OddStorage(tmp_path / "kept")
    uri = share_shards(survey, Manifest.load(survey), root)
    written: list[str] = []
    plain_write = Storage.write

    def write(self: Storage, name: str, data: bytes) -> None:
        written.append(name)
        plain_write(self, name, data)

    monkeypatch.setattr(Storage, "write", write)
    share_shards(survey, Manifest.load(survey), root)
    assert written == []
    # As a driver leaves it that was killed while it brought them: the manifest comes last.
    Storage(uri).remove(MANIFEST_NAME)
    Storage(uri).remove(ALTERED)
    share_shards(survey, Manifest.load(survey), root)
    assert written == [ALTERED, MANIFEST_NAME]


def _fetch(uri: str, digest: str, start: Callable[[], int], answers: "multiprocessing.Queue[tuple[str, int]]") -> None:
    num = 0
    plain_get = Storage.get

    def get(self: Storage, name: str, path: Path) -> bool:
        nonlocal num
        num += 1
        return plain_get(self, name, path)

    Storage.get = get  # type: ignore[method-assign]
    start()
    folder = fetch_shards(uri, digest)
    Manifest.load(folder).verify(folder)
    answers.put((str(folder), num))


def test_several_processes_fetch_it_once(survey: Path, tmp_path: Path) -> None:
    uri = share_shards(survey, Manifest.load(survey), Storage((tmp_path / "kept").as_uri()))
    context = multiprocessing.get_context("spawn")
    barrier, answers = context.Barrier(3), context.Queue()
    arguments = (uri, Manifest.load(survey).digest, barrier.wait, answers)
    processes = [context.Process(target=_fetch, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert len({folder for folder, _ in found}) == 1
    num_files = sum(len(split.shards) for split in Manifest.load(survey).splits.values()) + 1
    assert sorted(num for _, num in found) == [0, 0, num_files]


def test_what_is_here_needs_no_storage(survey: Path, tmp_path: Path) -> None:
    uri = share_shards(survey, Manifest.load(survey), Storage((tmp_path / "kept").as_uri()))
    folder = fetch_shards(uri, Manifest.load(survey).digest)
    assert fetch_shards("abc://gone", Manifest.load(survey).digest) == folder


def _alter(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (_alter, r"shard file://.*/val-00000\.arrow: digest .*, manifest says .*: convert the survey again"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"val-00000\.arrow: .* bytes, manifest says"),
        (Path.unlink, r"no val-00000\.arrow in it, expected what the manifest lists: upload it again"),
    ],
)
def test_a_shard_that_is_not_as_listed(survey: Path, cache: Path, harm: Callable[[Path], object], words: str) -> None:
    harm(survey / ALTERED)
    uri = survey.as_uri()
    # No storage that could be waited for would mend it.
    with pytest.raises(RunError, match=words) as caught:
        fetch_shards(uri)
    assert str(cache) not in str(caught.value)
    assert folders(cache) == []


def test_another_survey_than_the_search_began_with(survey: Path, cache: Path) -> None:
    found, began = Manifest.load(survey).digest, "sha256:" + "0" * 64
    words = rf"the digest is {found[:19]}, expected {began[:19]}: the survey has changed since the search began"
    with pytest.raises(RunError, match=words):
        fetch_shards(survey.as_uri(), began)
    assert folders(cache) == []


def test_no_survey_and_a_damaged_one(survey: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match=r"empty: no manifest\.json in it, expected a folder of shards: check --data"):
        fetch_shards((tmp_path / "empty").as_uri())
    path = survey / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"px": 0}))
    with pytest.raises(RunError, match=rf"{survey.as_uri()}/manifest\.json: px: found 0, expected at least 1"):
        fetch_shards(survey.as_uri())


def test_a_storage_that_fails_midway_is_gone_on_with(
    survey: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd, got = OddStorage(survey), []
    plain_get = odd.get

    def get(name: str, path: Path) -> bool:
        if len(got) == 2:
            odd.failures = 1
        found = plain_get(name, path)
        got.append(name)
        return found

    monkeypatch.setattr(odd, "get", get)
    monkeypatch.setattr(module, "Storage", lambda uri: odd)
    with pytest.raises(StorageError, match="away"):
        fetch_shards(odd.uri, Manifest.load(survey).digest)
    assert not (cache / Manifest.load(survey).digest[7:23]).exists()
    odd.failures, fetched = 0, [*got, None]
    got.append("")
    folder = fetch_shards(odd.uri, Manifest.load(survey).digest)
    assert contents(folder) == contents(survey)
    # What had arrived is not fetched twice.
    assert set(got[len(fetched) - 1 :]).isdisjoint(fetched[:2])
