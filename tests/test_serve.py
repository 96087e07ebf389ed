"""`alexnet serve` as a process: how it starts and stops, and what it tells; training runs in its answers."""

import asyncio
import http.client
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from uvicorn.server import ServerState

from alexnet_cli.commands import main
from alexnet_cli.serving import server as server_module
from alexnet_cli.serving.app import LIMIT, create_app
from alexnet_cli.serving.server import Address, Server, bind
from alexnet_cli.workspace import Workspace

PHOTOS = 12  # of `searchable`


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process of `alexnet serve`, and the address that it printed; it is ended afterwards."""
    command = [sys.executable, "-m", "alexnet_cli", "serve", "--port", "0", "--json", *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as process:
        try:
            yield process, json.loads(process.stdout.readline())["url"]
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_stopped(searchable: Path, number: int) -> None:
    with serving() as (process, url), httpx.Client(base_url=url) as user:
        assert user.get("/api/info").json()["pictures"] == PHOTOS
        process.send_signal(number)  # while the connection is open
        rest, said = process.communicate()
        assert (process.returncode, rest) == (0, "")
        assert said.endswith("stopped\n")
        assert "Traceback" not in said


@pytest.mark.parametrize(
    ("numbers", "before"),
    [
        ([signal.SIGINT], "default_int_handler"),
        ([signal.SIGINT, signal.SIGINT, signal.SIGTERM], "default_int_handler"),
        ([signal.SIGINT], "SIG_IGN"),  # in the background of a script
    ],
)
def test_it_is_stopped_while_a_picture_is_decoded(tmp_path: Path, numbers: list[signal.Signals], before: str) -> None:
    program = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGINT, signal.{before})\n"
        "from alexnet_cli.commands import main\n"
        "from alexnet_cli.serving import answers\n"
        "answers.preview = lambda decoders, content: (print('decoding', flush=True), time.sleep(3600))\n"
        "sys.exit(main(['serve', '--port', '0', '--json']))"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, text=True, **pipes) as process:
        try:
            url = httpx.URL(json.loads(process.stdout.readline())["url"])
            with socket.create_connection((url.host, url.port)) as user:
                user.sendall(b"POST /api/preview HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\n\r\nx")
                assert process.stdout.readline() == "decoding\n"
                for number in numbers:
                    process.send_signal(number)
                assert process.communicate(timeout=60) == ("", "stopped\n")
                assert process.returncode == 0
                head, _, body = user.makefile("rb").read().partition(b"\r\n\r\n")
                assert not head or head.startswith(b"HTTP/1.1 503 ")
                assert not head or json.loads(body) == {"error": "the server was stopped"}
        finally:
            process.kill()


def test_too_large_a_picture_is_refused_over_a_connection(searchable: Path) -> None:
    with serving() as (_, url), closing(socket.create_connection((httpx.URL(url).host, httpx.URL(url).port))) as user:
        user.sendall(b"POST /api/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9000000000\r\n\r\n" + b"x" * 100)
        answer = user.makefile("rb").read()  # to the end: the server closes the connection
        assert answer.startswith(b"HTTP/1.1 413 ")
        assert b"a picture may have 20 MB" in answer


def test_a_client_that_sends_all_before_it_reads_learns_that_its_picture_is_too_large(searchable: Path) -> None:
    with serving() as (_, url), closing(http.client.HTTPConnection(httpx.URL(url).host, httpx.URL(url).port)) as user:
        user.request("POST", "/api/search", bytes(LIMIT + 1), {"Host": "localhost"})
        answer = user.getresponse()
        assert (answer.status, json.load(answer)) == (413, {"error": "a picture may have 20 MB"})


def test_a_body_in_chunks_is_refused_before_it_is_read(searchable: Path) -> None:
    post = b"POST /api/search HTTP/1.1\r\nHost: localhost\r\n"
    chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
    with serving() as (_, address):
        url = httpx.URL(address)
        for sent, status, reason in [
            (chunked, 411, "send a picture with its Content-Length"),
            (chunked + b"1\r\nx\r\n" * 3000, 411, "send a picture with its Content-Length"),
            (post + b"Content-Length: -5\r\n\r\n", 400, "Invalid HTTP request received."),
        ]:
            with socket.create_connection((url.host, url.port)) as user:
                user.sendall(sent)
                head, _, body = user.makefile("rb").read().partition(b"\r\n\r\n")  # to the end
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"content-security-policy: " in head.lower()
            assert json.loads(body) == {"error": reason}


def test_serving_imports_no_torch(searchable: Path) -> None:
    program = (
        "import sys, pathlib, alexnet_cli.commands.serve\n"
        "from starlette.testclient import TestClient\n"
        "from alexnet_cli.serving.app import LIMIT, create_app\n"
        "from alexnet_cli.serving import server\n"
        "from alexnet_cli.workspace import Workspace\n"
        "assert not {'torch', 'faiss', 'onnxruntime'} & set(sys.modules)\n"
        "with TestClient(create_app(Workspace(pathlib.Path('.'))), base_url='http://localhost') as client:\n"
        "    content = pathlib.Path('photos/cat/0.png').read_bytes()\n"
        "    assert client.post('/api/search', content=content).json()['neighbours']\n"
        "    assert client.get('/api/runs').status_code == client.get('/api/pictures/0').status_code == 200\n"
        "assert not {'torch', 'torchvision', 'scipy', 'matplotlib', 'onnx'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_port_that_is_taken_is_told_with_the_command_for_another(
    searchable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with closing(bind("127.0.0.1", 0).socket) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port), "--workspace", "my photos"]) == 1
    assert capsys.readouterr().err == (
        f"error: port {port} is taken, perhaps by another `alexnet serve`; stop that one, or try "
        "`alexnet serve --port 0 --workspace 'my photos'`\n"
    )


def test_a_host_that_is_not_here_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--host", "192.0.2.1", "--port", "0"]) == 1
    assert capsys.readouterr().err == "error: cannot bind 192.0.2.1, port 0: Cannot assign requested address\n"


def test_another_host_is_served_with_a_warning_of_what_that_means(searchable: Path) -> None:
    with serving("--host", "0.0.0.0") as (process, url):
        assert url.startswith("http://127.0.0.1:")
        assert httpx.get(f"{url}api/info").status_code == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert "warning: at 0.0.0.0, everyone who reaches this machine can see all pictures" in said


def test_training_runs_are_told_whatever_is_in_their_files(tmp_path: Path) -> None:
    def run(name: str, recipe: str, history: str, *others: str) -> None:
        folder = tmp_path / "models" / name
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_text(recipe)
        (folder / "history.jsonl").write_text(history)
        for other in others:
            (folder / other).parent.mkdir(exist_ok=True)
            (folder / other).touch()

    good = '{"epoch": 1, "loss": 2.5, "train_error": 0.5, "learning_rate": 0.01, "seconds": 7}\n'
    run("done", 'name = "tiny"\n[training]\nepochs = 1', good, "model.safetensors")
    run("going", "", good * 2, ".alexnet.lock")
    run("killed", "training = 3", "", "checkpoint/state.safetensors")
    run("copied", 'name = "tiny"\n[training]\nepochs = 1', good, "model.safetensors", "checkpoint/state.safetensors")
    os.utime(tmp_path / "models" / "copied" / "model.safetensors", (1, 1))
    run("longer", 'name = "tiny"\n[training]\nepochs = 2', good, "model.safetensors", "checkpoint/state.safetensors")
    os.utime(tmp_path / "models" / "longer" / "model.safetensors", (1, 1))
    run("damaged", "[", '{"epoch": NaN, "loss": "<b>", "x": 1}\n[]\n{', "model.safetensors")
    run(
        "odd",
        "name = 2020-01-01\n[training]\nepochs = nan",
        '{"epoch": 1, "loss": 1' + "0" * 400 + "}\n" + "[" * 200_000,
    )
    run("deep", "a = " + "[" * 3000, '{"epoch": 1' + "0" * 5000 + "}")
    (tmp_path / "models" / "pipe").mkdir()
    os.mkfifo(tmp_path / "models" / "pipe" / "recipe.toml")
    os.mkfifo(tmp_path / "models" / "pipe" / "history.jsonl")
    with TestClient(create_app(Workspace(tmp_path)), base_url="http://localhost") as client:
        runs = {one["name"]: one for one in client.get("/api/runs").json()["runs"]}
    assert {name: one["state"] for name, one in runs.items()} == {
        "done": "finished",
        "going": "training",
        "killed": "stopped",
        "copied": "finished",
        "longer": "stopped",
        "damaged": "finished",
        "odd": "stopped",
        "deep": "stopped",
        "pipe": "stopped",
    }
    assert (runs["odd"]["recipe"], runs["odd"]["epochs"], runs["odd"]["history"]) == ("", None, [{"epoch": 1}])
    assert (runs["done"]["recipe"], runs["done"]["epochs"], runs["done"]["history"]) == ("tiny", 1, [json.loads(good)])
    assert len(runs["going"]["history"]) == 2
    assert runs["damaged"]["history"] == [{}]


@contextmanager
def in_this_process() -> Iterator[Address]:
    """The server of the workspace here, in a thread."""
    ready, address = threading.Event(), bind("127.0.0.1", 0)
    server = Server(create_app(Workspace(Path("."))), ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [address.socket]})
    thread.start()
    assert ready.wait(30)
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join()


def test_connections_whose_request_does_not_come_are_closed(searchable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(server_module, "most_connections", lambda: 5)
    with in_this_process() as address, ExitStack() as opened:
        slow = [opened.enter_context(socket.create_connection((address.host, address.port))) for _ in range(8)]
        for one in slow[:5]:
            one.sendall(b"GET /api/info HTTP/1.1\r\nHost: loc")
        for one in slow:
            one.settimeout(20)
            assert one.recv(100) == b""  # closed by the server
        with httpx.Client(base_url=address.url) as user:  # twice over one connection
            assert [user.get("/api/info").status_code for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("request_line", "host", "status"),
    [
        (b"POST /nope", b"localhost", b"404"),
        (b"POST /", b"evil.example", b"403"),
        (b"GET /page/a", b"localhost", b"404"),
    ],
)
def test_a_request_that_is_answered_before_its_end_is_not_waited_for(
    searchable: Path, monkeypatch: pytest.MonkeyPatch, request_line: bytes, host: bytes, status: bytes
) -> None:
    monkeypatch.setattr(server_module, "HEAD_SECONDS", 0.2)
    with in_this_process() as address, socket.create_connection((address.host, address.port)) as user:
        user.settimeout(20)
        user.sendall(request_line + b" HTTP/1.1\r\nHost: " + host + b"\r\nContent-Length: 100\r\n\r\n")
        answer = user.recv(10_000)
        assert answer.startswith(b"HTTP/1.1 " + status)
        user.sendall(b"x")  # uvicorn waits no longer for a next request, but for what is left of this one
        while content := user.recv(10_000):
            answer += content
        assert answer.count(b"HTTP/1.1") == 1


def test_there_are_never_more_connections_than_files_may_be_open() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert server_module.most_connections() == max(16, min(1000, (limit - 200) // 2))


def test_a_client_that_takes_nothing_is_left_however_little_is_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "STALLED_SECONDS", 0.05)

    async def answer() -> None:
        lost = asyncio.Event()

        class Watched(server_module.Connection):
            def connection_lost(self, exc: Exception | None) -> None:
                super().connection_lost(exc)
                lost.set()

        config = Server(PlainTextResponse("x" * 50_000)).config  # more than a socket holds here
        config.load()
        ours, theirs = socket.socketpair()
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        loop = asyncio.get_running_loop()
        with theirs:
            state = ServerState()
            await loop.connect_accepted_socket(lambda: Watched(config, state, {}, loop), ours)
            theirs.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            await asyncio.wait_for(lost.wait(), 60)
        assert not state.connections

    asyncio.run(answer())
