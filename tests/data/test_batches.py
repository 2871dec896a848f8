import numpy as np
import pytest
import torch
from small_survey import CLASSES, VOTES, make_survey

from galaxy_models.data.batches import NUM_BUFFERS, iterate_batches
from galaxy_models.data.order import Share
from galaxy_models.data.shards import Split


@pytest.mark.parametrize("task", [CLASSES, VOTES], ids=["classes", "votes"])
@pytest.mark.parametrize("max_rows", [4, 100])
def test_batches_hold_the_galaxies_of_the_order(tmp_path, task, max_rows):
    survey = make_survey(tmp_path, task=task, max_rows=max_rows)
    split = Split.open(tmp_path, survey.manifest, "train")
    order = np.array([7, 1, 1, 9, 0, 4, 8], np.int64)
    sizes = []
    for batch in iterate_batches(split, order, batch_size=3):
        rows = order[sum(sizes) :][: len(batch.rows)]
        np.testing.assert_array_equal(batch.rows, rows)
        np.testing.assert_array_equal(batch.images.permute(0, 2, 3, 1), survey.pixels[rows])
        np.testing.assert_array_equal(batch.targets, survey.targets[rows])
        assert batch.images.dtype == torch.uint8
        assert batch.targets.dtype == (torch.int64 if task is CLASSES else torch.float32)
        assert batch.images.is_contiguous(memory_format=torch.channels_last)
        sizes.append(len(rows))
    assert sizes == [2, 2, 3]


def test_a_share_of_each_batch_is_gathered_alone(tmp_path):
    survey = make_survey(tmp_path)
    split = Split.open(tmp_path, survey.manifest, "train")
    order = np.array([7, 1, 3, 9, 0, 4, 8], np.int64)
    batches = list(iterate_batches(split, order, batch_size=4, share=Share(1, 2)))
    # Batches of three and four; the second of two processes has two of each.
    assert [batch.rows.tolist() for batch in batches] == [[1, 3], [4, 8]]
    assert [(batch.place, batch.num_images) for batch in batches] == [(slice(1, 3), 3), (slice(5, 7), 4)]
    np.testing.assert_array_equal(batches[1].images.permute(0, 2, 3, 1), survey.pixels[[4, 8]])
    np.testing.assert_array_equal(batches[1].targets, survey.targets[[4, 8]])


def test_batches_that_are_gathered_together_hold_the_same_galaxies(tmp_path):
    survey = make_survey(tmp_path)
    split = Split.open(tmp_path, survey.manifest, "train")
    order = np.array([7, 1, 3, 9, 0, 4, 8], np.int64)
    # Batches of two, two and three galaxies.
    batches = [
        (batch.rows.tolist(), batch.place, batch.num_images)
        for batch in iterate_batches(split, order, batch_size=3, num_together=2)
        if np.array_equal(batch.images.permute(0, 2, 3, 1), survey.pixels[batch.rows])
    ]
    assert batches == [([7, 1, 3, 9], slice(0, 4), 4), ([0, 4, 8], slice(4, 7), 3)]


def test_a_batch_lives_until_the_second_next_is_asked_for(tmp_path):
    survey = make_survey(tmp_path)
    split = Split.open(tmp_path, survey.manifest, "train")
    batches = iterate_batches(split, np.arange(10), batch_size=2)
    first = next(batches)
    kept = first.images.clone()
    second = next(batches)
    assert torch.equal(first.images, kept)
    third = next(batches)
    assert NUM_BUFFERS == 2
    assert third.images.data_ptr() == first.images.data_ptr()
    assert third.images.data_ptr() != second.images.data_ptr()
    np.testing.assert_array_equal(first.targets, survey.targets[:2])


def test_targets_may_be_changed_without_harm_to_the_split(tmp_path):
    survey = make_survey(tmp_path)
    split = Split.open(tmp_path, survey.manifest, "train")
    next(iterate_batches(split, np.arange(10), batch_size=10)).targets.fill_(-5)
    np.testing.assert_array_equal(split.targets, survey.targets)


def test_an_empty_order_has_no_batches(tmp_path):
    split = Split.open(tmp_path, make_survey(tmp_path).manifest, "val")
    assert list(iterate_batches(split, np.empty(0, np.int64), batch_size=4)) == []
