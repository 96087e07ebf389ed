"""The documentation: the site builds strictly and loads nothing from elsewhere; its commands and its examples work."""

import ast
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import typer
from pictures import encoded
from starlette.testclient import TestClient

from alexnet_cli import demo
from alexnet_cli.commands import COMMANDS, build_app, main
from alexnet_cli.data.pictures import load_picture

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
LESSON = (DOCS / "lesson.md").read_text(encoding="utf-8")


def load(path: Path):
    """A Python file that is not part of the package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


REFERENCE = load(ROOT / "tools" / "command_reference.py")
NOTEBOOK = load(ROOT / "tools" / "lesson_notebook.py")


class Loaded(HTMLParser):
    """What a browser loads when it opens a page: all but what a reader has to click."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        names = {"src", "srcset", "data", "poster"} | ({"href"} if tag in ("link", "image", "use") else set())
        if tag == "link" and dict(attrs).get("rel") in ("canonical", "next", "prev"):
            return
        self.addresses += [value or "" for name, value in attrs if name in names]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    run = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return folder


def test_the_site_loads_nothing_from_elsewhere(site):
    pages, styles = list(site.rglob("*.html")), list(site.rglob("*.css"))
    assert len(pages) > len(PAGES)
    assert styles
    for page in pages:
        addresses = Loaded(page.read_text(encoding="utf-8")).addresses
        assert any(address.endswith(".css") for address in addresses), page
        assert not [address for address in addresses if re.match(r"(\w+:)?//", address.strip())], page
    for style in styles:
        text = style.read_text(encoding="utf-8")
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?\s*(?:https?:)?//", text), style


def test_a_page_that_loads_from_elsewhere_would_be_found():
    page = '<link rel="stylesheet" href="//a/b.css"><a href="https://c"></a><script src="https://d.js"></script>'
    assert Loaded(page).addresses == ["//a/b.css", "https://d.js"]


def test_the_page_about_deploying_shows_the_example(site):
    page = (site / "deploy.html").read_text(encoding="utf-8")
    assert "Classifier" in page
    assert "--8" not in page
    assert (site / "examples" / "server.py").exists()


def test_the_navigation_has_every_page(site):
    linked = re.findall(r'href="([\w./-]*)"', (site / "index.html").read_text(encoding="utf-8"))
    expected = {"commands", *(page.stem for page in PAGES)} - {"index"}
    assert expected <= {link.removesuffix("/").removesuffix(".html") for link in linked}


def test_the_reference_has_the_help_of_every_command(capsys, monkeypatch):
    page = REFERENCE.reference()
    assert re.findall(r"^## alexnet (.*)$", page, re.MULTILINE) == list(COMMANDS)
    monkeypatch.setenv("COLUMNS", REFERENCE.COLUMNS)
    for command in COMMANDS:
        main([*command.split(), "--help"])
        usage, help_text = capsys.readouterr().out.strip().split("\n", 1)
        assert f"\nUsage: alexnet {command} {usage.split(f' {command} ')[1]}\n{help_text}\n" in page


def named_commands(text: str) -> list[str]:
    """The commands in a page, in its blocks and in its lines: what follows `alexnet`, without comments and pipes."""
    blocks = "\n".join(re.findall(r"^```(?:sh|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
    lines = re.findall(r"^(?:\$ )?alexnet (.+)$", blocks, re.MULTILINE) + re.findall(r"`alexnet ([^`]+)`", text)
    return [re.split(r" +[#|] ?", " ".join(line.split()))[0] for line in lines]


COMMAND_LINES = [(page.name, line) for page in PAGES for line in named_commands(page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize(("page", "line"), COMMAND_LINES)
def test_a_command_in_a_page_exists_with_its_options(page, line):
    words, program = shlex.split(line), typer.main.get_command(build_app(COMMANDS))
    if words[0].startswith("-"):
        return
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name == "visualize" and len(words) == 1:
        return
    assert name in COMMANDS
    for word in name.split():
        program = program.commands[word]
    known = {name for param in program.params for name in (*param.opts, *param.secondary_opts)} | {"--help", "--debug"}
    used = {word.split("=")[0] for word in words if word.startswith("--")}
    assert used <= known


def test_the_lesson_has_an_hour_in_order():
    times = [60 * int(hour) + int(minute) for hour, minute in re.findall(r"^## (\d):(\d\d) ", LESSON, re.MULTILINE)]
    assert times == sorted(times)
    assert times[0] == 0
    assert times[-1] < 60


def test_the_notebook_is_the_lesson():
    assert NOTEBOOK.NOTEBOOK.read_text(encoding="utf-8") == NOTEBOOK.written(LESSON), (
        "docs/lesson.md has changed: python tools/lesson_notebook.py"
    )


@pytest.mark.exports
def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    """In the workspace of a demonstration that was cut short. As in Jupyter, a cell's last expression is its value."""
    demo.demonstrate(
        tmp_path / "demo",
        main,
        names=("cat", "coffee"),
        views={"train": 12, "val": 4},
        queries=("cat",),
        epochs=1,
    )
    monkeypatch.chdir(tmp_path / "demo")
    cells = json.loads(NOTEBOOK.NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    names: dict = {}
    drawn = 0
    for cell in cells:
        if cell["cell_type"] == "code":
            *statements, last = ast.parse("".join(cell["source"])).body
            if not isinstance(last, ast.Expr):
                statements, last = [*statements, last], None
            exec(compile(ast.Module(statements, []), "cell", "exec"), names)  # noqa: S102
            value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if last else None
            drawn += value is not None and min(value.size) > 100
    assert drawn >= len(re.findall(r"^\$ alexnet (?:visualize|reproduce)", LESSON, re.MULTILINE))


def test_the_example_of_a_server_answers_as_predict_does(exported_folder, tmp_path, capsys):
    server = load(DOCS / "examples" / "server.py")
    picture = encoded(np.random.default_rng(0).integers(0, 255, (90, 131, 3), dtype=np.uint8))
    (tmp_path / "a.png").write_bytes(picture)
    assert main(["predict", str(tmp_path / "a.png"), "--model", str(exported_folder / "model.onnx"), "--json"]) == 0
    (expected,) = json.loads(capsys.readouterr().out)["predictions"]
    with TestClient(server.create_app(str(exported_folder / "model.onnx"))) as client:
        answer = client.post("/classify", content=picture)
        assert answer.status_code == 200
        classes = answer.json()["classes"]
        assert [one["label"] for one in classes] == [one["label"] for one in expected["classes"]]
        for one, other in zip(classes, expected["classes"], strict=True):
            assert one["name"] == other["name"]
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-3)
        for wrong in (b"", b"no picture", picture[:200]):
            refused = client.post("/classify", content=wrong)
            assert (refused.status_code, refused.json()) == (400, {"error": "not a picture that can be read"})
        assert client.post("/classify", content=bytes(server.MAX_BYTES + 1)).status_code == 413
        assert client.get("/classify").status_code == 405


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (256, 256), (90, 131)])
def test_the_input_of_the_example_is_that_of_prep(shape):
    content = encoded(np.random.default_rng(0).integers(0, 255, (*shape, 3), dtype=np.uint8))
    difference = load(DOCS / "examples" / "server.py").as_input(content, 256).astype(int) - load_picture(content)
    assert np.abs(difference).max() <= 1


def test_the_page_about_deploying_names_the_example_and_its_packages():
    page = (DOCS / "deploy.md").read_text(encoding="utf-8")
    assert '--8<-- "docs/examples/server.py"' in page
    imported = {
        (node.names[0].name if isinstance(node, ast.Import) else node.module).split(".")[0]
        for node in ast.walk(ast.parse((DOCS / "examples" / "server.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    assert imported - set(sys.stdlib_module_names) == {"numpy", "onnxruntime", "PIL", "starlette"}


def test_the_citation_is_of_the_version_that_is_here():
    yaml = pytest.importorskip("yaml")
    told = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = re.search(r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert told["version"] == project[1]
    assert {"cff-version", "message", "title", "authors"} <= set(told)  # what CFF 1.2.0 requires
    assert told["cff-version"] == "1.2.0"
    (paper,) = told["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert [author["family-names"] for author in paper["authors"]] == ["Krizhevsky", "Sutskever", "Hinton"]
