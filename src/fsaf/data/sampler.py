"""Order images into batches as a function of seed and epoch alone, so that a run can resume anywhere."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from fsaf.data.balance import draw_counts, whole


class Draw(NamedTuple):
    """One row of a batch."""

    item: int
    """Position in the data set; -1 for a blank row that fills up a batch."""
    epoch: int
    """Seeds the augmentation, together with ``item``."""
    shape: tuple[int, int] | None
    """Fixed batch shape; None if ``data.pad`` is set."""
    copy: int = 0
    """Number of the repetition of this image in this epoch; seeds the augmentation too."""


class ShapeBatches(Sampler[list[Draw]]):
    """Batches of images that share a shape; shapes are mixed over an epoch, and every image appears once.

    With ``factors`` images are repeated. Every epoch has the same number of batches of each shape.

    The last batch of a shape is filled with blank rows, so that no image is lost or repeated and no batch is
    short. Each of ``world`` processes takes its part of every global batch.

    If ``fill`` is False the last batches stay short, and whole batches go to the processes in turn, so that
    the batch of an image does not depend on the number of processes.
    """

    def __init__(
        self,
        shapes: Sequence[tuple[int, int] | None],
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        fill: bool = True,
        factors: np.ndarray | None = None,
    ) -> None:
        """Set up the sampler.

        shapes: the batch shape of each image of the data set. factors: (n,) how often each image appears in
        an epoch on average, at least 1; None for once.
        """
        self.shapes = shapes
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.rank, self.world, self.fill, self.factors = rank, world, fill, factors
        self.epoch = 0
        self.start = 0
        self.members: dict[tuple[int, int] | None, list[int]] = {}
        for index, shape in enumerate(shapes):
            self.members.setdefault(shape, []).append(index)
        counts = [len(items) if factors is None else whole(factors[items]) for items in self.members.values()]
        self.images = sum(counts)
        """Number of images of an epoch, of all processes."""
        self.total = batch_size * world if fill else batch_size
        batches = sum(-(-count // self.total) for count in counts)
        self.steps = batches if fill else len(range(rank, batches, world))

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Make the next iteration yield epoch ``epoch``, from batch ``start`` on."""
        self.epoch, self.start = epoch, start

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[Draw]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        items = self._items(rng)
        order = rng.permutation(len(items)) if self.shuffle else np.arange(len(items))
        open_batches: dict[tuple[int, int] | None, list[Draw]] = {}
        batches: list[list[Draw]] = []
        for index, copy in items[order].tolist():
            shape = self.shapes[index]
            batch = open_batches.setdefault(shape, [])
            batch.append(Draw(index, self.epoch, shape, copy))
            if len(batch) == self.total:
                batches.append(open_batches.pop(shape))
        for shape, batch in open_batches.items():
            blanks = self.total - len(batch) if self.fill else 0
            batches.append(batch + [Draw(-1, self.epoch, shape)] * blanks)
        if self.shuffle:  # filled-up batches must not all come last
            batches = [batches[i] for i in rng.permutation(len(batches))]
        if not self.fill:
            yield from batches[self.rank :: self.world][self.start :]
            return
        for batch in batches[self.start :]:
            yield batch[self.rank :: self.world]

    def _items(self, rng: np.random.Generator) -> np.ndarray:
        """Return the images of an epoch, (m, 2) int64: position in the data set, number of the repetition."""
        counts = np.ones(len(self.shapes), np.int64)
        if self.factors is not None:
            for members in self.members.values():
                counts[members] = draw_counts(self.factors[members], rng)
        indices = np.repeat(np.arange(len(counts)), counts)
        firsts = np.cumsum(counts) - counts
        return np.stack((indices, np.arange(len(indices)) - firsts[indices]), 1)
