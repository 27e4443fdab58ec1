"""What the tests share: a clock that stands still, trees to read, real servers to talk to."""
