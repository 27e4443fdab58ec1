"""Derived quantities: utilization, bandwidth, energy. No I/O; readings in, figures out."""
