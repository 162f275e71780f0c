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

from crossclass.analysis.feedings import Feeding, apart, feedings, known_constants
from crossclass.analysis.input_alternatives import clean_sample
from crossclass.analysis.input_sentences import of_no_data_set
from crossclass.analysis.settle_inputs import SHARE, Settled, forward_passes, settle
from crossclass.cli import main
from crossclass.data import Split, Splits
from crossclass.models import channel_statistics
from measuring import measure
from pattern_network import NONE, THEIRS, PatternNetwork, pattern_splits
from settling import ATTACK, BYTES, IMAGENET, buffers, loaded, said, settled
from tiny_runs import CPU


@pytest.fixture(scope="module")
def data() -> Splits:
    """Five classes; the network is right on 89 % of the images."""
    return pattern_splits()


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
