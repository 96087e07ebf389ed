"""The official ILSVRC-2012 archives: a tar of a tar a class, a flat validation tar, and the devkit that labels it."""

import io
import tarfile
from pathlib import Path
from typing import BinaryIO, cast

from alexnet_cli.data.sources import Entry, File, Listing, with_validation
from alexnet_cli.errors import BadPicture, BadSource

TRAIN, VAL, DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12"


def is_ilsvrc(path: Path) -> bool:
    """Whether a folder holds the official archives."""
    return (path / TRAIN).is_file()


class Ilsvrc:
    """The folder with the archives; a file's offset is that of its bytes in the outer tar, which is never unpacked."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def files(self) -> list[File]:
        return [entry.file for entry in self.listing(None).entries]

    def folders(self) -> list[str]:
        return []

    def read(self, file: File) -> bytes:
        archive = TRAIN if file.name.startswith("train/") else VAL
        try:
            with open(self.path / archive, "rb") as tar:
                tar.seek(file.offset)
                return tar.read(file.size)
        except OSError as error:
            raise BadPicture(f"cannot be read from {archive} ({error.strerror})") from None

    def listing(self, val_fraction: float | None) -> Listing:
        """Classes in the order of their WNIDs, which is not the order of the devkit's own numbers."""
        wnids, words, truth = self._devkit()
        train = self._train()
        classes = sorted(train)
        unknown = set(classes) - set(wnids.values())
        if unknown:
            raise BadSource(f"{TRAIN} has the class {min(unknown)}, which the devkit does not know")
        number = {wnid: label for label, wnid in enumerate(classes)}
        entries = [Entry(split="train", label=number[wnid], file=file) for wnid in classes for file in train[wnid]]
        for file in self._val(len(truth)):
            wnid = wnids[truth[int(Path(file.name).stem.rsplit("_", 1)[1]) - 1]]
            if wnid in number:
                entries.append(Entry(split="val", label=number[wnid], file=file))
        facts: dict[str, object] = {"words": {wnid: words[wnid] for wnid in classes}}
        return Listing(
            layout="ilsvrc-2012", classes=classes, entries=with_validation(entries, val_fraction), facts=facts
        )

    def _train(self) -> dict[str, list[File]]:
        """WNID -> its pictures."""
        found: dict[str, list[File]] = {}
        with _open(self.path / TRAIN) as outer:
            for one in outer:
                if not one.name.endswith(".tar"):
                    continue
                wnid, content = Path(one.name).stem, outer.extractfile(one)
                assert content is not None
                with _open(self.path / TRAIN, cast(BinaryIO, content)) as inner:
                    found[wnid] = [
                        _file(f"train/{wnid}/{Path(member.name).name}", member, one.offset_data)
                        for member in sorted(inner, key=lambda member: member.name)
                        if member.isreg()
                    ]
                if not found[wnid]:
                    raise BadSource(f"class {wnid} has no pictures in {TRAIN}: fetch it again")
        if not found:
            raise BadSource(f"{TRAIN} has no class archives in it: fetch it again")
        return found

    def _val(self, expected: int) -> list[File]:
        if not (self.path / VAL).is_file():
            raise BadSource(f"{self.path} has {TRAIN} but no {VAL}: put it beside")
        with _open(self.path / VAL) as tar:
            files = [_file(f"val/{Path(m.name).name}", m, 0) for m in tar if m.isreg()]
        if len(files) != expected:
            raise BadSource(f"{VAL} has {len(files):,} pictures, the devkit labels {expected:,}: fetch them again")
        return sorted(files, key=lambda file: file.name)

    def _devkit(self) -> tuple[dict[int, str], dict[str, str], list[int]]:
        """The devkit's numbers -> WNID, WNID -> words, and the number of each validation picture in turn."""
        from scipy.io import loadmat

        synsets = loadmat(io.BytesIO(self._from_devkit("meta.mat")), squeeze_me=True)["synsets"]
        wnids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in synsets}
        words = {str(one["WNID"]): str(one["words"]) for one in synsets}
        truth = [int(line) for line in self._from_devkit("ILSVRC2012_validation_ground_truth.txt").split()]
        return wnids, words, truth

    def _from_devkit(self, name: str) -> bytes:
        for folder in (self.path / DEVKIT / "data", self.path / "data", self.path):
            if (folder / name).is_file():
                return (folder / name).read_bytes()
        archive = self.path / f"{DEVKIT}.tar.gz"
        if not archive.is_file():
            raise BadSource(f"{self.path} has no {archive.name}, which says what the validation pictures are: add it")
        with _open(archive) as tar:
            for member in tar:
                if Path(member.name).name == name and (content := tar.extractfile(member)) is not None:
                    return content.read()
        raise BadSource(f"{archive} has no {name}: fetch it again")


def _file(name: str, member: tarfile.TarInfo, base: int) -> File:
    return File(name=name, stamp=f"{member.size}", offset=base + member.offset_data, size=member.size)


def _open(path: Path, content: BinaryIO | None = None) -> tarfile.TarFile:
    try:
        return tarfile.open(path, fileobj=content)
    except (tarfile.TarError, OSError) as error:
        raise BadSource(f"{path} cannot be read ({error}): fetch it again") from None
