"""A ``Config`` comes in; a run folder with checkpoints and metrics goes out.

Read ``trainer.py`` (the loop) and ``step.py`` (one step) first. ``session.py`` sets a training up:
``prepare.py`` opens the data, ``start.py`` builds or resumes the state in ``run.py``. ``optim.py``,
``precision.py``, ``schedule.py``, ``graphs.py``, ``transfer.py``, ``window.py`` and ``log.py`` each do one
job for them. ``callbacks.py`` and ``loggers.py`` pass the log on. ``tune.py`` runs many trainings.
"""
