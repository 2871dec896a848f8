import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from galaxy_models.data.order import WHOLE, Share, balanced_order, batch_slices, epoch_order, join_slices, micro_slices


@given(st.integers(0, 500), st.integers(0, 2**63 - 1), st.integers(0, 1000))
def test_an_epoch_visits_each_galaxy_once(num_rows, seed, epoch):
    order = epoch_order(num_rows, seed=seed, epoch=epoch)
    assert order.dtype == np.int64
    assert sorted(order) == list(range(num_rows))


def test_an_order_follows_seed_and_epoch_alone():
    first = epoch_order(100, seed=1, epoch=0)
    np.testing.assert_array_equal(first, epoch_order(100, seed=1, epoch=0))
    others = [epoch_order(100, seed=1, epoch=1), epoch_order(100, seed=2, epoch=0), np.arange(100)]
    assert not any(np.array_equal(first, other) for other in others)


def test_every_place_of_an_order_is_equally_likely():
    """Row 0's place over 4,000 epochs: chi-square over 10 places, 9 degrees of freedom, 99.99 % below 33.7."""
    places = [int(np.flatnonzero(epoch_order(10, seed=3, epoch=epoch) == 0)[0]) for epoch in range(4000)]
    counts = np.bincount(places, minlength=10)
    assert ((counts - 400) ** 2 / 400).sum() < 33.7


def test_a_balanced_order_draws_classes_equally():
    labels = np.repeat([0, 2, 3], [9000, 900, 100])
    labels = labels[np.random.default_rng(0).permutation(10_000)]
    order = balanced_order(labels, seed=5, epoch=0)
    assert order.dtype == np.int64
    assert len(order) == 10_000
    counts = np.bincount(labels[order], minlength=4)
    # Binomial of 10,000 and 1/3: a standard deviation of 47; class 1 does not occur.
    assert counts[1] == 0
    np.testing.assert_allclose(counts[[0, 2, 3]], 10_000 / 3, atol=4 * 47)
    rare = np.bincount(order, minlength=10_000)[labels == 3]
    # Each of 100 rare galaxies is drawn 33 times in the mean: none is forgotten.
    assert rare.min() > 5


def test_a_balanced_order_follows_seed_and_epoch_alone():
    labels = np.arange(50) % 3
    first = balanced_order(labels, seed=1, epoch=0)
    np.testing.assert_array_equal(first, balanced_order(labels, seed=1, epoch=0))
    assert not np.array_equal(first, balanced_order(labels, seed=1, epoch=1))
    assert not np.array_equal(first, balanced_order(labels, seed=2, epoch=0))


def test_a_balanced_order_of_nothing_is_empty():
    assert balanced_order(np.empty(0, np.int64), seed=0, epoch=0).tolist() == []


@given(st.integers(0, 2000), st.integers(1, 300))
def test_batches_cover_an_epoch_in_nearly_equal_parts(num_rows, batch_size):
    slices = batch_slices(num_rows, batch_size)
    covered = [row for part in slices for row in range(num_rows)[part]]
    assert covered == list(range(num_rows))
    sizes = [part.stop - part.start for part in slices]
    assert max(sizes, default=0) <= batch_size
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    # As few as fit: with one batch less, some batch would be too large.
    assert (len(sizes) - 1) * batch_size < num_rows or not sizes


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "sizes"), [(0, 4, []), (4, 4, [4]), (5, 4, [2, 3]), (65, 64, [32, 33]), (3, 1, [1] * 3)]
)
def test_batch_sizes_by_hand(num_rows, batch_size, sizes):
    assert [part.stop - part.start for part in batch_slices(num_rows, batch_size)] == sizes


@given(st.integers(1, 16), st.integers(0, 200), st.integers(1, 64))
def test_processes_share_a_batch_and_cut_it_into_as_many_parts(num, more, size):
    length = num + more
    shares = [Share(index, num) for index in range(num)]
    seen, counts = [], set()
    for share in shares:
        own = list(range(length))[share.of(length)]
        parts = [own[part] for part in micro_slices(length, share, size=size)]
        assert all(parts), "an empty part"
        assert max(map(len, parts)) <= size + (size == 1)
        assert len(own) <= share.largest(length) <= len(own) + 1
        seen += [row for part in parts for row in part]
        counts.add(len(parts))
    assert seen == list(range(length))
    assert len(counts) == 1


@given(st.integers(1, 200), st.integers(1, 64))
def test_one_process_cuts_a_batch_as_an_epoch_is_cut(length, size):
    assert micro_slices(length, WHOLE, size=size) == batch_slices(length, size)


@pytest.mark.parametrize(("num", "ends"), [(1, [2, 5, 7, 9, 12]), (2, [5, 9, 12]), (3, [7, 12]), (5, [12]), (9, [12])])
def test_joined_slices_cover_what_theirs_did(num, ends):
    slices = [slice(0, 2), slice(2, 5), slice(5, 7), slice(7, 9), slice(9, 12)]
    joined = join_slices(slices, num)
    assert [part.stop for part in joined] == ends
    assert [part.start for part in joined] == [0, *ends[:-1]]


def test_no_slices_are_joined_to_none():
    assert join_slices([], 3) == []
