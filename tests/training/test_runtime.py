"""Threads, devices and number formats."""

import gc
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from galaxy_models.errors import ConfigError
from galaxy_models.training import runtime as runtime_module
from galaxy_models.training.runtime import Runtime, has_bf16, move, pass_over_objects, resolve_precision

CPU = torch.device("cpu")
NO_CARD = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a graphics card")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx2 avx512f avx512_bf16", True),
        ("fpu sse2 amx_bf16 amx_tile", True),
        ("fpu sse2 avx2 avx512f avx512_fp16", False),
        ("", False),
    ],
)
def test_bf16_is_read_from_the_flags(flags: str, expected: bool) -> None:
    assert has_bf16(f"processor\t: 0\nmodel name\t: avx512_bf16 by name only\nflags\t\t: {flags}\n") is expected


def test_no_cpuinfo_means_no_bf16() -> None:
    assert not has_bf16("")


@pytest.mark.parametrize(
    ("name", "flags", "dtype"),
    [
        ("auto", "amx_bf16", torch.bfloat16),
        ("auto", "avx2", torch.float32),
        ("bf16", "avx2", torch.bfloat16),
        ("float32", "amx_bf16", torch.float32),
    ],
)
def test_precision_follows_the_processor(name: str, flags: str, dtype: torch.dtype, monkeypatch, tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags : fpu {flags}\n")
    monkeypatch.setattr(runtime_module, "_CPUINFO", cpuinfo)
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    precision = resolve_precision(name, CPU)
    assert precision.dtype == dtype
    with precision.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == dtype
    assert not precision.scales_gradients


@pytest.mark.parametrize(
    ("native", "name", "dtype", "scales"),
    [
        (True, "auto", torch.bfloat16, False),
        (False, "auto", torch.float16, True),
        (False, "bf16", torch.float16, True),
        (False, "float32", torch.float32, False),
    ],
)
def test_card_without_bf16_computes_in_float16(native: bool, name: str, dtype: torch.dtype, scales: bool, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    precision = resolve_precision(name, torch.device("cuda"))
    assert (precision.dtype, precision.scales_gradients) == (dtype, scales)


def test_activate_sets_the_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert Runtime(threads=2).activate() == CPU
        assert torch.get_num_threads() == 2
        Runtime(threads=1).activate()
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="threads: got 0, expected at least 1"):
        Runtime(threads=0)


@NO_CARD
def test_missing_card_is_a_users_mistake() -> None:
    with pytest.raises(ConfigError, match="got 'cuda', but torch sees 0 graphics cards: use 'cpu'"):
        Runtime(device="cuda").activate()


@pytest.mark.parametrize("name", ["gpu", "meta", "cpu:x"])
def test_unknown_device_is_a_users_mistake(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device: got '{name}', expected 'cpu', 'cuda'"):
        Runtime(device=name).activate()


def test_moving_to_the_processor_copies_nothing() -> None:
    images = torch.zeros(2, 3, 4, 4)
    assert move(images, CPU) is images


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_kept() -> None:
    # In a process of its own: another's heap may have no room to grow.
    code = """
import resource
from galaxy_models.training.runtime import give_back_memory, keep_freed_memory
def asked_for():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = b"x" * 100 * 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
asked_for()
first = asked_for()
keep_freed_memory()
asked_for()
kept = asked_for()
give_back_memory()
print(first, kept, asked_for())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, kept, given_back = map(int, done.stdout.split())
    assert first > 0
    assert kept < first / 10
    assert given_back > first / 2


def test_collections_pass_over_what_there_was() -> None:
    before = gc.get_freeze_count()
    try:
        pass_over_objects()
        assert not gc.get_objects()
        assert gc.get_freeze_count() > before
        # What comes later is collected as ever.
        loop: list[object] = []
        loop.append(loop)
        del loop
        assert gc.collect() >= 1
    finally:
        gc.unfreeze()
