"""`crossclass features TARGET`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crossclass.cli.app import Partial, Targets, Trust, app
from crossclass.cli.progress import progress_display

if TYPE_CHECKING:
    from crossclass.analysis.feature_records import FeatureFile
    from crossclass.analysis.features import SheetRow


@app.command()
def features(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> None:
    """Show which features classes share, and which were forgotten.

    CAS is split over the network's features. A run, or two checkpoints of one, shows what each feature adds
    at the first and no longer at the second; one checkpoint shows its most shared and its most specific
    features. A sheet beside the result shows images on which they are strong, and where in them they lie.

    \b
    Examples:
      crossclass features runs/cifar10-mini-seed0-*
      crossclass features runs/cifar10-mini-seed0-* pair=automobile,truck out=wheels.json
      crossclass features robust.pt data.path=cifar10 n=1000 top=6 images=4
    """
    from crossclass.analysis.features import Features, features
    from crossclass.checkpoints.load import Source
    from crossclass.cli import own_settings
    from crossclass.cli.arguments import read_arguments
    from crossclass.cli.destination import destination
    from crossclass.cli.measure import measure_settings
    from crossclass.core.files import json_text, write_atomic
    from crossclass.report.feature_table import feature_table

    read = read_arguments(targets, Features, Source, own=own_settings.Features())
    to, runtime = destination("features", read, "features.json"), read.own.runtime

    def draw(rows: "list[SheetRow]", file: "FeatureFile") -> str:
        from crossclass.report.plots.paper_figures import draw_features  # matplotlib is slow to import

        with to.beside("-sheet.png") as path:
            return draw_features(rows, file, path, to.mark)

    def write() -> Path:
        with to.written(progress.log) as path:
            write_atomic(path, json_text(file.to_dict()) + "\n")
        return path

    with progress_display("features") as progress:
        file = features(
            read.targets,
            *measure_settings(read.changes, Features()),
            runtime,
            progress.step,
            trust=trust,
            allow_partial=allow_partial,
            draw=draw if to.is_file else None,
        )
        file = file.model_copy(update={"made_by": to.mark})
        words = sys.stderr if to.is_stdout else sys.stdout
        try:
            path = runtime.group.on_main_process(write)
        finally:
            for line in feature_table(file):
                print(line, file=words)
    print(path, file=words)
