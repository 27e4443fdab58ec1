"""A small machine with systemd as its process 1, for what only a running systemd can show.

systemd-nspawn boots it in a second or two: a root of its own with an empty /etc, /var, /home and
/opt, and this machine's /usr, read-only, with a
/usr/local of its own. It has no network but its own loopback. Needs root.
"""

import contextlib
import os
import shutil
import subprocess
import time
from pathlib import Path

_PASSWD = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
_GROUP = "root:x:0:\nnogroup:x:65534:\n"
_BOOT_S = 60


def why_not():
    """Why no such machine can be had here; empty if nothing is known against it."""
    if os.geteuid() != 0:
        return "systemd-nspawn needs root"
    for program in ("systemd-nspawn", "nsenter"):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt install systemd-container util-linux)"
    if not os.path.exists("/usr/lib/systemd/systemd"):
        return "there is no /usr/lib/systemd/systemd to boot (apt install systemd)"
    if not os.path.islink("/bin"):
        return "the machine would share /usr alone, and here /bin is not part of it"
    return ""


class CannotBootError(Exception):
    """The machine did not come up; the message ends with what it said."""


class Machine:
    """`root` is its file system and `local` its /usr/local: fill them as you like. `binds` are
    paths of this machine that it may read too; `tmpfs` are mount points, such as "/home:size=8M".
    """

    def __init__(self, root, binds=(), tmpfs=()):
        self.root = Path(root)
        self.local = self.root.parent / "local"
        self.local.mkdir(parents=True)
        self._options = [f"--bind={self.local}:/usr/local"]
        self._options += [f"--bind-ro={path}" for path in ("/usr", *binds)]
        self._options += [f"--tmpfs={mount}" for mount in tmpfs]
        self._console = self.root.parent / "console.log"
        self._nspawn = None
        self._init = 0
        for name in ("etc", "usr", "var", "run", "tmp", "proc", "sys", "dev", "opt", "home"):
            (self.root / name).mkdir(parents=True, exist_ok=True)
        for link in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
            if os.path.islink(f"/{link}"):
                (self.root / link).symlink_to(os.readlink(f"/{link}"))
        shutil.copy("/etc/ld.so.cache", self.root / "etc")
        shutil.copy("/usr/lib/os-release", self.root / "etc/os-release")
        (self.root / "etc/passwd").write_text(_PASSWD)
        (self.root / "etc/group").write_text(_GROUP)
        # Not a first boot: nothing of this machine's /usr is enabled by a preset.
        (self.root / "etc/machine-id").write_text("5ca1ab1e" * 4 + "\n")

    def start(self):
        """Boot, and wait until every job of the boot is done. Raises CannotBootError."""
        command = ["systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot"]
        command += ["--register=no", "--keep-unit", "--private-network", "--console=passive"]
        # nspawn refuses even to read the clock's state, which would look like the unit's doing.
        command += ["--system-call-filter=adjtimex clock_adjtime"]
        command += [*self._options, "--", "systemd.unit=multi-user.target"]
        with open(self._console, "wb") as console:
            self._nspawn = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            )
        deadline = time.monotonic() + _BOOT_S
        while not self._is_up():
            if self._nspawn.poll() is not None or time.monotonic() > deadline:
                self.stop()
                said = self._console.read_text(errors="replace")[-2000:]
                raise CannotBootError(f"systemd-nspawn did not boot: {said}")
            time.sleep(0.1)

    def _is_up(self):
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children")
        with contextlib.suppress(OSError, IndexError):
            self._init = int(children.read_text().split()[0])
        if not self._init:
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout.strip()
        return state in ("running", "degraded")

    def run(self, *command, check=True, timeout=60, env=None):
        """Run a command on the machine, as its root, and return what it said."""
        done = subprocess.run(
            ["nsenter", f"--target={self._init}", "--all", "--", *command],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            env={"PATH": "/usr/bin:/usr/sbin:/bin:/sbin", **(env or {})},
        )
        if check and done.returncode != 0:
            raise AssertionError(f"{command}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    def show(self, unit, name):
        """One property of a unit, as systemd has it now."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def journal(self, unit):
        return self.run("journalctl", "--quiet", "--output=cat", f"--unit={unit}").stdout

    def stop(self):
        """Power off; twice is safe."""
        if self._nspawn is None:
            return
        self._nspawn.terminate()  # nspawn asks the machine's systemd to power off
        try:
            self._nspawn.wait(30)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._nspawn = None
