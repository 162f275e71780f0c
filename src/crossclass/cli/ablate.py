"""`crossclass ablate TARGET`."""

import sys
from pathlib import Path

from crossclass.cli.app import Partial, Targets, Trust, app
from crossclass.cli.progress import progress_display


@app.command()
def ablate(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Remove features and attack what is left.

    Shared, specific and random features are held at their means, and the network without them is attacked.
    Sets are alike in attribution mass, or in the clean accuracy that they cost. Of a run, or of two
    checkpoints of one, components are exchanged too. Curves are drawn beside the result.

    \b
    Examples:
      crossclass ablate runs/cifar10-mini-seed0-* n=500
      crossclass ablate robust.pt data.path=cifar10 draws=20 fractions=0.1,0.2 out=ablation.json
      crossclass ablate robust.pt data.path=cifar10 attack=autoattack attack.attacks=[apgd-ce]
    """
    from crossclass.analysis.ablate import Ablate, ablate
    from crossclass.checkpoints.load import Source
    from crossclass.cli import own_settings
    from crossclass.cli.arguments import read_arguments
    from crossclass.cli.destination import destination
    from crossclass.cli.measure import measure_settings
    from crossclass.core.files import json_text, write_atomic
    from crossclass.report.ablation_table import ablation_table

    read = read_arguments(targets, Ablate, Source, own=own_settings.Ablate())
    to, runtime = destination("ablate", read, "ablation.json"), read.own.runtime

    def write() -> tuple[Path, str | None]:
        figure = None
        if to.is_file:
            from crossclass.report.plots.paper_figures import draw_ablation  # matplotlib is slow to import

            with to.beside("-curves.svg") as path:
                figure = draw_ablation(file, path, to.mark)
        whole = file.model_copy(update={"figure": figure})
        with to.written(progress.log) as path:
            write_atomic(path, json_text(whole.to_dict()) + "\n")
        return path, figure

    with progress_display("ablate") as progress:
        file = ablate(
            read.targets,
            *measure_settings(read.changes, Ablate()),
            runtime,
            progress.step,
            progress.log,
            trust=trust,
            allow_partial=allow_partial,
        )
        file = file.model_copy(update={"made_by": to.mark})
        words = sys.stderr if to.is_stdout else sys.stdout
        try:
            path, figure = runtime.group.on_main_process(write)
        finally:
            for line in ablation_table(file):
                print(line, file=words)
    if figure:
        print(f"curves: {figure}", file=words)
    print(path, file=words)
