"""Archives that are damaged, cut short or hostile are refused in one line, and no picture goes missing silently."""

import io
import os
import random
import signal
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from onnx_files import write_onnx
from pictures import cifar, devkit, encoded, files, pixels, tar_bytes, write_folder, write_ilsvrc, write_tar, write_zip
from test_sources import listed

from alexnet_cli.commands import main
from alexnet_cli.data import sources
from alexnet_cli.data.layouts.listing import Entry, Listing
from alexnet_cli.data.locations import read_location
from alexnet_cli.data.pictures import load_picture
from alexnet_cli.data.sources import Source, open_source
from alexnet_cli.errors import AlexNetError, BadPicture, BadSource
from alexnet_cli.files import is_temporary, sweep

BLOCK = tarfile.BLOCKSIZE
OTHER = tar_bytes({"1.png": encoded(pixels(7)), "2.png": encoded(pixels(8))})


def names(listing: Listing) -> set[str]:
    return {entry.name for entry in listing.entries}


def attempt(path: Path, fraction: float | None = None) -> tuple[Source, Listing] | str:
    """The source at ``path`` and its listing; the message if it is refused, which must be one line."""
    try:
        source = open_source(path)
        return source, listed(source, fraction)
    except AlexNetError as error:
        message = str(error)
    assert "\n" not in message
    return message


def headers(tar: bytes) -> list[int]:
    """Positions of the headers of a tar, and of its end."""
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        return [*(member.offset for member in archive), archive.offset]


def one_level(tar: bytes) -> bytes:
    return tar


def two_levels(tar: bytes) -> bytes:
    """A tar in a tar, with a whole one before and after it, as in ImageNet's training tar."""
    return tar_bytes({"a.tar": OTHER, "b.tar": tar, "c.tar": OTHER})


@pytest.mark.parametrize("wrap", [one_level, two_levels])
def test_a_tar_that_is_cut_anywhere_is_refused(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    tar = tar_bytes(files(("cats", "dogs"), 3))
    end = headers(tar)[-1]
    path = tmp_path / "s.tar"
    path.write_bytes(wrap(tar))
    whole = names(listed(path))
    cuts = {*range(1, end + BLOCK, 37), *headers(tar), *(at - 1 for at in headers(tar)), end + BLOCK - 1} - {0, -1}
    for cut in sorted(cuts):
        path.write_bytes(wrap(tar[:cut]))
        with pytest.raises(BadSource, match=r"s\.tar (is damaged or cut short at byte [\d,]+: download or|is neither)"):
            listed(path)
    path.write_bytes(wrap(tar[: end + BLOCK]))  # one block of zeros is an end
    assert names(listed(path)) == whole


@pytest.mark.parametrize("wrap", [one_level, two_levels])
def test_a_flipped_bit_in_a_tars_header_is_refused(wrap: Callable[[bytes], bytes], tmp_path: Path) -> None:
    tar = tar_bytes(files(("cats", "dogs"), 3))
    path = tmp_path / "s.tar"
    path.write_bytes(wrap(tar))
    whole, refused = names(listed(path)), 0
    for header in headers(tar):
        for byte in range(header, header + BLOCK, 11):
            damaged = bytearray(tar)
            damaged[byte] ^= 1 << byte % 8
            path.write_bytes(wrap(bytes(damaged)))
            found = attempt(path)
            if isinstance(found, str):
                assert "damaged" in found
                refused += 1
            else:  # the bit is between the fields of the checksum
                assert names(found[1]) == whole
    assert refused > 0.98 * len(headers(tar)) * BLOCK / 11


def test_the_official_tars_name_the_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    source = write_ilsvrc(Path("imagenet"))
    path = source / "ILSVRC2012_img_val.tar"
    whole = path.read_bytes()
    third = headers(whole)[2]
    path.write_bytes(whole[: third + 4] + bytes([whole[third + 4] ^ 1]) + whole[third + 5 :])
    assert main(["prep", "imagenet", "--size", "16"]) == 1
    message = f"error: {path} is damaged or cut short at byte {third:,}: download or create it again\n"
    assert capsys.readouterr().err == message
    path.write_bytes(whole)
    path = source / "ILSVRC2012_img_train.tar"
    whole = path.read_bytes()
    start = headers(whole)[1] + BLOCK  # of the second inner tar
    second = start + headers(whole[start : headers(whole)[2]])[1]
    path.write_bytes(whole[: second + 4] + bytes([whole[second + 4] ^ 1]) + whole[second + 5 :])
    assert main(["prep", "imagenet", "--size", "16"]) == 1
    message = f"error: {path} is damaged or cut short at byte {second:,}: download or create it again\n"
    assert capsys.readouterr().err == message


@pytest.mark.parametrize("mode", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_tar_must_end_as_a_tar_ends(mode: str, tmp_path: Path) -> None:
    tar = tar_bytes(files())
    for end in (headers(tar)[3], headers(tar)[3] + 100, headers(tar)[-1]):
        path = tmp_path / "s.tar"
        opener = {"w:gz": "gzip", "w:bz2": "bz2", "w:xz": "lzma"}[mode]
        path.write_bytes(__import__(opener).compress(tar[:end]))
        with pytest.raises(BadSource, match=r"s\.tar, decompressed, is damaged or cut short at byte [\d,]+: download"):
            listed(path)


def test_a_devkit_must_end_as_a_tar_ends(tmp_path: Path) -> None:
    import gzip

    source = write_ilsvrc(tmp_path / "imagenet")
    tar = tar_bytes(devkit())
    for cut in headers(tar)[1:]:
        (source / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(tar[:cut]))
        with pytest.raises(BadSource, match=r"devkit_t12\.tar\.gz, decompressed, is damaged or cut short at byte"):
            listed(source)


def test_bytes_after_the_end_of_a_tar_are_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", files())
    path.write_bytes(path.read_bytes() + tar_bytes(files(("cows",))))
    with pytest.raises(BadSource, match="damaged or cut short at byte"):
        listed(path)


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = write_zip(tmp_path / "inner.zip", files(("cows",), 2)).read_bytes()
    assert listed(write_tar(tmp_path / "s.tar", files() | {"more.zip": inner})).classes == ["cats", "dogs"]


def raw_header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A tar header with any bytes as its size."""
    block = bytearray(tarfile.TarInfo(name).tobuf(tarfile.USTAR_FORMAT))
    block[124:136], block[156:157], block[148:156] = size, kind, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


PAX = b"20 size=-0000000512\n"


@pytest.mark.parametrize(
    "head",
    [
        raw_header("cats/1.png", b"\xff" * 10 + b"\xfe\x00"),  # -512
        raw_header("long", b"\x80" + (2**60).to_bytes(11, "big"), b"L"),
        raw_header("long", b"\xff" * 12, b"L"),
        raw_header("x", b"%011o\0" % len(PAX), b"x") + PAX.ljust(BLOCK, b"\0") + raw_header("cats/2.png", b"0" * 12),
        raw_header("cats/1.png", b"\x80" + (2**70).to_bytes(11, "big")),
        raw_header("a", b"%011o\0" % 1, b"x") * 3000,
    ],
    ids=["negative", "huge name", "negative name", "negative by pax", "huge", "nested facts"],
)
def test_sizes_that_no_tar_has(head: bytes, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", files())
    path.write_bytes(path.read_bytes()[: BLOCK * 2] + head + path.read_bytes()[BLOCK * 2 :])
    with pytest.raises(BadSource, match="damaged or cut short at byte"):
        listed(path)


def test_members_that_are_no_files_are_listed_as_bad_pictures(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", files())
    with tarfile.open(path, "a") as archive:
        for name, kind in (("cats/link.png", tarfile.SYMTYPE), ("cats/fifo.png", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "1.png"
            archive.addfile(member)
    listing = listed(path, 0.0)
    assert len(listing.entries) == 12
    for entry in listing.entries:
        if entry.name in ("cats/link.png", "cats/fifo.png"):
            with pytest.raises(BadPicture, match=r"^a link or a device in a tar, not a picture$"):
                read_location(entry.location)


# Zips


def test_a_zip_whose_members_overlap_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("cats/0.png", encoded(pixels(0)) + bytes(10_000))
        first = archive.filelist[0]
        for i in range(1, 9):
            again = zipfile.ZipInfo(f"cats/{i}.png")
            again.header_offset, again.CRC = first.header_offset, first.CRC
            again.compress_size, again.file_size = first.compress_size, first.file_size
            archive.filelist.append(again)
        archive._didModify = True
    with pytest.raises(BadSource, match=r"^the members of .*s\.zip overlap, so it may be a bomb: refused$"):
        listed(path)


def test_a_member_that_expands_without_bound_is_refused(tmp_path: Path) -> None:
    listing = listed(write_zip(tmp_path / "s.zip", files(("cats",), 1) | {"cats/bomb.png": bytes(2**26 + 1)}), 0.0)
    bomb = next(entry.location for entry in listing.entries if "bomb" in entry.name)
    with pytest.raises(BadPicture, match=r"^expands more than 200-fold: it may be a bomb$"):
        read_location(bomb)


def test_a_zip_with_a_damaged_directory_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "s.zip", files())
    whole = path.read_bytes()
    start = whole.index(b"PK\x01\x02")
    for old, new in ((b"cats/1.png", b".ats/1.png"), (b"cats/1.png", b"cats/3.png"), (b"cats/1.png", b"cats/1.pn/")):
        path.write_bytes(whole[:start] + whole[start:].replace(old, new))
        with pytest.raises(BadSource, match=r"s\.zip is damaged or cut short \(.*\): download or create it again"):
            listed(path)
    count = len(whole) - 22 + 10
    path.write_bytes(whole[:count] + struct.pack("<H", 9) + whole[count + 2 :])
    with pytest.raises(BadSource, match=r"damaged or cut short \(it has 10 members, not 9\)"):
        listed(path)
    path.write_bytes(whole[:start] + whole[start:].replace(b"cats/1.png", b"bats/1.png"))
    renamed = next(entry.location for entry in listed(path).entries if entry.name == "bats/1.png")
    with pytest.raises(BadPicture, match="it has two names"):
        read_location(renamed)


def test_a_zip_behind_a_program_with_a_comment_or_with_bytes_after_it_is_read(tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "s.zip", files()).read_bytes()
    commented = whole[:-2] + struct.pack("<H", 5) + b"hello"
    for content in (b"#!/bin/sh\n" * 100 + whole, commented, whole + b"\n", b"x" * 70_000 + commented):
        (tmp_path / "s.zip").write_bytes(content)
        listing = listed(tmp_path / "s.zip")
        assert [read_location(entry.location) for entry in listing.entries] == [
            files()[n.name] for n in listing.entries
        ]


# Limits of compressed tars


def test_a_compressed_tar_that_expands_without_bound_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "TAR_BYTES", 2**20)
    path = write_tar(tmp_path / "s.tgz", files() | {"zeros": bytes(2**23)}, "w:gz")
    assert 200 * path.stat().st_size < 2**23
    assert main(["prep", "s.tgz", "--size", "16"]) == 1
    limit = max(2**20, 200 * path.stat().st_size)
    message = f"error: s.tgz expands to more than {limit / 1e9:,.1f} GB: refused, it may be a bomb\n"
    assert capsys.readouterr().err == message
    assert not any(Path("data").glob("*"))


def test_a_compressed_tar_for_which_the_disk_has_no_room_is_refused(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    write_tar(tmp_path / "s.tgz", files() | {"zeros": bytes(2**23)}, "w:gz")
    usage = sources.shutil.disk_usage(".")
    monkeypatch.setattr(sources.shutil, "disk_usage", lambda _: usage._replace(free=2_000_000))
    assert main(["prep", "s.tgz", "--size", "16"]) == 1
    assert capsys.readouterr().err == (
        "error: s.tgz takes more than the 2 MB that are free in data/s when it is decompressed: free some space\n"
    )
    assert not any(Path("data").glob("*"))


# Temporary files


def test_a_killed_process_leaves_its_temporary_file_where_the_next_run_sweeps_it(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tgz", files(), "w:gz")
    system = tmp_path / "tmp"
    system.mkdir()
    script = (
        "import os, signal; from pathlib import Path; from alexnet_cli.retrieval.collection import open_collection\n"
        "pictures = open_collection(Path('s.tgz'), scratch=Path('index'))\n"
        "pictures.all(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=os.environ | {"TMPDIR": str(system)})
    assert done.returncode == -signal.SIGKILL
    assert not list(system.iterdir())
    assert sum(map(is_temporary, (tmp_path / "index").iterdir())) == 1
    sweep(tmp_path / "index")
    assert not list((tmp_path / "index").iterdir())


def test_an_index_decompresses_beside_itself_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources.tempfile, "tempdir", str(tmp_path / "nowhere"))
    write_onnx(Path("m.onnx"))
    write_tar(Path("s.tgz"), files(), "w:gz")
    assert main(["index", "s.tgz", "--model", "m.onnx"]) == 0
    assert sorted(os.listdir("indexes/s")) == ["images.sqlite", "index.faiss", "index.json"]


# Hostile bytes


def mutated(whole: bytes, seed: int) -> bytes:
    """One bit flipped, some bytes cut from the end, or a few bytes replaced."""
    rng = random.Random(seed)
    at = rng.randrange(len(whole))
    if seed % 3 == 0:
        return whole[:at]
    damaged = bytearray(whole)
    if seed % 3 == 1:
        damaged[at] ^= 1 << rng.randrange(8)
    else:
        damaged[at : at + 4] = rng.randbytes(len(damaged[at : at + 4]))
    return bytes(damaged)


def content_of(entry: Entry) -> bytes | str:
    """What is read of a picture; why nothing is."""
    try:
        return read_location(entry.location)
    except BadPicture as error:
        return str(error)


def usable(content: bytes | str) -> bytes | str:
    """The pixels of a picture; why there are none."""
    try:
        return content if isinstance(content, str) else load_picture(content, 8).tobytes()
    except BadPicture as error:
        return str(error)


@pytest.mark.parametrize("kind", ["zip", "stored zip", "tar", "tar.gz", "tar.xz"])
def test_damaged_archives_of_pictures(kind: str, tmp_path: Path) -> None:
    content = files(("cats", "dogs"), 3)
    path = tmp_path / f"s.{kind}"
    if "zip" in kind:
        write_zip(path, content, zipfile.ZIP_STORED if "stored" in kind else zipfile.ZIP_DEFLATED)
    else:
        write_tar(path, content, {"tar": "w", "tar.gz": "w:gz", "tar.xz": "w:xz"}[kind])
    whole, listed_whole = path.read_bytes(), 0
    for seed in range(250):
        path.write_bytes(mutated(whole, seed))
        found = attempt(path, 0.0)
        if isinstance(found, str):
            continue
        source, listing = found
        listed_whole += 1
        loose = sum("picture is in no class folder" in note for note in listing.notes)  # a slash of its name is damaged
        assert len(listing.entries) + len(listing.rejected) + loose == len(content), seed
        for entry in listing.entries:
            read = content_of(entry)
            if kind == "tar":  # it has no checksum of what is in it
                assert isinstance(usable(read), bytes | str)
            else:
                assert isinstance(read, str) or read == content[entry.name], seed
        source.close()
    assert listed_whole or kind == "tar.xz"


def test_damaged_archives_of_cifar(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "cifar.tar", cifar())
    whole = path.read_bytes()
    position = 0
    for seed in range(250):
        random.seed(seed)
        damaged = bytearray(mutated(whole, 3 * seed + 1 + seed % 2))
        if seed % 4:  # most of the file are pixels: aim at the pickles around them
            position = whole.find(b"data", random.randrange(len(whole) - 20_000))
            damaged = bytearray(whole)
            damaged[position + random.randrange(-80, 80)] ^= 1 << random.randrange(8)
        path.write_bytes(damaged)
        found = attempt(path)
        assert isinstance(found, str) or len(found[1].entries) == 12


def test_damaged_devkits(tmp_path: Path) -> None:
    source = write_ilsvrc(tmp_path / "imagenet")
    kit = source / "ILSVRC2012_devkit_t12.tar.gz"
    packed = kit.read_bytes()
    kit.unlink()
    unpacked = write_folder(source, devkit())
    meta = next(unpacked.rglob("meta.mat"))
    whole = meta.read_bytes()
    for seed in range(200):
        meta.write_bytes(mutated(whole, seed))
        found = attempt(source)
        assert isinstance(found, str) or len(found[1].entries) == 15
    meta.unlink()
    for seed in range(200):
        kit.write_bytes(mutated(packed, seed))
        found = attempt(source)
        assert isinstance(found, str) or len(found[1].entries) == 15
