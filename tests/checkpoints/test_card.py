"""A checkpoint comes back with its card, and a damaged one is known by its checksum."""

import os

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save_file

from crossclass.attacks.norms import L2
from crossclass.checkpoints.card import (
    Card,
    DamagedError,
    fingerprint,
    has_card,
    load_checkpoint,
    load_tensors,
    save_checkpoint,
    save_tensors,
)
from crossclass.core.errors import UserError
from crossclass.data import Npz
from crossclass.models import PreActResNet

TENSORS = {
    "a": torch.randn(3, 4, 2, 2).to(memory_format=torch.channels_last),
    "b": torch.arange(5),
    "c": torch.tensor(7),
    "d": torch.randn(6, dtype=torch.float64)[::2],
    "e": torch.randn(4).to(torch.bfloat16),
}


def test_tensors_and_card_come_back(tmp_path):
    save_tensors(tmp_path / "x.safetensors", TENSORS, {"epoch": 3, "scores": {"cas": 1.5}})
    tensors, card = load_tensors(tmp_path / "x.safetensors")
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
    assert card["epoch"] == 3
    assert card["scores"] == {"cas": 1.5}
    assert os.listdir(tmp_path) == ["x.safetensors"]


CARD = Card(
    checkpoint="best.val",
    epoch=3,
    chosen_by="val",
    model=PreActResNet(width=4),
    classes=10,
    channels=3,
    size=32,
    data=Npz(path="somewhere", n_test=5),
    threat=L2(eps=0.5),
    scores={"cas": 1.5},
)
WORDS = CARD.model_dump(mode="json", by_alias=True)


def test_a_card_comes_back_typed_and_says_no_path(tmp_path):
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, TENSORS, CARD)
    _, card = load_checkpoint(path)
    assert card.sha256 == fingerprint(TENSORS)
    assert card.data == Npz(n_test=5)
    assert (card.threat, card.model, card.scores) == (CARD.threat, CARD.model, CARD.scores)
    assert b"somewhere" not in path.read_bytes()


def test_the_version_of_the_card_is_read(tmp_path):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, WORDS | {"schema": 2})
    with pytest.raises(UserError, match="format 2 of its card is newer") as e:
        load_checkpoint(path)
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("size", -5), ("size", "large"), ("classes", 0), ("channels", 1.5), ("epoch", -1), ("epoch", None)),
        *(("schema", "99"), ("schema", True), ("schema", None), ("schema", 0), ("model", {"kind": "mlp"})),
        *(("scores", [1]), ("threat", {"kind": "linf", "eps": 8}), ("surprise", 1)),
    ],
)
def test_a_card_that_is_not_valid_is_one_sentence(tmp_path, key, value):
    save_tensors(tmp_path / "x.safetensors", TENSORS, WORDS | {key: value})
    with pytest.raises(UserError, match=key) as e:
        load_checkpoint(tmp_path / "x.safetensors")
    assert "\n" not in str(e.value)
    assert "x.safetensors" in str(e.value)


@pytest.mark.parametrize("words", ['"a card"', "[]", "{}", "not JSON"])
def test_a_header_that_is_no_card_is_damage(tmp_path, words):
    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"crossclass": words})
    with pytest.raises(DamagedError, match="its card cannot be read"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_a_card_that_lacks_something_is_one_sentence(tmp_path):
    save_tensors(tmp_path / "x.safetensors", TENSORS, {k: v for k, v in WORDS.items() if k != "epoch"})
    with pytest.raises(UserError, match="epoch"):
        load_checkpoint(tmp_path / "x.safetensors")
    save_tensors(tmp_path / "x.safetensors", TENSORS, {"epoch": 3})
    with pytest.raises(UserError, match="holds no model"):
        load_checkpoint(tmp_path / "x.safetensors")


def test_the_header_alone_says_whose_a_file_is(tmp_path):
    (tmp_path / "config.yaml").write_text("model: resnet18\n")  # of Hydra, say
    torch.save({"w": torch.zeros(2)}, tmp_path / "best.pth")
    assert not has_card(tmp_path / "best.pth")
    save_tensors(tmp_path / "x.safetensors", TENSORS, {"epoch": 3})
    assert has_card(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:100])
    with pytest.raises(DamagedError, match="damaged"):
        has_card(tmp_path / "x.safetensors")


def test_the_fingerprint_sees_names_shapes_types_and_bits():
    base = fingerprint({"a": torch.zeros(2, 3)})
    others = [{"b": torch.zeros(2, 3)}, {"a": torch.zeros(3, 2)}, {"a": torch.zeros(2, 3).double()}]
    others.append({"a": torch.zeros(2, 3).index_fill(0, torch.tensor([1]), -0.0)})
    assert base not in [fingerprint(o) for o in others]


@given(st.data())
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_cut_or_flipped_file_reads_as_good(tmp_path, data):
    path = tmp_path / "x.safetensors"
    save_tensors(path, TENSORS, {"epoch": 3})
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        tensors, _ = load_tensors(path)
    except UserError as e:
        words = str(e)
    else:  # a flip in the card's own words leaves every tensor as it was
        assert fingerprint(tensors) == fingerprint(TENSORS)
        return
    assert "\n" not in words
    assert "x.safetensors" in words


def test_foreign_and_missing_files_explain_themselves(tmp_path):
    with pytest.raises(UserError, match="there is no checkpoint"):
        load_tensors(tmp_path / "none.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>not found</html>")
    with pytest.raises(DamagedError, match="damaged or not a safetensors file"):
        load_tensors(tmp_path / "page.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match="not written by crossclass"):
        load_tensors(tmp_path / "theirs.safetensors")
