"""What stands between a batch and a destination that may be slow, down or picky."""
