"""The parts of the pages that come from the program: python docs/made.py [check]

Writes docs/settings.md, and in other pages what stands between `<!-- made: NAME -->` and `<!-- end -->`.
With `check` nothing is written, and the exit code is 1 if a page is not what it would be. What a code host
cannot show (autodoc, the sliders of the theory) takes the place of `<!-- site: NAME -->` in `make docs`.
"""

import inspect
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import records_table
import settings_page
from typer.main import get_command

import crossclass
from crossclass.analysis.metrics import METRICS
from crossclass.cli import app
from crossclass.cli.catalogue import lines
from crossclass.core.files import write_atomic
from crossclass.diagnostics import FINDINGS

HERE = Path(__file__).parent
ROOT = HERE.parent


def cli() -> str:
    """Every command with its arguments and examples, and everything that has a name."""
    sections = settings_page.sections_of_commands()
    parts = []
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        about, _, examples = inspect.cleandoc(command.help).partition("\n\n\b\nExamples:\n")
        parts += [f"## crossclass {name}", about, _text(inspect.cleandoc(examples))]
        parts.append("\n".join(_parameter(p) for p in command.params if p.help))
        if found := sections.get(name):
            links = (f"[{title}](settings.md#{settings_page.anchor(title)})" for title in found)
            parts.append(f"Settings: {', '.join(links)}.")
    return "\n\n".join([*filter(None, parts), "## What has a name", _text("\n".join(lines()))])


def _parameter(parameter: Any) -> str:
    if parameter.name == "changes":
        return "- `path=value ...`: settings"
    word = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar or parameter.name
    return f"- `{word}`: {parameter.help}"


def api() -> str:
    """Every public name with the first line of its docstring, by package."""
    packages: dict[str, list[str]] = {}
    for name, home in crossclass._homes().items():
        thing = getattr(crossclass, name)
        module = sys.modules[thing.__name__ if inspect.ismodule(thing) else thing.__module__]
        path = Path(str(module.__file__)).relative_to(ROOT).as_posix()
        doc = settings_page.cell((inspect.getdoc(thing) or "").partition("\n")[0])
        row = f"| [`{name}`](../{path}) | {doc} |"
        packages.setdefault(home.split(".")[1], []).append(row)
    return "\n\n".join(
        "\n".join([f"## {package}", "", "| name | what it is |", "|---|---|", *rows])
        for package, rows in packages.items()
    )


def autodoc() -> str:
    """Directives for every public name under the module it lives in; only the site can show them."""
    parts = ["## Every name in full"]
    homes = crossclass._homes()
    for module in dict.fromkeys(homes.values()):
        parts.append(f"### {module}")
        parts.append(_directive("module", module, ["no-members:", "no-index:"]))
        for name in (n for n, home in homes.items() if home == module):
            thing = getattr(crossclass, name)
            error = inspect.isclass(thing) and issubclass(thing, Exception)
            if inspect.ismodule(thing):
                parts.append(_directive("module", f"{module}.{name}", ["members:"]))
                continue
            kind = "exception" if error else "class" if inspect.isclass(thing) else "function"
            options = ["members:", "special-members: __call__"] if kind == "class" else []
            parts.append(_directive(kind, f"{module}.{name}", options))
    return "\n\n".join(parts)


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
    """The interactive panel of the theory."""
    from crossclass.report.theory_panel import panel as made

    return f"```{{raw}} html\n{made()}\n```"


def notebook() -> str:
    """The cells of examples/first_look.py, text as it is and code as code."""
    cells = (ROOT / "examples" / "first_look.py").read_text().split("\n# %%")[1:]
    parts = []
    for cell in cells:
        kind, _, body = cell.partition("\n")
        if "markdown" in kind:
            text = "\n".join(line.removeprefix("#").removeprefix(" ") for line in body.splitlines())
            parts.append(re.sub(r"^#", "##", text, flags=re.M).strip())
        else:
            parts.append(f"```python\n{body.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def _directive(kind: str, target: str, options: list[str]) -> str:
    given = "".join(f"   :{option}\n" for option in options)
    return f"```{{eval-rst}}\n.. auto{kind}:: {target}\n{given}```"


def _text(text: str) -> str:
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```"


BLOCKS: dict[str, Callable[[], str]] = {
    "cli": cli,
    "api": api,
    "speed": speed,
    "coverage": coverage,
    "findings": findings,
    "metrics": metrics,
    "records": records_table.table,
}
"""What stands in pages between two marks."""

SITE: dict[str, Callable[[], str]] = {"api": autodoc, "notebook": notebook, "panel": panel}
"""What only the site shows."""


def pages() -> dict[Path, str]:
    """Every page that is made in whole or in part, with what it should say."""
    out = {HERE / "settings.md": settings_page.settings()}
    for path in sorted(HERE.glob("*.md")):
        old = path.read_text(encoding="utf-8")
        if (new := _filled(old)) != old or "<!-- made: " in old:
            out[path] = new
    return out


def _filled(text: str) -> str:
    """A page with its blocks as they should be."""
    mark = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", flags=re.S)
    return mark.sub(lambda m: f"{m[1]}{BLOCKS[m[2]]().strip()}\n{m[3]}", text)


def for_site(text: str) -> str:
    """A page with what only the site can show; pages outside of docs/ are files to download there."""
    text = re.sub(r"\]\((\.\./[^)#]+\.md)\)", r"](<path:\1>)", text)
    return re.sub(r"<!-- site: (\w+) -->", lambda m: SITE[m[1]](), text)


def main() -> None:
    """Write, or check."""
    if sys.argv[1:] not in ([], ["check"]):
        raise SystemExit(f"it takes `check` or nothing, not {' '.join(sys.argv[1:])}; nothing is written")
    wrong = {p: text for p, text in pages().items() if not p.exists() or p.read_text("utf-8") != text}
    if sys.argv[1:] and wrong:
        raise SystemExit(f"run python docs/made.py: {', '.join(p.name for p in wrong)} are not up to date")
    for path, text in wrong.items():
        write_atomic(path, text)


if __name__ == "__main__":
    main()
