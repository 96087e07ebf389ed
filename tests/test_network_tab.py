"""What the page shows of the network: the routes in-process, and the tab in a real browser."""

import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file
from starlette.testclient import TestClient
from test_page import CHROMIUM, browser, drop, expect, opened, served  # noqa: F401 - the browser is a fixture

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.store import Dataset
from alexnet_cli.inference.onnx_maps import OnnxMaps
from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.opening import open_network
from alexnet_cli.progress import SILENT
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.serving import network
from alexnet_cli.serving.app import PAGE, create_app
from alexnet_cli.visualization.strongest import units_of
from alexnet_cli.visualization.units import read_units
from alexnet_cli.workspace import Workspace

LOCAL = "http://127.0.0.1:8224"
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def space_of(root: Path, exported_folder: Path, source: Path, model: Path = Path("models", "m")) -> Path:
    """A workspace with a narrow network of two columns that was not trained, and an index of three colours."""
    shutil.copytree(exported_folder, root / model)
    onnx = root / model / "model.onnx"
    build_index(open_collection(source), OnnxModel.open(onnx), root / "indexes" / "colours", model_path=onnx)
    return root


@pytest.fixture(scope="module")
def space(exported_folder: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed."""
    return space_of(tmp_path_factory.mktemp("network"), exported_folder, source)


@contextmanager
def asked(space: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Workspace(space)), base_url=LOCAL, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def client(space: Path) -> Iterator[TestClient]:
    with asked(space) as client:
        yield client


def error(answer: Any, status: int) -> str:
    assert answer.status_code == status
    return answer.json()["error"]


def pixels(answer: Any) -> np.ndarray:
    assert answer.headers["content-type"] == "image/png"
    return np.asarray(Image.open(io.BytesIO(answer.content)))


# What the server answers


def test_the_layers_are_those_of_the_file(client: TestClient) -> None:
    told = client.get("/api/layers").json()
    assert [layer["name"] for layer in told["layers"]] == [f"conv{i}" for i in range(1, 6)] + ["fc6", "fc7", "fc8"]
    assert told["maps"] == [f"conv{i}" for i in range(1, 6)]
    assert (told["model"], told["image_size"], told["crop"]) == ("m", 72, 67)


def test_each_map_can_be_cut_out_of_the_picture_of_all(client: TestClient, space: Path) -> None:
    picture = client.get("/api/pictures/1?full").content
    answer = client.post("/api/maps?layer=conv2", content=picture)
    model = OnnxModel.open(space / "models" / "m" / "model.onnx")
    maps = OnnxMaps(model).run(load_picture(picture, model.image_size), "conv2")
    expected = np.clip(255 * maps / np.percentile(maps, 99.8), 0, 255).astype(np.uint8)
    kernels, height, width = map(int, answer.headers["x-maps"].split())
    across, times, gap = map(int, answer.headers["x-sheet"].split())
    strongest = [one.split() for one in answer.headers["x-strongest"].split(",")]
    assert len(strongest) == kernels == 8
    for i, (value, *place) in enumerate(strongest):
        top, left = i // across * (height * times + gap), i % across * (width * times + gap)
        cut = pixels(answer)[top : top + height * times, left : left + width * times]
        np.testing.assert_array_equal(cut, expected[i].repeat(times, 0).repeat(times, 1))
        assert maps[i][tuple(map(int, place))] == maps[i].max() == pytest.approx(float(value), rel=1e-3)
    by_row = client.get("/api/maps?layer=conv2&row=1")
    assert (by_row.headers["x-strongest"], by_row.content) == (answer.headers["x-strongest"], answer.content)


def test_a_kernel_of_which_a_weight_is_damaged_is_not_shown(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "_kernel", lambda *_: np.array([[[1, np.nan]]] * 3, np.float32))
    answer = client.get("/api/kernel?layer=conv1&unit=0")
    assert answer.status_code == 500
    assert answer.json() == {"error": "the weights of unit 0 of conv1 cannot be shown: not all of them are numbers"}


@pytest.mark.parametrize("unit", [0, 3, 4, 7])
def test_a_kernel_of_the_first_layer_is_a_colour_picture(client: TestClient, space: Path, unit: int) -> None:
    weights = load_file(space / "models" / "m" / "model.safetensors")
    kernel = weights[f"columns.{unit // 4}.conv1.weighted.weight"][unit % 4].transpose(1, 2, 0)
    drawn = pixels(client.get(f"/api/kernel?layer=conv1&unit={unit}"))
    np.testing.assert_allclose(drawn, 127.5 + 127.5 * kernel / np.abs(kernel).max(), atol=0.51)
    assert client.get(f"/api/unit?layer=conv1&unit={unit}").json() == {"kernel": True, "patches": None, "why": None}


@pytest.mark.parametrize(
    ("route", "status", "said"),
    [
        ("unit?layer=conv9&unit=0", 404, "the model has no layer 'conv9': conv1, conv2"),
        ("unit?layer=conv1&unit=8", 404, "conv1 has no unit 8: its units go from 0 to 7"),
        ("unit?layer=conv1", 400, "unit must be a whole number"),
        ("unit?layer=conv1&unit=-1", 400, "unit must be from 0"),
        ("kernel?layer=conv1&unit=x", 400, "unit must be a whole number"),
        ("kernel?layer=conv2&unit=0", 404, "conv2 has no kernels to show"),
        ("patches?layer=../conv1&unit=0", 404, "the model has no layer '../conv1'"),
        ("patches?layer=conv1&unit=0", 404, "the strongest patches of conv1 were not searched for"),
        ("unit?layer=conv1&unit=0&index=other", 404, "there is no index 'other'"),
        ("unit?layer=conv1&unit=0&generation=old", 409, "the index colours was updated meanwhile"),
        ("maps?layer=fc6&row=0", 404, "the model has no layer 'fc6' with maps"),
        ("maps?layer=conv1&row=999", 404, "the index has no row 999"),
    ],
)
def test_what_is_not_there_is_told(client: TestClient, route: str, status: int, said: str) -> None:
    assert said in error(client.get(f"/api/{route}"), status)


def test_an_onnx_file_without_its_folder_has_maps_and_no_kernels(
    exported_folder: Path, source: Path, tmp_path: Path
) -> None:
    space = space_of(tmp_path, exported_folder, source, Path("elsewhere"))
    (space / "elsewhere" / "model.safetensors").unlink()
    with asked(space) as client:
        assert client.get("/api/layers").json()["model"] is None
        assert client.get("/api/unit?layer=conv1&unit=0").json() == {"kernel": False, "patches": None, "why": None}
        assert client.get("/api/maps?layer=conv1&row=0").status_code == 200


def test_a_model_elsewhere_is_named_by_its_path(exported_folder: Path, source: Path, tmp_path: Path) -> None:
    with asked(space_of(tmp_path, exported_folder, source, Path("my models", "m"))) as client:
        assert client.get("/api/layers").json()["model"] == f"'{tmp_path / 'my models' / 'm'}'"


def test_a_model_that_was_written_over_is_opened_again(exported_folder: Path, source: Path, tmp_path: Path) -> None:
    space = space_of(tmp_path, exported_folder, source)
    onnx = space / "models" / "m" / "model.onnx"
    with asked(space) as client:
        assert client.get("/api/search?row=1").status_code == 200
        os.utime(onnx, ns=(0, 0))  # else its times may be the same
        onnx.write_bytes(onnx.read_bytes())
        for _ in range(2):
            assert client.get("/api/layers").status_code == 200
            assert client.get("/api/maps?layer=conv1&row=0").status_code == 200


def test_the_server_imports_no_torch() -> None:
    script = "import sys, alexnet_cli.serving.app, alexnet_cli.visualization.units; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "False"


@pytest.fixture(scope="module")
def searched(exported_folder: Path, source: Path, packed: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace like ``space``, whose model has its strongest patches; not to be changed."""
    space = space_of(tmp_path_factory.mktemp("searched"), exported_folder, source)
    folder = space / "models" / "m"
    units_of(folder, open_network(folder, "cpu"), packed, "train", "conv1", SILENT)
    return space


def test_the_strongest_patches_lie_where_they_do_in_their_fields(searched: Path, packed: Dataset) -> None:
    units = read_units(searched / "models" / "m", "conv2")
    assert units.field == {"size": 51, "stride": 8, "start": -16}
    unit = int(units.responses[:, 0].argmax())
    shown = units.rows[unit] >= 0
    with asked(searched) as client:
        told = client.get(f"/api/unit?layer=conv2&unit={unit}").json()["patches"]
        drawn = pixels(client.get(f"/api/patches?layer=conv2&unit={unit}"))
    assert (told["dataset"], told["split"]) == (packed.name, "train")
    assert told["responses"] == pytest.approx(units.responses[unit][shown].tolist(), rel=1e-3)
    assert drawn.shape == (3 * 51 + 2 * 2, 3 * 51 + 2 * 2, 4)
    wide = np.pad(packed.split("train").read(units.rows[unit])[:, 2:69, 2:69], ((0, 0), (51, 51), (51, 51), (0, 0)))
    within = np.pad(np.ones((67, 67), bool), 51)
    for i, (image, (row, column)) in enumerate(zip(wide, units.places[unit].tolist(), strict=True)):
        top, left = 51 - 16 + 8 * row, 51 - 16 + 8 * column
        shown = np.dstack([image, 255 * within]) * within[..., None]  # transparent past the border
        field = shown[top : top + 51, left : left + 51]
        np.testing.assert_array_equal(drawn[53 * (i // 3) :, 53 * (i % 3) :][:51, :51], field)


def test_patches_of_other_weights_are_not_shown(searched: Path) -> None:
    file = searched / "models" / "m" / "units" / "conv3.safetensors"
    kept, units = file.read_bytes(), read_units(searched / "models" / "m", "conv3")
    try:
        replace(units, model_fingerprint="other").save(searched / "models" / "m")
        with asked(searched) as client:
            assert client.get("/api/unit?layer=conv3&unit=0").json() == {"kernel": False, "patches": None, "why": None}
            replace(units, dataset_fingerprint="other").save(searched / "models" / "m")
            told = client.get("/api/unit?layer=conv3&unit=0").json()
            assert told["why"].endswith("has changed since its strongest patches were searched for")
            replace(units, dataset="gone").save(searched / "models" / "m")
            assert "gone" in client.get("/api/unit?layer=conv3&unit=0").json()["why"]
            file.write_bytes(kept[:100])
            assert client.get("/api/unit?layer=conv3&unit=0").json()["why"]
            assert error(client.get("/api/patches?layer=conv3&unit=0"), 500)
    finally:
        file.write_bytes(kept)


# The tab


@pytest.fixture(scope="module")
def home(space: Path) -> Iterator[str]:
    with served(space) as url:
        yield url


def overlay(page: Any) -> list[float]:
    """Left, top and width of the response over the picture, as parts of the view's width."""
    view, response = page.locator(".view").bounding_box(), page.locator(".response").bounding_box()
    parts = [response["x"] - view["x"], response["y"] - view["y"], response["width"]]
    return [part / view["width"] for part in parts]


@needs_browser
def test_a_layer_its_maps_and_a_unit_are_looked_at(browser: Any, home: str, source: Path) -> None:  # noqa: F811
    with opened(browser, home) as page:
        page.goto("/")
        drop(page, source / "val" / "red" / "03.png")
        page.get_by_role("link", name="What its layers see").click()
        expect(page.get_by_role("heading", name="The network m")).to_be_visible()
        expect(page.get_by_role("tab")).to_have_count(8)
        expect(page.get_by_role("tab", name="conv1")).to_have_attribute("aria-selected", "true")
        expect(page.locator(".arrow")).to_have_count(2 + 2 + 4 + 2 + 2 + 4 + 4 + 2)  # all columns: conv3, fc6, fc7, fc8

        page.get_by_role("tab", name="conv2").click()
        maps = page.locator(".map")
        expect(maps).to_have_count(8)
        expect(page.get_by_role("heading", name="Column 1")).to_be_visible()
        expect(page.locator(".response")).to_be_hidden()
        maps.nth(6).hover()
        expect(page.locator(".response")).to_be_visible()
        expect(page.locator(".said")).to_contain_text("conv2, map 6")
        # conv2 sees 51 pixels, 8 apart, the first at -16: in the middle of each a unit of 8 pixels, of the view's 67
        assert overlay(page) == pytest.approx([5.5 / 67, 5.5 / 67, 7 * 8 / 67], abs=0.01)
        page.locator("h1").hover()
        expect(page.locator(".response")).to_be_hidden()

        maps.nth(6).click()
        expect(page.locator(".unit")).to_contain_text("In column 1. A unit has 100 inputs and sees 51 × 51 pixels")
        expect(page.locator(".unit .command")).to_have_text(
            re.compile("alexnet visualize units --layer conv2 --model m --workspace /.*")
        )
        page.locator("h1").hover()
        expect(page.locator(".response")).to_be_visible()  # of the one that was clicked
        assert page.url.endswith("&layer=conv2&unit=6")

        page.get_by_role("combobox", name="Maps").select_option("Strongest first")
        shown = [int(one) for one in maps.evaluate_all("all => all.map(one => one.dataset.unit)")]
        assert [sorted(shown[:4]), sorted(shown[4:])] == [[0, 1, 2, 3], [4, 5, 6, 7]]
        drop(page, source / "val" / "blue" / "01.png")  # the same unit of another picture
        expect(page.locator(".map[aria-pressed=true]")).to_have_attribute("data-unit", "6")
        page.get_by_role("tab", name="conv1").click()
        page.locator(".map").first.click()
        page.wait_for_function("() => document.querySelector('.kernel img')?.naturalWidth === 11")
        page.get_by_role("tab", name="fc6").click()
        expect(page.get_by_text("it has no maps")).to_be_visible()
        page.get_by_role("link", name="Its nearest pictures").click()
        expect(page.locator(".query .caption")).to_contain_text("01.png")


@needs_browser
def test_the_tab_can_be_used_with_the_keyboard(browser: Any, home: str) -> None:  # noqa: F811
    with opened(browser, home) as page:
        page.goto("/?view=network")
        expect(page.get_by_role("heading", name="What does it see in your picture?")).to_be_visible()
        page.locator(".tile .pick").first.press("Enter")
        expect(page.locator(".map")).to_have_count(8)
        page.get_by_role("tab", name="conv1").focus()
        for key in ("ArrowRight", "ArrowRight", "Enter"):
            page.keyboard.press(key)
        expect(page.get_by_role("tab", name="conv3")).to_have_attribute("aria-selected", "true")
        expect(page.get_by_role("heading", name="conv3")).to_be_visible()
        page.locator(".map").first.focus()
        page.keyboard.press("ArrowRight")
        expect(page.locator(".said")).to_contain_text("conv3, map 1")
        expect(page.locator(".response")).to_be_visible()
        page.keyboard.press("Enter")
        expect(page.locator(".unit")).to_contain_text("conv3, unit 1")


@needs_browser
def test_the_strongest_patches_are_shown_where_they_are_known(browser: Any, searched: Path) -> None:  # noqa: F811
    with served(searched) as home, opened(browser, home) as page:
        page.goto("/?view=network&row=0&layer=conv2&unit=1")
        expect(page.locator(".patches figcaption")).to_contain_text("What excites it most in colours (train), from")
        page.wait_for_function("() => document.querySelector('.patches img')?.naturalWidth === 3 * 51 + 2 * 2")
        expect(page.locator(".unit .command")).to_have_count(0)


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_the_tab_without_scrolling_sideways(browser: Any, home: str, scheme: str) -> None:  # noqa: F811
    with opened(browser, home, width=390, color_scheme=scheme) as page:
        page.goto("/?view=network&row=3&layer=conv5&unit=2")
        expect(page.locator(".unit")).to_contain_text("conv5, unit 2")
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        tab, strip = page.get_by_role("tab", name="conv5").bounding_box(), page.locator(".drawn").bounding_box()
        assert strip["x"] <= tab["x"] <= strip["x"] + strip["width"] - tab["width"]


@needs_browser
def test_errors_are_told_in_the_tab(browser: Any, home: str, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "note.png").write_bytes(b"no picture")
    context = browser.new_context(base_url=home)
    page = context.new_page()
    page.goto("/?view=network")
    drop(page, tmp_path / "note.png")
    expect(page.get_by_role("alert")).to_have_text("Not a picture that can be read.")
    expect(page.locator(".view .missing")).to_have_text("it cannot be shown")
    page.goto("/?view=network&row=3&generation=old")
    expect(page.get_by_role("heading", name="The index has changed")).to_be_visible()
    page.get_by_role("link", name="Begin again").click()
    expect(page.get_by_role("heading", name="What does it see in your picture?")).to_be_visible()
    context.close()


@needs_browser
def test_pictures_that_are_forgotten_leave_no_address(browser: Any, home: str, source: Path) -> None:  # noqa: F811
    """An object URL keeps its picture in memory until it is revoked."""
    counting = """window.addresses = new Set();
        const [create, revoke] = [URL.createObjectURL, URL.revokeObjectURL];
        URL.createObjectURL = (thing) => { const made = create(thing); window.addresses.add(made); return made; };
        URL.revokeObjectURL = (made) => { window.addresses.delete(made); revoke(made); };"""
    script = (PAGE / "main.js").read_text()
    assert "const KEPT = 30;" in script
    script = script.replace("const KEPT = 30;", "const KEPT = 1;")
    with opened(browser, home) as page:
        page.add_init_script(counting)
        page.route("**/page/main.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
        page.goto("/?view=network")
        shown = ""
        for i in range(3):
            drop(page, source / "val" / "red" / f"{i:02d}.png")
            page.wait_for_function(
                "(before) => (document.querySelector('.view img')?.src ?? before) !== before"
                " && document.querySelector('.view img').src.startsWith('blob:')",
                arg=shown,
            )
            shown = page.locator(".view img").get_attribute("src")
        assert page.evaluate("() => window.addresses.size") == 2  # of the last: the file, and its central square
