"use strict";
/** Matrices as `packed.py` writes them, and the files of a figure, made on the spot without a network. */
const crossclass = (() => {
  const UNKNOWN = -32768;

  /** Packed matrices to a function of (frame, i, j); null is unknown. */
  async function unpack({ K, digits, half, data }) {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const whole = new DataView(await new Response(stream).arrayBuffer());
    const size = half ? (K * (K + 1)) / 2 : K * K;
    return (frame, i, j) => {
      const [a, b] = half && i > j ? [j, i] : [i, j];
      const index = half ? a * K - (a * (a - 1)) / 2 + (b - a) : a * K + b;
      const value = whole.getInt16(2 * (frame * size + index), true);
      return value === UNKNOWN ? null : value / 10 ** digits;
    };
  }

  const quoted = (cell) => (cell === null || cell === undefined ? "" : /[",\n]/.test(String(cell)) ? `"${String(cell).replaceAll('"', '""')}"` : String(cell));
  const csv = (columns, rows) => [columns, ...rows].map((row) => row.map(quoted).join(",")).join("\n") + "\n";
  const square = (names, value) => csv(["", ...names], names.map((name, i) => [name, ...names.map((_, j) => value(i, j))]));

  function give(blob, name) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  }

  /** The drawing that is shown, as a file of its own: with its font, and on white. */
  function drawing(figure) {
    const shown = [...figure.querySelectorAll("svg")].find((svg) => svg.getClientRects().length);
    if (!shown) return null;
    const copy = shown.cloneNode(true);
    const style = document.createElementNS(shown.namespaceURI, "style");
    style.textContent = "text { font-family: Helvetica, Arial, sans-serif; } image { image-rendering: pixelated; } svg { background: #fff; }";
    copy.prepend(style);
    return copy;
  }

  /** The matrix that a viewer shows as an SVG of squares. */
  function squares({ names, value, colour }) {
    const K = names.length, side = 400 / K, room = K <= 60 ? 110 : 0;
    const escape = (text) => text.replace(/[&<>]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;" })[c]);
    let cells;
    if (K <= 60) {
      cells = names.map((_, i) => names.map((_, j) => `<path fill="rgb(${colour(value(i, j))})" d="M${(room + j * side).toFixed(2)} ${(i * side).toFixed(2)}h${side.toFixed(2)}v${side.toFixed(2)}h-${side.toFixed(2)}z"/>`).join("")).join("");
    } else {
      const canvas = document.createElement("canvas");
      canvas.width = canvas.height = K;
      const image = new ImageData(K, K);
      for (let i = 0; i < K; i += 1) for (let j = 0; j < K; j += 1) image.data.set([...colour(value(i, j)), 255], 4 * (i * K + j));
      canvas.getContext("2d").putImageData(image, 0, 0);
      cells = `<image href="${canvas.toDataURL()}" width="400" height="400" style="image-rendering: pixelated"/>`;
    }
    const size = Math.min(11, side * 0.8);
    const words = room ? names.map((name, i) => `<text x="${room - 4}" y="${((i + 0.5) * side + size / 3).toFixed(2)}" text-anchor="end">${escape(name)}</text><text transform="translate(${(room + (i + 0.5) * side + size / 3).toFixed(2)} 404) rotate(-90)" text-anchor="end">${escape(name)}</text>`).join("") : "";
    return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${400 + room} ${400 + room}" width="${400 + room}" height="${400 + room}" font-family="Helvetica, Arial, sans-serif" font-size="${size}"><rect width="100%" height="100%" fill="#fff"/>${cells}${words}</svg>`;
  }

  function picture(svg, name) {
    const box = svg.viewBox.baseVal, times = Math.min(3, 4000 / Math.max(box.width, box.height));
    const image = new Image();
    image.onload = () => {
      const canvas = document.createElement("canvas");
      canvas.width = Math.round(times * box.width);
      canvas.height = Math.round(times * box.height);
      const context = canvas.getContext("2d");
      context.fillStyle = "#fff";
      context.fillRect(0, 0, canvas.width, canvas.height);
      context.drawImage(image, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => give(blob, name));
    };
    svg.setAttribute("width", times * box.width);
    svg.setAttribute("height", times * box.height);
    image.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(new XMLSerializer().serializeToString(svg));
  }

  async function save(figure, kind) {
    const name = `${figure.dataset.save}.${kind}`, viewer = figure.querySelector("[data-matrix]");
    if (viewer && !viewer.crossclassFrame) return;
    const frame = viewer && viewer.crossclassFrame();
    if (kind === "csv") {
      const table = viewer ? null : JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
      let text;
      if (frame) text = square(frame.names, frame.value);
      else if (table.packed || table.of) {
        const sources = (table.of || [[null, 0]]).map(([id, frame]) => [id ? JSON.parse(document.getElementById(id).textContent) : table, frame]);
        const [first, second] = await Promise.all(sources.map(async ([{ packed }, frame]) => [await unpack(packed), frame]));
        const at = ([read, frame], i, j) => read(frame, i, j);
        const minus = (a, b) => (a === null || b === null ? null : Number((a - b).toFixed(3)));
        text = square(sources[0][0].names, (i, j) => (second ? minus(at(first, i, j), at(second, i, j)) : at(first, i, j)));
      } else text = csv(table.columns, table.rows);
      return give(new Blob([text], { type: "text/csv" }), name);
    }
    const svg = frame ? new DOMParser().parseFromString(squares(frame), "image/svg+xml").documentElement : drawing(figure);
    if (!svg) return;
    if (kind === "png") return picture(svg, name);
    give(new Blob([new XMLSerializer().serializeToString(svg)], { type: "image/svg+xml" }), name);
  }

  for (const figure of document.querySelectorAll("[data-save]")) {
    for (const button of figure.querySelectorAll("[data-kind]")) {
      button.addEventListener("click", () => save(figure, button.dataset.kind));
    }
    figure.querySelector(".save").hidden = false;
  }
  return { unpack };
})();
