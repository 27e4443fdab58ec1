"""Data center telemetry and efficiency monitoring: one daemon per node."""

__version__ = "0.1.0"
