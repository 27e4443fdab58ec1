"""Writes the dashboards beside this file, or checks that they are what the code says.

python dashboards/build.py           write them
python dashboards/build.py --check   exit 1 and name those that differ
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import delivery
import energy
import gpu
import node
from grafana_foundation_sdk.cog.encoder import JSONEncoder

FOLDER = Path(__file__).parent
DASHBOARDS = {
    "node.json": node.build,
    "gpu.json": gpu.build,
    "energy.json": energy.build,
    "delivery.json": delivery.build,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the Grafana dashboards as JSON.")
    parser.add_argument("--check", action="store_true", help="write nothing, compare")
    is_check = parser.parse_args().check
    stale = []
    for name, build in DASHBOARDS.items():
        file = FOLDER / name
        text = JSONEncoder(indent=2, sort_keys=True).encode(build()) + "\n"
        if not is_check:
            file.write_text(text)
        elif not file.exists() or file.read_text() != text:
            stale.append(name)
    if stale:
        print(f"not what the code says: {', '.join(stale)}; run `make docs`", file=sys.stderr)
    return int(bool(stale))


if __name__ == "__main__":
    sys.exit(main())
