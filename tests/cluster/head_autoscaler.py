"""What Ray's autoscaler does on the head of a cluster, step by step and without its loop."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from pretended_aws import ROOT
from ray.autoscaler._private.event_summarizer import EventSummarizer
from ray.autoscaler._private.node_launcher import BaseNodeLauncher
from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
from ray.autoscaler._private.providers import _get_node_provider
from ray.autoscaler._private.resource_demand_scheduler import ResourceDemandScheduler
from ray.autoscaler._private.util import ConcurrentCounter


def _environment() -> dict[str, str]:
    """What `clusters/node_env.sh` sets."""
    shown = subprocess.run(
        ["bash", "-c", f". {ROOT / 'clusters' / 'node_env.sh'}; env -0"], capture_output=True, text=True, check=True
    ).stdout
    return dict(entry.split("=", 1) for entry in shown.split("\0") if "=" in entry)


class HeadAutoscaler:
    """Ray's own scheduler, launcher and node provider, with the head's copy of a cluster file."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        # On the head this is a copy; here the key is where the user has it.
        [key] = Path("~/.ssh").expanduser().iterdir()
        config["auth"]["ssh_private_key"] = str(key)
        self.ahead_s = 0.0
        self.provider = _get_node_provider(config["provider"], config["cluster_name"], use_cache=False)
        self.tracker = NodeProviderAvailabilityTracker(timer=lambda: time.time() + self.ahead_s)
        self.pending = ConcurrentCounter()
        self.launcher = BaseNodeLauncher(self.provider, self.pending, EventSummarizer(), self.tracker)
        self.launcher.node_types = config["available_node_types"]
        scorer = _environment()["RAY_AUTOSCALER_UTILIZATION_SCORER"]
        os.environ["RAY_AUTOSCALER_UTILIZATION_SCORER"] = scorer
        try:
            self.scheduler = ResourceDemandScheduler(
                self.provider, config["available_node_types"], config["max_workers"], config["head_node_type"], 1.0
            )
        finally:
            del os.environ["RAY_AUTOSCALER_UTILIZATION_SCORER"]

    def workers(self) -> list[str]:
        """The machines that run, but for the head."""
        found: list[str] = self.provider.non_terminated_nodes({"ray-node-type": "worker"})
        return found

    def wanted(self, *, num_trials: int) -> dict[str, int]:
        """How many machines of which kind are to be launched for so many trials of one GPU each, running or waiting."""
        to_launch, _ = self.scheduler.get_nodes_to_launch(
            self.provider.non_terminated_nodes({}),
            {},
            [{"GPU": 1.0}] * num_trials,
            {},
            [],
            {},
            [],
            self.tracker.summary(),
        )
        return dict(to_launch)

    def launch(self, node_type: str, count: int) -> None:
        """Launch machines, or note that it failed."""
        self.pending.inc(node_type, count)
        self.launcher.launch_node(self.config, count, node_type)

    def later(self, *, minutes: float) -> None:
        """Let time pass for the record of failed launches."""
        self.ahead_s += 60 * minutes
