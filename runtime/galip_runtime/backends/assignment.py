"""Which nodes of a graph onnxruntime runs on the CPU although another device was asked for."""

import logging
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

__all__ = ["CPU", "NO_CPU", "RECORD", "Provider", "nodes_on_cpu", "why_not_here"]

_log = logging.getLogger("galip_runtime")

Provider = tuple[str, Mapping[str, str]]
"""name and options, as onnxruntime takes them"""
NO_CPU = "session.disable_cpu_ep_fallback"
"""session option: loading fails where a node would run on the CPU"""
RECORD = "session.record_ep_graph_assignment_info"
"""session option: the session can list which provider runs which node"""
CPU: Provider = ("CPUExecutionProvider", {})
_NAMED = 5
"""how many nodes an error names"""


def nodes_on_cpu(session: Any) -> list[str]:
    """Return the nodes that a session opened with `RECORD` runs on the CPU, as "name (operator)".

    Releases before 1.24 cannot list nodes: the result is empty.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        return []
    parts = session.get_provider_graph_assignment_info()
    nodes = [node for part in parts if part.ep_name.startswith("CPU") for node in part.get_nodes()]
    return [f"{node.name or 'a node'} ({node.op_type})" for node in nodes]


def why_not_here(
    onnxruntime: ModuleType,
    model: bytes,
    session_options: Callable[[str], Any],
    providers: Sequence[Provider],
    only_started: Callable[[Sequence[str]], str],
    advice: str,
) -> str | None:
    """Explain why the first of `providers` does not run all of `model`; None where nothing is found out.

    `session_options(name)` returns options with the session option `name` switched on. The model is loaded
    once more with the CPU's provider added, which then shows the nodes that keep it off the device; `advice`
    says what to do about them. `only_started(names)` words the case that the device's provider did not start.
    """
    try:
        session = onnxruntime.InferenceSession(
            model, session_options(RECORD), providers=[*providers, CPU], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's errors have no common base
        _log.info("the graph does not load with the CPU beside %s, either: %s", providers[0][0], error)
        return None
    started = session.get_providers()
    if providers[0][0] not in started:
        return only_started(started)
    nodes = nodes_on_cpu(session)
    if not nodes:
        return None
    more = f" and {len(nodes) - _NAMED} more" if len(nodes) > _NAMED else ""
    return (
        f"onnxruntime would run {', '.join(nodes[:_NAMED])}{more} on the CPU, because {providers[0][0]} has "
        f"no kernel for such nodes or their types. {advice}"
    )
