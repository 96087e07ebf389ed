"""Chooses the torch devices that a command runs on, and how exactly they compute."""

from alexnet_cli.distributed import local_rank
from alexnet_cli.errors import AlexNetError


def pick_device(name: str | None) -> str:
    """Device ``name``, such as cpu or cuda:1; cuda is this process's GPU, and so is None, or the CPU if there is none.

    Raises AlexNetError if this machine has no such device.
    """
    import torch

    if name is None:
        return f"cuda:{local_rank()}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        device = None
    if device is None or device.type == "meta":  # torch knows meta, a device that computes nothing
        raise AlexNetError(f"this machine has no device {name!r}: try --device cpu")
    return f"cuda:{local_rank()}" if name == "cuda" else name


def pick_devices(device: str | None, devices: str | None, gpus: int | None) -> tuple[str, ...]:
    """One device for the whole network, or one for each column.

    ``device``: one name, as in `pick_device`. ``devices``: several, separated by commas. ``gpus``: how many GPUs this
    process takes; process r of a machine takes cuda:(r × gpus) and those that follow.
    Raises AlexNetError if more than one of the three is given, or if this machine does not have a device.
    """
    if sum(given is not None for given in (device, devices, gpus)) > 1:
        raise AlexNetError("give one of --device, --devices and --gpus")
    if gpus is not None:
        return tuple(pick_device(f"cuda:{local_rank() * gpus + i}") for i in range(gpus))
    return tuple(pick_device(name) for name in devices.split(",")) if devices else (pick_device(device),)


def use_exact_fp32() -> None:
    """Make fp32 mean fp32 on a GPU too. By torch's default cuDNN's convolutions take TF32, whose mantissa has 10 bits.

    It holds for this whole process. For speed, train in bf16.
    """
    import torch

    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
