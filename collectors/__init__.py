"""One module per source of readings; imported as `telemetryd.collectors`."""
