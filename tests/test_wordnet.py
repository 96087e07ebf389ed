"""Words for the classes of ImageNet: the table, the list of ILSVRC-2012, and what people read for a label."""

import lzma
import runpy
from pathlib import Path

import pytest

from alexnet_cli import wordnet
from alexnet_cli.wordnet import class_names, ilsvrc2012

TOOL = Path(__file__).parent.parent / "tools" / "wordnet_names.py"


def test_a_wordnet_id_is_read_as_its_first_word_and_other_labels_as_they_are():
    labels = ["n01440764", "n02102040", "cat", "n99999999", "n0144076", "n00001740", "n15300051"]
    assert class_names(labels) == ["tench", "English springer", "cat", "n99999999", "n0144076", "entity", "9/11"]


def test_classes_of_one_name_stay_apart():
    assert class_names(["n02012849", "n03126707"]) == ["crane (wading bird)", "crane (lifting device)"]
    assert class_names(["n02012849"]) == ["crane"]
    assert class_names(["crane", "n02012849"]) == ["crane", "crane (wading bird)"]
    same = ["n01872401", "n01872772"]  # both are echidnas, and both are monotremes
    assert class_names(same) == ["echidna (n01872401)", "echidna (n01872772)"]


def test_the_words_of_the_source_come_first():
    words = {"n01440764": "tench, Tinca tinca", "a": "same", "b": "same"}
    assert class_names(["n01440764", "a", "b", "c"], words) == ["tench, Tinca tinca", "same (a)", "same (b)", "c"]


def test_the_table_is_not_read_unless_a_label_needs_it(monkeypatch):
    monkeypatch.setattr(wordnet, "_nouns", lambda: pytest.fail("it was read"))
    assert class_names(["cat", "n1", "n014407640"]) == ["cat", "n1", "n014407640"]


def test_the_classes_of_ilsvrc_2012_are_those_that_torchvision_names():
    from torchvision.models import AlexNet_Weights

    ids, categories = ilsvrc2012(), AlexNet_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(ids)) == 1000
    assert ids == sorted(ids)
    names = class_names(ids)
    assert len(set(names)) == 1000
    others = {ours: theirs for ours, theirs in zip(names, categories, strict=True) if ours != theirs}
    assert list(others) == ["crane (wading bird)", "crane (lifting device)", "maillot (tights)", "maillot (swimsuit)"]


def test_the_tool_makes_the_table(tmp_path, monkeypatch):
    """Of lines as WordNet has them: a licence, a synset of two words, and two that begin with the same word."""
    data = tmp_path / "data.noun"
    data.write_text(
        "  1 This software and database is being provided to you\n"
        "00000010 03 n 01 wading_bird 0 000 | a bird\n"
        "00000020 03 n 02 device 0 thing 0 001 ~ 00000040 n 0000 | a tool\n"
        "00000030 05 n 01 crane 0 002 #m 00000020 n 0000 @ 00000010 n 0000 | large | long-necked\n"
        "00000040 06 n 02 crane 1 hoist 0 001 @ 00000020 n 0000 | lifts\n"
    )
    tool = runpy.run_path(str(TOOL))
    monkeypatch.setitem(tool["main"].__globals__, "TABLE", tmp_path / "nouns.txt.xz")
    tool["main"](data)
    assert lzma.decompress((tmp_path / "nouns.txt.xz").read_bytes()).decode().splitlines() == [
        "00000010\twading bird",
        "00000020\tdevice",
        "00000030\tcrane\twading bird",
        "00000040\tcrane\tdevice",
    ]
