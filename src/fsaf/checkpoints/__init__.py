"""Checkpoint files of every format come in and go out; inside there is one ``Checkpoint``.

Read ``format.py`` (fsaf's own ``.pt``), then ``any_format.py``, which reads and writes all formats
with the help of ``safetensors.py``, ``mmdetection.py`` (with ``coco_classes.py``), ``hub.py`` and
``published.py`` (checkpoints by name). ``backbone.py`` reads pretrained backbones. Files of others
are checked by ``pickles.py`` and ``memory.py`` (no code, no more memory than they have bytes),
``structure.py`` (types of values) and ``weights.py`` (values, and whether they fit the network).
"""
