"""Named runs by their name, run files, and `path=value` changes to both."""

from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

from crossclass.attacks.norms import AnyThreat
from crossclass.attacks.other_norm import changes_for_norm
from crossclass.core.config import load_yaml
from crossclass.core.errors import UserError, did_you_mean
from crossclass.core.overrides import Changes, override
from crossclass.core.plugins import kind_of, members
from crossclass.core.short_names import spelled_out
from crossclass.paper.runs.mini import MINI
from crossclass.paper.runs.paper import PAPER
from crossclass.paper.runs.published import PUBLISHED
from crossclass.training.run import Run

NAMED: dict[str, Run] = {**MINI, **PAPER, **PUBLISHED}


def named(name: str) -> Run:
    """A run by its name; raises UserError with the nearest name."""
    if name not in NAMED:
        raise UserError(f"unknown run '{name}'{did_you_mean(name, NAMED)}")
    return NAMED[name]


def resolve(target: str, changes: Changes | None = None) -> tuple[str, Run]:
    """Label and run of a name or a YAML file (a run, whole or in part), with other values at dotted paths."""
    if target.endswith((".yaml", ".yml")):
        path = Path(target)
        if not path.is_file():
            raise UserError(f"there is no run file {target}")
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as e:
            raise UserError(f"{target} cannot be read as text; give a YAML file") from e
        label, run = path.stem, load_yaml(Run, text, target)
    else:
        label, run = target, named(target)
    return label, with_changes(run, changes or {})


def with_changes(run: Run, changes: Changes) -> Run:
    """The run with other values.

    `data.path` implies data of kind npz where the run's have no files; with other `epochs` the lr_milestones
    keep their shares of the run, unless they are given too; `eps`, `norm` and `steps` may be short, and with
    another `norm` attacks take a start and a step that suit it, unless these are given too.
    """
    changes = _with_norm(run, changes) if "norm" in changes else spelled_out(run, changes)
    if "data.path" in changes and "data.kind" not in changes and not hasattr(run.data, "path"):
        changes = {"data.kind": "npz", **changes}
    epochs = changes.get("epochs")
    if isinstance(epochs, int) and "lr_milestones" not in changes:
        scaled = (round(m * epochs / run.epochs) for m in run.lr_milestones)
        changes = {"lr_milestones": sorted({m for m in scaled if 0 < m < epochs}), **changes}
    return override(run, changes)


def _with_norm(run: Run, changes: Changes) -> dict[str, Any]:
    """Changes with whole paths for `norm` and other short names, and what attacks need in that norm."""
    spelled = spelled_out(run, changes)
    balls = {path: value for path, value in spelled.items() if path.endswith(".threat.kind")}
    needs_norm = ("eps", "start", "rel_step", "step_size")
    plain = {p: v for p, v in spelled.items() if p not in balls and p.rpartition(".")[2] not in needs_norm}
    with suppress(UserError):  # which attacks there are depends on these, as on recipe.kind=kd
        run = override(run, plain)
    fitting: dict[str, Any] = {}
    for path, kind in balls.items():
        where = path.removesuffix(".threat.kind")
        for threat in (known for known in members(AnyThreat) if kind_of(known) == kind):
            needed = changes_for_norm(attrgetter(where)(run), threat)
            fitting |= {f"{where}.{name}": value for name, value in needed.items()}
            if f"{where}.step_size" in spelled:
                fitting.pop(f"{where}.rel_step", None)
    return fitting | spelled
