"use strict";
(() => {
  const LIGHT = {
    one: ["#f7fbff", "#deebf7", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c", "#08306b"],
    two: ["#67001f", "#b2182b", "#d6604d", "#f4a582", "#fddbc7", "#f7f7f7", "#d1e5f0", "#92c5de", "#4393c3", "#2166ac", "#053061"],
    none: [187, 187, 192],
  };
  const DARK = {
    one: ["#17181d", "#18263a", "#173556", "#194877", "#1f5d9b", "#3a7cc0", "#629fdc", "#93c1ee", "#cfe4fa"],
    two: ["#ffc9b8", "#f08f78", "#c95a4c", "#8f3635", "#4f2628", "#1d1d22", "#1d2f45", "#235079", "#347bb5", "#69a9dd", "#bcdcf7"],
    none: [90, 90, 98],
  };
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const NAMED = 30; // more classes than this, and the axes count instead of naming
  const UNKNOWN = -32768;
  const rgb = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));

  /** A value in [low, 1] to a colour; below a scale from 0 it is red, as it is on the scale from -1. */
  function scale(colours, low) {
    const table = (low < 0 ? colours.two : colours.one).map(rgb);
    const below = low < 0 ? null : scale(colours, -1);
    return (value) => {
      if (value === null) return colours.none;
      if (below && value < -0.005) return below(value);
      const t = Math.min(Math.max((value - low) / (1 - low), 0), 1) * (table.length - 1);
      const i = Math.min(Math.floor(t), table.length - 2);
      return table[i].map((from, c) => Math.round(from + (t - i) * (table[i + 1][c] - from)));
    };
  }

  const percent = (value) => (value === null ? "–" : (100 * value).toFixed(1) + "\u00a0%");
  const number = (value, digits) => (value === null ? "–" : value.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }).replace(/^-(?=[0.]*$)/, "").replace("-", "−"));

  async function explorer(box) {
    const data = JSON.parse(document.getElementById(box.dataset.matrix).textContent);
    const part = (role) => box.querySelector(`[data-role="${role}"]`);
    const { names, frames, curve } = data;
    const K = names.length;
    const read = await crossclass.unpack(data.packed);
    const canvas = part("canvas"), slider = part("slider"), play = part("play"), which = part("which");
    const ends = (data.ends || []).map((epoch) => frames.findIndex((f) => f.epoch === epoch));
    const cells = document.createElement("canvas");
    cells.width = cells.height = K;
    let now = ends[0] >= 0 ? ends[0] : data.ends ? frames.length - 1 : 0;
    let low = 0, cell = null, timer = null, drawn = null;
    let held = false; // a cell that was clicked stays while the mouse goes to its link
    const pairs = new Set(((data.features || {}).pairs || []).map((p) => p.join("-")));
    let at = names.map((_, i) => i); // the class at each position
    let place = at; // the position of each class

    function fit(context, text, room) {
      if (context.measureText(text).width <= room) return text;
      let n = text.length;
      while (n > 1 && context.measureText(text.slice(0, n) + "…").width > room) n -= 1;
      return text.slice(0, n) + "…";
    }

    function draw() {
      const width = canvas.parentElement.clientWidth;
      if (!width) return;
      const context = canvas.getContext("2d");
      const dots = window.devicePixelRatio || 1;
      const style = getComputedStyle(box);
      const size = width < 420 ? 11 : 12;
      const font = (weight) => `${weight} ${size}px ${style.fontFamily}`;
      context.font = font(400);
      const longest = Math.max(...names.map((n) => context.measureText(n).width));
      const left = K <= NAMED ? Math.min(longest, 0.24 * width) + 8 : 34;
      const side = Math.min(width - left - 2, 640);
      const step = side / K;
      const flat = K <= NAMED && longest + 6 < step;
      const foot = K > NAMED || flat ? 22 : Math.min(longest, 0.24 * width) * 0.72 + 18;
      canvas.width = Math.round(width * dots);
      canvas.height = Math.round((side + foot) * dots);
      canvas.style.height = side + foot + "px";
      context.setTransform(dots, 0, 0, dots, 0, 0);
      const color = scale(dark.matches ? DARK : LIGHT, low);
      const image = new ImageData(K, K);
      for (let i = 0; i < K; i += 1) for (let j = 0; j < K; j += 1) {
        image.data.set([...color(read(now, at[i], at[j])), 255], 4 * (i * K + j));
      }
      cells.getContext("2d").putImageData(image, 0, 0);
      context.imageSmoothingEnabled = false;
      context.drawImage(cells, left, 0, side, side);
      context.textBaseline = "middle";
      if (K <= NAMED) {
        context.strokeStyle = style.getPropertyValue("--card");
        for (let i = 0; i <= K; i += 1) {
          context.strokeRect(left + i * step, 0, 0, side);
          context.strokeRect(left, i * step, side, 0);
        }
      }
      if (step > 32) {
        context.textAlign = "center";
        context.font = `${size - 1}px ${style.fontFamily}`;
        for (let i = 0; i < K; i += 1) for (let j = 0; j < K; j += 1) {
          const value = read(now, at[i], at[j]);
          if (value === null || i === j) continue;
          const [r, g, b] = color(value);
          context.fillStyle = 0.3 * r + 0.59 * g + 0.11 * b < 140 ? "#fff" : "#27272a";
          context.fillText(number(value, 2).replace(/^(−?)0\./, "$1."), left + (j + 0.5) * step, (i + 0.5) * step);
        }
      }
      const every = K <= NAMED ? 1 : [10, 25, 50, 100, 250].find((n) => n * step > 34) || 500;
      for (let i = 0; i < K; i += every) {
        const middle = (i + 0.5) * step;
        const here = (axis) => cell !== null && place[cell[axis]] === i;
        context.fillStyle = style.color;
        context.textAlign = "right";
        context.font = font(here(0) ? 700 : 400);
        const label = K <= NAMED ? names[at[i]] : String(at[i]);
        context.fillText(fit(context, label, left - 8), left - 6, middle);
        context.font = font(here(1) ? 700 : 400);
        context.save();
        context.translate(left + middle, side + (flat || K > NAMED ? 12 : 8));
        if (flat || K > NAMED) context.textAlign = "center";
        else context.rotate(-Math.PI / 4);
        context.fillText(flat || K > NAMED ? label : fit(context, label, 0.24 * width), 0, 0);
        context.restore();
      }
      if (cell !== null) {
        context.strokeStyle = "#f59e0b";
        context.lineWidth = 2.5;
        const around = Math.max(step, 7);
        const [row, column] = cell.map((c) => (place[c] + 0.5) * step);
        if (K > NAMED) {
          context.lineWidth = 1;
          context.strokeRect(left, row - around / 2, side, around);
          context.lineWidth = 2.5;
        }
        context.strokeRect(left + column - around / 2, row - around / 2, around, around);
        context.lineWidth = 1;
      }
      drawn = { left, side, step };
    }

    function describe() {
      const text = part("cell");
      if (cell === null) {
        text.textContent = "Point at a cell, or search for a class.";
        return;
      }
      const [i, j] = cell;
      const value = (k) => (read(k, i, j) === null ? "not measured" : number(read(k, i, j), 2));
      const others = ["best", "last"].map((word, e) => (ends[e] >= 0 ? `${word} ${value(ends[e])}` : "")).filter(Boolean);
      text.textContent = `${names[i]}, ${names[j]}: ${value(now)} (${frames[now].label})` + (others.length ? `; ${others.join(", ")}` : "");
      lead(text, i, j);
      list();
    }

    /** From a pair of classes to the features that it shares. */
    function lead(text, i, j) {
      if (!data.features || i === j) return;
      const pair = `${Math.min(i, j)}-${Math.max(i, j)}`;
      text.append(". ");
      if (pairs.has(pair)) {
        const link = document.createElement("a");
        link.href = `#${data.features.prefix}-${pair}`;
        link.textContent = "The features they share";
        text.append(link);
        if (!held) text.append(" (click the cell to hold it)");
      } else {
        const command = document.createElement("code");
        command.textContent = `${data.features.command}'${names[i]},${names[j]}'`;
        text.append("Their features: ", command);
      }
    }

    /** The classes that share most with the class of the chosen row. */
    function list() {
      const [i] = cell;
      const others = names.map((_, j) => j).filter((j) => j !== i && read(now, i, j) !== null);
      others.sort((a, b) => read(now, i, b) - read(now, i, a));
      part("partners-of").textContent = `${names[i]} shares most with`;
      part("partners").replaceChildren(...others.slice(0, 6).map((j) => {
        const item = document.createElement("li");
        item.textContent = `${names[j]} ${number(read(now, i, j), 2)}`;
        return item;
      }));
    }

    const epochs = (curve || []).map((row) => row[0]);
    const first = Math.min(...epochs), span = Math.max(Math.max(...epochs) - first, 1);
    const across = (epoch) => 8 + (584 * (epoch - first)) / span;

    function strip(role, column) {
      const known = curve.filter((row) => row[column] !== null);
      // A collapsed epoch, whose CAS is near its maximum, must not flatten the rest.
      const fair = known.filter((row) => row[3] === null || 2 * row[3] > K);
      const top = Math.max(...(fair.length ? fair : known).map((row) => row[column]), 1e-9);
      const up = (value) => 94 - 86 * Math.min(value / top, 1.2);
      const points = known.map((row) => `${across(row[0]).toFixed(1)} ${up(row[column]).toFixed(1)}`);
      const svg = part(role);
      if (points.length) svg.querySelector(".line").setAttribute("d", "M" + points.join("L"));
      const seek = (event) => {
        if (event.type === "pointermove" && !event.buttons) return;
        const bounds = svg.getBoundingClientRect();
        const x = (600 * (event.clientX - bounds.left)) / bounds.width;
        const away = frames.map((f) => Math.abs(across(f.epoch) - x));
        stop();
        show(away.indexOf(Math.min(...away)));
      };
      svg.addEventListener("pointerdown", seek);
      svg.addEventListener("pointermove", seek);
    }

    function show(index) {
      now = index;
      const frame = frames[now];
      if (curve) {
        slider.value = String(now);
        slider.setAttribute("aria-valuetext", `epoch ${frame.epoch}`);
        part("epoch").textContent = `epoch ${frame.epoch}`;
        part("robust").textContent = percent(frame.robust);
        part("cas").textContent = number(frame.cas, 2);
        part("predicted").textContent = frame.predicted === null ? "" : `${frame.predicted} of ${K} classes are predicted at all. `;
        for (const role of ["robust-strip", "cas-strip"]) {
          part(role).querySelector(".cursor").setAttribute("d", `M${across(frame.epoch)} 0V100`);
        }
      }
      draw();
      describe();
    }

    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "▶ Play";
      play.setAttribute("aria-label", "Play the epochs");
    }

    if (curve) {
      play.addEventListener("click", () => {
        if (timer !== null) return stop();
        if (now === frames.length - 1) show(0);
        play.textContent = "❚❚ Pause";
        play.setAttribute("aria-label", "Pause");
        const pause = Math.min(Math.max(8000 / frames.length, 90), 600);
        timer = setInterval(() => (now + 1 < frames.length ? show(now + 1) : stop()), pause);
      });
      slider.addEventListener("input", () => {
        stop();
        show(Number(slider.value));
      });
    } else if (which) {
      which.addEventListener("change", () => show(Number(which.value)));
    }
    part("order").addEventListener("change", (event) => {
      at = event.target.value === "similar" ? data.order : names.map((_, i) => i);
      place = [];
      at.forEach((c, i) => { place[c] = i; });
      draw();
    });
    part("search").addEventListener("input", (event) => {
      const wanted = event.target.value.trim().toLowerCase();
      const i = names.findIndex((n) => n.toLowerCase() === wanted);
      const near = i >= 0 ? i : wanted ? names.findIndex((n) => n.toLowerCase().includes(wanted)) : -1;
      if (near < 0) return;
      cell = [near, near];
      list();
      part("cell").textContent = names[near];
      draw();
    });
    for (const radio of box.querySelectorAll("input[type=radio]")) {
      radio.addEventListener("change", () => {
        low = Number(radio.value);
        legend();
        draw();
      });
    }
    function legend() {
      part("low").textContent = number(low, 0);
      part("gradient").style.background = `linear-gradient(90deg, ${(dark.matches ? DARK : LIGHT)[low < 0 ? "two" : "one"].join(", ")})`;
    }
    ["best", "last"].forEach((word, e) => {
      if (!(ends[e] >= 0)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = `${word}: epoch ${frames[ends[e]].epoch}`;
      button.addEventListener("click", () => {
        stop();
        show(ends[e]);
      });
      part("ends").append(button);
    });
    function pick(event) {
      if (event.type === "pointermove" && held && !event.buttons) return;
      const bounds = canvas.getBoundingClientRect();
      const j = Math.floor((event.clientX - bounds.left - drawn.left) / drawn.step);
      const i = Math.floor((event.clientY - bounds.top) / drawn.step);
      if (i < 0 || j < 0 || i >= K || j >= K) return;
      const again = cell !== null && cell[0] === at[i] && cell[1] === at[j];
      if (event.type === "pointerdown") held = !(held && again);
      cell = [at[i], at[j]];
      draw();
      describe();
    }
    canvas.addEventListener("pointermove", pick);
    canvas.addEventListener("pointerdown", pick);
    canvas.addEventListener("keydown", (event) => {
      const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!move) return;
      event.preventDefault();
      const next = cell === null ? [0, 0] : cell.map((c, axis) => Math.min(Math.max(place[c] + move[axis], 0), K - 1));
      cell = next.map((p) => at[p]);
      draw();
      describe();
    });

    box.crossclassFrame = () => ({ canvas, names: at.map((c) => names[c]), label: frames[now].label, value: (i, j) => read(now, at[i], at[j]), colour: scale(LIGHT, low) });
    box.hidden = false;
    if (curve) {
      strip("robust-strip", 1);
      strip("cas-strip", 2);
    }
    legend();
    show(now);
    new ResizeObserver(() => requestAnimationFrame(draw)).observe(canvas.parentElement);
    dark.addEventListener("change", () => { legend(); draw(); });
  }

  document.querySelectorAll("[data-matrix]").forEach(explorer);
})();
