/** Any number of many runs against any setting, drawn from the numbers that stand in the page. */
for (const box of document.querySelectorAll('[data-plot="settings"]')) {
  const figure = box.closest("figure");
  const data = JSON.parse(figure.querySelector('script[type="application/json"]').textContent);
  const chosen = (role) => figure.querySelector(`[data-role="${role}"]`);
  const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);
  const head = data.columns.length - data.numbers.length; // the first column of numbers

  /** About five round numbers that span an interval. */
  function ticks(low, high) {
    const raw = (high - low) / 4 || 1, power = 10 ** Math.floor(Math.log10(raw));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
    const out = [];
    for (let v = Math.ceil(low / step) * step; v <= high + step / 1e6; v += step) out.push(Number(v.toPrecision(10)));
    return out;
  }

  function draw() {
    const axis = data.settings[chosen("setting").value], k = Number(chosen("number").value), number = data.numbers[k];
    const scale = number.percent ? 100 : 1;
    const others = data.settings.filter((s) => s !== axis).map((s) => s.column);
    const called = (texts, columns) => columns.map((c) => `${data.columns[c + 1] === "run" ? "" : `${data.columns[c + 1]} `}${texts[c]}`).join(", ");
    const rows = data.means.filter(([, cells]) => cells[k][0] !== null).map(([texts, cells]) => ({ texts, x: axis.places[texts[axis.column]], cell: cells[k].map((v) => (v === null || v === undefined ? null : scale * v)) }));
    // rows evaluated otherwise are another line, unless each value of the setting has one evaluation only
    const plain = rows.map((row) => called(row.texts, others) + "|" + row.x);
    const apart = new Set(plain).size < plain.length ? data.more : [];
    const series = [...new Set(rows.map((row) => called(row.texts, [...others, ...apart])))];
    const colour = (texts) => data.colours[series.indexOf(called(texts, [...others, ...apart])) % data.colours.length];
    const points = data.rows.filter((row) => row[head + k] !== null).map((row) => ({ texts: row.slice(1), x: axis.places[row[1 + axis.column]], y: scale * row[head + k] }));

    const width = Math.max(280, Math.round(box.clientWidth)), height = 340, left = 52, right = 14, bottom = 46;
    const legend = series.length > 1 || series[0] ? series : [];
    const top = 14 + 17 * legend.length;
    const ys = [...points.map((p) => p.y), ...rows.flatMap((r) => r.cell.filter((v) => v !== null))];
    if (!ys.length) { box.innerHTML = ""; return; }
    let [low, high] = [Math.min(...ys), Math.max(...ys)];
    const room = (high - low) * 0.06 || 1;
    [low, high] = [low - room, high + room];
    const marks = axis.numeric ? [...new Set(Object.values(axis.places))] : Object.values(axis.places);
    const [first, last] = [Math.min(...marks), Math.max(...marks)], side = (last - first) * 0.08 || 1;
    const X = (v) => left + ((v - first + side) / (last - first + 2 * side)) * (width - left - right);
    const Y = (v) => top + ((high - v) / (high - low)) * (height - top - bottom);
    const n = (v) => v.toFixed(1);
    const out = [];
    for (const t of ticks(low, high)) out.push(`<path d="M${left} ${n(Y(t))}H${width - right}" stroke="#e4e4e7"/><text x="${left - 6}" y="${n(Y(t) + 4)}" text-anchor="end">${t}</text>`);
    let until = -Infinity;
    for (const [text, v] of Object.entries(axis.places).sort((a, b) => a[1] - b[1])) {
      const short = text.length > 16 && !axis.numeric ? `${text.slice(0, 15)}…` : text, half = 3.4 * short.length;
      if (X(v) - half < until) continue; // names do not lie on each other
      until = X(v) + half + 4;
      const inside = Math.min(Math.max(X(v), left + half - 40), width - half);
      out.push(`<path d="M${n(X(v))} ${height - bottom}v5" stroke="#71717a"/><text x="${n(inside)}" y="${height - bottom + 18}" text-anchor="middle">${escape(short)}</text>`);
    }
    out.push(`<path d="M${left} ${top}V${height - bottom}H${width - right}" fill="none" stroke="#71717a"/><text x="${(left + width - right) / 2}" y="${height - 8}" text-anchor="middle" font-weight="600">${escape(axis.name)}</text>`);
    series.forEach((name, i) => {
      const own = rows.filter((row) => called(row.texts, [...others, ...apart]) === name).sort((a, b) => a.x - b.x);
      const paint = data.colours[i % data.colours.length];
      if (axis.numeric) out.push(`<path d="M${own.map((row) => `${n(X(row.x))} ${n(Y(row.cell[0]))}`).join("L")}" fill="none" stroke="${paint}" stroke-width="1.5"/>`);
      const shift = (i - (series.length - 1) / 2) * Math.min(10, 60 / series.length);
      own.forEach((row) => { row.at = X(row.x) + (axis.numeric ? 0 : shift); row.paint = paint; });
    });
    const of = new Map(rows.map((row) => [JSON.stringify(row.texts), row]));
    for (const p of points) {
      const row = of.get(JSON.stringify(p.texts.slice(0, head - 2)));
      const at = row ? row.at : X(p.x);
      out.push(`<circle cx="${n(at + 5)}" cy="${n(Y(p.y))}" r="2.5" fill="${colour(p.texts)}" fill-opacity=".6"/>`);
    }
    for (const row of rows) {
      if (row.cell.length > 2 && row.cell[1] !== null && row.cell[2] !== null) out.push(`<path d="M${n(row.at)} ${n(Y(row.cell[1]))}V${n(Y(row.cell[2]))}" stroke="${row.paint}" stroke-width="1.5"/>`);
      out.push(`<circle cx="${n(row.at)}" cy="${n(Y(row.cell[0]))}" r="5" fill="${row.paint}" stroke="#fff"/>`);
    }
    legend.forEach((name, i) => out.push(`<circle cx="${left + 5}" cy="${12 + 17 * i}" r="4.5" fill="${data.colours[i % data.colours.length]}"/><text x="${left + 15}" y="${16 + 17 * i}">${escape(name || "all")}</text>`));
    box.innerHTML = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="Helvetica, Arial, sans-serif" font-size="12" fill="#18181b" role="img" aria-label="${escape(`${number.label} against ${axis.name}`)}">${out.join("")}</svg>`;
    const means = rows.map((row) => `${called(row.texts, [axis.column])}: ${row.cell[0].toFixed(2)}`);
    chosen("said").textContent = `${number.label} against ${axis.name}${apart.length || !data.more.length ? "" : "; rows along this axis were evaluated differently, see the table"}.`;
    box.firstChild.setAttribute("aria-label", `${number.label} against ${axis.name}: ${means.join("; ")}`);
  }

  for (const role of ["setting", "number"]) chosen(role).addEventListener("change", draw);
  addEventListener("resize", draw);
  draw();
}
