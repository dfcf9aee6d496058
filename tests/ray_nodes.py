"""Clusters of several Ray nodes on this machine, for the tests of everything that runs on Ray."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from galip_runtime.ray_cluster import import_ray
from galip_runtime.signals import stop_as_ctrl_c

__all__ = ["nodes_of_ray"]


@contextmanager
def nodes_of_ray(count: int = 2, cpus: int = 1) -> Iterator[Any]:
    """Start a cluster of `count` nodes with `cpus` CPUs each; the first is the head and runs no work."""
    import_ray()
    os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")  # the machine may be busy
    from ray.cluster_utils import Cluster

    options = {"include_dashboard": False, "object_store_memory": 80 * 2**20}
    soon = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}  # that a dead node is noticed
    head = {"num_cpus": 0, "_system_config": {"worker_niceness": 0, **soon}, **options}
    with stop_as_ctrl_c():  # and afterwards the handlers of before, which a head replaces and leaves replaced
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(count):
                cluster.add_node(num_cpus=cpus, **options)
            yield cluster
        finally:
            cluster.shutdown()
