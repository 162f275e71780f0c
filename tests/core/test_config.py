"""Settings: digests, YAML, overrides, fractions, errors in one sentence."""

import pytest
import yaml
from hypothesis import given, strategies as st
from pydantic import TypeAdapter

from crossclass.attacks import FGSM, PGD, AnyAttack
from crossclass.attacks.norms import L2, AnyThreat, Linf
from crossclass.cli.arguments import assign
from crossclass.core.config import differences, load_yaml
from crossclass.core.errors import UserError
from crossclass.core.plugins import members
from crossclass.data import AnyData, Npz, Shapes
from crossclass.models import AnyModel
from crossclass.paper.runs import NAMED, resolve, with_changes
from crossclass.training.recipes import AT, AnyRecipe
from crossclass.training.run import Run

FAMILIES = [AnyAttack, AnyThreat, AnyRecipe, AnyData, AnyModel]
PLUGINS = [m for family in FAMILIES for m in members(family)] + [Run]


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda p: p.__name__)
def test_every_plugin_is_frozen_hashable_documented_and_round_trips(plugin):
    made = plugin()
    assert plugin.__doc__
    assert hash(made) == hash(plugin())
    with pytest.raises(Exception, match="frozen"):
        made.kind = "x"
    assert load_yaml(plugin, made.yaml(), "f") == made
    assert plugin.model_json_schema()


@pytest.mark.parametrize("name", NAMED)
def test_named_runs_round_trip(name):
    run = NAMED[name]
    again = load_yaml(Run, run.yaml(), "f")
    assert again == run
    assert again.digest() == run.digest()


def test_digests_differ_between_kinds_at_their_defaults():
    digests = [m().digest() for family in FAMILIES for m in members(family)]
    assert len(set(digests)) == len(digests)


def test_digest_says_only_what_differs_so_a_new_setting_orphans_nothing():
    assert PGD().to_dict(defaults=False) == {"kind": "pgd"}
    assert PGD(steps=7).to_dict(defaults=False) == {"kind": "pgd", "steps": 7}
    assert Run(recipe=AT(attack=PGD(steps=7))).digest() != Run().digest()
    assert Run(seed=1).digest() != Run().digest()


def test_digests_are_pinned():
    # a changed digest orphans every trained model of every user: change these only on purpose
    assert PGD().digest() == "f5f07dcd53db"
    assert Linf(eps="4/255").digest() == "3a5396b1bfac"
    assert Run().digest() == "44136fa355b3"


def test_paths_are_no_part_of_a_run(tmp_path):
    here, there = Run(data=Npz(path=tmp_path)), Run(data=Npz(path="elsewhere"))
    assert here.digest() == there.digest()
    assert str(tmp_path) not in here.yaml()
    assert here.data.replace(n_val=3).path == tmp_path


@given(st.integers(1, 255))
def test_fractions_are_written_as_people_say_them(n):
    assert Linf(eps=f"{n}/255").to_dict()["eps"] == f"{n}/255"
    assert Linf(eps=Linf(eps=f"{n}/255").to_dict()["eps"]).eps == n / 255


@pytest.mark.parametrize(
    ("threat", "eps", "hint"),
    [(Linf, 8, "8/255"), (L2, 128, "128/255"), (Linf, -0.1, "negative"), (Linf, "8/0", "fraction")],
)
def test_absurd_radii_are_refused_with_a_hint(threat, eps, hint):
    with pytest.raises(ValueError, match=hint):
        threat(eps=eps)
    assert L2(eps=3.0).eps == 3.0


def test_overrides_are_merged_and_validated_once():
    run = assign(Run(), ["epochs=4", "lr_milestones=[2,3]", "recipe.attack.threat.eps=4/255", "lr=1e-3"])
    assert (run.epochs, run.lr_milestones, run.lr) == (4, (2, 3), 1e-3)
    assert run.recipe.attack.threat == Linf(eps=4 / 255)
    # any order, and a kind replaces its sub-tree
    for texts in (
        ["threat.eps=0.5", "threat.kind=l2", "start=ball"],
        ["start=ball", "threat.kind=l2", "threat.eps=0.5"],
    ):
        assert assign(PGD(steps=3), texts) == PGD(steps=3, threat=L2(eps=0.5), start="ball")
    assert assign(Run(), ["recipe.kind=standard"]).recipe.kind == "standard"


@given(st.integers(0, 99), st.sampled_from(["ce", "margin", "kl"]), st.floats(0.01, 4))
def test_replace_override_and_yaml_agree(steps, loss, step):
    made = PGD().replace(steps=steps, loss=loss, rel_step=step)
    assert assign(PGD(), [f"steps={steps}", f"loss={loss}", f"rel_step={step!r}"]) == made
    assert TypeAdapter(AnyAttack).validate_python(yaml.safe_load(made.yaml())) == made


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["epoch=3"], ["epoch", "did you mean 'epochs'"]),
        (["recipe.atack.steps=3"], ["recipe.atack.steps", "did you mean 'attack'"]),
        (["recipe.attack.threat.epsilon=1"], ["recipe.attack.threat.epsilon", "eps"]),
        (["recipe.attack.threat.eps=8"], ["recipe.attack.threat.eps", "8/255"]),
        (["recipe.kind=trade"], ["recipe.kind", "trade", "known"]),
        (["recipe.attack.steps=many"], ["recipe.attack.steps", "many"]),
        (["recipe.attack.steps=-1"], ["recipe.attack.steps"]),
        (["recipe.attack.start=ball"], ["ball", "linf", "uniform"]),
        (["augment.crop.x=1"], ["augment.crop.x"]),
        (["epochs=3"], ["lr_milestones", "epochs"]),
        (["seed"], ["seed", "path.to.setting=value"]),
        (["seed=["], ["seed=[", "number"]),
        (["lr_milestones=["], ["lr_milestones=[", "YAML"]),
        (["data.kind=shapes", "data.edges=[[0,9]]"], ["(0, 9)", "6 classes"]),
        (["model.blocks=[]"], ["model.blocks"]),
        (["lr=.nan"], ["lr"]),
    ],
)
def test_mistakes_are_one_sentence_with_path_and_remedy(texts, words):
    with pytest.raises(UserError) as e:
        assign(Run(), texts)
    assert "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epochz: 3", ["run.yaml", "epochz", "did you mean 'epochs'"]),
        ("recipe: {kind: att}", ["run.yaml", "att", "did you mean 'at'"]),
        ("recipe: {attack: {}}", ["run.yaml", "recipe", "kind"]),
        ("recipe: {kind: at, attack: {kind: pgd, stps: 2}}", ["recipe.attack.stps", "did you mean 'steps'"]),
        ("- 1", ["run.yaml", "list"]),
        ("a: [", ["run.yaml", "line"]),
        ("seed: !!python/object:os.system x", ["run.yaml"]),
    ],
)
def test_mistakes_in_run_files(tmp_path, text, words):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(UserError) as e:
        resolve(str(tmp_path / "run.yaml"))
    assert "\n" not in str(e.value)
    for word in words:
        assert word in str(e.value)


def test_a_run_file_may_be_partial_and_a_path_implies_npz(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 3\nrecipe: {kind: at, attack: {kind: fgsm}}\n")
    label, run = resolve(str(tmp_path / "mine.yaml"), {"data.kind": "shapes", "batch": 8})
    assert (label, run.seed, run.batch, run.recipe.attack) == ("mine", 3, 8, FGSM())
    assert with_changes(Run(data=Shapes()), {"data.path": tmp_path}).data == Npz(path=tmp_path)
    assert with_changes(Run(), {"data.path": tmp_path}).data.kind == "cifar10"


def test_the_milestones_of_a_shorter_run_keep_their_shares():
    assert with_changes(Run(), {"epochs": 120}) == Run(epochs=120, lr_milestones=(60, 90))
    assert with_changes(Run(), {"epochs": 300}) == Run(epochs=300, lr_milestones=(150, 225))
    with pytest.raises(UserError, match="lr_milestones"):
        with_changes(Run(), {"epochs": 120, "lr_milestones": [100, 150]})


def test_differences_name_every_path_that_differs():
    assert differences(PGD(), PGD(steps=3, threat=L2())) == {
        "threat.kind": ("linf", "l2"),
        "threat.eps": ("8/255", "128/255"),
        "steps": (10, 3),
    }


def test_settings_below_a_plugin_that_was_given_as_text():
    run = assign(Run(), ["model=python:my_nets:f", "model.head=fc", "model.normalise=imagenet"])
    assert (run.model.kind, run.model.call, run.model.head) == ("python", "my_nets:f", "fc")
    assert run.model.normalise == "imagenet"
    with pytest.raises(UserError, match="did you mean 'head'"):
        assign(Run(), ["model=python:my_nets:f", "model.haed=fc"])
    with pytest.raises(UserError, match="nothing"):
        assign(Run(), ["model=nothing", "model.head=fc"])
