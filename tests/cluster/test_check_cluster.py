"""`python -m search.check_cluster`: one clear line for what Ray answers with a traceback, or not for many minutes."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from search import check_cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a token and without credentials; the folder is the checkout's."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    # Whatever goes wrong here, nobody outside is asked.
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(ROOT)
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("0123")
    token.chmod(0o600)
    return tmp_path / "home"


def write(folder: Path, name: str, **changes: Any) -> Path:
    """A cluster file of the repository with other values at its top; None takes a key away."""
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8")) | changes
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))
    return path


def faults(path: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """What the command says is wrong, a line each."""
    code = check_cluster.main([str(path), "--timeout", "1"])
    printed = capsys.readouterr()
    if code == 0:
        assert printed.out == f"{path}: ready for `ray up`\n"
        return []
    assert code == 2
    lines = printed.err.splitlines()
    assert all(line.startswith(f"error: {path}: ") for line in lines)
    return [line.removeprefix(f"error: {path}: ") for line in lines]


@contextlib.contextmanager
def server(greeting: bytes, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Something that listens on loopback where ssh servers are looked for."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        monkeypatch.setattr(check_cluster, "_SSH_PORT", listening.getsockname()[1])
        listening.settimeout(5)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.sendall(greeting)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def local(folder: Path, host: str = "127.0.0.1") -> Path:
    return write(folder, "clusters/onprem.yaml", provider={"type": "local", "head_ip": host, "worker_ips": []})


def test_host_with_an_ssh_server_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(b"SSH-2.0-OpenSSH_9.6\r\n", monkeypatch):
        assert faults(local(tmp_path), capsys) == []


def test_other_server_is_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with server(b"HTTP/1.1 400\r\n", monkeypatch):
        [fault] = faults(local(tmp_path), capsys)
    assert fault.endswith("answers, but not as an ssh server: mend the address")


def test_unreachable_hosts_are_all_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check_cluster, "_SSH_PORT", 1)
    provider = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": ["127.0.0.2", "127.0.0.3"]}
    found = faults(write(tmp_path, "clusters/onprem.yaml", provider=provider), capsys)
    expected = "no ssh server at port 1 (Connection refused), expected one: start it, or mend the address"
    assert found == [f"127.0.0.{number}: {expected}" for number in (1, 2, 3)]


def test_from_outside_the_head_alone_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = {"type": "local", "head_ip": "192.0.2.10", "worker_ips": ["192.0.2.11"], "external_head_ip": "127.0.0.1"}
    with server(b"SSH-2.0-x\r\n", monkeypatch):
        assert faults(write(tmp_path, "clusters/onprem.yaml", provider=provider), capsys) == []


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("cluster.yaml", {"cluster_name": None}, "top: 'cluster_name' is a required property: mend it"),
        ("cluster.yaml", {"provider": {"type": "aws"}}, "no `provider.region`, which Ray needs: add it"),
        ("cluster.yaml", {"auth": {}}, "no `auth.ssh_user`, which Ray needs: add it"),
        (
            "cluster.yaml",
            {"idle_timeout": 5},
            "top: Additional properties are not allowed ('idle_timeout' was unexpected): mend it",
        ),
        ("cluster.yaml", {"max_workers": "8"}, "max_workers: '8' is not of type 'integer': mend it"),
        (
            "clusters/onprem.yaml",
            {"provider": {"type": "local", "head_ip": "192.0.2.10"}},
            "no `provider.worker_ips`, which Ray needs: add it",
        ),
        (
            "cluster.yaml",
            {"provider": {"type": "awss"}},
            "provider.type is 'awss', expected one of aws, local: mend it",
        ),
    ],
)
def test_fault_of_the_file_is_told_in_a_line(
    name: str, changes: dict[str, Any], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert faults(write(tmp_path, name, **changes), capsys) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, "not there, expected a cluster file"),
        ("a: [1", "no YAML (while parsing a flow sequence"),
        ("- 1\n", "no keys at its top, expected a cluster file"),
    ],
)
def test_file_that_is_none_is_told(
    text: str | None, expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "x.yaml").write_text(text)
    [fault] = faults(tmp_path / "x.yaml", capsys)
    assert fault.startswith(expected)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (None, "~/.ray/auth_token: not there, expected the token of your clusters: make it as the README says"),
        (
            0o644,
            "~/.ray/auth_token: others on this machine can read it, expected mode 600: chmod 600 ~/.ray/auth_token",
        ),
    ],
)
def test_token_is_asked_for(
    mode: int | None,
    expected: str,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    token = home / ".ray" / "auth_token"
    token.unlink() if mode is None else token.chmod(mode)
    with server(b"SSH-2.0-x\r\n", monkeypatch):
        assert faults(local(tmp_path), capsys) == [expected]


def test_file_mounts_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    mounts = {"~/galaxy-search/search": "search"}
    provider = {"type": "local", "head_ip": "127.0.0.1", "worker_ips": []}
    with server(b"SSH-2.0-x\r\n", monkeypatch):
        found = faults(write(tmp_path, "clusters/onprem.yaml", provider=provider, file_mounts=mounts), capsys)
    assert found == [
        "search: not there, expected it for the nodes: call this from the checkout's folder, or mend file_mounts",
        "no ~/.ray/auth_token among file_mounts, without which nodes refuse each other: see cluster.yaml",
    ]


def test_missing_credentials_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'galaxy-search[aws]'")
    [fault] = faults(Path("cluster.yaml"), capsys)
    assert fault == (
        "AWS does not know you (Unable to locate credentials): "
        "give it your credentials, with `aws configure` for example"
    )


def test_credentials_are_enough_for_aws(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    moto = pytest.importorskip("moto", reason="moto is not installed: pip install 'galaxy-search[test]'")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # moto answers in this process, and lets no request out
    with moto.mock_aws():
        assert faults(Path("cluster.yaml"), capsys) == []
