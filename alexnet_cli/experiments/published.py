"""The paper's results, for comparison with what is measured here."""

from dataclasses import dataclass

from alexnet_cli.data.store import Dataset

ILSVRC, ILSVRC_VAL = "ilsvrc-2012", 50_000  # the layout's name, and its number of validation images


@dataclass(frozen=True, kw_only=True)
class Published:
    """A row of one of the paper's tables: errors in percent, as printed; a dash where the paper has a dash."""

    name: str
    top1: str
    top5: str
    views: str = "10"
    test: str = ""  # top-5 error of the test images


TABLE1 = [  # ILSVRC-2010, test images; the centre view is from §4.1
    Published(name="Sparse coding", top1="47.1", top5="28.2", views=""),
    Published(name="SIFT + FVs", top1="45.7", top5="25.7", views=""),
    Published(name="CNN", top1="37.5", top5="17.0"),
    Published(name="CNN, centre view", top1="39.0", top5="18.3", views="1"),
]
TABLE2 = [  # ILSVRC-2012, validation images
    Published(name="SIFT + FVs", top1="–", top5="–", views="", test="26.2"),
    Published(name="1 CNN", top1="40.7", top5="18.2", test="–"),
    Published(name="5 CNNs", top1="38.1", top5="16.4", test="16.4"),
    Published(name="1 CNN*", top1="39.0", top5="16.6", test="–"),
    Published(name="7 CNNs*", top1="36.7", top5="15.4", test="15.3"),
]


def are_of_table2(dataset: Dataset, split: str) -> bool:
    """Whether the split is that of table 2: all validation images of ILSVRC-2012."""
    return split == "val" and dataset.source.get("layout") == ILSVRC and dataset.counts.get(split) == ILSVRC_VAL
