"""The root oneshot that reads the BMC for the daemon: its script, its unit, its timer."""

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from support import systemd_machine
from support.trees import FIXTURES

from telemetryd.collectors.ipmi import Ipmi, IpmiConfig
from telemetryd.errors import ReadError
from telemetryd.host import Host

SYSTEMD = Path(__file__).parent.parent / "systemd"
SCRIPT = SYSTEMD / "read-ipmi-power.sh"
UNITS = [SYSTEMD / f"telemetryd-ipmi.{kind}" for kind in ("service", "timer")]
GOOD = {name: FIXTURES / "ipmi" / name / "active.txt" for name in ("ipmitool", "ipmi-dcmi")}


def sample(file, **config):
    """What the daemon makes of the file, by its own clock."""
    collector = Ipmi(IpmiConfig(file=str(file), **config), Host())
    return [value for _, value in collector.sample()]


def setting(unit, name):
    found = re.findall(rf"(?m)^{name}=(.*)$", unit.read_text())
    assert found, f"{unit.name} has no {name}"
    return found[-1]


# The script


class Office:
    """A folder for the script's output, and the only programs that it finds."""

    def __init__(self, root):
        self.bin = root / "bin"
        self.bin.mkdir()
        self.runtime = root / "runtime"
        self.runtime.mkdir()
        self.power = self.runtime / "power"
        for name in ("sh", "mv", "timeout", "cat", "sleep"):
            (self.bin / name).symlink_to(shutil.which(name))

    def put(self, name, text):
        program = self.bin / name
        program.unlink(missing_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    def run(self):
        environment = {"PATH": str(self.bin), "RUNTIME_DIRECTORY": str(self.runtime)}
        command = [str(self.bin / "sh"), str(SCRIPT)]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60
        )


@pytest.fixture
def office(tmp_path):
    return Office(tmp_path)


@pytest.mark.parametrize("program", sorted(GOOD))
def test_the_output_of_either_program_becomes_the_file_that_the_daemon_reads(office, program):
    office.put(program, f'echo "$@" >{office.bin}/asked\ncat {GOOD[program]}')
    done = office.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert office.power.read_bytes() == GOOD[program].read_bytes()
    assert os.listdir(office.runtime) == ["power"]
    assert sample(office.power) == [220]
    asked = (office.bin / "asked").read_text().strip()
    # The driver alone, never the hardware itself; to read, and for nothing else.
    assert asked in {"-I open dcmi power reading", "-D OPENIPMI --get-system-power-statistics"}


def test_ipmitool_is_preferred(office):
    office.put("ipmitool", f"cat {GOOD['ipmitool']}")
    office.put("ipmi-dcmi", "exit 1")
    office.run()
    assert sample(office.power) == [220]


def test_without_a_program_the_daemon_says_what_to_install(office):
    assert office.run().returncode == 0
    with pytest.raises(ReadError, match="apt install ipmitool") as missing:
        sample(office.power)
    assert missing.value.reason == "missing"


def test_a_failure_is_handed_on_instead_of_the_last_reading(office):
    office.put("ipmitool", f"cat {GOOD['ipmitool']}")
    office.run()
    office.put("ipmitool", "echo 'Could not open device at /dev/ipmi0' >&2; exit 1")
    assert office.run().returncode == 0
    with pytest.raises(ReadError, match="modprobe -a ipmi_si ipmi_devintf"):
        sample(office.power)


def test_a_program_that_hangs_is_ended_and_that_is_handed_on(office):
    # 15 s are as long as a second in this test.
    office.put("timeout", f'shift 2\nexec {shutil.which("timeout")} --kill-after=1 0.2 "$@"')
    office.put("ipmitool", "echo begun\nexec sleep 1000")
    done = office.run()
    assert done.returncode == 0
    with pytest.raises(ReadError, match="see the kernel's log for ipmi_si") as slow:
        sample(office.power)
    assert slow.value.reason == "timeout"


def test_the_file_is_replaced_as_a_whole(office):
    office.put("ipmitool", f"cat {office.power}; cat {GOOD['ipmitool']}")
    office.power.write_text("the last one\n")
    with office.power.open() as reader:
        office.run()
        assert reader.read() == "the last one\n"
    # While the program ran, the last one was still there.
    assert office.power.read_text().startswith("the last one\n")


def test_a_folder_that_cannot_be_written_fails_the_unit(office):
    office.put("ipmitool", "echo")
    office.runtime.rmdir()
    assert office.run().returncode != 0


# The units


@pytest.fixture
def analyze(tmp_path):
    """systemd-analyze on the units as installed below `tmp_path`, since it looks for the script."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed (apt install systemd)")
    (tmp_path / "libexec").mkdir()
    shutil.copy(SCRIPT, tmp_path / "libexec")
    units = []
    for unit in UNITS:
        units.append(str(tmp_path / unit.name))
        Path(units[-1]).write_text(unit.read_text().replace("/opt/telemetryd", str(tmp_path)))

    def run(*arguments, only=slice(None)):
        command = ["systemd-analyze", *arguments, *units[only]]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return run


def test_systemd_finds_no_fault_with_the_units(analyze):
    done = analyze("verify", "--man=no")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_oneshots_exposure_is_at_most_1_5(analyze):
    done = analyze("security", "--offline=true", "--no-pager", only=slice(1))
    score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert score, done.stdout + done.stderr
    assert float(score[1]) <= 1.5


def test_the_bmcs_device_is_the_oneshots_alone():
    assert setting(UNITS[0], "DeviceAllow") == "/dev/ipmi0 rw"
    assert setting(UNITS[0], "DevicePolicy") == "closed"
    others = (SYSTEMD / "telemetryd.service", SYSTEMD / "telemetryd.tmpfiles.conf")
    assert not any("ipmi" in file.read_text() for file in others)


def test_the_daemon_looks_where_the_oneshot_writes_and_outwaits_two_readings_that_are_missed():
    defaults = IpmiConfig()
    assert defaults.file == f"/run/{setting(UNITS[0], 'RuntimeDirectory')}/power"
    assert defaults.max_age >= 3 * int(setting(UNITS[1], "OnUnitActiveSec"))
    assert defaults.interval >= int(setting(UNITS[1], "OnUnitActiveSec"))


def test_the_oneshot_has_longer_than_its_script_takes():
    found = re.search(r"--kill-after=(\d+) (\d+)", SCRIPT.read_text())
    assert found
    assert int(setting(UNITS[0], "TimeoutStartSec")) > int(found[1]) + int(found[2])


def test_nothing_but_an_operator_starts_it():
    assert "[Install]" not in UNITS[0].read_text()
    assert "preset" not in (SYSTEMD / "install.sh").read_text()
    assert not re.search(
        r"systemctl (enable|start|restart).*ipmi", (SYSTEMD / "install.sh").read_text()
    )


# The units under a real systemd


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """A machine with the units installed, the timer off, and an ipmitool of our own."""
    reason = systemd_machine.why_not()
    if reason:
        pytest.skip(reason)
    machine = systemd_machine.Machine(tmp_path_factory.mktemp("machine") / "root")
    try:
        machine.start()
    except systemd_machine.CannotBootError as error:
        pytest.skip(str(error))
    try:
        for folder, files in {
            machine.local / "lib/systemd/system": UNITS,
            machine.local / "lib/sysusers.d": [SYSTEMD / "telemetryd.sysusers.conf"],
            machine.root / "opt/telemetryd/libexec": [SCRIPT],
        }.items():
            folder.mkdir(parents=True, exist_ok=True)
            for file in files:
                shutil.copy(file, folder)
        tool = machine.local / "bin/ipmitool"
        tool.parent.mkdir(parents=True, exist_ok=True)
        tool.write_text(
            "#!/bin/sh\ngrep -E '^(Uid|CapEff|CapBnd|NoNewPrivs):' /proc/self/status\n"
            "touch /etc/mine 2>&1\n"
            f"cat <<'END'\n{GOOD['ipmitool'].read_text()}END\n"
        )
        tool.chmod(0o755)
        machine.run("systemd-sysusers", "telemetryd.sysusers.conf")
        machine.run("systemctl", "daemon-reload")
        yield machine
    finally:
        machine.stop()


def wait_for(what, condition):
    """Wait for another process to get there; half a minute is far more than it takes."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.05)


def test_enabling_the_timer_brings_a_reading_that_the_daemons_group_alone_may_read(machine):
    power = "/run/telemetryd-ipmi/power"
    assert machine.show("telemetryd-ipmi.timer", "ActiveState") == "inactive"
    machine.run("systemctl", "enable", "--now", "telemetryd-ipmi.timer")
    exists = ("test", "-e", power)
    wait_for("a reading", lambda: machine.run(*exists, check=False).returncode == 0)
    wait_for("its end", lambda: machine.show("telemetryd-ipmi", "SubState") == "dead")
    assert machine.show("telemetryd-ipmi", "Result") == "success"
    # It is still there when the oneshot is over.
    names = machine.run("stat", "--format=%U %G %a", "/run/telemetryd-ipmi", power).stdout
    assert names == "root telemetryd 750\nroot telemetryd 640\n"

    def as_user(user, *command):
        who = (f"--reuid={user}", f"--regid={user}", "--clear-groups")
        return machine.run("setpriv", *who, *command, check=False)

    said = as_user("telemetryd", "cat", power)
    assert said.returncode == 0
    assert as_user("nobody", "cat", power).returncode != 0
    assert as_user("telemetryd", "rm", power).returncode != 0
    assert as_user("telemetryd", "touch", "/run/telemetryd-ipmi/x").returncode != 0
    copy = machine.root.parent / "power"
    copy.write_text(said.stdout)
    assert sample(copy) == [220]
    # What ran was root without a capability, in a file system that it cannot change.
    assert re.search(r"^Uid:\s+0\s+0", said.stdout, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", said.stdout, re.MULTILINE)
    assert re.search(r"^CapBnd:\s+0+$", said.stdout, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", said.stdout, re.MULTILINE)
    assert "Read-only file system" in said.stdout
    assert machine.show("telemetryd-ipmi.timer", "NextElapseUSecMonotonic") != "infinity"
    assert machine.journal("telemetryd-ipmi.service") == ""


@pytest.fixture
def hasty(machine):
    """The timer with a second instead of 30, and a oneshot that fails."""
    lines = {
        "service": "[Service]\nExecStart=\n"
        "ExecStart=/bin/sh -c 'echo tried >>/run/telemetryd-ipmi/tries; exit 1'\n",
        "timer": "[Timer]\nOnActiveSec=\nOnActiveSec=0\nOnUnitActiveSec=1\n",
    }
    folders = [machine.root / f"etc/systemd/system/telemetryd-ipmi.{kind}.d" for kind in lines]
    for folder, text in zip(folders, lines.values(), strict=True):
        folder.mkdir(parents=True)
        (folder / "hasty.conf").write_text(text)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "telemetryd-ipmi.timer")
    yield machine
    machine.run("systemctl", "stop", "telemetryd-ipmi.timer")
    for folder in folders:
        shutil.rmtree(folder)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "reset-failed")


def test_after_a_reading_that_failed_the_timer_tries_again(hasty):
    def tried_thrice():
        said = hasty.run("cat", "/run/telemetryd-ipmi/tries", check=False).stdout
        return said.count("tried") >= 3

    wait_for("a third try", tried_thrice)


@pytest.mark.parametrize(
    ("program", "options", "words"),
    [
        ("ipmitool", "-I open dcmi power reading", "Could not open device at /dev/ipmi0"),
        ("ipmi-dcmi", "-D OPENIPMI --get-system-power-statistics", "device not found"),
    ],
)
def test_the_real_programs_run_in_the_sandbox_and_miss_nothing_but_the_device(
    machine, program, options, words
):
    assert f"{program} {options}" in SCRIPT.read_text()
    real = shutil.which(program, path="/usr/bin:/usr/sbin")
    if real is None:
        pytest.skip(f"{program} is not installed (apt install ipmitool freeipmi-tools)")
    ours = machine.local / "bin/ipmitool"
    before = ours.read_text()
    ours.write_text(f"#!/bin/sh\nexec {real} {options}\n")
    try:
        machine.run("systemctl", "start", "telemetryd-ipmi.service")
    finally:
        ours.write_text(before)
    assert words in machine.run("cat", "/run/telemetryd-ipmi/power").stdout
