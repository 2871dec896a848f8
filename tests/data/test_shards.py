import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from small_survey import CLASSES, VOTES, make_survey

from galaxy_models.data.manifest import Manifest, ShardEntry, file_digest
from galaxy_models.data.shards import SHARD_BYTES, ShardWriter, Split
from galaxy_models.errors import ManifestError, ShardError


def open_train(survey) -> Split:
    return Split.open(survey.directory, survey.manifest, "train")


def gather(split: Split, rows) -> np.ndarray:
    out = np.full((len(rows), split.px, split.px, 3), 77, np.uint8)
    split.gather(np.asarray(rows, np.int64), out)
    return out


@pytest.mark.parametrize("task", [CLASSES, VOTES], ids=["classes", "votes"])
@pytest.mark.parametrize("max_rows", [3, 5, 10, 100])
def test_what_is_written_is_read_back(tmp_path, task, max_rows):
    survey = make_survey(tmp_path, task=task, max_rows=max_rows)
    split = open_train(survey)
    assert len(survey.manifest.splits["train"].shards) == -(-10 // max_rows)
    assert (split.num_rows, split.px) == (10, 8)
    assert split.ids == [f"galaxy-{row}" for row in range(10)]
    np.testing.assert_array_equal(split.targets, survey.targets)
    assert split.targets.dtype == (np.int64 if task is CLASSES else np.float32)
    rows = np.random.default_rng(1).integers(0, 10, 25)
    np.testing.assert_array_equal(gather(split, rows), survey.pixels[rows])


def test_files_are_plain_arrow_that_others_read(tmp_path):
    survey = make_survey(tmp_path)
    files = [shard.file for shard in survey.manifest.splits["train"].shards]
    assert files == ["train-00000.arrow", "train-00001.arrow", "train-00002.arrow"]
    frame = pa.ipc.open_file(str(tmp_path / files[1])).read_pandas()
    assert list(frame.columns) == ["id", "pixels", "label"]
    assert list(frame["label"]) == list(survey.targets[4:8])
    assert frame["pixels"][0] == survey.pixels[4].tobytes()


def test_an_empty_split(tmp_path):
    for task, shape in ((CLASSES, (0,)), (VOTES, (0, 37))):
        survey = make_survey(tmp_path, task=task)
        split = Split.open(tmp_path, survey.manifest, "val")
        assert (split.num_rows, split.ids, split.targets.shape) == (0, [], shape)
        assert gather(split, []).shape == (0, 8, 8, 3)


def test_a_default_shard_is_about_100_mb(tmp_path):
    writer = ShardWriter(tmp_path, "train", px=4096, task=CLASSES)
    pixels = np.zeros((4096, 4096, 3), np.uint8)
    for number in range(3):
        writer.add(f"{number}", pixels, 0)
    shards = writer.close()
    assert [shard.num_rows for shard in shards] == [2, 1]
    assert SHARD_BYTES <= shards[0].num_bytes < SHARD_BYTES + 10_000


def test_pixels_are_read_in_place_from_the_map(tmp_path):
    survey = make_survey(tmp_path)
    split = open_train(survey)
    maps = _mapped_ranges(str(tmp_path))
    assert len(maps) == 3
    for pixels in split._pixels:
        address = np.frombuffer(pixels, np.uint8).ctypes.data
        assert any(start <= address and address + pixels.nbytes <= end for start, end in maps)


def test_a_pickle_carries_the_place_and_not_the_pixels(tmp_path):
    survey = make_survey(tmp_path, px=64)
    split = open_train(survey)
    pickled = pickle.dumps(split)
    assert len(pickled) < survey.pixels[0].nbytes
    copy = pickle.loads(pickled)  # noqa: S301 - made above
    np.testing.assert_array_equal(gather(copy, range(10)), survey.pixels)
    np.testing.assert_array_equal(copy.targets, survey.targets)


@pytest.mark.parametrize("max_rows", [4, 10])
@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_outside_the_split(tmp_path, max_rows, row):
    split = open_train(make_survey(tmp_path, max_rows=max_rows))
    with pytest.raises(IndexError, match=r"rows from .* expected 0 to 9"):
        gather(split, [3, row])


def test_an_unknown_split(tmp_path):
    survey = make_survey(tmp_path)
    with pytest.raises(ManifestError, match="got the split 'valid', expected one of train, val, test"):
        Split.open(tmp_path, survey.manifest, "valid")


def test_a_missing_or_truncated_shard(tmp_path):
    survey = make_survey(tmp_path)
    path = tmp_path / "train-00001.arrow"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ShardError, match=r"train-00001\.arrow: 100 bytes, manifest says [\d,]+: convert"):
        open_train(survey)
    path.unlink()
    with pytest.raises(ShardError, match=r"train-00001\.arrow: no such file, the manifest lists 4 rows in it"):
        open_train(survey)


@pytest.mark.parametrize("place", ["start", "end"])
def test_a_file_that_is_not_arrow(tmp_path, place):
    survey = make_survey(tmp_path)
    path = tmp_path / "train-00000.arrow"
    content = bytearray(path.read_bytes())
    content[slice(0, 300) if place == "start" else slice(-300, None)] = b"\xff" * 300
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"train-00000\.arrow: .+, expected an Arrow IPC file: convert"):
        open_train(survey)


def test_compressed_pixels_are_refused(tmp_path):
    survey = make_survey(tmp_path, px=32)
    path = tmp_path / "train-00000.arrow"
    batch = pa.ipc.open_file(str(path)).get_batch(0)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema, options=options) as writer:
        writer.write_batch(batch)
    with pytest.raises(ShardError, match=r"train-00000\.arrow: compressed pixels, expected uncompressed ones"):
        _open_as_listed(survey, path)


def test_another_number_of_rows(tmp_path):
    survey = make_survey(tmp_path)
    path = tmp_path / "train-00000.arrow"
    _rewrite(path, [pa.ipc.open_file(str(path)).get_batch(0).slice(0, 3)])
    with pytest.raises(ShardError, match=r"train-00000\.arrow: 3 rows, manifest says 4: convert"):
        _open_as_listed(survey, path)


@pytest.mark.parametrize("num_batches", [0, 2])
def test_another_number_of_batches(tmp_path, num_batches):
    survey = make_survey(tmp_path)
    path = tmp_path / "train-00000.arrow"
    batch = pa.ipc.open_file(str(path)).get_batch(0)
    _rewrite(path, [batch.slice(0, 2), batch.slice(2)][:num_batches], batch.schema)
    with pytest.raises(ShardError, match=rf"train-00000\.arrow: {num_batches} record batches, expected 1"):
        _open_as_listed(survey, path)


def test_another_schema(tmp_path):
    survey = make_survey(tmp_path)
    path = tmp_path / "train-00000.arrow"
    batch = pa.ipc.open_file(str(path)).get_batch(0)
    _rewrite(path, [batch.rename_columns(["id", "pixels", "class"])])
    with pytest.raises(ShardError, match=r"columns id string, .*, class int16, expected id string, .*, label int16"):
        _open_as_listed(survey, path)
    with pytest.raises(ShardError, match=r"fixed_size_binary\[192\].* expected .*fixed_size_binary\[300\]"):
        Split.open(tmp_path, replace(make_survey(tmp_path).manifest, px=10), "train")


@pytest.mark.parametrize(
    ("pixels", "target", "message"),
    [
        (np.zeros((8, 9, 3), np.uint8), 0, r"g: pixels of shape \(8, 9, 3\), expected \(8, 8, 3\)"),
        (np.zeros((8, 8, 3), np.float32), 0, "g: pixels of float32, expected uint8"),
        (np.zeros((8, 8, 3), np.uint8), 3, "g: class 3 of 3"),
        (np.zeros((8, 8, 3), np.uint8), -1, "g: class -1 of 3"),
        (np.zeros((8, 8, 3), np.uint8), 0.5, r"g: target 0\.5, expected a class's index"),
    ],
)
def test_a_writer_takes_only_what_fits(tmp_path, pixels, target, message):
    writer = ShardWriter(tmp_path, "train", px=8, task=CLASSES, max_rows=4)
    with pytest.raises(AssertionError, match=message):
        writer.add("g", pixels, target)
    assert writer.close() == ()


def _mapped_ranges(folder: str) -> list[tuple[int, int]]:
    with Path("/proc/self/maps").open() as maps:
        lines = [line.split() for line in maps if folder in line]
    return [tuple(int(end, 16) for end in line[0].split("-")) for line in lines]


def _rewrite(path, batches, schema=None) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema or batches[0].schema) as writer:
        for batch in batches:
            writer.write_batch(batch)


def _open_as_listed(survey, path) -> Split:
    """Open train with a manifest that lists the altered file's size and digest as its own."""
    train = survey.manifest.splits["train"]
    shard = ShardEntry(path.name, train.shards[0].num_rows, path.stat().st_size, file_digest(path))
    splits = {**survey.manifest.splits, "train": replace(train, shards=(shard, *train.shards[1:]))}
    manifest: Manifest = replace(survey.manifest, splits=splits)
    return Split.open(survey.directory, manifest, "train")
