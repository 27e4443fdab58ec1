"""Fixtures that several files of tests share."""

from __future__ import annotations

from hypothesis import settings
from support.lanes import make
from support.web import loop, serve

__all__ = ["loop", "make", "serve"]

# Machines that run tests are shared and noisy: no example fails for being slow.
settings.register_profile("telemetryd", deadline=None, max_examples=60)
settings.load_profile("telemetryd")
