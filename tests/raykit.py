"""A Ray cluster of this machine's own for tests: one node with two cores, under an address of its own."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ATTEMPTS = 3
STORE = 100 << 20  # bytes of shared memory; Ray would take a third of it all
PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port", "runtime_env_agent_port")


@contextmanager
def cluster(cpus: int = 2) -> Iterator[str]:
    """Where it is, as `--on` takes it. Its workers find the modules of tests; skipped without Ray."""
    pytest.importorskip("ray", reason="Ray comes with the extra cluster")
    import ray
    from ray.cluster_utils import Cluster

    patch = pytest.MonkeyPatch()
    patch.setenv("PYTHONPATH", os.pathsep.join([*filter(None, sys.path), str(HERE)]))
    patch.setenv("RAY_AUTH_MODE", "disabled")
    # A node waits 15 seconds for its dashboard's agent, and then ends itself; a slim agent is there sooner.
    patch.setattr("ray._private.utils.get_dashboard_dependency_error", lambda: ImportError("left out"))
    node = None
    try:
        node = _head(Cluster, cpus)
        yield f"ray:{node.address}"
    finally:
        ray.shutdown()
        if node is not None:
            node.shutdown()
        patch.undo()


def _head(kind: Any, cpus: int) -> Any:
    for attempt in range(ATTEMPTS):
        arguments = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": STORE, **free_ports()}
        try:
            return kind(initialize_head=True, head_node_args=arguments)
        except Exception as error:
            if attempt + 1 == ATTEMPTS or "timed out during startup" not in str(error):
                raise


def free_ports() -> dict[str, int]:
    with ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in PORTS]
        return {name: server.getsockname()[1] for name, server in zip(PORTS, held, strict=True)}
