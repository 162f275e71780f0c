"""Text becomes values by the type of the setting that it is for; what is no setting is a path."""

from pathlib import Path

import pytest

from crossclass.cli import main
from crossclass.cli.arguments import assign, read_arguments, split_arguments
from crossclass.cli.own_settings import Measure, Train, Verify
from crossclass.core.config import Settings, load_yaml
from crossclass.core.errors import UserError
from crossclass.core.overrides import override
from crossclass.data import Npz
from crossclass.diagnostics import Doctor
from crossclass.paper.reproduce import Study
from crossclass.paper.runs import resolve
from crossclass.training.run import Run
from run_file import TINY

TEXTS = ("yes", "007", "1e3", "2025-01-31", "set #2", "1:30", "true", "[a]", "0x10", "a=b", "{x}", "'q'")


@pytest.mark.parametrize("text", TEXTS)
def test_paths_and_texts_stay_as_they_are(text):
    assert assign(Run(data=Npz()), [f"data.path={text}"]).data.path == Path(text)
    assert assign(Study(), [f"out={text}"]).out == Path(text)
    assert read_arguments([f"against={text}"], own=Verify()).own.against == text
    assert assign(Run(), ["model.kind=python", f"model.call={text}"]).model.call == text


@pytest.mark.parametrize("text", [t for t in TEXTS if ": " not in t and t[0] not in "[{'" and " #" not in t])
def test_paths_in_run_files_stay_as_they_are(text):
    run = load_yaml(
        Run,
        f"data: {{kind: npz, path: {text}}}\n"
        if "=" not in text
        else f"data:\n  kind: npz\n  path: {text}\n",
        "f",
    )
    assert run.data.path == Path(text)


def test_paths_in_lists_stay_as_they_are():
    run = assign(Run(), ["recipe.kind=kd", "recipe.teachers=[{file: 007}, {file: yes}]"])
    assert [t.file for t in run.recipe.teachers] == ["007", "yes"]


def test_numbers_are_decimal():
    run = assign(Run(), ["seed=008", "lr=1e-3", "recipe.attack.threat.eps=8/255", "weight_decay=5e-4"])
    assert (run.seed, run.lr, run.weight_decay) == (8, 1e-3, 5e-4)
    assert run.recipe.attack.threat.eps == 8 / 255
    assert assign(Run(), ["lr_milestones=[010, 20]"]).lr_milestones == (10, 20)
    seeds = [assign(Run(), [f"seed={text}"]).seed for text in ("010", "+8", "1e3", "1.5e3")]
    assert seeds == [10, 8, 1000, 1500]
    assert assign(Run(), ["lr=1/10", "momentum=.5"]).to_dict()["lr"] == 0.1
    assert assign(Run(), ["model.depth=018"]).model.depth == 18
    assert load_yaml(Run, "seed: 010\nlr: 1e-3\n", "f").seed == 10


@pytest.mark.parametrize(
    "text", ["seed=0x10", "seed=1:30", "seed=true", "seed=2025-01-31", "seed=eight", "lr=true", "lr=0x1",
             "decay_bias_and_norm=2", "decay_bias_and_norm=ja", "seed=", "seed=yes", "seed=on", "epochs=null",
             "seed=8 #2", "seed=&a 5", "seed=!!int 010", "seed=inf", "seed=1.5", "seed=9007199254740993.0",
             "seed=9223372036854775808", f"seed={'9' * 5000}", "lr=inf", "lr=nan", "lr=1/0", "epochs=1/2",
             "lr_milestones=[yes]", "stop_on_alarms=null", "model.normalise=null",
             "epochs=[4]", "seed=1_0", "seed='1_0'", "lr=1_0.5", "lr_milestones=[1_0]",
             "recipe.attack.threat.eps=1_6/255"]
)  # fmt: skip
def test_what_is_no_number_and_no_boolean_is_refused(text):
    with pytest.raises(UserError, match=text.partition("=")[0]) as e:
        assign(Run(), [text])
    assert str(e.value).isprintable()


def test_numbers_of_files_are_decimal_too():
    for text in ("seed: 1_0\n", "seed: '1_0'\n", "lr_milestones: [1_0]\n"):
        with pytest.raises(UserError, match="decimal"):
            load_yaml(Run, text, "f")
    teacher = load_yaml(Run, "recipe: {kind: kd, teachers: [{changes: {seed: 1_0}}]}\n", "f").recipe.teachers[
        0
    ]
    with pytest.raises(UserError, match="decimal"):
        override(Run(), teacher.changes)


def test_an_error_shows_what_was_typed():
    for text in ("epochs=null", "epochs=~", "seed=0x10", "decay_bias_and_norm=ja"):
        with pytest.raises(UserError, match=text):
            assign(Run(), [text])


@pytest.mark.parametrize(
    ("text", "value"), [(t, True) for t in ("true", "True", "yes", "on", "1")] +
                       [(t, False) for t in ("false", "FALSE", "no", "Off", "0")]
)  # fmt: skip
def test_a_boolean_can_be_written_in_many_ways(text, value):
    assert assign(Run(), [f"decay_bias_and_norm={text}"]).decay_bias_and_norm is value
    assert load_yaml(Run, f"decay_bias_and_norm: {text}\n", "f").decay_bias_and_norm is value


def test_a_boolean_is_no_number_in_python_either():
    for change in ({"epochs": True}, {"lr": True}, {"lr_milestones": (True, 3)}, {"lr_milestones": [False]}):
        (name,) = change
        with pytest.raises(ValueError, match=f"{name}=.*boolean"):
            Run(**change)
        with pytest.raises(UserError, match=f"{name}"):
            override(Run(), change)


def test_booleans_and_nothing():
    assert assign(Run(), ["decay_bias_and_norm=true"]).decay_bias_and_norm
    for word in ("null", "none", "None", "~"):
        assert assign(Run(), [f"augment={word}"]).augment is None
        assert assign(Run(grad_clip_norm=1), [f"grad_clip_norm={word}"]).grad_clip_norm is None
        assert load_yaml(Run, f"augment: {word}\n", "f").augment is None
    assert assign(Run(), ["recipe.attack.start=none"]).recipe.attack.start == "none"
    assert assign(Run(), ["augment=null"]).augment is None
    assert assign(Run(data=Npz(path=Path("a"))), ["data.path=null"]).data.path is None


WORDS = [
    "1e-3",
    "yes",
    "007",
    "08",
    "null",
    "nUlL",
    "tRUE",
    "None",
    "1:30",
    "~",
    "0x10",
    "1.5",
    "-.5",
    "+5.",
    "1_000",
    "2026-01-01",
    "<<",
    "=",
    "@a",
    "%",
    "&a",
    "*a",
    "!t",
    "[a",
    "{",
    "'",
]


@pytest.mark.parametrize("word", [*WORDS, "", "set #2", " x ", "- x", "a: b", "x\ny"])
def test_texts_survive_their_own_yaml(word):
    settings = Run(
        recipe={"kind": "at", "attack": {"kind": "external", "call": "a:b", "arguments": {"x": word}}}
    )
    assert load_yaml(Run, settings.yaml(), "f") == settings


BOMB = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12)
)


def test_references_inside_yaml():
    run = load_yaml(Run, "recipe: {attack: &a {kind: fgsm}, kind: at}\nvalidation: {attack: *a}\n", "f")
    assert run.validation.attack == run.recipe.attack


@pytest.mark.parametrize("text", ["a: &x [*x]\n", BOMB, "a: {b: *nowhere}\n"])
def test_references_without_end_are_refused(text):
    with pytest.raises(UserError, match="YAML"):
        load_yaml(Run, text, "run.yaml")


def test_names_in_yaml_are_texts_and_stand_once():
    arguments = load_yaml(
        Run,
        "model:\n  kind: python\n  arguments: {on: off, 08: 09, !!str n: !!str 010, d: 2026-01-01, "
        "t: 12:30:45, e: 1e-3, x: 0x10, z: ~, q: '08'}\n",
        "f",
    ).model.arguments
    assert arguments == {
        "on": "off", "08": 9, "n": "010", "d": "2026-01-01", "t": "12:30:45", "e": 1e-3, "x": "0x10",
        "z": None, "q": "08",
    }  # fmt: skip
    for text in ("seed: 1\nseed: 2\n", "seed: 1\n'seed': 2\n", "augment: {crop: 4, crop: 5}\n"):
        with pytest.raises(UserError, match="given twice"):
            load_yaml(Run, text, "f")
    with pytest.raises(UserError, match="tag"):
        load_yaml(Run, "seed: !!int 010\n", "f")


def test_a_setting_is_given_once():
    with pytest.raises(UserError, match="'seed' is given twice, as 'seed=1' and 'seed=2'"):
        assign(Run(), ["seed=1", "lr=0.1", "seed=2"])
    with pytest.raises(UserError, match="'out' is given twice"):
        read_arguments(["out=a", "out=a"], own=Train())


def test_a_home_folder_is_meant_by_its_sign(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def path(text):
        return assign(Run(data=Npz()), [f"data.path={text}"]).data.path

    assert (path("~"), path("~/a b"), path("a/~")) == (tmp_path, tmp_path / "a b", Path("a/~"))
    assert load_yaml(Run, "data: {kind: npz, path: ~/d}\n", "f").data.path == tmp_path / "d"
    for text in ("~nobody-of-this-name/d", "./~"):  # what a shell leaves as it is
        assert path(text).expanduser() == tmp_path / text


def test_a_file_may_be_named_null(tmp_path):
    assert read_arguments(["out=null"], own=Measure()).own.out == Path("null")
    assert read_arguments([], own=Measure()).own.out is None


class Known(Settings):
    lr: float = 0.1
    out: Path = Path("out")


def test_a_folder_of_images_may_be_named_null(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert assign(Run(data=Npz(path=Path("a"))), ["data.path=null"]).data.path is None
    (tmp_path / "null").mkdir()
    assert assign(Run(data=Npz()), ["data.path=null"]).data.path == Path("null")
    assert assign(Run(), ["augment=null"]).augment is None, "no path"


def test_what_is_no_setting_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a=b.pt").touch()
    Path("seed=1").mkdir()
    arguments = [
        "exp/lr=0.1/run",
        "a=b.pt",
        "seed=1",
        "seed=1@last",
        "./lr=2",
        "lr=0.2",
        "out=lr=3",
        "plain",
        "a b=c",
    ]
    targets, settings = split_arguments(arguments, Known)
    assert targets == ["exp/lr=0.1/run", "a=b.pt", "seed=1", "seed=1@last", "./lr=2", "plain", "a b=c"]
    assert settings == [("lr", "0.2"), ("out", "lr=3")]
    with pytest.raises(UserError, match=r"unknown setting 'lrr'; did you mean 'lr'\?"):
        split_arguments(["lrr=1"], Known)


def test_what_is_on_the_disk_and_no_value_of_a_setting_is_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    for name in ("lr=0.1/m.pth", "lr=0.1 x.ckpt"):
        Path(name).touch()
        assert split_arguments([name], Known) == ([name], [])
    with pytest.raises(UserError, match=r"give './lr=0.1' for the file, or 'lr =0.1' for the setting"):
        split_arguments(["lr=0.1"], Known)
    assert split_arguments(["./lr=0.1", "lr =0.1"], Known) == (["./lr=0.1"], [("lr", "0.1")])
    assert split_arguments(["lr=0.1"], Known, files=False) == ([], [("lr", "0.1")])


def test_commands_take_such_paths(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("exp=1").mkdir()
    Path("exp=1/tiny.yaml").write_text(TINY)
    with pytest.raises(SystemExit) as e:
        main(["train", "exp=1/tiny.yaml", "out=007", "epochs=1", "lr_milestones=[]"])
    assert not e.value.code
    (run,) = Path("007").iterdir()
    run = run.rename(Path("exp=1") / "lr=0.1")
    for arguments in (["report", str(run)], ["measure", f"{run}@last", "n=9", "out=yes"], ["report", "yes"]):
        with pytest.raises(SystemExit) as e:
            main(arguments)
        assert not e.value.code, capsys.readouterr().err
    assert Path("yes").is_file()


def test_a_list_needs_no_brackets():
    run = Run()
    assert assign(run, ["lr_milestones=30,45"]).lr_milestones == (30, 45)
    assert assign(run, ["lr_milestones=30"]).lr_milestones == (30,)
    assert assign(run, ["lr_milestones=[30, 45]"]).lr_milestones == (30, 45)
    assert assign(run, ["stop_on_alarms=catastrophic-overfitting"]).stop_on_alarms == (
        "catastrophic-overfitting",
    )
    assert assign(run, ["model.blocks=null"]).model.blocks is None
    with pytest.raises(UserError, match="lr_milestones"):
        assign(run, ["lr_milestones=a,b"])


def test_short_names_on_command_lines():
    read = read_arguments(["eps=4/255", "device=cpu", "threads=2"], Run, own=Train())
    assert read.changes == {"eps": 4 / 255}
    assert (read.own.runtime.device, read.own.runtime.threads) == ("cpu", 2)
    examined = read_arguments(["eps=4/255", "norm=l2"], Doctor).changes
    assert examined == {"threat.eps": 4 / 255, "threat.kind": "l2"}
    _, run = resolve("cifar10-mini", read.changes | {"epochs": 20})
    assert run.recipe.attack.threat.eps == run.validation.attack.threat.eps == 4 / 255
    assert run.lr_milestones == (10, 15)
    assert resolve("cifar10-mini", {"epochs": 2})[1].lr_milestones == (1,)
