"""Annotation files of COCO, Pascal VOC and YOLO come in; ``Records`` with labels 0..C-1 go out.

Read ``formats.py`` (finds the splits of a folder), one of ``coco.py``, ``voc.py`` (with ``voc_xml.py``) and
``yolo.py`` (with ``data_yaml.py``), then ``splits.py``, which opens the split that a config names. A new
format is a new file with ``NAME``, ``LAYOUT``, ``find`` and ``at``, listed in ``formats.READERS``.
"""
