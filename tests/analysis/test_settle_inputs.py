"""What nobody says about a network's inputs is tried: the right way is taken, with the right numbers.

A network of which every constant matters is wrapped as strangers wrap theirs: it must say then what it says
without the wrapping.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import seeded
from crossclass.analysis.accuracy_tests import beats
from crossclass.analysis.feedings import Feeding, apart, feedings, known_constants
from crossclass.analysis.input_alternatives import InputTrial, Trial, clean_sample
from crossclass.analysis.input_sentences import of_no_data_set
from crossclass.analysis.label_warnings import label_warnings
from crossclass.analysis.renumbering import (
    best_renumbering,
    explaining_renumbering,
    orders_of_names,
    renumbered,
)
from crossclass.analysis.settle_inputs import SHARE, Settled, forward_passes, settle
from crossclass.attacks import FGSM, PGD
from crossclass.attacks.norms import Linf
from crossclass.checkpoints.card import Card
from crossclass.checkpoints.load import Identity, LoadedCheckpoint
from crossclass.cli import main
from crossclass.core.errors import UserError
from crossclass.data import Split, Splits
from crossclass.models import Classifier, PreActResNet, channel_statistics, statistics
from crossclass.models.reordered import TURNS, Arrangement, Reordered, renumber_head
from crossclass.training.teachers import _require_fit
from measuring import measure
from pattern_network import NONE, THEIRS, PatternNetwork, pattern_splits
from tiny_runs import CPU

IMAGENET = statistics()["imagenet"]
ATTACK = PGD(threat=Linf(eps=0.05), steps=20)
BYTES = ((0.0,), (1 / 255,))


@pytest.fixture(scope="module")
def data() -> Splits:
    """Five classes; the network is right on 89 % of the images."""
    return pattern_splits()


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


def normalises_itself() -> PatternNetwork:
    net = PatternNetwork(IMAGENET)
    mean, std = net.trained
    net.inside = lambda x: (x - mean) / std
    buffers(net, NONE)
    return net


CASES: dict[str, tuple[Callable[[], PatternNetwork], str]] = {
    "normalises itself": (normalises_itself, "none"),
    "never normalised": (PatternNetwork, "none"),
    "wants 0..255": (lambda: PatternNetwork(BYTES), "bytes"),
    "wants [-1, 1]": (lambda: PatternNetwork(((0.5,), (0.5,))), "half"),
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
    net = PatternNetwork(IMAGENET)
    right = said(net, data)
    out = settled(net, data)
    assert out.warnings == ()
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken == out.check.as_loaded == "imagenet"
    assert {"none", "half", "bytes"} <= set(out.check.accuracies)
    assert "none" in out.loaded.about.loaded[-1]


@pytest.mark.parametrize("by", ["user", "file", "network"])
def test_what_is_said_is_obeyed_and_a_better_way_named(data, by):
    net = PatternNetwork()
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
    net = PatternNetwork(IMAGENET)
    right = said(net, data)
    net.before = order
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    (line,) = out.warnings
    assert ("blue" in line) == (name != "transposed")
    assert out.check.taken == f"imagenet, {name}"


def shifted(data: Splits, by: float) -> Splits:
    parts = [Split(p.images + round(255 * by) % 256, p.labels) for p in (data.train, data.val, data.test)]
    return Splits(*parts, data.class_names, data.checksum)


@pytest.mark.parametrize(
    ("name", "aspect", "order"),
    [
        *((name, "orientation", Arrangement().turned(turn).back) for turn, name in TURNS.items()),
        ("green, red, blue", "channel order", Arrangement(channels=(1, 0, 2))),
        ("green, blue, red", "channel order", Arrangement(channels=(2, 0, 1))),
        ("inverted", "brightness", Arrangement(inverted=True)),
    ],
)
def test_images_that_are_turned_or_inverted_are_seen_as_the_network_wants_them(data, name, aspect, order):
    net = PatternNetwork(IMAGENET)
    net.inside = lambda x: x + 0.15 / net.trained[1]
    data = shifted(data, -0.15)  # images around 0.5 would be the same with other classes, inverted
    right = said(net, data)
    net.before = order
    out = settled(net, data, "user")
    assert torch.equal(said(out.loaded.model, data), right)
    (line,) = out.warnings
    assert aspect in line
    assert out.check.taken == f"imagenet, {name}"
    assert out.check.class_of_output is None


def test_inverted_grey_images_are_no_numbering_of_the_classes():
    data = pattern_splits()
    grey = Splits(
        *(Split(p.images[:, :1].contiguous(), p.labels) for p in (data.train, data.val, data.test)),
        *(data.class_names, data.checksum),
    )

    class Grey(PatternNetwork):
        def normalise(self, x: Tensor) -> Tensor:
            return super().normalise(x).expand(-1, 3, -1, -1)

    net = Grey()
    right = said(net, grey)
    net.before = lambda x: 1 - x
    assert torch.equal(said(settled(net, grey, "user").loaded.model, grey), right)


CAFFE = ((103.939 / 255, 116.779 / 255, 123.68 / 255), (1 / 255,) * 3)
"""Blue, green, red in 0..255 minus their means, divided by nothing."""


@pytest.mark.parametrize("order", [(), (2, 1, 0)], ids=["red first", "blue first"])
def test_constants_without_a_deviation_are_tried(data, order):
    net = PatternNetwork(CAFFE if order else (CAFFE[0][::-1], CAFFE[1]))
    right = said(net, data)
    net.before = Arrangement(channels=order)
    buffers(net, NONE)
    out = settled(net, data)
    assert float((said(out.loaded.model, data) == right).double().mean()) > 0.95
    assert max(out.loaded.about.normalise["std"]) < 0.01
    assert ("blue, green, red" in out.check.taken) == bool(order)


@pytest.mark.parametrize("guess", [IMAGENET, NONE], ids=["channels", "channels and constants"])
@pytest.mark.parametrize("of_images", [False, True], ids=["own", "of the images"])
def test_after_the_channels_the_constants_are_chosen_again(data, guess, of_images):
    """Constants belong to the network's channels, or were given in the order of the images' channels."""
    own = tuple(v[::-1] for v in IMAGENET) if of_images else IMAGENET
    net = PatternNetwork(own)
    right = said(net, data)
    net.before = lambda x: x.flip(1)
    buffers(net, guess)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.loaded.about.normalise["mean"] == list(own[0])


def test_images_that_the_network_wants_standardised_each_by_itself(data):
    light = 0.3 + 1.4 * torch.rand(800, 1, 1, 1, generator=seeded(0))

    def lit(part: Split) -> Split:
        images = 127.5 + (part.images.float() - 127.5) * light[: len(part)]
        return Split(images.round().to(torch.uint8), part.labels)

    darker = Splits(lit(data.train), data.val, lit(data.test), data.class_names, data.checksum)
    net = PatternNetwork()
    net.inside = lambda x: 0.036 * x + 0.5
    each = Arrangement(each_by_itself=True)
    with torch.no_grad():
        right = net(each(darker.test.images.float() / 255)).argmax(dim=1)
    out = settled(net, darker)
    assert torch.equal(said(out.loaded.model, darker), right)
    assert float((right == darker.test.labels).double().mean()) > 0.6, "the case is a case"
    (line,) = out.warnings
    assert "each image" in line


def test_each_image_by_itself_is_what_tensorflow_does():
    x = torch.rand(3, 3, 4, 5, generator=seeded(0))
    out = Arrangement(each_by_itself=True)(x)
    assert torch.allclose(out.flatten(1).mean(dim=1), torch.zeros(3), atol=1e-5)
    assert torch.allclose(out.flatten(1).std(dim=1, correction=0), torch.ones(3), atol=1e-5)
    assert torch.equal(
        Arrangement(each_by_itself=True)(torch.full((1, 3, 4, 5), 0.3)), torch.zeros(1, 3, 4, 5)
    )


def test_names_sorted_as_numbers_or_as_text_are_named_with_one_image_of_each():
    names = tuple(sorted(str(i + 1) for i in range(60)))
    (meant,) = orders_of_names(names)
    assert [names[c] for c in meant[:11]] == [str(i + 1) for i in range(11)]
    assert orders_of_names(("a", "b")) == []
    assert orders_of_names(("bird", "ant")) == [(1, 0)]
    labels = torch.arange(60)
    predicted = torch.tensor(meant).argsort()[labels]
    predicted[:3] = 0  # a few mistakes
    assert explaining_renumbering(predicted, labels) is None, "too few to seek it"
    assert explaining_renumbering(predicted, labels, orders_of_names(names)) == meant
    (line,) = label_warnings(predicted, labels, names)
    assert "output 1 is 2" in line
    assert label_warnings(labels, labels, names) == []


def test_classes_that_are_confused_with_each_other_are_no_numbering():
    """Half of the classes are called by the name of the next one, half of these images are right."""
    labels = torch.arange(1000) % 10
    predicted = torch.where(torch.arange(1000) % 20 < 10, (labels + 1) % 10, labels // 2)
    best = best_renumbering(predicted, labels, 10)
    right = renumbered(predicted, best) == labels
    assert beats(right, predicted == labels, by=0.05), "the case is a case"
    assert explaining_renumbering(predicted, labels) is None
    noisy = torch.where(torch.arange(1000) % 50 < 20, torch.randint(10, (1000,), generator=seeded(1)), labels)
    assert explaining_renumbering((noisy + 1) % 10, labels) == tuple(
        (torch.arange(10) - 1).remainder(10).tolist()
    )


def test_a_wrong_normalisation_and_a_wrong_order_are_both_put_right(data):
    net = PatternNetwork()
    right = said(net, data)
    net.before = lambda x: x.flip(1)
    buffers(net, IMAGENET)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert len(out.warnings) == 2


@pytest.mark.parametrize("by", ["guess", "user"])
def test_permuted_classes_are_put_into_the_order_of_the_data(data, by):
    net = PatternNetwork(IMAGENET)
    right = said(net, data)
    renumber_head(net, (2, 0, 1, 4, 3))
    assert torch.equal(said(net, data), torch.tensor([2, 0, 1, 4, 3])[right])
    out = settled(net, data, by)
    assert torch.equal(said(out.loaded.model, data), right)
    assert sorted(out.check.class_of_output) == [0, 1, 2, 3, 4]
    (line,) = out.warnings
    assert "output" in line


def test_permuted_classes_and_a_wrong_normalisation(data):
    net = PatternNetwork()
    right = said(net, data)
    renumber_head(net, (1, 2, 0, 4, 3))
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert len(out.warnings) == 2


def two_ranges(net: PatternNetwork, in_half: Callable[[Tensor], Tensor]) -> PatternNetwork:
    """Takes [0, 1] and, told by a negative pixel, [-1, 1], where it does something of its own."""

    def inside(x: Tensor) -> Tensor:
        negative = (x < 0).flatten(1).any(dim=1)[:, None, None, None]
        return torch.where(negative, in_half((x + 1) / 2), x)

    net.inside = inside
    return net


def test_two_equally_good_ways_with_other_results_are_for_the_user(data):
    net = two_ranges(PatternNetwork(), lambda x: ((x * 60).round() / 60).detach())
    buffers(net, BYTES)
    with pytest.raises(UserError, match=r"model\.normalise=none or model\.normalise=\{mean: \[0\.5\]"):
        settled(net, data)


@pytest.mark.parametrize("error", [ValueError("images must be in [0, 1]"), MemoryError()])
def test_a_way_that_the_network_refuses_is_dropped_but_a_full_memory_says_nothing(data, error):
    class Refusing(PatternNetwork):
        def forward(self, x: Tensor) -> Tensor:
            if float(self.std.min()) < 0.01:  # fed with 0..255
                raise error
            return super().forward(x)

    net = Refusing()
    if isinstance(error, MemoryError):
        with pytest.raises(MemoryError):
            settled(net, data)
    else:
        assert settled(net, data).warnings == settled(PatternNetwork(), data).warnings


@pytest.mark.parametrize("constants", [IMAGENET, NONE], ids=["the same", "others"])
def test_margins_tell_arrangements_of_the_same_constants(constants):
    """Right on 90 and 93 % of 600 images is not beyond doubt; larger margins on 63 % of them are."""
    i = torch.arange(600)
    labels, before, after = i % 6, i % 10 > 0, (i % 30 > 0) & (i % 30 != 1)
    swapped = Feeding(
        "green, red, blue", constants, Arrangement(channels=(1, 0, 2)), of_arrangement=("channel order",)
    )
    smaller, larger = torch.ones(600), torch.where(i % 8 < 5, 2.0, 0.0)
    now = Trial(Feeding("imagenet", IMAGENET), labels, before, smaller)
    other = Trial(swapped, labels, after, larger)
    trial = InputTrial(labels, now, (other,), 140, None, 0)
    assert not beats(after, before, tests=140), "accuracy alone does not tell"
    assert trial.better() == ((other,) if constants == IMAGENET else ())


def test_two_equally_good_ways_with_the_same_result_are_no_reason_to_refuse(data):
    right = said(PatternNetwork(), data)
    net = two_ranges(PatternNetwork(), lambda x: x)
    buffers(net, BYTES)
    out = settled(net, data)
    assert torch.equal(said(out.loaded.model, data), right)
    assert out.check.taken in ("none", "half")


def test_typed_constants_of_no_known_data_set_are_noted(data):
    off = ((0.55,) * 3, (0.3,) * 3)
    known = known_constants(3, channel_statistics(data.train.images))
    assert of_no_data_set(off, known)
    assert not any(of_no_data_set(s, known) for s in known.values())


def test_a_network_that_guesses_is_left_as_it_is(data):
    net = PatternNetwork(IMAGENET)
    with torch.no_grad():
        net.head.weight.zero_()
        net.head.bias.copy_(torch.tensor([1.0, 0, 0, 0, 0]))
    out = settled(net, data)
    assert out.warnings == ()
    assert out.check.taken == "imagenet"


def test_a_run_on_its_own_data_costs_nothing(data, monkeypatch):
    net = PatternNetwork()
    monkeypatch.setattr(PatternNetwork, "forward", lambda *_: pytest.fail("a forward pass"))
    own = loaded(net, data, "run", other_data=False)
    assert settle(own, "test", [ATTACK], 100) == Settled(own)


KNOWN = {"none": NONE, "imagenet": IMAGENET, "bytes": BYTES}


@pytest.mark.parametrize("kind", KNOWN)
def test_a_sound_network_costs_less_than_two_per_cent_of_its_attack(data, kind):
    net, n = PatternNetwork(KNOWN[kind]), 2000
    about = loaded(net, data, "user")
    out = settle(about, "test", [ATTACK], n)
    assert out.warnings == ()
    assert out.check.forward_passes < SHARE * forward_passes([ATTACK], n)


def test_images_are_drawn_over_all_classes_of_a_sorted_split():
    number = torch.arange(250, dtype=torch.uint8)
    split = Split(number[:, None, None, None].expand(-1, 3, 2, 2), number.long() // 25)
    x, y = clean_sample(split, 40, 0)
    assert torch.bincount(y, minlength=10).tolist() == [4] * 10
    assert torch.bincount(y[:10], minlength=10).tolist() == [1] * 10
    assert torch.equal((x[:, 0, 0, 0] * 255).round().long() // 25, y)
    assert not torch.equal(clean_sample(split, 40, 1)[0], x)
    assert len(clean_sample(split, 1000, 0)[1]) == 250


def test_neighbours_are_one_way():
    known = known_constants(3, channel_statistics(torch.full((1, 3, 1, 2), 128, dtype=torch.uint8)))
    cifar10 = known["cifar10"]
    for name in ("cifar100", "tinyimagenet", "imagenet", "cifar10, std of image means"):
        assert apart(known[name], cifar10) < 0.15
    for name in ("none", "half", "bytes"):
        assert apart(known[name], cifar10) > 0.15
    names = [f.name for f in feedings(Feeding("none", known["none"]), known, 3, (4, 4), "imagenet")]
    assert names[0] == "imagenet"
    assert not {"cifar10", "cifar100"} & set(names)
    flat = [f.name for f in feedings(Feeding("none", known["none"]), known, 3, (4, 8))]
    assert "transposed" not in flat


def test_an_attack_on_reordered_images_is_the_attack_on_the_images(data):
    x, y = data.test.images[:20].float() / 255, data.test.labels[:20]
    net = PatternNetwork(IMAGENET)
    step = FGSM(threat=Linf(eps=0.05))
    turns = [Arrangement().turned(turn) for turn in TURNS]
    reversed_channels = Arrangement(channels=(2, 1, 0))
    for arrangement in (reversed_channels, *turns, Arrangement((1, 0, 2), transposed=True, mirrored=True)):
        outer = Reordered(net, arrangement).eval()
        there = step(net, outer.arrangement(x), y)
        assert torch.equal(outer.arrangement(step(outer, x, y)), there)
        g, logits = outer.outputs(x)
        assert torch.equal(outer.head(g), logits)
        assert torch.equal(logits, net(outer.arrangement(x)))


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


@pytest.fixture
def theirs(tmp_path, monkeypatch, data, trusted):
    """In the current folder `theirs.pt`, weights of a network for 0..255, and its images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    name = f"nets_{tmp_path.name}".replace("-", "_")
    Path(f"{name}.py").write_text(THEIRS)
    torch.save(
        {"fc.weight": PatternNetwork().head.weight, "fc.bias": PatternNetwork().head.bias}, "theirs.pt"
    )
    for part in ("train", "test"):
        split = getattr(data, part)
        images = split.images.permute(0, 2, 3, 1).numpy()
        np.savez(f"{part}.npz", images=images, labels=split.labels.numpy())
    return [f"model=python:{name}:net", "data.path=.", "attack.steps=2", "attack.threat.eps=0.02"]


def test_measure_of_a_network_for_bytes(theirs, data):
    (r,) = measure(["theirs.pt"], theirs, CPU)
    by_hand = "model.normalise={mean: [0], std: [0.00392156862745098]}"
    (explicit,) = measure(["theirs.pt"], [*theirs, by_hand], CPU)
    (unchecked,) = measure(["theirs.pt"], [*theirs, "check_inputs=false"], CPU)
    right = float((said(PatternNetwork(), data) == data.test.labels).double().mean())
    assert r["clean"] == explicit["clean"] == pytest.approx(right, abs=0.002)
    assert (r["robust"], r["cas"], r["C"]) == (explicit["robust"], explicit["cas"], explicit["C"])
    assert r["warnings"][1:] == explicit["warnings"]
    assert "images in 0..255" in r["warnings"][0]
    assert next(iter(r)) == "warnings"
    assert r["inputs"]["taken"] == "bytes"
    assert unchecked["clean"] < right - 0.2
    assert unchecked["inputs"] is None


def test_warnings_are_the_first_lines_and_stand_in_comparisons(theirs, capsys):
    with pytest.raises(SystemExit):
        main(["measure", "theirs.pt", *theirs, "model.normalise=cifar10", "n=200", "out=r.json"])
    first, *_ = capsys.readouterr().out.splitlines()
    assert first.startswith("warning, theirs: ")
    assert "model.normalise={mean: [0], std:" in first
    torch.save({k: v * 2 for k, v in torch.load("theirs.pt").items()}, "twice.pt")
    (_, _, last) = measure(["theirs.pt", "twice.pt"], [*theirs, "model.normalise=cifar10"], CPU)
    warnings = last["comparison"]["warnings"]
    assert [w.split(":")[0] for w in warnings if "as you set" in w] == ["theirs", "twice"]


def test_a_teacher_with_other_classes_is_refused(data):
    net = PatternNetwork()
    card = Card(checkpoint="last", epoch=1, model=PreActResNet(), classes=5, channels=3, size=6)
    _require_fit(Path("t.safetensors"), net, card, data)
    renumber_head(net, (1, 2, 3, 4, 0))
    with pytest.raises(UserError, match="numbers its classes otherwise"):
        _require_fit(Path("t.safetensors"), net, card, data)


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
