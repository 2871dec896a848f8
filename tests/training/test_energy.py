"""Counters of energy: those of processors in a made-up powercap tree, that of a graphics card by a made-up NVML."""

import os
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from shapes_survey import make_shapes, small_config

from galaxy_models.training import energy, loop
from galaxy_models.training.energy import Counter, find_counters, measured_energy
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData

CPU, CUDA = torch.device("cpu"), torch.device("cuda:1")


def _zone(powercap: Path, number: str, name: str, microjoules: int, turn: int = 65_532_610_987) -> Path:
    zone = powercap / f"intel-rapl:{number}"
    zone.mkdir(parents=True)
    (zone / "name").write_text(f"{name}\n")
    (zone / "energy_uj").write_text(f"{microjoules}\n")
    (zone / "max_energy_range_uj").write_text(f"{turn}\n")
    return zone


def _add(zone: Path, microjoules: int) -> None:
    file = zone / "energy_uj"
    total, turn = int(file.read_text()) + microjoules, int((zone / "max_energy_range_uj").read_text())
    file.write_text(f"{total % turn}\n")


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages, the second with memory of its own, on a machine of 8 processors."""
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    folder = tmp_path / "powercap"
    for number, name in (("0", "package-0"), ("1", "package-1"), ("1:0", "dram")):
        _zone(folder, number, name, 5_000_000)
    # Parts of a package, and what holds packages: to count them would count twice.
    for number, name in (("0:0", "core"), ("0:1", "uncore"), ("2", "psys")):
        _zone(folder, number, name, 5_000_000)
    return folder


def test_a_training_has_its_processors_share_of_packages_and_memory(powercap: Path) -> None:
    counters = find_counters(Runtime(threads=2), CPU, powercap=powercap)
    with measured_energy(counters) as found:
        for zone in powercap.iterdir():
            _add(zone, 40_000_000)
    # Two packages and a memory, 40 J each; two processors of eight.
    assert found == {"cpu_energy_j": pytest.approx(30.0), "energy_j": pytest.approx(30.0)}


def test_a_counter_that_begins_again_goes_on(powercap: Path) -> None:
    zone = powercap / "intel-rapl:0"
    (zone / "energy_uj").write_text("65532000000\n")
    with measured_energy(find_counters(Runtime(threads=8), CPU, powercap=powercap)) as found:
        _add(zone, 8_000_000)
        assert int((zone / "energy_uj").read_text()) < 8_000_000
    assert found["energy_j"] == pytest.approx(8.0)


def test_a_counter_that_goes_round_often_is_read_often(powercap: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(energy, "_INTERVAL_S", 0.001)
    totals, read = iter([90, 30, 70, 10, 60]), threading.Event()

    def total() -> int:
        value = next(totals, 60)
        if value == 60:
            read.set()
        return value

    with measured_energy({"cpu": [Counter(total, share=1e6, turn=100)]}) as found:
        assert read.wait(10)
    # 90 -> 30 -> 70 -> 10 -> 60 of 100: 40 + 40 + 40 + 50.
    assert found["energy_j"] == pytest.approx(170.0)


@pytest.mark.parametrize("harm", ["unreadable", "damaged", "no tree", "none of ours"])
def test_what_cannot_be_read_is_absent(powercap: Path, tmp_path: Path, harm: str) -> None:
    if harm == "unreadable":
        # A folder cannot be read as a file, by root neither.
        (powercap / "intel-rapl:1" / "energy_uj").unlink()
        (powercap / "intel-rapl:1" / "energy_uj").mkdir()
    elif harm == "damaged":
        (powercap / "intel-rapl:1" / "energy_uj").write_text("\n")
    elif harm == "none of ours":
        for zone in powercap.iterdir():
            (zone / "name").write_text("psys\n")
    folder = tmp_path / "none" if harm == "no tree" else powercap
    counters = find_counters(Runtime(), CPU, powercap=folder)
    assert counters == {}
    with measured_energy(counters) as found:
        pass
    assert found == {}


def test_a_counter_that_fails_or_stands_still_on_the_way_is_absent(powercap: Path) -> None:
    counters = find_counters(Runtime(), CPU, powercap=powercap)
    with measured_energy(counters) as still:
        pass
    with measured_energy(counters) as failing:
        for zone in powercap.iterdir():
            _add(zone, 1_000_000)
        (powercap / "intel-rapl:0" / "energy_uj").unlink()
    assert (still, failing) == ({}, {})


class _NvmlError(Exception):
    pass


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    card = SimpleNamespace(millijoules=7_000, asked=[])
    module: Any = ModuleType("pynvml")

    def handle_by_uuid(uuid: str) -> str:
        card.asked.append(uuid)
        return f"handle of {uuid}"

    def total(handle: str) -> int:
        assert handle == "handle of GPU-ab-cd"
        if card.millijoules is None:
            raise _NvmlError("Not Supported")
        return card.millijoules

    module.NVMLError, module.nvmlInit = _NvmlError, lambda: None
    module.nvmlDeviceGetHandleByUUID, module.nvmlDeviceGetTotalEnergyConsumption = handle_by_uuid, total
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="ab-cd"))
    return card


def test_a_card_that_is_shared_counts_by_its_fraction(powercap: Path, nvml: SimpleNamespace) -> None:
    counters = find_counters(Runtime(device="cuda:1", threads=4, gpu_share=0.25), CUDA, powercap=powercap)
    with measured_energy(counters) as found:
        nvml.millijoules += 100_000
        _add(powercap / "intel-rapl:0", 10_000_000)
    assert found == pytest.approx({"cpu_energy_j": 5.0, "gpu_energy_j": 25.0, "energy_j": 30.0})
    assert nvml.asked == ["GPU-ab-cd"]


def test_a_card_without_a_counter_leaves_the_processors(powercap: Path, nvml: SimpleNamespace) -> None:
    counters = find_counters(Runtime(threads=8), CUDA, powercap=powercap)
    nvml.millijoules = None
    assert set(find_counters(Runtime(threads=8), CUDA, powercap=powercap)) == {"cpu"}
    with measured_energy(counters) as found:
        _add(powercap / "intel-rapl:0", 10_000_000)
    assert found == pytest.approx({"cpu_energy_j": 10.0, "energy_j": 10.0})


def test_without_the_package_no_card_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_counters(Runtime(), CUDA, powercap=tmp_path) == {}


def test_an_epoch_tells_its_energy_and_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey = SurveyData(make_shapes(tmp_path / "shapes", sizes=(40, 20, 0)))
    totals = iter(range(0, 10**9, 3_000_000))
    results = []
    for counters in ({}, {"cpu": (Counter(lambda: next(totals), share=0.5),)}):
        monkeypatch.setattr(loop, "find_counters", lambda runtime, device, found=counters: found)
        results.append(Trainer(small_config(), survey, runtime=Runtime()).run_epoch())
    plain, measured = results
    assert "energy_j" not in plain
    assert (measured.pop("energy_j"), measured.pop("cpu_energy_j")) == (1.5, 1.5)
    clock = ("epoch_s", "data_wait_share", "images_per_s")
    assert {k: v for k, v in measured.items() if k not in clock} == {k: v for k, v in plain.items() if k not in clock}
