"""The command line: run, once, doctor, check-config, metrics, spool."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from telemetryd import __version__
from telemetryd.config import Config, config_files, host_of, load
from telemetryd.errors import ConfigError, TelemetrydError
from telemetryd.log import set_up

_MOST_FILES = 16384
_EPILOG = "Everything else is in the configuration file: see docs/configuration.md."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status: 0 fine, 1 not fine, 2 wrong usage or config."""
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.command(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()  # whoever read it has enough
        return 0
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except TelemetrydError as error:
        print(f"telemetryd: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"telemetryd: {error}", file=sys.stderr)
        _forget_output()
        return 1
    except KeyboardInterrupt:
        return 130
    return status


def _forget_output() -> None:
    """What is left of it would make Python complain again when it exits."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="telemetryd",
        description="Telemetry and efficiency of this node, for Prometheus and InfluxDB.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action="version", version=f"telemetryd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], what: str, *, host: bool = True
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=what, description=what, epilog=_EPILOG)
        sub.set_defaults(command=run)
        if host:
            sub.add_argument("--config", metavar="FILE", help="configuration file to read")
            for tree, default in (("procfs", "/proc"), ("sysfs", "/sys"), ("rootfs", "/")):
                sub.add_argument(
                    f"--{tree}", metavar="DIR", help=f"read this tree instead of {default}"
                )
        return sub

    command("run", _run, "Run the daemon in the foreground until SIGTERM.")
    once = command("once", _once, "Take two samples an interval apart and print them.")
    once.add_argument(
        "--interval", type=_seconds, default=1.0, help="seconds between the two (default 1)"
    )
    once.add_argument(
        "--format",
        choices=("prometheus", "openmetrics", "influx", "json"),
        default="prometheus",
        help="how to print them (default prometheus)",
    )
    once.add_argument("--only", metavar="NAMES", help="collectors to sample, such as cpu,disk")
    doctor = command("doctor", _doctor, "Say what works here, what does not, and the remedy.")
    doctor.add_argument(
        "--format", choices=("table", "json"), default="table", help="default table"
    )
    check = command(
        "check-config",
        _check_config,
        "Check a configuration file; exit 2 if it is wrong.",
        host=False,
    )
    check.add_argument("file", metavar="FILE", help="the file to check, with conf.d/ beside it")
    metrics = command("metrics", _metrics, "List everything that can be exported.", host=False)
    metrics.add_argument(
        "--format", choices=("markdown", "json"), default="markdown", help="default markdown"
    )
    _add_spool(commands)
    return parser


def _add_spool(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """`spool` and what belongs to it."""
    what = "Show what waits for each destination, and handle what one refused."
    spool = commands.add_parser("spool", help=what, description=what, epilog=_EPILOG)
    actions = spool.add_subparsers(metavar="COMMAND", required=True)

    def command(
        group: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: str, what: str
    ) -> argparse.ArgumentParser:
        sub = group.add_parser(name, help=what, description=what, epilog=_EPILOG)
        sub.set_defaults(command=_spool, run=run)
        sub.add_argument("--config", metavar="FILE", help="the daemon's configuration file")
        sub.add_argument("--directory", metavar="DIR", help="the spool, if it is somewhere else")
        return sub

    def formatted(sub: argparse.ArgumentParser) -> None:
        choices = ("table", "json")
        sub.add_argument("--format", choices=choices, default="table", help="default table")

    formatted(command(actions, "status", "status", "Show what waits for each destination."))
    what = "List, show, replay or drop what a destination would not take."
    quarantine = actions.add_parser("quarantine", help=what, description=what, epilog=_EPILOG)
    group = quarantine.add_subparsers(metavar="COMMAND", required=True)
    listing = command(group, "list", "list_quarantine", "List what is in quarantine.")
    formatted(listing)
    showing = command(group, "show", "show", "Show one body, and the words of its destination.")
    showing.add_argument("id", metavar="ID", help="as `list` shows it")
    showing.add_argument("--raw", action="store_true", help="the body alone, byte for byte")
    replaying = command(group, "replay", "replay", "Have bodies sent once more.")
    dropping = command(group, "drop", "drop", "Delete bodies for good.")
    for sub in (replaying, dropping):
        which = sub.add_mutually_exclusive_group(required=True)
        which.add_argument("id", metavar="ID", nargs="*", default=[], help="as `list` shows it")
        which.add_argument("--all", action="store_true", help="everything in quarantine")
    for sub in (listing, showing, replaying, dropping):
        sub.add_argument("--destination", metavar="NAME", help="only what is of this destination")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.05 <= value <= 3600:
        raise argparse.ArgumentTypeError("write seconds from 0.05 to 3600")
    return value


def _flags(arguments: argparse.Namespace) -> dict[str, Any]:
    trees = {name: getattr(arguments, name) for name in ("procfs", "sysfs", "rootfs")}
    given = {name: path for name, path in trees.items() if path is not None}
    return {"host": given} if given else {}


def _load(arguments: argparse.Namespace) -> Config:
    return load(config_files(arguments.config), flags=_flags(arguments))


def _run(arguments: argparse.Namespace) -> int:
    import faulthandler
    import signal

    # Until the daemon can reload, a SIGHUP must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    from telemetryd.service import Service

    # The watchdog ends a daemon that hangs with SIGABRT: say where each thread was.
    if sys.stderr is not None:
        faulthandler.enable()
    _raise_file_limit()
    config = _load(arguments)
    set_up(config.log.level)
    Service(lambda: _load(arguments)).run()
    return 0


def _raise_file_limit() -> None:
    """Hot files stay open, several for each CPU: the usual soft limit of 1024 is soon reached."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError):  # a sandbox may forbid it; its limit then holds
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _once(arguments: argparse.Namespace) -> int:
    from telemetryd.once import show, take

    set_up("warning")
    config = _load(arguments)
    wanted = arguments.only.split(",") if arguments.only else list(config.collectors)
    unknown = [name for name in wanted if name not in config.collectors]
    if unknown:
        known = ", ".join(config.collectors)
        raise TelemetrydError(f"--only {','.join(unknown)}: no such collector; there are {known}")
    collectors = {
        name: config.collectors[name].model_copy(update={"interval": arguments.interval})
        for name in wanted
    }
    config = dataclasses.replace(config, collectors=collectors)
    sys.stdout.write(show(take(config, host_of(config.host)), arguments.format, config.labels))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from telemetryd.doctor import as_table, examine

    set_up("error")
    config = _load(arguments)
    findings = list(examine(config, host_of(config.host)))
    if arguments.format == "json":
        print(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=1))
    else:
        sys.stdout.write(as_table(findings, colour=sys.stdout.isatty()))
    return int(any(finding.is_bad for finding in findings))


def _check_config(arguments: argparse.Namespace) -> int:
    load(config_files(arguments.file), strict=True)
    print(f"{arguments.file}: fine")
    return 0


def _spool(arguments: argparse.Namespace) -> int:
    from telemetryd import spool_command

    run: Callable[[Config, argparse.Namespace], int] = getattr(spool_command, arguments.run)
    return run(load(config_files(arguments.config)), arguments)


def _metrics(arguments: argparse.Namespace) -> int:
    from telemetryd import catalogue

    if arguments.format == "json":
        print(json.dumps(catalogue.as_json(), indent=1))
    else:
        sys.stdout.write(catalogue.as_markdown())
    return 0
