"""`alexnet features`: fc7 of pictures and datasets in a file, as the model gives them."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from onnx_files import FEATURES, SIZE
from test_index import error_of
from test_search import answer

import alexnet_cli as alexnet
from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError
from alexnet_cli.model import Model

PATHS = [f"photos/{name}/{i}.png" for name in ("cat", "dog") for i in range(6)]


def test_a_folder_to_npy(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("photos/cat/bad.png").write_text("no picture")
    assert main(["features", "photos", "--out", "out/photos.npy"]) == 1
    out, err = capsys.readouterr()
    assert out == "wrote out/photos.npy: fc7 of 12 pictures, their names in out/photos.txt\n"
    assert err.endswith(
        "failed photos/cat/bad.png: not a picture that can be read\n"
        "error: 1 of 13 pictures could not be read: photos/cat/bad.png\n"
    )
    assert Path("out/photos.txt").read_text().splitlines() == PATHS
    features = np.load("out/photos.npy", mmap_mode="r")
    assert (features.shape, features.dtype) == ((12, FEATURES), np.float32)
    np.testing.assert_allclose(features, alexnet.open_model("models/pets").features(PATHS), rtol=1e-5, atol=1e-5)


def test_names_never_lie_beside_the_rows_of_other_pictures(searchable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert main(["features", "photos/cat"]) == 0
    renames = []

    def replace(source: Path, target: Path) -> None:
        renames.append(target)
        if len(renames) == 2:
            raise OSError("killed")
        source.rename(target)

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", replace)
        assert main(["features", "photos/dog"]) == 1
    assert renames == [Path("features.txt"), Path("features.npy")]
    assert not Path("features.npy").exists()


def test_a_folder_to_csv(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = answer("features", "photos", "--out", "photos.csv", capsys=capsys)
    assert printed == {
        "model": "pets",
        "layer": "fc7",
        "file": "photos.csv",
        "pictures": 12,
        "failed": [],
        "left_out": [],
    }
    with open("photos.csv", newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert header == ["path", *(f"fc7_{i}" for i in range(FEATURES))]
    assert [row[0] for row in rows] == PATHS
    values = np.array([row[1:] for row in rows], np.float32)
    assert (values == alexnet.open_model("models/pets", pictures=12).features(PATHS)).all()


def test_a_dataset_in_its_order(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(Path("photos"), Path("data/pets"), size=SIZE, workers=1, val_fraction=0.5)
    for split in ("train", "val"):
        assert answer("features", "--data", "pets", "--split", split, capsys=capsys)["pictures"] == 6
        images = Dataset.open(Path("data/pets")).split(split)
        assert Path("features.txt").read_text().splitlines() == list(images.names)
        expected = alexnet.open_model("models/pets", pictures=6).features(images.read(np.arange(6)))
        assert (np.load("features.npy") == expected).all()


def test_another_layer_of_the_network(
    exported_folder: Path, packed: Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["features", "--data", str(packed.path), "--split", "val", "--model", str(exported_folder)]
    shapes = {}
    for layer in ("conv1", "conv5", "fc7"):
        answer(*words, "--layer", layer, "--out", str(tmp_path / f"{layer}.npy"), capsys=capsys)
        shapes[layer] = np.load(tmp_path / f"{layer}.npy").shape
    assert shapes == {"conv1": (21, 8, 7, 7), "conv5": (21, 8, 1, 1), "fc7": (21, 32)}
    images = packed.split("val").read(np.arange(21))
    features = alexnet.open_model(exported_folder, backend="torch", device="cpu").features(images)
    np.testing.assert_allclose(np.load(tmp_path / "fc7.npy"), features, rtol=1e-5, atol=1e-6)
    net = Model.load(exported_folder).net
    above = torch.from_numpy(np.load(tmp_path / "conv5.npy"))
    with torch.inference_mode():  # the layers above it, by hand
        for name in ("fc6", "fc7"):
            above = torch.cat([torch.relu(part.weighted(above.flatten(1))) for part in net.parts(name)], dim=1)
    np.testing.assert_allclose(above, features, rtol=1e-4, atol=1e-5)
    assert error_of(*words, "--layer", "conv9", capsys=capsys) == (
        "this network has no hidden layer 'conv9': it has conv1, conv2, conv3, conv4, conv5, fc6, fc7"
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["photos", "--out", "x.txt"], "x.txt: a file of features is a .npy or .csv file, for example x.npy"),
        (["photos", "--out", "photos/cat/0.png/x.npy"], "photos/cat/0.png"),
        (["empty"], "empty: no pictures in this folder"),
        (["gone.jpg"], "gone.jpg: no such file"),
        (["--data", "none"], "no dataset 'none'"),
        (["photos", "--layer", "conv1", "--model", "models/pets/model.onnx"], "an ONNX file has only fc7: for conv1"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    searchable: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("empty").mkdir()
    assert error_of("features", *words, capsys=capsys).startswith(message)
    assert not Path("features.npy").exists()


def test_pictures_or_a_dataset(searchable: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["photos", "--data", "pets"]):
        assert main(["features", *words]) == 2
        assert "name pictures, or a dataset with --data" in capsys.readouterr().err


def test_a_dataset_of_another_size(searchable: Path, packed: Dataset, capsys: pytest.CaptureFixture[str]) -> None:
    message = error_of("features", "--data", str(packed.path), capsys=capsys)
    assert message == f"the model takes pictures of 32 pixels, dataset {packed.path} has 72: prep it with --size 32"


def test_a_run_that_is_stopped_leaves_no_file(searchable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alexnet_cli.inference import features

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(features, "npy_header", lambda shape, dtype: stopped() if shape[0] else b"x")
    assert main(["features", "photos"]) == 130
    assert [path.name for path in Path().iterdir() if "features" in path.name] == []
    with pytest.raises(AlexNetError), features.writing_features(Path("x.json"), "fc7", (3,)):
        pass
    assert json.loads(Path("indexes/photos/index.json").read_text())["count"] == 12
