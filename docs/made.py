"""Pages made from the program itself: commands, public names, verdicts, speed, findings, the theory panel.

`conf.py` calls `write(folder)` before every build, and pages include what it writes.
"""

import inspect
import json
import re
from pathlib import Path

from typer.testing import CliRunner

import crossclass
from crossclass.analysis.metrics import METRICS
from crossclass.cli import app, names
from crossclass.cli.catalogue import lines
from crossclass.diagnostics import FINDINGS

ROOT = Path(__file__).parent.parent


def cli() -> str:
    """Every command with its help, and everything that has a name."""
    runner = CliRunner(env={"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1"})
    helps = {name: runner.invoke(app, [name, "--help"]).output for name in names()}
    parts = [f"## crossclass {name}\n\n{_text(text)}" for name, text in helps.items()]
    return "\n\n".join([*parts, f"## What has a name\n\n{_text(chr(10).join(lines()))}"]) + "\n"


def api() -> str:
    """Every public name, from its docstring, under the module it lives in."""
    parts = []
    homes = crossclass._homes()
    for module in dict.fromkeys(homes.values()):
        parts.append(f"## {module}")
        parts.append(_directive("module", module, ["no-members:", "no-index:"]))
        for name in (n for n, home in homes.items() if home == module):
            thing = getattr(crossclass, name)
            error = inspect.isclass(thing) and issubclass(thing, Exception)
            kind = "exception" if error else "class" if inspect.isclass(thing) else "function"
            options = ["members:", "special-members: __call__"] if kind == "class" else []
            parts.append(_directive(kind, f"{module}.{name}", options))
    return "\n\n".join(parts) + "\n"


def paper() -> str:
    """Every claim and its verdict, as results/verdicts.py wrote it, with links that work from docs/."""
    text = (ROOT / "results" / "mini" / "README.md").read_text()
    text = re.sub(r"\]\((?!http)([\w./-]+)\)", r"](../results/mini/\1)", text)
    changed = (ROOT / "results" / "mini" / "changed.md").read_text()
    title = changed.partition("\n")[0].removeprefix("# ")
    text = text.replace("](../results/mini/changed.md)", f"](#{title.lower().replace(' ', '-')})")
    changed = changed.replace("[verdicts](README.md)", "verdicts")
    return text.replace("# Verdicts at size mini\n", "", 1) + f"\n#{changed}"


def speed() -> str:
    """The tables of benchmarks/speed.py, from its largest stored run."""
    results = ROOT / "benchmarks" / "results"
    path = next(p for size in ("full", "bench") if (p := results / f"speed-{size}.json").exists())
    speeds, parts = json.loads(path.read_text()), []
    usual = [b for b in speeds["attack"] if (b["norm"], b["steps"]) == ("linf", 10)]
    for block in usual + speeds["training"]:
        what = f"{block['norm']}, PGD-{block['steps']}" if "norm" in block else "training epochs"
        rows = ["| | images a second | share | times ours |", "|---|---|---|---|"]
        for r in block["jobs"]:
            if speed := r["images a second"]:
                rows.append(
                    f"| {r['job']} | {speed:,.3g} | {r['share of bf16']:.0%} | {r['times ours']:.2f} |"
                )
        parts.append("\n".join([f"**{block['net']}**, {what}", "", *rows]))
    start = "".join(f"\n| `{name}` | {s:.2f} s |" for name, s in speeds["start"].items())
    parts.append(f"| start | |\n|---|---|{start}")
    sizes = "".join(f"\n| {name} | {mib:,.0f} MiB |" for name, mib in speeds["memory"].items())
    parts.append(
        f"| largest size of a process that attacks one batch of PreActResNet-18 | |\n|---|---|{sizes}"
    )
    for net, ways in speeds["allocator"].items():
        kept = "".join(f"\n| {way} | {value:.3g} |" for way, value in ways.items())
        parts.append(f"| seconds of PGD-10 on {net}, each in a process of its own | |\n|---|---|{kept}")
    return "\n\n".join(parts) + "\n"


def coverage() -> str:
    """The table of benchmarks/coverage.py, of the intervals as they were and as they are."""
    found = json.loads((ROOT / "benchmarks" / "results" / "coverage.json").read_text())
    keys = {"cas": "CAS", "d_cas": "CAS, difference", "icas": "I-CAS", "d_icas": "I-CAS, difference"}
    keys |= {"robust": "accuracy", "d_robust": "accuracy, difference"}
    rows = [f"| test sets | {' | '.join(keys.values())} |", "|---" * (1 + len(keys)) + "|"]
    for cell, after in found["after"].items():
        texts = []
        for key in keys:
            pair = [found["before"][cell][key], after[key]]
            held = [f"{100 * m['coverage']:.0f} %" for m in pair]
            width = [f"{m['width']:.2g}" for m in pair]
            texts.append(", ".join(a if a == b else f"{a} \u2192 {b}" for a, b in (held, width)))
        rows.append(f"| {cell} | {' | '.join(texts)} |")
    return "\n".join(rows) + "\n"


def metrics() -> str:
    """Every metric, as the list of metrics has it."""
    rows = [f"| `{m.key}` | {m.label} | {m.unit} | {m.direction} | {m.doc} |" for m in METRICS]
    return "\n".join(["| key | name | unit | better | what it is |", "|---|---|---|---|---|", *rows]) + "\n"


def findings() -> str:
    """Every finding of `doctor`."""
    rows = [f"| `{name}` | {text} |" for name, text in FINDINGS.items()]
    return "\n".join(["| finding | what it says |", "|---|---|", *rows]) + "\n"


def panel() -> str:
    """The interactive panel of the theory, one fragment of HTML."""
    from crossclass.report.theory_panel import panel as made

    return str(made())


def _directive(kind: str, target: str, options: list[str]) -> str:
    given = "".join(f"   :{option}\n" for option in options)
    return f"```{{eval-rst}}\n.. auto{kind}:: {target}\n{given}```"


def _text(text: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```"


MADE = {
    "cli.md": cli,
    "api.md": api,
    "paper.md": paper,
    "speed.md": speed,
    "coverage.md": coverage,
    "findings.md": findings,
    "metrics.md": metrics,
    "panel.html": panel,
}


def write(folder: Path) -> None:
    """All of them, rewritten only where they changed."""
    folder.mkdir(exist_ok=True)
    for name, make in MADE.items():
        text = make()
        path = folder / name
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
