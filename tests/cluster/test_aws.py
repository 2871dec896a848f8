"""`ray up cluster.yaml` as far as it goes without AWS: moto answers, and no host is behind its machines."""

import ast
import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import pytest
from head_autoscaler import HeadAutoscaler
from pretended_aws import REGION, ROOT, TOKEN, PretendedAws, pretended_aws

boto3 = pytest.importorskip("boto3", reason="boto3 is not installed: pip install 'galaxy-search[aws]'")
pytest.importorskip("moto", reason="moto is not installed: pip install 'galaxy-search[test]'")

IMAGE = "resolve:ssm:/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PretendedAws]:
    """AWS after the README's steps up to `ray up cluster.yaml`."""
    with pretended_aws(tmp_path_factory.mktemp("aws")) as aws, pytest.MonkeyPatch.context() as patch:
        for name, value in aws.environment.items():
            patch.setenv(name, value)
        patch.delenv("AWS_PROFILE", raising=False)
        # It remembers credentials and must not outlive them.
        patch.setattr(boto3, "DEFAULT_SESSION", None)
        boto3.client("cloudformation").create_stack(
            StackName="galaxy-search",
            TemplateBody=(ROOT / "clusters" / "aws-roles.json").read_text(),
            Parameters=[{"ParameterKey": "Bucket", "ParameterValue": "my-bucket"}],
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (aws.folder / "moto" / "requests").unlink()
        done = aws.ray("up", "cluster.yaml", "--yes", "--disable-usage-stats")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        yield aws


@pytest.fixture(scope="module")
def head(aws: PretendedAws) -> HeadAutoscaler:
    """What Ray's autoscaler on the head does, with the file that `ray up` brought there."""
    return HeadAutoscaler(aws.bootstrap())


def values(launch: dict[str, str], pattern: str) -> set[str]:
    """The values of all parameters whose names fit, as AWS numbers them: `A.1.B`."""
    return {value for name, value in launch.items() if fnmatch.fnmatch(name, pattern)}


def tags(launch: dict[str, str], resource: str) -> dict[str, str]:
    """The tags that a launch gives to its machines or its volumes."""
    [number] = [name.split(".")[1] for name, value in launch.items() if value == resource and "ResourceType" in name]
    prefix = f"TagSpecification.{number}.Tag."
    keys = {name.removesuffix(".Key"): value for name, value in launch.items() if name.startswith(prefix)}
    return {value: launch[f"{name}.Value"] for name, value in keys.items() if f"{name}.Value" in launch}


def is_closed_to_theft(launch: dict[str, str]) -> bool:
    """Whether disks are encrypted and end with the machine, and its role is given out to sessions only."""
    return (
        values(launch, "BlockDeviceMapping.*.Ebs.Encrypted") == {"true"}
        and values(launch, "BlockDeviceMapping.*.Ebs.DeleteOnTermination") == {"true"}
        and values(launch, "MetadataOptions.HttpTokens") == {"required"}
    )


def test_head_is_small_and_on_demand(aws: PretendedAws) -> None:
    launch = aws.launches()[0]
    assert (launch["InstanceType"], launch["ImageId"], launch["MaxCount"]) == ("m7i.large", IMAGE, "1")
    assert launch["IamInstanceProfile.Name"] == "galaxy-search-head"
    assert launch["KeyName"] == f"ray-autoscaler_{REGION}"
    assert values(launch, "InstanceMarketOptions*") == set()
    assert is_closed_to_theft(launch)
    expected = {"ray-cluster-name": "galaxy-search", "ray-node-type": "head", "project": "galaxy-search"}
    assert tags(launch, "instance").items() >= expected.items()
    assert tags(launch, "volume") == {"project": "galaxy-search"}


def test_key_stays_with_the_user(aws: PretendedAws) -> None:
    [key] = (aws.folder / "home" / ".ssh").iterdir()
    assert key.stat().st_mode & 0o777 == 0o600


def test_nothing_is_open_but_ssh(aws: PretendedAws) -> None:
    launched = set().union(*(values(launch, "SecurityGroupId.*") for launch in aws.launches()))
    [group] = boto3.client("ec2").describe_security_groups(GroupIds=sorted(launched))["SecurityGroups"]
    among_nodes, from_outside = sorted(group["IpPermissions"], key=lambda rule: bool(rule["IpRanges"]))
    assert [pair["GroupId"] for pair in among_nodes["UserIdGroupPairs"]] == [group["GroupId"]]
    assert not among_nodes["IpRanges"]
    assert not among_nodes.get("Ipv6Ranges")
    assert (from_outside["FromPort"], from_outside["ToPort"], from_outside["IpProtocol"]) == (22, 22, "tcp")
    assert not from_outside["UserIdGroupPairs"]


def test_ray_makes_no_roles_of_its_own(aws: PretendedAws) -> None:
    assert [
        request
        for request in aws.requests()
        if request["action"].startswith(("Create", "Put", "Attach")) and request["service"] == "iam"
    ] == []


def test_project_and_token_reach_the_head_before_it_is_set_up(aws: PretendedAws) -> None:
    calls = aws.calls()
    set_up = next(i for i, call in enumerate(calls) if call[-1].endswith("set_up_node.sh aws)'"))
    brought = {call[-1].partition(":")[2]: call[-2] for call in calls[:set_up] if call[0] == "rsync"}
    assert brought["~/.ray/auth_token"] == str(aws.folder / "home" / ".ray" / "auth_token")
    for part in ("galaxy_models/", "search/", "spaces/", "clusters/", "pyproject.toml"):
        assert brought[f"~/galaxy-search/{part}"] == part
    assert not [source for source in brought.values() if source.strip("/") in {".", ".git", ".venv", "runs", "shards"}]


def test_token_is_in_no_command_and_no_request(aws: PretendedAws) -> None:
    said = [json.dumps(aws.bootstrap()), *(word for call in aws.calls() for word in call)]
    assert [text for text in [*said, json.dumps(aws.requests())] if TOKEN in text] == []


def test_head_starts_closed_with_the_first_autoscaler(aws: PretendedAws) -> None:
    [start] = [command for command in aws.commands() if "ray start" in command]
    before, _, words = start.partition("ray start ")
    assert set(words.split()) == {
        "--head",
        "--port=6379",
        "--dashboard-host=127.0.0.1",
        "--autoscaling-config=~/ray_bootstrap_config.yaml",
    }
    # Ray itself sets what the file takes back: the order counts.
    assert before.index("RAY_enable_autoscaler_v2=1") < before.index(". ~/galaxy-search/clusters/node_env.sh")
    assert '{"CPU":0}' in before


def test_waiting_trials_bring_spot_machines(aws: PretendedAws, head: HeadAutoscaler) -> None:
    assert head.wanted(num_trials=3) == {"gpu-spot": 3}
    head.launch("gpu-spot", 1)
    launch = aws.launches()[-1]
    assert (launch["InstanceType"], launch["ImageId"], launch["MaxCount"]) == ("g5.xlarge", IMAGE, "1")
    assert launch["InstanceMarketOptions.MarketType"] == "spot"
    assert launch["IamInstanceProfile.Name"] == "galaxy-search-worker"
    assert launch["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert is_closed_to_theft(launch)
    assert tags(launch, "instance")["ray-user-node-type"] == "gpu-spot"
    assert len(head.workers()) == 1
    # It is counted.
    assert head.wanted(num_trials=3) == {"gpu-spot": 2}


def test_no_more_machines_than_the_file_allows(head: HeadAutoscaler) -> None:
    allowed = head.config["max_workers"] - len(head.workers())
    assert sum(head.wanted(num_trials=100).values()) <= allowed


def test_on_demand_when_spot_cannot_be_had(aws: PretendedAws, head: HeadAutoscaler) -> None:
    running = len(head.workers())
    (aws.folder / "moto" / "no-spot").touch()
    try:
        head.launch("gpu-spot", 1)
        # Each zone was tried.
        assert len(head.workers()) == running
        subnets = {launch["SubnetId"] for launch in aws.launches() if launch.get("InstanceMarketOptions.MarketType")}
        assert len(subnets) == len(head.config["available_node_types"]["gpu-spot"]["node_config"]["SubnetIds"])

        assert head.wanted(num_trials=running + 1) == {"gpu-on-demand": 1}
        head.launch("gpu-on-demand", 1)
        assert values(aws.launches()[-1], "InstanceMarketOptions*") == set()
        assert aws.launches()[-1]["InstanceType"] == "g5.xlarge"
        assert len(head.workers()) == running + 1
    finally:
        (aws.folder / "moto" / "no-spot").unlink()
    head.later(minutes=31)
    assert head.wanted(num_trials=running + 2) == {"gpu-spot": 1}


def test_idle_machine_is_ended_not_stopped(aws: PretendedAws, head: HeadAutoscaler) -> None:
    head.launch("gpu-spot", 1)
    worker = head.workers()[0]
    head.provider.terminate_nodes([worker])
    assert worker not in head.workers()
    actions = [request["action"] for request in aws.requests()]
    assert "TerminateInstances" in actions
    assert "StopInstances" not in actions


def statements(role: str) -> list[dict[str, Any]]:
    """What the role behind an instance profile may do."""
    iam = boto3.client("iam")
    [granted] = iam.get_instance_profile(InstanceProfileName=role)["InstanceProfile"]["Roles"]
    policies = iam.list_role_policies(RoleName=granted["RoleName"])["PolicyNames"]
    texts = [iam.get_role_policy(RoleName=granted["RoleName"], PolicyName=name)["PolicyDocument"] for name in policies]
    # moto gives what CloudFormation made as Python's text of it.
    documents = [ast.literal_eval(text) if isinstance(text, str) else text for text in texts]
    assert iam.list_attached_role_policies(RoleName=granted["RoleName"])["AttachedPolicies"] == []
    return [statement for document in documents for statement in document["Statement"]]


def test_workers_may_use_the_bucket_and_nothing_else() -> None:
    allowed = statements("galaxy-search-worker")
    assert {action.partition(":")[0] for statement in allowed for action in statement["Action"]} == {"s3"}
    assert {statement["Resource"] for statement in allowed} == {"arn:aws:s3:::my-bucket", "arn:aws:s3:::my-bucket/*"}


def test_head_may_do_what_its_autoscaler_does_and_no_more(aws: PretendedAws, head: HeadAutoscaler) -> None:
    allowed = [statement for statement in statements("galaxy-search-head") if "s3:GetObject" not in statement["Action"]]
    actions = {action for statement in allowed for action in statement["Action"]}
    before = len(aws.requests())
    head.launch("gpu-spot", 1)
    worker = head.workers()[0]
    head.provider.set_node_tags(worker, {"ray-node-status": "up-to-date"})
    head.provider.terminate_nodes([worker])
    asked = {f"ec2:{request['action']}" for request in aws.requests()[before:]}
    assert asked == {"ec2:DescribeInstances", "ec2:RunInstances", "ec2:CreateTags", "ec2:TerminateInstances"}
    # Two more without requests of their own: reading the image's name, and giving workers their role.
    buckets = {"s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:GetBucketLocation"}
    assert actions - asked - buckets == {"ssm:GetParameters", "iam:PassRole"}
    assert not [action for action in actions if "*" in action]


def test_head_may_end_machines_of_its_own_cluster_only() -> None:
    [ending] = [found for found in statements("galaxy-search-head") if "ec2:TerminateInstances" in found["Action"]]
    assert ending["Condition"] == {"StringEquals": {"aws:ResourceTag/ray-cluster-name": "galaxy-search"}}


def test_search_begins_on_the_head_in_a_terminal_that_stays(aws: PretendedAws) -> None:
    done = aws.ray("exec", "cluster.yaml", "--tmux", "cd galaxy-search && python -m search.run --address auto")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert aws.commands()[-1].startswith("tmux new -d bash -c ")
    assert "cd galaxy-search && python -m search.run --address auto" in aws.commands()[-1]


def test_down_ends_every_machine(aws: PretendedAws, head: HeadAutoscaler) -> None:
    head.launch("gpu-spot", 1)
    done = aws.ray("down", "cluster.yaml", "--yes")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    reservations = boto3.client("ec2").describe_instances()["Reservations"]
    states = {instance["State"]["Name"] for reservation in reservations for instance in reservation["Instances"]}
    assert states == {"terminated"}
