"""Repeat images of rare classes: repeat-factor sampling of LVIS (Gupta, Dollár and Girshick, CVPR 2019).

A class in the share f of the images has the factor max(1, sqrt(threshold / f)). An image has the largest
factor of its classes and appears that often an epoch on average.
"""

import math

import numpy as np

from fsaf.data.records import Records
from fsaf.text import counted, printable

MOST_CLASSES = 8
"""Classes that the note names."""


def class_shares(records: Records) -> np.ndarray:
    """Return (C,) float64: the share of images that hold an object, no crowd region, of each class."""
    counts = np.zeros(len(records.classes), np.int64)
    for image in records.images:
        counts[np.unique(image.labels[~image.crowd])] += 1
    return counts / max(1, len(records.images))


def class_factors(shares: np.ndarray, threshold: float) -> np.ndarray:
    """Return (C,) float64 factors of classes in these shares of the images; 1 for a class in none."""
    return np.sqrt(np.maximum(1, threshold / np.where(shares > 0, shares, 1.0)))


def image_factors(records: Records, threshold: float) -> np.ndarray:
    """Return (n,) float64: how often each image of a split appears in an epoch on average, at least 1."""
    factors = class_factors(class_shares(records), threshold)
    objects = [image.labels[~image.crowd] for image in records.images]
    return np.array([factors[labels].max(initial=1.0) for labels in objects])


def whole(factors: np.ndarray) -> int:
    """Return the number of images of an epoch: the sum of the factors, rounded up."""
    return math.ceil(float(factors.sum()) - 1e-6)


def draw_counts(factors: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Round factors (n,) at random to whole numbers that always add up to ``whole(factors)``.

    Each count is its factor rounded down or up, with the factor as its mean; independent rounding, as in
    LVIS, would change the number of steps from epoch to epoch. Factors are first raised in common, by less
    than one image in all, to reach the sum.
    """
    order = rng.permutation(len(factors))  # neighbours in the sum are rounded together
    total = whole(factors)
    ends = np.cumsum(factors[order]) * (total / factors.sum())
    ends[-1:] = total
    counts = np.empty(len(factors), np.int64)
    counts[order] = np.diff(np.floor(ends + rng.random()).astype(np.int64), prepend=0)
    return counts


def balance_note(records: Records, threshold: float, images: int) -> str:
    """Return the line that says what ``data.balance`` does. images: of an epoch."""
    shares, names = class_shares(records), records.classes.names
    raised = [label for label in np.argsort(shares, kind="stable") if 0 < shares[label] < threshold]
    if not raised:
        return f"data.balance {threshold:g} repeats nothing: every class is in that share of the images"
    factors = class_factors(shares, threshold)
    shown = ", ".join(f"{printable(names[label])} x {factors[label]:.3g}" for label in raised[:MOST_CLASSES])
    more = f" and {len(raised) - MOST_CLASSES} more" if len(raised) > MOST_CLASSES else ""
    classes = counted(len(raised), "class", "classes")
    return (
        f"data.balance {threshold:g}: {counted(images, 'image')} an epoch instead of "
        f"{len(records.images)}, images of {classes} repeated: {shown}{more}"
    )
