"""Where the best and the last checkpoint look (Fig. 3c, 11), counted over all samples instead of chosen ones.

The paper shows samples that are right at best and wrong at last. Choosing images on which best does better
favours best, so the same is said of all images too.
"""

from collections.abc import Sequence
from typing import Any

from crossclass.paper.claims import Claim, Gain, Numbers
from crossclass.paper.entry import Experiment, Found, Size
from crossclass.paper.stages import collect
from crossclass.report.plots import entries as drawing

RUNS = {"AT": "wei2025-at-linf-8"}
GROUPS = {"chosen": "images right at best and wrong at last", "all": "all test images"}
SPREAD = {
    "entropy": "entropy of the maps",
    "half_mass_area": "share of the image with half of the map's mass",
}


def _gained(what: str, group: str, each: Sequence[Any]) -> list[Gain]:
    """Best minus last of every seed, with the interval over images of the first."""
    low, high = each[0]["interval"]
    found = tuple(one["difference"] for one in each)
    return [Gain(f"{what}, best minus last, {GROUPS[group]}", found, (low, high))]


def _spread(m: Numbers, key: str, group: str) -> list[Gain]:
    each = [one["all_images"] if group == "all" else one for one in m["maps"]]
    return _gained(SPREAD[key], group, [one[key] for one in each])


def _on_shared(m: Numbers, group: str) -> list[Gain]:
    each = [one[group]["shared"] for one in m["parts"]]
    return _gained("share of the map's mass on cross-class parts", group, each)


def _collect(found: Found, size: Size) -> Numbers:
    out = collect(found)
    out["maps"] = [e.extras["saliency"] for e in found["AT"] if e.extras["saliency"]["n"]]
    out["grids"] = [f"runs/{e.place.name}/saliency.png" for e in found["AT"] if e.extras["saliency"]["n"]]
    out["parts"] = [e.extras["parts"] for e in found.get("Shapes", ())]
    return out


MAPS: tuple[Experiment, ...] = (
    Experiment(
        "fig3c",
        "Where best and last look",
        "The best checkpoint looks at more of the object, the last at parts that only one class has.",
        runs={**RUNS, "Shapes": "shapes-demo"},
        extras={"AT": ("saliency",), "Shapes": ("parts",)},
        measure=_collect,
        draw=drawing.maps,
        claims=(
            Claim(
                "wider-chosen",
                "the best checkpoint's maps are spread wider than the last one's",
                lambda m: _spread(m, "half_mass_area", "chosen"),
                where=f"{GROUPS['chosen']}, which favours best",
            ),
            Claim(
                "wider-all",
                "the best checkpoint's maps are spread wider than the last one's",
                lambda m: _spread(m, "half_mass_area", "all"),
                where=GROUPS["all"],
            ),
            Claim(
                "shared-chosen",
                "the best checkpoint looks more at planted cross-class parts than the last",
                lambda m: _on_shared(m, "chosen"),
                where=f"Shapes, {GROUPS['chosen']}",
            ),
            Claim(
                "shared-all",
                "the best checkpoint looks more at planted cross-class parts than the last",
                lambda m: _on_shared(m, "all"),
                where=f"Shapes, {GROUPS['all']}",
            ),
        ),
        printed="fig3",
    ),
    Experiment(
        "fig11",
        "Maps of the first 24 such samples",
        "More samples that are right at best and wrong at last, by sample id, six to a line.",
        runs=RUNS,
        extras={"AT": ("saliency",)},
        measure=_collect,
        draw=drawing.maps,
        claims=(
            Claim(
                "entropy",
                "the entropy of the best checkpoint's maps is higher than that of the last one's",
                lambda m: _spread(m, "entropy", "all"),
                where=GROUPS["all"],
            ),
        ),
    ),
)
