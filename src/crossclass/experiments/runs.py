"""Named runs: everything that a recipe's author left to the code is said here, in settings.

Each entry is preceded by its cost and by what to expect of it.
"""

from collections.abc import Sequence
from pathlib import Path

from crossclass.attacks import PGD
from crossclass.data import CIFAR10, Digits, Npz, Shapes
from crossclass.errors import UserError, did_you_mean
from crossclass.importing import ask_trust
from crossclass.models import PreActResNet
from crossclass.recipes import AT, Check, Run, Standard
from crossclass.settings import load_yaml, override, split_assignment
from crossclass.threat import L2, Linf

THIN = PreActResNet(width=32, stem=4, stem_stride=2, blocks=(1, 1, 1))
"""A network that a laptop trains adversarially in seconds an epoch; on small images it overfits at once."""

NAMED: dict[str, Run] = {
    # Robust overfitting on a real data set within minutes: PGD-7 AT on 1,000 CIFAR-10 images, thin net.
    # About 5 minutes on 2 cores with bf16. Seen (3 seeds, results/spine-cifar10): test robust accuracy
    # peaks near 22 % in epochs 6 to 12 and ends near 7 %, training robust accuracy reaches 98 %, CAS falls
    # from 10 to 2.4. A check costs almost three epochs, so it is made every third, crafting in bf16.
    "cifar10-mini": Run(
        data=Npz(n_train=1000, n_val=1000, n_test=1000),
        model=THIN,
        recipe=AT(attack=PGD(steps=7, start="uniform", precision="bf16")),
        augment=None,
        epochs=60,
        drops=(30, 45),
        batch=64,
        lr=0.05,
        check=Check(every=3, attack=PGD(steps=10, precision="bf16")),
    ),
    # The demo: the paper's data model as pictures, its cross-class features known. About 2.5 minutes on
    # 2 cores. A large learning rate until the plateau, then one drop, as in the paper: test robust
    # accuracy jumps, and falls while the 300 pictures are memorised. The fall is some 5 to 9 points.
    "shapes-demo": Run(
        data=Shapes(),
        model=THIN.but(normalise="data"),
        recipe=AT(attack=PGD(steps=7)),
        augment=None,
        epochs=72,
        drops=(24, 64),
        batch=32,
        lr=0.1,
        check=Check(every=6, n=300, attack=PGD(steps=10)),
    ),
    # Real scans without a download; robust overfitting is only slight on them. A minute or two.
    "digits-at": Run(
        data=Digits(),
        model=THIN.but(stem=3, stem_stride=1, blocks=(1, 1), normalise="data"),
        recipe=AT(attack=PGD(threat=Linf(eps=0.2), steps=7)),
        augment=None,
        epochs=30,
        drops=(15, 22),
        batch=64,
        lr=0.05,
        check=Check(every=3, attack=PGD(threat=Linf(eps=0.2), steps=10)),
    ),
    # The paper's runs (Table 2; PKU-ML/Cross-Class-Features-AT), batch norm in train mode while
    # crafting as in its code. By operation counts 1.8 hours an epoch on 2 cores; not run here.
    "wei2025-at-linf-8": Run(data=CIFAR10(), recipe=AT(attack=PGD(bn="train"))),
    "wei2025-at-l2-128": Run(
        data=CIFAR10(), recipe=AT(attack=PGD(threat=L2(eps=128 / 255), step=0.125, bn="train"))
    ),
    "wei2025-standard": Run(data=CIFAR10(), recipe=Standard()),
}


def named(name: str) -> Run:
    """A run by its name; raises UserError with the nearest name."""
    if name not in NAMED:
        raise UserError(f"unknown run '{name}'{did_you_mean(name, NAMED)}")
    return NAMED[name]


def resolve(target: str, assignments: Sequence[str] = (), *, trust: bool = True) -> tuple[str, Run]:
    """Label and run of a name or a YAML file (a run, whole or in part), with `path=value` changes.

    Without `trust`, a file that names code to import is refused: whoever goes on to run it asks for that.
    """
    if target.endswith((".yaml", ".yml")):
        path = Path(target)
        if not path.is_file():
            raise UserError(f"there is no run file {target}")
        try:
            text = path.read_text()
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{target} cannot be read as text; give a YAML file") from e
        label, run = path.stem, load_yaml(Run, text, target)
        ask_trust(run.plain(), target, trust)
    else:
        label, run = target, named(target)
    return label, with_changes(run, assignments)


def with_changes(run: Run, assignments: Sequence[str]) -> Run:
    """The run after `path=value` changes; `data.path=DIR` implies npz where the data has no files."""
    paths = [split_assignment(a)[0] for a in assignments]
    if "data.path" in paths and "data.kind" not in paths and not hasattr(run.data, "path"):
        assignments = ["data.kind=npz", *assignments]
    return override(run, assignments)
