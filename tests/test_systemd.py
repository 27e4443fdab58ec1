"""The unit, its user and permission rules, and the scripts that install them.

Most of this needs a running systemd: `systemd_machine` boots one. Everything on it is real: the
installer, the unit and its sandbox, the daemon.
"""

import json
import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
import systemd_machine

from telemetryd import config

SOURCE = Path(__file__).parent.parent
SYSTEMD = SOURCE / "systemd"
UNIT = SYSTEMD / "telemetryd.service"
PYTHON = "/usr/bin/python3"
METRICS = "http://127.0.0.1:10090/metrics"


def directives():
    """The [Service] section of the unit; a directive given twice has both values, by lines."""
    found = {}
    for line in UNIT.read_text().split("[Service]")[1].split("[Install]")[0].splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found[name] = f"{found[name]}\n{value}" if name in found else value
    return found


# The unit by itself


@pytest.fixture
def analyze(tmp_path):
    """systemd-analyze on the unit as installed below `tmp_path`, since it looks for the program."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt install systemd)")
    program = tmp_path / "bin/telemetryd"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/telemetryd", str(tmp_path)))

    def run(*arguments):
        return subprocess.run(
            ["systemd-analyze", *arguments, str(unit)], capture_output=True, text=True, check=False
        )

    return run


def test_systemd_finds_no_fault_with_the_unit(analyze):
    done = analyze("verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_units_exposure_is_at_most_2_5(analyze):
    done = analyze("security", "--offline=true", "--no-pager")
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    assert float(score[1]) <= 2.5


def test_the_unit_leaves_out_what_would_falsify_readings():
    unit = directives()
    falsifying = {
        "PrivateDevices",
        "PrivateTmp",
        "PrivateUsers",
        "ProcSubset",
        "ProtectClock",
        "ProtectHostname",
        "ProtectProc",
    }
    assert not falsifying & unit.keys()
    assert unit["ProtectHome"] == "read-only"
    assert unit["DeviceAllow"] == "char-nvidia* rw"


def test_the_unit_gives_the_daemon_longer_to_stop_than_it_takes():
    assert int(directives()["TimeoutStopSec"]) > 10


# Beside the unit


@pytest.mark.skipif(os.geteuid() != 0, reason="a change of owner needs root")
@pytest.mark.skipif(
    not (shutil.which("systemd-sysusers") and shutil.which("systemd-tmpfiles")),
    reason="systemd-sysusers and systemd-tmpfiles are not installed (apt install systemd)",
)
def test_the_tmpfiles_rule_opens_every_rapl_zone_to_the_group_alone(tmp_path):
    zones = ("intel-rapl/intel-rapl:0", "intel-rapl/intel-rapl:0/intel-rapl:0:0")
    links = tmp_path / "sys/class/powercap"
    links.mkdir(parents=True)
    (links / "intel-rapl").symlink_to("../../devices/virtual/powercap/intel-rapl")
    counters = []
    for zone in zones:
        folder = tmp_path / "sys/devices/virtual/powercap" / zone
        folder.mkdir(parents=True)
        (links / folder.name).symlink_to(f"../../devices/virtual/powercap/{zone}")
        counters.append(folder / "energy_uj")
        counters[-1].write_text("1\n")
        counters[-1].chmod(0o400)
    for folder in ("sysusers.d", "tmpfiles.d"):
        (tmp_path / "etc" / folder).mkdir(parents=True)
        rules = SYSTEMD / f"telemetryd.{folder.removesuffix('.d')}.conf"
        shutil.copy(rules, tmp_path / "etc" / folder / "telemetryd.conf")
    root = f"--root={tmp_path}"
    subprocess.run(["systemd-sysusers", root, "telemetryd.conf"], check=True, capture_output=True)
    subprocess.run(["systemd-tmpfiles", root, "--create", "telemetryd.conf"], check=True)
    groups = (tmp_path / "etc/group").read_text()
    group = re.search(r"^telemetryd:[^:]*:(\d+)", groups, re.MULTILINE)
    for counter in counters:
        state = counter.stat()
        assert (state.st_mode & 0o777, state.st_uid) == (0o440, 0)
        assert state.st_gid == int(group[1])


def test_the_example_config_is_valid():
    config.load([str(SYSTEMD / "telemetryd.toml")], environ={})


def test_every_setting_that_the_example_config_shows_is_valid(tmp_path):
    text = (SYSTEMD / "telemetryd.toml").read_text()
    shown = tmp_path / "telemetryd.toml"
    shown.write_text(re.sub(r"(?m)^#(?=[\[a-z])", "", text))
    assert shown.read_text() != text
    loaded = config.load([str(shown)], environ={})
    assert loaded.labels == {"cluster": "alpha", "rack": "r12"}
    assert "influxdb" in loaded.exporters


# The scripts, into a tree


def script(name, **environment):
    return subprocess.run(
        ["sh", str(SYSTEMD / name)],
        env={**os.environ, "PYTHON": PYTHON, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def has_venv():
    done = subprocess.run([PYTHON, "-c", "import ensurepip"], capture_output=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"{PYTHON} cannot make a virtual environment (apt install python3-venv)")


@pytest.fixture(scope="module")
def tree(has_venv, tmp_path_factory):
    """A DESTDIR into which telemetryd was installed, with another PREFIX than the usual one."""
    dest = tmp_path_factory.mktemp("dest")
    done = script("install.sh", DESTDIR=str(dest), PREFIX="/srv/telemetryd")
    assert done.returncode == 0, done.stdout + done.stderr
    return dest


def test_what_is_installed_into_a_tree_speaks_of_its_final_place_only(tree):
    venv = tree / "srv/telemetryd"
    program = (venv / "bin/telemetryd").read_text()
    assert program.startswith("#!/srv/telemetryd/bin/python")
    unit = (tree / "usr/local/lib/systemd/system/telemetryd.service").read_text()
    assert "ExecStart=/srv/telemetryd/bin/telemetryd run" in unit
    assert "/opt/telemetryd" not in unit
    traces = [
        file
        for file in tree.rglob("*")
        if file.is_file() and not file.is_symlink() and str(tree).encode() in file.read_bytes()
    ]
    assert traces == []
    assert list(venv.glob("lib/python3*/site-packages/telemetryd/__pycache__/service.*.pyc"))


def test_installing_again_keeps_the_config_and_plugins_and_uninstalling_keeps_the_config(tree):
    settings = tree / "etc/telemetryd/telemetryd.toml"
    settings.write_text('[log]\nlevel = "debug"\n')
    (packages,) = tree.glob("srv/telemetryd/lib/python3*/site-packages")
    (packages / "site_plugin.py").write_text("")

    def files():
        return {str(file.relative_to(tree)) for file in tree.rglob("*") if not file.is_dir()}

    before = files()
    done = script("install.sh", DESTDIR=str(tree), PREFIX="/srv/telemetryd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert before <= files()
    assert settings.read_text() == '[log]\nlevel = "debug"\n'

    done = script("uninstall.sh", DESTDIR=str(tree), PREFIX="/srv/telemetryd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert files() == {"etc/telemetryd/telemetryd.toml"}
    assert f"{tree}/etc/telemetryd" in done.stdout
    assert script("uninstall.sh", DESTDIR=str(tree), PREFIX="/srv/telemetryd").returncode == 0


@pytest.mark.parametrize("name", ["install.sh", "uninstall.sh"])
def test_a_folder_that_the_installer_did_not_make_is_left_alone(name, has_venv, tmp_path):
    mine = tmp_path / "opt/telemetryd/mine"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    done = script(name, DESTDIR=str(tmp_path))
    assert done.returncode == 1
    assert "made by" in done.stderr
    assert mine.read_text() == "precious"
    assert os.listdir(mine.parent) == ["mine"]


@pytest.mark.parametrize(
    "place",
    [
        {"PREFIX": "/"},
        {"PREFIX": "opt/telemetryd"},
        {"PREFIX": "/opt/../etc"},
        {"PREFIX": "/opt/."},
        {"PREFIX": "/opt/"},
        {"PREFIX": "//"},
        {"PREFIX": "/opt/a b"},
        {"PREFIX": "/opt/a|b"},
        {"LIBDIR": "/usr/$(id)"},
        {"DESTDIR": "here"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["install.sh", "uninstall.sh"])
def test_odd_places_are_refused(name, place, tmp_path):
    done = script(name, **{"DESTDIR": str(tmp_path), **place})
    assert done.returncode == 1
    assert "absolute path" in done.stderr
    assert os.listdir(tmp_path) == []


# The service, on a machine


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


@pytest.fixture(scope="module")
def node(has_venv, tmp_path_factory):
    """A machine on which telemetryd was installed by the installer, and so runs as a service."""
    reason = systemd_machine.why_not()
    if reason:
        pytest.skip(reason)
    place = tmp_path_factory.mktemp("node")
    wheels = place / "wheels"
    builder = place / "builder"
    subprocess.run([PYTHON, "-m", "venv", builder], check=True, capture_output=True)
    wanted = [str(SOURCE), "hatchling"]
    command = [builder / "bin/python", "-m", "pip", "wheel", "--quiet", "--wheel-dir", wheels]
    subprocess.run([*command, *wanted], check=True, timeout=300)
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
        node.write("/etc/telemetryd/telemetryd.toml", CONFIG)
        node.script("install.sh")
        yield node
    finally:
        node.stop()


# Memory-backed ones are left out usually, and the machine has no other beside its root.
CONFIG = """
[collectors.filesystem]
types = ["*"]
exclude_types = ["ramfs", "proc", "sysfs", "cgroup*", "devpts", "mqueue", "hugetlbfs"]
interval = "1s"
"""


def test_the_installed_service_runs_as_its_own_user_and_answers(node):
    assert node.show("telemetryd", "ActiveState") == "active"
    assert node.show("telemetryd", "UnitFileState") == "enabled"
    assert node.run("ps", "-o", "user:20=,ni=", "-p", str(node.pid())).stdout.split() == [
        "telemetryd",
        "-10",
    ]
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
    """The output of `once`: value by collector, name and labels."""
    return {
        (batch["collector"], series["name"], *sorted(series["labels"].items())): series["value"]
        for batch in json.loads(text)
        for series in batch["series"]
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
    steady = re.compile("_(size_bytes|readonly|boot_time_seconds|synchronized|info)$")
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
