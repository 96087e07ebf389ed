"""The 2012 ImageNet network, whole and faithful: data, network, training, evaluation, export and search."""

__version__ = "0.1.0"
