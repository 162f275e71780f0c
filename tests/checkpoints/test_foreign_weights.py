"""Files of weights in networks that nobody named."""

import pytest
import torch

from crossclass.checkpoints.foreign_weights import load_foreign
from crossclass.checkpoints.load import Source, Weights
from crossclass.cli.measure import measure_settings
from crossclass.core.errors import UserError
from crossclass.models import PreActResNet, build


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
        container = measure_settings({"weights.container": name})[1].container
        found = load_foreign(tmp_path / "list.pth", data, {"model": kind}, False, container)
        assert torch.equal(found.model.head.weight, net.head.weight)
        assert f"weights.container={name}" in found.notes
    assert Source(weights=Weights(container="ema")).container == "ema"
