"""Training: the loop, schedules, precision, checkpoints, log."""
