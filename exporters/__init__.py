"""One module per destination; imported as `telemetryd.exporters`."""
