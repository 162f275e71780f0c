"""`crossclass doctor CHECKPOINT`."""

import sys
from typing import Any

from crossclass.cli.app import Partial, Targets, Trust, app
from crossclass.cli.progress import progress_display
from crossclass.core.errors import UserError


@app.command()
def doctor(targets: Targets, trust: Trust = False, allow_partial: Partial = False) -> int:
    """Look for faults in a checkpoint.

    Examined are normalisation, classes, batch norm, weights, and signs of gradient masking; the last line is
    the verdict: the cause, what follows from it, and what to do. It takes the files that `measure` takes.
    Exit code 1 if there is a fault.

    \b
    Examples:
      crossclass doctor robust.pt data.path=cifar10
      crossclass doctor robust.pt data.path=cifar10 transfer=other.pt out=findings.html
      crossclass doctor runs/cifar10-mini-seed0-*@last threat.eps=4/255
    """
    from dataclasses import asdict

    from crossclass.analysis.settle_inputs import settle
    from crossclass.attacks import PGD
    from crossclass.checkpoints.load import LoadedCheckpoint, Source, load_checkpoints, load_second
    from crossclass.cli import own_settings
    from crossclass.cli.arguments import made_by, read_arguments
    from crossclass.core.destinations import is_stdout
    from crossclass.core.files import json_text, require_ending, require_writable, write_atomic
    from crossclass.core.made_by import replaced
    from crossclass.core.overrides import changes_of, override
    from crossclass.core.trust import trusting
    from crossclass.diagnostics import Doctor, Finding, examine, verdict
    from crossclass.models import variants_of

    read = read_arguments(targets, Doctor, Source, own=own_settings.Doctor())
    if len(read.targets) != 1:
        raise UserError("doctor examines one checkpoint, such as model.pt or runs/cifar10-mini-...@last")
    own, changes = read.own, read.changes
    if own.out:
        require_ending(own.out, ".json", ".html", ".htm")
        require_writable(own.out)
        transfer = [("transfer", own.transfer)] if own.transfer else []
        mark = made_by(own.out, "doctor", read.targets, [*read.assignments, *transfer])
    data = changes_of(changes, "data")
    network = changes_of(changes, "model") | changes_of(changes, "weights")
    settings = override(Doctor(), {p: v for p, v in changes.items() if p not in data and p not in network})
    report: list[dict[str, Any]] = []
    lines: list[str] = []  # printed when the file is written
    examined: list[tuple[LoadedCheckpoint, list[Finding]]] = []
    with progress_display("doctor") as progress:
        progress.step("read the checkpoint", 0, 1)
        with trusting(everything=trust):
            source, settled = Source(changes=data | network), None
            loaded = list(load_checkpoints(read.targets, source, own.runtime, allow_partial=allow_partial))
            if own.transfer:
                progress.step(f"read {own.transfer}", 0, 1)
                other = load_second(own.transfer, data, network, own.runtime, allow_partial=allow_partial)
                settled = settle(other, "test", [PGD()], settings.n)
                second = settled.loaded.about
                told = (second.model, *settled.warnings, *second.loaded)
                lines += [f"transfer={own.transfer}: {line}" for line in told]
        for checkpoint in loaded:
            channels = checkpoint.splits.test.images.shape[1]
            if settled is not None and settled.loaded.splits.test.images.shape[1] != channels:
                raise UserError(
                    f"transfer={own.transfer} is not for images of {channels} channels; give another"
                )
            findings = examine(
                checkpoint.model,
                checkpoint.splits,
                settings,
                surrogate=None if settled is None else settled.loaded.model,
                file_normalisation=checkpoint.file_normalisation,
                variants=variants_of(checkpoint.settings),
                progress=progress.step,
            )
            examined.append((checkpoint, findings))
    for checkpoint, findings in examined:
        lines.append(f"{checkpoint.name}: {checkpoint.about.model}; {checkpoint.about.data}")
        lines += [f"  {line}" for line in (*checkpoint.warnings, *checkpoint.about.loaded)]
        for f in findings:
            if f.level != "fine" or own.everything:
                about = f"{f.name}: {f.evidence}"
                folded = f"{'':9}follows: {about}"
                remedy = f"; {f.remedy}" if f.remedy else ""
                lines.append(folded if f.follows_from else f"{f.level:8} {about}{remedy}")
        if not own.everything:
            lines += [
                f"about    {f.evidence}" for f in findings if (f.name, f.level) == ("movable-cas", "fine")
            ]
        fine = [f.name for f in findings if f.level == "fine"]
        lines.append(f"fine ({len(fine)}): {', '.join(fine)}")
        lines.append(verdict(findings))
        rows = [asdict(f) for f in findings]
        report.append({**asdict(checkpoint.about), "verdict": verdict(findings), "findings": rows})
    if own.out:
        if own.out.suffix.lower() in (".html", ".htm"):
            from crossclass.report.doctor import doctor_page

            content = doctor_page(report, mark)
        else:
            content = json_text([{**r, "made_by": mark} for r in report])
        try:
            with replaced(own.out, mark, lambda words: print(words, file=sys.stderr)) as path:
                write_atomic(path, content + "\n")
                lines.append(str(path))
        finally:  # a full disk does not take the findings away
            print("\n".join(lines), file=sys.stderr if is_stdout(own.out) else sys.stdout)
    else:
        print("\n".join(lines))
    return int(any(f["level"] == "fault" for r in report for f in r["findings"]))
