"""Upper limits of settings. They keep a config in a file from others from taking all memory.

Each is far above what a detector needs.
"""

CHANNELS = 8192
"""``model.channels``."""
CONVS = 64
"""``model.convs``."""
SIDE = 32_768
"""Pixels: ``data.short_side``, ``long_side`` and ``shapes``, ``predict.tile``."""
DETECTIONS = 100_000
"""``predict.candidates`` of a level, ``predict.max_detections`` of an image."""
AREA = 2**26
"""Pixels: ``data.short_side`` times ``data.long_side``, also after ``predict.scales``; batch shapes of
``data.shapes`` and of exported files."""
PAD = 1024
"""``data.pad``."""
BATCH = 4096
"""``data.batch_size``, and images per run of an exported file."""
BOXES = 10_000
"""``data.max_boxes``."""
WORKERS = 256
"""``data.workers``."""
CLASSES = 100_000
"""Classes of a detector."""
SCALES = 16
"""Number of ``predict.scales``."""
TILES = 100_000
"""Tiles of an image, by ``predict.tile`` and ``predict.tile_overlap``."""
