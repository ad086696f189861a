"""``fsaf predict``: files, folders, videos and cameras come in; annotated pictures, videos and JSON
lines go out.

Read ``annotate.py`` first. ``sources.py`` and ``video.py`` read and write, ``crops.py``
cuts out each detection.
"""
