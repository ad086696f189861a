"""A ``Config`` comes in; times, memory and computation of training and prediction go out.

Read ``benchmark.py`` (speed on the device at hand), then ``dry_run.py`` (what a training would do
and take).
"""
