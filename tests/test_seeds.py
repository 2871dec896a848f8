"""Seeds: the same everywhere, and different for different purposes."""

import subprocess
import sys

from hypothesis import given
from hypothesis import strategies as st

from galaxy_models.seeds import derive_seed

parts = st.lists(st.integers() | st.text(max_size=8).filter(lambda text: "\x1f" not in text), max_size=4)


def test_seeds_are_pinned() -> None:
    """By `printf 'int:7\\x1fstr:order\\x1fint:3' | sha256sum`: the first 16 digits, halved."""
    assert derive_seed(7, "order", 3) == 0xDE09DFC83C4AEF71 >> 1


def test_seeds_do_not_depend_on_the_process() -> None:
    code = "from galaxy_models.seeds import derive_seed; print(derive_seed(7, 'order', 3))"
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": n}
        )
        for n in ("1", "2")
    ]
    assert {int(run.stdout) for run in runs} == {derive_seed(7, "order", 3)}


@given(parts, parts)
def test_different_purposes_have_different_seeds(one: list[int | str], other: list[int | str]) -> None:
    assert 0 <= derive_seed(*one) < 2**63
    assert (derive_seed(*one) == derive_seed(*other)) == (one == other)


def test_a_number_is_not_its_text() -> None:
    assert (
        len({derive_seed(1, 23), derive_seed(12, 3), derive_seed("1", 23), derive_seed("123"), derive_seed(123)}) == 5
    )
