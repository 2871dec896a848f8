"""Command lines: `--help` is quick because it loads little, and the commands in the documents exist."""

import json
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = ("README.md", "CONTRIBUTING.md")
COMMANDS = (
    "search.run",
    "search.report",
    "search.simulate",
    "search.status",
    "search.check_cluster",
    "search.evaluate",
    "search.predict",
    "search.export",
    "galaxy_models.data.convert",
    "galaxy_models.train",
)
HEAVY = (
    "torch",
    "torchvision",
    "torchmetrics",
    "ray",
    "timm",
    "pandas",
    "optuna",
    "galsim",
    "matplotlib",
    "tensorboard",
)

PROBE = """
import json, runpy, sys
heavy, module, *words = sys.argv[1:]
sys.argv = [module, *words]
try:
    runpy.run_module(module, run_name="__main__", alter_sys=True)
except SystemExit as end:
    loaded = [name for name in heavy.split() if name in sys.modules]
    print(json.dumps({"code": end.code, "loaded": loaded}), file=sys.stderr)
"""


@cache
def run_help(module: str, *words: str, folder: Path = ROOT) -> tuple[str, int, list[str]]:
    """Run `python -m module words --help`: what it printed, its exit code, and the heavy modules it loaded."""
    command = [sys.executable, "-c", PROBE, " ".join(HEAVY), module, *words, "--help"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)
    lines = done.stderr.splitlines()
    assert done.returncode == 0, f"{shlex.join(command)}: {done.stderr}"
    assert lines, f"{module} --help did not exit"
    result = json.loads(lines[-1])
    return done.stdout, result["code"], result["loaded"]


@pytest.mark.parametrize(
    "words", [*((command,) for command in COMMANDS), ("galaxy_models.data.convert", "folder")], ids=" ".join
)
def test_help_loads_nothing_heavy(words: tuple[str, ...]) -> None:
    text, code, loaded = run_help(*words)
    assert code == 0
    assert text.startswith("usage:")
    assert loaded == []


def test_planted_heavy_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "galsim.py").touch()
    (tmp_path / "planted.py").write_text("import sys\nimport galsim\nsys.exit(0)\n")
    assert run_help("planted", folder=tmp_path) == ("", 0, ["galsim"])


def commands_in(markdown: str) -> list[list[str]]:
    """The words of each command in a document's code blocks: one a line, `\\` continues, `#` comments, `$` prompts."""
    blocks = re.findall(r"^```[a-z]*\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    commands = [line.removeprefix("$ ") for line in lines if re.match(r"(\$ )?(make|python -m|ray)\b", line)]
    return [shlex.split(command, comments=True) for command in commands]


def make_fault(words: list[str]) -> str | None:
    """The first target or variable that the Makefile does not have."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in words:
        name, is_variable, _ = word.partition("=")
        if not re.search(rf"^{re.escape(name)} *:{'=' if is_variable else '(?!=)'}", makefile, re.MULTILINE):
            return f"the Makefile has no {name}"
    return None


def module_fault(module: str, words: list[str]) -> str | None:
    """The first of a module, its options and space files that does not exist."""
    if not any((ROOT / module.replace(".", "/")).with_suffix(suffix).exists() for suffix in (".py", "")):
        return f"there is no module {module}"
    reader = words[:1] if module == "galaxy_models.data.convert" and words[:1] != ["--help"] else []
    known = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", run_help(module, *reader)[0]))
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in known:
            return f"{module} has no {word}"
        if word.startswith("spaces/") and not (ROOT / word).is_file():
            return f"there is no {word}"
    return None


def ray_fault(name: str, words: list[str]) -> str | None:
    """What Ray's own command line would say, without running it, or what is wrong with what it is to run on a head."""
    import click
    from ray.scripts.scripts import cli

    try:
        given = cli.commands[name].make_context(name, list(words)).params
    except KeyError:
        return f"ray has no {name}"
    except click.UsageError as error:
        return f"ray {name}: {error.format_message()}"
    if not (ROOT / given.get("cluster_config_file", "cluster.yaml")).is_file():
        return f"there is no {given['cluster_config_file']}"
    _, found, inner = given.get("cmd", "").partition("python -m ")
    return fault(["python", "-m", *shlex.split(inner)]) if found else None


def fault(words: list[str]) -> str | None:
    """What a command names that does not exist; other people's commands are not judged."""
    if words[0] == "make":
        return make_fault(words[1:])
    if words[0] == "ray":
        return ray_fault(words[1], words[2:])
    return module_fault(words[2], words[3:]) if words[2].startswith(("search.", "galaxy_models.")) else None


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_in_documents_exist(document: str) -> None:
    commands = commands_in((ROOT / document).read_text(encoding="utf-8"))
    assert commands, f"no command found in the code blocks of {document}"
    assert [f"{shlex.join(words)}: {found}" for words in commands if (found := fault(words))] == []


def test_commands_are_read_from_code_blocks() -> None:
    markdown = "make x\n```\n$ make test  # all\nls\n```\n\n```sh\npython -m a.b \\\n  --c 'd e'\n```\n"
    assert commands_in(markdown) == [["make", "test"], ["python", "-m", "a.b", "--c", "d e"]]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("make search NUM_TRIALS=3", None),
        ("make research", "no research"),
        ("make search NUM_TRAILS=3", "no NUM_TRAILS"),
        ("make NUM_TRIALS", "no NUM_TRIALS"),
        ("python -m search.walk", "no module search.walk"),
        ("python -m search.run --space spaces/cnn.py --num-trials=3", None),
        ("python -m search.run --num-trails 3", "no --num-trails"),
        ("python -m search.run --space spaces/none.py", "no spaces/none.py"),
        ("python -m galaxy_models.data.convert folder x --out y", None),
        ("python -m galaxy_models.data.convert folder x --recipes y", "no --recipes"),
        ("python -m venv .venv", None),
        ("ray up cluster.yaml", None),
        ("ray exec cluster.yaml --tmux 'cd x && python -m search.run --space spaces/cnn.py'", None),
        ("ray exec cluster.yaml 'cd x && python -m search.run --spaces spaces/cnn.py'", "no --spaces"),
        ("ray exec cluster.yaml", "Missing argument 'CMD'"),
        ("ray attach cluster.yaml --tmuxx", "No such option"),
        ("ray up clusters/none.yaml", "no clusters/none.yaml"),
        ("ray fly cluster.yaml", "ray has no fly"),
    ],
)
def test_planted_command_is_judged(command: str, expected: str | None) -> None:
    found = fault(shlex.split(command))
    assert found is None if expected is None else expected in str(found)
