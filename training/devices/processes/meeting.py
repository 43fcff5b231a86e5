"""How the processes find each other: process 0 listens where all know, and the others come."""

import os
import platform
import socket
import time
from collections.abc import Iterable
from typing import Any

from training.devices.processes.connection import Connection
from training.devices.processes.place import Place
from utils import UsageError, UserError

MEETING_SECONDS = 60.0
# What a process has to say who it is, once it is connected.
_HELLO_SECONDS = 5.0


def meet(place: Place, facts: dict[str, Any]) -> tuple[dict[int, Connection], dict[str, Any]]:
    """Waits until all processes are there, for `MEETING_SECONDS` at most.

    Args:
        place: This process.
        facts: What has to be the same in all, by what to call it in a message; JSON values.

    Returns:
        The connections by process: from process 0 to all others, from those to process 0; and what
        process 0 tells all: the `port` for JAX, and each process's machine in `machines`.

    Raises:
        UserError: Some did not come, there is no process 0, or the processes do not fit.
    """
    hello = {
        "process": place.index,
        "processes": place.count,
        "facts": facts,
        "machine": [platform.node(), os.environ.get("CUDA_VISIBLE_DEVICES")],
    }
    if place.index:
        connection = _reach(place)
        return {0: connection}, _welcome(place, connection, hello)
    connections, hellos = _gather(place, hello)
    machines = [hellos[i]["machine"] for i in range(place.count)]
    welcome = {"port": _free_port(place), "machines": machines}
    for connection in connections.values():
        connection.send(**welcome)
    return connections, welcome


# ---------------------------------------------------------------- process 0


def _gather(place: Place, own: dict) -> tuple[dict[int, Connection], dict[int, dict]]:
    """A connection to every other process, and the first message of all."""
    connections: dict[int, Connection] = {}
    hellos = {0: own}
    deadline = time.monotonic() + MEETING_SECONDS
    with _listen(place) as server:
        while len(hellos) < place.count:
            server.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                connection = Connection(server.accept()[0])
            except TimeoutError:
                missing = sorted(set(range(place.count)) - hellos.keys())
                problem = (
                    f"--coordinator {place.coordinator}: process {', '.join(map(str, missing))} of "
                    f"{place.count} did not come within {MEETING_SECONDS:.0f} s; start all of them "
                    "with the same --coordinator and --num_processes"
                )
                _refuse(connections.values(), problem)
                raise UserError(problem) from None
            connection.socket.settimeout(_HELLO_SECONDS)
            try:
                hello = connection.receive()
                index = int(hello["process"])
                problem = _misfit(index, hello, hellos)
            except (OSError, ValueError, LookupError, TypeError, AttributeError):
                connection.close()  # something else knocks at this port
                continue
            if problem:
                _refuse([connection, *connections.values()], problem)
                raise UsageError(problem)
            connections[index], hellos[index] = connection, hello
    return connections, hellos


def _refuse(connections: Iterable[Connection], problem: str) -> None:
    for connection in connections:
        connection.send(failed=problem)
        connection.close()


def _misfit(index: int, hello: dict, hellos: dict[int, dict]) -> str | None:
    """Why a process cannot be one of those that are there; `None` if it can."""
    own = hellos[0]
    if hello["processes"] != own["processes"]:
        return (
            f"process {index} has --num_processes {hello['processes']}, process 0 has "
            f"{own['processes']}; give the same to all"
        )
    if index in hellos or not 0 < index < own["processes"]:
        return f"--process_id {index}: two processes have it; number them 0, 1, 2, …"
    facts = hello["facts"]
    for name in sorted(own["facts"].keys() | facts.keys()):
        if facts.get(name) != own["facts"].get(name):
            return (
                f"process {index} has {name} {facts.get(name)}, process 0 has "
                f"{own['facts'].get(name)}; give all the same, or --num_processes 1 to processes "
                "that do not belong together"
            )
    return None


def _listen(place: Place) -> socket.socket:
    host, port = place.address
    try:
        if place.on_loopback:
            return socket.create_server((host, port), backlog=place.count)
        # The host's name may lead to it only from outside, as in Kubernetes.
        if socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=place.count
            )
        return socket.create_server(("", port), backlog=place.count)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise UserError(
            f"--coordinator {place.coordinator}: cannot listen there ({reason}); "
            "give a free port of the machine that process 0 runs on"
        ) from None


def _free_port(place: Place) -> int:
    with socket.create_server(("127.0.0.1" if place.on_loopback else "", 0)) as server:
        return server.getsockname()[1]


# ---------------------------------------------------------------- the other processes


def _reach(place: Place) -> Connection:
    """A connection to process 0 as soon as it listens."""
    deadline = time.monotonic() + MEETING_SECONDS
    while True:
        left = deadline - time.monotonic()
        try:
            return Connection(socket.create_connection(place.address, max(1.0, left)))
        except OSError as error:
            if left <= 0:
                raise UserError(
                    f"--coordinator {place.coordinator}: no process 0 there within "
                    f"{MEETING_SECONDS:.0f} s ({error.strerror or error}); is it started, with "
                    "this address, and can it be reached from here?"
                ) from None
        time.sleep(0.2)


def _welcome(place: Place, connection: Connection, hello: dict) -> dict[str, Any]:
    """What process 0 says when all are there."""
    # It waits as long for the last one.
    connection.socket.settimeout(MEETING_SECONDS + _HELLO_SECONDS)
    connection.send(**hello)
    try:
        welcome = connection.receive()
    except (OSError, ValueError) as error:
        connection.close()
        raise UserError(
            f"--coordinator {place.coordinator}: process 0 did not answer ({error})"
        ) from None
    if "failed" in welcome:
        connection.close()
        raise UsageError(welcome["failed"])
    return welcome
