"""Files are whole or not there; a damaged checkpoint is known by its checksum."""

import errno
import os
import resource
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

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
from crossclass.core import files
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
    save_tensors(path, TENSORS, {**CARD.to_dict(), "schema": 2})
    with pytest.raises(UserError, match="format 2 of its card is newer") as e:
        load_checkpoint(path)
    assert "\n" not in str(e.value)


def test_a_card_that_lacks_something_is_one_sentence(tmp_path):
    lacking = {k: v for k, v in CARD.to_dict().items() if k != "epoch"}
    save_tensors(tmp_path / "x.safetensors", TENSORS, lacking)
    with pytest.raises(UserError, match="its card is not valid at 'epoch'") as e:
        load_checkpoint(tmp_path / "x.safetensors")
    assert "\n" not in str(e.value)
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
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "theirs.safetensors")
    with pytest.raises(UserError, match="not written by crossclass"):
        load_tensors(tmp_path / "theirs.safetensors")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EIO])
def test_a_refusing_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, code):
    path = tmp_path / "x.json"
    files.write_atomic(path, "old")

    def refuse(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.os, "fsync", refuse)
    with pytest.raises(UserError, match="out=") as e:
        files.write_atomic(path, "new")
    assert "\n" not in str(e.value)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["x.json"]


def test_a_real_file_size_limit_is_a_sentence(tmp_path):
    code = (
        "import signal, sys; from pathlib import Path; from crossclass.core.files import write_atomic\n"
        "from crossclass.core.errors import UserError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "try: write_atomic(Path(sys.argv[1]), b'x' * 100_000)\n"
        "except UserError as e: print(e); sys.exit(2)\n"
    )
    target = tmp_path / "x.bin"

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(target)],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "no space left to write" in done.stdout
    assert os.listdir(tmp_path) == []


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file, not a folder"):
        files.write_atomic(tmp_path / "file" / "x", "")


def test_unfinished_lines_are_left_out(tmp_path):
    path = tmp_path / "log"
    assert files.complete_lines(path) == []
    files.append_line(path, "one")
    files.append_line(path, "two")
    with open(path, "ab") as file:
        file.write(b"thr")
    assert files.complete_lines(path) == ["one", "two"]
