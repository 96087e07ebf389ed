"""Measure every ratio of docs/performance.md, one after the other; `make bench` runs this.

    python benchmarks/all.py [PHOTOGRAPHS] [--images 8192] [--runs 5]

PHOTOGRAPHS is a zip or folder of JPEGs; for figures that compare with docs/performance.md they must have ImageNet's
size. Without it, the pictures are views of the photographs in scikit-image. They are repeated until there are --images.
Everything is made in a temporary folder, and the results are written to benchmarks/results.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from prep import extract

from alexnet_cli import recipe as recipes
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.demo import photographs, write_views
from alexnet_cli.exporting.export import export_model
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.model import Model
from alexnet_cli.nets.network import initialize
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection

LARGE, LONG_SIDE = 48, 2400  # number of large photographs, and their longer side in pixels
EVALUATED, INDEXED = 128, 1024  # pictures
HERE = Path(__file__).parent


def enlarge(folder: Path, out: Path) -> None:
    """Write LARGE of the pictures to ``out``, enlarged to the size of a camera's."""
    paths = sorted(folder.rglob("*.jpg"))
    out.mkdir()
    for path in paths[:: max(1, len(paths) // LARGE)][:LARGE]:
        with Image.open(path) as image:
            scale = LONG_SIDE / max(image.size)
            large = image.convert("RGB").resize((round(image.width * scale), round(image.height * scale)))
        large.save(out / path.name, quality=90)


def untrained(dataset_path: Path, folder: Path) -> None:
    """Save and export the paper's network for the dataset's classes, untrained: training does not change its speed."""
    dataset, recipe = Dataset.open(dataset_path), recipes.load("paper")
    net = initialize(recipe.build(len(dataset.classes)), 0)
    mean_image = dataset.statistics().mean_image
    Model(net=net, recipe=recipe, classes=dataset.classes, mean_image=mean_image, provenance={}).save(folder)
    export_model(folder)


def run_script(name: str, *arguments: object) -> None:
    """Run benchmarks/NAME.py."""
    print(flush=True)
    subprocess.run([sys.executable, str(HERE / f"{name}.py"), *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photographs", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--vectors", type=int, default=100_000, help="number of vectors in the index that is searched")
    parser.add_argument("--runs", type=int, default=5)
    given = parser.parse_args()
    runs = ("--runs", given.runs)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        source = given.photographs
        if source is None:
            source = scratch / "views"
            write_views(photographs(), source, {"train": 32})
        jpegs, few, data, model = scratch / "jpegs", scratch / "few", scratch / "data", scratch / "model"
        extract(source, jpegs / "train", given.images)
        extract(source, jpegs / "val", EVALUATED)
        extract(source, few, INDEXED)
        prepare(jpegs, data)
        untrained(data, model)
        enlarge(jpegs / "train", scratch / "large")
        index = scratch / "index"
        build_index(open_collection(few), OnnxModel.open(model / "model.onnx"), index, model_path=model)
        run_script("prep", source, "--images", given.images, "--name", "prep-originals", *runs)
        run_script("prep", scratch / "large", "--images", given.images // 5, "--name", "prep-large", *runs)
        run_script("loader", data, jpegs / "train", "--images", given.images, *runs)
        run_script("step", *runs)
        run_script("step", "--precision", "bf16", *runs)
        run_script("export", model, "--calibration", data, *runs)
        run_script(
            "search", next((jpegs / "val").rglob("*.jpg")), model, "--vectors", given.vectors, "--like", index, *runs
        )
        run_script("index", few, model, *runs)
        run_script("evaluate", jpegs / "val", data, model, *runs)
        run_script("kinds", index, "--vectors", given.vectors)


if __name__ == "__main__":
    main()
