"""`python -m search.check_cluster`: what `ray up` would stumble over, said before it starts anything that costs."""

import argparse
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from galaxy_models.cli import run_command
from search.errors import ClusterError

TOKEN = "~/.ray/auth_token"
_SSH_PORT = 22
# Beyond those that Ray's schema asks for: without them `ray up` ends in a traceback, some time after it started.
_NEEDED = {"aws": ("region",), "local": ("head_ip", "worker_ips")}


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ClusterError(f"{path}: not there, expected a cluster file: name one, such as cluster.yaml") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise ClusterError(f"{path}: no YAML ({words}), expected a cluster file: mend it") from None
    if not isinstance(config, dict):
        raise ClusterError(f"{path}: no keys at its top, expected a cluster file for Ray: see cluster.yaml")
    return config


def _schema_faults(config: dict[str, Any]) -> list[str]:
    """What Ray's own schema finds; `ray up` prints the whole file and the whole schema with it."""
    import json

    import jsonschema
    import ray.autoscaler

    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text(encoding="utf-8"))
    found = jsonschema.validators.validator_for(schema)(schema).iter_errors(config)
    return [f"{'.'.join(map(str, error.absolute_path)) or 'top'}: {error.message:.200}: mend it" for error in found]


def _missing_keys(config: dict[str, Any]) -> list[str]:
    provider = config["provider"]
    if provider["type"] not in _NEEDED:
        return [f"provider.type is {provider['type']!r}, expected one of {', '.join(_NEEDED)}: mend it"]
    lacking = [] if config.get("auth", {}).get("ssh_user") else ["auth.ssh_user"]
    lacking += [f"provider.{key}" for key in _NEEDED[provider["type"]] if provider.get(key) is None]
    return [f"no `{name}`, which Ray needs: add it" for name in lacking]


def _file_faults(config: dict[str, Any]) -> list[str]:
    mounts = {str(local) for local in config.get("file_mounts", {}).values()}
    faults = [
        f"{local}: not there, expected it for the nodes: call this from the checkout's folder, or mend file_mounts"
        for local in sorted(mounts - {TOKEN})
        if not Path(local).expanduser().exists()
    ]
    token = Path(TOKEN).expanduser()
    if TOKEN not in mounts:
        faults.append(f"no {TOKEN} among file_mounts, without which nodes refuse each other: see cluster.yaml")
    elif not token.exists():
        faults.append(f"{TOKEN}: not there, expected the token of your clusters: make it as the README says")
    elif token.stat().st_mode & 0o077:
        faults.append(f"{TOKEN}: others on this machine can read it, expected mode 600: chmod 600 {TOKEN}")
    return faults


def _ssh_fault(host: str, timeout_s: float) -> str | None:
    try:
        with socket.create_connection((host, _SSH_PORT), timeout_s) as connection:
            connection.settimeout(timeout_s)
            greeting = connection.recv(8)
    except OSError as error:
        reason = error.strerror or error
        return f"{host}: no ssh server at port {_SSH_PORT} ({reason}), expected one: start it, or mend the address"
    if not greeting.startswith(b"SSH-"):
        return f"{host}: port {_SSH_PORT} answers, but not as an ssh server: mend the address"
    return None


def _host_faults(provider: dict[str, Any], timeout_s: float) -> list[str]:
    # Whoever calls from outside the hosts' network reaches the head alone.
    outside = provider.get("external_head_ip")
    hosts = [outside] if outside else [provider["head_ip"], *provider["worker_ips"]]
    with ThreadPoolExecutor(max_workers=32) as pool:
        return [fault for fault in pool.map(lambda host: _ssh_fault(str(host), timeout_s), hosts) if fault]


def _aws_faults(provider: dict[str, Any]) -> list[str]:
    try:
        import boto3
        import botocore.exceptions
    except ImportError:
        return ["boto3 is not installed, and Ray needs it for AWS: pip install 'galaxy-search[aws]'"]
    try:
        # A session of its own: the usual one remembers credentials that may be gone.
        boto3.Session(region_name=provider["region"]).client("sts").get_caller_identity()
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, ValueError) as error:
        return [f"AWS does not know you ({error}): give it your credentials, with `aws configure` for example"]
    return []


def check_cluster(path: Path, *, timeout_s: float) -> list[str]:
    """Say what is wrong with a cluster file and with what it names; nothing is started.

    Args:
        path: the file.
        timeout_s: how long an ssh server may take to answer.

    Returns:
        A fault each, in words. What lies outside the file is looked at when the file itself is right.

    Raises:
        ClusterError: if it cannot be read at all.
    """
    config = _read(path)
    if faults := _schema_faults(config) or _missing_keys(config):
        return faults
    provider = config["provider"]
    beyond = _host_faults(provider, timeout_s) if provider["type"] == "local" else _aws_faults(provider)
    return _file_faults(config) + beyond


def main(arguments: list[str] | None = None) -> int:
    """Check a cluster file from the command line.

    Returns:
        0 if `ray up` may be called; 2 with a line for each fault.
    """
    about = "Say what `ray up` would stumble over, and start nothing."
    parser = argparse.ArgumentParser(prog="python -m search.check_cluster", description=about)
    parser.add_argument("file", type=Path, help="the cluster file, such as cluster.yaml")
    parser.add_argument("--timeout", type=float, default=10, metavar="S", help="seconds a host may take to answer (10)")
    options = parser.parse_args(arguments)

    def command() -> int:
        if faults := check_cluster(options.file, timeout_s=options.timeout):
            raise ClusterError("\nerror: ".join(f"{options.file}: {fault}" for fault in faults))
        print(f"{options.file}: ready for `ray up`")
        return 0

    return run_command(command)


if __name__ == "__main__":
    sys.exit(main())
