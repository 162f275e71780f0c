"""A table of runs as text, CSV, JSON, Markdown, LaTeX and Parquet."""

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from crossclass.analysis.metrics import DIGITS, Metric
from crossclass.analysis.setting_names import ABSENT, words
from crossclass.analysis.table_of_runs import LEVEL, Cell, Conditions, TableOfRuns, TableRow
from crossclass.core.errors import UserError
from crossclass.core.files import json_text
from crossclass.report.console import CAUTION
from crossclass.report.format import short_attack, split_name

PM = "±"
_HEADS = {"clean": "clean", "robust": "robust"}


def plain(table: TableOfRuns) -> Iterator[str]:
    """The table in lines for a terminal or a pipe, then what its numbers are."""
    heads, body = _grid(table)
    widths = [max(map(len, column)) for column in zip(heads, *body, strict=True)]
    text = len(heads) - len(table.checkpoints) * len(table.metrics)
    for line in [heads, *body]:
        cells = [
            c.ljust(w) if i < text - 1 else c.rjust(w)
            for i, (c, w) in enumerate(zip(line, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
    yield from notes(table)


def notes(table: TableOfRuns) -> Iterator[str]:
    """What the numbers of a table are, and what is not in it, a sentence each."""
    if not table.rows:
        yield "No run has been evaluated yet."
    else:
        yield intervals_note(table)
        yield conditions_note(table)
    apart = table.differing_conditions
    if "attack" in apart:
        yield "Rows of different attacks are not comparable in robust accuracy and CAS, and are not averaged."
    if {"data", "checksum"} & set(apart):
        yield "Not all rows are of the same images; these are not averaged."
    if "chosen_by" in apart:
        yield "Not all best checkpoints were chosen on the same part of the data; see 'best chosen on'."
    for run, other in table.doubled.items():
        yield f"{run} is the same run as {other}; it is counted once."
    for run, why in table.missing.items():
        yield f"Not in the table: {run}: {why}."
    if any(m.key == "cas" for m in table.metrics) and table.rows:
        yield CAUTION


def intervals_note(table: TableOfRuns) -> str:
    """Of what the intervals are."""
    counts = {len(row.runs) for row in table.rows}
    of = "seeds" if table.pool == ("seed",) else "runs that differ in " + ", ".join(table.pool)
    parts = []
    if counts - {1}:
        parts.append(f"mean of the {of} {PM} half of its {LEVEL:.0%} t interval (same test images)")
    if 1 in counts:
        one = f"of one {'seed' if table.pool == ('seed',) else 'run'}" if counts - {1} else "of each run"
        parts.append(f"[low, high]: the interval {one} over test images")
    text = "; ".join(parts)
    return f"{text[:1].upper()}{text[1:]}. Accuracies in percent."


def conditions_note(table: TableOfRuns) -> str:
    """Under which conditions, as far as these are the same for all rows."""
    apart, c = table.differing_conditions, table.rows[0].conditions
    parts = [] if "attack" in apart else [f"evaluated with {c.attack}"]
    if not {"n", "split", "data"} & set(apart):
        parts.append(_images(c))
    if c.attributed and "attributed" not in apart:
        parts.append(c.attributed)
    if c.chosen_by and "chosen_by" not in apart:
        parts.append(f"best is chosen on {split_name(c.chosen_by)} images")
    text = "; ".join(parts) or "how a row was evaluated stands in it"
    return f"{text[:1].upper()}{text[1:]}."


def _images(c: Conditions) -> str:
    n = f"{c.n:,}" if c.n else "an unknown number of"
    return " ".join(filter(None, [n, c.split, "images of", c.data or "data not recorded"]))


def _brief_images(every: Sequence[Conditions]) -> list[str]:
    """The images of each row in few words; where these say the same of different ones, with a checksum."""
    brief = [_images(c._replace(data=c.data.partition(" (")[0])).replace(" images of", "") for c in every]
    of: dict[str, set[str | None]] = {}
    for text, c in zip(brief, every, strict=True):
        of.setdefault(text, set()).add(c.checksum)
    return [
        f"{t}, {(c.checksum or '?')[:6]}" if len(of[t]) > 1 else t for t, c in zip(brief, every, strict=True)
    ]


def conditions_columns(table: TableOfRuns) -> dict[str, list[str]]:
    """The conditions in which rows differ, in few words, by the head of their column."""
    apart, every = table.differing_conditions, [row.conditions for row in table.rows]
    out: dict[str, list[str]] = {}
    if "attack" in apart:
        short = [short_attack(c.attack) for c in every]
        told = len(set(short)) == len({c.attack for c in every})
        out["evaluated with"] = short if told else [c.attack for c in every]
    if {"n", "split", "data", "checksum"} & set(apart):
        out["images"] = _brief_images(every)
    if "attributed" in apart:
        out["attributions"] = [c.attributed or "all images" for c in every]
    if "chosen_by" in apart:
        out["best chosen on"] = [split_name(c.chosen_by) for c in every]
    return out


def row_heads(table: TableOfRuns) -> tuple[list[str], list[list[str]]]:
    """The columns that tell rows apart, and their texts."""
    settings = table.telling
    more = conditions_columns(table)
    heads = ["run"] * (table.named or not settings) + settings + list(more)
    rows = []
    for i, row in enumerate(table.rows):
        cells = [row.name] if heads[:1] == ["run"] else []
        cells += [words(row.settings.get(name, ABSENT)) or "-" for name in settings]
        rows.append([*cells, *(column[i] for column in more.values())])
    return heads, rows


def _grid(table: TableOfRuns) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the table as plain text."""
    heads, rows = row_heads(table)
    columns = [(at, m) for m in table.metrics for at in table.checkpoints]
    heads = [
        *heads,
        "seeds" if table.pool == ("seed",) else "runs",
        *(metric_head(m, at) for at, m in columns),
    ]
    body = [
        [*cells, str(len(row.runs)), *(cell_text(row.cells.get((at, m.key)), m) for at, m in columns)]
        for cells, row in zip(rows, table.rows, strict=True)
    ]
    return heads, body


def metric_head(m: Metric, at: str) -> str:
    """The head of the column of a metric at a checkpoint."""
    return " ".join(filter(None, (_HEADS.get(m.key, m.label), at)))


def cell_text(cell: Cell | None, m: Metric, pm: str = PM) -> str:
    """A number with its interval: `41.0 ±1.2` over runs, `41.0 [39.8, 42.2]` over images."""
    if cell is None:
        return "-"
    scale, digits = (100, 1) if m.unit == "accuracy" else (1, DIGITS[m.unit])
    value = f"{scale * cell.mean:.{digits}f}"
    if cell.low is None or cell.high is None:
        return value
    if cell.n > 1:
        return f"{value} {pm}{scale * (cell.high - cell.low) / 2:.{digits}f}"
    return f"{value} [{scale * cell.low:.{digits}f}, {scale * cell.high:.{digits}f}]"


def csv_text(table: TableOfRuns) -> str:
    """The numbers as CSV, accuracies in [0, 1], each row with its conditions."""
    text, records = io.StringIO(), table.records()
    writer = csv.DictWriter(text, list(records[0]) if records else ["run"], lineterminator="\n")
    writer.writeheader()
    for record in records:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in record.items()})
    return text.getvalue()


def markdown(table: TableOfRuns) -> str:
    """The table in Markdown, with notes below it."""
    heads, body = _grid(table)
    first = len(heads) - len(table.checkpoints) * len(table.metrics) - 1
    lines = [heads, [":--" if i < first else "--:" for i in range(len(heads))], *body]
    rows = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
    return "\n".join([*rows, "", *(f"- {note}" for note in notes(table))]) + "\n"


_TEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        '"': r"\textquotedbl{}",
        PM: r"$\pm$",
        "−": "$-$",
        "–": "--",
    }
)


def tex_escaped(text: str) -> str:
    """A text for LaTeX: what would be read as a command is printed."""
    return text.translate(_TEX).replace(r"\textquotedbl{}", "''")


def latex(table: TableOfRuns) -> str:
    """The table for LaTeX with booktabs: `\\input` it in a paper, or compile the file alone."""
    heads, rows = row_heads(table)
    heads = [*heads, "seeds" if table.pool == ("seed",) else "runs"]
    ats = table.checkpoints
    names = [_HEADS.get(m.key, m.label) + (" (%)" if m.unit == "accuracy" else "") for m in table.metrics]
    first, rules, at = list[str](), list[str](), len(heads) + 1
    for name in names:
        first.append(rf"\multicolumn{{{len(ats)}}}{{c}}{{{tex_escaped(name)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + len(ats) - 1}}}")
        at += len(ats)
    lines = [" & ".join([*[""] * len(heads), *first]) + r" \\", " ".join(rules)]
    lines += [
        " & ".join(map(tex_escaped, [*heads, *(a or "value" for _ in names for a in ats)])) + r" \\",
        r"\midrule",
    ]
    for cells, row in zip(rows, table.rows, strict=True):
        numbers = [_tex_cell(row, a, m) for m in table.metrics for a in ats]
        lines.append(" & ".join([*map(tex_escaped, [*cells, str(len(row.runs))]), *numbers]) + r" \\")
    columns = "l" * (len(heads) - 1) + "r" * (1 + len(names) * len(ats))
    inside = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", *lines, r"\bottomrule", r"\end{tabular}"]
    told = [f"% {note}" for note in notes(table)]
    return "\n".join([*told, *_ALONE, *inside, r"\crossclassend"]) + "\n"


_ALONE = (
    r"% \input this file in a paper that has \usepackage{booktabs}; it also compiles alone.",
    r"\expandafter\ifx\csname @twoclasseserror\endcsname\documentclass",
    r"  \def\crossclassend{}",
    r"\else",
    r"  \documentclass{article}\usepackage{booktabs}\usepackage[landscape,margin=1cm]{geometry}",
    r"  \pagestyle{empty}\begin{document}\noindent\def\crossclassend{\end{document}}",
    r"\fi",
)
"""Makes a document of the file unless one has begun: \\documentclass then is \\@twoclasseserror."""


def _tex_cell(row: TableRow, at: str, m: Metric) -> str:
    text = cell_text(row.cells.get((at, m.key)), m, r"\pm ").replace("[", r"\,[")
    return "--" if text == "-" else f"${text}$"


def parquet(table: TableOfRuns) -> bytes:
    """The records as Parquet. Raises UserError without pandas and pyarrow."""
    frame = table.to_pandas()
    stream = io.BytesIO()
    try:
        frame.to_parquet(stream, index=False)
    except ImportError as e:
        raise UserError("a .parquet file needs pyarrow; pip install pyarrow, or write out=FILE.csv") from e
    return stream.getvalue()


def json_of(table: TableOfRuns) -> str:
    """The records as JSON, with what was not measured, and notes."""
    return json_text({"rows": table.records(), "missing": table.missing, "notes": list(notes(table))}) + "\n"


WRITERS: dict[str, Callable[[TableOfRuns], str | bytes]] = {
    ".csv": csv_text,
    ".tex": latex,
    ".md": markdown,
    ".json": json_of,
    ".parquet": parquet,
}
"""How a table is written, by the ending of the file."""


def content(table: TableOfRuns, path: Path, made_by: str = "") -> str | bytes:
    """What the file of a table holds, in the format that its name ends in.

    `made_by` is put where the format has room for a comment.
    """
    text = WRITERS[path.suffix.lower()](table)
    if isinstance(text, bytes) or not made_by:
        return text
    about: dict[str, Callable[[str], str]] = {
        ".tex": lambda t: f"% {made_by}\n{t}",
        ".md": lambda t: f"{t}\n<!-- {made_by} -->\n",
        ".json": lambda t: t.replace("{", "{\n " + f'"made_by": {json_text(made_by, None)},', 1),
    }
    return about.get(path.suffix.lower(), str)(text)
