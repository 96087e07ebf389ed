"""A network in torch and an ONNX file answer alike: to paths, bytes and arrays, one or many, from several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from onnx_files import SIZE, write_onnx
from pictures import encoded, jpeg

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import BadPicture
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.inference.predictor import BATCH, Prediction, Predictor
from alexnet_cli.inference.views import ten_views
from alexnet_cli.model import Model
from alexnet_cli.opening import open_network


@pytest.fixture
def folder(exported_folder) -> Path:
    return exported_folder


@pytest.fixture(params=["network", "onnx"])
def model(request, folder) -> Predictor:
    return open_network(folder, "cpu") if request.param == "network" else OnnxModel.open(folder / "model.onnx")


@pytest.fixture
def photos(tmp_path) -> list[Path]:
    """Three pictures that are not packed."""
    paths = [tmp_path / f"{i}.jpg" for i in range(3)]
    for i, path in enumerate(paths):
        path.write_bytes(jpeg(90 + i, 80, seed=i))
    return paths


def test_both_describe_themselves_alike(folder, packed):
    network, onnx = open_network(folder, "cpu"), OnnxModel.open(folder / "model.onnx")
    for key in Predictor.__annotations__:
        assert getattr(network, key) == getattr(onnx, key), key
    assert (network.name, network.classes, network.precision) == ("m", packed.classes, "fp32")
    assert (network.feature_name, network.feature_size) == ("fc7", 32)
    assert network.fingerprint == Model.load(folder).fingerprint
    assert network.class_names == onnx.class_names == ["colour of the sky", "green", "red"]


def test_paths_bytes_and_arrays_agree(model, photos):
    arrays = [load_picture(path, 72) for path in photos]
    probabilities, features = model.run(np.stack(arrays))
    assert model.features(photos).dtype == np.float32
    forms = [photos, [str(p) for p in photos], [p.read_bytes() for p in photos], arrays, np.stack(arrays), iter(photos)]
    for form in forms:
        assert np.array_equal(model.features(form), features)
    for form in forms[:-1]:
        assert [[p.probability for p in row] for row in model.predict(form)] == (-np.sort(-probabilities)).tolist()
    for form in forms[:-2]:  # a picture on its own
        assert np.array_equal(model.features(form[0]), model.features([form[0]]))
        assert model.predict(form[0]) == model.predict([form[0]])
        assert len(model.predict(form[0])) == 1


def test_predictions_are_the_most_probable_classes(model, photos):
    (row,) = model.run(load_picture(photos[0], 72)[None])[0]
    order = np.argsort(-row)
    expected = [Prediction(label=model.classes[i], name=model.class_names[i], probability=float(row[i])) for i in order]
    assert model.predict(photos[0]) == [expected]  # three classes are all there are
    assert model.predict(photos[0], top=2) == [expected[:2]]
    assert model.predict([]) == []
    assert model.features([]).shape == (0, 32)


def test_a_view_is_what_is_cut_by_hand(model, photos):
    image = load_picture(photos[0], 72)
    outputs = [model.run(image[None], view) for view in ten_views(72, 67)]
    assert len({features.tobytes() for _, features in outputs}) == 10
    for found, centre in zip(outputs[4], model.run(image[None]), strict=True):
        assert np.array_equal(found, centre)


def test_a_network_is_run_in_batches(folder):
    network = open_network(folder, "cpu")
    images = np.random.default_rng(0).integers(0, 256, (BATCH + 3, 72, 72, 3), dtype=np.uint8)
    for whole, first, rest in zip(
        network.run(images), network.run(images[:BATCH]), network.run(images[BATCH:]), strict=True
    ):
        assert np.array_equal(whole, np.concatenate([first, rest]))
    assert [outputs.shape for outputs in network.run(images[:0])] == [(0, 3), (0, 32)]


class Recording(OnnxModel):
    """Keeps how many images each run was given."""

    counts: list[int]

    def run(self, images, view=None):
        self.counts.append(len(images))
        return super().run(images, view)


def test_pictures_are_read_a_batch_at_a_time(tmp_path):
    model = Recording.open(write_onnx(tmp_path / "m.onnx"))
    random = np.random.default_rng(0)
    files = [encoded(random.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)) for _ in range(2 * BATCH + 1)]
    model.counts = []
    features = model.features(files)
    assert len(model.predict(files)) == len(files)
    assert model.counts == 2 * [BATCH, BATCH, 1]
    one_by_one = np.concatenate([model.features(file) for file in files])
    np.testing.assert_allclose(features, one_by_one, rtol=1e-4, atol=1e-5)


def test_a_bad_picture_is_named(model, photos, tmp_path):
    good, text = photos[0], tmp_path / "text.jpg"
    text.write_text("hello")
    for method in (model.predict, model.features):
        with pytest.raises(BadPicture, match=r"^gone.jpg: no such file$"):
            method([good, "gone.jpg", text])
        with pytest.raises(BadPicture, match=rf"^{text}: not a picture that can be read$"):
            method(text)
        with pytest.raises(BadPicture, match=r"^pictures\[1\]: not a picture that can be read$"):
            method([good, b"hello"])
        for array in (np.zeros((80, 90, 3), np.uint8), np.zeros((72, 72, 3), np.float32), np.zeros((72, 72), np.uint8)):
            wanted = (
                rf"^pictures\[1\]: an array of shape \(.*\) and type {array.dtype}: it must be \(72, 72, 3\) of uint8"
            )
            with pytest.raises(BadPicture, match=wanted):
                method([good, array])


def test_several_threads_get_what_one_thread_gets(model):
    random = np.random.default_rng(0)
    batches = [random.integers(0, 256, (1 + i % 5, 72, 72, 3), dtype=np.uint8) for i in range(24)]
    views = [None, *ten_views(72, 67)]
    jobs = [(batch, views[i % len(views)]) for i, batch in enumerate(batches)]
    expected = [(*model.run(batch, view), model.features(batch), model.predict(batch)) for batch, view in jobs]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda job: (*model.run(*job), model.features(job[0]), model.predict(job[0])), 4 * jobs))
    for ours, wanted in zip(found, 4 * expected, strict=True):
        for outputs, alone in zip(ours[:3], wanted[:3], strict=True):
            np.testing.assert_allclose(outputs, alone, rtol=1e-5, atol=1e-6)
        for rows, alone in zip(ours[3], wanted[3], strict=True):
            assert [p.label for p in rows] == [p.label for p in alone]


def test_pictures_are_read_as_they_are_used(tmp_path):
    model, taken = OnnxModel.open(write_onnx(tmp_path / "m.onnx")), []

    def pictures():
        for i in range(10 * BATCH):
            taken.append(i)
            yield np.full((SIZE, SIZE, 3), i % 256, np.uint8)

    answers = model.predict_each(pictures())
    next(answers)
    assert len(taken) == 2 * BATCH  # one batch is answered, the next one is read meanwhile
    assert len(list(answers)) == 10 * BATCH - 1


def test_bad_pictures_stand_among_the_answers_of_the_others(model, photos):
    given = [photos[0], "gone.jpg", b"hello", *photos[1:]]
    pairs = list(model.predict_each(given, top=2))
    assert [picture for picture, _ in pairs] == given
    assert [str(result) for _, result in pairs[1:3]] == ["no such file", "not a picture that can be read"]
    assert [pairs[i][1] for i in (0, 3, 4)] == model.predict(photos, top=2)
    assert [str(result) for _, result in model.predict_each(["gone.jpg"])] == ["no such file"]
