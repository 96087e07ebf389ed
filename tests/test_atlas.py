"""The map of an index on the page: what the server answers, and the map in a real browser."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import write_onnx
from pictures import picture
from test_page import CHROMIUM, browser, expect, opened, served, space  # noqa: F401 - browser and space are fixtures

from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.retrieval.index import Index
from alexnet_cli.visualization.embedding import embed

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def test_the_server_tells_where_each_picture_lies(searchable: Path, client: Any) -> None:
    assert client.get("/api/embedding").json()["coordinates"] is None
    with closing(Index.open(Path("indexes/photos"))) as index:
        found = embed(index)
        pictures = [index.table.picture(row) for row in found.rows.tolist()]
    told = client.get("/api/embedding").json()
    np.testing.assert_allclose(told["coordinates"], found.coordinates, atol=1e-5)
    assert told["rows"] == found.rows.tolist()
    assert told["paths"] == [name for name, _ in pictures]
    assert [told["classes"][i] for i in told["of"]] == [label for _, label in pictures]


@pytest.fixture(scope="module")
def home(space: Path) -> Iterator[str]:  # noqa: F811
    with closing(Index.open(space / "indexes" / "photos")) as index:
        embed(index)
    with served(space) as url:
        yield url


@needs_browser
def test_an_index_without_a_map_has_the_command_for_one(browser: Any, home: str) -> None:  # noqa: F811
    with opened(browser, home) as page:
        page.goto("/?view=map&index=few")
        expect(page.locator(".command")).to_contain_text("alexnet visualize embedding few --workspace /")


@needs_browser
def test_the_map_is_zoomed_moved_and_searched_from(browser: Any, home: str) -> None:  # noqa: F811
    with opened(browser, home) as page:
        page.goto("/")
        page.get_by_role("link", name="Map").click()
        expect(page.get_by_role("heading", name="Map of photos")).to_be_visible()
        expect(page.locator(".keys li").first).to_have_text("cat 70")
        canvas, summary = page.locator(".atlas canvas"), page.locator(".atlas .summary")
        expect(summary).to_have_text("77 pictures")
        before = canvas.evaluate("canvas => canvas.toDataURL()")
        page.get_by_role("button", name="Zoom in").click()
        page.wait_for_function("before => document.querySelector('.atlas canvas').toDataURL() !== before", arg=before)
        page.get_by_role("button", name="Show all").click()
        canvas.focus()
        page.keyboard.press("ArrowRight")
        expect(summary).to_contain_text(".png")  # the picture in the middle
        named = summary.inner_text().split(" · ")[1]
        page.keyboard.press("Enter")
        expect(page.locator(".query .caption .file")).to_contain_text(named)
        page.go_back()
        expect(page.get_by_role("heading", name="Map of photos")).to_be_visible()


@needs_browser
def test_a_picture_is_clicked_on_the_map(browser: Any, home: str) -> None:  # noqa: F811
    with opened(browser, home, width=390, color_scheme="dark") as page:
        page.goto("/?view=map")
        canvas = page.locator(".atlas canvas")
        box = canvas.bounding_box()
        canvas.hover(position={"x": box["width"] / 2, "y": box["height"] / 2})
        for x in np.linspace(30, box["width"] - 30, 12):
            for y in np.linspace(30, box["height"] - 30, 12):
                page.mouse.move(box["x"] + x, box["y"] + y)
                if "on-picture" in (canvas.get_attribute("class") or ""):
                    page.mouse.click(box["x"] + x, box["y"] + y)
                    expect(page.locator(".query .caption")).to_be_visible()
                    return
        pytest.fail("no picture under the pointer")


@needs_browser
def test_pictures_of_no_class_have_a_colour_and_its_key(browser: Any, tmp_path: Path) -> None:  # noqa: F811
    for i in range(12):
        picture(tmp_path / "photos" / f"class-{i:02d}" / "0.png", i)
    picture(tmp_path / "photos" / "0.png", 12)
    model = write_onnx(tmp_path / "models" / "pets" / "model.onnx")
    photos = open_collection(tmp_path / "photos")
    build_index(photos, OnnxModel.open(model), tmp_path / "indexes" / "photos", model_path=model)
    with closing(Index.open(tmp_path / "indexes" / "photos")) as index:
        embed(index)
    with served(tmp_path) as url, opened(browser, url) as page:
        page.goto("/?view=map")
        keys = page.locator(".keys li")
        expect(keys).to_have_count(12)
        assert keys.all_inner_texts()[-2:] == ["no class 1", "2 other classes 2"]
        tints = keys.evaluate_all("all => all.map(one => one.style.getPropertyValue('--tint'))")
        assert len(set(tints)) == 12
