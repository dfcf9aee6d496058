"""Two processes that work together, as `torchrun` starts them."""

import multiprocessing
import os
import socket

import torch

__all__ = ["CONTEXT", "free_port", "join"]

_FORKSERVER = "forkserver" in multiprocessing.get_all_start_methods()  # everywhere except on Windows
CONTEXT = multiprocessing.get_context("forkserver" if _FORKSERVER else "spawn")
"""starts processes that have nothing of this one; where it can, from one that has imported PyTorch before"""
if _FORKSERVER:
    CONTEXT.set_forkserver_preload(["galip.train.gan", "galip.metrics"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join(rank: int, port: int) -> None:
    """Make this process the one of `rank` of two, with one thread."""
    os.environ |= {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "TORCHELASTIC_RUN_ID": "test",
    }  # fmt: skip
    torch.set_num_threads(1)
