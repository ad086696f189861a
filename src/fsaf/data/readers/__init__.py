"""Annotation files of COCO, Pascal VOC and YOLO come in; ``Records`` with labels 0..C-1 go out.

Read ``formats.py`` (finds the splits of a folder), then one format: ``coco_layout.py``, ``coco.py`` and the
files that these use, or the same of ``voc`` and ``yolo``; then ``splits.py`` (opens the split that a config
names) and ``holdout.py`` (splits a data set that is not split). A new format is a module with ``NAME``,
``LAYOUT``, ``find``, ``search`` and ``at``, listed in ``formats.READERS``.
"""
