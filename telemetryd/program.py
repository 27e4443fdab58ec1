"""A program that is run to the end, or until its deadline, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence

from telemetryd.errors import ReadError, reason_of


class TooSlow(ReadError):  # noqa: N818  (a verdict, as its base is)
    """It did not end in time; `said` is what it had said until then."""

    def __init__(self, what: str, said: str) -> None:
        super().__init__("timeout", what)
        self.said = said


class Program:
    """Runs one command at a time, each in a process group of its own. What overruns `timeout`
    seconds is killed with all that it started; what says more than `most` bytes, too."""

    def __init__(self, timeout: float, most: int) -> None:
        self._timeout = timeout
        self._most = most
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def run(
        self, command: Sequence[str], environment: Mapping[bytes, bytes], fds: Sequence[int] = ()
    ) -> str:
        """What it says, on both its outputs. Raises ReadError, TooSlow."""
        # Real time, whatever the clock of the host says: the program lives in it.
        deadline = time.monotonic() + self._timeout
        process = self._start(command, environment, fds)
        output = bytearray()
        try:
            assert process.stdout is not None
            with process.stdout as pipe:
                self._gather(pipe.fileno(), output, deadline)
            process.wait(max(0.0, deadline - time.monotonic()))
        except ReadError as error:
            raise ReadError(error.reason, f"{command[0]} says {error}") from None
        except (TimeoutError, subprocess.TimeoutExpired):
            what = f"{command[0]} does not end within {self._timeout:g} s"
            raise TooSlow(what, _text(output)) from None
        finally:
            _end(process)
        return _text(output)

    def close(self) -> None:
        """Kill what runs, and run nothing more."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                _kill(self._process)

    def _start(
        self, command: Sequence[str], environment: Mapping[bytes, bytes], fds: Sequence[int]
    ) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise ReadError("missing", f"{command[0]} is not started any more")
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environment,
                    pass_fds=fds,
                    start_new_session=True,
                )
            except OSError as error:
                what = f"cannot start {command[0]}: {error.strerror}"
                raise ReadError(reason_of(error), what) from error
            return self._process

    def _gather(self, fd: int, output: bytearray, deadline: float) -> None:
        """All that comes until the end. Raises TimeoutError; ReadError if it is too much."""
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not poller.poll(left * 1000):
                raise TimeoutError
            part = os.read(fd, self._most)
            if not part:
                return
            output += part
            if len(output) > self._most:
                raise ReadError("parse", f"more than {self._most} bytes")


def _text(output: bytearray) -> str:
    return output.decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    _kill(process)
    # Should even SIGKILL not end it, it is reaped when the next one is started.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(0.2)


def _kill(process: subprocess.Popen[bytes]) -> None:
    # Without asking how it is: that would reap it if it has ended, and the number of its group,
    # in which others may go on, could be somebody else's then.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
