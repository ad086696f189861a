"""Checkpoint files of every format come in and go out; inside is one dictionary, made by
``format.py``.

Read ``format.py`` (our own ``.pt``), then ``any_format.py``, which reads and writes all formats
with the help of ``safetensors.py``, ``mmdetection.py`` (with ``pickles.py`` and
``coco_classes.py``), ``hub.py`` and ``published.py`` (checkpoints by name).
"""
