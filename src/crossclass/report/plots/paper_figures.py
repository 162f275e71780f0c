"""The figure of every entry of the paper, drawn from its stored numbers and laid out like the paper's."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossclass.analysis.metrics import metric
from crossclass.paper.entry import Numbers
from crossclass.report import plots
from crossclass.report.feature_table import sheet_head, sheet_title

if TYPE_CHECKING:
    from crossclass.analysis.ablation_records import AblationFile
    from crossclass.analysis.compare import SaliencyMaps
    from crossclass.analysis.feature_records import FeatureFile
    from crossclass.analysis.features import SheetRow


def overfitting(numbers: Numbers) -> plots.Figure:
    """Robust accuracy on training and test images and CAS by epoch, a band of counted seeds (Fig. 1)."""
    runs = {}
    for name, run in numbers["runs"].items():
        aside = _aside(numbers, run["seeds"])
        for i, (seed, curve) in enumerate(zip(run["seeds"], run["curves"], strict=True)):
            if i in aside:
                continue
            keys = list(curve)
            runs[f"{name} seed {seed}"] = [
                dict(zip(keys, row, strict=True)) for row in zip(*curve.values(), strict=True)
            ]
    return plots.curves(runs)


def _aside(numbers: Numbers, seeds: Sequence[int]) -> set[int]:
    """The places of the seeds that are not counted; none of them where nothing else was trained."""
    aside = {i for i, seed in enumerate(seeds) if seed in numbers["not_counted"]}
    return aside if len(aside) < len(seeds) else set()


def matrices(numbers: Numbers, stages: Sequence[str], scale: tuple[float, float] = (0, 1)) -> plots.Figure:
    """C of one seed at each stage, a row for each run (Fig. 2, 3, 5, 6, 7)."""
    rows = {
        name: {_caption(run, stage, stages): run["C"].get(stage) for stage in stages}
        for name, run in numbers["runs"].items()
    }
    return plots.matrix_grid(rows, *scale, cmap="Blues" if scale[0] >= 0 else "RdBu")


def strip(numbers: Numbers) -> plots.Figure:
    """C of one seed through the training, five to a line (Fig. 10)."""
    (run,) = numbers["runs"].values()
    stages = [s for s in run["C"] if "%" in s]
    return plots.matrix_grid({"": {_caption(run, s, stages): run["C"][s] for s in stages}}, columns=5)


def differences(numbers: Numbers) -> plots.Figure:
    """C at best minus C at last, one picture for each run (Fig. 4)."""
    pictures: dict[str, Any] = {}
    for name, run in numbers["runs"].items():
        best, last = run["C"].get("best"), run["C"].get("last")
        lost = run["best_minus_last"]["cas"]["value"][run["shown"]]
        pictures[f"{name}, seed {run['seeds'][run['shown']]}: CAS {lost:+.1f}"] = (
            plots.subtract(best, last) if best and last else None
        )
    return plots.matrix_grid({"": pictures}, -0.5, 0.5, "RdBu", columns=4)


def bars(numbers: Numbers, keys: Sequence[str]) -> plots.Figure:
    """The seeds' values at best and last, one panel for each quantity (Fig. 8, Table 1)."""
    panels: dict[str, Any] = {}
    seeds = next(iter(numbers["runs"].values()))["seeds"]
    for key in keys:
        scale = 100 if key in ("robust", "clean") else 1
        panels[metric(key).label + (" (%)" if scale == 100 else "")] = {
            name: {
                stage: [None if v is None else scale * v for v in run[stage][key]]
                for stage in ("best", "last")
            }
            for name, run in numbers["runs"].items()
        }
    return plots.dots(panels, dict.fromkeys(panels, _aside(numbers, seeds)))


def standard(numbers: Numbers) -> plots.Figure:
    """C on clean images: standard training by quarters beside AT at best and last (Fig. 9)."""
    stages = {"standard": ("25 %", "50 %", "75 %", "100 %"), "AT": ("best", "last")}
    rows = {
        name: {
            f"{stage}: CAS {numbers['clean'][name][stage][numbers['runs'][name]['shown']]:.1f}": numbers[
                "clean_C"
            ][name][stage]
            for stage in wanted
        }
        for name, wanted in stages.items()
    }
    return plots.matrix_grid(rows, 0, 0.5)


def maps(numbers: Numbers) -> plots.Figure:
    """How far the maps spread at best and at last, and on Shapes what they lie on (Fig. 3c, 11)."""
    panels: dict[str, Any] = {}
    for key, title in (("half_mass_area", "area with half of the mass (%)"), ("entropy", "entropy")):
        scale = 100 if key == "half_mass_area" else 1
        panels[title] = {
            "chosen": _ends([one[key] for one in numbers["maps"]], scale),
            "all": _ends([one["all_images"][key] for one in numbers["maps"]], scale),
        }
    aside = dict.fromkeys(panels, _aside(numbers, numbers["map_seeds"]))
    parts = [one for one in numbers["parts"] if all("shared" in one[g] for g in ("chosen", "all"))]
    if parts:
        panels["mass on shared parts (Shapes, %)"] = {
            group: {stage: [100 * one[group]["shared"][stage] for one in parts] for stage in ("best", "last")}
            for group in ("chosen", "all")
        }
        if len(parts) == len(numbers["part_seeds"]):
            aside |= dict.fromkeys(set(panels) - set(aside), _aside(numbers, numbers["part_seeds"]))
    return plots.dots(panels, aside)


def _ends(found: Sequence[Any], scale: float | int) -> dict[str, list[float]]:
    return {"best": [scale * f["a"] for f in found], "last": [scale * f["b"] for f in found]}


def settings(numbers: Numbers) -> plots.Figure:
    """Table 2 with what the named runs say."""
    keys = [*numbers["wanted"], "attack", "eps", "steps", "step"]
    rows = [["Table 2", *(numbers["wanted"].get(k, "") for k in keys)]]
    rows += [
        [name, *("" if run[k] is None else run[k] for k in keys)] for name, run in numbers["runs"].items()
    ]
    return plots.text_table(["run", *keys], rows)


def _caption(run: Any, stage: str, stages: Sequence[str]) -> str:
    """Stage, robust accuracy and CAS of the seed shown; from the checks where stages on the way are shown."""
    at, i = run["checks"][stage] if any("%" in s for s in stages) else run[stage], run["shown"]
    epoch, robust, cas = (at[k][i] for k in ("epoch", "robust", "cas"))
    return f"{stage} (seed {run['seeds'][i]}, epoch {epoch})\nRA {100 * robust:.1f} %, CAS {cas:.1f}"


def weights(numbers: Numbers) -> plots.Figure:
    """The weights of adversarial training and of label smoothing by eps (theorem 1, corollary 1)."""
    title = "mu = {mu:g}, sigma = {sigma:g}, beta = {beta:g}".format(**numbers["setting"])
    at, smoothed, eps0, eps1 = (numbers[key] for key in ("at", "smoothed", "eps0", "eps1"))
    return plots.feature_weights(numbers["eps"], at, smoothed, eps0, eps1, title=title)


def success(numbers: Numbers) -> plots.Figure:
    """Robust probabilities by the ratio of the weights (theorem 2)."""
    return plots.success_curves(numbers["r"], [plots.SuccessCurve(**c) for c in numbers["curves"]])


def phases(numbers: Numbers) -> plots.Figure:
    """Where cross-class features are used, by eps and sigma (theorem 3)."""
    return plots.phase_diagram(numbers["sigma"], *numbers["thresholds"], beta=numbers["setting"]["beta"])


def bridge(numbers: Numbers) -> plots.Figure:
    """The weights of exclusive and of shared parts and CAS by eps, each divided by its first value."""
    panels = {}
    for name, points in numbers["families"].items():
        series = {"exclusive parts": "exclusive", "shared parts": "shared", "CAS (clean)": "cas_clean"}
        first = {key: sum(points[0][key]) / len(points[0][key]) for key in series.values()}
        panels[name] = {
            word: [(p["eps"], [v / first[key] for v in p[key]]) for p in points]
            for word, key in series.items()
            if first[key] > 0
        }
    return plots.lines(panels, "eps", width=12)


DRAWINGS: dict[str, Callable[[Numbers], plots.Figure]] = {
    "fig1": overfitting,
    "fig2": partial(matrices, stages=("35 %", "best", "last")),
    "fig3ab": partial(matrices, stages=("best", "last")),
    "soft": partial(bars, keys=("cas", "robust")),
    "fig3c": maps,
    "fig4": differences,
    "fig5": partial(matrices, stages=("best", "last"), scale=(-0.75, 0.75)),
    "fig6": partial(matrices, stages=("best", "last")),
    "thm1": weights,
    "thm2": success,
    "thm3": phases,
    "cor1": weights,
    "bridge": bridge,
    "table1": partial(bars, keys=("cas", "robust")),
    "fig7": partial(matrices, stages=("5 %", "best", "last")),
    "fig8": partial(bars, keys=("icas", "all_pairs_cas")),
    "fig9": standard,
    "table2": settings,
    "fig10": strip,
    "fig11": maps,
}
"""How each entry is drawn, by its id."""


def draw(id_: str, numbers: Numbers, path: Path) -> None:
    """Write the figure of an entry to `path`."""
    plots.save(DRAWINGS[id_](numbers), path)


def draw_maps(maps: "SaliencyMaps", path: Path, made_by: str = "") -> str:
    """Draw the saliency maps of two checkpoints to `path`; returns the name of the file."""
    images, grids = maps.images.movedim(1, -1).numpy(), {k: m.numpy() for k, m in maps.maps.items()}
    return plots.save(plots.saliency_grid(images, grids, maps.captions), path, made_by).name


def draw_features(rows: "Sequence[SheetRow]", file: "FeatureFile", path: Path, made_by: str = "") -> str:
    """Draw the sheet of features to `path`; returns the name of the file."""
    numbers = {f.k: f for f in file.features}
    panels: dict[int, list[plots.Panel]] = {}
    for row in rows:
        panels.setdefault(row.k, []).append(
            plots.Panel(
                row.class_name,
                row.images.movedim(1, -1).numpy(),
                [m.numpy() for m in row.maps],
                [a.numpy() for a in row.adds],
                None if row.part is None else row.part.movedim(0, -1).numpy() / 255,
            )
        )
    titles = [(sheet_title(numbers[k]), of) for k, of in panels.items()]
    sheet = plots.feature_sheet(titles, [c.name for c in file.checkpoints], sheet_head(file))
    return plots.save(sheet, path, made_by).name


def draw_ablation(file: "AblationFile", path: Path, made_by: str = "") -> str:
    """Draw the curves of `ablate` to `path`; returns the name of the file."""
    from crossclass.report.plots.ablation import Point

    rows: dict[str, dict[str, list[list[Point]]]] = {}
    for one in file.checkpoints:
        whole = Point(0.0, one.clean, (one.clean, one.clean), one.robust, (one.robust, one.robust))
        paths: dict[str, dict[int | None, list[Point]]] = {}
        for s in one.sets:
            points = paths.setdefault(s.sort, {}).setdefault(s.draw, [whole])
            points.append(Point(s.mass, s.clean, s.clean_interval, s.robust, s.robust_interval))
        rows[one.checkpoint.title] = {sort: list(of.values()) for sort, of in paths.items()}
    return plots.save(plots.ablation_curves(rows), path, made_by).name
