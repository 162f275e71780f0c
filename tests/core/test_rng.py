"""Random streams: rows of a batch draw what the whole batch would, and global streams are put back."""

import itertools
import random

import numpy as np
import pytest
import torch

from conftest import seeded
from crossclass.core.rng import generator, isolated_rng, normal, slice_generator, stream_seed, uniform


def test_every_part_of_its_address_makes_another_stream():
    parts = itertools.product((0, 1, 2), (0, 1, 2), (0, 1, 2), ("order", "attack", "measure"), (0, 1, 2))
    seeds = [stream_seed(*part) & 0xFFFFFFFF for part in parts]  # what torch's CPU generator keeps
    assert len(set(seeds)) == len(seeds) == 3**5


class TestSlicedGenerator:
    @pytest.mark.parametrize("draw", [uniform, normal])
    def test_rows_of_what_one_would_draw(self, draw):
        x = torch.zeros(7, 3, 4, 4).contiguous(memory_format=torch.channels_last)
        whole, radii = draw(x, generator(1)), generator(1)
        draw(x, radii)
        later = draw(x[:, 0, 0, 0], radii)  # a second draw from the same stream
        parts, seconds = [], []
        for rows in (slice(0, 2), slice(2, 3), slice(3, 7)):
            g = slice_generator(generator(1), rows, 7)
            parts.append(draw(x[rows], g))
            seconds.append(draw(x[rows][:, 0, 0, 0], g))
        assert torch.equal(torch.cat(parts), whole)
        assert torch.equal(torch.cat(seconds), later)

    def test_all_rows_are_the_generator_itself(self):
        g = generator(1)
        assert slice_generator(g, slice(0, 7), 7) is g


def test_isolated_streams_start_from_the_seed_and_come_back_after_an_exception() -> None:
    torch.manual_seed(3)
    before = torch.random.get_rng_state()  # Python's own is drawn from by the shape checks of these tests
    draws = []
    for seed in (5, 5, 6):
        with pytest.raises(ZeroDivisionError), isolated_rng(seed, torch.device("cpu")):  # noqa: PT012
            draws.append(float(torch.rand(())) + float(np.random.rand()) + random.random())  # noqa: NPY002
            raise ZeroDivisionError
        assert torch.equal(before, torch.random.get_rng_state())
    assert draws[0] == draws[1] != draws[2]
    with isolated_rng(5, torch.device("cpu")):
        assert torch.equal(torch.rand(3), torch.rand(3, generator=seeded(5)))
