"""Take the network out of a detector, and write it as a checkpoint or for the Hugging Face hub."""

from os import PathLike
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from fsaf.config import Config
from fsaf.data.records import Classes
from fsaf.detection.network import Network
from fsaf.errors import UserError

if TYPE_CHECKING:  # see ``detector.py``
    from fsaf.checkpoints.format import Checkpoint
    from fsaf.model.detector import FSAF


class Saving:
    """The part of a ``Detector`` that gives away its network, also to files."""

    network: Network
    classes: Classes
    config: Config

    @property
    def model(self) -> "FSAF":
        """The PyTorch network, which may be changed: ``fold`` is undone when it is read.

        Raises UserError if the detector is an exported file.
        """
        module = self.network.module
        if module is None:
            raise UserError(f"{self.network.name}: is an exported file; this needs the checkpoint")
        self.network.fold(False)
        return module

    def save(self, path: str | PathLike[str]) -> None:
        """Write a checkpoint that ``fsaf.load`` takes: weights, classes, config."""
        from fsaf.checkpoints.format import save_checkpoint

        save_checkpoint(Path(path), self._checkpoint())

    def save_pretrained(self, folder: str | PathLike[str], card: str = "") -> None:
        """Write a folder for the Hugging Face hub, which ``fsaf.load`` takes too.

        card: text of its README.md; ``fsaf publish`` writes one from a run's figures.
        """
        from fsaf.checkpoints.hub import write_folder

        write_folder(Path(folder), self._checkpoint(), card)

    def push_to_hub(self, repository: str, *, private: bool = False, card: str = "") -> str:
        """Upload what ``save_pretrained`` writes to ``USER/NAME`` on the hub, and return the address.

        Raises UserError if the hub refuses or cannot be reached.
        """
        from fsaf.checkpoints.hub import upload

        with TemporaryDirectory() as folder:
            self.save_pretrained(Path(folder) / "hub", card)
            return upload(Path(folder) / "hub", repository, private=private)

    def _checkpoint(self) -> "Checkpoint":
        from fsaf.checkpoints.format import Checkpoint

        return Checkpoint(config=self.config, classes=self.classes, weights=self.model.state_dict())
