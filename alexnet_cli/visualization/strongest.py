"""Finds the patches of a dataset that excite the units of a network most, of all layers with maps in one pass."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import BadArtefact, NoSuchLayer, NotFinite
from alexnet_cli.inference.network_model import NetworkModel
from alexnet_cli.inference.predictor import BATCH
from alexnet_cli.nets.describe import LayerRow, layer_table
from alexnet_cli.nets.responses import recording
from alexnet_cli.prefetch import prefetch
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.visualization.units import PATCHES, Units, read_units, units_file


def map_layers(network: NetworkModel) -> dict[str, LayerRow]:
    """The layers of ``network`` that have maps, by their names, first to last. Raises NoSuchLayer if there are none."""
    rows = layer_table(network.net.network, network.preprocessor.image.shape, len(network.classes))
    layers = {row.name: row for row in rows if row.field is not None}
    if not layers:
        raise NoSuchLayer("the model has no layer with maps: all of its layers are dense")
    return layers


def check_layer(network: NetworkModel, layer: str) -> None:
    """Raises NoSuchLayer if ``network`` has no ``layer`` with maps."""
    layers = map_layers(network)
    if layer not in layers:
        raise NoSuchLayer(f"the model has no layer {layer!r} with maps: it has {', '.join(layers)}")


def units_of(
    folder: Path, network: NetworkModel, dataset: Dataset, split: str, layer: str, progress: Progress = SILENT
) -> Units:
    """The strongest patches of ``layer``: those that the model in ``folder`` keeps, or else found and kept now.

    ``network``: of that model. What was found with other weights, in another dataset or in another split is found
    again, for all layers with maps. Raises NoSuchLayer, and BadArtefact if what is kept is damaged, if the dataset has
    no such split or has pictures of another size.
    """
    check_layer(network, layer)
    if units_file(folder, layer).exists():
        kept = read_units(folder, layer)
        known = (kept.model_fingerprint, kept.dataset_fingerprint, kept.split)
        if known == (network.fingerprint, dataset.fingerprint, split):
            return kept
    found = find_units(network, dataset, split, progress)
    for units in found.values():
        units.save(folder)
    return found[layer]


def find_units(
    network: NetworkModel, dataset: Dataset, split: str, progress: Progress = SILENT, *, batch: int = BATCH
) -> dict[str, Units]:
    """For each layer with maps the patches in the central views of a ``split`` that excite its units most.

    Of several equal responses, the first picture of the split and the first place of a map count. Raises BadArtefact
    if the dataset has no such split, has pictures of another size, or has a damaged one; NotFinite if a response is
    not finite.
    """
    if network.image_size != dataset.image_size:
        raise BadArtefact(
            f"the model takes pictures of {network.image_size} pixels, dataset {dataset.name} has "
            f"{dataset.image_size}: prep it with --size {network.image_size}"
        )
    images, layers = dataset.split(split), map_layers(network)
    best = {name: _Best(row.kernels) for name, row in layers.items()}
    batches = [np.arange(start, min(start + batch, len(images))) for start in range(0, len(images), batch)]
    with recording(network.net, layers) as recorded:
        for rows, pixels in prefetch(lambda rows: (rows, images.read(rows)), batches):
            network.activations(pixels, next(reversed(layers)))
            for name in layers:
                best[name].add(rows, torch.cat(recorded[name], dim=1))
            recorded.clear()
            progress.advance("patches", int(rows[-1]) + 1, len(images))
    return {
        name: Units(
            layer=name,
            columns=row.columns,
            dataset=str(dataset.path.resolve()),
            dataset_fingerprint=dataset.fingerprint,
            model_fingerprint=network.fingerprint,
            split=split,
            crop=network.crop,
            field=row.as_json()["field"],
            rows=best[name].rows,
            responses=best[name].responses,
            places=best[name].places,
        )
        for name, row in layers.items()
    }


class _Best:
    """The strongest responses so far of each unit of a layer, one a picture; with row -1, less than any that counts."""

    def __init__(self, kernels: int) -> None:
        self.rows = np.full((kernels, PATCHES), -1, np.int64)
        self.responses = np.zeros((kernels, PATCHES), np.float32)
        self.places = np.zeros((kernels, PATCHES, 2), np.int64)

    def add(self, rows: np.ndarray, maps: Tensor) -> None:
        """Take in the ``maps`` (B, K, H, W) of the pictures ``rows`` (B,), which come after those before."""
        strongest, places = (each.cpu().numpy() for each in strongest_places(maps))  # (B, K), (B, K, 2)
        if not np.isfinite(strongest).all():
            raise NotFinite(
                "the responses of the network are not finite: its weights are damaged, or its training has diverged"
            )
        responses = np.concatenate([self.responses, strongest.T], axis=1)
        order = np.argsort(-responses, axis=1, kind="stable")[:, :PATCHES]  # stable: of equal ones the first row
        all_rows = np.concatenate([self.rows, np.broadcast_to(rows, strongest.T.shape)], axis=1)
        all_places = np.concatenate([self.places, places.swapaxes(0, 1)], axis=1)
        self.responses, self.rows = (np.take_along_axis(each, order, axis=1) for each in (responses, all_rows))
        self.places = np.take_along_axis(all_places, order[:, :, None], axis=1)


def strongest_places(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The largest value of each map and its first place, row and column: (B, K, H, W) to (B, K), (B, K, 2) int64."""
    flat = maps.float().flatten(2)
    strongest = flat.amax(dim=2)
    positions = torch.arange(flat.shape[2], device=flat.device)
    first = torch.where(flat == strongest[:, :, None], positions, flat.shape[2] - 1).amin(dim=2)
    return strongest, torch.stack([first // maps.shape[3], first % maps.shape[3]], dim=2)
