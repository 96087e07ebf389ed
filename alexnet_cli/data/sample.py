"""Some of a dataset's training pictures, as a dataset."""

from dataclasses import dataclass, fields, replace

import numpy as np

from alexnet_cli.data.store import NAMES, Dataset, Names, Split


@dataclass(frozen=True, kw_only=True)
class Sample(Dataset):
    """Training pictures of ``whole``, spread evenly over it; the statistics stay those of all.

    ``counts`` has no other split, so that nothing is validated.
    """

    whole: Dataset

    @classmethod
    def of(cls, whole: Dataset, pictures: int) -> "Dataset":
        """``pictures`` of the training pictures of ``whole``; ``whole`` itself if it has no more."""
        if pictures >= whole.counts["train"]:
            return whole
        values = {field.name: getattr(whole, field.name) for field in fields(Dataset)}
        values |= {"counts": {"train": pictures}, "fingerprint": f"{whole.fingerprint}-{pictures}"}
        return cls(**values, whole=whole)

    def split(self, name: str) -> Split:
        """The split of that name. Raises BadArtefact as that of ``whole`` does."""
        split = self.whole.split(name)
        if name not in self.counts:
            return split
        chosen = np.arange(self.counts[name]) * len(split) // self.counts[name]
        slots = chosen if split.packed is None else split.packed[chosen]
        names = Names(self.file(name + NAMES), self.slots[name], slots, self.checksums[name + NAMES])
        return replace(split, labels=split.labels[chosen], names=names, packed=slots)
