"""The verdicts of a study as tables: python results/verdicts.py [check]

Writes results/mini/README.md, every claim with the numbers that decide it, and the table in the project's
README between its two markers; both come from results/mini/*.json and results/reasons.yaml alone. With
`check` nothing is written, and the exit code is 1 if one of them is not what it would be.
"""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from crossclass.paper.entries import ENTRIES
from crossclass.paper.verdict import WORDS

HERE = Path(__file__).parent
FULL, FRONT = HERE / "mini" / "README.md", HERE.parent / "README.md"
BEGIN, END = "<!-- verdicts: written by results/verdicts.py -->\n", "<!-- end of verdicts -->"

PREFACE = """\
# Verdicts at size mini

Written by `python results/verdicts.py`. Each claim names numbers that are positive where it is true. It
*holds* if their 95 % intervals over the seeds (Student's t; with three seeds 2.5 standard deviations) lie
above its margin, *does not hold* if one lies at or below it, and is *undecided* otherwise. Accuracies are
fractions. Read CAS together with accuracy: a classifier that always predicts the same class would maximise
it. No levels are compared with the paper's: its networks and training sets have another size.
"""


def entries() -> list[dict[str, Any]]:
    """The stored results of every entry, in the order of the paper."""
    paths = [HERE / "mini" / f"{id_}.json" for id_ in ENTRIES]
    return [json.loads(path.read_text()) for path in paths if path.exists()]


def cell(text: str) -> str:
    """Text in a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;").replace("*", "\\*")


def full(found: list[dict[str, Any]], reasons: dict[str, list[str]]) -> str:
    """The page of every claim with its numbers."""
    lines = [PREFACE]
    for entry in found:
        lines += [f"## {entry['id']}: {entry['title']}", "", f"The paper: {entry['claim']}", ""]
        for extension in (False, True):
            own = [v for v in entry["verdicts"] if v["extension"] == extension]
            if own:
                head = "beyond the paper" if extension else "claim"
                lines += [f"| {head} | verdict | numbers |", "|---|---|---|"]
                for v in own:
                    where = f" ({v['where']})" if v["where"] else ""
                    lines.append(f"| {cell(v['claim'] + where)} | {v['verdict']} | {cell(v['reason'])} |")
                lines.append("")
        for reason in reasons.get(entry["id"], ()):
            lines += [reason, ""]
        lines += [f"![{entry['title']}]({entry['id']}.svg)", ""]
    return "\n".join(lines).rstrip() + "\n"


def front(found: list[dict[str, Any]]) -> str:
    """The table of the paper's own claims, one line per entry."""
    lines = ["| | the paper's claims | hold | do not | undecided |", "|---|---|---|---|---|"]
    for entry in found:
        words = Counter(v["verdict"] for v in entry["verdicts"] if not v["extension"])
        if words:
            counts = " | ".join(str(words[w]) if words[w] else "" for w in WORDS)
            lines.append(
                f"| [{entry['id']}](results/mini/{entry['id']}.svg) | {cell(entry['title'])} | {counts} |"
            )
    total = Counter(v["verdict"] for entry in found for v in entry["verdicts"] if not v["extension"])
    lines.append("| | **together** | " + " | ".join(f"**{total[w]}**" for w in WORDS) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write, or check."""
    if sys.argv[1:] not in ([], ["check"]):
        raise SystemExit(f"it takes `check` or nothing, not {' '.join(sys.argv[1:])}; nothing is written")
    found = entries()
    reasons = yaml.safe_load((HERE / "reasons.yaml").read_text()) or {}
    readme = FRONT.read_text()
    head, _, rest = readme.partition(BEGIN)
    _, marker, tail = rest.partition(END)
    if not marker:
        raise SystemExit(f"{FRONT} lacks the markers of the table")
    wanted = {FULL: full(found, reasons), FRONT: head + BEGIN + front(found) + END + tail}
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
