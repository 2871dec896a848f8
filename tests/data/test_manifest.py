import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from small_survey import CLASSES, VOTES, make_survey

from galaxy_models.data.manifest import MANIFEST_NAME, Manifest
from galaxy_models.errors import ManifestError, ShardError


@pytest.mark.parametrize("task", [CLASSES, VOTES], ids=["classes", "votes"])
def test_what_is_written_is_read_back(tmp_path, task):
    survey = make_survey(tmp_path, task=task)
    assert Manifest.load(tmp_path) == survey.manifest
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_whole_survey_verifies(tmp_path):
    survey = make_survey(tmp_path)
    survey.manifest.verify(tmp_path)
    shard = survey.manifest.splits["train"].shards[0]
    # coreutils, as an implementation of SHA-256 that is not ours.
    found = subprocess.run(["sha256sum", tmp_path / shard.file], check=True, capture_output=True, text=True)
    assert shard.digest == "sha256:" + found.stdout.split()[0]


def test_an_altered_byte_is_found(tmp_path):
    survey = make_survey(tmp_path)
    path = tmp_path / survey.manifest.splits["train"].shards[1].file
    content = bytearray(path.read_bytes())
    content[content.index(survey.pixels[5].tobytes()) + 7] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=r"train-00001\.arrow: digest sha256:\w+, manifest says sha256:\w+: convert"):
        survey.manifest.verify(tmp_path)


def test_only_the_splits_asked_for_are_read(tmp_path):
    survey = make_survey(tmp_path)
    (tmp_path / survey.manifest.splits["train"].shards[1].file).unlink()
    survey.manifest.verify(tmp_path, splits=("val", "test"))
    with pytest.raises(ShardError, match=r"train-00001\.arrow: no such file"):
        survey.manifest.verify(tmp_path, splits=("val", "train"))


def test_a_truncated_or_missing_shard_is_found(tmp_path):
    survey = make_survey(tmp_path)
    shard = survey.manifest.splits["train"].shards[2]
    path = tmp_path / shard.file
    path.write_bytes(path.read_bytes()[:-1])
    sizes = f"{shard.num_bytes - 1:,} bytes, manifest says {shard.num_bytes:,}: convert"
    with pytest.raises(ShardError, match=rf"train-00002\.arrow: {re.escape(sizes)}"):
        survey.manifest.verify(tmp_path)
    path.unlink()
    with pytest.raises(ShardError, match=r"train-00002\.arrow: no such file, the manifest lists 2 rows in it: convert"):
        survey.manifest.verify(tmp_path)


def test_the_identity_follows_task_and_shards_but_not_how_they_were_made(tmp_path):
    manifest = make_survey(tmp_path / "a").manifest
    assert replace(manifest, survey="other", made_by={}, rejected=0).digest == manifest.digest
    assert replace(manifest, task=replace(CLASSES, mirror_pairs=())).digest != manifest.digest
    assert make_survey(tmp_path / "b", num_rows=11).manifest.digest != manifest.digest


@pytest.mark.parametrize(
    ("made_by", "count"),
    [
        ({"options": {"num_repeated_names": 12}}, 12),
        ({"options": {"num_repeated_names": "12"}}, 0),
        ({"options": ["kept_split"]}, 0),
        ({}, 0),
    ],
)
def test_names_in_several_splits_are_counted_by_who_made_it(tmp_path, made_by, count):
    assert replace(make_survey(tmp_path).manifest, made_by=made_by).num_repeated_names == count


@pytest.mark.parametrize("folder", ["", "absent", "file"])
def test_a_folder_without_manifest(tmp_path, folder):
    (tmp_path / "file").touch()
    with pytest.raises(ManifestError, match=r"found no manifest\.json, expected a folder of shards: make one"):
        Manifest.load(tmp_path / folder)


@pytest.mark.parametrize("text", ["", "{", '{"px": 1', "\udcff"])
def test_malformed_json(tmp_path, text):
    (tmp_path / MANIFEST_NAME).write_text(text, errors="surrogateescape")
    with pytest.raises(ManifestError, match=r"manifest\.json: found malformed JSON \(.+\), expected a manifest"):
        Manifest.load(tmp_path)


def test_another_schema_version(tmp_path):
    survey = make_survey(tmp_path)
    _edit(tmp_path, ["schema_version"], survey.manifest.schema_version + 1)
    with pytest.raises(ManifestError, match="found schema version 2, expected 1: convert the survey again with this"):
        Manifest.load(tmp_path)


KEYS = [
    *([key] for key in ("schema_version", "survey", "simulated", "task", "px", "splits")),
    *([key] for key in ("rejected", "left_out", "made_by")),
    *(["task", key] for key in ("kind", "names", "mirror_pairs")),
    *(["splits", "train", key] for key in ("num_rows", "shards", "class_counts")),
    *(["splits", "train", "shards", 0, key] for key in ("file", "num_rows", "num_bytes", "digest")),
]


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: ".".join(map(str, keys)))
def test_a_missing_key_is_named(tmp_path, keys):
    make_survey(tmp_path)
    _edit(tmp_path, keys, None, delete=True)
    with pytest.raises(ManifestError, match=rf"manifest\.json: found no key '[\w.\[\]]*{keys[-1]}', expected one"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: ".".join(map(str, keys)))
def test_a_value_of_another_type_is_named(tmp_path, keys):
    make_survey(tmp_path)
    _edit(tmp_path, keys, 1.5)
    with pytest.raises(ManifestError, match=rf"{keys[-1]}: found 1\.5, expected"):
        Manifest.load(tmp_path)


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (["px"], 0, "px: found 0, expected at least 1"),
        (["px"], -8, "px: found -8, expected a whole number, 0 or more"),
        (["rejected"], True, "rejected: found True, expected a whole number"),
        (["task", "kind"], "guesses", "got kind 'guesses', expected one of"),
        (["task", "names"], [1, 2], r"task\.names: found \[1, 2\], expected a list of names"),
        (["task", "mirror_pairs"], [["spiral_cw"]], r"mirror_pairs: found .* expected pairs"),
        (["task", "mirror_pairs"], [["spiral_cw", "spiral"]], "mirror pairs: got 'spiral', expected class names"),
        (["splits", "more"], {}, r"splits: found \[.*'more'.*\], expected train, val, test"),
        (["splits", "train", "num_rows"], 11, r"splits\.train\.num_rows: found 11, expected its shards' 10"),
        (["splits", "train", "class_counts"], [10, 0], "class_counts: found .* expected 3 counts that add up to 10"),
        (["splits", "train", "class_counts"], [9, 0, 0], "class_counts: found .* expected 3 counts that add up to 10"),
        (["splits", "train", "class_counts"], [11, 0, -1], "class_counts: found .* expected whole numbers"),
        (["splits", "train", "shards", 0, "digest"], "md5:00", r"shards\[0\]\.digest: found 'md5:00', expected sha256"),
        (["splits", "val"], [], r"splits\.val: found \[\], expected a dict"),
        (["splits", "train", "shards", 0], 3, r"shards\[0\]: found 3, expected an object"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, keys, value, message):
    make_survey(tmp_path)
    _edit(tmp_path, keys, value)
    with pytest.raises(ManifestError, match=message):
        Manifest.load(tmp_path)


@pytest.mark.parametrize("name", ["../train-00000.arrow", "/etc/passwd", "..", ".", "", "a/b.arrow", "a\\b", "x\n"])
def test_a_shard_outside_the_folder_is_refused(tmp_path, name):
    make_survey(tmp_path)
    _edit(tmp_path, ["splits", "train", "shards", 0, "file"], name)
    with pytest.raises(ManifestError, match=r"file: found .* expected a plain file name inside the manifest's folder"):
        Manifest.load(tmp_path)


def test_a_failed_write_leaves_the_old_manifest(tmp_path):
    survey = make_survey(tmp_path)
    with pytest.raises(ValueError, match="JSON compliant"):
        replace(survey.manifest, made_by={"crop": float("nan")}).write(tmp_path)
    assert Manifest.load(tmp_path) == survey.manifest


def _edit(directory: Path, keys: list, value: object, *, delete: bool = False) -> None:
    path = directory / MANIFEST_NAME
    values = place = json.loads(path.read_text())
    for key in keys[:-1]:
        place = place[key]
    if delete:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    path.write_text(json.dumps(values))
