"""Where initial weights lie: a file, a folder of files, the caches, or the network."""

import json
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from huggingface_hub.errors import EntryNotFoundError

from galaxy_models.config import TrainConfig
from galaxy_models.errors import WeightsError
from galaxy_models.models.backbones import pretrained_cfg, timm_name

HUB_PREFIX = "hf-hub:"
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
ANSWER_TIMEOUT_S = 5


@dataclass(frozen=True)
class FoundWeights:
    """A file of weights on this machine.

    Attributes:
        path: the file.
        record: what the hub's `config.json` says of them, such as `mean` and `std`; else empty.
    """

    path: Path
    record: dict[str, Any] = field(default_factory=dict)


def locate_weights(config: TrainConfig, *, weights_dir: Path | None) -> FoundWeights:
    """Find a configuration's initial weights on this machine, downloading them where there is a network.

    ImageNet weights are looked for in `weights_dir/<timm name>.safetensors`, then in the caches, then on the
    network, which is asked once and given 5 s to answer.

    Raises:
        ConfigError: unknown timm model.
        WeightsError: they are nowhere.
    """
    weights = config.weights
    if weights == "imagenet":
        return _locate_imagenet(config, weights_dir)
    if weights.startswith(HUB_PREFIX):
        return _locate_on_hub(weights)
    path = Path(weights).expanduser()
    if path.suffix not in FILE_SUFFIXES:
        raise WeightsError(
            f"weights {weights!r}: expected 'imagenet', 'none', a file ending {', '.join(FILE_SUFFIXES)}, "
            f"or {HUB_PREFIX} and a repository"
        )
    if not path.is_file():
        raise WeightsError(f"weights {path}: there is no such file: check the path")
    return FoundWeights(path)


def _locate_imagenet(config: TrainConfig, weights_dir: Path | None) -> FoundWeights:
    name = timm_name(config.backbone)
    if weights_dir is not None:
        # Weights under a tag (`name.tag`) may be stored under either name.
        for stem in (name, name.partition(".")[0]):
            path = weights_dir / f"{stem}.safetensors"
            if path.is_file():
                return FoundWeights(path)
    record = pretrained_cfg(config.backbone)
    hub_id, url = record.get("hf_hub_id"), record.get("url")
    if not hub_id and (not url or record.get("custom_load")):
        raise WeightsError(
            f"weights 'imagenet' of {name}: timm has none to load: use 'none', a file, or {HUB_PREFIX} and a repository"
        )
    try:
        path = _first_hub_file(hub_id, HUB_FILES) if hub_id else _download(str(url))
    except _UnreachableError as error:
        where = f"not in {weights_dir}, " if weights_dir is not None else ""
        raise WeightsError(
            f"weights 'imagenet' of {name}: {where}not in the cache, and the network does not give them ({error}): "
            f"run once on a machine with a network, or put {name}.safetensors into a folder and name that with "
            "--weights-dir, or start from weights 'none' (--fix weights=none, where the space has that choice)"
        ) from error
    return FoundWeights(path)


def _locate_on_hub(weights: str) -> FoundWeights:
    repository = weights.removeprefix(HUB_PREFIX)
    try:
        path = _first_hub_file(repository, HUB_FILES)
        record = json.loads(_first_hub_file(repository, ("config.json",)).read_text(encoding="utf-8"))
    except (_UnreachableError, json.JSONDecodeError) as error:
        raise WeightsError(
            f"weights {weights}: not in the cache, and the hub does not give them ({error}): "
            "check the name, run once on a machine with a network, or name a downloaded file instead"
        ) from error
    return FoundWeights(path, {key: record["pretrained_cfg"][key] for key in ("mean", "std")} if _has(record) else {})


def _has(record: Any) -> bool:
    inner = record.get("pretrained_cfg") if isinstance(record, dict) else None
    return isinstance(inner, dict) and {"mean", "std"} <= set(inner)


class _UnreachableError(Exception):
    """The network gave no answer, or a refusal."""


def _first_hub_file(repository: str, names: tuple[str, ...]) -> Path:
    """The first of several files of a repository that exists, from the cache or else the hub."""
    try:
        for name in names:
            cached = try_to_load_from_cache(repository, name)
            if isinstance(cached, str):
                return Path(cached)
        for name in names:
            if _hub_has(repository, name):
                return Path(hf_hub_download(repository, name))
    except Exception as error:
        # The hub's client passes on the errors of whichever HTTP library its version uses.
        raise _UnreachableError(f"{type(error).__name__}: {error}") from error
    raise _UnreachableError(f"{repository} has no {' or '.join(names)}")


def _hub_has(repository: str, name: str) -> bool:
    """Ask once and briefly: hf_hub_download, asked at once, tries again for minutes where there is no network."""
    if constants.HF_HUB_OFFLINE:
        raise OSError("HF_HUB_OFFLINE is set")
    try:
        get_hf_file_metadata(hf_hub_url(repository, name), timeout=ANSWER_TIMEOUT_S)
    except EntryNotFoundError:
        return False
    return True


def _download(url: str) -> Path:
    """A file of weights that timm keeps outside the hub, from torch's cache or else the network."""
    path = Path(torch.hub.get_dir()) / "checkpoints" / url.rpartition("/")[2]
    if path.is_file():
        return path
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (an address out of timm's own table)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S):  # noqa: S310
            pass
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except (OSError, RuntimeError) as error:
        raise _UnreachableError(f"{type(error).__name__}: {error}") from error
    return path
