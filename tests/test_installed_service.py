"""The service as an operator has it: installed, started, reloaded, stopped and removed.

Everything is real, the installer, the unit and its sandbox, the daemon, on a machine with systemd
that `systemd_machine` boots.
"""

import json
import re
import subprocess
import time
from pathlib import Path

import pytest
from support import systemd_machine

SOURCE = Path(__file__).parent.parent
PYTHON = "/usr/bin/python3"
METRICS = "http://127.0.0.1:10090/metrics"
# Every kind of mount that has a size, and often.
CONFIG = """
[collectors.filesystem]
types = ["*"]
exclude_types = ["ramfs", "proc", "sysfs", "cgroup*", "devpts", "mqueue", "hugetlbfs"]
interval = "1s"
"""


class Node(systemd_machine.Machine):
    """A machine that can install telemetryd, and what an operator would look at."""

    def script(self, name, *, check=True):
        house = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "/wheels"}
        return self.run("sh", f"/source/systemd/{name}", check=check, timeout=300, env=house)

    def scrape(self):
        code = (
            f"import urllib.request as u; print(u.urlopen('{METRICS}', timeout=5).read().decode())"
        )
        return self.run(PYTHON, "-c", code).stdout

    def pid(self):
        return int(self.show("telemetryd", "MainPID"))

    def write(self, path, text):
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def wait_for(what, condition):
    """Wait for another process to get there; half a minute is far more than it takes."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)


def value(scrape, name):
    found = re.search(rf"^{name}(?:{{[^}}]*}})? (\S+)$", scrape, re.MULTILINE)
    assert found, f"{name} is not in the scrape"
    return float(found[1])


def fetch(wheels, builder):
    """Put what pip needs to install from the source tree into a folder: the node has no network."""
    subprocess.run([PYTHON, "-m", "venv", builder], check=True, capture_output=True)
    command = [builder / "bin/python", "-m", "pip", "wheel", "--quiet", "--wheel-dir", wheels]
    subprocess.run([*command, SOURCE, "hatchling"], check=True, timeout=300)


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A machine on which telemetryd was installed by the installer, and so runs as a service."""
    reason = systemd_machine.why_not()
    if reason:
        pytest.skip(reason)
    if subprocess.run([PYTHON, "-c", "import ensurepip"], check=False).returncode != 0:
        pytest.skip(f"{PYTHON} cannot make a virtual environment (apt install python3-venv)")
    place = tmp_path_factory.mktemp("node")
    wheels = place / "wheels"
    wheels.mkdir()
    node = Node(
        place / "root",
        binds=[f"{SOURCE}:/source", f"{wheels}:/wheels"],
        tmpfs=["/home:size=8M", "/srv:size=4M"],
    )
    try:
        node.start()
    except systemd_machine.CannotBootError as error:
        pytest.skip(str(error))
    try:
        fetch(wheels, place / "builder")
        node.write("/etc/telemetryd/telemetryd.toml", CONFIG)
        node.script("install.sh")
        yield node
    finally:
        node.stop()


def test_the_installed_service_runs_as_its_own_user_and_answers(node):
    assert node.show("telemetryd", "ActiveState") == "active"
    assert node.show("telemetryd", "UnitFileState") == "enabled"
    process = f"/proc/{node.pid()}"
    assert node.run("stat", "--format=%U", process).stdout == "telemetryd\n"
    # The 19th field, counted behind the name in parentheses: proc_pid_stat(5).
    assert node.run("cat", f"{process}/stat").stdout.rpartition(")")[2].split()[16] == "-10"
    assert (node.root / "var/lib/telemetryd/textfile").is_dir()
    wait_for("a scrape", lambda: "telemetryd_cpu_time_seconds_total{" in node.scrape())


def test_installing_again_restarts_it_with_the_same_config(node):
    before = node.pid()
    node.script("install.sh")
    assert node.show("telemetryd", "ActiveState") == "active"
    assert node.pid() != before
    assert (node.root / "etc/telemetryd/telemetryd.toml").read_text() == CONFIG


@pytest.fixture
def reconfigure(node):
    """Writes another configuration; afterwards the first one is in force again."""
    yield lambda text: node.write("/etc/telemetryd/telemetryd.toml", text)
    node.write("/etc/telemetryd/telemetryd.toml", CONFIG)
    node.run("systemctl", "reset-failed", "telemetryd", check=False)
    node.run("systemctl", "restart", "telemetryd")


def test_a_reload_keeps_the_process_and_a_bad_config_is_refused_aloud(node, reconfigure):
    before = node.pid()

    def reload():
        done = node.run("systemctl", "reload", "telemetryd", check=False)
        wait_for("the reload's end", lambda: node.show("telemetryd", "SubState") == "running")
        return done.returncode

    def says_that_the_reload_was(outcome):
        return value(node.scrape(), "telemetryd_config_last_reload_successful") == outcome

    reconfigure(CONFIG + '[log]\nlevel = "debug"\n')
    assert reload() == 0
    wait_for("a good reload in the metrics", lambda: says_that_the_reload_was(1))
    reconfigure(CONFIG + '[log]\nlevle = "debug"\n')
    assert reload() != 0
    wait_for("a bad reload in the metrics", lambda: says_that_the_reload_was(0))
    assert "levle" in node.journal("telemetryd")
    assert node.show("telemetryd", "ActiveState") == "active"
    reconfigure(CONFIG)
    assert reload() == 0
    wait_for("a good reload in the metrics", lambda: says_that_the_reload_was(1))
    assert node.pid() == before


def test_it_stops_by_itself_before_systemd_would_kill_it(node):
    node.run("systemctl", "stop", "telemetryd")
    assert node.show("telemetryd", "Result") == "success"
    begun = int(node.show("telemetryd", "ActiveExitTimestampMonotonic"))
    ended = int(node.show("telemetryd", "InactiveEnterTimestampMonotonic"))
    assert ended - begun < 10e6  # microseconds: what the daemon promises
    node.run("systemctl", "start", "telemetryd")


@pytest.fixture
def impatient(node):
    """The service with a watchdog that waits for 1 s instead of 30."""
    drop_in = "/etc/systemd/system/telemetryd.service.d/impatient.conf"
    node.write(drop_in, "[Service]\nWatchdogSec=1\nRestartSec=100ms\nTimeoutStopSec=1\n")
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "telemetryd")
    yield
    node.run("rm", drop_in)
    node.run("systemctl", "daemon-reload")
    node.run("systemctl", "restart", "telemetryd")


def test_a_daemon_that_hangs_is_restarted_by_the_watchdog(node, impatient):
    before = node.pid()
    node.run("kill", "-STOP", str(before))
    wait_for("a restart", lambda: node.show("telemetryd", "NRestarts") == "1")
    wait_for("the start", lambda: node.show("telemetryd", "ActiveState") == "active")
    assert "Watchdog timeout" in node.journal("telemetryd")
    assert node.pid() != before


def test_a_config_that_is_bad_at_start_is_not_tried_again_and_again(node, reconfigure):
    reconfigure("[wbe]\n")
    assert node.run("systemctl", "restart", "telemetryd", check=False).returncode != 0
    assert node.show("telemetryd", "ActiveState") == "failed"
    assert node.show("telemetryd", "ExecMainStatus") == "2"


def once(text):
    """The output of `once`: value by collector, name and labels.

    Without utilization and bandwidth, which two samples may or may not give: a counter of the
    kernel that falls, as that of iowait does, gives none. Of the owners only the daemon itself:
    the others come and go, and the one in the sandbox is one of them.
    """
    return {
        (batch["collector"], series["name"], *sorted(series["labels"].items())): series["value"]
        for batch in json.loads(text)
        for series in batch["series"]
        if not series["name"].startswith(("telemetryd_utilization_", "telemetryd_bandwidth_"))
        and series["labels"].get("owner", "telemetryd.service") == "telemetryd.service"
    }


def in_the_sandbox(node, program):
    """What `program` prints in the place of the daemon: all else is as the unit says."""
    unit = (node.local / "lib/systemd/system/telemetryd.service").read_text()
    unit = re.sub(r"(?m)^(Exec\w+|Type|Restart\w*|Watchdog\w*|NotifyAccess)=.*\n", "", unit)
    run = f"[Service]\nType=oneshot\nExecStart={program}\n"
    run += "StandardOutput=file:/run/sandbox.out\nStandardError=journal\n"
    node.write("/etc/systemd/system/sandbox.service", unit.replace("[Service]\n", run))
    node.run("rm", "-f", "/run/sandbox.out")
    node.run("systemctl", "daemon-reload")
    done = node.run("systemctl", "start", "sandbox", check=False)
    assert done.returncode == 0, node.journal("sandbox")
    return node.run("cat", "/run/sandbox.out").stdout


def as_the_user(node, *program):
    """What `program` prints when the service's user runs it outside of any sandbox."""
    user = ("setpriv", "--reuid=telemetryd", "--regid=telemetryd", "--clear-groups")
    return node.run(*user, *program).stdout


def test_the_daemon_sees_the_same_from_inside_its_sandbox_as_from_outside(node):
    program = "/opt/telemetryd/bin/telemetryd once --interval 0.2 --format json"
    inside = once(in_the_sandbox(node, program))
    outside = once(as_the_user(node, *program.split()))
    assert inside.keys() == outside.keys()
    assert {"filesystem", "system", "self"} <= {key[0] for key in inside}
    steady = re.compile("_(size_bytes|read_only|boot_time_seconds|synchronized|info)$")
    still = {key for key in inside if steady.search(key[1])}
    mounts = {label for key in still for label in key[2:] if label[0] == "mountpoint"}
    assert {("mountpoint", "/"), ("mountpoint", "/home"), ("mountpoint", "/tmp")} <= mounts
    assert {key: inside[key] for key in still} == {key: outside[key] for key in still}


def test_a_file_system_that_is_mounted_later_is_seen_by_the_running_daemon(node):
    (node.root / "mnt").mkdir(exist_ok=True)
    mount = ("mount", "-t", "tmpfs", "-o", "size=3M", "tmpfs", "/mnt")
    node.run(*mount)
    size = 'telemetryd_filesystem_size_bytes{[^}]*mountpoint="/mnt"[^}]*} 3145728'
    wait_for("/mnt with its own size", lambda: re.search(size, node.scrape()))
    node.run("umount", "/mnt")


def test_ctypes_and_the_kernels_clock_work_in_the_sandbox_and_setting_it_does_not(node):
    # NVML is called through ctypes; MemoryDenyWriteExecute must not be in its way.
    code = (
        "import ctypes, os, time\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "assert libc.getpid() == os.getpid()\n"
        "timex = ctypes.create_string_buffer(512)\n"
        "assert libc.adjtimex(timex) >= 0, os.strerror(ctypes.get_errno())\n"
        "try:\n"
        "    time.clock_settime(time.CLOCK_REALTIME, time.time())\n"
        "except PermissionError:\n"
        "    print('as it should be')\n"
    )
    node.write("/etc/telemetryd/probe.py", code)
    said = in_the_sandbox(node, "/opt/telemetryd/bin/python /etc/telemetryd/probe.py")
    assert said == "as it should be\n"


def test_uninstalling_leaves_config_and_state_and_nothing_that_runs(node):
    said = node.script("uninstall.sh").stdout
    assert node.run("systemctl", "is-active", "telemetryd", check=False).stdout == "inactive\n"
    assert node.show("telemetryd", "LoadState") == "not-found"
    assert not (node.root / "opt/telemetryd").exists()
    assert (node.root / "etc/telemetryd/telemetryd.toml").read_text() == CONFIG
    assert (node.root / "var/lib/telemetryd").is_dir()
    assert "/etc/telemetryd" in said
    assert "/var/lib/telemetryd" in said
