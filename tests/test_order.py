"""The order of an epoch in windows, for datasets larger than memory: what it visits, what it reads ahead, resuming."""

import os

import numpy as np
import pytest
import torch
from training_runs import Listener

from alexnet_cli import recipe as recipes
from alexnet_cli.data import order
from alexnet_cli.data.loader import batches
from alexnet_cli.data.order import SHARD, shuffled
from alexnet_cli.distributed import World
from alexnet_cli.errors import Interrupted
from alexnet_cli.training.runs import resume_run, start_run


def drawn(images: int, window: int, seed: int = 0) -> np.ndarray:
    return shuffled(np.random.default_rng(seed), images, window)


@pytest.mark.parametrize(("images", "window"), [(1, 1), (15, 4), (16, 8), (1000, 128), (1003, 100), (1003, 2000)])
def test_every_image_is_visited_once(images, window):
    assert np.array_equal(np.sort(drawn(images, window)), np.arange(images))


def test_without_a_window_or_with_one_that_holds_all_it_is_the_papers_order():
    plain = np.random.default_rng(0).permutation(500)
    assert np.array_equal(drawn(500, 0), plain)
    assert np.array_equal(drawn(500, 500), plain)


def test_a_window_is_read_from_shards_of_neighbours_from_all_over_the_disk():
    images, window = 64_000, 1024
    visited = drawn(images, window)
    for start in range(0, images, window):
        places = np.sort(visited[start : start + window])
        runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
        assert all(len(run) % SHARD == 0 and run[0] % SHARD == 0 for run in runs)
        assert places[-1] - places[0] > images * 0.7
        assert not np.array_equal(places, visited[start : start + window])
    assert np.array_equal(visited, drawn(images, window))
    assert not np.array_equal(visited, drawn(images, window, seed=1))


def test_within_a_window_every_place_is_as_likely():
    """The mean rank of a shard's first image, over many draws, is the middle of its window."""
    ranks = [np.flatnonzero(drawn(SHARD * 4, SHARD * 2, seed) % SHARD == 0) for seed in range(2000)]
    within = np.concatenate(ranks) % (SHARD * 2)
    error = np.arange(SHARD * 2).std() / len(within) ** 0.5
    assert abs(within.mean() - np.arange(SHARD * 2).mean()) < 4 * error


@pytest.mark.parametrize("size", [1, 2])
def test_a_window_is_asked_for_in_the_order_of_the_disk_before_it_is_needed(packed, monkeypatch, size):
    split, window = packed.split("train"), 16
    asked: list[int] = []
    read: list[tuple[int, list[int]]] = []  # how many had been asked for, and what was read then
    advise, read_images, image = os.posix_fadvise, type(split).read, split.size**2 * 3

    def asking(descriptor: int, start: int, length: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        assert (start - 4096) % image == length % image == 0
        asked.extend(range((start - 4096) // image, (start - 4096 + length) // image))
        advise(descriptor, start, length, advice)

    def reading(self, positions):
        read.append((len(asked), positions.tolist()))
        return read_images(self, positions)

    monkeypatch.setattr(os, "posix_fadvise", asking)
    monkeypatch.setattr(type(split), "read", reading)
    visited, world = drawn(len(split), window), World(rank=size - 1, size=size)
    list(batches(split, visited, 8, torch.device("cpu"), world=world, window=window))
    own = [position for _, positions in read for position in positions]
    assert sorted(asked) == sorted(own)
    assert len(set(own)) == len(own)
    step = window // size
    for start in range(0, len(own), step):
        assert asked[start : start + step] == sorted(own[start : start + step])
    done = 0
    for known, positions in read:
        done += len(positions)
        assert known == min(done + step, len(own))


def test_a_run_in_windows_is_resumed_to_the_very_weights(packed, narrow, tmp_path):
    windows = recipes.adjust(narrow, ["training.window=16"])
    whole = start_run(packed, windows, tmp_path / "whole")
    with pytest.raises(Interrupted):
        start_run(packed, windows, tmp_path / "stopped", progress=Listener(stop_at=3))
    assert resume_run(tmp_path / "stopped").fingerprint == whole.fingerprint
    assert start_run(packed, narrow, tmp_path / "plain").fingerprint != whole.fingerprint


def test_a_dataset_larger_than_memory_is_shuffled_in_windows_and_a_run_stays_as_it_began(
    packed, narrow, tmp_path, monkeypatch
):
    needed = packed.split("train").bytes
    assert needed == len(packed.split("train")) * 72 * 72 * 3
    monkeypatch.setattr(order, "total_memory", lambda: int(needed / 0.75) - 1)
    monkeypatch.setattr("alexnet_cli.training.runs.WINDOW", 16)
    listener = Listener(stop_at=3)
    with pytest.raises(Interrupted):
        start_run(packed, narrow, tmp_path / "m", progress=listener)
    told = "its 0 GB of images do not fit in memory: they are shuffled within windows of 16, as they lie on disk; with "
    assert f"{told}--set training.window=42, all together, as in the paper" in listener.notes
    monkeypatch.setattr(order, "total_memory", lambda: 2 * needed)  # another machine, where it fits
    resumed, listener = tmp_path / "m", Listener()
    model = resume_run(resumed, progress=listener)
    assert recipes.load(resumed / "recipe.toml").training.window == 16
    assert model.fingerprint == start_run(packed, model.recipe, tmp_path / "again").fingerprint
    asked_for = recipes.adjust(narrow, ["training.window=42"])
    monkeypatch.setattr(order, "total_memory", lambda: 1)
    assert start_run(packed, asked_for, tmp_path / "plain").recipe.training.window == 42


def test_where_nobody_tells_the_memory_the_order_is_the_papers(packed, monkeypatch):
    monkeypatch.setattr(order, "total_memory", lambda: None)
    assert order.fits_in_memory(packed.split("train"))
