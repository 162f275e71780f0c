"""Files of weights in networks that nobody named."""

import pytest
import torch

from crossclass.analysis.measure import Measure
from crossclass.checkpoints.foreign_weights import load_foreign
from crossclass.checkpoints.load import Source, Weights
from crossclass.cli.measure import measure_settings
from crossclass.core.errors import UserError
from crossclass.models import PreActResNet, Python, ResNet, build


@pytest.mark.parametrize("allow_partial", [False, True])
def test_a_file_that_resembles_no_network_is_refused(tmp_path, data, allow_partial):
    torch.save({"odd.weight": torch.zeros(3, 3)}, tmp_path / "odd.pt")
    with pytest.raises(UserError, match="no network that is built in; name yours"):
        load_foreign(tmp_path / "odd.pt", data, {}, allow_partial)


def test_the_person_names_the_container(tmp_path, data):
    kind = PreActResNet(width=2)
    nets = [build(kind, data.test.images, len(data.class_names), seed) for seed in (0, 1)]
    torch.save([net.state_dict() for net in nets], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"2 networks that fit equally.*: 0, 1; choose one with weights"):
        load_foreign(tmp_path / "list.pth", data, {"model": kind}, False)
    for name, net in zip("01", nets, strict=True):
        container = measure_settings({"weights.container": name}, Measure())[1].container
        found = load_foreign(tmp_path / "list.pth", data, {"model": kind}, False, container)
        assert torch.equal(found.model.head.weight, net.head.weight)
        assert f"weights.container={name}" in found.notes
    assert Source(weights=Weights(container="ema")).container == "ema"


def small(model, classes, data):
    tensors = build(model.replace(normalise="none"), data.train.images, classes, 0).state_dict()
    return {name: tensor for name, tensor in tensors.items() if name not in ("mean", "std")}


def test_networks_of_two_kinds_in_one_file_are_a_question(tmp_path, data):
    k = len(data.class_names)
    student, teacher = ResNet(width=4, blocks=(1,)), PreActResNet(width=4, blocks=(1,))
    trees = {
        "containers": {"student": small(student, k, data), "teacher": small(teacher, k, data)},
        "list": [small(student, k, data), small(teacher, k, data)],
    }
    trees["prefixes"] = {f"{w}.{n}": t for w, part in trees["containers"].items() for n, t in part.items()}
    for how, tree in trees.items():
        torch.save(tree, path := tmp_path / f"{how}.pth")
        first, second = ("0", "1") if how == "list" else ("student", "teacher")
        asked = rf"2 networks .*{first} \(ResNet.*{second} \(PreActResNet.*weights.container={first}"
        with pytest.raises(UserError, match=asked):
            load_foreign(path, data, {}, False)
        assert isinstance(load_foreign(path, data, {}, False, second).settings, PreActResNet)
        if how == "prefixes":
            with pytest.raises(UserError, match=r"weights\.container=teacher reads that part"):
                load_foreign(path, data, {"model": teacher}, False)
        else:
            named = load_foreign(path, data, {"model": teacher}, False)
            assert isinstance(named.settings, PreActResNet), "who names the network is not asked"


def test_of_networks_of_two_kinds_the_one_for_the_classes_of_the_data_is_taken(tmp_path, data):
    k = len(data.class_names)
    tree = {
        "model": small(ResNet(width=4, blocks=(1,)), k + 1, data),
        "teacher": small(PreActResNet(width=4, blocks=(1,)), k, data),
    }
    torch.save(tree, path := tmp_path / "two.pth")
    assert isinstance(load_foreign(path, data, {}, False).settings, PreActResNet)


def test_the_container_is_looked_for_below_the_network_too(tmp_path, data):
    torch.save(
        small(PreActResNet(width=4, blocks=(1,)), len(data.class_names), data), path := tmp_path / "a.pth"
    )
    for given in ({"model.container": "ema"}, {"model": Python(call="nets:net"), "model.container": "ema"}):
        with pytest.raises(UserError, match=r"'model.container' is no setting; .*weights\.container="):
            load_foreign(path, data, given, False)
