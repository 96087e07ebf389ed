"""The server's routes: the page, and the API that it asks. Every answer but a picture is JSON, errors are {"error"}."""

import asyncio
import json
import re
import shlex
from collections.abc import Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import anyio.from_thread
import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from alexnet_cli.data.unread import why_unread
from alexnet_cli.errors import AlexNetError, BadPicture, NoSuchLayer, first_line
from alexnet_cli.progress import SILENT, Progress
from alexnet_cli.retrieval.layout import read_facts
from alexnet_cli.serving import answers, network, runs
from alexnet_cli.serving import mistakes as mistakes_of
from alexnet_cli.serving.decoding import PROCESSES, Decoders
from alexnet_cli.serving.guard import PATIENCE, Guard, Room
from alexnet_cli.serving.library import Library, NotThere, Opened, Outdated
from alexnet_cli.serving.thumbnails import Cache
from alexnet_cli.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

PAGE = Path(__file__).parent / "page"
LIMIT = 20_000_000  # bytes of a picture that is sent
PAUSE = 0.5  # seconds without a byte, after which a client is not sending
UPLOAD_BYTES, UPLOAD_SECONDS = 160_000_000, 60  # of pictures in memory at a time; how long one may take to come
WHOLE = re.compile(r"-?[0-9]{1,15}")  # no index has more; Python refuses thousands of digits
MOST = 1000  # neighbours, or pictures in one list
# At a time; others wait. ONNX Runtime uses every core for one picture; while it does, the next can be decoded. What
# decodes has a place of its own, so that the page answers whatever the pictures are: half for those that are sent.
INFERENCES, READINGS, DECODINGS = 2, 4, PROCESSES // 2
STATUS: dict[type[Exception], int] = {BadPicture: 400, NotThere: 404, NoSuchLayer: 404, Outdated: 409}
KEPT_BY_BROWSER = "private, max-age=86400, immutable"  # a picture of one generation of an index

Result = TypeVar("Result")


class Json(JSONResponse):
    """JSON whose texts may hold names that are not UTF-8, as escapes."""

    def render(self, content: object) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False).encode()


def create_app(
    space: Workspace, *, host: str = "127.0.0.1", cache: Path | None = None, progress: Progress = SILENT
) -> Guard:
    """The ASGI application for the indexes and models of a workspace.

    ``host``: what its server binds, which decides the names it goes by. ``cache``: the folder of the cache of
    thumbnails; none is kept if None.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> "AsyncIterator[None]":
        app.state.inferences = anyio.CapacityLimiter(INFERENCES)
        app.state.readings = anyio.CapacityLimiter(READINGS)
        app.state.sent, app.state.own = anyio.CapacityLimiter(DECODINGS), anyio.CapacityLimiter(DECODINGS)
        app.state.room = Room(UPLOAD_BYTES)
        app.state.decoders, app.state.thumbnails = Decoders(), Cache(cache)
        app.state.library = Library(space, app.state.decoders, progress)
        await anyio.to_thread.run_sync(app.state.decoders.start)
        try:
            yield
        finally:
            await anyio.to_thread.run_sync(app.state.decoders.close)
            app.state.library.close()
            app.state.thumbnails.close()

    def unexpected(request: Request, error: Exception) -> Response:
        progress.note(f"{request.method} {request.url.path}: unexpected {type(error).__name__}: {first_line(error)}")
        return Json({"error": f"unexpected {type(error).__name__}; the terminal of the server says more"}, 500)

    app = Starlette(
        routes=[
            Route("/", page),
            Mount("/page", StaticFiles(directory=PAGE)),
            Route("/api/info", info),
            Route("/api/indexes", indexes),
            Route("/api/search", search, methods=["GET", "POST"]),
            Route("/api/preview", preview, methods=["POST"]),
            Route("/api/layers", layers),
            Route("/api/maps", maps, methods=["GET", "POST"]),
            Route("/api/unit", unit),
            Route("/api/kernel", partial(unit_picture, draw=network.kernel)),
            Route("/api/patches", partial(unit_picture, draw=network.patches)),
            Route("/api/classes", classes),
            Route("/api/mistakes", mistakes),
            Route("/api/embedding", embedding),
            Route("/api/pictures", pictures),
            Route("/api/pictures/{row}", picture),
            Route("/api/runs", training_runs),
        ],
        exception_handlers={HTTPException: refused, AlexNetError: failed, OSError: unreadable, Exception: unexpected},
        lifespan=lifespan,
    )
    app.state.space = space
    return Guard(app, host)  # around Starlette's own answer to unexpected errors as well


async def refused(request: Request, error: Exception) -> Response:
    """The answer to what Starlette or a handler refuses."""
    assert isinstance(error, HTTPException)
    return Json({"error": error.detail}, error.status_code, headers=error.headers)


async def failed(request: Request, error: Exception) -> Response:
    """The answer where the library raises an error that a user can understand.

    The page tells the `name` of a picture that it sends, which may say more than its content does.
    """
    told = why_unread(request.query_params.get("name", "")) if isinstance(error, BadPicture) else None
    return Json({"error": told or str(error)}, STATUS.get(type(error), 500))


async def unreadable(request: Request, error: Exception) -> Response:
    """The answer where the system does not let a file of the workspace be read."""
    assert isinstance(error, OSError)
    return Json({"error": f"{error.filename}: {error.strerror}" if error.filename else first_line(error)}, 500)


async def page(request: Request) -> Response:
    return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})


async def info(request: Request) -> Response:
    return await _answer(request, answers.info)


async def indexes(request: Request) -> Response:
    """Every index of the workspace, newest first, without opening them; with what is wrong with it if it is damaged.

    The workspace is quoted, for commands that the page shows.
    """
    library: Library = request.app.state.library

    def listed() -> dict[str, Any]:
        found = []
        for path in library.paths():
            try:
                facts = read_facts(path)
                found.append({"index": path.name, "pictures": facts["count"], "model": facts["model"]})
            except (AlexNetError, OSError) as error:
                found.append({"index": path.name, "error": str(error)})
        return {"indexes": found, "workspace": shlex.quote(str(library.space.root.resolve()))}

    return Json(await _in_thread(request, listed))


async def search(request: Request) -> Response:
    """Predictions and neighbours of the picture that is sent, or of the one in a row."""
    k = _number(request, "k", default=10, least=1, most=MOST)
    async with _query(request) as query:
        shown = await _ask(request, partial(answers.pixels_if_there, query=query), _decoding(request))
        work = partial(answers.search, query=query, shown=shown, k=k)
        return await _answer(request, work, request.app.state.inferences)


async def preview(request: Request) -> Response:
    """A thumbnail of the picture that is sent, for a browser that cannot draw its format."""
    async with _upload(request) as content:
        work = partial(answers.preview, request.app.state.decoders, content)
        jpeg = await _in_thread(request, work, _decoding(request))
    return Response(jpeg, media_type="image/jpeg")


async def layers(request: Request) -> Response:
    """The network's layers, and what is needed to show what they see."""
    return await _answer(request, network.layers)


async def maps(request: Request) -> Response:
    """What a layer shows for the picture that is sent, or for the one in a row; in headers, how its maps lie on it."""
    layer = request.query_params.get("layer", "")
    async with _query(request) as query:
        shown = await _ask(request, partial(answers.pixels, query=query), _decoding(request))
        work = partial(network.maps, shown=shown, layer=layer)
        drawn, told = await _ask(request, work, request.app.state.inferences)
    return Response(drawn, media_type="image/png", headers=told)


async def unit(request: Request) -> Response:
    """What there is to show of a unit of a layer."""
    return await _answer(request, _of_unit(request, network.unit))


async def unit_picture(request: Request, draw: Callable[..., bytes]) -> Response:
    """The kernel of a unit, or the patches that excite it most."""
    return Response(await _ask(request, _of_unit(request, draw)), media_type="image/png")


def _of_unit(request: Request, work: Callable[..., Result]) -> Callable[[Opened], Result]:
    """``work`` for the layer and the unit that the request names."""
    layer = request.query_params.get("layer", "")
    return partial(work, layer=layer, number=_number(request, "unit", least=0))


async def classes(request: Request) -> Response:
    return await _answer(request, answers.classes)


async def embedding(request: Request) -> Response:
    return await _answer(request, answers.embedding)


async def mistakes(request: Request) -> Response:
    return await _answer(request, partial(mistakes_of.mistakes, space=request.app.state.space))


async def pictures(request: Request) -> Response:
    """Pictures of the index: those of a class, `count` after row `after`; or `spread` of them, evenly over all."""
    if "spread" in request.query_params:
        spread = _number(request, "spread", least=1, most=MOST)
        return await _answer(request, partial(answers.spread, count=spread))
    label = request.query_params.get("label", "") or None
    after = _number(request, "after", default=-1, least=-1)
    count = _number(request, "count", default=60, least=1, most=MOST)
    return await _answer(request, partial(answers.pictures, label=label, after=after, count=count))


async def picture(request: Request) -> Response:
    """A thumbnail of the picture in a row; with `full`, the original."""
    digits, is_full = request.path_params["row"], "full" in request.query_params
    if not WHOLE.fullmatch(digits) or digits.startswith("-"):
        raise HTTPException(404)
    row = int(digits)
    headers = {"Cache-Control": KEPT_BY_BROWSER if "generation" in request.query_params else "no-store"}
    if not is_full:
        wanted = {"cache": request.app.state.thumbnails, "row": row}
        jpeg = await _ask(request, partial(answers.cached_thumbnail, **wanted))  # waits for no decoder
        if jpeg is None:
            jpeg = await _ask(request, partial(answers.thumbnail, **wanted), _decoding(request))
        return Response(jpeg, media_type="image/jpeg", headers=headers)
    file, media_type = await _ask(request, partial(answers.original, row=row), _decoding(request))
    disposition = "inline" if media_type.startswith("image/") else "attachment"
    return FileResponse(
        file, media_type=media_type, filename=file.name, content_disposition_type=disposition, headers=headers
    )


async def training_runs(request: Request) -> Response:
    return Json({"runs": await _in_thread(request, partial(runs.all_runs, request.app.state.space))})


async def _answer(
    request: Request, work: Callable[..., dict[str, Any]], limiter: anyio.CapacityLimiter | None = None
) -> Response:
    return Json(await _ask(request, work, limiter))


async def _ask(request: Request, work: Callable[..., Result], limiter: anyio.CapacityLimiter | None = None) -> Result:
    """What ``work`` makes of the index that the request names, in a thread as of `_in_thread`."""
    state, query = request.app.state, request.query_params

    def run() -> Result:
        with state.library.borrow(query.get("index"), query.get("generation")) as opened:
            try:
                return work(opened)
            except BadPicture as error:
                if request.method == "POST":
                    raise
                raise NotThere(f"the picture cannot be shown: {error}") from None  # it is ours

    return await _in_thread(request, run, limiter)


def _decoding(request: Request) -> anyio.CapacityLimiter:
    """Of a request for which a picture is decoded: one that was sent, or one of the index's."""
    limiter: anyio.CapacityLimiter = request.app.state.sent if request.method == "POST" else request.app.state.own
    return limiter


async def _in_thread(
    request: Request, work: Callable[[], Result], limiter: anyio.CapacityLimiter | None = None
) -> Result:
    """What ``work`` returns, in a thread of ``limiter``'s or of READINGS; not done if the client has gone meanwhile."""

    def run() -> Result:
        if anyio.from_thread.run(request.is_disconnected):
            raise HTTPException(400, "the client did not wait for its answer")  # which nobody reads
        return work()

    return await anyio.to_thread.run_sync(run, limiter=limiter or request.app.state.readings)


@asynccontextmanager
async def _query(request: Request) -> "AsyncIterator[bytes | int]":
    """The picture that is sent, or the row of one of the index's."""
    if request.method == "POST":
        async with _upload(request) as content:
            yield content
    else:
        yield _number(request, "row", least=0)


@asynccontextmanager
async def _upload(request: Request) -> "AsyncIterator[bytes]":
    """The picture that is sent, which has its room in memory until it is answered.

    Raises HTTPException as soon as it is over the LIMIT, or takes too long.
    """
    too_large = HTTPException(413, f"a picture may have {LIMIT // 1_000_000} MB", headers={"Connection": "close"})
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > LIMIT:
        if "expect" not in request.headers:  # who asks first reads the answer at once
            await _let_pass(request)
        raise too_large
    async with AsyncExitStack() as room:
        try:
            async with asyncio.timeout(UPLOAD_SECONDS):
                content = await request.app.state.room.take(request.stream(), LIMIT, room)
        except ClientDisconnect:  # nobody is there to read the answer
            raise HTTPException(400, "the picture did not come to its end") from None
        except TimeoutError:
            told = f"the picture did not come within {UPLOAD_SECONDS} seconds, or nothing of it for {PATIENCE}"
            raise HTTPException(408, told, headers={"Connection": "close"}) from None
        if content is None:
            raise too_large
        if not content:
            raise HTTPException(400, "an empty file, no picture: the body of the request must be the bytes of one")
        yield content


async def _let_pass(request: Request) -> None:
    """Read what is being sent, and drop it: many clients read no answer before they have sent all."""
    pieces = request.stream()
    with suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(PATIENCE):
            while await asyncio.wait_for(anext(pieces, None), PAUSE) is not None:
                pass


def _number(request: Request, key: str, *, least: int, most: int = 2**40, default: int | None = None) -> int:
    """A whole number from the query. Raises HTTPException if it is none, or out of range."""
    text = request.query_params.get(key, "")
    if default is not None and key not in request.query_params:
        return default
    if not WHOLE.fullmatch(text):
        raise HTTPException(400, f"{key} must be a whole number")
    number = int(text)
    if not least <= number <= most:
        raise HTTPException(400, f"{key} must be from {least} to {most}")
    return number
