"""`telemetryd spool`: what waits for each destination, and what to do with what it refused.

It works beside a running daemon and without one: looking changes nothing, and what it changes in a
quarantine is one rename or unlink for each body.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import stat
import sys
import time
from collections.abc import Mapping, Sequence

from telemetryd import plugins
from telemetryd.config import Config
from telemetryd.delivery.body_text import as_text, printable
from telemetryd.delivery.quarantine import DAMAGED, Quarantine, Quarantined
from telemetryd.delivery.spool_contents import Contents, folders, look
from telemetryd.errors import TelemetrydError, Unavailable
from telemetryd.spool_tables import quarantine_table, sheet, status_table

# Where the unit that comes with telemetryd has it: an operator's shell does not know.
INSTALLED = "/var/lib/telemetryd/spool"
_IN_MEMORY = (
    "where the daemon has no spool, what waits is in memory and only it knows: "
    "telemetryd_spool_size_bytes; its log says why. With --directory, look elsewhere"
)


def status(config: Config, arguments: argparse.Namespace) -> int:
    """What each destination's folder holds. Raises TelemetrydError if there is no spool."""
    directory = find_spool(config, os.environ, arguments.directory)
    found = [_contents(directory, name, config) for name in _names(directory)]
    missing = [name for name in _destinations(config) if name not in {one.name for one in found}]
    if arguments.format == "json":
        page = {
            "directory": directory,
            "destinations": [dataclasses.asdict(one) for one in found],
            "without_folder": missing,
        }
        print(json.dumps(page, indent=1))
        return 0
    print(printable(f"spool {directory}"))
    if found:
        sys.stdout.write(status_table(found, time.time_ns()))
    for name in missing:
        print(f"{name}: has no folder yet; the daemon makes it when it starts")
    return 0


def list_quarantine(config: Config, arguments: argparse.Namespace) -> int:
    """What is in quarantine, oldest first."""
    found = [(name, entry) for name, one in _open(config, arguments) for entry in one.list()]
    if arguments.format == "json":
        print(json.dumps([{"destination": n, **dataclasses.asdict(e)} for n, e in found], indent=1))
    elif found:
        sys.stdout.write(quarantine_table(found))
    else:
        print("nothing is in quarantine")
    return 0


def show(config: Config, arguments: argparse.Namespace) -> int:
    """One body with everything that is known of it. Raises TelemetrydError if there is none."""
    name, quarantine = _holder(_open(config, arguments), arguments.id)
    try:
        entry, body = quarantine.read(arguments.id)
    except KeyError:
        raise _gone(arguments.id) from None
    except ValueError as error:
        raise Unavailable(str(error), _drop_it(arguments.id)) from error
    if arguments.raw:
        sys.stdout.buffer.write(body.data)
        return 0
    sys.stdout.write(sheet(name, entry))
    try:
        sys.stdout.write(as_text(entry.kind, body.data))
    except ValueError as error:
        raise Unavailable(f"{entry.id} cannot be shown as text: {error}", "use --raw") from error
    return 0


def replay(config: Config, arguments: argparse.Namespace) -> int:
    """Have bodies sent once more. 1 if one of them is damaged."""
    chosen = _chosen(config, arguments)
    if not chosen:
        print("nothing is in quarantine")
        return 0
    known = _destinations(config)
    done = damaged = 0
    for name, quarantine, entry in chosen:
        if entry.reason == DAMAGED:
            damaged += 1
            print(f"{entry.id} is damaged and stays; {_drop_it(entry.id)}", file=sys.stderr)
            continue
        if known.get(name) != entry.kind:
            print(
                f"{entry.id}: the configuration has no destination {name} of the kind {entry.kind};"
                " it waits until there is one",
                file=sys.stderr,
            )
        try:
            quarantine.replay(entry.id)
        except KeyError:
            raise _gone(entry.id) from None
        done += 1
    print(f"{done} to be sent once more: a running daemon takes them with its next flush")
    return int(damaged > 0)


def drop(config: Config, arguments: argparse.Namespace) -> int:
    """Delete bodies from quarantine."""
    chosen = _chosen(config, arguments)
    if not chosen:
        print("nothing is in quarantine")
        return 0
    for _, quarantine, entry in chosen:
        try:
            quarantine.drop(entry.id)
        except KeyError:
            raise _gone(entry.id) from None
    print(f"{len(chosen)} dropped")
    return 0


def find_spool(config: Config, environ: Mapping[str, str], given: str | None) -> str:
    """The directory of the spool: the one that is given, or that of the configuration, or that of
    the installed service. Raises Unavailable if it is not there."""
    if given is None and not config.spool.enabled:
        raise Unavailable("spool.enabled is false: there is no spool", _IN_MEMORY)
    directory = given or config.spool.place(environ) or INSTALLED
    try:
        if stat.S_ISDIR(os.stat(directory).st_mode):
            return directory
        raise Unavailable(f"{directory} is no directory", "move what stands there out of the way")
    except PermissionError as error:
        raise _denied(directory) from error
    except FileNotFoundError:
        why = f"there is no spool in {directory}"
    if not _destinations(config):
        raise Unavailable(
            f"{why}, and the configuration has no destination to push to",
            "name the daemon's configuration with --config, or look elsewhere with --directory",
        )
    raise Unavailable(why, _IN_MEMORY)


def _destinations(config: Config) -> dict[str, str]:
    """Name and kind of every destination that is pushed to."""
    return {
        name: settings.kind(name)
        for name, settings in config.exporters.items()
        if name != plugins.PROMETHEUS
    }


def _names(directory: str) -> list[str]:
    try:
        return folders(directory)
    except PermissionError as error:
        raise _denied(directory) from error


def _denied(path: str) -> Unavailable:
    return Unavailable(
        f"cannot read {path}: permission denied", "use sudo: only the daemon's user and root may"
    )


def _contents(directory: str, name: str, config: Config) -> Contents:
    try:
        found = look(directory, name)
    except PermissionError as error:
        raise _denied(os.path.join(directory, name)) from error
    kind = _destinations(config).get(name)
    if name in config.exporters_off:
        found.remarks.insert(
            0, f"{name} is switched off (enabled = false): this is sent when that is taken out"
        )
    elif kind is None:
        found.remarks.insert(
            0,
            f"the configuration has no destination {name}: nothing sends this; if its table was "
            f"renamed, stop the daemon and rename {found.path} like it, otherwise delete it",
        )
    elif found.kind and found.kind != kind:
        found.remarks.insert(
            0,
            f"{name} is of the kind {kind} now: the daemon sets aside what is of the kind "
            f"{found.kind}; to send it, give {name} another name, and that one the name {name}",
        )
    # Nothing waits there that would say it.
    found.kind = found.kind or kind or ""
    return found


def _open(config: Config, arguments: argparse.Namespace) -> list[tuple[str, Quarantine]]:
    """The quarantine of each destination, or of the one that is named."""
    directory = find_spool(config, os.environ, arguments.directory)
    names = _names(directory)
    wanted = arguments.destination
    if wanted is not None and wanted not in names:
        there = ", ".join(names) or "none"
        raise TelemetrydError(f"{directory} has no folder of a destination {wanted}; has: {there}")
    chosen = [name for name in names if wanted in {None, name}]
    for name in chosen:
        if not os.access(os.path.join(directory, name), os.R_OK | os.X_OK):
            raise _denied(os.path.join(directory, name))
    limit = config.spool.quarantine_bytes
    return [(name, Quarantine(os.path.join(directory, name), limit)) for name in chosen]


def _holder(opened: Sequence[tuple[str, Quarantine]], wanted: str) -> tuple[str, Quarantine]:
    """The quarantine that has the body called `wanted`."""
    holders = [(n, one) for n, one in opened if any(e.id == wanted for e in one.list())]
    if not holders:
        raise _gone(wanted)
    if len(holders) > 1:
        names = ", ".join(name for name, _ in holders)
        raise TelemetrydError(f"{wanted} is in several: {names}; choose with --destination")
    return holders[0]


def _chosen(
    config: Config, arguments: argparse.Namespace
) -> list[tuple[str, Quarantine, Quarantined]]:
    """All of them, or those whose names are given: each is looked for before one is touched."""
    opened = _open(config, arguments)
    if arguments.all:
        return [(name, one, entry) for name, one in opened for entry in one.list()]
    found = []
    for wanted in dict.fromkeys(arguments.id):
        name, one = _holder(opened, wanted)
        found += [(name, one, entry) for entry in one.list() if entry.id == wanted]
    return found


def _gone(wanted: str) -> TelemetrydError:
    return TelemetrydError(
        f"nothing in quarantine is called {printable(wanted)}; "
        "`telemetryd spool quarantine list` shows what is there"
    )


def _drop_it(wanted: str) -> str:
    return f"delete it with `telemetryd spool quarantine drop {wanted}`"
