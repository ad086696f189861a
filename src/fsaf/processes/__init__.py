"""Many processes as one: the group that trains or evaluates together, and the signals that stop it.

A device name and the launcher's environment come in. A joined process group, collective operations on plain
values and tensors, and the signal to stop for go out. Read ``group.py``, ``join.py``, ``stop.py``, then
``launch.py``.
"""
