"""Decodes pictures for the page in processes of their own, each of which may take so much time and memory, and no more.

The page takes pictures of strangers, and no limit on what a picture says of itself covers all that its decoder may
make of it. A picture that takes too long, or too much, or ends its decoder, is refused; the page goes on. Such a
process reads requests from its standard input and writes replies to its standard output: pixels or a reason, nothing
that could run code here.
"""

import io
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import AlexNetError, BadPicture

PROCESSES = 4  # twice as many as pictures that are sent are looked at at a time: the others are for the page's own
CPU_SECONDS = 10  # for one picture; the largest ordinary ones take two or three
SECONDS = 60  # for one picture, on a machine that is busy with other things
MEMORY = 2**31  # bytes of addresses beside those of the program itself; the largest ordinary pictures take 1 GB

REQUEST, REPLY = struct.Struct(">BIQ"), struct.Struct(">BQ")  # kind, size of the square, bytes that follow
CONTENT, PATH = 0, 1  # kinds of requests
PIXELS, REASON = 0, 1  # kinds of replies
NAME = "alexnet_cli.serving.decoding"
READY = b"\0ready to decode\0"
CPU_EXCEEDED, KILLED = -24, -9  # how a process ends that has used up its time (SIGXCPU), or is ended (SIGKILL)
AT_ONCE = 1.0  # seconds within which a process ends that had no time to look at a picture
ENDED = "its decoder was ended: try again"
TOO_MUCH = "it takes too long or too much memory to decode: convert it first"


class Decoders:
    """PROCESSES that decode, started when they are needed. Its methods may be called from several threads."""

    def __init__(self) -> None:
        self._all = [Decoder() for _ in range(PROCESSES)]
        self._free: queue.LifoQueue[Decoder] = queue.LifoQueue()  # the last one is warm
        for decoder in self._all:
            self._free.put(decoder)

    def load(self, source: Path | bytes, size: int) -> np.ndarray:
        """What `load_picture` returns and raises; BadPicture too if that takes more than a process may take.

        Raises AlexNetError if no process can be started.
        """
        decoder = self._free.get()
        try:
            return decoder.load(source, size)
        finally:
            self._free.put(decoder)

    def start(self) -> None:
        """Start one, so that the first picture does not wait for it."""
        decoder = self._free.get()
        decoder.start()
        self._free.put(decoder)

    def close(self) -> None:
        """End them all at once, whatever they do. Nothing is decoded from now on."""
        for decoder in self._all:
            decoder.close()


class Decoder:
    """One process. One thread at a time may use it."""

    def __init__(self, cpu_seconds: int = CPU_SECONDS, memory: int = MEMORY) -> None:
        """What decoding a picture may take; ``memory`` in bytes of addresses."""
        self._limits = str(cpu_seconds), str(memory)
        self._process: subprocess.Popen[bytes] | None = None
        self._is_ready = False  # it has begun to answer
        self._is_over = threading.Event()  # its last picture took more than SECONDS
        self.is_closed = False  # it answers no more

    def start(self) -> "subprocess.Popen[bytes]":
        """The process, which may still be importing. Raises AlexNetError if the system starts no more processes."""
        if self._process is None or self._process.poll() is not None:
            self.stop()
            self._process = self._started()
        return self._process

    def _started(self) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                [sys.executable, "-P", "-m", NAME, *self._limits],  # -P: not from this folder
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,  # decoders write there what they think of a picture
                env=os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
                start_new_session=True,  # Ctrl-C is for the server
            )
        except OSError as error:  # too many files are open, or no memory is left: not the picture's fault
            raise AlexNetError(f"pictures cannot be decoded: {error.strerror}") from None

    def load(self, source: Path | bytes, size: int) -> np.ndarray:
        """As that of `Decoders`."""
        began = time.monotonic()
        try:
            return self._load(source, size)
        except (OSError, EOFError):
            is_over, code = self._is_over.is_set(), self._stopped()
            if code == KILLED and not is_over and time.monotonic() - began > AT_ONCE:
                raise BadPicture(ENDED) from None
            if is_over or code == CPU_EXCEEDED or time.monotonic() - began > AT_ONCE:
                raise BadPicture(TOO_MUCH) from None
        try:  # it had ended before it was asked
            return self._load(source, size)
        except (OSError, EOFError):
            self.stop()
            raise BadPicture(TOO_MUCH) from None

    def _load(self, source: Path | bytes, size: int) -> np.ndarray:
        """Raises OSError or EOFError if the process ends before it has answered."""
        if self.is_closed:
            raise BadPicture("the server is ending")
        process = self.start()
        watchdog = threading.Timer(SECONDS, self._end, [process])
        self._is_over.clear()
        watchdog.start()
        try:
            if not self._is_ready:
                _await(process)
                self._is_ready = True
            kind, reply = _ask(process, source, size)
        finally:
            watchdog.cancel()
        if kind == REASON:
            raise BadPicture(reply.decode())
        return np.frombuffer(reply, np.uint8).reshape(size, size, 3)

    def _end(self, process: "subprocess.Popen[bytes]") -> None:
        self._is_over.set()
        process.kill()

    def close(self) -> None:
        """End the process, from any thread. Who waits for its answer is told."""
        self.is_closed, process = True, self._process
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End the process, and close what led to it."""
        self._stopped()

    def _stopped(self) -> int | None:
        """`stop`; how the process ended, None if it had not been started."""
        process, self._process, self._is_ready = self._process, None, False
        if process is None:
            return None
        code = process.poll()
        process.kill()
        with suppress(OSError):  # what was not sent before it ended
            process.communicate()
        return process.returncode if code is None else code


def _await(process: "subprocess.Popen[bytes]") -> None:
    """Wait until the process answers; whatever else wrote to its output before that is passed over.

    Raises EOFError if it is ended before that, and AlexNetError if it ends by itself.
    """
    assert process.stdout is not None
    told = b""
    while not told.endswith(READY):
        letter = process.stdout.read(1)
        if not letter and process.wait() > 0:
            raise AlexNetError(f"pictures cannot be decoded: `{sys.executable} -m {NAME}` does not start")
        if not letter:
            raise EOFError
        told = (told + letter)[-len(READY) :]


def _ask(process: "subprocess.Popen[bytes]", source: Path | bytes, size: int) -> tuple[int, bytes]:
    """The kind of the reply, and the reply. Raises OSError or EOFError if the process ends before."""
    assert process.stdin is not None
    assert process.stdout is not None
    kind, content = (CONTENT, source) if isinstance(source, bytes) else (PATH, os.fsencode(os.path.abspath(source)))
    process.stdin.write(REQUEST.pack(kind, size, len(content)) + content)
    process.stdin.flush()
    told, length = REPLY.unpack(_read(process.stdout, REPLY.size))
    if length != size * size * 3 if told == PIXELS else length > io.DEFAULT_BUFFER_SIZE:
        raise EOFError
    return told, _read(process.stdout, length)


def _read(file: IO[bytes], count: int) -> bytes:
    content = file.read(count)
    if len(content) < count:
        raise EOFError
    return content


# The process


def main() -> None:
    """Answer requests until there are no more."""
    cpu_seconds, memory = map(int, sys.argv[1:])
    _limit_memory(memory)
    requests, replies = sys.stdin.buffer, open(os.dup(1), "wb")  # noqa: SIM115 - for as long as the process lives
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for whatever else writes
    replies.write(READY)
    replies.flush()
    with suppress(EOFError, BrokenPipeError):
        reply = b""
        while reply != TOO_MUCH.encode():  # what a picture has left in memory would be missing for the next
            kind, size, length = REQUEST.unpack(_read(requests, REQUEST.size))
            content = _read(requests, length)
            _limit_time(cpu_seconds)
            told, reply = _answer(content if kind == CONTENT else Path(os.fsdecode(content)), size)
            replies.write(REPLY.pack(told, len(reply)) + reply)
            replies.flush()


def _answer(source: Path | bytes, size: int) -> tuple[int, bytes]:
    try:
        return PIXELS, load_picture(source, size).tobytes()
    except BadPicture as error:
        return REASON, str(error).encode("utf-8", "backslashreplace")[: io.DEFAULT_BUFFER_SIZE]
    except MemoryError:
        return REASON, TOO_MUCH.encode()
    except OSError as error:
        return REASON, f"cannot be read ({error.strerror})".encode()


def _limit_memory(memory: int) -> None:
    """Where the system can: Linux counts addresses, of which the program itself has some hundred MB."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        own = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + memory, own + memory))


def _limit_time(seconds: int) -> None:
    """So many ``seconds`` from now on, after which the system ends this process."""
    with suppress(ImportError, ValueError, OSError):
        import resource

        usage = resource.getrusage(resource.RUSAGE_SELF)
        used = int(usage.ru_utime + usage.ru_stime)
        hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
        wanted = used + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    main()
