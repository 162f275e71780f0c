"""`crossclass measure CHECKPOINT`."""

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from crossclass.cli.app import Partial, Targets, Trust, app
from crossclass.core.errors import UserError
from crossclass.core.progress import watching

if TYPE_CHECKING:
    from crossclass.analysis.compare import SaliencyMaps


@app.command()
def measure(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Measure checkpoints, ours or anyone's: accuracy, C, CAS, I-CAS with intervals; compare two.

    RUN is best.val and last; RUN@best.test selects. A stranger's file needs data.path=DIR, and
    model=python:my_nets:factory unless its network is built in. Settings: attack.steps=50,
    attack.kind=autoattack, attack=none, attribution_subset=correct, n=500, split=val, seed=1, saliency=6,
    out=measure.json (the grid of maps lies beside it).
    """
    from crossclass.analysis.measure import Measure, measure
    from crossclass.analysis.records import write_results
    from crossclass.checkpoints.loaded import Source
    from crossclass.cli.assignments import read_arguments
    from crossclass.core.files import demand_writable
    from crossclass.core.runtime import Runtime
    from crossclass.report.console import table

    read = read_arguments(
        targets, Measure, Source, out=(Path, Path("measure.json")), runtime=(Runtime, Runtime())
    )
    if not read.targets:
        raise UserError("measure needs a run folder or a checkpoint, such as runs/cifar10-mini-...")
    out, runtime = read.own.out, read.own.runtime
    demand_writable(out)

    def draw(maps: "SaliencyMaps", name: str) -> str:
        from crossclass.report.plots.entries import draw_maps  # matplotlib is slow to import

        return draw_maps(maps, out.with_name(f"{out.stem}-saliency{name and '-'}{name}.png"))

    with watching("measure") as progress:
        try:
            results = measure(
                read.targets,
                read.changes,
                runtime,
                progress.step,
                trust=trust,
                allow_partial=allow_partial,
                draw=draw,
            )
        except KeyboardInterrupt:
            progress.log("crossclass: stopped; nothing was written")
            raise typer.Exit(130) from None
    for line in table(results):
        print(line)
    runtime.on_main_process(lambda: write_results(out, results))
    print(out)
