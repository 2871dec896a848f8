"""The walls between the rooms, read from the source: who may import whom, and what nobody may call."""

import ast
import graphlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("galaxy_models", "search", "spaces")
MAX_LINES = 400

# Breaches that stand, each with its reason. An entry that is no longer needed fails too.
ALLOWED_CALLS = {
    ("galaxy_models/models/blueprint.py", "pickle"): "reads what the same object wrote, in memory that nobody else has",
    ("galaxy_models/models/galaxy_model.py", "torch.default_generator.manual_seed"): "inside fork_rng, which restores",
    ("galaxy_models/models/pretrained.py", "pickle"): "for the error by which torch.load refuses a file",
    ("galaxy_models/training/checkpoint.py", "pickle"): "for the error by which torch.load refuses a file",
    ("galaxy_models/training/loop.py", "torch.manual_seed"): "dropout knows no other generator; inside fork_rng",
}

UNPICKLERS = ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve")
FORBIDDEN_CALLS = {
    "eval": "runs whatever text it is given",
    "exec": "runs whatever text it is given",
    "__import__": "hides an import from this test",
    "yaml.load": "makes any object: use yaml.safe_load",
    "yaml.unsafe_load": "makes any object: use yaml.safe_load",
    "pandas.read_pickle": "makes any object: use Parquet",
    "torch.seed": "seeds the global generator",
    "torch.manual_seed": "seeds the global generator",
    "torch.random.manual_seed": "seeds the global generator",
    "torch.default_generator.manual_seed": "seeds the global generator",
    "torch.cuda.manual_seed": "seeds the global generator",
    "torch.cuda.manual_seed_all": "seeds the global generator",
}
TORCH_DRAWS = ("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson")
NUMPY_GENERATORS = ("default_rng", "Generator", "SeedSequence", "BitGenerator", "PCG64", "PCG64DXSM", "Philox", "SFC64")


@dataclass(frozen=True)
class Import:
    """One import: the dotted name it asks for, and when it happens."""

    target: str
    when: str  # "load", "call" (inside a function) or "typing" (under TYPE_CHECKING)
    line: int


@dataclass(frozen=True)
class Module:
    """A module's path in the repository and its source."""

    path: str
    text: str

    @property
    def name(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    @property
    def package(self) -> str:
        return self.name if self.path.endswith("/__init__.py") else self.name.rpartition(".")[0]

    def imports(self) -> list[Import]:
        return list(_imports(ast.parse(self.text, self.path), self.package, "load"))


def _dotted(node: ast.AST) -> str:
    """`a.b.c` for a name or a chain of attributes, "" for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{before}.{node.attr}" if (before := _dotted(node.value)) else ""
    return node.id if isinstance(node, ast.Name) else ""


def _imports(node: ast.AST, package: str, when: str) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        yield from (Import(alias.name, when, node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
        base = [*above, *([node.module] if node.module else [])]
        yield from (Import(".".join([*base, alias.name]), when, node.lineno) for alias in node.names)
    elif isinstance(node, ast.Call) and _dotted(node.func).endswith("import_module"):
        yield from (Import(str(arg.value), when, node.lineno) for arg in node.args if isinstance(arg, ast.Constant))
    for field, value in ast.iter_fields(node):
        inside = when
        if when == "load" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and field == "body":
            inside = "call"
        if isinstance(node, ast.If) and field == "body" and _dotted(node.test).endswith("TYPE_CHECKING"):
            inside = "typing"
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from _imports(child, package, inside)


def within(target: str, *names: str) -> bool:
    return any(target == name or target.startswith(f"{name}.") for name in names)


def layer_breach(module: Module, target: str) -> str | None:
    """The wall that an import breaks, if any. Types alone count as well: they tie two rooms as firmly."""
    room = module.name.partition(".")[0]
    if room == "galaxy_models" and within(target, "ray", "optuna", "search", "spaces"):
        return "galaxy_models knows nothing of the search"
    if room == "search" and within(target, "spaces"):
        return "search loads a space by its file's name only"
    if room == "spaces" and not (
        within(target, "galaxy_models.config", "optuna") or target.partition(".")[0] in sys.stdlib_module_names
    ):
        return "a space imports galaxy_models.config, optuna and the standard library"
    if within(target, "timm") and not within(module.name, "galaxy_models.models", "galaxy_models.training.optim"):
        return "timm stays inside galaxy_models/models and galaxy_models/training/optim.py"
    return None


def layer_breaches(modules: list[Module]) -> list[str]:
    return [
        f"{module.path}:{found.line}: imports {found.target}: {reason}"
        for module in modules
        for found in module.imports()
        if (reason := layer_breach(module, found.target))
    ]


def import_cycle(modules: list[Module], *when: str) -> str | None:
    """One cycle among the modules' imports of these kinds, as `a -> b -> a`.

    Importing a module also imports the packages around it; those that it shares with the importer are
    already under way and make no cycle.
    """
    names = {module.name for module in modules}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for module in modules:
        for target in (found.target for found in module.imports() if found.when in when):
            parts = target.split(".")
            above = [".".join(parts[: i + 1]) for i in range(len(parts)) if ".".join(parts[: i + 1]) in names]
            graph[module.name] |= {name for name in above[:-1] if not within(module.name, name)}
            graph[module.name].update(above[-1:])
        graph[module.name].discard(module.name)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return " -> ".join(reversed(error.args[1]))
    return None


def _aliases(tree: ast.AST) -> dict[str, str]:
    """What each imported local name stands for, such as np -> numpy."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _call_breach(name: str, call: ast.Call) -> str | None:
    keywords = {word.arg: ast.unparse(word.value) for word in call.keywords}
    room, _, last = name.rpartition(".")
    unseeded = not (call.args or keywords)
    rules = {
        "makes any object: weights_only=True": name == "torch.load" and keywords.get("weights_only") != "True",
        "makes any object: no allow_pickle": name == "numpy.load" and keywords.get("allow_pickle", "False") != "False",
        "draws from NumPy's global generator": room == "numpy.random" and last not in NUMPY_GENERATORS,
        "draws from Python's global generator": room == "random" and last != "Random",
        "draws from torch's global generator": room == "torch" and last in TORCH_DRAWS and "generator" not in keywords,
        "has no seed": unseeded and name in ("numpy.random.default_rng", "random.Random"),
    }
    return FORBIDDEN_CALLS.get(name) or next((reason for reason, broken in rules.items() if broken), None)


def call_breaches(modules: list[Module]) -> dict[tuple[str, str], str]:
    """What nobody may import or call: {(path, dotted name): where and why}."""
    breaches = {}
    for module in modules:
        tree = ast.parse(module.text, module.path)
        aliases = _aliases(tree)
        for found in module.imports():
            if within(found.target, *UNPICKLERS):
                name = found.target.partition(".")[0]
                breaches[module.path, name] = f"{module.path}:{found.line}: {name} makes any object"
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            first, *rest = _dotted(call.func).split(".")
            name = ".".join([aliases.get(first, first), *rest])
            if reason := _call_breach(name, call):
                breaches[module.path, name] = f"{module.path}:{call.lineno}: {name}: {reason}"
    return breaches


def too_long(modules: list[Module]) -> list[str]:
    lengths = {module.path: len(module.text.splitlines()) for module in modules}
    return [f"{path}: {lines} lines, at most {MAX_LINES}" for path, lines in lengths.items() if lines > MAX_LINES]


@cache
def read_modules(*folders: str) -> list[Module]:
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return [Module(file.relative_to(ROOT).as_posix(), file.read_text(encoding="utf-8")) for file in files]


def test_modules_are_found() -> None:
    names = {module.name for module in read_modules(*PACKAGES)}
    assert {"galaxy_models", "galaxy_models.config", "search.space", "spaces.cnn"} <= names


def test_imports_respect_the_rooms() -> None:
    assert layer_breaches(read_modules(*PACKAGES)) == []


@pytest.mark.parametrize("when", [("load",), ("load", "call")], ids=["when loaded", "and when called"])
def test_imports_make_no_cycle(when: tuple[str, ...]) -> None:
    assert import_cycle(read_modules(*PACKAGES), *when) is None


def test_nothing_forbidden_is_called() -> None:
    breaches = call_breaches(read_modules(*PACKAGES, "benchmarks"))
    assert [where for key, where in breaches.items() if key not in ALLOWED_CALLS] == []
    assert [key for key in ALLOWED_CALLS if key not in breaches] == [], "allowed, but no longer called: delete"


def test_no_file_is_too_long() -> None:
    assert too_long(read_modules(*PACKAGES, "benchmarks", "tests")) == []


# Each wall finds a breach that is planted.


@pytest.mark.parametrize(
    ("path", "text", "when"),
    [
        ("galaxy_models/data/x.py", "import ray", "load"),
        ("galaxy_models/data/x.py", "def f():\n    from optuna.trial import Trial", "call"),
        ("galaxy_models/data/x.py", "class A:\n    from search.run import main", "load"),
        ("galaxy_models/x.py", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import spaces.cnn", "typing"),
        ("galaxy_models/x.py", "import importlib\nf = lambda: importlib.import_module('ray')", "call"),
        ("galaxy_models/x.py", "from .. import search", "load"),
        ("spaces/x.py", "import torch", "load"),
        ("spaces/x.py", "from galaxy_models.training import loop", "load"),
        ("spaces/x.py", "from galaxy_models import config_of_another_kind", "load"),
        ("search/report/x.py", "try:\n    import spaces\nexcept ImportError:\n    pass", "load"),
        ("search/x.py", "def f():\n    import timm", "call"),
        ("galaxy_models/training/loop.py", "from timm import optim", "load"),
        ("galaxy_models/training/optimal.py", "import timm", "load"),
    ],
)
def test_planted_import_is_found(path: str, text: str, when: str) -> None:
    module = Module(path, text)
    assert len(layer_breaches([module])) == 1
    assert module.imports()[-1].when == when


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("spaces/x.py", "import math\nimport optuna\nfrom galaxy_models.config import TrainConfig"),
        ("galaxy_models/training/optim.py", "import timm.optim"),
        ("galaxy_models/models/x.py", "def f():\n    import timm"),
        ("search/x.py", "import ray\nimport optuna\nfrom galaxy_models.task import Task\nimport raytracer"),
        ("galaxy_models/x.py", "import rays"),
    ],
)
def test_permitted_import_is_let_through(path: str, text: str) -> None:
    assert layer_breaches([Module(path, text)]) == []


@pytest.mark.parametrize(
    ("one", "two", "cycle"),
    [
        ("from p.b import f", "import p.a", "load"),
        ("from . import b", "from .a import f", "load"),
        ("from p import b", "def f():\n    from p import a", "call"),
        ("def f():\n    import p.b", "def f():\n    import p.a", "call"),
        ("import p.b", "if TYPE_CHECKING:\n    import p.a", None),
        ("import p.b", "", None),
    ],
)
def test_planted_cycle_is_found(one: str, two: str, cycle: str | None) -> None:
    modules = [Module("p/__init__.py", ""), Module("p/a.py", one), Module("p/b.py", two)]
    expected = {"p.a -> p.b -> p.a", "p.b -> p.a -> p.b"}
    assert (import_cycle(modules, "load") in expected) == (cycle == "load")
    assert (import_cycle(modules, "load", "call") in expected) == (cycle is not None)


def test_planted_cycle_through_a_package_is_found() -> None:
    modules = [
        Module("p/__init__.py", "from p.a import f"),
        Module("p/a.py", "import q.b"),
        Module("q/b.py", "import p.c"),
    ]
    assert import_cycle([*modules, Module("p/c.py", "")], "load") is not None
    siblings = [modules[0], Module("p/a.py", "import p.c"), Module("p/c.py", "")]
    assert import_cycle(siblings, "load") is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("import pickle", "pickle"),
        ("def f():\n    from pickle import loads", "pickle"),
        ("import torch\ntorch.load('x')", "torch.load"),
        ("from torch import load as read\nread('x', weights_only=False)", "torch.load"),
        ("import yaml\nyaml.load('x')", "yaml.load"),
        ("import numpy as np\nnp.load('x', allow_pickle=True)", "numpy.load"),
        ("x = eval('1')", "eval"),
        ("exec('x = 1')", "exec"),
        ("__import__('ray')", "__import__"),
        ("import numpy as np\nnp.random.seed(0)", "numpy.random.seed"),
        ("from numpy.random import rand\nrand(3)", "numpy.random.rand"),
        ("from numpy import random\nrandom.rand(3)", "numpy.random.rand"),
        ("import numpy as np\nnp.random.default_rng()", "numpy.random.default_rng"),
        ("import random\nrandom.shuffle([])", "random.shuffle"),
        ("import random\nrandom.Random()", "random.Random"),
        ("from torch import manual_seed\nmanual_seed(0)", "torch.manual_seed"),
        ("import torch\ntorch.rand(3)", "torch.rand"),
    ],
)
def test_planted_call_is_found(text: str, name: str) -> None:
    assert list(call_breaches([Module("search/x.py", text)])) == [("search/x.py", name)]


@pytest.mark.parametrize(
    "text",
    [
        "import torch\ntorch.load('x', weights_only=True)\ntorch.rand(3, generator=g)\nnet.eval()",
        "import numpy as np\nnp.random.default_rng(7).random(3)\nnp.load('x')",
        "import random\nrandom.Random(7).random()",
        "import yaml\nyaml.safe_load('x')",
    ],
)
def test_permitted_call_is_let_through(text: str) -> None:
    assert call_breaches([Module("search/x.py", text)]) == {}


def test_planted_length_is_found() -> None:
    assert too_long([Module("x.py", "\n" * MAX_LINES)]) == []
    assert len(too_long([Module("x.py", "\n" * (MAX_LINES + 1))])) == 1
