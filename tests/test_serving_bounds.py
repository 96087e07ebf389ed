"""The server of `alexnet serve`, asked in-process: who may ask it, and what it takes of memory and disk."""

import asyncio
import os
import shutil
import socket
import sys
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, closing
from pathlib import Path

import httpx2 as httpx
import pytest
from starlette.testclient import TestClient
from test_serving import PHOTOS, error

from alexnet_cli.serving import app as app_module
from alexnet_cli.serving import guard
from alexnet_cli.serving.app import DECODINGS, INFERENCES, READINGS, create_app
from alexnet_cli.serving.guard import Guard, Room
from alexnet_cli.serving.server import bind
from alexnet_cli.serving.thumbnails import FILE, Cache, cache_folder
from alexnet_cli.workspace import Workspace

LOCAL = "http://127.0.0.1:8224"


# Who may ask


@pytest.mark.parametrize("host", ["127.0.0.1:8224", "localhost", "LOCALHOST:9000", "[::1]:8224"])
def test_own_hosts_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/api/info", headers={"host": host}).status_code == 200
    assert client.get("/api/info", headers={"host": host, "origin": f"http://{host}"}).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *(
            "evil.example",
            "evil.example:8224",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "192.0.2.1",
            "",
            "[",
        ),
        *("[", "[::1]evil.example", "evil.example@localhost", "localhost/evil.example", "localhost?evil.example"),
        *("localhost#evil.example", "localhost:x", "localhost:123456", "localhost.."),
    ],
)
def test_foreign_hosts_are_refused(client: TestClient, host: str) -> None:
    for address in ("/", "/page/style.css", "/api/info", "/api/pictures/0"):
        assert "does not go by that name" in error(client.get(address, headers={"host": host}), 403)


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:9000",
        "http://localhost:8224.evil.example",
        "",
        "http://[",
        "ftp://localhost",
    ],
)
def test_foreign_origins_are_refused(client: TestClient, origin: str) -> None:
    answer = client.post("/api/search", content=b"x", headers={"origin": origin})
    assert error(answer, 403) == "another site's page may not ask this server"


def test_what_a_browser_says_comes_from_another_site_is_refused(client: TestClient) -> None:
    for path, site, mode, dest, status in [
        ("/api/search?row=1", "same-origin", "cors", "empty", 200),
        ("/api/pictures/1?full", "same-origin", "navigate", "document", 200),
        ("/api/search?row=1", "none", "navigate", "document", 200),  # typed
        ("/?row=1", "cross-site", "navigate", "document", 200),  # a link on another page
        ("/", "cross-site", "navigate", "iframe", 403),
        ("/api/search?row=1", "cross-site", "navigate", "iframe", 403),
        ("/api/search?row=1", "cross-site", "navigate", "document", 403),  # a window that it opens, over and over
        ("/api/search?row=1", "cross-site", "no-cors", "image", 403),
        ("/api/search?row=1", "same-site", "cors", "empty", 403),  # another port of this machine
    ]:
        headers = {"sec-fetch-site": site, "sec-fetch-mode": mode, "sec-fetch-dest": dest}
        assert client.get(path, headers=headers).status_code == status


def test_every_answer_has_the_headers_that_bind_the_browser(client: TestClient) -> None:
    addresses = ["/", "/page/style.css", "/api/info", "/api/pictures/0", "/api/pictures/0?full", "/nothing"]
    answers = [*map(client.get, addresses), client.get("/", headers={"host": "evil.example"})]
    for answer in answers:
        assert answer.headers.items() >= {(key.lower(), value) for key, value in guard.HEADERS.items()}
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in answer.headers["content-security-policy"]


def test_a_server_for_others_goes_by_addresses_and_its_names() -> None:
    served = Guard(lambda *_: None, "0.0.0.0")
    own = socket.gethostname().lower()
    for host in ("192.0.2.7:8224", "[2001:db8::1]:8224", own, f"{own}.local:8224", "localhost"):
        assert served.is_own(host)
    assert not served.is_own("evil.example")
    assert Guard(lambda *_: None, "photos.example").is_own("photos.example:8224")
    assert not Guard(lambda *_: None, "127.0.0.1").is_own(own)


def test_names_are_not_looked_up_for_each_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver may take seconds, and meanwhile nobody would be answered."""
    served = Guard(lambda *_: None, "0.0.0.0")
    monkeypatch.delattr(socket, "getfqdn")
    assert not served.is_own("evil.example")


@pytest.mark.parametrize(
    ("host", "is_alone"),
    [("127.0.0.1", True), ("127.1", True), ("LOCALHOST", True), ("::1", True), ("0.0.0.0", False), ("photos", False)],
)
def test_who_can_reach_a_server(host: str, is_alone: bool) -> None:
    assert guard.is_local(host) == is_alone
    assert Guard(lambda *_: None, host).is_own("192.0.2.7") != is_alone


def test_a_short_address_is_served_as_browsers_spell_it() -> None:
    address = bind("127.2", 0)
    address.socket.close()
    assert address.url == f"http://127.0.0.2:{address.port}/"
    assert Guard(lambda *_: None, "127.2").is_own(f"127.0.0.2:{address.port}")


def test_of_two_sites_that_a_request_may_come_from_both_count(client: TestClient) -> None:
    headers = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "cross-site")]
    assert client.get("/api/search?row=1", headers=headers).status_code == 403


@pytest.mark.parametrize("wanted", ["lines=1", "bytes=5-1", "bytes=99999999-", "bytes=0-3"])
def test_ranges_are_ignored(client: TestClient, wanted: str) -> None:
    for address in ("/api/pictures/0?full", "/page/style.css"):
        answer = client.get(address, headers={"range": wanted})
        assert (answer.status_code, answer.content) == (200, client.get(address).content)
        assert answer.headers["accept-ranges"] == "none"


# Bounds


def test_twenty_at_once_wait_and_none_fails(searchable: Path, client: TestClient) -> None:
    contents = [Path(f"photos/{name}/{i}.png").read_bytes() for name in ("cat", "dog") for i in range(6)]
    together = threading.Barrier(20)

    def ask(number: int) -> tuple[int, str]:
        together.wait()
        answer = client.post("/api/search?k=1", content=contents[number % PHOTOS])
        return answer.status_code, answer.json()["neighbours"][0]["path"]

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(20)))
    paths = [f"photos/{name}/{i}.png" for name in ("cat", "dog") for i in range(6)]
    assert answers == [(200, paths[number % PHOTOS]) for number in range(20)]


def test_what_waits_is_not_done_for_clients_that_have_gone(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    busy, go_on, done = threading.Barrier(INFERENCES + 1), threading.Event(), []

    def answer(*_: object, query: int, **__: object) -> dict[str, object]:
        done.append(query)
        if len(done) <= INFERENCES:
            busy.wait(30)
            go_on.wait(30)
        return {}

    monkeypatch.setattr(app_module.answers, "search", answer)

    async def ask(row: int, gone: asyncio.Event) -> None:
        messages = [{"type": "http.request", "body": b"", "more_body": False}]

        async def receive() -> dict[str, object]:
            if messages and not gone.is_set():
                return messages.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, object]) -> None:
            pass

        scope = {"type": "http", "method": "GET", "path": "/api/search", "query_string": b"row=%d" % row}
        await client.app({**scope, "root_path": "", "headers": [(b"host", b"localhost")]}, receive, send)

    async def attack() -> None:
        stays, gone = asyncio.Event(), asyncio.Event()
        tasks = [asyncio.create_task(ask(row, stays)) for row in range(INFERENCES)]
        await asyncio.to_thread(busy.wait, 30)
        tasks += [asyncio.create_task(ask(row, gone)) for row in range(3, 9)]
        tasks.append(asyncio.create_task(ask(10, stays)))
        await asyncio.sleep(0)
        gone.set()
        go_on.set()
        await asyncio.gather(*tasks)

    client.portal.call(attack)
    assert sorted(done) == [*range(INFERENCES), 10]


def test_a_picture_that_takes_long_to_decode_holds_nothing_up(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, decoding = threading.Event(), threading.Semaphore(0)

    def decode(decoders: object, content: bytes) -> bytes:
        decoding.release()
        go_on.wait(30)
        return content

    monkeypatch.setattr(app_module.answers, "preview", decode)
    with ThreadPoolExecutor(READINGS) as pool:
        slow = [pool.submit(client.post, "/api/preview", content=b"slow") for _ in range(READINGS)]
        for _ in range(DECODINGS):
            decoding.acquire(timeout=30)
        try:
            with ThreadPoolExecutor(1) as other:
                for address in ("/api/indexes", "/api/pictures/0", "/api/search?row=0", "/api/pictures/0?full"):
                    assert other.submit(client.get, address).result(20).status_code == 200
        finally:
            go_on.set()
        assert [one.result().content for one in slow] == [b"slow"] * READINGS


def test_uploads_that_do_not_come_hold_no_other_up(client: TestClient) -> None:
    content = Path("photos/cat/0.png").read_bytes()

    async def post(pieces: AsyncIterator[bytes]) -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url=LOCAL) as user:
            return (await user.post("/api/preview", content=pieces)).status_code

    async def whole() -> AsyncIterator[bytes]:
        yield content

    async def attack() -> int:
        begun, go_on = asyncio.Semaphore(0), asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            begun.release()
            yield content[:1]
            await go_on.wait()

        held = [asyncio.create_task(post(slow())) for _ in range(40)]
        async with asyncio.timeout(30):
            for _ in held:
                await begun.acquire()
            status = await post(whole())
        go_on.set()
        assert await asyncio.gather(*held) == [400] * len(held)
        return status

    assert client.portal.call(attack) == 200


def test_an_upload_that_makes_no_progress_gives_its_room_back(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 0.01)

    async def stalled() -> httpx.Response:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"a piece"
            await asyncio.Event().wait()

        async with (
            asyncio.timeout(20),
            httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url=LOCAL) as user,
        ):
            return await user.post("/api/preview", content=pieces())

    free = client.app.app.state.room.free
    assert "or nothing of it for 5" in error(client.portal.call(stalled), 408)
    assert client.app.app.state.room.free == free


def test_no_more_is_held_than_there_is_room_and_all_have_their_turn() -> None:
    most = 0

    async def send(room: Room) -> bytes | None:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(10):
                await asyncio.sleep(0)
                yield b"0123456789"

        nonlocal most
        async with AsyncExitStack() as held:
            content = await room.take(pieces(), 100, held)
            most = max(most, 250 - room.free)
            await asyncio.sleep(0)
            return content

    async def all_at_once() -> list[bytes | None]:
        room = Room(250)
        contents = await asyncio.gather(*[send(room) for _ in range(20)])
        assert room.free == 250
        return contents

    assert asyncio.run(all_at_once()) == [b"0123456789" * 10] * 20
    assert 250 <= most <= 350


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_requests_leave_nothing_behind(client: TestClient) -> None:
    """Not for long: benchmarks/serve.py asks a thousand times."""
    content = Path("photos/cat/0.png").read_bytes()

    async def held(requests: int) -> tuple[int, int, int]:
        """The bytes of memory, the threads and the open files that are held after so many requests."""
        async with httpx.AsyncClient(transport=httpx.ASGITransport(client.app), base_url=LOCAL) as user:
            for i in range(requests // 2):
                assert (await user.post("/api/search?k=3", content=content)).status_code == 200
                assert (await user.get(f"/api/pictures/{i % PHOTOS}")).status_code == 200
        memory = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return memory, threading.active_count(), len(os.listdir("/proc/self/fd"))

    before, after = client.portal.call(held, 100), client.portal.call(held, 200)
    assert after[0] - before[0] < 4_000_000
    assert after[1:] == before[1:]


def test_thumbnails_are_kept_within_a_bound(tmp_path: Path) -> None:
    with closing(Cache(tmp_path, bound=10_000)) as cache:
        for i in range(50):
            cache.put(str(i), bytes([i]) * 1000)
            assert sum(cache.get(str(one)) is not None for one in range(50)) <= 10
        assert cache.get("49") == bytes([49]) * 1000
    with closing(Cache(tmp_path, bound=10_000)) as cache:
        assert cache.get("49") == bytes([49]) * 1000
        assert cache.get("0") is None


def test_thumbnails_are_their_users_alone(tmp_path: Path) -> None:
    folder = tmp_path / "cache" / "alexnet"
    folder.mkdir(parents=True, mode=0o755)
    with closing(Cache(folder)) as cache:
        cache.put("a", b"jpeg")
        assert folder.stat().st_mode & 0o777 == 0o700


def test_a_cached_thumbnail_is_made_again_when_its_picture_changes(searchable: Path, tmp_path: Path) -> None:
    with TestClient(create_app(Workspace(Path(".")), cache=tmp_path / "cache"), base_url=LOCAL) as client:
        first = client.get("/api/pictures/0").content
        assert client.get("/api/pictures/0").content == first
        shutil.copy("photos/dog/5.png", "photos/cat/0.png")
        assert client.get("/api/pictures/0").content != first


@pytest.mark.parametrize("content", [b"damaged" * 1000, b""])
def test_a_damaged_cache_is_made_anew(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with closing(Cache(tmp_path)) as cache:
        cache.put("a", b"jpeg")
        assert cache.get("a") == b"jpeg"


def test_a_cache_that_is_damaged_while_it_is_open_is_made_anew(tmp_path: Path) -> None:
    jpegs = {str(i): bytes([i]) * 3000 for i in range(40)}
    with closing(Cache(tmp_path)) as cache:
        for key, jpeg in jpegs.items():
            cache.put(key, jpeg)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[8192:40960] = bytes(32768)
    (tmp_path / FILE).write_bytes(content)
    with closing(Cache(tmp_path)) as cache:
        for key, jpeg in jpegs.items():
            assert cache.get(key) in (jpeg, None)
            cache.put(key, jpeg)
            assert cache.get(key) in (jpeg, None)
        for key, jpeg in jpegs.items():  # by now it is new
            cache.put(key, jpeg)
            assert cache.get(key) == jpeg


def test_a_thumbnail_of_which_a_bit_has_flipped_is_not_shown(tmp_path: Path) -> None:
    jpeg = os.urandom(2000)
    with closing(Cache(tmp_path)) as cache:
        cache.put("a", jpeg)
    content = bytearray((tmp_path / FILE).read_bytes())
    content[content.index(jpeg[:100]) + 50] ^= 1
    (tmp_path / FILE).write_bytes(content)
    with closing(Cache(tmp_path)) as cache:
        assert cache.get("a") is None


def test_pictures_that_wait_to_be_answered_do_not_pile_up_in_memory(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    size, most = 8, 0
    room = client.app.app.state.room = Room(size)

    def slow(opened: object, query: bytes) -> None:
        nonlocal most
        most = max(most, size - room.free)

    monkeypatch.setattr(app_module.answers, "pixels_if_there", slow)
    monkeypatch.setattr(app_module.answers, "search", lambda *_, **__: {})
    with ThreadPoolExecutor(30) as pool:
        asked = [pool.submit(client.post, "/api/search", content=b"x") for _ in range(30)]
        assert all(one.result().status_code == 200 for one in asked)
    assert 0 < most <= size + 1
    assert room.free == size


def test_a_cache_that_cannot_be_written_costs_only_time(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path / "file" / "cache", None):
        with closing(Cache(folder)) as cache:
            cache.put("a", b"jpeg")
            assert cache.get("a") is None


def test_the_cache_lies_in_the_users_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "alexnet"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "alexnet"
