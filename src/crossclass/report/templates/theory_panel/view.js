/** A setting to the panel's words and pictures; no function but `start` touches the page. */
const view = (() => {
  const HEIGHT = 300, TOP = 62, FOOT = 42, LEFT = 44;

  /** A number to so many decimals, an en dash for none. */
  const number = (value, digits = 4) => (value === null ? "–" : value.toFixed(digits));
  const coordinate = (value) => value.toFixed(1);

  /** The finding in one sentence, or the condition that is broken. */
  function sentence(setting, values) {
    if (!values) return `Outside the paper: ${theory.broken(setting)}.`;
    const { mu, eps, beta, reading } = setting, [low, high] = values.threshold;
    const at = values.w2[0] > 0, smoothed = values.w2[1] > 0;
    const here = `At ε = ${number(eps, 2)}`;
    if (!(beta > 0)) {
      if (at) return `${here}, below ε₀ = ${number(low, 3)}, adversarial training uses cross-class features. β = 0: no smoothing.`;
      return `${here}, not below ε₀ = ${number(low, 3)}, adversarial training gives cross-class features no weight. β = 0: no smoothing.`;
    }
    const beyond = high >= mu / 2 ? ` Here ε₁ = ${number(high, 3)} is not below μ/2: theorem 3 does not hold under reading ${reading}.` : "";
    if (at) return `${here}, below ε₀ = ${number(low, 3)}, adversarial training uses cross-class features; label smoothing gives them more weight.${beyond}`;
    if (smoothed) return `${here}, between ε₀ = ${number(low, 3)} and ε₁ = ${number(high, 3)}, only label smoothing keeps cross-class features.${beyond}`;
    return `${here}, not below ε₁ = ${number(high, 3)}, neither gives cross-class features any weight.`;
  }

  /** Round marks inside [low, high], about `wanted` of them. */
  function ticks(low, high, wanted) {
    const rough = (high - low) / wanted, unit = 10 ** Math.floor(Math.log10(rough));
    const step = unit * [1, 2, 2.5, 5, 10].find((m) => m * unit >= rough * (1 - 1e-9));
    const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) + (step / unit === 2.5 ? 1 : 0);
    const first = Math.ceil(low / step - 1e-9), last = Math.floor(high / step + 1e-9);
    return Array.from({ length: last - first + 1 }, (_, i) => [(first + i) * step, ((first + i) * step).toFixed(Math.min(digits, 6))]);
  }

  /** Heights moved apart until neighbours are `gap` from each other, in the order given. */
  function apart(heights, gap, high) {
    const order = heights.map((_, i) => i).sort((i, j) => heights[i] - heights[j]);
    const placed = heights.slice();
    order.forEach((i, k) => { if (k) placed[i] = Math.max(placed[i], placed[order[k - 1]] + gap); });
    let limit = high;
    for (const i of order.reverse()) {
      placed[i] = Math.min(placed[i], limit);
      limit = placed[i] - gap;
    }
    return placed;
  }

  /** Text whose parts after "_" are set low: "P_pair" to P with a small "pair". */
  function text(x, y, words, attributes = "") {
    const [base, low] = words.split("_");
    const sub = low ? `<tspan dy="3" font-size="9.5">${low}</tspan>` : "";
    return `<text x="${coordinate(x)}" y="${coordinate(y)}" ${attributes}>${base}${sub}</text>`;
  }

  /** The frame of a picture: scales, grid, axis names. `ends` = [x from, x to, y from, y to]. */
  function frame(width, ends, gutters, names) {
    const [x0, x1, y0, y1] = ends, left = LEFT + gutters[0], right = width - 10 - gutters[1], base = HEIGHT - FOOT;
    const x = (v) => left + ((v - x0) / (x1 - x0)) * (right - left);
    const y = (v) => base - ((v - y0) / (y1 - y0)) * (base - TOP);
    let marks = "";
    for (const [v, label] of ticks(y0, y1, 5)) {
      marks += `<line class="tp-grid" x1="${LEFT}" x2="${coordinate(right)}" y1="${coordinate(y(v))}" y2="${coordinate(y(v))}"/>`;
      marks += text(LEFT - 6, y(v) + 4, label, 'text-anchor="end"');
    }
    for (const [v, label] of ticks(x0, x1, width < 420 ? 4 : 6)) {
      marks += `<line class="tp-axis" x1="${coordinate(x(v))}" x2="${coordinate(x(v))}" y1="${base}" y2="${base + 4}"/>`;
      marks += text(x(v), base + 17, label, 'text-anchor="middle"');
    }
    marks += `<line class="tp-axis" x1="${LEFT}" x2="${coordinate(right)}" y1="${base}" y2="${base}"/>`;
    marks += text((left + right) / 2, HEIGHT - 6, names, 'text-anchor="middle"');
    const path = (points, kind) => `<path class="tp-line ${kind}" d="M${points.map(([u, v]) => `${coordinate(x(u))} ${coordinate(y(v))}`).join("L")}"/>`;
    /** An upright line at u and its name in row `row` above the picture; neither where u lies outside. */
    function upright(u, words, kind, row) {
      if (u === null || u < x0 || u > x1) return ["", ""];
      const half = 3.3 * words.length, at = Math.min(Math.max(x(u), LEFT + half), width - 4 - half), foot = 15 + 17 * row;
      return [`<line class="tp-mark ${kind}" x1="${coordinate(x(u))}" x2="${coordinate(x(u))}" y1="${foot + 4}" y2="${base}"/>`, text(at, foot, words, `class="tp-word ${kind}" text-anchor="middle"`)];
    }
    return { x, y, marks, path, upright, right, base };
  }

  /** All lines, then all names, so that no line crosses a name. */
  const named = (uprights) => [0, 1].map((i) => uprights.map((pair) => pair[i]).join("")).join("");

  const dot = (at, u, v, kind, shape) => {
    const [cx, cy] = [at.x(u), at.y(v)].map((c) => Number(coordinate(c)));
    if (shape === "circle") return `<circle class="tp-dot ${kind}" cx="${cx}" cy="${cy}" r="5"/>`;
    const turn = shape === "diamond" ? ` transform="rotate(45 ${cx} ${cy})"` : "";
    return `<rect class="tp-dot ${kind}" x="${cx - 4}" y="${cy - 4}" width="8" height="8"${turn}/>`;
  };

  const picture = (width, label, inside) =>
    `<svg viewBox="0 0 ${width} ${HEIGHT}" width="${width}" height="${HEIGHT}" role="img" aria-label="${label}">${inside}</svg>`;

  const grid = (low, high, n) => Array.from({ length: n + 1 }, (_, i) => low + ((high - low) * i) / n);

  /** Both weights against eps, with and without smoothing. */
  function weights(setting, width) {
    const { mu, sigma, eps, beta, reading } = setting, values = theory.values(setting);
    const all = grid(0, mu / 2, 300);
    const lines = [
      ["w₁ AT", "tp-at tp-thin", (e) => theory.optimum(mu, sigma, e)[0]],
      ["w₂ AT", "tp-at", (e) => theory.optimum(mu, sigma, e)[1]],
      ["w₁ LS", "tp-ls tp-thin", (e) => theory.optimum(mu, sigma, e, beta, reading)[0]],
      ["w₂ LS", "tp-ls", (e) => theory.optimum(mu, sigma, e, beta, reading)[1]],
    ];
    const top = 1.04 * Math.max(...lines.map(([, , at]) => at(0)));
    const at = frame(width, [0, mu / 2, 0, top], [48, 0], "perturbation radius ε");
    const heights = apart(lines.map(([, , of]) => at.y(of(0)) + 4), 15, at.base - 2);
    const [low, high] = values.threshold;
    const uprights = [
      at.upright(eps, `ε = ${number(eps, 2)}`, "tp-now", 0),
      at.upright(low, `ε₀ = ${number(low, 3)}`, "tp-at", 1),
      at.upright(beta > 0 ? high : null, `ε₁ = ${number(high, 3)}`, "tp-ls", 2),
    ];
    let inside = at.marks + named(uprights);
    lines.forEach(([name, kind, of], i) => {
      inside += at.path(all.map((e) => [e, of(e)]), kind);
      inside += text(at.x(0) - 6, heights[i], name, `class="tp-word ${kind.split(" ")[0]}" text-anchor="end"`);
    });
    lines.forEach(([, kind, of]) => { inside += dot(at, eps, of(eps), kind.split(" ")[0], kind.startsWith("tp-at") ? "square" : "diamond"); });
    return picture(width, "Curves of both weights against epsilon, for adversarial training and label smoothing; the table gives the numbers.", inside);
  }

  /** Both probabilities against w2/w1 at the setting's eps. */
  function success(setting, width) {
    const { mu, sigma, eps, beta } = setting, values = theory.values(setting);
    const [at0, ls0] = values.ratio, furthest = ls0 === null ? 1 : Math.min(ls0, 2);
    const all = grid(0, Math.max(1.1, 0.1 * Math.ceil(10 * furthest)), 220);
    const lines = [
      ["P_pair", "tp-pair", (r) => theory.pPair(1, r, mu, sigma, eps)],
      ["P_all", "tp-all", (r) => theory.pAll(1, r, mu, sigma, eps)],
    ].map(([name, kind, of]) => ({ name, kind, of, points: all.map((r) => [r, of(r)]) }));
    const heights = lines.flatMap((line) => line.points.map(([, p]) => p));
    const low = Math.min(...heights), high = Math.max(...heights), room = Math.max(0.08 * (high - low), 0.004);
    const at = frame(width, [0, all.at(-1), Math.max(low - room, 0), Math.min(high + room, 1)], [0, 36], "ratio of the weights, r = w₂/w₁");
    const uprights = [
      at.upright(at0, `AT: r = ${number(at0, 3)}`, "tp-at", 0),
      at.upright(beta > 0 ? ls0 : null, `LS: r = ${number(ls0, 3)}`, "tp-ls", 1),
      at.upright(values.best[0], `best for top-1: r = ${number(values.best[0], 3)}`, "tp-all", 2),
    ];
    let inside = at.marks + named(uprights);
    const places = apart(lines.map((line) => at.y(line.points.at(-1)[1]) + 4), 16, at.base - 2);
    lines.forEach((line, i) => {
      inside += at.path(line.points, line.kind) + text(at.right + 5, places[i], line.name, `class="tp-word ${line.kind}"`);
    });
    for (const line of lines) {
      if (at0 !== null) inside += dot(at, at0, line.of(at0), "tp-at", "square");
      if (beta > 0 && ls0 !== null && ls0 <= all.at(-1)) inside += dot(at, ls0, line.of(ls0), "tp-ls", "diamond");
    }
    inside += dot(at, values.best[0], values.best[1], "tp-all", "circle");
    return picture(width, "Curves of the two probabilities against the ratio of the weights at this epsilon; the table gives the numbers.", inside);
  }

  /** Table cells by name: "w1.0" is adversarial training's, "w1.1" label smoothing's. */
  function cells(values) {
    const rows = values ?? Object.fromEntries(["w1", "w2", "ratio", "threshold", "pair", "all", "best"].map((k) => [k, [null, null]]));
    return Object.fromEntries(Object.entries(rows).flatMap(([key, pair]) => pair.map((value, i) => [`${key}.${i}`, number(value)])));
  }

  function start(box) {
    const form = box.querySelector("form"), said = box.querySelector(".tp-said"), live = box.querySelectorAll("[aria-live]");
    const places = [[box.querySelector(".tp-weights"), weights], [box.querySelector(".tp-success"), success]];
    const setting = () => {
      const entries = ["mu", "sigma", "eps", "beta"].map((name) => [name, Number(form.elements[name].value)]);
      return { ...Object.fromEntries(entries), reading: form.elements.reading.value };
    };
    const put = (element, words) => { if (element.textContent !== words) element.textContent = words; };
    function draw() {
      const now = setting(), values = theory.values(now);
      for (const [place, of] of places) {
        const width = Math.max(Math.floor(place.clientWidth), 240);
        place.innerHTML = values ? of(now, width) : '<p class="tp-none">No curve: this setting is outside the paper.</p>';
      }
    }
    function update() {
      const now = setting(), values = theory.values(now), numbers = cells(values);
      for (const name of ["mu", "sigma", "eps", "beta"]) put(form.querySelector(`[data-value="${name}"]`), now[name].toFixed(2));
      put(said, sentence(now, values));
      said.classList.toggle("tp-broken", !values);
      for (const cell of box.querySelectorAll("[data-cell]")) put(cell, numbers[cell.dataset.cell]);
      draw();
    }
    function heard(busy) {
      for (const part of live) part.setAttribute("aria-busy", String(busy)); // spoken after a drag, not during
      update();
    }
    form.addEventListener("input", () => heard(true));
    form.addEventListener("change", () => heard(false));
    form.addEventListener("reset", () => setTimeout(() => heard(false)));
    form.addEventListener("submit", (event) => event.preventDefault());
    for (const part of box.querySelectorAll("[hidden]")) part.hidden = false;
    let width = 0;
    new ResizeObserver(() => {
      if (places[0][0].clientWidth !== width) { width = places[0][0].clientWidth; draw(); }
    }).observe(places[0][0]);
    update();
  }

  return { sentence, weights, success, cells, start };
})();
