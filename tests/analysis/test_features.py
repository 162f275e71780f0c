"""Features of checkpoints: which are named and why, their numbers, their images, what cannot be asked for."""

import json

import pytest
import torch

from crossclass.analysis import feature_shares, features as module
from crossclass.analysis.feature_records import FeatureFile
from crossclass.analysis.features import Features, SheetRow, features
from crossclass.analysis.measure import evaluate_checkpoint
from crossclass.analysis.planted_parts import found_parts
from crossclass.checkpoints.load import load_checkpoints
from crossclass.core.errors import UserError
from crossclass.training.loop import train
from tiny_runs import CPU, TINY

FEW = Features(top=5, images=3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run whose best and last checkpoints differ."""
    run = train(
        TINY.replace(seed=1, validation=TINY.validation.replace(every=1)),
        tmp_path_factory.mktemp("runs"),
        "tiny",
        CPU,
    )
    assert run.checkpoint("best.val").read_bytes() != run.checkpoint("last").read_bytes()
    return run.path


def drawn(targets, settings=FEW) -> tuple[FeatureFile, list[SheetRow]]:
    kept: list[SheetRow] = []
    file = features(targets, settings, runtime=CPU, draw=lambda rows, _: kept.extend(rows) or "sheet.png")
    return file, kept


def test_the_numbers_are_those_of_the_network(folder) -> None:
    file, rows = drawn([f"{folder}@last"])
    read = next(load_checkpoints([f"{folder}@last"], runtime=CPU))
    seen = evaluate_checkpoint(read.model, read.splits, FEW.attacks(read.threats)[0], FEW, CPU)
    shares = feature_shares.feature_shares(seen.means)
    assert file.cas == [pytest.approx(seen.cas)]
    assert file.width == len(shares.share)
    for f in file.features:
        assert f.share == pytest.approx(float(shares.share[f.k]))
        assert f.effective_classes == pytest.approx(float(shares.effective_classes[f.k]))
        named = {c.name: c.a for c in f.classes}
        for name, a in named.items():
            assert a == pytest.approx(float(seen.means[read.splits.class_names.index(name), f.k]))
    shared = [f.k for f in file.features if "shared" in f.why]
    largest = shares.share.argsort(descending=True)[:5].tolist()
    assert shared == [k for k in largest if float(shares.share[k]) > 0]
    for row in rows:
        i = read.splits.class_names.index(row.class_name)
        own = seen.features[seen.labels == i, row.k] * seen.W[i, row.k]
        torch.testing.assert_close(row.adds[0], own.sort(descending=True).values[:3], rtol=1e-4, atol=1e-6)
        assert row.maps[0].shape == (len(row.images), 16, 16)


def test_what_compares_images_with_each_other_is_not_computed(folder, monkeypatch) -> None:
    def fails(*args):
        raise AssertionError("I-CAS is not among the numbers of features")

    monkeypatch.setattr("crossclass.analysis.instances.neighbours", fails)
    monkeypatch.setattr("crossclass.analysis.instances.all_pairs", fails)
    assert drawn([f"{folder}@last"], FEW.replace(images=0))[0].features


def test_on_shapes_each_feature_stands_beside_its_planted_part(folder, monkeypatch) -> None:
    read = next(load_checkpoints([f"{folder}@last"], runtime=CPU))
    every = file_width(folder) * len(read.splits.planted.parts)
    monkeypatch.setattr("crossclass.analysis.planted_parts.ERROR", every / 2)  # so short a run finds nothing
    file, rows = drawn([f"{folder}@last"], FEW.replace(n=60, top=file_width(folder)))
    part, planted = read.splits.test, read.splits.planted
    seen = evaluate_checkpoint(read.model, read.splits, FEW.attacks(read.threats)[0], FEW.replace(n=60), CPU)
    index = part.sample(60, FEW.seed, proportional=True)
    found = found_parts(seen.features, planted.strengths["test"][index], seen.labels, planted.shows)
    assert file.planted.pure == int(found.pure.sum())
    assert file.planted.parts == len(planted.parts)
    assert any(f.parts for f in file.features)
    for f in file.features:
        assert [p.share for p in f.parts] == found.share[f.k].sort(descending=True).values[
            : len(f.parts)
        ].tolist()
        for p in f.parts:
            assert p.classes == tuple(
                n for n, own in zip(read.splits.class_names, planted.shows, strict=True) if p.part in own
            )
    of = {f.k: f.parts[0].part for f in file.features if f.parts and f.parts[0].response > 0}
    for row in rows:
        assert (row.part is None) == (row.k not in of)
        assert row.part is None or torch.equal(row.part, planted.parts[of[row.k]])


def test_what_a_run_has_forgotten_is_the_difference_of_its_checkpoints(folder) -> None:
    file, rows = drawn([str(folder)], FEW.replace(top=file_width(folder)))
    assert [c.name for c in file.checkpoints] == ["best.val", "last"]
    named = [f for f in file.features if "forgotten" in f.why]
    assert named
    assert all(f.lost > 0 for f in named)
    others = [f for f in file.features if "forgotten" not in f.why]
    assert all(f.lost <= 0 for f in others)  # as many as there are were asked for
    assert all(len(row.maps) == len(row.adds) == 2 for row in rows)
    assert not any("of one run" in w for w in file.warnings)


def file_width(folder) -> int:
    return drawn([f"{folder}@last"])[0].width


def test_a_pair_has_the_features_that_carry_its_cosine(folder) -> None:
    settings = FEW.replace(pair=("square", "disk"), top=file_width(folder))
    file, rows = drawn([f"{folder}@last"], settings)
    assert all(f.pair > 0 for f in file.features)
    assert sum(f.pair for f in file.features) >= file.pair_cosine[0] - 1e-9
    assert {row.class_name for row in rows} == {"square", "disk"}
    for row in rows:  # a pair also shares what speaks against both
        adds, against = row.adds[0], bool((row.adds[0] < 0).all())
        assert adds.tolist() == adds.sort(descending=not against).values.tolist()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (FEW.replace(pair=("disk", "sqare")), "did you mean 'square'"),
        (FEW.replace(pair=("disk", "disk")), "two different classes"),
        (FEW.replace(top=1000), "top=1000"),
        (FEW.replace(saliency=2), "saliency belongs to measure"),
    ],
    ids=["no class", "one class", "too many", "saliency"],
)
def test_what_cannot_be_asked_for_is_said_before_the_attack(folder, settings, said, monkeypatch) -> None:
    monkeypatch.setattr(module, "evaluate_checkpoint", lambda *_, **__: pytest.fail("attacked"))
    with pytest.raises(UserError, match=said):
        drawn([f"{folder}@last"], settings)


def test_three_checkpoints_are_too_many(folder) -> None:
    with pytest.raises(UserError, match="no more than two"):
        drawn([str(folder), f"{folder}@last"])


def test_the_command_writes_numbers_and_a_sheet(folder, call, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call("features", str(folder), "pair=disk,square", "top=3", "images=2", "out=f.json")
    assert code == 0, err
    assert out.splitlines()[-1] == "f.json"
    file = FeatureFile.model_validate(json.loads((tmp_path / "f.json").read_text()))
    assert file.pair == ("disk", "square")
    assert (tmp_path / file.sheet).read_bytes().startswith(b"\x89PNG")
    assert "feature" in out


def test_two_classes_and_no_images_on_the_sheet(tmp_path) -> None:
    run = train(
        TINY.replace(data=TINY.data.replace(classes=2), epochs=1, lr_milestones=()), tmp_path, "two", CPU
    )
    file, rows = drawn([f"{run.path}@last"], FEW.replace(images=0))
    assert rows == []
    assert file.sheet is None
    assert len(file.cas) == 1


@pytest.mark.parametrize("typed", ["pair=cat", "pair=disk-square", "pair=a,b,c"])
def test_a_pair_is_two_classes(folder, call, typed: str) -> None:
    code, _, err = call("features", str(folder), typed)
    assert code == 2
    assert "automobile,truck" in err
