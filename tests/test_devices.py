"""Which devices a command runs on."""

import pytest
import torch

from alexnet_cli.errors import AlexNetError
from alexnet_cli.inference.devices import pick_device, pick_devices


def test_a_device_by_its_name():
    assert pick_device("cpu") == "cpu"
    assert pick_device(None) == ("cuda:0" if torch.cuda.is_available() else "cpu")
    for name in ("nowhere", "cuda:99", "meta", ""):
        with pytest.raises(AlexNetError, match=rf"^this machine has no device '{name}': try --device cpu$"):
            pick_device(name)


def test_a_device_for_the_network_or_one_for_each_column():
    assert pick_devices(None, None, None) == (pick_device(None),)
    assert pick_devices("cpu", None, None) == ("cpu",)
    assert pick_devices(None, "cpu,cpu", None) == ("cpu", "cpu")
    with pytest.raises(AlexNetError, match=r"^this machine has no device 'nowhere': try --device cpu$"):
        pick_devices(None, "cpu,nowhere", None)
    with pytest.raises(AlexNetError, match=r"^this machine has no device 'cuda:[0-9]+': try --device cpu$"):
        pick_devices(None, None, 99)


@pytest.mark.parametrize("given", [("cpu", "cpu,cpu", None), ("cpu", None, 2), (None, "cpu,cpu", 2)])
def test_only_one_way_of_naming_devices(given):
    with pytest.raises(AlexNetError, match=r"^give one of --device, --devices and --gpus$"):
        pick_devices(*given)
