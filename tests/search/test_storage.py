"""A storage keeps whole files, and says in one message what it refuses."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from refusing_bucket import BUCKET, RefusingBucket
from two_spaces import write_space

from search.errors import StorageError
from search.preflight import check_storage
from search.storage import Storage, child_uri, is_uri, parent


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return Storage((tmp_path / "kept").as_uri())


def test_what_is_kept_is_found_again(storage: Storage, tmp_path: Path) -> None:
    assert storage.names() == {}
    assert storage.read("a/b") is None
    assert not storage.get("a/b", tmp_path / "here" / "b")
    storage.write("a/b", b"one")
    storage.write("a/b", b"three")
    (tmp_path / "file").write_bytes(b"four")
    storage.put(tmp_path / "file", "c")
    assert {name: one.num_bytes for name, one in storage.names().items()} == {"a/b": 5, "c": 4}
    assert list(storage.names("a")) == ["a/b"]
    assert storage.found("a/b") == storage.names()["a/b"]
    assert storage.found("a") is storage.found("x") is None
    assert all(abs(one.written_ns / 1e9 - time.time()) < 60 for one in storage.names().values())
    assert storage.child("a").read("b") == b"three"
    assert storage.get("a/b", tmp_path / "here" / "b")
    assert [path.name for path in (tmp_path / "here").iterdir()] == ["b"]
    assert (tmp_path / "here" / "b").read_bytes() == b"three"
    storage.remove("a/b")
    storage.remove("a/b")
    assert list(storage.names()) == ["c"]


def test_who_reads_a_file_that_many_write_finds_it_whole(storage: Storage) -> None:
    contents = [bytes([number]) * 200_000 for number in range(4)]
    storage.write("one", contents[0])
    faults: list[Exception] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(30):
                storage.write("one", content)
        except Exception as error:
            faults.append(error)

    writers = [threading.Thread(target=write, args=(content,)) for content in contents]
    for writer in writers:
        writer.start()
    found = set()
    while any(writer.is_alive() for writer in writers):
        found.add(storage.read("one"))
    assert not faults
    assert found <= set(contents)
    assert list(storage.names()) == ["one"]


def test_a_write_that_breaks_off_leaves_the_file_as_it_was(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write("one", b"whole")
    system, base = storage._place

    class Breaking:
        type_name = "local"
        create_dir, delete_file = system.create_dir, system.delete_file
        open_output_stream = system.open_output_stream

        def move(self, source: str, target: str) -> None:
            raise OSError("the network went away")

    monkeypatch.setitem(vars(storage), "_place", (Breaking(), base))
    with pytest.raises(StorageError, match=r"kept: the network went away, expected a place that can be read and wri"):
        storage.write("one", b"new")
    assert os.listdir(tmp_path / "kept") == ["one"]  # noqa: PTH208
    assert (tmp_path / "kept" / "one").read_bytes() == b"whole"


def test_what_this_machine_refuses_is_not_told_as_the_storages(storage: Storage, tmp_path: Path) -> None:
    storage.write("one", b"x" * 10_000)
    (tmp_path / ".full.partial").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        storage.get("one", tmp_path / "full")
    assert not (tmp_path / "full").exists()


def test_two_searches_may_check_a_storage_at_the_same_time(storage: Storage) -> None:
    faults: list[Exception] = []

    def check() -> None:
        try:
            for _ in range(50):
                storage.check()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=check) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert not faults
    assert storage.names() == {}


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("abc://bucket/runs", "abc://bucket/runs: .*abc"),
        ("file:///dev/null/runs", "file:///dev/null/runs: .*/dev/null"),
    ],
)
def test_a_place_that_is_none(uri: str, words: str) -> None:
    with pytest.raises(StorageError, match=words):
        Storage(uri).check()


def test_names_of_places() -> None:
    assert child_uri("s3://bucket/runs/?region=x", "a") == "s3://bucket/runs/a?region=x"
    assert child_uri("s3://bucket", "a") == "s3://bucket/a"
    assert parent("s3://bucket/runs/a/?region=x") == "s3://bucket/runs?region=x"
    assert parent("s3://bucket/a") == "s3://bucket"
    assert is_uri("s3://bucket")
    assert not is_uri(Path("runs/s3"))


@pytest.fixture
def _no_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.usefixtures("_no_keys")
def test_a_bucket_that_may_be_read_but_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    with RefusingBucket() as server:
        for name, value in (server.environment | {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}).items():
            monkeypatch.setenv(name, value)
        root = f"s3://{BUCKET}/runs"
        assert Storage(root).names() == {}
        with pytest.raises(StorageError, match=rf"{root}: .*ACCESS_DENIED.* expected a place that can be .* written"):
            check_storage(root, "name")


@pytest.mark.usefixtures("_no_keys")
def test_a_search_without_credentials_ends_soon_with_one_message(tmp_path: Path) -> None:
    write_space(tmp_path, "one")
    with RefusingBucket() as server:
        start = time.monotonic()
        ended: Any = subprocess.run(
            [sys.executable, "-m", "search.run", "--space", "one.py", "--storage", f"s3://{BUCKET}/runs"],
            check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60,
            env={**os.environ, **server.environment},
        )  # fmt: skip
        assert time.monotonic() - start < 20  # of which loading torch takes most
        assert ended.returncode == 2
        assert ended.stderr.startswith(f"error: s3://{BUCKET}/runs: ")
        assert "ACCESS_DENIED" in ended.stderr
        assert "check the name, the credentials" in ended.stderr
        assert ended.stderr.count("\n") == 1
        assert {signed for _, signed in server.seen} == {False}
        assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("uri", ["s3://KEY:hidden@bucket/runs", "s3://bucket/runs?secret_key=hidden"])
def test_a_key_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(StorageError, match=r"s3://\.\.\.: a key in the URI, expected none there") as refused:
        Storage(uri)
    assert "hidden" not in str(refused.value)
