"""A sample of a dataset: the very pictures, labels and names of some positions of its training split."""

import numpy as np
import pytest

from alexnet_cli.data.sample import Sample
from alexnet_cli.errors import BadArtefact


def test_a_sample_is_spread_evenly_over_the_training_split(packed):
    sample, whole = Sample.of(packed, 12), packed.split("train")
    split, positions = sample.split("train"), [i * 42 // 12 for i in range(12)]
    assert sample.counts == {"train": 12}
    assert len(split) == 12
    np.testing.assert_array_equal(split.read(np.arange(12)), whole.read(np.array(positions)))
    assert list(split.names) == [whole.names[i] for i in positions]
    assert split.labels.tolist() == whole.labels[positions].tolist()
    assert np.bincount(split.labels).tolist() == [4, 4, 4]
    assert sample.fingerprint != packed.fingerprint
    assert sample.fingerprint != Sample.of(packed, 13).fingerprint
    np.testing.assert_array_equal(sample.statistics().mean_image, packed.statistics().mean_image)


def test_a_sample_of_all_is_the_dataset(packed):
    assert Sample.of(packed, 42) is packed
    with pytest.raises(BadArtefact, match="no split 'test'"):
        Sample.of(packed, 3).split("test")
