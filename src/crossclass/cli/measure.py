"""`crossclass measure CHECKPOINT`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from crossclass.cli.app import Partial, Targets, Trust, app
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError

if TYPE_CHECKING:
    from crossclass.analysis.compare import SaliencyMaps
    from crossclass.analysis.measure import Measure
    from crossclass.checkpoints.load import Source
    from crossclass.core.overrides import Changes

    M = TypeVar("M", bound=Measure)


@app.command()
def measure(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Measure and compare checkpoints, ours or anyone's.

    Printed are accuracy, C, CAS and I-CAS with intervals; two checkpoints are compared. RUN is best.val and
    last; RUN@best.test selects. Any other file needs data.path=DIR, and model=python:my_nets:resnet4b unless
    its network is built in. The path of the result is the last line.

    \b
    Examples:
      crossclass measure runs/cifar10-mini-seed0-* saliency=6
      crossclass measure robust.pt data.path=cifar10 attack.steps=50 n=1000 out=robust.json
      crossclass measure a.pt b.pt data.path=cifar10 attack=autoattack
    """
    from crossclass.analysis.measure import Measure, measure
    from crossclass.analysis.pictures import write_pictures
    from crossclass.analysis.result_files import write_results
    from crossclass.checkpoints.load import Source
    from crossclass.cli import own_settings
    from crossclass.cli.arguments import read_arguments
    from crossclass.cli.destination import destination
    from crossclass.core.destinations import is_replaced
    from crossclass.report.console import table

    read = read_arguments(targets, Measure, Source, own=own_settings.Measure())
    to, runtime = destination("measure", read, "measure.json"), read.own.runtime
    if "saliency" in read.changes and not to.is_file:
        raise UserError(
            f"saliency draws a grid beside the result, and {to.path} is no file; give out=FILE.json"
        )

    def draw(maps: "SaliencyMaps", name: str) -> str:
        from crossclass.report.plots.paper_figures import draw_maps  # matplotlib is slow to import

        with to.beside(f"-saliency{name and '-'}{name}.png") as path:
            return draw_maps(maps, path, to.mark)

    def write() -> Path:
        with to.written(progress.log) as path:
            write_results(path, results.model_copy(update={"made_by": to.mark}))
            write_pictures(path, [r.pictures for r in results.results])
        return path

    with progress_display("measure") as progress:
        results = measure(
            read.targets,
            *measure_settings(read.changes, Measure()),
            runtime,
            progress.step,
            trust=trust,
            allow_partial=allow_partial,
            draw=draw,
        )
        if is_replaced(to.path):
            progress.log(f"{to.path} is replaced")
        try:
            path = runtime.group.on_main_process(write)
        finally:  # a full disk does not take the numbers away
            words = sys.stderr if to.is_stdout else sys.stdout
            for line in table(results):
                print(line, file=words)
    print(path, file=words)


def measure_settings(changes: "Changes", start: "M") -> "tuple[M, Source]":
    """The settings that `attack.steps=50`, `attack=none`, `data.path=DIR` make of `start`. Raises UserError.

    A typed attack starts from the reference attack: `attack.kind=pgd` is PGD-20, as no attack at all is.
    """
    from crossclass.checkpoints.load import Source
    from crossclass.core.config import flat
    from crossclass.core.overrides import changes_of, override

    source = {k: v for part in ("data", "model", "weights") for k, v in changes_of(changes, part).items()}
    own = {path: value for path, value in changes.items() if path not in source}
    attack = {path.removeprefix("attack."): own.pop(path) for path in list(own) if path.startswith("attack.")}
    whole = own.get("attack", "")
    if "attack" in own and whole in (None, "none"):
        own = {**own, "attack": None, "clean": True}
    elif isinstance(whole, dict):
        attack |= flat(own.pop("attack"))
    elif isinstance(whole, str) and whole and ":" not in whole:
        attack["kind"] = own.pop("attack")
    settings = override(start, {**own, **({"attack_changes": attack} if attack else {})})
    return settings, Source(changes=source)
