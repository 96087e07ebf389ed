"""The runners-up: their features by brute force, what they are fitted to, and the command end to end."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from pictures import encoded, write_folder
from skimage.feature import fisher_vector

from alexnet_cli.commands import main
from alexnet_cli.data.prepare import prepare
from alexnet_cli.data.store import Dataset
from alexnet_cli.errors import AlexNetError, BadArtefact
from alexnet_cli.experiments import baselines as module
from alexnet_cli.experiments import dense_sift as sift_module
from alexnet_cli.experiments import fisher_vectors as fisher_module
from alexnet_cli.experiments import sparse_coding as sparse_module
from alexnet_cli.experiments.baselines import METHODS, baselines, divide
from alexnet_cli.experiments.dense_sift import dense_sift
from alexnet_cli.experiments.encoding import Descriptors
from alexnet_cli.experiments.fisher_vectors import FisherVectors
from alexnet_cli.experiments.sparse_coding import SparseCoding

SIZE = 40


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Few Gaussians and atoms, which are fitted to a small dataset in no time."""
    monkeypatch.setattr(fisher_module, "GAUSSIANS", 4)
    monkeypatch.setattr(fisher_module, "COMPONENTS", 8)
    monkeypatch.setattr(sparse_module, "ATOMS", 12)
    monkeypatch.setattr(sparse_module, "COMPONENTS", 16)
    monkeypatch.setattr(FisherVectors, "min_descriptors", 40)
    monkeypatch.setattr(SparseCoding, "min_descriptors", 120)


def grating(seed: int, wave: tuple[float, float]) -> np.ndarray:
    """A grating of ``wave`` radians a pixel, across and down, with noise and a phase of its own."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    grey = 128 + 60 * np.sin(wave[0] * x + wave[1] * y + random.uniform(0, 6.28)) + random.normal(0, 12, (SIZE, SIZE))
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def packed_gratings(folder: Path, val_from: int = 100, val: int = 4) -> Dataset:
    """Gratings of three directions: 10 of each to train on, and ``val`` from seed ``val_from`` on to validate."""
    content = {}
    for split, seeds in (("train", range(10)), ("val", range(val_from, val_from + val))):
        for name, wave in (("level", (0, 0.7)), ("slanted", (0.5, 0.5)), ("upright", (0.7, 0))):
            for seed in seeds:
                content[f"{split}/{name}/{seed}.png"] = encoded(grating(seed, wave))
    return prepare(write_folder(folder / "source", content), folder / "data" / "g", size=SIZE, workers=1).dataset


@pytest.fixture(scope="module")
def gratings(tmp_path_factory) -> Dataset:
    return packed_gratings(tmp_path_factory.mktemp("gratings"))


@pytest.fixture
def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def test_descriptors_are_opencvs_own_at_each_place_and_scale(noise):
    found = dense_sift(noise)
    grey = cv2.cvtColor(noise, cv2.COLOR_RGB2GRAY)
    expected, start = 0, 0
    for side, count in ((64, 6), (45, 3), (32, 2)):  # 24-pixel patches every 8 pixels; 23 and 16 pixels hold none
        scaled = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
        for number, (x, y) in enumerate(found.places[start : start + count**2] * side):
            assert min(x, y) >= 12
            assert max(x, y) <= side - 12 + 1e-4
            alone = cv2.SIFT_create().compute(scaled, [cv2.KeyPoint(float(x), float(y), 4, 0)])[1]
            np.testing.assert_array_equal(found.values[start + number], alone[0])
        assert len(np.unique(found.places[start : start + count**2], axis=0)) == count**2
        start, expected = start + count**2, expected + count**2
    assert found.values.shape == (expected, 128)
    np.testing.assert_allclose(found.places[:2] * 64, [[12, 12], [20, 12]], rtol=1e-6)  # row by row


def test_a_patch_covers_what_its_keypoint_describes():
    """A change outside of the patch, and of what the blur and the interpolation reach, leaves the descriptor alone."""
    grey = np.random.default_rng(1).integers(0, 256, (72, 72), dtype=np.uint8)

    def middle(image: np.ndarray) -> np.ndarray:
        return cv2.SIFT_create().compute(image, [cv2.KeyPoint(36.0, 36.0, sift_module.KEYPOINT, 0)])[1][0]

    far, inside = grey.copy(), grey.copy()
    far[:14], inside[26:30] = 0, 0
    np.testing.assert_array_equal(middle(far), middle(grey))
    assert np.abs(middle(inside) - middle(grey)).max() > 10


def fisher_by_hand(values: np.ndarray, mixture) -> np.ndarray:
    """The gradient of the mean log-likelihood with respect to weights, means and deviations, normalized by hand."""
    weights, means, variances = mixture.weights_, mixture.means_, mixture.covariances_
    density = np.stack(
        [
            w * np.exp(-((values - m) ** 2 / v).sum(axis=1) / 2) / np.sqrt(np.prod(2 * np.pi * v))
            for w, m, v in zip(weights, means, variances, strict=True)
        ],
        axis=1,
    )
    posterior = density / density.sum(axis=1, keepdims=True)
    parts = [[], [], []]
    for k, (w, m, v) in enumerate(zip(weights, means, variances, strict=True)):
        share, z = posterior[:, k], (values - m) / np.sqrt(v)
        parts[0].append([np.mean(share - w) / np.sqrt(w)])
        parts[1].append(np.mean(share[:, None] * z, axis=0) / np.sqrt(w))
        parts[2].append(-np.mean(share[:, None] * (z**2 - 1), axis=0) / np.sqrt(2 * w))
    vector = np.concatenate([np.concatenate(part) for part in parts])
    rooted = np.sign(vector) * np.abs(vector) ** 0.5
    return rooted / np.sqrt((rooted**2).sum())


def test_fisher_vectors_of_the_whole_and_of_stripes(noise):
    random = np.random.default_rng(2)
    encoder = FisherVectors.fit(random.normal(0, 40, (400, 128)).astype(np.float32))
    values = random.normal(0, 40, (60, 128)).astype(np.float32)
    places = random.uniform(0, 1, (60, 2)).astype(np.float32)
    found = encoder.encode(Descriptors(values=values, places=places)).reshape(4, -1)
    projected = (values.astype(np.float64) / 512 - encoder.pca.mean_) @ encoder.pca.components_.T
    which = np.floor(places[:, 1] * 3).astype(int)
    for row, chosen in zip(found, [projected, *(projected[which == i] for i in range(3))], strict=True):
        np.testing.assert_allclose(row, fisher_by_hand(chosen, encoder.mixture), atol=1e-6)
        assert np.linalg.norm(row) == pytest.approx(1, abs=1e-5)
    library = fisher_vector(encoder.pca.transform(values / 512), encoder.mixture, improved=True)
    np.testing.assert_allclose(found[0], library, atol=1e-6)


def test_flat_patches_do_not_keep_the_mixture_from_being_fitted():
    textured = np.random.default_rng(5).integers(0, 256, (60, 128))
    encoder = FisherVectors.fit(np.concatenate([textured, np.zeros((200, 128))]).astype(np.float32))
    assert encoder.mixture.covariances_.min() >= 0.999 * fisher_module.LEAST_VARIANCE
    flat = Descriptors(values=np.zeros((9, 128), np.float32), places=np.full((9, 2), 0.1, np.float32))
    assert np.isfinite(encoder.encode(flat)).all()


def test_a_stripe_without_patches_is_zero():
    random = np.random.default_rng(3)
    encoder = FisherVectors.fit(random.normal(0, 1, (400, 128)))
    middle = Descriptors(values=random.normal(0, 1, (5, 128)), places=np.full((5, 2), 0.5, np.float32))
    whole, top, centre, bottom = encoder.encode(middle).reshape(4, -1)
    np.testing.assert_array_equal(whole, centre)
    assert not top.any()
    assert not bottom.any()


def test_patches_have_mean_0_and_their_places(noise):
    found = SparseCoding.describe(noise)
    patch = noise[4:12, 8:16].astype(np.float64)  # rows 4 to 11, columns 8 to 15
    number = int(np.flatnonzero((np.abs(found.places * 64 - (12, 8)) < 1e-4).all(axis=1))[0])
    centred = (patch - patch.mean()) / np.sqrt(patch.var() + sparse_module.VARIANCE)
    np.testing.assert_allclose(found.values[number].reshape(3, 8, 8).transpose(1, 2, 0), centred, atol=1e-4)
    assert len(found.values) == 15**2
    assert not SparseCoding.describe(np.full((64, 64, 3), 9, np.uint8)).values.any()


def test_codes_are_pooled_by_their_maxima_in_each_cell():
    random = np.random.default_rng(4)
    encoder = SparseCoding.fit(random.normal(0, 1, (300, 192)))
    values, places = random.normal(0, 1, (50, 192)), random.uniform(0, 1, (50, 2)).astype(np.float32)
    found = encoder.encode(Descriptors(values=values, places=places))
    expected = []
    for n in (1, 2, 4):
        for row in range(n):
            for column in range(n):
                best = np.zeros(24)
                for value, (x, y) in zip(values, places, strict=True):
                    if int(x * n) == column and int(y * n) == row:
                        pca = encoder.whitening
                        white = (pca.components_ @ (value - pca.mean_)) / np.sqrt(pca.explained_variance_)
                        code = encoder.dictionary @ (white / np.linalg.norm(white))
                        both = np.concatenate([code, -code])
                        best = np.maximum(best, both - sparse_module.THRESHOLD)
                expected.append(best)
    together = np.concatenate(expected)
    np.testing.assert_allclose(found, together / np.linalg.norm(together), atol=1e-5)


def test_every_fifth_picture_of_a_class_is_held_out(gratings):
    train = gratings.split("train")
    kept, held_out = divide(train, gratings.classes)
    assert sorted([*kept, *held_out]) == list(range(30))
    assert np.bincount(train.labels[held_out]).tolist() == [2, 2, 2]
    for label in range(3):
        assert (
            np.flatnonzero(train.labels == label)[[4, 9]].tolist() == held_out[train.labels[held_out] == label].tolist()
        )


def test_the_sample_is_bounded(gratings, monkeypatch):
    monkeypatch.setattr(module, "SAMPLED_PICTURES", 6)
    monkeypatch.setattr(module, "SAMPLE", 12)
    monkeypatch.setattr(FisherVectors, "min_descriptors", 12)
    assert module.sample(FisherVectors, gratings.split("train")).shape[0] == 12
    np.testing.assert_array_equal(*(module.sample(FisherVectors, gratings.split("train")) for _ in range(2)))


def parameters(fitted: module.Baseline) -> list[np.ndarray]:
    encoder = fitted.encoder
    if isinstance(encoder, FisherVectors):
        own = [encoder.pca.components_, encoder.mixture.means_, encoder.mixture.covariances_]
    else:
        own = [encoder.whitening.components_, encoder.dictionary]
    return [*own, fitted.classifier.coef_, np.array([fitted.C, *fitted.error_of.values()])]


def test_nothing_of_the_validation_pictures_enters_the_fitting(gratings, tmp_path, monkeypatch):
    """With other validation pictures, and other numbers of them, every fitted parameter is the same."""
    other = packed_gratings(tmp_path, val_from=500, val=7)
    assert other.fingerprint != gratings.fingerprint
    fitted, fit = [], module.fit
    monkeypatch.setattr(module, "fit", lambda *words: fitted.append(fit(*words)) or fitted[-1])
    for dataset in (gratings, other):
        baselines(dataset, tmp_path / dataset.fingerprint, "c")
    assert len(fitted) == 2 * len(METHODS)
    for one, again in zip(fitted[: len(METHODS)], fitted[len(METHODS) :], strict=True):
        for expected, found in zip(parameters(one), parameters(again), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_alexnet_reproduce_baselines(gratings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    clock, processor = itertools.count(0, 14 * 60), itertools.count(0, 7 * 60)  # seconds; two looks at each a method
    times = SimpleNamespace(monotonic=lambda: next(clock), process_time=lambda: next(processor))
    monkeypatch.setattr(module, "time", times)
    monkeypatch.setattr(module, "peak_memory", lambda: 2_500_000_000)
    Path("data").symlink_to(gratings.path.parent)
    assert main(["reproduce", "baselines", "--data", "g"]) == 0
    printed = capsys.readouterr()
    assert printed.out.endswith("Written to reproduced/baselines: table.md, table.json\n")
    report = json.loads(Path("reproduced/baselines/table.json").read_text())
    rows = {row[0]: row[1:] for row in report["rows"]}
    assert rows["Sparse coding (published, table 1)"][:2] == ["47.1", "28.2"]
    assert rows["SIFT + FVs (published, table 1)"][:2] == ["45.7", "25.7"]
    assert rows["SIFT + FVs (published, table 2)"][:2] == ["–", "26.2 (test images)"]
    assert rows["Sparse coding (measured here)"][2] == f"{2 * 12 * 21:,}"
    assert rows["SIFT + FVs (measured here)"][2] == f"{4 * 4 * 17:,}"
    for name in METHODS:
        facts = report["facts"][name]
        assert facts["top1"] <= 0.25  # of three classes, by chance 0.67
        assert rows[f"{name} (measured here)"][0].startswith(f"{100 * facts['top1']:.1f} (")
        assert rows[f"{name} (measured here)"][3:] == ["14 min", "7 min", "2.5 GB"]
    monkeypatch.setattr(module, "fit", lambda *_words: pytest.fail("fitted again"))
    assert main(["reproduce", "baselines", "--json"]) == 0  # the newest dataset
    assert json.loads(capsys.readouterr().out)["rows"] == report["rows"]


def test_a_method_that_is_done_is_kept_when_the_next_is_stopped(gratings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(gratings.path.parent)
    first, second = METHODS.values()
    with monkeypatch.context() as patch:
        patch.setattr(second, "fit", lambda _sample: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(["reproduce", "baselines"]) == 130
    assert "error: interrupted; resume with: alexnet" in capsys.readouterr().err
    table = Path("reproduced/baselines/table.md").read_text()
    assert "Sparse coding (measured here)" in table
    assert "SIFT + FVs (measured here)" not in table
    monkeypatch.setattr(first, "fit", lambda _sample: pytest.fail("fitted again"))
    assert main(["reproduce", "baselines"]) == 0
    assert "SIFT + FVs (measured here)" in Path("reproduced/baselines/table.md").read_text()


CONSTANTS = {
    SparseCoding: {
        sparse_module: ["SIDE", "PATCH", "STEP", "VARIANCE", "COMPONENTS", "ATOMS", "PENALTY", "THRESHOLD", "PYRAMID"]
    },
    FisherVectors: {
        sift_module: ["PATCH", "STEP", "SCALES", "KEYPOINT", "LENGTH"],
        fisher_module: ["COMPONENTS", "GAUSSIANS", "STRIPES", "ITERATIONS", "LEAST_VARIANCE"],
    },
}
OF_BOTH = {module: ["SAMPLED_PICTURES", "SAMPLE", "HELD_OUT", "CS", "ITERATIONS"]}


@pytest.mark.parametrize("method", CONSTANTS)
def test_results_of_other_constants_or_pictures_are_not_taken(method, gratings, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "METHODS", {"one": method})
    fitted, fit = [], module.fit
    monkeypatch.setattr(module, "fit", lambda *words: fitted.append(words) or found)
    found = fit(method, gratings.split("train"), gratings.classes)
    baselines(gratings, tmp_path, "c")
    baselines(gratings, tmp_path, "c")
    assert len(fitted) == 1
    baselines(replace(gratings, fingerprint="another"), tmp_path, "c")
    assert len(fitted) == 2
    monkeypatch.setattr(method, "encode", lambda *_words: np.zeros(found.classifier.coef_.shape[1], np.float32))
    for its, names in (CONSTANTS[method] | OF_BOTH).items():
        for name in names:
            before, value = len(fitted), getattr(its, name)
            with monkeypatch.context() as patch:
                patch.setattr(its, name, value[:-1] if isinstance(value, tuple) else value / 2)
                patch.setattr(method, "describe", staticmethod(lambda _image: None))
                baselines(gratings, tmp_path, "c")
            assert len(fitted) == before + 1, name


def test_each_time_is_told_with_its_machine(gratings, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "available_cores", lambda: 2)
    baselines(gratings, tmp_path, "c")
    assert "errors, on 2 cores." in baselines(gratings, tmp_path, "c").note
    first, second = METHODS.items()
    folder = tmp_path / "other"
    monkeypatch.setattr(module, "METHODS", dict([first]))
    baselines(gratings, folder, "c")
    monkeypatch.setattr(module, "METHODS", dict([first, second]))
    monkeypatch.setattr(module, "available_cores", lambda: 16)
    note = baselines(gratings, folder, "c").note
    assert note.endswith("errors, on 2 cores (Sparse coding) and 16 cores (SIFT + FVs).")


def test_datasets_that_do_not_do_are_refused_in_one_line(gratings, tmp_path, monkeypatch):
    without = replace(gratings, counts={"train": 30}, slots={"train": 30})
    with pytest.raises(BadArtefact, match=r"has no split 'val': it has train; prep its pictures under another name"):
        baselines(without, tmp_path, "c")
    monkeypatch.setattr(SparseCoding, "min_descriptors", 10**6)
    with pytest.raises(AlexNetError, match=r"^30 training pictures of 40 pixels have 2,430 patches, SparseCoding need"):
        baselines(gratings, tmp_path, "c")
    train = gratings.split("train")
    with pytest.raises(AlexNetError, match=r"^class none has 0 training pictures: give each 5 or more, since one in"):
        divide(train, [*gratings.classes, "none"])
    with pytest.raises(AlexNetError, match=r"^the dataset has one class: a classifier needs pictures of two$"):
        divide(replace(train, labels=np.zeros(30, np.int32)), ["all"])
    small = np.zeros((20, 20, 3), np.uint8)
    with pytest.raises(AlexNetError, match=r"^pictures of 20 pixels are too small for dense SIFT: prep with --size 24"):
        dense_sift(small)


@pytest.mark.parametrize("library", ["cv2", "skimage"])
def test_a_missing_library_is_named_with_its_extra(library, gratings, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("data").symlink_to(gratings.path.parent)
    monkeypatch.setattr(module, "find_spec", lambda name: None if name == library else object())
    assert main(["reproduce", "baselines"]) == 1
    last = capsys.readouterr().err.splitlines()
    message = "error: alexnet reproduce baselines needs OpenCV and scikit-image: pip install 'alexnet-cli[baselines]'"
    assert message in last
    assert main(["reproduce", "baselines", "--epochs", "3"]) == 1
    assert "error: --epochs does not apply to baselines\n" in capsys.readouterr().err


def test_scores_of_two_classes_have_a_column_for_each():
    rows = np.array([[1.0, 0], [0, 1]], np.float32).repeat(20, axis=0)
    labels = np.repeat([0, 1], 20)
    found = module.scores(module.fit_linear(rows, labels, 10), rows)
    assert found.shape == (40, 2)
    np.testing.assert_array_equal(found.argmax(axis=1), labels)
