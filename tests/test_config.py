"""What the configuration may say, and how it says no: file, key, value and what is allowed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import TypeAdapter, ValidationError

from telemetryd import plugins
from telemetryd.config import Config, config_files, load
from telemetryd.duration import Bytes, Seconds
from telemetryd.errors import ConfigError, Problem


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "telemetryd.toml"


def read(file: Path, text: str | bytes, environ: Mapping[str, str] | None = None) -> Config:
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return load(config_files(str(file)), environ or {})


def problems(
    file: Path, text: str | bytes, environ: Mapping[str, str] | None = None
) -> list[Problem]:
    with pytest.raises(ConfigError) as refused:
        read(file, text, environ)
    assert str(refused.value) == "\n".join(map(str, refused.value.problems))
    return refused.value.problems


def test_without_any_file_every_built_in_collector_is_looked_for() -> None:
    config = load([], {})
    assert list(config.collectors) == list(plugins.COLLECTORS)
    assert {settings.enabled for settings in config.collectors.values()} == {"auto"}
    assert list(config.exporters) == ["prometheus"]
    assert config.web.address == ("127.0.0.1", 10090)
    assert (config.host.procfs, config.host.sysfs, config.host.rootfs) == ("/proc", "/sys", "/")
    assert config.labels == {}


def test_what_the_file_says_holds(file: Path) -> None:
    config = read(
        file,
        """
        labels = { cluster = "north", rack = "7" }
        [web]
        listen = "[::]:9000"
        [derived]
        peak_window = "5m"
        cores = false
        [collectors.cpu]
        enabled = true
        interval = "500ms"
        [collectors.network]
        exclude = ["veth*"]
        [collectors.rapl]
        enabled = false
        [exporters.prometheus]
        enabled = false
        """,
    )
    assert config.labels == {"cluster": "north", "rack": "7"}
    assert config.web.address == ("::", 9000)
    assert (config.derived.peak_window, config.derived.cores) == (300.0, False)
    assert (config.collectors["cpu"].enabled, config.collectors["cpu"].interval) == (True, 0.5)
    assert config.collectors["network"].exclude == ("veth*",)  # type: ignore[attr-defined]
    assert "rapl" not in config.collectors
    assert config.exporters == {}


CPU = "[collectors.cpu]\n"
INFLUX = '[exporters.influxdb]\nurl = "http://localhost:8086"\n'


@pytest.mark.parametrize(
    ("text", "key", "value", "allowed"),
    [
        ('[web]\nlisten = "10090"', "web.listen", "'10090'", "address:port"),
        ('[web]\nlisten = "[::1]:99999"', "web.listen", "'[::1]:99999'", "address:port"),
        ("[web]\nlisten = 10090", "web.listen", "10090", "should be a valid string"),
        ('[log]\nlevel = "loud"', "log.level", "'loud'", "'debug', 'info', 'warning' or 'error'"),
        ("[host]\nprocfs = []", "host.procfs", "[]", "should be a valid string"),
        ("[derived]\npeak_window = 0", "derived.peak_window", "0", "greater than 0"),
        (CPU + "interval = 0.01", "collectors.cpu.interval", "0.01", "equal to 0.05"),
        (CPU + "interval = nan", "collectors.cpu.interval", "nan", "equal to 3600"),
        (CPU + 'interval = "2h"', "collectors.cpu.interval", "'2h'", "equal to 3600"),
        (CPU + 'interval = "soon"', "collectors.cpu.interval", "'soon'", 'such as "10s"'),
        (CPU + 'interval = "10"', "collectors.cpu.interval", "'10'", "a unit of ms, s, m, h, d"),
        (CPU + "interval = true", "collectors.cpu.interval", "true", 'such as "10s"'),
        (CPU + "interval = [1]", "collectors.cpu.interval", "[1]", "should be a valid number"),
        (CPU + "max_series = 0", "collectors.cpu.max_series", "0", "equal to 1"),
        (CPU + "max_series = 1.5", "collectors.cpu.max_series", "1.5", "valid integer"),
        (CPU + 'enabled = "maybe"', "collectors.cpu.enabled", "'maybe'", "valid boolean"),
        (CPU + 'enabled = "maybe"', "collectors.cpu.enabled", "'maybe'", "or should be 'auto'"),
        (
            "[collectors.network]\ninclude = ['eth0', 7]",
            "collectors.network.include.1", "7", "valid string",
        ),
        ("[collectors.network]\nexclude = 'x'", "collectors.network.exclude", "'x'", "be a list"),
        ("web = 5", "web", "5", "this is a table"),
        ("collectors = 5", "collectors", "5", "this is a table"),
        ("collectors.cpu = 'on'", "collectors.cpu", "'on'", "this is a table"),
        ("exporters = ['influxdb']", "exporters", "['influxdb']", "this is a table"),
        (INFLUX, "exporters.influxdb.bucket", "", "field required"),
        (INFLUX + "bucket = ''", "exporters.influxdb.bucket", "''", "at least 1 character"),
        ("[exporters.mimir]", "exporters.mimir", "", "a name of your own needs `type`"),
        ("exporters.m.type = 'qq'", "exporters.m.type", "'qq'", "no such kind; known are"),
        (
            "host.commands = ['a-command-that-is-long']",
            "host.commands", "['a-command-that-is-long']", 'write "a-command-that-"',
        ),
        ("exporters.m.type = 7", "exporters.m.type", "7", "write a text"),
        ("exporters.'a b'.type = 'influxdb'", "exporters.a b", "", "letters, digits, _ and -"),
        (
            "exporters.prometheus.type = 'remote_write'",
            "exporters.prometheus.type", "'remote_write'", "give this one another name",
        ),
        ("exporters.m.type = 'prometheus'", "exporters.m.type", "'prometheus'", "another name"),
        ("labels = 'north'", "labels", "'north'", "this is a table"),
        ("[labels]\nrack = 7", "labels.rack", "7", "a text that is not empty"),
        ("[labels]\nrack = ''", "labels.rack", "''", "a text that is not empty"),
        ("[labels]\n'data-center' = 'x'", "labels.data-center", "'x'", "letters, digits and _"),
        ("[labels]\n'größe' = 'x'", "labels.größe", "'x'", "letters, digits and _"),
        ("[labels]\n__name__ = 'x'", "labels.__name__", "'x'", "letters, digits and _"),
        ("[labels]\nhost = 'x'", "labels.host", "'x'", "taken by the daemon"),
    ],
)  # fmt: skip
def test_a_problem_names_the_file_the_key_the_value_and_what_is_allowed(
    file: Path, text: str, key: str, value: str, allowed: str
) -> None:
    (problem,) = problems(file, text)
    assert (problem.file, problem.key, problem.value) == (str(file), key, value)
    assert allowed in problem.allowed
    shown = f"{key} = {value}" if value else key
    assert str(problem).startswith(f"{file}: {shown}: ")


@pytest.mark.parametrize(
    ("text", "key", "near"),
    [
        ("[colectors.cpu]", "colectors", "collectors"),
        ("[collectors.dsik]", "collectors.dsik", "disk"),
        ("[exporters.influx]", "exporters.influx", "influxdb"),
        (CPU + "intervall = 5", "collectors.cpu.intervall", "interval"),
        (INFLUX + "bucket = 'b'\ntokenfile = '/x'", "exporters.influxdb.tokenfile", "token_file"),
        ("[web]\nlisten_address = 'x'", "web.listen_address", "listen"),
        ("[labls]\nrack = '1'", "labls", "labels"),
    ],
)
def test_a_typo_is_answered_with_the_closest_key(
    file: Path, text: str, key: str, near: str
) -> None:
    (problem,) = problems(file, text)
    assert problem.key == key
    assert problem.allowed == f'there is no such key; did you mean "{near}"?'


@pytest.mark.parametrize(
    "line",
    [
        "token = 'hush'",
        "password = 'hush'",
        "url = 'http://operator:hush@receiver/w'",
        "headers = 'Authorization: hush'",
        "api_key = ['hush']",
    ],
)
def test_what_may_be_secret_is_not_repeated(file: Path, line: str) -> None:
    found = problems(file, f"[exporters.remote_write]\n{line}\n")
    assert "hush" not in "".join(map(str, found))
    assert any("(not shown)" in problem.value for problem in found)


def test_the_name_of_a_file_with_a_secret_is_no_secret(file: Path) -> None:
    found = problems(file, "exporters.remote_write.token_files = '/etc/token'")
    assert any(problem.value == "'/etc/token'" for problem in found)


def test_there_can_be_several_destinations_of_a_kind(file: Path) -> None:
    one = 'type = "remote_write"\nurl = "http://{0}/w"\n'
    text = "".join(f"[exporters.{name}]\n{one.format(name)}" for name in ("mimir", "thanos-2"))
    config = read(file, text + INFLUX + "bucket = 'b'\n")
    assert list(config.exporters) == ["prometheus", "mimir", "thanos-2", "influxdb"]
    assert [type(one).__name__ for one in config.exporters.values()][1:] == [
        *("RemoteWriteConfig", "RemoteWriteConfig", "InfluxDBConfig")
    ]


def test_a_key_that_is_like_no_other_is_answered_with_those_there_are(file: Path) -> None:
    (problem,) = problems(file, "[log]\nxyzzy = 1")
    assert problem.allowed == "there is no such key; known are level"
    (problem,) = problems(file, "[collectors.qqq]")
    assert "cpu, memory, pressure" in problem.allowed


def test_everything_that_is_wrong_is_said_at_once(file: Path) -> None:
    text = "[web]\nlisten = 'x'\nport = 1\n[collectors.cpu]\ninterval = 0\n[collectors.gpuu]\n"
    keys = [problem.key for problem in problems(file, text)]
    assert sorted(keys) == ["collectors.cpu.interval", "collectors.gpuu", "web.listen", "web.port"]


def test_a_file_that_is_not_toml_is_refused_with_the_place(file: Path) -> None:
    (problem,) = problems(file, "[web]\nlisten = \n")
    assert problem.file == str(file)
    assert "line 2" in problem.allowed
    (problem,) = problems(file, b"[labels]\nrack = '\xff'\n")
    assert "is not TOML" in problem.allowed


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.toml", tmp_path):
        with pytest.raises(ConfigError, match=re.escape(f"{path}: cannot be read: ")):
            load([str(path)], {})


@pytest.mark.parametrize("folder", ["etc", "odd [name]"])
def test_files_in_conf_d_override_single_keys_in_the_order_of_their_names(
    tmp_path: Path, folder: str
) -> None:
    more = tmp_path / folder / "conf.d"
    more.mkdir(parents=True)
    (more / "10-early.toml").write_text("[collectors.cpu]\ninterval = 2\nmax_series = 7\n")
    for number in (23, 21, 29, 20, 27, 24):
        (more / f"{number}.toml").write_text(f"[collectors.cpu]\ninterval = {number}\n")
    (more / "30-off.toml.disabled").write_text("not even toml")
    text = "[collectors.cpu]\ninterval = 1\nenabled = true\n"
    cpu = read(tmp_path / folder / "telemetryd.toml", text).collectors["cpu"]
    assert (cpu.interval, cpu.max_series, cpu.enabled) == (29.0, 7, True)


def test_a_problem_names_the_file_that_set_the_value(file: Path) -> None:
    (file.parent / "conf.d").mkdir()
    extra = file.parent / "conf.d" / "site.toml"
    extra.write_text("[collectors.cpu]\ninterval = 0\n")
    text = "[collectors.cpu]\ninterval = 1\nmax_series = 0\n"
    found = {problem.key: problem.file for problem in problems(file, text)}
    assert found == {
        "collectors.cpu.interval": str(extra),
        "collectors.cpu.max_series": str(file),
    }


def test_variables_override_files(file: Path) -> None:
    config = read(
        file,
        '[web]\nlisten = "127.0.0.1:1"\n[collectors.network]\ninclude = ["eth0"]\n',
        {
            "TELEMETRYD_WEB__LISTEN": "0.0.0.0:2",
            "TELEMETRYD_COLLECTORS__CPU__INTERVAL": "500ms",
            "TELEMETRYD_COLLECTORS__MEMORY__INTERVAL": "2.5",
            "TELEMETRYD_COLLECTORS__DISK__ENABLED": "false",
            "TELEMETRYD_COLLECTORS__NETWORK__INCLUDE": '["eth1", "eth2"]',
            "TELEMETRYD_LABELS__RACK": "north 7",
            "PATH": "/usr/bin",
            "TELEMETRY_OTHER": "1",
        },
    )
    assert config.web.listen == "0.0.0.0:2"
    assert config.collectors["cpu"].interval == 0.5
    assert config.collectors["memory"].interval == 2.5
    assert "disk" not in config.collectors
    assert config.collectors["network"].include == ("eth1", "eth2")  # type: ignore[attr-defined]
    assert config.labels == {"rack": "north 7"}


@pytest.mark.parametrize(
    ("name", "value", "key", "allowed"),
    [
        ("TELEMETRYD_WEB__LISTEN", "x", "web.listen", "address:port"),
        ("TELEMETRYD_WEB__LISTN", "x", "web.listn", '"listen"'),
        ("TELEMETRYD_CONFIG", "/etc/x", "config", "no such key"),
        ("TELEMETRYD_WEB", "x", "web", "this is a table"),
    ],
)
def test_a_problem_with_a_variable_names_it(
    file: Path, name: str, value: str, key: str, allowed: str
) -> None:
    (problem,) = problems(file, "", {name: value})
    assert (problem.file, problem.key) == (f"environment {name}", key)
    assert allowed in problem.allowed


def test_flags_override_variables() -> None:
    environ = {"TELEMETRYD_HOST__PROCFS": "/a", "TELEMETRYD_HOST__SYSFS": "/b"}
    config = load([], environ, {"host": {"procfs": "/c"}})
    assert (config.host.procfs, config.host.sysfs) == ("/c", "/b")


def test_a_collector_or_exporter_that_is_switched_off_is_not_imported(file: Path) -> None:
    file.write_text("[collectors.rapl]\nenabled = false\n[exporters.influxdb]\nenabled = false\n")
    code = (
        "import sys; from telemetryd.config import load; load([sys.argv[1]], {})\n"
        "print(*(m for m in sys.modules if m.startswith('telemetryd.') or 'influx' in m))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code, str(file)],
        cwd=Path(__file__).parent.parent, capture_output=True, text=True, timeout=60, check=True,
    ).stdout.split()  # fmt: skip
    assert "telemetryd.collectors.cpu" in loaded
    assert "telemetryd.collectors.rapl" not in loaded
    assert not [name for name in loaded if "influx" in name]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5), ("10s", 10), ("5m", 300), ("24h", 86400), ("1d", 86400), ("1.5h", 5400),
        (" 10 s ", 10), (7, 7), (0.25, 0.25),
    ],
)  # fmt: skip
def test_a_duration_is_a_number_of_seconds_or_has_a_unit(text: object, seconds: float) -> None:
    assert TypeAdapter(Seconds).validate_python(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("1B", 1), ("64MiB", 64 << 20), ("1.5KiB", 1536), ("2GiB", 2 << 30), (7, 7)]
)
def test_a_size_is_a_number_of_bytes_or_has_a_unit(text: object, size: int) -> None:
    assert TypeAdapter(Bytes).validate_python(text) == size


@pytest.mark.parametrize("text", ["", "s", "10", "10 parsec", "-5s", "1h30m", "1e3s", True, None])
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Seconds).validate_python(text)


@pytest.mark.parametrize("text", ["64", "64MB", "64mib", 1.5, True, "9" * 400 + "GiB"])
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Bytes).validate_python(text)


def test_what_kubernetes_tells_of_a_service_called_telemetryd_is_no_configuration() -> None:
    load(
        [],
        {
            "TELEMETRYD_PORT": "tcp://10.0.0.1:10090",
            "TELEMETRYD_PORT_10090_TCP_ADDR": "10.0.0.1",
            "TELEMETRYD_SERVICE_HOST": "10.0.0.1",
            "TELEMETRYD_SERVICE_PORT_METRICS": "10090",
        },
    )
