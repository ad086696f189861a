"""Annotation files of COCO, Pascal VOC and YOLO come in; ``Records`` with labels 0..C-1 go out.

Read ``formats.py`` (which reader for which folder), one of ``coco.py``, ``voc.py`` and ``yolo.py``,
then ``splits.py``, which opens the split that a config names.
"""
