"""Short binary codes for retrieval, as §6.1 suggests: sign bits and an auto-encoder's codes of fc7, and of raw pixels.

    python benchmarks/codes.py data/imagenette models/imagenette-small-data --bits 64 256

Every validation picture is a query among the training pictures. Of each kind of code: the label precision of the first
10 by Hamming distance; that of the first 10 by exact distance among the first 100 by Hamming distance; and how many of
the 10 nearest by exact fc7 are among the first 10 and the first 100. Sign bits at a number of bits are those of as many
principal components, turned by a random rotation. What is measured again, after raw pixels too, is the distance in fc7.
"""

import argparse
from pathlib import Path

import faiss
import numpy as np
from retrieval import K, fc7, pixels

from alexnet_cli.data.store import Dataset
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.autoencoder import learn_encoder
from alexnet_cli.retrieval.kinds import recall

CANDIDATES = 100


def rotated_components(sample: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Weights (bits, D) and biases (bits,) of the signs of randomly rotated principal components."""
    mean = sample.mean(axis=0)
    _, axes = np.linalg.eigh(np.cov(sample.T))
    turn = np.linalg.qr(np.random.default_rng(0).standard_normal((bits, bits)))[0]
    weights = (axes[:, -bits:] @ turn).T.astype(np.float32)
    return weights, -weights @ mean


def nearest_codes(train: np.ndarray, queries: np.ndarray, weights: np.ndarray, biases: np.ndarray) -> np.ndarray:
    """Rows (Q, CANDIDATES) of ``train`` (N, D) whose codes are nearest to those of ``queries`` (Q, D)."""
    codes, asked = (np.packbits(one @ weights.T + biases >= 0, axis=1) for one in (train, queries))
    index = faiss.IndexBinaryFlat(8 * codes.shape[1])
    index.add(codes)
    return np.asarray(index.search(asked, CANDIDATES)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--bits", type=int, nargs="+", default=[256])
    given = parser.parse_args()
    dataset = Dataset.open(given.dataset)
    train, val = dataset.split("train"), dataset.split("val")
    file = given.model / "model.onnx"
    predictor = OnnxModel.open(file if file.exists() else export_model(given.model).path)
    vectors, queries = fc7(predictor, train), fc7(predictor, val)
    flat = faiss.IndexFlatL2(vectors.shape[1])
    flat.add(vectors)
    exact = flat.search(queries, K)[1]  # (Q, K)

    def precision(rows: np.ndarray) -> float:
        return float((train.labels[rows] == val.labels[:, None]).mean())

    def tell(name: str, found: np.ndarray) -> None:
        distances = [((vectors[rows] - query) ** 2).sum(axis=1) for rows, query in zip(found, queries, strict=True)]
        ranked = np.take_along_axis(found, np.argsort(distances, axis=1)[:, :K], axis=1)
        print(
            f"| {name} | {precision(found[:, :K]):.1%} | {precision(ranked):.1%} | {recall(found[:, :K], exact):.3f} "
            f"| {recall(found, exact):.3f} |",
            flush=True,
        )

    print("| code | precision | re-ranked | recall@10 of 10 | of 100 |\n|---|---|---|---|---|")
    print(f"| fc7, exact | {precision(exact):.1%} | | 1.000 | |")
    size = vectors.shape[1]
    signs = np.eye(size, dtype=np.float32), -vectors.mean(axis=0)
    tell(f"signs of fc7, {size} bits", nearest_codes(vectors, queries, *signs))
    for bits in given.bits:
        tell(f"signs of components, {bits} bits", nearest_codes(vectors, queries, *rotated_components(vectors, bits)))
        tell(f"auto-encoder of fc7, {bits} bits", nearest_codes(vectors, queries, *learn_encoder(vectors, bits)))
    raw, asked = pixels(train), pixels(val)
    for bits in given.bits:
        tell(f"auto-encoder of raw pixels, {bits} bits", nearest_codes(raw, asked, *learn_encoder(raw, bits)))


if __name__ == "__main__":
    main()
