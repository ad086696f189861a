"""Annotations and images come in; batches of fixed shape (``Batch``: uint8 images, padded ``Boxes``)
go out.

Read ``records.py`` and ``faults.py`` (what a data set is), ``readers/`` (where it comes from),
``decode.py``, ``exif.py`` and ``damaged.py`` (image files), ``shapes.py`` and ``transforms.py`` (sizes),
``augment.py``, ``distort.py`` and ``pipeline.py`` (augmentation), ``balance.py``, ``sampler.py``,
``samples.py``, ``batch.py``, ``worker.py`` and ``workers.py`` (from one image to a loader).
``digits.py`` writes the built-in data set.
"""
