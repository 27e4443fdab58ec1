"""A real Slurm of one node, started by hand on loopback, with two GPUs that nobody can use."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

NODE = "telemetryd-test"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "scontrol", "squeue")
_ROOT = Path("/sys/fs/cgroup")
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
MpiDefault=none
KillWait=1
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=100 Gres=gpu:2
PartitionName=gpu Nodes={node} Default=YES State=UP
"""
_CGROUP_CONF = """\
ConstrainRAMSpace=yes
ConstrainDevices=yes
"""


class Slurm:
    """Its commands, with its configuration."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=30, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def submit(self, script: str, *options: str) -> str:
        """The number of the job."""
        output = f"--output={self.folder}/output-%j"
        said = self.run("sbatch", "--parsable", output, *options, f"--wrap={script}")
        assert said, "sbatch refuses the job"
        return said.strip()

    def output(self, job: str) -> str:
        """What the job has said so far."""
        file = self.folder / f"output-{job}"
        return file.read_text() if file.exists() else ""

    def end(self) -> None:
        self.run("scancel", "--user=root")
        wait(lambda: not self.run("squeue", "-h").strip(), "all jobs have ended")


def wait(condition: Callable[[], bool], what: str, seconds: float = 30.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


@contextmanager
def slurm() -> Iterator[Slurm]:
    """Skips the test where Slurm is not installed, or cannot run."""
    missing = [name for name in _PROGRAMS if shutil.which(name, path=_path()) is None]
    if missing:
        pytest.skip(
            f"not installed: {', '.join(missing)} (Debian packages slurmctld, slurmd, munge)"
        )
    if os.geteuid() != 0 or not os.access(_ROOT, os.W_OK):
        pytest.skip(f"a slurmd needs root, and control groups that it may make under {_ROOT}")
    # Not pytest's folder: a path of a socket has room for 107 characters.
    with tempfile.TemporaryDirectory(prefix="slurm") as name, ExitStack() as stack:
        folder = Path(name)
        _configure(folder)
        found = Slurm(folder)
        stack.callback(_remove_groups)
        munge = {
            "key-file": "munge.key",
            "socket": f"{folder}/munge.sock",
            "pid-file": f"{folder}/munge.pid",
            "log-file": f"{folder}/munge.log",
            "seed-file": f"{folder}/munge.seed",
        }
        _start(stack, found, "munged", "-F", *(f"--{key}={file}" for key, file in munge.items()))
        wait((folder / "munge.sock").exists, "munged listens")
        _start(stack, found, "slurmctld", "-D")
        slurmd = _start(stack, found, "slurmd", "-D", "-N", NODE)

        def is_up() -> bool:
            if slurmd.poll() is not None:
                said = (folder / "slurmd.out").read_text().strip().splitlines()
                pytest.skip(f"slurmd cannot run here: {said[-1] if said else 'no reason given'}")
            return "idle" in found.run("sinfo", "-h", "-o", "%t")

        wait(is_up, "the node is idle")
        stack.callback(found.end)
        yield found


def _path() -> str:
    return os.environ.get("PATH", "") + ":/usr/sbin:/sbin"


def _configure(folder: Path) -> None:
    folder.chmod(0o755)  # munge insists
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o600)
    for minor in range(2):
        try:
            os.mknod(folder / f"gpu{minor}", stat.S_IFCHR | 0o600, os.makedev(195, minor))
        except PermissionError:
            pytest.skip("no device nodes can be made here")
    with socket.socket() as one, socket.socket() as two:
        for each in (one, two):
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in (one, two)]
    host = socket.gethostname().partition(".")[0]
    cpus = os.cpu_count()
    conf = _CONF.format(host=host, node=NODE, folder=folder, ports=ports, cpus=cpus)
    (folder / "slurm.conf").write_text(conf)
    (folder / "gres.conf").write_text(f"Name=gpu File={folder}/gpu[0-1]\n")
    is_v2 = (_ROOT / "cgroup.controllers").exists()
    # Without systemd's help, which a machine that runs tests may not have.
    plugin = "CgroupPlugin=cgroup/v2\nIgnoreSystemd=yes\n" if is_v2 else "CgroupPlugin=cgroup/v1\n"
    (folder / "cgroup.conf").write_text(plugin + _CGROUP_CONF)


def _start(stack: ExitStack, found: Slurm, name: str, *arguments: str) -> subprocess.Popen[bytes]:
    program = shutil.which(name, path=_path())
    assert program is not None
    output = stack.enter_context((found.folder / f"{name}.out").open("wb"))
    process = subprocess.Popen(
        [program, *arguments],
        cwd=found.folder,
        env=found.environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
    )
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)


def _remove_groups() -> None:
    """What slurmd leaves behind: groups named after the node, empty by now."""
    for top in [*_ROOT.glob(f"*/slurm_{NODE}"), *_ROOT.glob(f"**/{NODE}_slurmstepd.scope")]:
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                os.rmdir(folder)
            except OSError:
                break
