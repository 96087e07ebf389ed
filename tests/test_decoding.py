"""Pictures that are decoded apart: the same answers, whatever a picture does to its decoder."""

import errno
import os
import signal
import subprocess
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, pixels
from PIL import Image
from test_limits import png

from alexnet_cli.data.pictures import load_picture
from alexnet_cli.errors import AlexNetError, BadPicture
from alexnet_cli.serving import decoding
from alexnet_cli.serving.decoding import ENDED, TOO_MUCH, Decoder, Decoders


@pytest.fixture(scope="module")
def decoder():
    decoder = Decoder()
    yield decoder
    decoder.stop()


SMALL = encoded(Image.fromarray(pixels(1, 64, 48)), "JPEG")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF"])
def test_it_answers_as_load_picture_does(decoder, tmp_path, format):
    content = encoded(Image.fromarray(pixels(1, 80, 64)), format)
    (tmp_path / "bl\xfcte").write_bytes(content)
    wanted = load_picture(content, 32)
    assert np.array_equal(decoder.load(content, 32), wanted)
    assert np.array_equal(decoder.load(tmp_path / "bl\xfcte", 32), wanted)


def test_what_cannot_be_decoded_has_the_same_reason(decoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("fifo.jpg")
    Path("a.nef").write_bytes(b"raw")
    for source in (
        b"",
        b"text",
        SMALL[:300],
        Path("fifo.jpg"),
        Path("missing.jpg"),
        Path("a.nef"),
        Path("/proc/self/mem"),
    ):
        with pytest.raises(BadPicture) as wanted:
            load_picture(source, 32)
        with pytest.raises(BadPicture) as found:
            decoder.load(source, 32)
        assert str(found.value) == str(wanted.value)


def large(side: int = 8192) -> bytes:
    """A PNG of black pixels, which takes seconds and memory: 16 bits of RGBA, each from its neighbours (Paeth)."""
    packer = zlib.compressobj(1)
    row = b"\4" + bytes(8 * side)
    packed = b"".join(packer.compress(row * 64) for _ in range(side // 64)) + packer.flush()
    return png(side, side, packed, depth=16, colours=6)


@pytest.mark.parametrize("limits", [{"cpu_seconds": 0}, {"memory": 100_000_000}], ids=["time", "memory"])
def test_a_picture_that_takes_too_much_is_refused_and_the_next_is_decoded(limits):
    decoder = Decoder(**limits)
    try:
        with pytest.raises(BadPicture, match=f"^{TOO_MUCH}$"):
            decoder.load(large(), 32)
        assert np.array_equal(decoder.load(SMALL, 32), load_picture(SMALL, 32))
    finally:
        decoder.stop()


def test_a_picture_that_never_ends_is_left(decoder, monkeypatch):
    monkeypatch.setattr(decoding, "SECONDS", 0.2)
    process = decoder.start()
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(BadPicture, match=f"^{TOO_MUCH}$"):
        decoder.load(SMALL, 32)
    monkeypatch.undo()
    assert np.array_equal(decoder.load(SMALL, 32), load_picture(SMALL, 32))


def test_a_decoder_that_has_ended_is_started_again(decoder):
    process = decoder.start()
    process.kill()
    process.wait()
    assert np.array_equal(decoder.load(SMALL, 32), load_picture(SMALL, 32))


def test_what_lies_in_the_current_folder_is_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("PIL", "numpy", "alexnet_cli"):
        Path(f"{name}.py").write_text("raise SystemExit")
    decoder = Decoder()
    try:
        assert decoder.load(SMALL, 32).shape == (32, 32, 3)
    finally:
        decoder.stop()


def test_many_threads_share_the_decoders():
    decoders, wanted = Decoders(), load_picture(SMALL, 32)
    decoders.start()
    try:
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda _: decoders.load(SMALL, 32), range(40)))
        assert all(np.array_equal(one, wanted) for one in found)
    finally:
        decoders.close()
    assert threading.active_count() < 30
    with pytest.raises(BadPicture, match=r"^the server is ending$"):
        decoders.load(SMALL, 32)


def test_closing_waits_for_no_picture():
    decoders, content = Decoders(), large()
    decoders.start()
    with ThreadPoolExecutor(2) as pool:
        try:
            slow = [pool.submit(decoders.load, content, 32) for _ in range(2)]
            while not any(decoder._is_ready for decoder in decoders._all):
                pass
        finally:
            decoders.close()
        for one in slow:
            with pytest.raises(BadPicture):
                one.result(timeout=60)
    assert all(decoder._process is None or decoder._process.poll() is not None for decoder in decoders._all)


def test_an_idle_decoder_that_was_killed_costs_no_good_picture():
    decoder = Decoder()
    try:
        for _ in range(20):
            decoder.load(SMALL, 32)
            os.kill(decoder.start().pid, signal.SIGKILL)  # the system may not know it yet
            assert decoder.load(SMALL, 32).shape == (32, 32, 3)
    finally:
        decoder.stop()


@pytest.mark.parametrize("at_start", ["print('hello' * 1000)", "raise SystemExit(3)"])
def test_whatever_python_does_at_its_start(at_start, tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(at_start)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    decoder = Decoder()
    try:
        if "print" in at_start:
            assert decoder.load(SMALL, 32).shape == (32, 32, 3)
        else:
            with pytest.raises(AlexNetError, match=r"^pictures cannot be decoded: `.* does not start$"):
                decoder.load(SMALL, 32)
    finally:
        decoder.stop()


def test_a_decoder_that_is_ended_from_outside_is_no_fault_of_the_picture(monkeypatch):
    decoder, ask = Decoder(), decoding._ask

    def end(process, source, size):
        process.kill()
        return ask(process, source, size)

    monkeypatch.setattr(decoding, "AT_ONCE", 0)
    monkeypatch.setattr(decoding, "_ask", end)
    try:
        with pytest.raises(BadPicture, match=f"^{ENDED}$"):
            decoder.load(SMALL, 32)
    finally:
        decoder.stop()


def test_no_more_open_files_are_no_fault_of_the_picture(monkeypatch):
    def refused(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    decoder = Decoder()
    try:
        with monkeypatch.context() as within:
            within.setattr(subprocess, "Popen", refused)
            with pytest.raises(AlexNetError, match=r"^pictures cannot be decoded: Too many open files$") as told:
                decoder.load(SMALL, 32)
        assert not isinstance(told.value, BadPicture)
        assert decoder.load(SMALL, 32).shape == (32, 32, 3)
    finally:
        decoder.stop()
