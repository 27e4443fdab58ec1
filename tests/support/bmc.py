"""A BMC that speaks IPMI 2.0 over lanplus on loopback and answers DCMI Get Power Reading.

pyghmi does the protocol, in a process of its own: it keeps threads and sockets for good, and has
the only state in the module itself. It knows cipher suite 3 alone.
"""

from __future__ import annotations

import importlib.util
import json
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

USERNAME, PASSWORD = "reader", "not so secret"
# DCMI 1.5, 6.6.1: group extension, command; the answer repeats the extension.
_DCMI, _GET_POWER_READING, _DCMI_EXTENSION = 0x2C, 0x02, 0xDC
_ACTIVE = 0x40


class CannotServeError(Exception):
    """There is no such address here, or its port is taken."""


def why_not() -> str:
    """Why there can be no such BMC here; empty if there can."""
    if importlib.util.find_spec("pyghmi") is None:
        return "pyghmi is not installed (pip install pyghmi)"
    return ""


@contextmanager
def simulated(
    watts: int = 220,
    *,
    active: bool = True,
    completion: int = 0,
    silent: bool = False,
    accounts: Mapping[str, str] | None = None,
    address: str = "127.0.0.1",
    port: int = 0,
) -> Iterator[int]:
    """The port of a BMC that reads `watts`. One that is `silent` lets a session be opened and
    then answers no DCMI request; `completion` is the code of an answer that is a refusal.

    Raises CannotServeError if it cannot listen there."""
    settings = {
        "watts": watts,
        "active": active,
        "completion": completion,
        "silent": silent,
        "accounts": dict(accounts or {USERNAME: PASSWORD}),
        "address": address,
        "port": port,
    }
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", __file__, json.dumps(settings)],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise CannotServeError(f"the simulated BMC cannot serve at {address}")
            yield int(line)
        finally:
            process.kill()


def _serve(settings: dict[str, object]) -> None:
    from pyghmi.ipmi.bmc import Bmc

    class PowerMeter(Bmc):  # type: ignore[misc]
        def handle_raw_request(self, request, session):  # type: ignore[no-untyped-def]
            if (request["netfn"], request["command"]) != (_DCMI, _GET_POWER_READING):
                super().handle_raw_request(request, session)
            elif settings["completion"]:
                session.send_ipmi_response(code=settings["completion"])
            elif not settings["silent"]:
                session.send_ipmi_response(data=_reading(settings["watts"], settings["active"]))

    address, port = str(settings["address"]), int(str(settings["port"]))
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind((address, port))
        port = probe.getsockname()[1]
    bmc = PowerMeter(settings["accounts"], port=port, address=address)
    print(port, flush=True)
    bmc.listen()


def _reading(watts: object, active: object) -> bytes:
    """Now, minimum, maximum, mean, time stamp, milliseconds that these span, state. All but the
    first watts are as wrong as they may be."""
    others = 18, 407, 93, 1_700_000_000, 1000
    return struct.pack("<B4H2IB", _DCMI_EXTENSION, watts, *others, _ACTIVE if active else 0)


if __name__ == "__main__":
    _serve(json.loads(sys.argv[1]))
