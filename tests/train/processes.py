"""Two processes that work together, as `torchrun` starts them."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Mapping

import torch

__all__ = ["CONTEXT", "free_port", "join"]

CONTEXT = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")
"""Starts processes that inherit nothing from this one. On Linux they are forked from one that has imported
PyTorch already."""
if sys.platform == "linux":
    CONTEXT.set_forkserver_preload(["galip.train.gan", "galip.metrics"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join(rank: int, port: int, environment: Mapping[str, str]) -> None:
    """Make this process the one of `rank` of two, with one thread and the test's `environment`."""
    os.environ.clear()
    os.environ |= {
        **environment,
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
