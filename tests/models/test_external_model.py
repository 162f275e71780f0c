"""Networks by name: factories, and timm, torchvision and the Hub acted by small modules and a folder."""

import importlib
import importlib.util
import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from crossclass import models
from crossclass.cli.arguments import assign
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError
from crossclass.core.trust import names_of_code, trusting
from crossclass.models import HF, MeanStd, Python, Timm, Torchvision, ViT
from crossclass.models.vit import adapted
from crossclass.training.run import Run
from foreign_networks import IMAGES, Net, variant

# Factories


def test_a_factory_is_told_the_classes_and_what_the_user_says(made):
    net = made(Net, classes=7)
    assert net.head.out_features == 7
    told = made(lambda num_classes, depth=2: Net(num_classes, depth), classes=3, arguments={"depth": 9})
    assert (told.head.in_features, told.head.out_features) == (9, 3)
    own = made(
        lambda num_classes=2, **more: Net(num_classes), classes=5, arguments={"num_classes": 5, "a": 1}
    )
    assert own.head.out_features == 5


def test_the_seed_decides_the_weights_of_a_factory(made):
    images = IMAGES
    a, b = made(Net).state_dict(), made(Net).state_dict()
    c = models.build(Python(call="somebodys:factory"), images, 4, 1).state_dict()
    assert all(torch.equal(a[k], b[k]) for k in a)
    assert not torch.equal(a["net.top.weight"], c["net.top.weight"])


def test_a_factory_that_returns_the_same_network_again(made):
    only = Net(4)

    def part():
        return nn.Sequential(only.conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))

    for factory in (lambda: only, part):
        first = made(factory)
        start = {name: t.clone() for name, t in first.state_dict().items()}
        with torch.no_grad():
            for parameter in first.parameters():
                parameter.add_(1)
        later = {name: t.clone() for name, t in first.state_dict().items()}
        second = made(factory)
        shared = {p.data_ptr() for p in first.parameters()} & {p.data_ptr() for p in second.parameters()}
        assert not shared
        assert all(torch.equal(t, start[name]) for name, t in second.state_dict().items())
        assert all(torch.equal(t, later[name]) for name, t in first.state_dict().items())


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_network_with_scripted_layers(made):
    def factory():
        net = Net(4)
        net.conv = torch.jit.script(net.conv)
        return net

    x = torch.rand(2, 3, 8, 8)
    net = made(factory)
    assert torch.allclose(net.head(net.features(x)), net(x), atol=1e-5)


@pytest.mark.parametrize(("where", "word"), [(torch.device("meta"), "meta"), (None, "inference_mode")])
def test_tensors_without_values_or_gradients_are_a_sentence(made, where, word):
    def factory():
        net = Net(4)
        with where or torch.inference_mode():
            net.extra = nn.Linear(2, 2)
        return net

    with pytest.raises(UserError, match=rf"'extra.weight'.*{word}"):
        made(factory)


def test_normalisation_is_put_in_front(made):
    net, x = made(Net, normalise="none"), torch.rand(2, 3, 8, 8)
    assert torch.equal(net(x), net.net(x))
    own = made(Net, normalise=MeanStd(mean=(0.5,), std=(0.25,)))
    assert torch.equal(own(x), own.net((x - 0.5) / 0.25))
    assert torch.allclose(
        made(Net).mean.flatten(), IMAGES.double().div(255).mean(dim=(0, 2, 3)).float(), atol=1e-6
    )


def test_rebuilding_gives_the_same_function(made):
    net, x = made(Net), torch.rand(2, 3, 8, 8)
    again = models.rebuild(Python(call="somebodys:factory"), net.state_dict(), 4, 3, 8)
    assert torch.equal(net(x), again(x))
    with pytest.raises(UserError, match="do not fit"):
        models.rebuild(Python(call="somebodys:factory"), {**net.state_dict(), "x": net.mean}, 4, 3, 8)


def forward_raising(self, x):
    raise RuntimeError("mat1 and mat2\ncannot be multiplied.")


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (lambda: 3, {}, ["gives a int", "torch.nn.Module"]),
        (lambda depth: Net(), {}, ["needs the argument 'depth'", "model.arguments={depth: ...}"]),
        (lambda depth=1: Net(), {"arguments": {"dept": 2}}, ["no argument 'dept'", "did you mean 'depth'"]),
        (lambda: 1 / 0, {}, ["could not be made", "ZeroDivisionError", "division by zero"]),
        (variant(forward_raising), {}, ["fails on images [2, 3, 8, 8]", "RuntimeError: mat1 and mat2)"]),
        (variant(lambda self, x: self.body(x)[:, :4]), {}, ["no linear layer", "gives 4 columns"]),
        (Net, {"classes": 4, "arguments": {"classes": 9}}, ["returns [2, 9]", "[2, 4]", "num_classes: 4"]),
        (variant(lambda self, x: "logits"), {}, ["returns a str", "return a tensor"]),
        (Net, {"head": "topp"}, ["model.head=topp", "did you mean 'top'"]),
        (Net, {"head": "conv"}, ["model.head=conv", "Conv2d", "nn.Linear"]),
        (Net, {"head": "unused"}, ["model.head=unused", "does not run"]),
        (Net, {"head": "hidden"}, ["no linear layer", "gives 4 columns"]),
        (Net, {"saliency": "cnv"}, ["model.saliency=cnv", "does not exist", "did you mean 'conv'"]),
        (Net, {"saliency": "top"}, ["model.saliency=top", "gives [2, 4]"]),
        (Net, {"saliency": "unused"}, ["model.saliency=unused", "does not run"]),
    ],
)
def test_what_does_not_serve_is_refused_in_one_sentence(made, factory, settings, words):
    with pytest.raises(UserError) as e:
        made(factory, **settings)
    assert "\n" not in str(e.value)
    for word in ["somebodys:factory", *words]:
        assert word in str(e.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Python(), "model.call=MODULE:FUNCTION"),
        (Timm(), "model.name"),
        (Torchvision(), "model.name"),
        (HF(), "model.repo"),
        (Python(call="nowhere_at_all:f"), "no module 'nowhere_at_all'"),
        (Python(call="json"), "MODULE:NAME"),
        (Python(call="json:dumps"), "needs the argument 'obj'"),
        (Python(call="json:dumps", arguments={"obj": 1}), "gives a str"),
    ],
)
def test_a_name_that_is_missing_or_wrong_is_refused(trusted, settings, words):
    with pytest.raises(UserError, match=words):
        models.build(settings, IMAGES, 4, 0)


def test_a_factory_in_the_current_folder_is_found_and_named_in_a_word(tmp_path, monkeypatch):
    code = "from torch import nn\n\ndef net(classes):\n"
    code += "    return nn.Sequential(nn.Conv2d(3, 5, 8), nn.Flatten(), nn.Linear(5, classes))\n"
    (tmp_path / "nets_of_mine.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    run = assign(Run(), ["model=python:nets_of_mine:net"])
    with trusting("nets_of_mine:net"):
        net = models.build(run.model, IMAGES, 4, 0)
    assert net.head_name == "2"
    assert net.features(torch.rand(2, 3, 8, 8)).shape == (2, 5)
    assert list(names_of_code(run.to_dict())) == ["nets_of_mine:net"]
    monkeypatch.delitem(sys.modules, "nets_of_mine")


def test_settings_of_foreign_models_are_plain_and_hashable():
    mine = Python(call="a:b", arguments={"depth": 20, "wide": [1, 2]}, head="fc")
    assert load_yaml(Python, mine.yaml(), "f") == mine
    assert hash(mine) == hash(Python(call="a:b", arguments={"depth": 20, "wide": [1, 2]}, head="fc"))
    assert len({hash(m) for m in (mine, mine.replace(arguments={}), Timm(name="a"), HF(repo="a"))}) == 4
    assert hash(Run(model=mine)) == hash(Run(model=mine))
    run = assign(
        Run(), ["model.kind=python", "model.call=a:b", "model.arguments={depth: 20}", "model.head=fc"]
    )
    assert run.model == Python(call="a:b", arguments={"depth": 20}, head="fc")
    assert models.describe(Timm(name="x"), 3) == "timm's x, 3 classes"


# timm and torchvision, acted by small modules


class FakeTimm(types.ModuleType):
    """Knows `tiny`; what it makes when pretrained is all ones."""

    def __init__(self) -> None:
        super().__init__("timm")
        self.asked = []

    def is_model(self, name):
        return name == "tiny"

    def create_model(self, name, pretrained=False, num_classes=1000, in_chans=3, width=6):
        self.asked.append((name, pretrained, num_classes, in_chans))
        net = Net(num_classes, width)
        if pretrained:
            for p in net.parameters():
                nn.init.ones_(p)
        return net


@pytest.fixture
def timm(monkeypatch):
    fake = FakeTimm()
    monkeypatch.setitem(sys.modules, "timm", fake)
    return fake


def test_timm_makes_a_network_for_these_images(timm):
    net = models.build(Timm(name="tiny", arguments={"width": 7}), IMAGES, 4, 0)
    assert timm.asked == [("tiny", False, 4, 3)]
    assert net.head.in_features == 7
    with pytest.raises(UserError, match=r"fails on images \[2, 1, 8, 8\]"):
        models.build(Timm(name="tiny"), IMAGES[:, :1], 4, 0)
    assert timm.asked[-1] == ("tiny", False, 4, 1)
    with pytest.raises(UserError, match="timm knows no 'tinny'"):
        models.build(Timm(name="tinny"), IMAGES, 4, 0)
    with pytest.raises(UserError, match=r"timm's tiny could not be made \(TypeError: .*img_size"):
        models.build(Timm(name="tiny", arguments={"img_size": 8}), IMAGES, 4, 0)


def test_pretrained_weights_are_where_a_run_starts_and_are_not_fetched_again(timm):
    settings = Timm(name="tiny", pretrained=True)
    net = models.build(settings, IMAGES, 4, 0)
    assert all((p == 1).all() for p in net.parameters())
    timm.asked.clear()
    models.rebuild(settings, net.state_dict(), 4, 3, 8)
    assert [pretrained for _, pretrained, *_ in timm.asked] == [False]
    assert not all((p == 1).all() for p in models.build(Timm(name="tiny"), IMAGES, 4, 0).parameters())


def fake_torchvision(monkeypatch, width=6):
    top = types.ModuleType("torchvision")
    top.models = types.SimpleNamespace(
        list_models=lambda: ["tiny", "alexnet"],
        get_model=lambda name, weights=None, num_classes=9, **more: made_by_torchvision(
            weights, num_classes, width if weights else 6, **more
        ),
    )
    monkeypatch.setitem(sys.modules, "torchvision", top)


def made_by_torchvision(weights, classes, width):
    net = Net(classes, width)
    if weights == "DEFAULT":
        for p in net.parameters():
            nn.init.ones_(p)
    return net


def test_torchvisions_weights_leave_a_head_of_other_classes_fresh(monkeypatch):
    fake_torchvision(monkeypatch)
    net = models.build(Torchvision(name="tiny", weights="DEFAULT"), IMAGES, 4, 0)
    assert (net.net.conv.weight == 1).all()
    assert not (net.net.top.weight == 1).any()
    assert (models.build(Torchvision(name="tiny", weights="DEFAULT"), IMAGES, 9, 0).head.weight == 1).all()
    assert not (models.build(Torchvision(name="tiny"), IMAGES, 9, 0).head.weight == 1).any()
    with pytest.raises(UserError, match="did you mean 'alexnet'"):
        models.build(Torchvision(name="alexnt"), IMAGES, 4, 0)
    fake_torchvision(monkeypatch, width=8)
    with pytest.raises(UserError, match=r"weights for torchvision's tiny do not fit it: hidden\.weight"):
        models.build(Torchvision(name="tiny", weights="DEFAULT"), IMAGES, 4, 0)


@pytest.mark.parametrize(
    ("settings", "library", "extra"),
    [(Timm(name="a"), "timm", "timm"), (Torchvision(name="a"), "torchvision", "vision")],
)
def test_a_missing_extra_is_named_with_its_install_line(monkeypatch, settings, library, extra):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(UserError, match=rf"needs {library}; pip install 'crossclass\[{extra}\]'"):
        models.build(settings, IMAGES, 4, 0)


def test_a_torchvision_of_another_torch_is_one_line_of_advice(monkeypatch, tmp_path):
    for name, line in (
        ("torchvision", "raise RuntimeError('operator torchvision::nms does not exist')"),
        ("timm", "import torchvision"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(line + "\n")
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    for settings in (Timm(name="a"), Torchvision(name="a")):
        with pytest.raises(UserError, match=r"operator torchvision::nms.*install torch and torchvision") as e:
            models.build(settings, IMAGES, 4, 0)
        assert "\n" not in str(e.value)


# The Hub, acted by a folder


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A folder of files `repo/name` in place of the Hub, and a list of what was asked for."""
    asked: list[str] = []

    def download(repo: str, name: str) -> str:
        asked.append(f"{repo}/{name}")
        path = tmp_path / repo / name
        if not path.exists():
            raise ConnectionError(f"offline.\nno {name}")
        return str(path)

    module = types.ModuleType("huggingface_hub")
    module.hf_hub_download = download
    monkeypatch.setitem(sys.modules, "huggingface_hub", module)
    (tmp_path / "me" / "it").mkdir(parents=True)
    return tmp_path / "me" / "it", asked


SMALL = ViT(width=12, depth=2, heads=3, pretrained="me/it")


def imagenet(folder, classes=9, width=12):
    with torch.device("meta"):
        net = ViT(width=width, depth=2, heads=3, patch=16)(classes, 3, (0.0,), (1.0,), 224)
    tensors = {n: torch.randn(t.shape) for n, t in net.state_dict().items() if n not in ("mean", "std")}
    save_file(tensors, folder / "model.safetensors")
    return tensors


def test_a_vit_starts_from_resized_weights_and_is_not_fetched_again(hub):
    folder, asked = hub
    given = imagenet(folder)
    net = models.build(SMALL, IMAGES, 4, 0)
    state, wanted = net.state_dict(), adapted(given, 4, (2, 2))
    assert state["pos_embed"].shape == (1, 5, 12)
    assert state["patch_embed.proj.weight"].shape == (12, 3, 4, 4)
    body = [n for n in wanted if not n.startswith("head")]
    assert all(torch.equal(state[n], wanted[n]) for n in body)
    fresh = models.build(SMALL.replace(pretrained=None), IMAGES, 4, 0)
    assert torch.equal(net.head.weight, fresh.head.weight), "nine classes are not four"
    assert torch.equal(net.mean, fresh.mean)
    assert torch.equal(models.build(SMALL, IMAGES, 9, 0).head.weight, given["head.weight"])
    asked.clear()
    models.rebuild(SMALL, state, 4, 3, 8)
    assert asked == []


def test_weights_that_cannot_be_had_are_one_sentence(hub, monkeypatch):
    folder, _ = hub
    words = r"cannot get model\.safetensors of 'me/it'.*ConnectionError: offline\).*connection"
    with pytest.raises(UserError, match=words) as e:
        models.build(SMALL, IMAGES, 4, 0)
    assert "\n" not in str(e.value)
    (folder / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(UserError, match="is damaged"):
        models.build(SMALL, IMAGES, 4, 0)
    imagenet(folder, width=24)
    with pytest.raises(UserError, match=r"pretrained=me/it does not fit.*differs \(\d+ in all\)"):
        models.build(SMALL, IMAGES, 4, 0)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="pip install"):
        models.build(SMALL, IMAGES, 4, 0)


def test_a_repository_of_timm_gives_its_network_with_its_weights(hub, timm):
    folder, _ = hub
    (folder / "config.json").write_text(json.dumps({"architecture": "tiny"}))
    net = models.build(HF(repo="me/it"), IMAGES, 4, 0)
    assert {name for name, *_ in timm.asked} == {"hf-hub:me/it"}
    assert all((p == 1).all() for p in net.parameters())
    for text, words in (
        (json.dumps({"architectures": ["BertModel"]}), "names no timm architecture"),
        ("[1]", "names no timm architecture"),
        ("{", "damaged"),
    ):
        (folder / "config.json").write_text(text)
        with pytest.raises(UserError, match=words):
            models.build(HF(repo="me/it"), IMAGES, 4, 0)


# The real timm, where it is installed


@pytest.fixture(scope="module")
def real_timm():
    """timm itself, importable beside a CPU-only torch too.

    torchvision registers two operators unguarded that such a torch lacks; here they are declared first.
    """
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed: pip install 'crossclass[timm]'")
    schemas = torch.library.Library("torchvision", "FRAGMENT")
    try:
        yield importlib.import_module("timm")
    except RuntimeError:
        for name in [n for n in sys.modules if n.split(".")[0] in ("torchvision", "timm")]:
            del sys.modules[name]
        schemas.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        schemas.define("qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        yield importlib.import_module("timm")


@pytest.mark.filterwarnings("ignore")
def test_our_vit_is_timms_deit_tiny(real_timm):
    theirs = real_timm.create_model("deit_tiny_patch16_224", img_size=32, patch_size=4, num_classes=10).eval()
    with torch.no_grad():
        for name, p in theirs.named_parameters():
            p.add_(0.1 * torch.randn_like(p)) if p.ndim == 1 or "token" in name else None
    ours = ViT(normalise="none")(10, 3, (0.0,), (1.0,), 32).eval()
    state = theirs.state_dict()
    ours.load_state_dict({**state, "mean": ours.mean, "std": ours.std})
    x = torch.rand(4, 3, 32, 32)
    g, logits = ours.outputs(x)
    assert torch.allclose(logits, theirs(x), rtol=1e-5, atol=1e-5)
    features = theirs.forward_head(theirs.forward_features(x), pre_logits=True)
    assert torch.allclose(g, features, rtol=1e-5, atol=1e-5)
    assert models.recognize(state) == (ViT(), 10, 1.0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("name", "arguments", "head", "layer"),
    [
        ("deit_tiny_patch16_224", {"img_size": 32, "patch_size": 4, "depth": 2}, "head", "blocks.1.norm1"),
        ("resnet18", {}, "fc", "layer4"),
        ("vgg11", {}, "head.fc", None),
    ],
)
def test_networks_of_timm_show_their_head_and_map(real_timm, name, arguments, head, layer):
    images = IMAGES.repeat(1, 1, 8, 8) if not arguments else IMAGES.repeat(1, 1, 4, 4)
    net = models.build(Timm(name=name, arguments=arguments), images, 10, 0).eval()
    assert net.head_name == head
    assert net.notes == ()
    assert layer is None or net.saliency_layer() is net.net.get_submodule(layer)
    x, seen = torch.rand(2, 3, images.shape[-1], images.shape[-1]), []
    net.saliency_layer().register_forward_hook(lambda m, a, out: seen.append(out))
    net(x)
    assert net.as_map(seen[0]).ndim == 4
