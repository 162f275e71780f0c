"""What nobody says about a network's inputs is tried: the right way is taken, with the right numbers.

The network measures how much of a pattern is in an image, and knows how much each class has; so every
constant matters to it. Wrapped as strangers wrap theirs, it must say what it says without the wrapping.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conftest import seeded
from crossclass.analysis.input_alternatives import (
    apart,
    clean_sample,
    explaining_renumbering,
    feedings,
    known_constants,
)
from crossclass.analysis.label_warnings import label_warnings
from crossclass.analysis.settle_inputs import SHARE, Settled, forward_passes, settle
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.load import Identity, LoadedCheckpoint
from crossclass.core.errors import UserError
from crossclass.data import Split, Splits
from crossclass.models import Classifier, channel_statistics, statistics
from crossclass.models.reordered import Reordered, renumber_head

IMAGENET = statistics()["imagenet"]
BYTES = ((0.0,), (1 / 255,))
NONE = ((0.0,), (1.0,))
PATTERN = 0.02 + 0.1 * torch.randn(3, 6, 6, generator=seeded(3))
LEVELS = torch.arange(5) - 2.0
ATTACK = PGD(threat=Linf(eps=0.05), steps=20)


class Measuring(Classifier):
    """The class whose level is nearest to the pattern's share in the image; it undoes `trained` first."""

    def __init__(self, trained: tuple[tuple[float, ...], tuple[float, ...]] = NONE) -> None:
        super().__init__(*trained)
        self.trained = [torch.tensor(v).view(1, -1, 1, 1) for v in trained]
        self.head = nn.Linear(1, 5)
        self.before: Callable[[Tensor], Tensor] = lambda x: x
        self.inside: Callable[[Tensor], Tensor] = lambda x: x
        with torch.no_grad():
            self.head.weight.copy_(2 * LEVELS[:, None])
            self.head.bias.copy_(-LEVELS.square())

    def features(self, x: Tensor) -> Tensor:
        x = self.inside(self.normalise(self.before(x))) * self.trained[1] + self.trained[0] - 0.5
        return (x * PATTERN).flatten(1).sum(dim=1, keepdim=True) / (0.1 * PATTERN.square().sum())


@pytest.fixture(scope="module")
def data() -> Splits:
    """Five classes; the network is right on 89 % of the images."""
    y = torch.arange(1200) % 5
    noise = torch.randn(1200, 3, 6, 6, generator=seeded(4)) * 0.033
    x = 0.5 + 0.1 * LEVELS[y][:, None, None, None] * PATTERN + noise
    images = (255 * x.clamp(0, 1)).round().to(torch.uint8)
    train, test = Split(images[:400], y[:400]), Split(images[400:], y[400:])
    return Splits(train, Split(images[:0], y[:0]), test, tuple("abcde"), "0" * 16)


def buffers(net: Classifier, constants: tuple[tuple[float, ...], tuple[float, ...]]) -> None:
    net.mean, net.std = (torch.tensor(v).view(1, -1, 1, 1) for v in constants)


def loaded(net: Classifier, data: Splits, by: str = "guess", other_data: bool = True) -> LoadedCheckpoint:
    about = Identity(checkpoint="theirs", data="npz", model="small", normalise={}, source="t.pt", sha256="0")
    return LoadedCheckpoint(net, data, about, (Linf(),), None, by, other_data, "imagenet")


def settled(net: Classifier, data: Splits, by: str = "guess") -> Settled:
    return settle(loaded(net, data, by), "test", [ATTACK], len(data.test))


def said(net: Classifier, data: Splits) -> Tensor:
    with torch.no_grad():
        return net(data.test.images.float() / 255).argmax(dim=1)


def normalises_itself() -> Measuring:
    net = Measuring(IMAGENET)
    mean, std = net.trained
    net.inside = lambda x: (x - mean) / std
    buffers(net, NONE)
    return net


CASES: dict[str, tuple[Callable[[], Measuring], str]] = {
    "normalises itself": (normalises_itself, "none"),
    "never normalised": (Measuring, "none"),
    "wants 0..255": (lambda: Measuring(BYTES), "bytes"),
    "wants [-1, 1]": (lambda: Measuring(((0.5,), (0.5,))), "half"),
}
"""How it is made, and what is to be taken; the guess is ImageNet's constants."""


@pytest.mark.parametrize("what", CASES)
def test_another_normalisation_than_the_guess_is_taken_and_named(data, what):
    make, taken = CASES[what]
    net = make()
    right = said(net, data)
    buffers(net, IMAGENET)
    guess = float((said(net, data) == data.test.labels).double().mean())
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken == taken
    assert out.check.as_loaded == "imagenet"
    assert float((right == data.test.labels).double().mean()) > guess + 0.1, "the case is a case"
    (line,) = out.warnings
    assert "imagenet" in line
    std = {"none": 1.0, "bytes": 0.0039, "half": 0.5}[taken]
    assert out.loaded.about.normalise["std"] == [std]


def test_a_right_guess_is_kept_in_silence(data):
    net = Measuring(IMAGENET)
    right = said(net, data)
    out = settled(net, data)
    assert out.warnings == ()
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken == out.check.as_loaded == "imagenet"
    assert {"none", "half", "bytes"} <= set(out.check.accuracies)
    assert "none" in out.loaded.about.loaded[-1]


@pytest.mark.parametrize("by", ["user", "file", "network"])
def test_what_is_said_is_obeyed_and_a_better_way_named(data, by):
    net = Measuring()
    buffers(net, IMAGENET)
    wrong = said(net, data)
    out = settled(net, data, by)
    assert torch.equal(said(out.loaded.model, data), wrong)
    (line,) = out.warnings
    assert "model.normalise=none" in line


@pytest.mark.parametrize(
    ("name", "order"),
    [("blue, green, red", lambda x: x.flip(1)), ("transposed", lambda x: x.transpose(2, 3).contiguous())],
)
def test_another_order_of_channels_or_sides_is_taken_and_said(data, name, order):
    net = Measuring(IMAGENET)
    right = said(net, data)
    net.before = order
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    (line,) = out.warnings
    assert ("blue" in line) == (name != "transposed")
    assert out.check.taken == f"imagenet, {name}"


def test_a_wrong_normalisation_and_a_wrong_order_are_both_put_right(data):
    net = Measuring()
    right = said(net, data)
    net.before = lambda x: x.flip(1)
    buffers(net, IMAGENET)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert len(out.warnings) == 2


@pytest.mark.parametrize("by", ["guess", "user"])
def test_permuted_classes_are_put_into_the_order_of_the_data(data, by):
    net = Measuring(IMAGENET)
    right = said(net, data)
    renumber_head(net, (2, 0, 1, 4, 3))
    assert torch.equal(said(net, data), torch.tensor([2, 0, 1, 4, 3])[right])
    out = settled(net, data, by)
    assert torch.equal(said(out.loaded.model, data), right)
    assert sorted(out.check.class_of_output) == [0, 1, 2, 3, 4]
    (line,) = out.warnings
    assert "output" in line


def test_permuted_classes_and_a_wrong_normalisation(data):
    net = Measuring()
    right = said(net, data)
    renumber_head(net, (1, 2, 0, 4, 3))
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert len(out.warnings) == 2


def two_ranges(net: Measuring, in_half: Callable[[Tensor], Tensor]) -> Measuring:
    """Takes [0, 1] and, told by a negative pixel, [-1, 1], where it does something of its own."""

    def inside(x: Tensor) -> Tensor:
        negative = (x < 0).flatten(1).any(dim=1)[:, None, None, None]
        return torch.where(negative, in_half((x + 1) / 2), x)

    net.inside = inside
    return net


def test_two_equally_good_ways_with_other_results_are_for_the_user(data):
    net = two_ranges(Measuring(), lambda x: ((x * 60).round() / 60).detach())
    buffers(net, BYTES)
    with pytest.raises(UserError, match=r"model\.normalise=none or model\.normalise=\{mean: \[0\.5\]"):
        settled(net, data)


def test_two_equally_good_ways_with_the_same_result_are_no_reason_to_refuse(data):
    right = said(Measuring(), data)
    net = two_ranges(Measuring(), lambda x: x)
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken in ("none", "half")


def test_a_network_that_guesses_is_left_as_it_is(data):
    net = Measuring(IMAGENET)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([1.0, 0, 0, 0, 0]))
    out = settled(net, data)
    assert out.warnings == ()
    assert out.check.taken == "imagenet"


def test_a_run_on_its_own_data_costs_nothing(data, monkeypatch):
    net = Measuring()
    monkeypatch.setattr(Measuring, "forward", lambda *_: pytest.fail("a forward pass"))
    own = loaded(net, data, "run", other_data=False)
    assert settle(own, "test", [ATTACK], 100) == Settled(own)


KNOWN = {"none": NONE, "imagenet": IMAGENET, "bytes": BYTES}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_sound_network_costs_less_than_two_per_cent_of_its_attack(data, kind):
    net, n = Measuring(KNOWN[kind]), 2000
    about = loaded(net, data, "user")
    out = settle(about, "test", [ATTACK], n)
    assert out.warnings == ()
    assert out.check.forward_passes < SHARE * forward_passes([ATTACK], n)


def test_images_are_drawn_over_all_classes_of_a_sorted_split():
    labels = torch.arange(10).repeat_interleave(50)
    split = Split(labels.to(torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2), labels)
    x, y = clean_sample(split, 40, 0)
    assert torch.bincount(y, minlength=10).tolist() == [4] * 10
    assert torch.bincount(y[:10], minlength=10).tolist() == [1] * 10
    assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)
    assert not torch.equal(clean_sample(split, 40, 1)[1], y)


def test_neighbours_are_one_way():
    known = known_constants(3, channel_statistics(torch.full((1, 3, 1, 2), 128, dtype=torch.uint8)))
    cifar10 = known["cifar10"]
    for name in ("cifar100", "tinyimagenet", "imagenet", "cifar10, std of image means"):
        assert apart(known[name], cifar10) < 0.15
    for name in ("none", "half", "bytes"):
        assert apart(known[name], cifar10) > 0.15
    from crossclass.analysis.input_alternatives import Feeding

    names = [f.name for f in feedings(Feeding("none", known["none"]), known, 3, (4, 4), "imagenet")]
    assert names[0] == "imagenet"
    assert not {"cifar10", "cifar100"} & set(names)
    flat = [f.name for f in feedings(Feeding("none", known["none"]), known, 3, (4, 8))]
    assert "transposed" not in flat


def test_an_attack_on_reordered_images_is_the_attack_on_the_images(data):
    x, y = data.test.images[:20].float() / 255, data.test.labels[:20]
    net = Measuring(IMAGENET)
    step = FGSM(threat=Linf(eps=0.05))
    for reversed_channels, transposed in ((True, False), (False, True), (True, True)):
        outer = Reordered(net, reversed_channels=reversed_channels, transposed=transposed).eval()
        there = step(net, outer.arranged(x), y)
        assert torch.equal(outer.arranged(step(outer, x, y)), there)
        g, logits = outer.outputs(x)
        assert torch.equal(outer.head(g), logits)
        assert torch.equal(logits, net(outer.arranged(x)))


def test_labels_that_make_numbers_meaningless_are_named():
    y = torch.arange(300) % 3
    assert label_warnings(y, y, ("a", "b", "c")) == []
    (line,) = label_warnings((y + 1) % 3, y, ("a", "b", "c"))
    assert "0.0%" in line
    assert "100.0%" in line
    assert "output 1 is a" in line
    (line,) = label_warnings(torch.zeros(300, dtype=torch.int64), y, ("a", "b", "c"))
    assert "33.3% of 300" in line
    (line,) = label_warnings(torch.where(y == 2, 1, y), y, ("a", "b", "c"))
    assert "no image is given these classes, although there are images of them: c" in line
    swapped = torch.where(y == 2, 2, 1 - y)
    assert "output 2" not in label_warnings(swapped, y, ("a", "b", "c"))[0]


def test_confusing_two_classes_is_no_renumbering():
    y = torch.arange(400) % 4
    said = torch.where((y == 1) & (torch.arange(400) % 8 < 4), 2, y)  # half of the ones are called twos
    assert explaining_renumbering(said, y) is None
