"""Networks that other people wrote: a factory by its name, or a name known to timm, torchvision or the Hub.

Each is a frozen object of settings like the built-in families and makes a `Wrapped`. timm and torchvision
are extras: neither is imported before its name is asked for.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import nn
from torch.nn.parameter import is_lazy

from crossclass.core.errors import UserError, did_you_mean, first_line
from crossclass.core.foreign_code import foreign_code
from crossclass.core.trust import CONSENT, consent, import_callable
from crossclass.data.base import PerChannel
from crossclass.models.base import Classifier, Model, Normalise, Size, load_pretrained
from crossclass.models.hub import config_of
from crossclass.models.returned_before import own_network
from crossclass.models.wrapper import Wrapped

_CLASSES = ("num_classes", "n_classes", "nb_classes", "classes")
"""What factories call the number of classes."""


class ExternalModel(Model):
    """A network that other code defines: where its head and map are, and what normalises in front of it."""

    arguments: dict[str, Any] = Field(default={})
    """Further keyword arguments of the function that makes the network, as in {depth: 20}."""
    head: str | None = None
    """Dotted name of the linear layer whose input are the features; unset: the one that gives the logits."""
    saliency: str | None = None
    """Dotted name of the layer that Grad-CAM looks at; unset is the last that gives a map of the image."""
    normalise: Normalise = "data"
    """Constants put in front of the network; `none` if it normalises itself."""

    def __hash__(self) -> int:
        return hash(self.digest())  # `arguments` is a dictionary, which pydantic's own would refuse

    def __call__(
        self, classes: int, channels: int, mean: PerChannel, std: PerChannel, size: Size = 32
    ) -> Classifier:
        """The network, initialised as its author does; raises UserError if it does not serve."""
        net = self.create(classes, channels)
        if not isinstance(net, nn.Module):
            raise UserError(f"{self} gives a {type(net).__name__}, not a torch.nn.Module")
        for tensor_name, tensor in (*net.named_parameters(), *net.named_buffers()):
            if not is_lazy(tensor) and (tensor.is_meta or tensor.is_inference()):
                what = "on the device meta" if tensor.is_meta else "in torch.inference_mode()"
                raise UserError(f"{self} makes '{tensor_name}' {what}; let it make its tensors without that")
        net = own_network(net, str(self))
        layers = {"head": self.head, "saliency": self.saliency}
        return Wrapped(net, classes, channels, mean, std, size, name=str(self), **layers)

    def create(self, classes: int, channels: int, *, pretrained: bool = False) -> Any:
        """What its author's code returns, which should be a module."""
        raise NotImplementedError(f"{type(self).__name__} must define create(classes, channels)")


class Python(ExternalModel):
    """The network that a function of yours returns, `MODULE:FUNCTION`."""

    kind: Literal["python"] = "python"
    call: str = ""
    """`MODULE:FUNCTION`; the current folder is importable."""

    shorthand: ClassVar[str | None] = "call"

    def __str__(self) -> str:
        return self.call

    def create(self, classes: int, channels: int, *, pretrained: bool = False) -> Any:
        """What the factory returns; it is told the number of classes if it has a parameter for it."""
        if not self.call:
            raise UserError("model.kind=python needs model.call=MODULE:FUNCTION")
        factory = import_callable(self.call, "the model")
        given = dict(self.arguments)
        parameters = _parameters(factory)
        accepted = [name for name in _CLASSES if name in parameters]
        if accepted and not set(accepted) & set(given):
            given[accepted[0]] = classes
        if parameters:
            self._check(parameters, given)
        with _factory_errors(self.call):
            return factory(**given)

    def _check(self, parameters: Mapping[str, inspect.Parameter], given: Mapping[str, Any]) -> None:
        named = [n for n, p in parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        open_ended = any(p.kind == p.VAR_KEYWORD for p in parameters.values())
        unknown = [n for n in given if n not in named]
        if unknown and not open_ended:
            raise UserError(f"{self.call} takes no argument '{unknown[0]}'{did_you_mean(unknown[0], named)}")
        missing = [n for n in named if parameters[n].default is inspect.Parameter.empty and n not in given]
        if missing:
            raise UserError(
                f"{self.call} needs the argument '{missing[0]}'; give model.arguments={{{missing[0]}: ...}}"
            )


def _parameters(factory: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(factory).parameters
    except ValueError:  # some builtins have no signature
        return {}


class Timm(ExternalModel):
    """A network of timm by its name there."""

    kind: Literal["timm"] = "timm"
    name: str = ""
    """Its name in timm, such as resnet18."""
    pretrained: bool = False
    """Start from the weights that timm has for it."""

    shorthand: ClassVar[str | None] = "name"

    def __str__(self) -> str:
        return f"timm's {self.name}"

    def create(self, classes: int, channels: int, *, pretrained: bool = False) -> Any:
        """timm's network; raises UserError if timm is not there or does not know it."""
        if not self.name:
            raise UserError("model.kind=timm needs model.name=..., such as resnet18")
        return _from_timm(self.name, classes, channels, self.arguments, pretrained)

    def load_pretrained(self, model: Classifier) -> None:
        """Put timm's weights in, if `pretrained`."""
        if self.pretrained:
            _copy_pretrained(self, model)


class Torchvision(ExternalModel):
    """A network of torchvision by its name there."""

    kind: Literal["torchvision"] = "torchvision"
    name: str = ""
    """Its name in torchvision, such as resnet18."""
    weights: str | None = None
    """Start from these weights, such as DEFAULT; the head only if it has as many classes."""

    shorthand: ClassVar[str | None] = "name"

    def __str__(self) -> str:
        return f"torchvision's {self.name}"

    def create(self, classes: int, channels: int, *, pretrained: bool = False) -> Any:
        """torchvision's network; raises UserError if torchvision is not there or does not know it."""
        if not self.name:
            raise UserError("model.kind=torchvision needs model.name=..., such as resnet18")
        with _import_errors("torchvision", "vision"):
            import torchvision
        known = torchvision.models.list_models()
        if self.name not in known:
            raise UserError(f"torchvision knows no '{self.name}'{did_you_mean(self.name, known)}")
        with _factory_errors(str(self)):
            if pretrained:  # torchvision wants the number of classes of the weights
                return torchvision.models.get_model(self.name, weights=self.weights, **self.arguments)
            return torchvision.models.get_model(
                self.name, weights=None, **{"num_classes": classes, **self.arguments}
            )

    def load_pretrained(self, model: Classifier) -> None:
        """Put torchvision's weights in, if `weights` are named."""
        if self.weights is not None:
            _copy_pretrained(self, model)


class HF(ExternalModel):
    """A network of timm's architecture from a repository of the Hugging Face Hub, with its weights."""

    kind: Literal["hf"] = "hf"
    repo: str = ""
    """The repository, owner/name."""

    shorthand: ClassVar[str | None] = "repo"

    def __str__(self) -> str:
        return f"the network of {self.repo}"

    def create(self, classes: int, channels: int, *, pretrained: bool = False) -> Any:
        """What the repository's config.json describes; raises UserError if timm cannot make it."""
        if not self.repo:
            raise UserError("model.kind=hf needs model.repo=OWNER/NAME")
        if not isinstance(config_of(self.repo).get("architecture"), str):
            raise UserError(
                f"config.json of {self.repo} names no timm architecture; write a function that returns the "
                "network and name it with model=python:MODULE:FUNCTION"
            )
        return _from_timm(f"hf-hub:{self.repo}", classes, channels, self.arguments, pretrained)

    def load_pretrained(self, model: Classifier) -> None:
        """Put the repository's weights in."""
        _copy_pretrained(self, model)


_TIMM_FILES = ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay")
"""Arguments with which timm reads a file of weights; older versions unpickle it, which runs code."""


def _from_timm(name: str, classes: int, channels: int, arguments: dict[str, Any], pretrained: bool) -> Any:
    if (files := [a for a in _TIMM_FILES if a in arguments]) and not consent().everything:
        raise UserError(
            f"model.arguments has {files[0]}, by which timm reads a file that may run code; leave it out and "
            f"measure the file itself, or {CONSENT}"
        )
    with _import_errors("timm", "timm"):
        import timm
    if not name.startswith("hf-hub:") and not timm.is_model(name):
        raise UserError(f"timm knows no '{name}'; timm.list_models('*resnet*') lists such names")
    given = {"num_classes": classes, "in_chans": channels, **arguments}
    with _factory_errors(f"timm's {name}"):
        return timm.create_model(name, pretrained=pretrained, **given)


def _copy_pretrained(settings: ExternalModel, model: Classifier) -> None:
    """Copy the pretrained network's tensors; only heads may differ in shape, and then stay fresh."""
    assert isinstance(model, Wrapped)
    classes = model.classes
    source = settings.create(classes, model.channels, pretrained=True).state_dict()
    layers = model.net.named_modules()
    heads = [n for n, m in layers if isinstance(m, nn.Linear) and m.out_features == classes]
    names = [f"{head}.{part}" for head in heads for part in ("weight", "bias")]
    names += model.head_weights
    load_pretrained(model.net, source, names, f"the weights for {settings} do not fit it")
    model.choose_head()


@contextmanager
def _factory_errors(name: str) -> Iterator[None]:
    """An error in someone else's code becomes a sentence that says whose."""
    try:
        with foreign_code(name, "calling"):
            yield
    except UserError:
        raise
    except Exception as e:
        raise UserError(
            f"{name} could not be made ({type(e).__name__}: {first_line(e)}); correct it, or set "
            "model.arguments={...}"
        ) from e


@contextmanager
def _import_errors(name: str, extra: str) -> Iterator[None]:
    """An extra that is missing, or that does not fit this torch, becomes one line of advice."""
    try:
        yield
    except ModuleNotFoundError as e:
        raise UserError(f"model.kind={name} needs {e.name}; pip install 'crossclass[{extra}]'") from e
    except (ImportError, RuntimeError, AttributeError) as e:  # 'operator torchvision::nms does not exist'
        advice = "install torch and torchvision together, both for this machine"
        if "torchvision" in first_line(e):
            advice = f"the installed torchvision was built for another torch; {advice}"
        raise UserError(
            f"{name} cannot be imported ({first_line(e)}); {advice}, or use a built-in model.kind"
        ) from e
