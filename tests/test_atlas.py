"""The map of an index on the page: what the server answers, and the map in a real browser."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_page import CHROMIUM, browser, expect, opened, served, space  # noqa: F401 - browser and space are fixtures

from alexnet_cli.retrieval.index import Index
from alexnet_cli.visualization.embedding import embed

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")


def test_the_server_tells_where_each_picture_lies(searchable: Path, client: Any) -> None:
    assert client.get("/api/embedding").json()["places"] is None
    with closing(Index.open(Path("indexes/photos"))) as index:
        found = embed(index)
        pictures = [index.table.picture(row) for row in found.rows.tolist()]
    told = client.get("/api/embedding").json()
    np.testing.assert_allclose(told["places"], found.places, atol=1e-5)
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
