"""Upper limits of settings. They keep a config in a file from others from taking all memory.

Each is far above what a detector needs.
"""

CHANNELS = 8192
"""``model.channels``."""
CONVS = 64
"""``model.convs``."""
SIDE = 32_768
"""Pixels: ``data.short_side``, ``long_side``, ``pad`` and ``shapes``, ``predict.tile``."""
DETECTIONS = 100_000
"""``predict.candidates`` of a level, ``predict.max_detections`` of an image."""
