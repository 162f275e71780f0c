"""The picture of the packages: `python docs/packages.py` writes docs/packages.svg from `PACKAGES`."""

from html import escape
from pathlib import Path

PACKAGES = {
    "cli": "commands; the only place that parses path=value",
    "report": "HTML pages, figures, the table on the terminal",
    "paper": "what the paper says, as data: runs, claims, theorems",
    "training": "the loop, recipes, checks, alarms",
    "diagnostics": "doctor: what is wrong with a checkpoint",
    "analysis": "C, CAS, I-CAS, intervals, the list of metrics, records",
    "checkpoints": "run folders; reading anyone's weights",
    "attacks": "norm balls, PGD, AutoAttack, foreign attacks",
    "models": "networks that normalise inside: f(x) = W g(x)",
    "data": "data sets as tensors; augmentation",
    "core": "settings, errors, random streams, files, devices, trust",
}
"""Every package, the highest first, and what it holds."""
HERE = Path(__file__).parent
STYLE = (
    "text{font:14px system-ui,sans-serif;fill:#27272a}"
    " .name{font-weight:600;font-family:ui-monospace,monospace}"
    " rect{fill:#f4f4f5;stroke:#d4d4d8} path{stroke:#71717a;fill:none;stroke-width:1.5}"
    " @media (prefers-color-scheme:dark){text{fill:#e4e4e7} rect{fill:#27272a;stroke:#52525b}"
    " path{stroke:#a1a1aa}}"
)


def svg() -> str:
    """The packages as a stack of boxes, and an arrow that says that imports go down."""
    height, rows = 34, []
    for i, (name, text) in enumerate(PACKAGES.items()):
        y = 8 + i * height
        rows += [
            f'<rect x="8" y="{y}" width="620" height="28" rx="5"/>',
            f'<text class="name" x="20" y="{y + 19}">{name}</text>',
            f'<text x="140" y="{y + 19}">{escape(text)}</text>',
        ]
    bottom = 8 + len(PACKAGES) * height
    middle = f"{bottom / 2:.0f}"
    rows += [
        f'<path d="M652 14V{bottom - 14}m-6 -10l6 10l6 -10"/>',
        f'<text x="676" y="{middle}" transform="rotate(90 676 {middle})" text-anchor="middle">'
        "imports go down</text>",
    ]
    label = "The packages of crossclass, from the highest to the lowest: " + ", ".join(PACKAGES)
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 700 {bottom + 4}" role="img"'
    return "\n".join([f'{head} aria-label="{label}">', f"<style>{STYLE}</style>", *rows, "</svg>", ""])


if __name__ == "__main__":
    (HERE / "packages.svg").write_text(svg())
