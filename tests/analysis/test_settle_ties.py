"""Ways to feed a network that clean images cannot tell apart: what is taken, said, or left to the user."""

import pytest
import torch
from torch import Tensor

from crossclass.analysis.feedings import Feeding, known_constants
from crossclass.analysis.input_alternatives import Trial
from crossclass.analysis.input_sentences import Sentences
from crossclass.analysis.settle_inputs import _as_good, _refuse_a_tie, _Where
from crossclass.core.errors import UserError
from crossclass.data import Splits
from crossclass.models import channel_statistics
from pattern_network import NONE, PatternNetwork, pattern_splits
from settling import ATTACK, BYTES, IMAGENET, buffers, loaded, said, settled, two_ranges


@pytest.fixture(scope="module")
def data() -> Splits:
    """Five classes; the network is right on 89 % of the images."""
    return pattern_splits()


def test_two_equally_good_ways_with_other_results_are_for_the_user(data):
    net = two_ranges(PatternNetwork(), lambda x: ((x * 60).round() / 60).detach())
    buffers(net, BYTES)
    with pytest.raises(UserError, match=r"model\.normalise=none or model\.normalise=\{mean: \[0\.5\]"):
        settled(net, data)


def test_two_equally_good_ways_with_the_same_result_are_no_reason_to_refuse(data):
    right = said(PatternNetwork(), data)
    net = two_ranges(PatternNetwork(), lambda x: x)
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken in ("none", "half")


def test_images_in_bytes_that_are_as_good_are_said_and_not_taken(data):
    def inside(x: Tensor) -> Tensor:
        """A network that scales with its inputs, nearly."""
        wide = (x > 1.5).flatten(1).any(dim=1)[:, None, None, None]
        return torch.where(wide, ((x / 255 * 60).round() / 60).detach(), x)

    net = PatternNetwork()
    net.inside = inside
    out = settled(net, data)
    assert out.check.taken == "none"
    (line,) = out.warnings
    assert "images in 0..255" in line
    assert "model.normalise=" in line


def trial(wins: int, losses: int, n: int) -> tuple[Trial, Trial]:
    """Two ways on n images: the first alone is right on so many, the second alone on so many."""
    i = torch.arange(n)
    a, b = (i >= losses) & (i < n - 5), ((i < losses) | (i >= losses + wins)) & (i < n - 5)
    return tuple(Trial(Feeding("none", NONE), i * 0, right, i.float()) for right in (a, b))


@pytest.mark.parametrize(
    ("wins", "losses", "n", "good"),
    [
        (3, 1, 100, True),  # right more often
        (1, 2, 40, True),  # less often, as chance does on few images
        (0, 4, 100, False),  # by four points, which chance does once in sixteen
        (10, 22, 800, True),  # by 1.5 points: more than chance, but less than matters
        (10, 40, 800, False),
    ],
)
def test_a_way_is_as_good_within_chance_or_two_points(wins, losses, n, good):
    a, b = trial(wins, losses, n)
    assert _as_good(a, b) == good


def refuse_a_tie(net: PatternNetwork, data: Splits, ways: list[str]) -> Sentences:
    one = loaded(net, data)
    known = known_constants(3, channel_statistics(data.train.images))
    said, x = Sentences(one, "test"), data.test.images.float() / 255
    feedings = [Feeding(name, known[name]) for name in ways]
    _refuse_a_tie(_Where(one, known), feedings, x, data.test.labels, [ATTACK], 250, said)
    return said


def test_a_tie_with_constants_that_were_chosen_later_is_refused_all_the_same(data):
    """The constants as they are now may be of none of the ways that were found to be as good."""
    net = two_ranges(PatternNetwork(), lambda x: ((x * 60).round() / 60).detach())
    with pytest.raises(UserError, match=r"model\.normalise=none"):
        refuse_a_tie(net, data, ["half"])


def test_neighbours_are_no_tie(data):
    net = two_ranges(PatternNetwork(), lambda x: ((x * 60).round() / 60).detach())
    buffers(net, IMAGENET)
    assert refuse_a_tie(net, data, ["tinyimagenet", "cifar100"]).lines == []


def test_what_few_images_cannot_exclude_is_said_and_not_refused(data):
    few = Splits(data.train, data.val, data.test.take(torch.arange(40)), data.class_names, data.checksum)
    net = two_ranges(PatternNetwork(), lambda x: ((x * 9).round() / 9).detach())
    (line,) = refuse_a_tie(net, few, ["half"]).lines
    assert "images in [-1, 1]" in line
    assert "none is kept" in line
