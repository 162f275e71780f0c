"""The interactive panel of the theory: sliders, a table and two curves as one HTML fragment.

The browser computes the closed forms in plain JavaScript, without the network. The first values of the table
are those of Python, and without JavaScript they are all that is shown. Tests compare the script with Python.
"""

from types import MappingProxyType
from typing import Any

import numpy as np
from markupsafe import Markup

from crossclass.report.sections import TEMPLATES, environment

PARTS = TEMPLATES / "theory_panel"
DEFAULT = MappingProxyType({"mu": 1.0, "sigma": 0.9, "eps": 0.15, "beta": 0.25})
READING = "A"
SLIDERS = MappingProxyType(  # name, lowest, highest, step: wide enough to leave the paper's conditions
    {
        "mu": ("μ, mean of an active feature", 0.2, 2.0, 0.05),
        "sigma": ("σ, its standard deviation", 0.05, 3.6, 0.05),
        "eps": ("ε, radius of the perturbation", 0.0, 1.0, 0.01),
        "beta": ("β, label smoothing", 0.0, 0.4, 0.01),
    }
)


def panel() -> str:
    """The panel as a `<section>` to put anywhere into a page: style, script and static table are inside."""
    sliders = [
        {"key": key, "name": name, "low": low, "high": high, "step": step, "value": f"{DEFAULT[key]:.2f}"}
        for key, (name, low, high, step) in SLIDERS.items()
    ]
    start = values(**DEFAULT, reading=READING)
    cells = {key: [f"{float(v):.4f}" for v in pair] for key, pair in start.items()}
    style, view = (Markup((PARTS / name).read_text("utf-8").strip()) for name in ("style.css", "view.js"))
    env = environment().overlay(trim_blocks=True, lstrip_blocks=True)
    return env.get_template(f"{PARTS.name}/panel.html.j2").render(
        style=style,
        maths=Markup(script().strip()),
        view=view,
        sliders=sliders,
        default=DEFAULT,
        reading=READING,
        cells=cells,
    )


def script() -> str:
    """The panel's mathematics alone: JavaScript that defines `theory` and touches no page."""
    return (PARTS / "maths.js").read_text("utf-8")


def values(mu: Any, sigma: Any, eps: Any, beta: Any, reading: str) -> dict[str, tuple[Any, Any]]:
    """The table, by numbers or arrays of one shape: adversarial training's values, label smoothing's."""
    from crossclass.paper.theory import closed  # scipy: not needed by a page of runs

    at, smoothed = (closed.optimum(mu, sigma, eps, beta=b, reading=reading) for b in (0.0, beta))
    best = closed.ratio_best(np.divide(mu - 2 * eps, sigma))
    with np.errstate(all="ignore"):  # no weight, no ratio
        ratio = np.divide(smoothed[1], smoothed[0])
    return {
        "w1": (at[0], smoothed[0]),
        "w2": (at[1], smoothed[1]),
        "ratio": (closed.ratio_at(mu, sigma, eps), ratio),
        "threshold": (closed.eps0(mu, sigma), closed.eps1(mu, sigma, beta, reading)),
        "pair": (closed.p_pair(*at, mu, sigma, eps), closed.p_pair(*smoothed, mu, sigma, eps)),
        "all": (closed.p_all(*at, mu, sigma, eps), closed.p_all(*smoothed, mu, sigma, eps)),
        "best": (best, closed.p_all(1.0, best, mu, sigma, eps)),
    }
