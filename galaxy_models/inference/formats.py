"""A trained network in formats that need nothing of this project: safetensors, ONNX and torch's exported programs."""

import importlib.util
import logging
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from galaxy_models.errors import ConfigError
from galaxy_models.inference.network import Network
from galaxy_models.models.galaxy_model import GalaxyModel
from galaxy_models.models.plain import PlainNetwork, plain_network

FORMATS = {"safetensors": "model.safetensors", "onnx": "model.onnx", "torch-export": "model.pt2"}
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUT, OUTPUT = "images", "answers"
# A protocol buffer holds at most 2 GB; above this the weights lie beside it in a second file.
_MAX_ONNX_BYTES = 1_800_000_000

Answer = Callable[[Tensor], Tensor]
# Of an input's dimensions, those whose length is free.
Shapes = dict[str, dict[int, torch.export.Dim]]


@dataclass(frozen=True)
class Exported:
    """A network that was written.

    Attributes:
        file: name of the file.
        answer: the network read back: (B, 3, px, px) float32 in [0, 1] to (B, A) probabilities or vote fractions.
        plain: what the network is without this project; only for safetensors.
    """

    file: str
    answer: Answer
    plain: PlainNetwork | None = None


class Answering(nn.Module):
    """A network from images to answers: normalisation and softmax, or decision tree, inside."""

    def __init__(self, model: GalaxyModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Answer: (B, 3, px, px) float32 in [0, 1] to (B, A)."""
        return self.model.outputs(self.model(images))


def check_packages(kind: str) -> None:
    """Check that a format's packages are here.

    Raises:
        ConfigError: one is missing.
    """
    missing = [name for name in ONNX_PACKAGES if kind == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            f"--format onnx: the package {missing[0]} is not installed, expected {', '.join(ONNX_PACKAGES)}: "
            "pip install 'galaxy-search[export]', or choose another format"
        )


def export_network(network: Network, kind: str, folder: Path) -> Exported:
    """Write a network and read it back.

    Args:
        network: the network, on the processor.
        kind: one of `FORMATS`.
        folder: an existing folder.
    """
    path = folder / FORMATS[kind]
    if kind == "safetensors":
        return _export_safetensors(network, path)
    # Any number of images at a time; with one as an example, torch would take it for a constant.
    example = torch.zeros(2, 3, network.px, network.px)
    answering = Answering(network.model.to(memory_format=torch.contiguous_format).eval())
    shapes: Shapes = {INPUT: {0: torch.export.Dim("batch", min=1)}}
    return (_export_onnx if kind == "onnx" else _export_program)(answering, example, shapes, path)


def _export_safetensors(network: Network, path: Path) -> Exported:
    plain = plain_network(network.model, network.config, px=network.px)
    tensors = {
        name: tensor.detach().clone(memory_format=torch.contiguous_format)
        for name, tensor in plain.module.state_dict().items()
    }
    path.write_bytes(save(tensors, metadata={"format": "pt"}))
    plain.module.load_state_dict(load_file(path))
    mean, std, outputs = network.model.mean, network.model.std, network.model.outputs
    return Exported(path.name, lambda images: outputs(plain.module((images - mean) / std)), plain)


def _export_program(answering: Answering, example: Tensor, shapes: Shapes, path: Path) -> Exported:
    program = torch.export.export(answering, (example,), dynamic_shapes=shapes)
    torch.export.save(program, path)
    return Exported(path.name, torch.export.load(path).module())


def _export_onnx(answering: Answering, example: Tensor, shapes: Shapes, path: Path) -> Exported:
    import onnxruntime  # type: ignore[import-untyped]

    num_bytes = sum(tensor.numel() * tensor.element_size() for tensor in answering.state_dict().values())
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    logging.getLogger("onnxscript").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # Of the exporter about its own parts; what it writes is compared with the network afterwards.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            answering,
            (example,),
            path,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=shapes,
            dynamo=True,
            external_data=num_bytes > _MAX_ONNX_BYTES,
            verbose=False,
        )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return Exported(path.name, lambda images: torch.from_numpy(session.run(None, {INPUT: images.numpy()})[0]))
