"""The reader of the simulated sky."""

import argparse
import pickle

import numpy as np
import pytest

from galaxy_models.data.manifest import Manifest
from galaxy_models.data.readers.simulated import SimulatedReader
from galaxy_models.errors import DataError
from galaxy_models.morphology.tree import GZ2


def read(*arguments: str) -> SimulatedReader:
    parser = argparse.ArgumentParser()
    SimulatedReader.add_options(parser)
    return SimulatedReader.from_options(parser.parse_args(arguments))


def test_two_thousand_galaxies_of_seed_zero_by_default():
    assert read().describe() == {"num_galaxies": 2000, "seed": 0}


def test_a_longer_survey_begins_with_the_shorter():
    short, long = list(read("3").records()), list(read("5", "--seed", "0").records())
    assert [record.id for record in long[:3]] == [record.id for record in short]
    for few, many in zip(short, long, strict=False):
        np.testing.assert_array_equal(few.target, many.target)
        np.testing.assert_array_equal(few.image.load(px=32, crop=1.0).pixels, many.image.load(px=32, crop=1.0).pixels)


def test_seeds_have_other_ids_and_other_galaxies():
    first, second = next(read("1").records()), next(read("1", "--seed", "1").records())
    assert first.id != second.id
    assert (first.target != second.target).any()


def test_targets_are_the_columns_of_the_tree():
    reader = read("2")
    assert reader.task.kind == "votes"
    assert reader.task.names == GZ2.columns
    assert all(record.target.shape == (37,) for record in reader.records())


def test_images_travel_without_pixels():
    image = next(read("1").records()).image
    parcel = pickle.dumps(image)
    assert len(parcel) < 300
    arrived = pickle.loads(parcel)  # noqa: S301 - made two lines above
    np.testing.assert_array_equal(arrived.load(px=32, crop=0.8).pixels, image.load(px=32, crop=0.8).pixels)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0"], "got 0 galaxies, expected at least 1"),
        (["5", "--seed", "-1"], "--seed: got -1, expected a whole number from 0"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(DataError, match=message):
        read(*arguments)


def test_too_few_for_every_class_says_what_to_do(tmp_path, capsys):
    from galaxy_models.data.convert import main

    assert main(["simulated", "5", "--out", str(tmp_path / "sky"), "--px", "16", "--workers", "1"]) == 2
    assert "): draw more galaxies, or --recipe none\n" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "kind"), [(None, "classes"), ("five_class", "classes"), ("none", "votes")])
def test_conversion(recipe, kind, tmp_path):
    from galaxy_models.data.convert import main

    options = [] if recipe is None else ["--recipe", recipe]
    out = tmp_path / "sky"
    assert main(["simulated", "150", "--out", str(out), "--px", "16", "--workers", "1", *options]) == 0
    manifest = Manifest.load(out)
    manifest.verify(out)
    assert manifest.simulated
    assert manifest.task.kind == kind
    assert manifest.made_by["recipe"] == {"classes": recipe or "five_class_conditional", "votes": None}[kind]
    num_rows = sum(split.num_rows for split in manifest.splits.values())
    assert num_rows + manifest.left_out == 150
