"""Python that uses an exported network and needs nothing of this project."""

from galaxy_models.inference.formats import INPUT, Exported
from galaxy_models.inference.network import Network
from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task

# As the conversion does it, within one of 256 levels.
_READ = """
def read(path):
    \"\"\"An image file as the network expects it: (1, 3, {px}, {px}) in [0, 1].\"\"\"
    image = Image.open(path).convert("RGB")
    side = max(1, round({crop:g} * min(image.size)))
    left, top = (image.width - side) // 2, (image.height - side) // 2
    image = image.crop((left, top, left + side, top + side)).resize(({px}, {px}), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(image, dtype=np.float32)).permute(2, 0, 1)[None] / 255
"""

_TREE = """
# The Galaxy Zoo 2 decision tree: first and last column of each question, and the columns that lead to it.
QUESTIONS = {questions}


def outputs(logits):
    columns = {{}}
    for start, stop, parents in QUESTIONS:
        shares = torch.softmax(logits[:, start:stop], dim=1)
        if parents:
            shares = shares * torch.stack([columns[parent] for parent in parents]).sum(dim=0)[:, None]
        columns.update(zip(range(start, stop), shares.unbind(dim=1)))
    return torch.stack([columns[index] for index in range({num_outputs})], dim=1)
"""

_SOFTMAX = """
def outputs(logits):
    return torch.softmax(logits, dim=1)
"""


def usage_snippet(network: Network, exported: Exported, *, crop: float) -> str:
    """A Python file that defines `read(path)`, from an image file to a batch, and `answer(images)`.

    Args:
        network: what was exported.
        exported: as what.
        crop: share of each image's shorter side to keep.
    """
    read = _READ.format(px=network.px, crop=crop)
    imports = ["import numpy as np", "import torch", "from PIL import Image"]
    if exported.plain is not None:
        imports += [*exported.plain.imports, "from safetensors.torch import load_file"]
        body = _safetensors(network, exported)
    elif exported.file.endswith(".onnx"):
        imports.append("import onnxruntime")
        body = [
            f'session = onnxruntime.InferenceSession("{exported.file}", providers=["CPUExecutionProvider"])',
            "\n",
            "def answer(images):",
            f'    return torch.from_numpy(session.run(None, {{"{INPUT}": images.numpy()}})[0])',
        ]
    else:
        body = [
            f'program = torch.export.load("{exported.file}").module()',
            "\n",
            "def answer(images):",
            "    with torch.inference_mode():",
            "        return program(images)",
        ]
    names = f"NAMES = {list(network.task.names)!r}"
    # `from` after `import`, each by name.
    ordered = sorted(set(imports), key=lambda line: (line.startswith("from"), line))
    return "\n".join([*ordered, "", names, *body, "", read.rstrip()]) + "\n"


def _safetensors(network: Network, exported: Exported) -> list[str]:
    assert exported.plain is not None
    mean, std = (values.flatten().tolist() for values in (network.model.mean, network.model.std))
    return [
        *exported.plain.source,
        f'model.load_state_dict(load_file("{exported.file}"))',
        "model.eval()",
        f"MEAN = torch.tensor({mean}).view(1, 3, 1, 1)",
        f"STD = torch.tensor({std}).view(1, 3, 1, 1)",
        "",
        _outputs(network.task).rstrip(),
        "\n",
        "def answer(images):",
        "    with torch.inference_mode():",
        "        return outputs(model((images - MEAN) / STD))",
    ]


def _outputs(task: Task) -> str:
    if task.kind == "classes":
        return _SOFTMAX
    questions = [(question.columns.start, question.columns.stop, question.parents) for question in GZ2.questions]
    return _TREE.format(questions=questions, num_outputs=task.num_outputs)
