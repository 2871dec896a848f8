"""Which split a galaxy belongs to: decided by its name alone."""

from galaxy_models.errors import DataError
from galaxy_models.seeds import derive_seed


def assign_split(object_id: str, *, val: float, test: float) -> str:
    """Assign a galaxy to a split by a hash of its id.

    The hash places the galaxy in [0, 1): test takes the low end, val the high end. A galaxy's split therefore
    depends on no other galaxy, and a galaxy in test (or val) stays there when that fraction grows.

    Args:
        object_id: the galaxy's name in its survey.
        val: share of galaxies for validation, in [0, 1).
        test: share of galaxies for the final evaluation, in [0, 1).

    Returns:
        `train`, `val` or `test`.

    Raises:
        DataError: a share is negative, or together they leave nothing to train on.
    """
    if not (val >= 0 and test >= 0 and val + test < 1):
        raise DataError(
            f"split: got val {val:g} and test {test:g}, expected shares of at least 0 that add up to less than 1: "
            "choose smaller ones"
        )
    # 53 bits divide exactly in a float, so the place is never rounded up to 1.
    place = (derive_seed("split", object_id) >> 10) / 2**53
    if place < test:
        return "test"
    return "val" if place >= 1 - val else "train"
