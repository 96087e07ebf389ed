"""Draw the screenshots of the page in docs/images, from the photographs of `alexnet demo`, which are free.

    alexnet demo && python docs/screenshots.py demo [VIEW ...]

Needs Chromium and Playwright (`pip install 'alexnet-cli[dev]'`). Look at them before you commit them.
"""

import io
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from alexnet_cli.serving.app import create_app
from alexnet_cli.serving.server import Server, bind
from alexnet_cli.workspace import Workspace

OUT = Path(__file__).parent / "images"
QUERY = "photos/val/coffee/coffee-03.jpg"  # a view that the network was not trained on
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
DESKTOP, TALL, PHONE = (1200, 640), (1200, 940), (390, 720)
VIEWS = {  # its address, what is there once it is drawn, the window, and the colours
    "search": ("/", ".results .tile", DESKTOP, "light"),
    "search-phone-dark": ("/", ".results .tile", PHONE, "dark"),
    "pictures": ("/?view=pictures", ".tile", DESKTOP, "light"),
    "network": ("/?view=network&row=130&layer=conv1&unit=4", ".response", TALL, "light"),
    "training": ("/?view=training", ".run", DESKTOP, "light"),
}
LIMIT = 200_000  # bytes of a screenshot
COLOURS = 128  # of a picture, which is then a quarter as large as with all of them


def save(page: Page, name: str) -> None:
    """Write what the window shows, once its pictures are there."""
    page.wait_for_function(
        "() => [...document.images].every(one => one.complete || one.getBoundingClientRect().top > innerHeight)"
    )
    image = Image.open(io.BytesIO(page.screenshot(animations="disabled")))
    few = image.convert("RGB").quantize(COLOURS, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(OUT / f"{name}.png", optimize=True)
    assert (OUT / f"{name}.png").stat().st_size < LIMIT


def draw(browser: Any, home: str, query: Path, view: str) -> None:
    """Draw one of VIEWS."""
    address, shown, (width, height), scheme = VIEWS[view]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, base_url=home)
    page.goto(address)
    if view.startswith("search"):
        page.set_input_files("#file", query)
    page.locator(shown).first.wait_for()
    page.wait_for_load_state("networkidle")
    save(page, f"page-{view}")
    page.close()


def main() -> None:
    workspace = Path(sys.argv[1])
    ready, address = threading.Event(), bind("127.0.0.1", 0)
    server = Server(create_app(Workspace(workspace)), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]})
    thread.start()
    ready.wait()
    OUT.mkdir(exist_ok=True)
    try:
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            for view in sys.argv[2:] or VIEWS:
                draw(browser, address.url, workspace / QUERY, view)
            browser.close()
    finally:
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
