"""What holds of every request and answer: who may ask, what a page may load, how much may be sent."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OF_ANOTHER_SITE = "another site's page may not ask this server"
PATIENCE = 5  # seconds until the next piece of what is sent
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
HOST = re.compile(r"(?P<name>\[[0-9a-fA-F:.]+\]|[^\s:/?#@\[\]]+)(:[0-9]{1,5})?")  # what a Host header may say
HEADERS = {
    # Scripts, styles and requests of this server alone; `blob:` is the picture that was dropped on the page. Nothing
    # that a script is told becomes HTML: with trusted types, the browser refuses `innerHTML`.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # other pages cannot show our pictures
    "Cross-Origin-Opener-Policy": "same-origin",
}


class Guard:
    """Middleware: refuses requests for a foreign Host or from a foreign Origin, and adds HEADERS to every answer.

    A page of somebody else can send requests to this machine from the browser. It cannot choose the Host that the
    browser names, which is its own even if its name leads here, and the browser names its Origin.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        """``host``: what the server binds. The machine's own names are looked up here: a resolver may be slow."""
        self.app, self.is_local = app, is_local(host)
        machine = socket.gethostname()
        others = () if self.is_local else (machine, f"{machine}.local", socket.getfqdn())
        self.names = LOOPBACK | {name.lower() for name in (host, spelled_out(host), *others)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-store")
                if "accept-ranges" in headers:
                    headers["Accept-Ranges"] = "none"
            await send(message)

        reason = self.refusal(scope["path"], Headers(scope=scope))
        app = self.app if reason is None else JSONResponse({"error": reason}, 403)
        # A server may ignore Range: for its errors, Starlette's answers are no JSON.
        asked = [(name, value) for name, value in scope["headers"] if name != b"range"]
        try:
            await app({**scope, "headers": asked}, receive, send_with_headers)
        except asyncio.CancelledError:  # the server is being stopped
            if not has_begun:
                answer = JSONResponse({"error": "the server was stopped"}, 503, headers={"Connection": "close"})
                await answer(scope, receive, send_with_headers)
            raise

    def refusal(self, path: str, headers: Headers) -> str | None:
        """Why a request for ``path`` with these ``headers`` is refused; None if it is not."""
        hosts, origins = headers.getlist("host"), headers.getlist("origin")
        if len(hosts) != 1 or not self.is_own(hosts[0]):
            return "this server does not go by that name: open it by the address that `alexnet serve` printed"
        if any(origin.lower() not in _pages_of(hosts[0]) for origin in origins):
            return OF_ANOTHER_SITE
        # Browsers say where a request comes from that has no Origin, such as that of a picture in a page. A link that
        # leads to the page from elsewhere is followed; a frame, and a link into the API, is not.
        sites, wanted = set(headers.getlist("sec-fetch-site")), headers.get("sec-fetch-dest")
        if not sites <= {"none", "same-origin"} and not (path == "/" and wanted == "document"):
            return OF_ANOTHER_SITE
        return None

    def is_own(self, host: str) -> bool:
        """Whether a Host header names this server, by any port: a tunnel may have another one."""
        named = HOST.fullmatch(host)
        if named is None:
            return False
        name = named["name"].strip("[]").removesuffix(".").lower()
        # An address as such is no name that somebody else could lead here.
        return name in self.names or (not self.is_local and _is_address(name))


def _pages_of(host: str) -> tuple[str, str]:
    """The origins of pages from ``host``; a tunnel may have added the encryption."""
    return f"http://{host.lower()}", f"https://{host.lower()}"


def spelled_out(host: str) -> str:
    """An IPv4 address as browsers name it: 127.1 is 127.0.0.1. Any other ``host`` stays as it is."""
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return host


def is_local(host: str) -> bool:
    """Whether a server that binds ``host`` can only be reached from this machine."""
    host = spelled_out(host)
    return host.lower() == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Room:
    """Memory for what is sent: a client has as much of it as it has sent, so that a slow one takes none from others.

    When it is full, one client at a time may go on, for whom there is always room; the others wait.
    """

    def __init__(self, size: int) -> None:
        """``size``: bytes, of all clients together."""
        self.free = size
        self._when_full = asyncio.Lock()

    async def take(self, pieces: AsyncIterator[bytes], limit: int, held: AsyncExitStack) -> bytes | None:
        """All of ``pieces``, or None as soon as they are more than ``limit`` bytes; ``held`` frees their room.

        Raises TimeoutError if the next does not come within PATIENCE seconds.
        """
        content, may_go_on = bytearray(), False
        while True:
            async with asyncio.timeout(PATIENCE):
                piece = await anext(pieces, None)
            if piece is None:
                return bytes(content)
            if len(content) + len(piece) > limit:
                return None
            if len(piece) > self.free and not may_go_on:
                await held.enter_async_context(self._when_full)
                may_go_on = True
            self.free -= len(piece)
            held.callback(self._give_back, len(piece))
            content += piece

    def _give_back(self, size: int) -> None:
        self.free += size
