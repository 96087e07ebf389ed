"""The page of `alexnet serve` in a real browser: Chromium, where there is one, against a real server."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import write_onnx
from pictures import picture
from PIL import Image
from safetensors.numpy import save_file

from alexnet_cli.inference.onnx_model import OnnxModel
from alexnet_cli.retrieval.build import build_index
from alexnet_cli.retrieval.collection import open_collection
from alexnet_cli.serving.app import create_app
from alexnet_cli.serving.server import Server, bind
from alexnet_cli.workspace import Workspace

playwright = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SECONDS = 20  # to wait for a condition, on a machine that is busy
CATS, DOGS = 70, 6
MARKUP = "<img src=x onerror=alert(1)>"  # a file's name, and a class's
EPOCHS = [{"epoch": i, "loss": 2.0 / i, "train_error": 0.8 / i, "validation_error": 0.9 / i} for i in (1, 2, 3)]


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with an index of many cats, few dogs and a class whose name is markup; and one of two pictures."""
    root = tmp_path_factory.mktemp("served")
    for i in range(CATS):
        picture(root / "photos" / "cat" / f"{i:02d}.png", i)
    for i in range(DOGS):
        picture(root / "photos" / "dog" / f"{i:02d}.png", 100 + i)
    picture(root / "photos" / MARKUP / f"{MARKUP}.png", 200)
    for i in range(2):
        picture(root / "few" / f"{i}.png", 300 + i)
    model = write_onnx(root / "models" / "pets" / "model.onnx")
    save_file({"w": np.zeros(1)}, root / "models" / "pets" / "model.safetensors", {"fingerprint": "seed-0"})
    for name in ("few", "photos"):
        build_index(open_collection(root / name), OnnxModel.open(model), root / "indexes" / name, model_path=model)
    return root


@contextmanager
def served(root: Path) -> Iterator[str]:
    """The address of a server of the workspace ``root``."""
    ready, address = threading.Event(), bind("127.0.0.1", 0)
    server = Server(create_app(Workspace(root)), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]})
    thread.start()
    try:
        assert ready.wait(SECONDS)
        yield address.url
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def home(space: Path) -> Iterator[str]:
    with served(space) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, home: str) -> Iterator[Any]:
    """A page that fails its test if it logged an error, or asked anything but the server."""
    with opened(browser, home) as page:
        yield page


@contextmanager
def opened(browser: Any, home: str, width: int = 1280, **options: Any) -> Iterator[Any]:
    context = browser.new_context(base_url=home, viewport={"width": width, "height": 844}, **options)
    context.set_default_timeout(1000 * SECONDS)
    page, problems, asked = context.new_page(), [], []
    page.on("console", lambda message: problems.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    yield page
    context.close()
    assert problems == []
    assert [url for url in asked if not url.startswith((home, f"blob:{home}"))] == []


def expect(thing: Any) -> Any:
    return playwright.expect(thing)


def drop(page: Any, path: Path, event: str = "drop") -> None:
    """Drop a file on the page, or paste it."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name, { type: "image/png" }));
            return transfer;
        }""",
        [path.name, list(path.read_bytes())],
    )
    if event == "paste":
        page.evaluate(
            """(given) => {
                document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData: given, bubbles: true }));
            }""",
            transfer,
        )
        return
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    expect(page.locator("#drop-here")).to_be_visible()
    page.dispatch_event("body", "drop", {"dataTransfer": transfer})
    expect(page.locator("#drop-here")).to_be_hidden()


def choose(page: Any, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files(path)


@pytest.mark.parametrize("way", ["drop", "paste", "choose"])
def test_a_picture_gets_its_classes_and_its_neighbours(page: Any, space: Path, way: str) -> None:
    page.goto("/")
    expect(page.get_by_role("heading", name="Find pictures like yours")).to_be_visible()
    path = space / "photos" / "dog" / "03.png"
    if way == "choose":
        choose(page, path)
    else:
        drop(page, path, way)
    expect(page.locator(".bars li")).to_have_count(5)
    expect(page.locator(".results .tile")).to_have_count(24)
    first = page.locator(".tile").first
    expect(first).to_contain_text("dog")
    expect(first).to_contain_text("03.png")
    expect(page.locator(".query .caption")).to_contain_text("03.png")
    widths = page.locator(".bars .fill").evaluate_all("all => all.map(one => one.getBoundingClientRect().width)")
    assert widths == sorted(widths, reverse=True)
    page.wait_for_function("() => [...document.images].filter(one => one.naturalWidth === 256).length > 5")


def test_a_picture_that_the_browser_cannot_draw_is_shown_as_the_server_reads_it(page: Any, tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), (200, 30, 30)).save(tmp_path / "red.tif")
    page.goto("/")
    drop(page, tmp_path / "red.tif")
    caption = page.locator(".query > figure figcaption")
    for _ in range(2):
        expect(caption).to_have_text("Its central square: this browser cannot show the file.")
        page.wait_for_function("() => document.querySelector('.query img')?.naturalWidth === 256")
        expect(page.locator(".query .missing")).to_have_count(0)
        page.locator(".tile .pick").first.click()
        expect(page.locator(".query .label")).to_be_visible()
        page.go_back()


def test_a_click_searches_on_and_back_leads_back(page: Any, space: Path) -> None:
    page.goto("/")
    drop(page, space / "photos" / "dog" / "03.png")
    page.locator(".tile .pick").nth(2).click()
    expect(page.locator(".query .label")).to_be_visible()
    assert "row=" in page.url
    expect(page.get_by_role("link", name="Open the original", exact=True)).to_be_visible()
    page.go_back()
    expect(page.locator(".query .caption")).to_have_text("03.png")
    page.go_back()
    expect(page.get_by_role("heading", name="Find pictures like yours")).to_be_visible()
    page.go_forward()
    expect(page.locator(".query .caption")).to_have_text("03.png")
    page.reload()  # the picture that was dropped is gone with the page
    expect(page.get_by_role("heading", name="Find pictures like yours")).to_be_visible()


def test_the_first_picture_that_is_sent_and_row_1_have_answers_of_their_own(page: Any, space: Path) -> None:
    page.goto("/")
    drop(page, space / "photos" / "dog" / "03.png")
    expect(page.locator(".results .tile").first).to_contain_text("03.png")
    page.get_by_role("link", name="Pictures").click()
    page.locator(".classes a", has_text="cat").click()
    page.locator('.tile .pick[href*="row=1&"]').click()
    expect(page.locator(".query .label")).to_have_text("class cat")
    shown = page.locator(".results .tile, .bars li").all_inner_texts()
    page.reload()
    expect(page.locator(".query .label")).to_have_text("class cat")
    assert page.locator(".results .tile, .bars li").all_inner_texts() == shown


def test_the_original_opens(page: Any) -> None:
    page.goto("/?view=pictures&label=dog")
    page.locator(".tile").first.hover()
    with page.context.expect_page() as tab:
        page.locator(".tile .original").first.click()
    tab.value.wait_for_load_state()
    assert tab.value.evaluate("() => [document.contentType, document.images[0].naturalWidth]") == ["image/png", 60]


def test_sliders_and_classes_choose_among_the_neighbours(page: Any, space: Path) -> None:
    page.goto("/")
    drop(page, space / "photos" / "dog" / "03.png")
    tiles = page.locator(".results .tile")
    page.get_by_role("slider", name="How many").fill("5")
    expect(tiles).to_have_count(5)
    expect(page.locator(".summary")).to_have_text("5 pictures of the 77 nearest")
    page.get_by_role("combobox", name="Class").select_option(label=f"dog ({DOGS})")
    expect(tiles).to_have_count(5)
    assert {name.split("\n")[0] for name in tiles.all_inner_texts()} == {"dog"}
    page.get_by_role("slider", name="How many").fill("77")
    expect(tiles).to_have_count(DOGS)
    page.get_by_role("slider", name="Distance up to").fill("0")
    expect(tiles).to_have_count(1)
    expect(tiles.first).to_contain_text("03.png")
    page.get_by_role("combobox", name="Class").select_option(label=f"cat ({CATS})")
    expect(page.get_by_text("None of the 77 nearest fits")).to_be_visible()


def test_everything_can_be_done_with_the_keyboard(page: Any) -> None:
    page.goto("/")
    expect(page.locator(".tile")).to_have_count(24)

    def focused() -> str:
        return page.evaluate("() => document.activeElement.className || document.activeElement.textContent")

    reached = []
    for _ in range(11):
        page.keyboard.press("Tab")
        reached.append(focused())
        assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached[:6] == ["skip", "brand", "Search", "Pictures", "Map", "Network"]
    assert reached[8:] == ["primary", "pick", "original"]

    def at() -> int:
        return page.evaluate(
            "() => [...document.querySelectorAll('.tile')].indexOf(document.activeElement.closest('.tile'))"
        )

    page.keyboard.press("Shift+Tab")
    columns = page.evaluate(
        "() => { const all = [...document.querySelectorAll('.tile')];"
        "return all.filter(one => one.offsetTop === all[0].offsetTop).length }"
    )
    positions = []
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp", "ArrowUp", "End", "Home", "ArrowRight"):
        page.keyboard.press(key)
        positions.append(at())
    assert positions == [1, 1 + columns, columns, 0, 0, 23, 0, 1]
    page.keyboard.press("Enter")
    expect(page.locator(".bars li")).to_have_count(5)
    page.wait_for_function("() => document.activeElement.matches('.results .pick')")  # to go on with arrows


def test_indexes_can_be_changed(page: Any) -> None:
    page.goto("/")
    page.get_by_role("combobox", name="Index").select_option("few")
    expect(page.get_by_role("heading", name="Or begin with one of the 2 in few")).to_be_visible()
    page.locator(".tile .pick").first.click()
    expect(page.locator(".results .tile")).to_have_count(1)  # without itself
    page.get_by_role("link", name="Pictures").click()
    expect(page.get_by_role("heading", name="no class")).to_be_visible()


def test_the_pictures_of_a_class_come_in_pages(page: Any) -> None:
    page.goto("/?view=pictures")
    page.locator(".classes a", has_text="cat").click()
    expect(page.locator(".tile")).to_have_count(60)
    page.get_by_role("button", name="Show more").click()
    expect(page.locator(".tile")).to_have_count(CATS)
    expect(page.get_by_role("button", name="Show more")).to_be_hidden()


def test_mistakes_are_shown_where_there_is_a_report(page: Any, space: Path) -> None:
    report = space / "report"
    report.mkdir()
    try:
        head = "picture,label,rank_of_label,probability_of_label,label_1,probability_1\n"
        (report / "report.json").write_text(json.dumps({"source": str((space / "photos").resolve())}))
        (report / "predictions.csv").write_text(f"{head}cat/01.png,cat,2,0.3,dog,0.7\ncat/02.png,cat,1,0.9,cat,0.9\n")
        page.goto("/?view=pictures")
        page.locator(".classes a", has_text="Mistakes").click()
        expect(page.locator(".summary")).to_contain_text("1 of 2 pictures in report")
        expect(page.locator(".tile")).to_have_count(1)
        expect(page.locator(".tile .name")).to_have_text("cat")
        expect(page.locator(".tile .detail")).to_have_text("→ dog")
    finally:
        shutil.rmtree(report)


def test_names_that_are_markup_are_shown_as_they_are(page: Any) -> None:
    page.goto("/?view=pictures")
    page.locator(".classes a", has_text=MARKUP).click()
    expect(page.get_by_role("heading", name=MARKUP)).to_be_visible()
    page.locator(".tile .pick").click()
    expect(page.locator(".query .caption")).to_contain_text(f"{MARKUP}.png")
    expect(page.locator(".query .label")).to_have_text(f"class {MARKUP}")


def test_curves_grow_while_a_run_trains(page: Any, space: Path) -> None:
    run = space / "models" / "run"
    run.mkdir()
    (run / "recipe.toml").write_text('name = "tiny"\n[training]\nepochs = 3\n')
    (run / ".alexnet.lock").touch()

    def write(epochs: int, file: str = "history.jsonl") -> None:
        (run / "new").write_text("".join(json.dumps(row) + "\n" for row in EPOCHS[:epochs]))
        (run / "new").replace(run / file)

    try:
        page.clock.install()
        page.goto("/?view=training")
        card = page.locator(".run", has_text="run")
        expect(card).to_contain_text("training no epoch is done yet")
        write(1)
        page.clock.fast_forward(5000)
        expect(card).to_contain_text("epoch 1 of 3")
        expect(card.locator("svg.chart")).to_have_count(2)
        write(3)
        (run / "model.safetensors").touch()
        (run / ".alexnet.lock").unlink()
        page.clock.fast_forward(5000)
        expect(card).to_contain_text("finished epoch 3 of 3 · recipe tiny")
        expect(card).to_contain_text("validation 30.0 %")
        card.get_by_text("Every epoch").click()
        expect(card.locator("tbody tr")).to_have_count(3)
    finally:
        shutil.rmtree(run)


def test_a_view_of_training_runs_listens_once_for_its_end(page: Any, space: Path) -> None:
    page.add_init_script(
        """const add = AbortSignal.prototype.addEventListener;
        window.listeners = 0;
        AbortSignal.prototype.addEventListener = function (...given) {
            window.listeners += 1;
            add.apply(this, given);
        };"""
    )
    page.clock.install()
    page.goto("/?view=training")
    expect(page.get_by_role("heading", name="No training runs yet")).to_be_visible()
    for _ in range(3):
        with page.expect_response("**/api/runs*"):
            page.clock.fast_forward(16_000)
    assert page.evaluate("() => window.listeners") == 1


def test_a_history_of_many_epochs_and_a_huge_loss_hide_no_other_run(browser: Any, tmp_path: Path) -> None:
    for name, rows in [("long", 130_000), ("huge", 1), ("good", 3)]:
        run = tmp_path / "models" / name
        run.mkdir(parents=True)
        (run / "recipe.toml").write_text('name = "tiny"\n')
        loss = 1.7e308 if name == "huge" else 1
        lines = [json.dumps({"epoch": i, "loss": loss}) for i in range(1, rows + 1)]
        (run / "history.jsonl").write_text("\n".join(lines))
    with served(tmp_path) as home, opened(browser, home) as page:
        page.goto("/?view=training")
        page.locator(".run svg.chart").nth(2).wait_for()  # longer than an expectation waits
        assert page.locator(".run svg.chart").count() == 3
        drawn = page.locator(".run", has_text="huge").locator("svg.chart").inner_html()
        assert "NaN" not in drawn
        assert "Infinity" not in drawn


def test_a_class_called_null_is_not_that_of_pictures_without_one(browser: Any, tmp_path: Path) -> None:
    turned = "a\u202eb\x1b.png"  # which reads "agnp.b"
    for i, name in enumerate(["null/0.png", "null/1.png", "2.png", turned]):
        picture(tmp_path / "photos" / name, 400 + i)
    model = write_onnx(tmp_path / "models" / "pets" / "model.onnx")
    photos = open_collection(tmp_path / "photos")
    build_index(photos, OnnxModel.open(model), tmp_path / "indexes" / "pho\u202etos", model_path=model)
    with served(tmp_path) as home, opened(browser, home) as page:
        page.goto("/")
        drop(page, tmp_path / "photos" / "null" / "0.png")
        expect(page.locator(".results .tile")).to_have_count(4)
        chooser = page.get_by_role("combobox", name="Class")
        choices = set(chooser.locator("option").all_inner_texts())
        assert choices == {"All (4)", "null (2)", "no class (2)"}
        chooser.select_option(label="null (2)")
        expect(page.locator(".results .tile")).to_have_count(2)
        chooser.select_option(label="no class (2)")
        expect(page.locator(".results .tile")).to_have_count(2)
        attributes = page.evaluate(
            "() => [...document.querySelectorAll('.results *')]"
            ".flatMap(one => ['title', 'aria-label'].map(name => one.getAttribute(name) ?? ''))"
        )
        assert any("a\ufffdb\ufffd.png" in one for one in attributes)
        assert not any("\u202e" in one or "\x1b" in one for one in attributes)
        assert "pho\ufffdtos" in page.title()


def test_an_empty_workspace_says_what_to_type(browser: Any, tmp_path: Path) -> None:
    space = tmp_path / "my photos"
    space.mkdir()
    with served(space) as home, opened(browser, home) as page:
        page.goto("/")
        expect(page.get_by_role("heading", name="There is no index yet")).to_be_visible()
        expect(page.locator(".command")).to_have_text(f"alexnet index PHOTOS --workspace '{space}'")
        page.get_by_role("link", name="Training").click()
        expect(page.get_by_role("heading", name="No training runs yet")).to_be_visible()


@pytest.mark.parametrize(
    ("address", "awaited"), [("/", "api/info"), ("/", "page/main.js"), ("/?view=training", "api/runs")]
)
def test_until_there_is_something_the_page_says_that_it_loads(page: Any, address: str, awaited: str) -> None:
    held: list[Any] = []
    page.route(f"**/{awaited}*", lambda route: held.append(route))
    with page.expect_request(f"**/{awaited}*"):
        page.goto(address, wait_until="commit")
    loading = page.locator("main").get_by_text("Loading …")
    expect(loading).to_be_visible()
    held[0].continue_()
    page.locator(".tile, .notice").first.wait_for()
    expect(loading).to_have_count(0)


def test_errors_are_told_where_the_answer_would_be(browser: Any, home: str, tmp_path: Path) -> None:
    (tmp_path / "note.png").write_bytes(b"no picture")
    context = browser.new_context(base_url=home)
    page = context.new_page()
    page.goto("/")
    choose(page, tmp_path / "note.png")
    expect(page.get_by_role("alert")).to_have_text("Not a picture that can be read.")
    page.goto("/?row=3&generation=old")
    expect(page.get_by_role("heading", name="The index has changed")).to_be_visible()
    page.get_by_role("link", name="Begin again").click()
    expect(page.get_by_role("heading", name="Find pictures like yours")).to_be_visible()
    page.goto("/?index=other")
    expect(page.get_by_role("alert")).to_contain_text("There is no index 'other'")
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_every_view_without_scrolling_sideways(browser: Any, home: str, scheme: str) -> None:
    with opened(browser, home, width=390, color_scheme=scheme) as page:
        for address in ("/", "/?row=3", "/?view=pictures", "/?view=network", "/?view=training"):
            page.goto(address)
            page.locator(".tile, .run, .notice").first.wait_for()
            assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
        paper = page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)")
        assert (sum(paper) < 200) == (scheme == "dark")
