"""What runs a config: launching, learning-rate report, hooks."""
