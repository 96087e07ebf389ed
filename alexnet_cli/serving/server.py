"""The server: a socket, and uvicorn on it."""

import asyncio
import errno
import json
import logging
import resource
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from alexnet_cli.errors import AlexNetError
from alexnet_cli.serving.guard import HEADERS, is_local, spelled_out

GRACE = 2  # seconds that requests have to end in when the server is stopped
WAITING = 64  # connections that the system holds until they are accepted, which are then accepted at once
MOST_CONNECTIONS, OWN_FILES = 1000, 200  # connections at a time; descriptors that are left for files and indexes
HEAD_BYTES = 2**16  # of a request
# For the head of a request, or the rest of one that was answered before its end; until a client takes what it was sent
HEAD_SECONDS, STALLED_SECONDS = 20, 20


@dataclass(frozen=True)
class Address:
    """A bound socket and the address of its page."""

    socket: socket.socket
    host: str
    port: int

    @property
    def url(self) -> str:
        """As it is opened on this machine."""
        host = "127.0.0.1" if self.host in ("0.0.0.0", "") else "::1" if self.host == "::" else self.host
        return f"http://[{host}]:{self.port}/" if ":" in host else f"http://{host}:{self.port}/"

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it."""
        return is_local(self.host)


def bind(host: str, port: int) -> Address:
    """Bind ``host`` and ``port``; 0 is any free port.

    Raises AlexNetError if that is not possible, with ``errno`` EADDRINUSE in its cause if the port is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise AlexNetError(f"--host {host}: {error.strerror or error}; this machine has no such address") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(WAITING)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AlexNetError(f"port {port} is taken, perhaps by another `alexnet serve`") from error
        raise AlexNetError(f"cannot bind {host}, port {port}: {error.strerror}") from None
    return Address(bound, spelled_out(host), bound.getsockname()[1])


class WithoutChunks(h11.Connection):
    """HTTP whose bodies tell their length. Each chunk of another takes the time of a whole packet, even of one byte."""

    has_chunks = False

    def next_event(self) -> Any:
        event = super().next_event()
        if isinstance(event, h11.Request) and any(name == b"transfer-encoding" for name, _ in event.headers):
            self.has_chunks = True
            raise h11.RemoteProtocolError("a body in chunks")
        return event


class Connection(H11Protocol):
    """A connection that is closed if there are too many of them, or if its client neither asks nor takes the answer."""

    conn: WithoutChunks

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.conn = WithoutChunks(h11.SERVER, HEAD_BYTES)
        self._patience: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        transport.set_write_buffer_limits(0)  # whatever waits to be taken pauses writing, also of a closed connection
        super().connection_made(transport)
        if len(self.connections) > most_connections():
            transport.close()
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._wait()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request, or has a body in chunks, and close the connection."""
        status, told = (411, "send a picture with its Content-Length") if self.conn.has_chunks else (400, msg)
        body = json.dumps({"error": told}).encode()
        headers = {
            **HEADERS,
            "Content-Length": str(len(body)),
            "Cache-Control": "no-store",
            "Content-Type": "application/json",
            "Connection": "close",
        }
        answer = h11.Response(status_code=status, headers=list(headers.items()))
        for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._wait()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled is not None:
            self._stalled.cancel()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if self._stalled is not None:
            self._stalled.cancel()
        super().connection_lost(exc)

    def _wait(self) -> None:
        """Give the next request HEAD_SECONDS for its head to come, whatever is left of the one before included.

        A body that is read has a time of its own.
        """
        if self.conn.our_state in (h11.SEND_RESPONSE, h11.SEND_BODY):
            self._stop_waiting()
        elif self._patience is None:
            self._patience = self.loop.call_later(HEAD_SECONDS, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None


def most_connections() -> int:
    """At a time: half as many as this process may have files open, as each may be sent one, less its own."""
    return max(16, min(MOST_CONNECTIONS, (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - OWN_FILES) // 2))


class Server(uvicorn.Server):
    """uvicorn, quiet, which tells when it answers."""

    def __init__(self, app: ASGIApp, ready: Callable[[], object] = lambda: None) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                log_level="critical",
                access_log=False,
                server_header=False,
                ws="none",
                http=Connection,
                backlog=WAITING,
                timeout_graceful_shutdown=GRACE,
            )
        )
        self.ready = ready
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # else a traceback for each connection too many

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets)
        self.ready()
