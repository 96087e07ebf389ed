"""Datasets, models and indexes: the names of their files, their format versions and fingerprints."""

from pathlib import Path

from alexnet_cli.errors import BadArtefact, first_line
from alexnet_cli.files import check_opens

# In data/NAME/
DATASET_FILE = "dataset.json"  # written last: its presence marks a complete dataset
STATISTICS_FILE = "statistics.safetensors"
REJECTED_FILE = "rejected.csv"
GREY = ("mnist", "digits")  # layouts of sources whose pictures are grey and must not be mirrored: LeNet-5's

# In models/NAME/
MODEL_FILE = "model.safetensors"  # its presence marks a trained model
RECIPE_FILE = "recipe.toml"
ONNX_FILE = "model.onnx"
CARD_FILE = "MODEL_CARD.md"
HISTORY_FILE = "history.jsonl"
CHECKPOINT_FILE = "checkpoint/state.safetensors"
KERNELS = "kernels"  # a folder: the first layer's kernels after each epoch
TENSORBOARD = "tensorboard"  # a folder: the log of `train --log tensorboard`
UNITS = "units"  # a folder: of each layer the patches that excite its units most

# In indexes/NAME/
INDEX_FILE = "index.json"  # written last: its presence marks a complete index


def check_format(version: object, supported: int, path: Path, if_older: str = "") -> None:
    """Check the format version, an int or its digits, that was read from ``path``.

    Raises BadArtefact if ``version`` is not a number, or is newer than ``supported``; or is older, if ``if_older`` says
    what to do then.
    """
    if isinstance(version, str) and version.isdigit():
        version = int(version)
    if not isinstance(version, int):
        raise BadArtefact(f"{path} is damaged: it has no format version")
    if version > supported:
        raise BadArtefact(
            f"{path} has format version {version}, this program reads up to {supported}: upgrade alexnet-cli"
        )
    if if_older and version < supported:
        raise BadArtefact(f"{path} has format version {version}, this program reads {supported}: {if_older}")


def model_name(path: Path) -> str:
    """The name of the model in a folder or an ONNX file: the folder's name, or the file's if it has its own.

    model.onnx and model.PRECISION.onnx, as `alexnet export` calls them, are files of the model in their folder.
    """
    if path.suffix != ".onnx":
        return path.resolve().name
    return path.resolve().parent.name if path.name.split(".")[0] == "model" else path.stem


def model_header(folder: Path) -> dict[str, str]:
    """What the file of the model in ``folder`` says of it: fingerprint, recipe, classes; the weights are not read.

    Raises BadArtefact if there is no model, or if it is damaged.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / MODEL_FILE
    try:
        check_opens(path)
        with safe_open(path, framework="numpy") as file:
            header = dict(file.metadata() or {})
        return {"fingerprint": header["fingerprint"], **header}
    except (FileNotFoundError, NotADirectoryError):
        raise BadArtefact(f"no model at {folder}: it has no {MODEL_FILE}") from None
    except (SafetensorError, KeyError) as error:
        raise BadArtefact(f"{folder} is not a model, or is damaged ({first_line(error)}): train it again") from None


def model_fingerprint(folder: Path) -> str:
    """The fingerprint of the model in ``folder``. Raises BadArtefact."""
    return model_header(folder)["fingerprint"]
