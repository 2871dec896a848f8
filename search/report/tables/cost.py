"""What each backbone is, what its search cost, and where the time went."""

import math

from search.report.blocks import DASH, Table, counted, decimal, listed, percent, significant, whole
from search.report.figures.results import cost_of
from search.report.findings import Findings

JOULES_PER_KWH = 3.6e6
DEVICES = {"cpu": "the processors", "gpu": "the graphics cards"}
NO_ENERGY = "Energy was not measured: the machine of the search offers no counter that may be read."
STATES = {"COMPLETE": "complete", "PRUNED": "stopped", "FAIL": "failed"}


def cost(findings: Findings) -> Table:
    """Size and speed of each backbone, and the work that its search took."""
    info, groups, own = findings.info, [], findings.own_trials
    reused = len(own) < len(findings.trials.table)
    shares = _shares(findings)
    unit = "GPU" if info.gpus_per_trial else "CPU"
    price, whole_s = info.price_per_hour, info.whole_s if math.isfinite(info.whole_s) else info.elapsed_s
    for backbone in findings.order:
        standing = findings.standings.get(backbone)
        rows = own[own["backbone"] == backbone]
        num_reused = int((findings.trials.table["backbone"] == backbone).sum()) - len(rows)
        states = rows["state"].value_counts()
        best = findings.chosen_trial(backbone)
        parameters, flops, speed, memory = (
            cost_of(standing, key) if standing else math.nan
            for key in ("num_parameters", "flops", "images_per_s", "memory_mb")
        )
        cells = [
            decimal(parameters / 1e6, 2), significant(flops), whole(speed), whole(memory),
            whole(len(rows)), *(whole(states.get(state, 0)) for state in STATES),
            *([whole(num_reused)] if reused else []), whole(rows["epochs"].sum()),
            decimal(hours(findings, backbone), 2),
            *([decimal(shares[backbone] * price * whole_s / 3600, 2)] if price is not None else []),
            DASH if best is None else f"#{best}",
        ]  # fmt: skip
        groups.append((backbone, (tuple(cells),)))
    place = f"{info.gpus_per_trial:g} GPU" if info.gpus_per_trial else counted(info.threads or 1, "processor")
    note = (
        f"Images/s and memory: answering in batches, not training, on {place} of the machine of the search, while "
        "other trainings may have run beside it; means over seeds. "
        f"Stopped: by the scheduler, or when the search ended. {unit}-hours: of all trials and retrainings, "
        f"times {'the GPUs' if info.gpus_per_trial else 'the processors'} that each had."
    )
    if reused:
        note += " Reused: trials more that took the recorded result of the same configuration, at no cost."
    if price is not None:
        note += f" Cost: the time of the whole run at {price:g} an hour, shared by the time each backbone took."
    return Table(
        caption="What each backbone is, and what its search took",
        columns=(
            "Backbone", "Parameters (10⁶)", "Operations per image (10⁹)", "Images/s", "Memory (MB)", "Trials",
            "Complete", "Stopped", "Failed", *(["Reused"] if reused else []), "Epochs", f"{unit}-hours",
            *(["Cost"] if price is not None else []), "Best trial",
        ),
        groups=tuple(groups),
        note=note,
    )  # fmt: skip


def time(findings: Findings) -> Table | None:
    """Seconds of each backbone: training, waiting for data, between trials, without use, and the final evaluation."""
    spent = {backbone: energy_kwh(findings, backbone) for backbone in findings.trials.backbones}
    measured = any(map(math.isfinite, spent.values()))
    groups = [
        (backbone, ((*_time_row(findings, backbone), *([significant(energy)] if measured else [])),))
        for backbone, energy in spent.items()
    ]
    if not groups:
        return None
    return Table(
        caption="Where the time went, in seconds, summed over trials that may have run side by side",
        columns=(
            "Backbone", "Training and validating", "of that waiting for data", "Between trials", "In stopped trials",
            "In failed trials", "Final evaluation", *(["Energy (kWh)"] if measured else []),
        ),
        groups=tuple(groups),
        note="Waiting for data: fetching and varying images, while the network waited. Between trials: from the end of "
        "a worker's trial to the first step of its next. Time in stopped trials bought the comparison that stopped "
        f"them. {_energy_words(findings) if measured else NO_ENERGY}",
    )  # fmt: skip


def energy_kwh(findings: Findings, backbone: str) -> float:
    """Kilowatt-hours of a backbone's trials and retrainings, as far as they were measured; NaN if none was."""
    curves = findings.trials.curves
    known = curves["energy_j"][curves["backbone"] == backbone].dropna() if "energy_j" in curves else ()
    final = (findings.evidence.energy_j or {}).get(backbone)
    if not len(known) and final is None:
        return math.nan
    return (math.fsum(known) + (final or 0.0)) / JOULES_PER_KWH


def _energy_words(findings: Findings) -> str:
    """What the energies are of, and what is missing from them."""
    curves = findings.trials.curves
    read = {kind for kind in DEVICES if f"{kind}_energy_j" in curves and curves[f"{kind}_energy_j"].notna().any()}
    used = {"cpu"} | ({"gpu"} if findings.info.gpus_per_trial else set())
    words = (
        "Energy: of whole epochs of trials and retrainings, not of evaluation, by the devices' own counters. A counter "
        "serves all that runs on its device; a trial is given as much of it as it has of the machine's processors, or "
        "of the card."
    )
    missing = [DEVICES[kind] for kind in DEVICES if kind in used - read]
    if missing and read:
        words += f" That of {listed(tuple(missing))} is missing: no counter could be read."
    num_measured = int(curves["energy_j"].notna().sum()) if "energy_j" in curves else 0
    if num_measured < len(curves):
        words += f" It was measured in {whole(num_measured)} of {whole(len(curves))} epochs of trials only."
    return words


def time_spent(findings: Findings, backbone: str) -> dict[str, float]:
    """Seconds of a backbone: `training`, of that `waiting`; `between` trials; in `stopped` and `failed`; `final`."""
    table, curves = findings.trials.table, findings.trials.curves
    rows, epochs = table[table["backbone"] == backbone], curves[curves["backbone"] == backbone]
    total = float(rows["seconds"].sum())
    waited = float((epochs["seconds"] * epochs["data_wait_share"]).sum()) if "data_wait_share" in epochs else math.nan
    between = float(epochs["handover_s"].sum()) if "handover_s" in epochs else math.nan
    by_state = rows.groupby("state")["seconds"].sum()
    final = (findings.evidence.seconds or {}).get(backbone, math.nan)

    return {
        "training": total, "waiting": waited, "between": between, "stopped": float(by_state.get("PRUNED", 0.0)),
        "failed": float(by_state.get("FAIL", 0.0)), "final": final,
    }  # fmt: skip


def _time_row(findings: Findings, backbone: str) -> tuple[str, ...]:
    spent = time_spent(findings, backbone)
    total = spent["training"]

    def part(seconds: float) -> str:
        return (
            f"{whole(seconds)}\n{percent(seconds / total)}" if total > 0 and math.isfinite(seconds) else whole(seconds)
        )

    return (
        whole(total), part(spent["waiting"]), whole(spent["between"]), part(spent["stopped"]), part(spent["failed"]),
        whole(spent["final"]),
    )  # fmt: skip


def time_words(findings: Findings) -> str:
    """Of the machine's time, how much was spent in trials, and how much beside them."""
    info, spent = findings.info, float(findings.trials.table["seconds"].sum())
    if not (math.isfinite(info.elapsed_s) and info.elapsed_s > 0):
        return "How long the search took is not recorded yet."
    again = sum((findings.evidence.seconds or {}).values())
    words = (
        f"In {counted(round(info.elapsed_s), 'second')} of search, trials took {counted(round(spent), 'second')}: "
        f"{spent / info.elapsed_s:.1f} of them ran at a time, on average."
    )
    if again:
        words += f" The retrainings of the final evaluation took {counted(round(again), 'second')}."
    if math.isfinite(info.whole_s) and info.whole_s > info.elapsed_s:
        words += f" From start to end, with all preparation, {counted(round(info.whole_s), 'second')} passed."
    return words


def _seconds(findings: Findings, backbone: str) -> float:
    table = findings.trials.table
    return float(table["seconds"][table["backbone"] == backbone].sum()) + (findings.evidence.seconds or {}).get(
        backbone, 0.0
    )


def hours(findings: Findings, backbone: str) -> float:
    """CPU-hours, or GPU-hours, of a backbone's trials and retrainings."""
    places = findings.info.gpus_per_trial or findings.info.threads or 1
    return _seconds(findings, backbone) * places / 3600


def _shares(findings: Findings) -> dict[str, float]:
    each = {name: _seconds(findings, name) for name in findings.order}
    total = sum(each.values())
    return {name: seconds / total if total else math.nan for name, seconds in each.items()}
