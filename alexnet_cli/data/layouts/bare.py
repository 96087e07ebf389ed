"""Pictures that a source holds as bare pixels become Netpbm files, so that they are read like all others."""

import zlib
from collections.abc import Sequence

import numpy as np

from alexnet_cli.data.layouts.listing import TRAIN, Entries, Listing
from alexnet_cli.data.locations import Location, Locations
from alexnet_cli.data.sources import Source
from alexnet_cli.errors import BadSource, abbreviate


class BarePictures:
    """Pictures in one temporary file of a source, each with its split and label. `listing` follows the last `add`."""

    def __init__(self, source: Source) -> None:
        self._source, self._file, self._offset = source, source.temporary_file(), 0
        self._locations, self._pictures = Locations(), list[tuple[str, str, int]]()

    def add(self, name: str, split: str, label: int, pixels: np.ndarray) -> None:
        """Add a picture, (H, W, 3) uint8 RGB or (H, W) uint8 grey."""
        height, width = pixels.shape[:2]
        content = b"P%d %d %d 255\n" % (6 if pixels.ndim == 3 else 5, width, height) + pixels.tobytes()
        self._file.write(content)
        location = Location(self._file.name, self._offset, len(content), len(content), zlib.crc32(content))
        self._locations.add(name, location)
        self._pictures.append((name, split, label))
        self._offset += len(content)

    def listing(self, layout: str, classes: Sequence[str], size: int, notes: Sequence[str] = ()) -> Listing:
        """All of them, to be packed at ``size`` pixels. Raises BadSource if a class has no training pictures."""
        self._file.flush()
        self._locations.sort()
        entries = Entries.of(self._locations, self._pictures)
        trained = entries.table["label"][entries.table["split"] == TRAIN]
        missing = [classes[label] for label in sorted(set(range(len(classes))) - set(trained.tolist()))]
        if missing:
            raise BadSource(f"{self._source.path}: classes without training pictures: {abbreviate(missing)}")
        return Listing(layout=layout, classes=list(classes), entries=entries, size=size, notes=list(notes))
