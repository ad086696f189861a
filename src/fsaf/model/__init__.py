"""Pixels come in; ``RawOutputs``, the undecoded tensors of every level, go out.

Read ``detector.py`` first, then the parts that it puts together: ``backbone.py``, ``pyramid.py``
and ``head.py``. ``points.py`` and ``anchors.py`` hold the geometry, and ``convolution.py`` makes 3x3
convolutions faster on a CPU.
"""
