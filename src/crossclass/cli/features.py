"""`crossclass features TARGET`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from crossclass.cli.app import Partial, Targets, Trust, app
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError

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
    from crossclass.checkpoints.card import file_sha256
    from crossclass.checkpoints.load import Source
    from crossclass.cli import own_settings
    from crossclass.cli.arguments import made_by, read_arguments
    from crossclass.cli.measure import measure_settings
    from crossclass.core.destinations import follow, is_stdout, takes_bytes
    from crossclass.core.files import json_text, require_ending, require_writable, write_atomic
    from crossclass.core.made_by import own_name, replaced, reserved
    from crossclass.report.feature_table import feature_table

    read = read_arguments(targets, Features, Source, own=own_settings.Features())
    if not read.targets:
        raise UserError("features needs a run folder or a checkpoint, such as runs/cifar10-mini-...")
    out, runtime = read.own.out or Path("features.json"), read.own.runtime
    require_ending(out, ".json")
    require_writable(out)
    files = [file_sha256(Path(t)) for t in read.targets if Path(t).is_file()]
    mark = made_by(out, "features", read.targets, read.assignments, files)
    out = out if read.own.out else own_name(out, mark)
    no_sheet = takes_bytes(follow(out))

    def draw(rows: "list[SheetRow]", file: "FeatureFile") -> str:
        from crossclass.report.plots.paper_figures import draw_features  # matplotlib is slow to import

        end = follow(out)
        with reserved(end.with_name(f"{end.stem}-sheet.png"), mark) as path:
            return draw_features(rows, file, path, mark)

    def write() -> Path:
        with replaced(out, mark, progress.log) if read.own.out else reserved(out, mark) as path:
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
            draw=None if no_sheet else draw,
        )
        file = file.model_copy(update={"made_by": mark})
        words = sys.stderr if is_stdout(out) else sys.stdout
        try:
            path = runtime.group.on_main_process(write)
        finally:
            for line in feature_table(file):
                print(line, file=words)
    print(path, file=words)
