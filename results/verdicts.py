"""The verdicts of a study as tables: python results/verdicts.py [check]

Writes results/mini/README.md, every claim with the numbers that decide it, the table in docs/paper.md and the
counts in the project's README, both between two marks, from results/mini/*.json and results/reasons.yaml.
With `check` nothing is written, and the exit code is 1 if one of them is not what it would be.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from crossclass.paper.entries import ENTRIES, over_study
from crossclass.paper.verdict import WORDS

HERE = Path(__file__).parent
ROOT = HERE.parent
FULL = HERE / "mini" / "README.md"
BEGIN, END = "<!-- verdicts: written by results/verdicts.py -->", "<!-- end of verdicts -->"

PREFACE = """\
# Verdicts at size mini

Every claim of the paper, the verdict here, and the numbers that decide it (written by
`python results/verdicts.py`).

Each claim is about a quantity that is positive if the claim is true, such as the fall of CAS from the best
checkpoint to the last. It is measured for each seed. The claim *holds* if the quantity is above a margin,
*does not hold* if it is below, and is *undecided* if seeds and test images are too few to tell.

| column | meaning |
|---|---|
| p | two-sided p-value over seeds and test images |
| p (Holm) | adjusted for the claims of the same entry; this one decides, at 5 % |
| p (study) | adjusted for the claims of all entries (Benjamini and Hochberg) |
| could have decided | the smallest quantity that these seeds would have decided with 80 % probability |
| numbers | the quantity, its 95 % interval (not adjusted), and its value for each seed |

Claims without a p-value are exact or about settings. Accuracies are fractions.

- Seed 0 is shown and not counted, because the settings were chosen on it.
- All seeds are measured on the same test images, so what is particular to these images does not average out.
  Their variance is added in full, an upper bound.
- The best of many checks is partly luck. So the fall from best to last is that of the straight line through
  the checks after the first drop of the learning rate.
- How often these rules err is simulated in
  [benchmarks/verdict_rules.py](../../benchmarks/verdict_rules.py).
- Absolute levels are not compared with the paper's, because its networks and training sets are larger.

[What each verdict was before these rules, and why it changed](changed.md).
"""


def entries() -> list[dict[str, Any]]:
    """The stored results of every entry, in the order of the paper."""
    paths = [HERE / "mini" / f"{id_}.json" for id_ in ENTRIES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def cell(text: str) -> str:
    """Text in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("*", "\\*")


def number(value: float | None) -> str:
    """A p-value or a difference in a table; a dash for none."""
    return "–" if value is None else "&lt; 0.001" if 0 < value < 0.001 else f"{value:.2g}"


def tested(v: dict[str, Any], q: float | None) -> str:
    """The cells of p-values and of what could have been decided."""
    seen = v.get("detectable") or {}
    decided = ", ".join(dict.fromkeys(f"{d:.2g}" if d is not None else "nothing" for d in seen.values()))
    return " | ".join((number(v.get("p")), number(v.get("p_holm")), number(q), decided or "–"))


def full(found: list[dict[str, Any]], reasons: dict[str, list[str]]) -> str:
    """The page of every claim with its numbers."""
    lines = [PREFACE]
    for entry, adjusted in zip(found, over_study(found), strict=True):
        lines += [f"## {entry['id']}: {entry['title']}", "", f"The paper: {entry['claim']}", ""]
        for extension in (False, True):
            own = [
                (v, q)
                for v, q in zip(entry["verdicts"], adjusted, strict=True)
                if v["extension"] == extension
            ]
            if own:
                chance = any(v.get("p") is not None for v, _ in own)
                titles = ["beyond the paper" if extension else "claim", "verdict"]
                titles += ["p", "p (Holm)", "p (study)", "could have decided"] if chance else []
                lines += [f"| {' | '.join([*titles, 'numbers'])} |", "|---" * (len(titles) + 1) + "|"]
                for v, q in own:
                    where = f" ({v['where']})" if v["where"] else ""
                    cells = [cell(v["claim"] + where), v["verdict"], *([tested(v, q)] if chance else [])]
                    lines.append(f"| {' | '.join([*cells, cell(v['reason'])])} |")
                lines.append("")
        for reason in reasons.get(entry["id"], ()):
            lines += [reason, ""]
        lines += [f"![{entry['title']}]({entry['id']}.svg)", ""]
    return "\n".join(lines).rstrip() + "\n"


def table(found: list[dict[str, Any]]) -> str:
    """The table of the paper's own claims for docs/paper.md, one line per entry."""
    lines = ["| | the paper's claims | hold | do not | undecided |", "|---|---|---|---|---|"]
    for entry in found:
        words = counted([entry])
        if words:
            counts = " | ".join(str(words[w]) if words[w] else "" for w in WORDS)
            picture = f"../results/mini/{entry['id']}.svg"
            lines.append(f"| [{entry['id']}]({picture}) | {cell(entry['title'])} | {counts} |")
    total = counted(found)
    lines.append("| | **together** | " + " | ".join(f"**{total[w]}**" for w in WORDS) + " |")
    return "\n" + "\n".join(lines) + "\n"


def counts(found: list[dict[str, Any]]) -> str:
    """How many of the paper's claims came out how, in words, for the README."""
    total = counted(found)
    holds, does_not, undecided = (total[w] for w in WORDS)
    do = "does" if does_not == 1 else "do"
    failed = f"{does_not} {do} not hold"
    return f"{sum(total.values())} claims {holds} hold, {failed} and {undecided} are undecided"


def counted(found: list[dict[str, Any]]) -> Counter[str]:
    """How often each verdict was given to a claim of the paper."""
    return Counter(v["verdict"] for entry in found for v in entry["verdicts"] if not v["extension"])


def main() -> None:
    """Write, or check."""
    if sys.argv[1:] not in ([], ["check"]):
        raise SystemExit(f"it takes `check` or nothing, not {' '.join(sys.argv[1:])}; nothing is written")
    found = entries()
    reasons = yaml.safe_load((HERE / "reasons.yaml").read_text()) or {}
    wanted = {FULL: full(found, reasons)}
    for page, text in ((ROOT / "docs" / "paper.md", table(found)), (ROOT / "README.md", counts(found))):
        head, begin, rest = page.read_text().partition(BEGIN)
        if not begin:
            raise SystemExit(f"{page} lacks the marks of what is written into it")
        wanted[page] = head + BEGIN + text + END + rest.partition(END)[2]
    if sys.argv[1:] == ["check"]:
        wrong = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
        if wrong:
            raise SystemExit(
                f"run python results/verdicts.py: {', '.join(map(str, wrong))} are not up to date"
            )
        return
    for path, text in wanted.items():
        path.write_text(text)


if __name__ == "__main__":
    main()
