"""What it costs and saves to keep a dataset's images as JPEGs (`alexnet prep --store jpeg`).

    python benchmarks/jpeg.py photos.zip [--images 8192]

First, of each quality and sub-sampling of colours: bytes, the mean absolute difference from the pixels, and the time to
encode and decode. Then both stores, packed from the same pictures: disk, and images/s of batches of 128 on the CPU.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import simplejpeg
from common import RESULTS, RUNS, compare, per_second
from loader import packed
from prep import extract
from scale import link

from alexnet_cli.data.images import STORES
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.environment import environment
from alexnet_cli.files import write_json
from alexnet_cli.memory import keep_freed_memory

QUALITIES, SUBSAMPLINGS, DISTINCT = (75, 85, 90, 92, 94, 95, 96), ("444", "420"), 500


def encodings(images: list[np.ndarray]) -> list[dict[str, float | int | str]]:
    """A row for each quality and sub-sampling, means over ``images``."""
    rows = list[dict[str, float | int | str]]()
    for subsampling in SUBSAMPLINGS:
        for quality in QUALITIES:
            began = time.process_time()
            contents = [simplejpeg.encode_jpeg(image, quality, "RGB", subsampling) for image in images]
            encoded = time.process_time()
            again = [simplejpeg.decode_jpeg(content, "RGB") for content in contents]
            decoded = time.process_time()
            size = sum(map(len, contents)) / len(images)
            pairs = zip(again, images, strict=True)
            difference = float(np.mean([np.abs(one - other.astype(np.int16)).mean() for one, other in pairs]))
            rows.append(
                {
                    "subsampling": subsampling,
                    "quality": quality,
                    "bytes": round(size),
                    "share": size / images[0].nbytes,
                    "difference": difference,
                    "encode_ms": 1000 * (encoded - began) / len(images),
                    "decode_ms": 1000 * (decoded - encoded) / len(images),
                }
            )
    return rows


def disk(dataset: Dataset) -> int:
    return sum(file.stat().st_size for file in dataset.path.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--runs", type=int, default=RUNS)
    given = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        extract(given.source, folder / "distinct", DISTINCT)
        images = [load_picture(file) for file in sorted((folder / "distinct").rglob("*.jpg"))]
        rows = encodings(images)
        print(
            f"{len(images)} photographs: colours, quality, kB, share of the pixels, grey levels, ms to encode, decode"
        )
        for row in rows:
            print(
                f"  {row['subsampling']} {row['quality']}: {row['bytes'] / 1000:.1f} kB ({row['share']:.1%}), "
                f"{row['difference']:.2f}, {row['encode_ms']:.2f}, {row['decode_ms']:.2f}"
            )
        write_json(RESULTS / "jpeg.json", {"images": len(images), **environment(), "found": rows})
        link(folder / "distinct", folder / "photos", given.images)
        datasets = {
            name: prepare(folder / "photos", folder / name, store=name, val_fraction=0).dataset for name in STORES
        }
        jobs = {
            name: lambda dataset=dataset: per_second(given.images, lambda: packed(dataset.path, given.images, 0))
            for name, dataset in datasets.items()
        }
        sizes = {f"{name}_bytes": disk(dataset) for name, dataset in datasets.items()}
        print(", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.items()))
        compare("loader-jpeg", jobs, ours="jpeg", runs=given.runs, facts={"images": given.images, **sizes})


if __name__ == "__main__":
    main()
