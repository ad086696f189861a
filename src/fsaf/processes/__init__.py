"""Many processes as one: the group that trains or evaluates together, and signals that stop it.

A device name and the launcher's environment come in; a joined process group, and collective
operations on plain values and tensors, go out. Read ``group.py``, then ``stop.py``.
"""
