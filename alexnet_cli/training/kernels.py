"""The first layer's kernels that a run keeps after each epoch."""

from pathlib import Path

import numpy as np

from alexnet_cli.errors import BadArtefact, first_line
from alexnet_cli.files import check_opens


def read_kept(file: Path) -> np.ndarray:
    """The kernels (K, C, h, w) float16, column after column, that a run kept in ``file``. Raises BadArtefact."""
    try:
        check_opens(file)
        kept = np.load(file)
    except OSError:
        raise
    except Exception as error:  # NumPy raises all kinds of errors on damaged files
        raise BadArtefact(f"{file} is damaged ({first_line(error)}): remove it") from None
    if not isinstance(kept, np.ndarray) or kept.dtype != np.float16 or not np.isfinite(kept).all():
        raise BadArtefact(f"{file} is damaged: it holds no float16 numbers; remove it")
    return kept
