"""Small pictures and sources made on the spot."""

import io
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image


def pixels(seed: int, width: int = 40, height: int = 32) -> np.ndarray:
    """A smooth picture of its own: (height, width, 3) uint8."""
    corners = np.random.default_rng(seed).integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR))


def encoded(image: np.ndarray | Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, format, **options)
    return file.getvalue()


def jpeg(width: int, height: int, seed: int = 6, **options: object) -> bytes:
    """Of a picture with detail at every scale, so that to resize it otherwise would show."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    smooth = pixels(seed, width, height)
    return encoded((noise // 2 + smooth // 2).astype(np.uint8), "JPEG", quality=90, **options)


def files(classes: tuple[str, ...] = ("cats", "dogs"), count: int = 5, prefix: str = "") -> dict[str, bytes]:
    """Names to contents: ``count`` pictures in a folder for each class."""
    return {
        f"{prefix}{name}/{i}.png": encoded(pixels(100 * number + i + 7 * len(prefix)))
        for number, name in enumerate(classes)
        for i in range(count)
    }


def write_folder(root: Path, content: dict[str, bytes]) -> Path:
    for name, data in content.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def write_zip(path: Path, content: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return path


def tar_bytes(content: dict[str, bytes], mode: str = "w") -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as archive:
        for name, data in content.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


def write_tar(path: Path, content: dict[str, bytes], mode: str = "w") -> Path:
    path.write_bytes(tar_bytes(content, mode))
    return path


# ILSVRC-2012: sorted by WNID the classes are n01, n02, n03; the devkit numbers them otherwise
WNIDS = {1: "n03", 2: "n01", 3: "n02"}  # ILSVRC2012_ID -> WNID
TRUTH = [2, 1, 3, 3, 2, 1]  # the ID of each validation picture
COLOURS = {"n01": (250, 0, 0), "n02": (0, 250, 0), "n03": (0, 0, 250)}


def plain(colour: tuple[int, int, int]) -> bytes:
    return encoded(np.full((20, 20, 3), colour, np.uint8), "JPEG", quality=95)


def devkit() -> dict[str, bytes]:
    from scipy.io import savemat

    rows = [(i, wnid, f"words of {wnid}", f"gloss {i}", 0) for i, wnid in WNIDS.items()] + [(4, "n00", "all", "all", 3)]
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    meta = io.BytesIO()
    savemat(meta, {"synsets": np.array(rows, dtype=kinds)})
    base = "ILSVRC2012_devkit_t12/data"
    truth = "".join(f"{number}\n" for number in TRUTH).encode()
    return {f"{base}/meta.mat": meta.getvalue(), f"{base}/ILSVRC2012_validation_ground_truth.txt": truth}


def ilsvrc_train() -> dict[str, bytes]:
    return {f"{wnid}/{wnid}_{i}.JPEG": plain(colour) for wnid, colour in COLOURS.items() for i in range(3)}


def ilsvrc_val() -> dict[str, bytes]:
    return {f"ILSVRC2012_val_{i:08d}.JPEG": plain(COLOURS[WNIDS[number]]) for i, number in enumerate(TRUTH, 1)}


def write_ilsvrc(root: Path) -> Path:
    """The official tars, small."""
    root.mkdir()
    train = {
        f"{wnid}.tar": tar_bytes({n.split("/")[1]: c for n, c in ilsvrc_train().items() if n.startswith(wnid)})
        for wnid in ("n03", "n01", "n02")
    }
    write_tar(root / "ILSVRC2012_img_train.tar", train)
    write_tar(root / "ILSVRC2012_img_val.tar", ilsvrc_val())
    write_tar(root / "ILSVRC2012_devkit_t12.tar.gz", devkit(), "w:gz")
    return root


def cifar(evil: object = None) -> dict[str, bytes]:
    """CIFAR-10's python archive with two classes; class 0 is red, class 1 blue."""
    base, content = "cifar-10-batches-py", {}
    meta = {b"label_names": [b"zebra", b"aeroplane"], b"num_cases_per_batch": 4}
    content[f"{base}/batches.meta"] = pickle.dumps(meta, protocol=2)
    for number, batch in enumerate(["data_batch_1", "data_batch_2", "test_batch"]):
        labels = [0, 1, 1, 0]
        data = np.zeros((4, 3, 1024), np.uint8)
        for row, label in enumerate(labels):
            data[row, 0 if label == 0 else 2] = 200 + number
        rows = {b"data": data.reshape(4, 3072), b"labels": labels, b"filenames": [b"p%d.png" % row for row in range(4)]}
        if evil is not None and batch == "data_batch_2":
            rows[b"extra"] = evil
        content[f"{base}/{batch}"] = pickle.dumps(rows, protocol=2)
    return content


def picture(path: Path, seed: int) -> Path:
    """Smooth random colours, different for every ``seed``."""
    small = np.random.default_rng(seed).integers(0, 256, (5, 6, 3)).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize((60, 48), Image.Resampling.BICUBIC).save(path)
    return path


def folder_of_classes(root: Path, count: int = 6) -> Path:
    """``count`` pictures in each of `cat` and `dog`."""
    for i in range(count):
        picture(root / "cat" / f"{i}.png", i)
        picture(root / "dog" / f"{i}.png", 100 + i)
    return root
