"""The unit, its user and permission rules, and the scripts that install them.

What needs a running systemd is in test_installed_service.py.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from telemetryd import config

SOURCE = Path(__file__).parent.parent
SYSTEMD = SOURCE / "systemd"
UNIT = SYSTEMD / "telemetryd.service"
PYTHON = "/usr/bin/python3"


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
