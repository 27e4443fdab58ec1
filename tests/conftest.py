"""Fixtures that several files of tests share."""

from __future__ import annotations

from hypothesis import settings
from support.http_destinations import connect
from support.lanes import make
from support.redfish_reader import bmc, password_file, reader, stack
from support.watched_owners import groups
from support.web import loop, serve

__all__ = ["bmc", "connect", "groups", "loop", "make", "password_file", "reader", "serve", "stack"]

# Machines that run tests are shared and noisy: no example fails for being slow.
settings.register_profile("telemetryd", deadline=None, max_examples=60)
settings.load_profile("telemetryd")
