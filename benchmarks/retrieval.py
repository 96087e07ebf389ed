"""Label precision of the first 10 neighbours: by fc7 of a trained model, by fc7 of the untrained one, by raw pixels.

    python benchmarks/retrieval.py data/imagenette models/imagenette-small-data

Every validation picture is a query; the neighbours are the nearest training pictures by exact Euclidean distance. Raw
pixels are the packed pictures reduced to 32×32 RGB.
"""

import argparse
import tempfile
from pathlib import Path

import faiss
import numpy as np
from PIL import Image

from alexnet_cli.data.augment import INITIAL, seed_of, stream
from alexnet_cli.data.store import Dataset, Split
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize

BATCH, K = 64, 10


def untrained(model: Model, seed: int) -> Model:
    """``model`` with the initial weights of its recipe."""
    net = model.recipe.build(len(model.classes))
    initialize(net, seed_of(stream(seed, INITIAL)))
    return Model(net=net.eval(), recipe=model.recipe, classes=model.classes, mean_image=model.mean_image, provenance={})


def fc7(predictor: OnnxModel, split: Split) -> np.ndarray:
    """The features of all pictures: (N, 4096) float32."""
    parts = [split.read(np.arange(i, min(i + BATCH, len(split)))) for i in range(0, len(split), BATCH)]
    return np.concatenate([predictor.run(part)[1] for part in parts])


def pixels(split: Split) -> np.ndarray:
    """All pictures at 32×32: (N, 3072) float32."""
    small = [
        np.asarray(Image.fromarray(split.read(np.array([i]))[0]).resize((32, 32), Image.Resampling.BOX))
        for i in range(len(split))
    ]
    return np.stack(small).reshape(len(split), -1).astype(np.float32)


def precision(train: np.ndarray, labels: np.ndarray, queries: np.ndarray, truth: np.ndarray) -> float:
    """The share of the first K neighbours that have the query's label."""
    index = faiss.IndexFlatL2(train.shape[1])
    index.add(train)
    _, near = index.search(queries, K)  # (Q, K)
    return float((labels[near] == truth[:, None]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    dataset, model = Dataset.open(given.dataset), Model.load(given.model)
    train, val = dataset.split("train"), dataset.split("val")
    with tempfile.TemporaryDirectory() as folder:
        untrained(model, given.seed).save(Path(folder))
        files = {
            "fc7, trained": export_model(given.model, Path(folder) / "trained.onnx").path,
            "fc7, untrained": export_model(Path(folder)).path,
        }
        for name, file in files.items():
            predictor = OnnxModel.open(file)
            found = precision(fc7(predictor, train), train.labels, fc7(predictor, val), val.labels)
            print(f"{name}: {found:.1%}", flush=True)
    print(f"raw 32×32 pixels: {precision(pixels(train), train.labels, pixels(val), val.labels):.1%}")
    print(f"chance: {1 / len(dataset.classes):.1%}")


if __name__ == "__main__":
    main()
