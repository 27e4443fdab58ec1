"""What the daemon's memory is made of: a process that imports one part after the other.

Pages of the interpreter and of libraries are shared with other Python processes, of which this
benchmark is one: see clock.Memory for how they are counted.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import peers
from clock import Memory

# In the order in which they add up; each names what it adds to the ones before.
STEPS = (
    ("bare Python", "pass"),
    ("logging, argparse, json", "import logging, argparse, json"),
    ("tomllib", "import tomllib"),
    ("pydantic, with a model", "import pydantic; pydantic.create_model('M', a=(int, 1))(a=1)"),
    ("asyncio, which imports ssl", "import asyncio, ssl"),
    ("prometheus-client", "import prometheus_client"),
    ("psutil", "import psutil"),
    ("apscheduler", "import apscheduler.schedulers.background"),
    ("h11", "import h11"),
    ("telemetryd: configuration", "import telemetryd.cli; telemetryd.config.load([], {})"),
    (
        "telemetryd: the rest",
        "import telemetryd.service as s; list(s.plugins.derivation_classes())",
    ),
)

_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
for line in sys.stdin:
    exec(line)
    print("done", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Step:
    """Memory of the process once this part, too, is imported."""

    name: str
    memory: Memory


def measure() -> list[Step]:
    """Import everything in the order of STEPS. Raises RuntimeError if something cannot be."""
    found = []
    command = [sys.executable, "-c", _CHILD, str(peers.ROOT)]
    with peers.child(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for name, code in STEPS:
            process.stdin.write(code.encode() + b"\n")
            process.stdin.flush()
            if process.stdout.readline() != b"done\n":
                raise RuntimeError(f"cannot import {name}")
            found.append(Step(name, Memory.of(process.pid)))
    return found
