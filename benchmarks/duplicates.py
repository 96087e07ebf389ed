"""How many near-identical pictures `alexnet duplicates` finds, and how many pairs wrongly, for a range of thresholds.

    python benchmarks/duplicates.py PHOTOGRAPHS models/NAME [--count 1000]

Of each photograph there are four copies: at half its size, as JPEG of quality 50, and without 5 and 10 % of width and
height, cut off at a random side. All lie in one index. A copy is found if it is within the threshold of its original. A
pair of photographs is wrong if a version of one is within the threshold of a version of the other; photographs that are
nearly the same by themselves count among these pairs, so look at them (--pairs draws those at the default threshold).
"""

import argparse
import contextlib
import random
import tempfile
import time
from pathlib import Path

import numpy as np
from common import RESULTS
from PIL import Image

from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.opening import open_model
from alexnet_cli.retrieval import duplicates
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.retrieval.index import Index

FRACTIONS = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5, 0.6)  # of the median distance
COPIES = ("half", "quality-50", "crop-5", "crop-10")


def write_copies(path: Path, folder: Path, number: int, chance: random.Random) -> None:
    """Write the photograph and its copies into ``folder``, each version into a folder of its own."""
    image = Image.open(path).convert("RGB")
    width, height = image.size
    versions = {"original": image, "half": image.resize((width // 2, height // 2), Image.Resampling.LANCZOS)}
    versions["quality-50"] = image
    for per_cent in (5, 10):
        across, down = round(width * per_cent / 100), round(height * per_cent / 100)
        left, top = chance.randint(0, across), chance.randint(0, down)
        versions[f"crop-{per_cent}"] = image.crop((left, top, left + width - across, top + height - down))
    for name, version in versions.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        version.save(folder / name / f"{number:05d}.jpg", quality=50 if name == "quality-50" else 90)


def distances_of(index: Index) -> tuple[np.ndarray, np.ndarray]:
    """Distances (P, versions - 1) of the copies to their originals, and the least (P, P) between two photographs."""
    names = {path: row for row, path, _, _ in index.table.rows()}
    photographs = sorted({Path(name).name for name in names})
    versions = ("original", *COPIES)
    rows = np.array([[names[f"{version}/{one}"] for version in versions] for one in photographs])
    vectors = index.vectors.take(rows.reshape(-1)).astype(np.float64)
    squares = (vectors**2).sum(axis=1)
    between = np.sqrt(np.maximum(0, squares[:, None] + squares[None] - 2 * vectors @ vectors.T))
    count = len(versions)
    blocks = between.reshape(len(photographs), count, len(photographs), count)
    own = np.stack([blocks[np.arange(len(photographs)), 0, np.arange(len(photographs)), i] for i in range(1, count)], 1)
    return own, blocks.min(axis=(1, 3))


def make_index(chosen: list[Path], model_path: Path, folder: Path) -> Index:
    """An index in ``folder`` of the photographs ``chosen`` and their copies."""
    chance = random.Random(0)
    for number, path in enumerate(chosen):
        write_copies(path, folder / "pictures", number, chance)
    with contextlib.closing(open_collection(folder / "pictures")) as collection:
        build_index(collection, open_model(model_path), folder / "index", model_path=model_path)
    return Index.open(folder / "index")


def measure(index: Index, name: str) -> np.ndarray:
    """Print and write what is found; returns the least distances (P, P) of photographs, as shares of the median."""
    began = time.process_time()
    found = duplicates.find_duplicates(index)
    seconds = time.process_time() - began
    own, between = distances_of(index)
    pairs = between[np.triu_indices(len(own), 1)]
    table = {
        str(fraction): {
            "found": dict(zip(COPIES, (own <= fraction * found.median).mean(axis=0).round(4).tolist(), strict=True)),
            "wrong_pairs": int((pairs <= fraction * found.median).sum()),
        }
        for fraction in FRACTIONS
    }
    facts = {
        "model": index.facts["model"],
        "photographs": len(own),
        "pairs_of_photographs": len(pairs),
        "pictures": len(index),
        "cpu_seconds": round(seconds, 1),
        "median_distance": found.median,
        "default": duplicates.FRACTION,
    }
    write_json(RESULTS / f"{name}.json", {"name": name, **environment(), **facts, "found": table})
    print(f"{len(index):,} pictures of {len(own):,} photographs; {seconds:.1f} s of CPU time")
    for fraction, row in table.items():
        shares = "  ".join(f"{copy} {share:.1%}" for copy, share in row["found"].items())
        print(f"  {fraction}: {shares}  wrong pairs {row['wrong_pairs']:,} of {len(pairs):,}")
    return between / found.median


def draw_pairs(between: np.ndarray, chosen: list[Path], folder: Path) -> None:
    """Draw the pairs of photographs within the default threshold, one file each, named by its share of the median."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, j in np.argwhere(np.triu(between <= duplicates.FRACTION, 1)).tolist():
        pair = Image.new("RGB", (512, 256))
        for left, number in ((0, i), (256, j)):
            pair.paste(Image.open(chosen[number]).convert("RGB").resize((256, 256)), (left, 0))
        pair.save(folder / f"{between[i, j]:.3f}-{i}-{j}.jpg")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--pairs", type=Path, help="folder for drawings of the wrong pairs at the default threshold")
    given = parser.parse_args()
    paths = sorted(path for path in given.photographs.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    chosen = sorted(random.Random(0).sample(paths, min(given.count, len(paths))))
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.closing(make_index(chosen, given.model, Path(folder))) as index,
    ):
        between = measure(index, "duplicates")
    if given.pairs:
        draw_pairs(between, chosen, given.pairs)


if __name__ == "__main__":
    main()
