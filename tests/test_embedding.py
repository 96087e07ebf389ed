"""An index in two dimensions: neighbours stay neighbours, and what is kept is used until the index changes."""

import json
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from alexnet_cli.commands import main
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.files import write_tensors
from alexnet_cli.retrieval.index import Index
from alexnet_cli.retrieval.vectors import VectorFile, VectorWriter
from alexnet_cli.visualization import embedding as shown
from alexnet_cli.visualization.embedding import EMBEDDING_FILE, embed, read_embedding


def test_groups_of_features_stay_groups_in_the_plane(searchable, monkeypatch):
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(3), 20)
    features = 10 * random.standard_normal((3, 30))[groups] + random.standard_normal((60, 30))
    with closing(Index.open(Path("indexes/photos"))) as index:
        writer = VectorWriter(Path("three.faiss"), 30)
        writer.add(features.astype(np.float32))
        writer.finish()
        writer.close()
        index.vectors.close()
        index.vectors = VectorFile.open(Path("three.faiss"), 60, 30)
        coordinates = embed(index).coordinates.astype(float)
    assert coordinates.min() == 0
    assert coordinates.max() == 1
    distances = np.linalg.norm(coordinates[:, None] - coordinates, axis=2) + 9 * np.eye(60)
    assert (groups[distances.argmin(axis=1)] == groups).all()  # of each picture's nearest, in the plane


def test_a_map_is_kept_until_the_index_changes(searchable, capsys):
    assert main(["visualize", "embedding", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["files"] == ["embedding.png"]
    assert Image.open("embedding.png").width == 1500
    kept = Path("indexes/photos", EMBEDDING_FILE)
    first, stamp = read_embedding(kept.parent), kept.stat().st_mtime_ns
    assert said["pictures"] == len(first.rows)
    assert main(["visualize", "embedding", "--out", "map.svg", "--size", "slide"]) == 0
    assert capsys.readouterr().out == "wrote map.svg\n"
    assert kept.stat().st_mtime_ns == stamp
    shutil.copy(next(Path("photos").rglob("*.*g")), "photos/another.png")
    assert main(["index"]) == 0
    assert main(["visualize", "embedding"]) == 0
    assert len(read_embedding(kept.parent).rows) == len(first.rows) + 1


def test_a_damaged_map_is_made_again(searchable):
    kept = Path("indexes/photos", EMBEDDING_FILE)
    assert read_embedding(kept.parent) is None
    with closing(Index.open(kept.parent)) as index:
        coordinates = embed(index).coordinates
        content = bytearray(kept.read_bytes())
        content[-3] ^= 1
        kept.write_bytes(content)
        with pytest.raises(BadArtefact, match="make it again with `alexnet visualize embedding`"):
            read_embedding(kept.parent)
        np.testing.assert_array_equal(embed(index).coordinates, coordinates)


@pytest.mark.parametrize(
    ("rows", "coordinates"),
    [
        (np.array([0, 1]), np.array([[0, np.nan], [0, 1]], np.float32)),
        (np.array([0, 1]), np.array([[0, 2], [0, 1]], np.float32)),
        (np.array([0, 1]), np.zeros((2, 2), np.float16)),
        (np.array([0, -1]), np.zeros((2, 2), np.float32)),
        (np.array(0), np.zeros((2, 2), np.float32)),
        (np.array([0, 1]), np.zeros((3, 2), np.float32)),
    ],
)
def test_a_forged_map_is_refused(tmp_path, rows, coordinates):
    write_tensors(tmp_path / EMBEDDING_FILE, {"rows": rows, "coordinates": coordinates}, {"generation": "g"})
    with pytest.raises(BadArtefact, match="is damaged: make it again"):
        read_embedding(tmp_path)


def test_pictures_that_are_gone_are_dots(searchable, capsys):
    shutil.move("photos", "elsewhere")
    assert main(["visualize", "embedding"]) == 0
    assert Path("embedding.png").exists()


def test_two_pictures_have_no_map(searchable, monkeypatch):
    with closing(Index.open(Path("indexes/photos"))) as index:
        monkeypatch.setattr(Index, "__len__", lambda self: 2)
        with pytest.raises(AlexNetError, match="has 2 pictures: a map needs 3 or more"):
            embed(index)


def test_each_square_of_the_grid_shows_the_picture_nearest_to_its_middle():
    grid = 2, 2
    coordinates = np.array([[0.1, 0.1], [0.24, 0.26], [1, 1], [0.6, 0.1]], np.float32)
    assert shown._one_a_square(coordinates, grid) == [1, 2, 3]
    black = np.zeros((8, 8, 3), np.uint8)
    sheet = shown._thumbnails(coordinates[1:], [black, "gone", black], ["white"] * 3, grid)
    half = shown.THUMBNAIL
    middles = sheet[half // 2 :: half, half // 2 :: half]
    np.testing.assert_array_equal(middles[..., 3], [[0, 0], [255, 255]])  # y grows upwards
    assert sheet[half, 0, 0] == 255  # the frame


def test_the_most_frequent_classes_have_colours():
    classes = ["b", None, *"a" * 3, *[f"c{i}" for i in range(12)]]
    colours = shown.colours_of(classes)
    assert next(iter(colours)) == "a"
    assert len(set(colours.values())) == len(colours) == 11  # of ten classes, and of none
    assert colours[None] == shown.NONE
    assert shown.OTHER not in colours.values()
    assert shown.colours_of([None, None]) == {}
