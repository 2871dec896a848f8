"""What the final evaluation adds to a run's TensorBoard: curves and pictures of each backbone, and HParams lines."""

import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams import summary_v2 as hparams_summary
from torch.utils.tensorboard import SummaryWriter

from galaxy_models.task import METRICS
from search.report.evidence.standing import Standing
from search.report.figures.classes import confusions, reliabilities
from search.report.figures.sheet import contact_sheet
from search.report.findings import Findings
from search.report.source import read_run

TENSORBOARD = "tensorboard"
FINAL = "final"
SPLITS = ("val", "test")


def write_boards(run_dir: Path) -> Path:
    """Write the final evaluation's boards of a run, in place of those of an earlier call.

    Below `tensorboard/final/<backbone>/` come, of the test galaxies and all seeds together: a precision-recall curve
    for each class, the confusion matrix, calibration and a contact sheet of the worst mistakes. Each retraining gets a
    line of the HParams page, among those of the trials; the page averages over the seeds of a backbone.

    Args:
        run_dir: the run's folder.

    Returns:
        The folder of the boards, which may be empty.

    Raises:
        RunError: the folder is no run, or what is in it is damaged.
    """
    findings = read_run(run_dir)
    root = run_dir / TENSORBOARD
    folder = root / FINAL
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if findings.standings:
        _write_columns(findings, root)
    pictures = {
        **{figure.key: figure.png for figure in confusions(findings)},
        **{figure.key: figure.png for figure in reliabilities(findings)},
    }
    for standing in findings.standings.values():
        _write_lines(findings, standing, folder)
        if standing.answers:
            _write_pictures(findings, standing, folder, pictures)
    return folder


def _write_columns(findings: Findings, root: Path) -> None:
    """Declare the HParams page's columns anew: TensorBoard takes those of the first declaration that it meets."""
    names = dict.fromkeys(name for space in findings.trials.spaces.values() for name in space)
    columns = [hparams_summary.HParam(name) for name in ("backbone", *names)]
    best = (f"best/val_{findings.info.objective}", "best/epoch")
    metrics = [hparams_summary.Metric(tag) for tag in (*best, *_tags(findings))]
    earlier = list(root.glob("events.out.tfevents.*"))
    with SummaryWriter(str(root)) as writer:
        writer._get_file_writer().add_summary(hparams_summary.hparams_config_pb(columns, metrics))
    for path in earlier:
        path.unlink()


def _tags(findings: Findings) -> dict[str, tuple[str, str]]:
    """The scalars of a retraining, each with its split and metric."""
    return {f"{FINAL}/{split}_{name}": (split, name) for split in SPLITS for name in METRICS[findings.info.task.kind]}


def _write_lines(findings: Findings, standing: Standing, folder: Path) -> None:
    """Write each retraining's parameters and scores."""
    params = findings.trials.params.get((standing.backbone, standing.trial), {})
    values: dict[str, Any] = {name: "none" if value is None else value for name, value in params.items()}
    for run in standing.runs:
        with SummaryWriter(str(folder / standing.backbone / f"seed-{run.seed_index}")) as writer:
            line = hparams_summary.hparams_pb({"backbone": standing.backbone, **values}, trial_id=_group(standing))
            writer._get_file_writer().add_summary(line)
            for tag, (split, name) in _tags(findings).items():
                value = run.metric(split, name)
                if math.isfinite(value):
                    writer.add_scalar(tag, value, run.best_epoch)


def _group(standing: Standing) -> str:
    return f"{standing.backbone}/{FINAL}-of-trial-{standing.trial:05d}"


def _write_pictures(findings: Findings, standing: Standing, folder: Path, pictures: dict[str, bytes]) -> None:
    place = findings.color(standing.backbone)
    shown = {
        "confusion": pictures.get(f"confusion-{place}"),
        "calibration": pictures.get(f"reliability-{place}"),
        "worst_mistakes": contact_sheet(findings, standing),
    }
    if findings.info.task.kind == "votes" and standing is next(iter(findings.standings.values())):
        shown["calibration"] = pictures.get("reliability-questions")
    with SummaryWriter(str(folder / standing.backbone)) as writer:
        for tag, png in shown.items():
            if png is not None:
                writer._get_file_writer().add_summary(Summary(value=[_image(tag, png)]), 0)
        if findings.info.task.kind == "classes":
            _add_curves(writer, findings, standing)


def _image(tag: str, png: bytes) -> Any:
    # A PNG names its width and height in bytes 16 to 24: PNG specification, 11.2.2.
    width, height = (int.from_bytes(png[start : start + 4], "big") for start in (16, 20))
    picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
    return Summary.Value(tag=tag, image=picture)


def _add_curves(writer: SummaryWriter, findings: Findings, standing: Standing) -> None:
    """Precision against recall for each class that has test galaxies, of the answers of all seeds."""
    targets = np.concatenate([one.targets for one in standing.answers])
    outputs = np.concatenate([one.outputs for one in standing.answers])
    for index, name in enumerate(findings.info.task.names):
        if (targets == index).any():
            writer.add_pr_curve(f"precision_recall/{name}", targets == index, outputs[:, index], 0)
