"""The whole daemon on eight fake H100 under a changing load: `python tests/fakes/nvml/demo.py`.

Four GPUs train, two serve requests in bursts, one is held by a process that does nothing, one is
free; now and then a GPU gets too hot, or reports an XID. It compiles the fake driver library with
gcc, starts `telemetryd run` on it, and stops all of it on Ctrl-C, SIGTERM or after --seconds.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from fakes.nvml.load import Node  # noqa: E402  (found through the path above)
from support.nvml import FakeNvml  # noqa: E402

STEP_S = 0.5
PATIENCE_S = 15.0
# A process that is called as we like and ends with its parent.
PRETENDER = "import sys; open('/proc/self/comm', 'w').write(sys.argv[1]); sys.stdin.read()"


@contextmanager
def pretender(name: str) -> Iterator[int]:
    """A process of that name, which the GPUs are said to be used by. Yields its pid."""
    command = [sys.executable, "-S", "-c", PRETENDER, name]
    with subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True) as process:
        yield process.pid  # the end of its input ends it


@contextmanager
def daemon(folder: Path, library: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """telemetryd on that library; stopped in order at the end."""
    config = folder / "telemetryd.toml"
    config.write_text(
        f'web.listen = "127.0.0.1:{port}"\n[collectors.gpu_nvidia]\nlibrary = "{library}"\n'
    )
    command = [sys.executable, "-m", "telemetryd", "run", "--config", str(config)]
    process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def play(node: Node, process: subprocess.Popen[bytes], stop: threading.Event) -> int:
    """Move the load until told to stop; the daemon's exit status if it ends before."""
    while not stop.wait(STEP_S):
        if process.poll() is not None:
            return process.returncode
        node.step(STEP_S)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="telemetryd on eight fake H100")
    parser.add_argument("--port", type=int, default=10090, help="of /metrics (10090)")
    parser.add_argument("--seconds", type=float, help="end after so long")
    arguments = parser.parse_args()
    if shutil.which("gcc") is None:
        print("no C compiler: the fake driver library needs gcc", file=sys.stderr)
        return 1
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    if arguments.seconds is not None:
        clock = threading.Timer(arguments.seconds, stop.set)
        clock.daemon = True
        clock.start()
    with (
        tempfile.TemporaryDirectory(prefix="telemetryd-demo-") as name,
        pretender("train-llm") as training,
        pretender("llm-server") as inference,
    ):
        folder = Path(name)
        fake = FakeNvml(folder)
        node = Node(fake, training=training, inference=inference, holding=os.getpid())
        node.step(STEP_S)
        with daemon(folder, fake.library, arguments.port) as process:
            print(
                f"telemetryd watches 8 fake H100: http://127.0.0.1:{arguments.port}/metrics\n"
                "Ctrl-C ends it.",
                flush=True,
            )
            return play(node, process, stop)


if __name__ == "__main__":
    sys.exit(main())
