"""The cluster files of the repository: Ray takes them, and what they promise is in them."""

import copy
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
RAY_FILES = ("cluster.yaml", "clusters/onprem.yaml")
KUBERAY = "clusters/kuberay.yaml"
# The fields of KubeRay 1.7 that are used; KubeRay's API server drops others without a word.
CONTAINER = {"name", "image", "env", "resources", "volumeMounts"}
POD = {"containers", "volumes", "tolerations"}
CLUSTER = {
    "rayVersion",
    "authOptions",
    "enableInTreeAutoscaling",
    "autoscalerOptions",
    "headGroupSpec",
    "workerGroupSpecs",
}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def read(name: str) -> dict[str, Any]:
    content = yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def secrets(text: str) -> list[str]:
    """What looks like a key, a token or a password with a value."""
    patterns = (
        r"\bAKIA[0-9A-Z]{16}\b",
        r"-----BEGIN [A-Z ]*PRIVATE KEY",
        r"(?i)\b(?:aws_secret_access_key|aws_credentials|ray_auth_token|password|token)\w*\s*[:=]\s*[\"']?\w[^\s\"']{7,}",
        r"\b[0-9a-f]{32,}\b",
    )
    return [match[0] for pattern in patterns for match in re.finditer(pattern, text)]


def ray_start(config: dict[str, Any], role: str) -> str:
    [command] = [command for command in config[f"{role}_start_ray_commands"] if "ray start" in command]
    return str(command)


def test_every_yaml_is_checked_here() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout: no list of tracked files")
    listed = subprocess.run(
        ["git", "ls-files", "*.yaml", "*.yml"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(listed.stdout.split()) == {*RAY_FILES, KUBERAY}


@pytest.mark.parametrize("name", RAY_FILES)
def test_ray_takes_the_file(name: str) -> None:
    config = read(name)
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    prepared = prepare_config(copy.deepcopy(config))
    validate_config(prepared)
    assert prepared["available_node_types"][prepared["head_node_type"]]


@pytest.mark.parametrize("name", [*RAY_FILES, KUBERAY, "clusters/aws-roles.json", "clusters/node_env.sh"])
def test_no_secret_is_in_a_file(name: str) -> None:
    assert secrets((ROOT / name).read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "text",
    [
        "  aws_secret_access_key: wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY",
        "RAY_AUTH_TOKEN=" + "ab12" * 4,
        "x: AKIA" + "ABCDEFGH" * 2,
        "-----BEGIN OPENSSH PRIVATE KEY-----",
        "token: '0123456789ab'",
    ],
)
def test_planted_secret_is_found(text: str) -> None:
    assert len(secrets(text)) >= 1


@pytest.mark.parametrize("name", RAY_FILES)
@pytest.mark.parametrize("role", ["head", "worker"])
def test_nodes_start_with_the_token_and_all_threads(name: str, role: str) -> None:
    config = read(name)
    before = ray_start(config, role).partition("ray start")[0]
    assert ". ~/galaxy-search/clusters/node_env.sh;" in before
    assert "unset OMP_NUM_THREADS;" in before
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"


@pytest.mark.parametrize("name", RAY_FILES)
def test_dashboard_is_on_loopback(name: str) -> None:
    config = read(name)
    assert "--dashboard-host=127.0.0.1" in ray_start(config, "head").split()
    everything = " ".join(config["head_start_ray_commands"] + config["worker_start_ray_commands"])
    assert "0.0.0.0" not in everything


@pytest.mark.parametrize("name", RAY_FILES)
def test_mounts_are_what_the_project_is_installed_from(name: str) -> None:
    config = read(name)
    mounts = {source for source in config["file_mounts"].values() if not source.startswith("~")}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    packages = set(re.findall(r'"(\w+)\*"', re.search(r"^include = (.*)$", project, re.MULTILINE)[1]))
    assert mounts == packages | {"clusters", "pyproject.toml", "README.md", "LICENSE"}
    assert [source for source in mounts if not (ROOT / source).exists()] == []
    assert {target for target, source in config["file_mounts"].items() if source in mounts} == {
        f"~/galaxy-search/{source}" for source in mounts
    }


@pytest.mark.parametrize(("name", "extra"), [("cluster.yaml", "aws"), ("clusters/onprem.yaml", "cluster")])
def test_nodes_install_an_extra_that_exists_and_the_heads_versions(name: str, extra: str) -> None:
    assert read(name)["setup_commands"] == [f"bash ~/galaxy-search/clusters/set_up_node.sh {extra}"]
    assert read(name)["cluster_synced_files"] == ["~/galaxy-search/versions.txt"]
    assert re.search(rf"^{extra} = \[$", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)


def test_aws_workers_come_by_demand_and_go_when_idle() -> None:
    config = prepare_config(read("cluster.yaml"))
    types = config["available_node_types"]
    assert {name: (kind["min_workers"], kind["max_workers"]) for name, kind in types.items()} == {
        "head": (0, 0),
        "gpu-spot": (0, 8),
        "gpu-on-demand": (0, 8),
    }
    assert config["max_workers"] == 8
    assert config["idle_timeout_minutes"] == 5
    assert config["provider"]["cache_stopped_nodes"] is False
    assert any("end_left_node.sh 900" in command for command in config["worker_start_ray_commands"])
    assert not any("end_left_node.sh" in command for command in config["head_start_ray_commands"])


def test_aws_workers_differ_by_their_market_alone() -> None:
    types = read("cluster.yaml")["available_node_types"]
    spot, on_demand = (types[name]["node_config"] for name in ("gpu-spot", "gpu-on-demand"))
    assert spot == {**on_demand, "InstanceMarketOptions": {"MarketType": "spot"}}
    assert spot["ImageId"] == types["head"]["node_config"]["ImageId"]


def test_onprem_keeps_all_its_hosts() -> None:
    config = prepare_config(read("clusters/onprem.yaml"))
    [kind] = config["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(config["provider"]["worker_ips"])


def test_kubernetes_file_has_known_fields_only() -> None:
    content = read(KUBERAY)
    assert (content["apiVersion"], content["kind"]) == ("ray.io/v1", "RayCluster")
    spec = content["spec"]
    assert set(spec) == CLUSTER
    [workers] = spec["workerGroupSpecs"]
    assert set(workers) == GROUP
    assert set(spec["headGroupSpec"]) == {"rayStartParams", "template"}
    for pod in (workers["template"]["spec"], spec["headGroupSpec"]["template"]["spec"]):
        assert set(pod) <= POD
        assert [set(container) for container in pod["containers"]] == [CONTAINER]


def test_kubernetes_file_promises_the_same() -> None:
    spec = read(KUBERAY)["spec"]
    [workers] = spec["workerGroupSpecs"]
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 300
    assert (workers["minReplicas"], workers["maxReplicas"]) == (0, 8)
    assert spec["headGroupSpec"]["rayStartParams"] == {"num-cpus": "0"}
    [image] = {group["template"]["spec"]["containers"][0]["image"] for group in (spec["headGroupSpec"], workers)}
    assert spec["rayVersion"] == "2.60.0"
    assert image.endswith(":0.1.0")


def test_rays_version_on_kubernetes_is_the_projects() -> None:
    major, minor, _ = read(KUBERAY)["spec"]["rayVersion"].split(".")
    assert f'"ray[tune]>={major}.{minor},' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
