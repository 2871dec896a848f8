"""What is in the repository's files, whatever their kind."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# The project speaks of itself alone: no place on anyone's machine, no host that serves packages.
FORBIDDEN = re.compile(
    r"(?<![\w.~])/([w]ork|tmp/[w]|root|home/\w+|Users/\w+)/|(?<![\w.~])/tmp/[w]\b"
    r"|\bpypi\.org|\bpythonhosted\.org|\bdownload\.pytorch\.org"
)


def text_faults(path: str, content: bytes) -> list[str]:
    """What is wrong with one file; nothing is, if it is empty or no text."""
    if not content or b"\0" in content:
        return []
    faults = [] if content.endswith(b"\n") else [f"{path}: no newline at the end"]
    if b"\r" in content:
        faults.append(f"{path}: carriage returns")
    lines = content.decode().splitlines()
    found = [(number, match[0]) for number, line in enumerate(lines, 1) if (match := FORBIDDEN.search(line))]
    return faults + [f"{path}:{number}: names {name}" for number, name in found]


def test_tracked_files_are_clean() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [path for path in listed.split("\0") if path and (ROOT / path).is_file()]
    assert "pyproject.toml" in files
    assert [fault for path in files for fault in text_faults(path, (ROOT / path).read_bytes())] == []


@pytest.mark.parametrize(
    ("parts", "num_faults"),
    [
        (["", "work", "main"], 1),
        (["cd ", "tmp", "w"], 1),
        (["see ", "home", "ann", "x"], 1),
        (["", "root", "x"], 1),
        (["https:", "", "pypi" + ".org", "simple"], 1),
        (["frame", "work", "x"], 0),
        (["~", "work", "x"], 0),
        (["", "tmp", "west"], 0),
    ],
)
def test_planted_place_is_found(parts: list[str], num_faults: int) -> None:
    assert len(text_faults("x.md", ("/".join(parts) + "\n").encode())) == num_faults


@pytest.mark.parametrize(("content", "num_faults"), [(b"x", 1), (b"x\r\n", 1), (b"x\n", 0), (b"", 0), (b"\0x", 0)])
def test_planted_ending_is_found(content: bytes, num_faults: int) -> None:
    assert len(text_faults("x.md", content)) == num_faults
