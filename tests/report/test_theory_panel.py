"""The panel: its JavaScript runs in a real engine and must agree with Python; the fragment stands alone."""

import itertools
import json
import math
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from py_mini_racer import MiniRacer
from scipy.special import owens_t

from crossclass.core.errors import UserError
from crossclass.paper.theory import closed, setting
from crossclass.report import theory_panel as module
from crossclass.report.theory_panel import DEFAULT, SLIDERS, panel, script, values
from report_files import Page

START = {**DEFAULT, "reading": "A"}
GREEK = {"√π": "sqrt(pi)", "μ": "mu", "σ": "sigma", "ε": "eps", "β": "beta", "≥": ">="}


class Engine:
    """V8 with the panel's mathematics and its pictures, but no page."""

    def __init__(self) -> None:
        self.context = MiniRacer()
        self.context.eval(script())
        self.context.eval((module.PARTS / "view.js").read_text("utf-8"))

    def __call__(self, function: str, argument: Any) -> Any:
        """The function's result for one JSON argument."""
        return json.loads(self.context.eval(f"JSON.stringify(({function})({json.dumps(argument)}))"))

    def each(self, function: str, arguments: list[Any]) -> list[Any]:
        return self(f"(all) => all.map({function})", arguments)


@pytest.fixture(scope="module")
def js() -> Engine:
    return Engine()


def settings() -> list[dict[str, Any]]:
    """Random places of the sliders and between them, all their corners, and the brink of each condition."""
    rng = np.random.default_rng(0)
    ends = {name: np.array(ends) for name, (_, *ends) in SLIDERS.items()}
    chosen = [{name: rng.uniform(low, high) for name, (low, high, _) in ends.items()} for _ in range(12_000)]
    for one in chosen[::2]:  # where sliders can stand
        one |= {
            name: round(low + step * round((one[name] - low) / step), 2)
            for name, (low, _, step) in ends.items()
        }
    brink = 1 - 1e-9
    for mu, i, j, k in itertools.product((0.2, 1.0, 2.0), *[range(3)] * 3):
        sigma, eps = (0.05, 0.5 * mu, brink * math.sqrt(math.pi) * mu)[i], (0, 0.2 * mu, brink * mu / 2)[j]
        chosen.append({"mu": mu, "sigma": sigma, "eps": eps, "beta": (0, 0.2, brink / 3)[k]})
    corners = itertools.product(*[(e[0], e[1]) for e in ends.values()])
    chosen += [dict(zip(ends, corner, strict=True)) for corner in corners]
    return [
        {k: float(v) for k, v in one.items()} | {"reading": "ABCD"[i % 4]} for i, one in enumerate(chosen)
    ]


def admissible(chosen: list[dict[str, Any]]) -> list[dict[str, Any]]:
    inside = setting.admissible(*(np.array([one[k] for one in chosen]) for k in DEFAULT))
    return [one for one, fine in zip(chosen, inside, strict=True) if fine]


def test_the_normal_distribution_to_the_last_digits(js: Engine) -> None:
    x = [*np.linspace(-30, 9, 4001), -3.0, 3.0, math.nextafter(3, 4), 0.0, 40.0]
    exact = [math.erfc(-v / math.sqrt(2)) / 2 for v in x]
    np.testing.assert_allclose(js.each("theory.Phi", x), exact, rtol=3e-13, atol=0)


def test_owens_t_function(js: Engine) -> None:
    rng = np.random.default_rng(1)
    h, a = np.concatenate((rng.uniform(0, 6, 2000), rng.uniform(0, 60, 500))), rng.random(2500)
    a[:20], a[20:40], h[30:50] = 0, 1, 0
    found = js.each("([h, a]) => theory.owensT(h, a)", np.stack((h, a), 1).tolist())
    np.testing.assert_allclose(found, owens_t(h, a), rtol=0, atol=1e-15)


@pytest.mark.parametrize("reading", setting.READINGS)
def test_every_number_equals_pythons(js: Engine, reading: str) -> None:
    fine = [one for one in admissible(settings()) if one["reading"] == reading]
    assert len(fine) > 600
    found = js.each("theory.values", fine)
    wanted = values(*(np.array([one[k] for one in fine]) for k in DEFAULT), reading)
    vanished = wanted["w1"][1] <= 1e-6  # there the quotient is rounding errors
    wanted["ratio"] = wanted["ratio"][0], np.where(vanished, np.nan, wanted["ratio"][1])
    assert set(found[0]) == set(wanted)
    for key, theirs in wanted.items():
        for i in (0, 1):
            ours = np.array([f[key][i] for f in found], dtype=float)
            known = ~np.isnan(theirs[i])
            assert known.mean() > 0.8
            np.testing.assert_allclose(ours[known], theirs[i][known], rtol=1e-9, atol=1e-9, err_msg=key)


def test_python_and_the_panel_agree_on_what_is_outside_and_why(js: Engine) -> None:
    beyond = [{"sigma": 0.0}, {"mu": 0.0}, {"eps": -0.1}, {"beta": -0.1}]
    chosen = [*settings()[::5], *(START | change for change in beyond)]
    sentences = js.each("theory.broken", chosen)
    assert len({re.sub(r", but.*", "", s) for s in sentences}) == 8  # none, and each of seven conditions
    nothing = js.each("(s) => theory.values(s) === null", chosen)
    for one, sentence, none in zip(chosen, sentences, nothing, strict=True):
        said = ""
        try:
            setting.check(one["mu"], one["sigma"], one["eps"], one["beta"])
        except UserError as error:
            said = str(error)
        for sign, word in GREEK.items():
            sentence = sentence.replace(sign, word)
        assert sentence == said
        assert none is bool(said)


def test_the_best_ratio(js: Engine) -> None:
    a = [*np.geomspace(0.02, 80, 600), *(1 + np.geomspace(1e-12, 1, 50)) / math.sqrt(math.pi)]
    found = np.array(js.each("theory.ratioBest", a))
    np.testing.assert_allclose(found, closed.ratio_best(np.array(a)), rtol=0, atol=1e-9)
    r = np.linspace(0, 1, 2001)
    for strength, best in list(zip(a, found, strict=True))[:400:8]:
        tried = closed.p_all(1.0, r, strength, 1.0, 0.0)
        assert closed.p_all(1.0, best, strength, 1.0, 0.0) >= tried.max() - 1e-12


def test_a_tie_counts_as_nothing_and_has_no_ratio(js: Engine) -> None:
    found = js("theory.values", START | {"eps": 0.49})
    assert found["w1"][1] == found["w2"][1] == found["pair"][1] == found["all"][1] == 0
    assert found["ratio"] == [0, None]
    assert js("view.cells", found)["ratio.1"] == "–"


def test_without_javascript_the_table_shows_the_defaults(js: Engine) -> None:
    cells = dict(re.findall(r'data-cell="([^"]+)">([^<]*)<', panel()))
    assert cells == js("(s) => view.cells(theory.values(s))", START)
    assert cells["threshold.0"] == "0.2461"
    assert cells["threshold.1"] == "0.3096"
    assert set(js("view.cells", None)) == set(cells)
    assert set(js("view.cells", None).values()) == {"–"}


def test_the_fragment_stands_alone() -> None:
    html = panel()
    assert html == panel()
    assert not re.search(r"https?:|//\w|@import|url\(|\bsrc=|\bhref=|\bfetch\b|\bimport\b", html)
    tags = Page(html).tags
    names = [tag for tag, _ in tags]
    assert names[0] == "section"
    assert html.rstrip().endswith("</section>")
    assert [names.count(tag) for tag in ("section", "style", "script", "noscript")] == [1, 1, 1, 1]
    assert not any("id" in attributes for _, attributes in tags)  # nothing to collide with on a page
    assert script().strip() in html  # as it is, nothing escaped


def test_its_style_touches_nothing_else() -> None:
    style = re.search(r"<style>(.*)</style>", panel(), re.DOTALL)
    assert style is not None
    rules = re.findall(r"([^{}]+)\{(?=[^{}]*\})", re.sub(r"@media[^{]*\{", "", style[1]))
    assert len(rules) > 30
    for selector in (s.strip() for rule in rules for s in rule.split(",")):
        assert selector.startswith(".theory-panel"), selector
    assert "[hidden] { display: none !important; }" in style[1]  # else a grid shows what waits for the script


def test_every_control_has_a_name_its_range_and_its_start() -> None:
    html = panel()
    inputs = {a["name"]: a for tag, a in Page(html).tags if tag == "input"}
    assert list(inputs) == list(SLIDERS)
    for name, (_, low, high, step) in SLIDERS.items():
        has = inputs[name]
        assert [float(has[k] or "") for k in ("min", "max", "step", "value")] == [
            low,
            high,
            step,
            DEFAULT[name],
        ]
        places = (DEFAULT[name] - low) / step
        assert places == pytest.approx(round(places))
    for control in re.findall(r"<(?:input|select)[^>]*>", html):
        assert re.search(r"<label[^>]*>(?:(?!</label>).)*" + re.escape(control), html, re.DOTALL)
    options = [(a["value"], "selected" in a) for tag, a in Page(html).tags if tag == "option"]
    assert options == [(r, r == "A") for r in setting.READINGS]
    live = [tag for tag, a in Page(html).tags if a.get("aria-live") == "polite"]
    assert live == ["p", "div"]  # the sentence and the table


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, "At ε = 0.15, below ε₀ = 0.246, adversarial training uses cross-class features; label smoothing "
             "gives them more weight."),
        ({"eps": 0.28}, "At ε = 0.28, between ε₀ = 0.246 and ε₁ = 0.310, only label smoothing keeps "
                        "cross-class features."),
        ({"eps": 0.4}, "At ε = 0.40, not below ε₁ = 0.310, neither gives cross-class features any weight."),
        ({"beta": 0}, "At ε = 0.15, below ε₀ = 0.246, adversarial training uses cross-class features. "
                      "β = 0: no smoothing."),
        ({"beta": 0, "eps": 0.3}, "At ε = 0.30, not below ε₀ = 0.246, adversarial training gives cross-class "
                                  "features no weight. β = 0: no smoothing."),
        ({"sigma": 0.2, "reading": "D"},
         "At ε = 0.15, below ε₀ = 0.444, adversarial training uses cross-class features; label smoothing "
         "gives them more weight. Here ε₁ = 0.666 is not below μ/2: theorem 3 does not hold under "
         "reading D."),
        ({"sigma": 0.9, "eps": 0.3, "reading": "B"},
         "At ε = 0.30, between ε₀ = 0.246 and ε₁ = 0.413, only label smoothing keeps cross-class features."),
        ({"sigma": 2}, "Outside the paper: the theory needs σ < √π μ (section 4.1), but σ = 2 and μ = 1 are "
                       "given."),
    ],
)  # fmt: skip
def test_the_sentence(js: Engine, change: dict[str, Any], said: str) -> None:
    assert js("(s) => view.sentence(s, theory.values(s))", START | change) == said


def drawn(js: Engine, picture: str, one: dict[str, Any], width: int = 520) -> ElementTree.Element:
    return ElementTree.fromstring(js(f"([s, w]) => view.{picture}(s, w)", [one, width]))


def of(svg: ElementTree.Element, *classes: str) -> list[ElementTree.Element]:
    return [e for e in svg.iter() if set(classes) <= set(e.get("class", "").split())]


def points(path: ElementTree.Element) -> np.ndarray:
    return np.array([[float(c) for c in p.split()] for p in path.get("d", "")[1:].split("L")])


@pytest.mark.parametrize("change", [{}, {"beta": 0.1, "eps": 0.3}, {"mu": 2.0, "sigma": 1.5, "reading": "D"}])
def test_the_first_picture_marks_both_thresholds_where_the_weights_vanish(
    js: Engine, change: dict[str, Any]
) -> None:
    one = START | change
    svg = drawn(js, "weights", one)
    lines = {kind: [points(p) for p in of(svg, "tp-line", kind)] for kind in ("tp-at", "tp-ls")}
    marks = {kind: float(of(svg, "tp-mark", kind)[0].get("x1", "")) for kind in ("tp-at", "tp-ls", "tp-now")}
    first, last = lines["tp-at"][0][[0, -1], 0]
    ends = values(**one)["threshold"]
    for kind, value in zip(("tp-at", "tp-ls", "tp-now"), (*ends, one["eps"]), strict=True):
        assert first + (last - first) * 2 * value / one["mu"] == pytest.approx(marks[kind], abs=0.11)
    for kind in ("tp-at", "tp-ls"):
        line, floor = lines[kind][1], lines[kind][1][:, 1].max()  # w2, the solid one
        zero = line[line[:, 1] >= floor - 0.06][0, 0]
        assert zero == pytest.approx(marks[kind], abs=2.5)
    assert drawn(js, "weights", one | {"beta": 0.0}).find("*[@class='tp-mark tp-ls']") is None


def test_the_second_picture_marks_the_ratios_on_the_curves(js: Engine) -> None:
    svg = drawn(js, "success", START)
    pair, both = (points(of(svg, "tp-line", kind)[0]) for kind in ("tp-pair", "tp-all"))
    first, last = pair[[0, -1], 0]
    at_start = values(**START)
    places = {"tp-at": at_start["ratio"][0], "tp-ls": at_start["ratio"][1], "tp-all": at_start["best"][0]}
    for kind, r in places.items():
        x = float(of(svg, "tp-mark", kind)[0].get("x1", ""))
        assert first + (last - first) * r / 1.1 == pytest.approx(x, abs=0.11)
    ring = of(svg, "tp-dot", "tp-all")[0]
    assert float(ring.get("cy", "")) == pytest.approx(both[:, 1].min(), abs=0.2)  # the highest place of P_all
    assert pair[pair[:, 1].argmin(), 0] <= first + (last - first) / 1.1 + 30


@pytest.mark.parametrize("width", [240, 900])
def test_pictures_of_any_setting_are_whole(js: Engine, width: int) -> None:
    fine = admissible(settings())[-100:]
    for one, picture in itertools.product(fine, ("weights", "success")):
        svg = drawn(js, picture, one, width)
        text = ElementTree.tostring(svg, "unicode")
        assert not re.search(r"NaN|undefined|Infinity|null|e[-+]\d", text), (one, picture)
        for line in of(svg, "tp-line"):
            x, y = points(line).T
            assert 0 <= x.min() <= x.max() <= width
            assert 0 <= y.min() <= y.max() <= 300
        if picture == "success":
            ticks = [t.text or "" for t in svg.iter("text") if t.get("text-anchor") == "end"]
            assert all(0 <= float(t) <= 1 for t in ticks)  # probabilities
            assert len(ticks) == len(set(ticks)) >= 2
        for word in svg.iter("text"):
            assert 0 <= float(word.get("x", "")) <= width
            assert 0 <= float(word.get("y", "")) <= 300


def test_names_of_curves_do_not_overlap(js: Engine) -> None:
    for one in ({}, {"beta": 0.0}, {"beta": 0.01, "sigma": 0.05}, {"sigma": 1.75}):
        svg = drawn(js, "weights", START | one)
        heights = sorted(float(t.get("y", "")) for t in of(svg, "tp-word") if t.get("text-anchor") == "end")
        assert len(heights) == 4
        assert min(np.diff(heights)) >= 14.9


def test_the_report_needs_neither_torch_nor_scipy_to_start() -> None:
    code = "import sys, crossclass.report.theory_panel as p; assert not {'torch', 'scipy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


PAGE = """
globalThis.ResizeObserver = class { constructor(seen) { this.seen = seen; } observe() { this.seen(); } };
const element = (more = {}) => ({
  textContent: "", innerHTML: "", hidden: true, clientWidth: 500, ...more,
  attributes: {}, heard: {}, classes: {},
  setAttribute(name, value) { this.attributes[name] = value; },
  addEventListener(name, listener) { this.heard[name] = listener; },
  get classList() { return { toggle: (name, on) => { this.classes[name] = on; } }; },
});
const names = ["mu", "sigma", "eps", "beta"];
const parts = { ".tp-said": element(), ".tp-weights": element(), ".tp-success": element(), table: element() };
const shown = Object.fromEntries(names.map((name) => [`[data-value="${name}"]`, element()]));
const form = element({ elements: {}, querySelector: (selector) => shown[selector] });
parts.form = form;
const cells = Object.keys(view.cells(null)).map((cell) => element({ dataset: { cell } }));
const live = [parts[".tp-said"], parts.table];
const found = { "[aria-live]": live, "[data-cell]": cells, "[hidden]": [form, parts[".tp-said"]] };
const box = { querySelector: (selector) => parts[selector], querySelectorAll: (selector) => found[selector] };
function move([setting, happening]) {
  for (const [name, value] of Object.entries(setting)) form.elements[name] = { value: String(value) };
  if (happening) form.heard[happening]();
  else view.start(box);
  return {
    said: parts[".tp-said"].textContent, broken: parts[".tp-said"].classes["tp-broken"], hidden: form.hidden,
    busy: live.map((part) => part.attributes["aria-busy"] ?? null),
    cells: Object.fromEntries(cells.map((cell) => [cell.dataset.cell, cell.textContent])),
    shown: names.map((name) => shown[`[data-value="${name}"]`].textContent),
    pictures: [parts[".tp-weights"].innerHTML, parts[".tp-success"].innerHTML],
  };
}
"""  # as much of a page as `start` touches


def test_sliders_move_the_words_the_table_and_the_pictures() -> None:
    js = Engine()
    js.context.eval(PAGE)

    def agree(one: dict[str, Any], now: dict[str, Any]) -> None:
        assert now["said"] == js("(s) => view.sentence(s, theory.values(s))", one)
        assert now["cells"] == js("(s) => view.cells(theory.values(s))", one)
        assert now["shown"] == [f"{one[name]:.2f}" for name in SLIDERS]
        assert now["pictures"] == js("(s) => [view.weights(s, 500), view.success(s, 500)]", one)
        assert now["broken"] is now["hidden"] is False

    first = js("move", [START, None])
    agree(START, first)
    moved = START | {"eps": 0.28, "sigma": 0.85, "mu": 1.1, "beta": 0.1, "reading": "D"}
    dragged = js("move", [moved, "input"])
    agree(moved, dragged)
    assert dragged["busy"] == ["true", "true"]  # nothing is read out during a drag
    assert js("move", [moved, "change"]) == dragged | {"busy": ["false", "false"]}
    outside = js("move", [START | {"sigma": 2.0}, "change"])
    assert outside["broken"] is True
    assert outside["said"].startswith("Outside the paper: the theory needs σ < √π μ")
    assert set(outside["cells"].values()) == {"–"}
    assert all("<svg" not in picture and "outside the paper" in picture for picture in outside["pictures"])
    agree(START, js("move", [START, "change"]))
