// What all pages draw with.
const data = JSON.parse(document.getElementById("data").textContent);
const SVG = "http://www.w3.org/2000/svg", W = 920, H = 300, L = 70, R = 40, T = 12, B = 34;
const at = id => document.getElementById(id);
function add(parent, name, attributes, text) {
  const node = parent.namespaceURI === SVG || name === "svg" ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const key in attributes || {}) node.setAttribute(key, attributes[key]);
  if (text !== undefined) node.textContent = text;
  parent.appendChild(node);
  return node;
}
function time(ns) {
  if (ns === null) return "\u2013";
  if (ns === 0) return "0";
  const [value, unit] = ns < 1e3 ? [ns, "ns"] : ns < 1e6 ? [ns / 1e3, "\u00b5s"] : ns < 1e9 ? [ns / 1e6, "ms"] : [ns / 1e9, "s"];
  return (value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0)) + " " + unit;
}
const number = (value, decimals = 1) => value.toLocaleString("en", { maximumFractionDigits: decimals });
// One that is wider than the window is moved within it, and not the whole page.
const newTable = place => add(add(place, "div", { class: "wide" }), "table");
function row(table, cells, head) {
  const line = add(table, "tr");
  for (const cell of cells) add(line, head ? "th" : "td", {}, cell);
  return line;
}
// What went wrong with an endpoint's or a try's requests: a line for each kind.
function troubles(one) {
  const places = [[one.errors_by_kind, ""], [one.warmup_errors, " (in the warm-up)"], [one.connection_events, " (on a connection that carried no request)"]];
  return places.flatMap(([faults, place]) => Object.keys(faults).map(kind => faults[kind].count + " \u00d7 " + kind + place + ": " + faults[kind].example));
}
// A heading, and a place below it.
function section(heading) {
  add(at("main"), "h2", {}, heading);
  return add(at("main"), "div");
}
// Of any number of values: as arguments of Math.min they overflow the stack beyond some ten thousand.
const least = (values, start) => values.reduce((low, value) => Math.min(low, value), start);
const most = (values, start) => values.reduce((high, value) => Math.max(high, value), start);
// More points than a plot has room for hide nothing but each other: of each stretch the lowest and the highest stay, and a gap if there is one.
function thinned(points, room = 2000) {
  if (points.length <= room) return points;
  const size = Math.ceil(points.length / (room / 3)), kept = [];
  for (let from = 0; from < points.length; from += size) {
    const stretch = points.slice(from, from + size), known = stretch.filter(p => p[1] !== null);
    const low = known.reduce((one, p) => one && one[1] <= p[1] ? one : p, null), high = known.reduce((one, p) => one && one[1] >= p[1] ? one : p, null);
    const gap = stretch.find(p => p[1] === null);
    kept.push(...stretch.filter(p => p === low || p === high || p === gap));
  }
  return kept;
}
// One plot: x and y map data to 0..1; ticks are [value, label]. A series is a line through its points, or, with `dots`, the points.
// Where a point has no value the line breaks: nobody knows what was there. One between two such is a dot.
function plot(place, name, series, x, y, xTicks, yTicks) {
  const keys = add(place, "p", { class: "soft" });
  for (const one of series) add(keys, "span", { class: "key " + one.style }, one.name);
  const svg = add(place, "svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": name });
  const px = value => L + x(value) * (W - L - R), py = value => H - B - y(value) * (H - T - B);
  for (const [value, label] of yTicks) {
    add(svg, "line", { class: label ? "grid" : "grid minor", x1: L, x2: W - R, y1: py(value), y2: py(value) });
    add(svg, "text", { x: L - 8, y: py(value) + 4, "text-anchor": "end" }, label);
  }
  for (const [value, label] of xTicks) {
    add(svg, "line", { class: label ? "grid" : "grid minor", x1: px(value), x2: px(value), y1: T, y2: H - B });
    add(svg, "text", { x: px(value), y: H - B + 18, "text-anchor": "middle" }, label);
  }
  for (const one of series) {
    const known = i => i in one.points && one.points[i][1] !== null, points = one.points.filter((p, i) => known(i));
    if (!points.length) continue;
    const d = one.points.map((p, i) => known(i) ? (known(i - 1) ? "L" : "M") + px(p[0]).toFixed(1) + " " + py(p[1]).toFixed(1) : "").join("");
    if (!one.dots) add(svg, "path", { class: one.style, d });
    const dots = one.dots ? points : one.points.filter((p, i) => known(i) && !known(i - 1) && !known(i + 1));
    for (const p of dots) add(svg, "circle", { class: one.style, cx: px(p[0]), cy: py(p[1]), r: one.dots ? 4 : 3 });
  }
}
// Logarithmic scale over the data, in decades.
function logScale(values) {
  const seen = values.filter(value => value > 0);
  const low = Math.floor(Math.log10(least(seen, 1e9))), high = Math.max(low + 1, Math.ceil(Math.log10(most(seen, 10 ** low))));
  const ticks = [];
  for (let power = low; power <= high; power++) {
    ticks.push([10 ** power, time(10 ** power)]);
    for (let part = 2; part < 10 && power < high; part++) ticks.push([part * 10 ** power, ""]);
  }
  return [value => (Math.log10(Math.max(value, 10 ** low)) - low) / (high - low), ticks];
}
function linearScale(high, label) {
  const raw = high / 5 || 1, unit = 10 ** Math.floor(Math.log10(raw)), step = [1, 2, 5, 10].find(s => s * unit >= raw) * unit;
  // As many decimals as tell one tick from the next.
  const ticks = [], decimals = Math.max(0, -Math.floor(Math.log10(step)));
  for (let value = 0; value <= high * 1.0001; value += step) ticks.push([value, label(value, decimals)]);
  return [value => value / (high || 1), ticks];
}
// Latency by percentile: `samples` decide how far the axis goes.
function percentilePlot(place, series, samples) {
  const decades = Math.max(2, Math.min(6, Math.ceil(Math.log10(samples || 1))));
  for (const one of series) one.points = one.points.filter(p => p[0] > 0).map(p => [Math.min(-Math.log10(Math.max(1 - p[0] / 100, 1e-9)), decades), p[1]]);
  const xTicks = [[0, "0"], [Math.log10(2), "p50"]];
  for (let i = 1; i <= decades; i++) xTicks.push([i, "p" + (100 - 100 / 10 ** i).toFixed(Math.max(0, i - 2))]);
  const [y, yTicks] = logScale(series.flatMap(one => one.points.map(p => p[1])));
  plot(place, "Latency by percentile", series, value => value / decades, y, xTicks, yTicks);
}
const bad = text => add(at("verdict"), "p", { class: "bad" }, text);
function head(title, load) {
  at("title").textContent = title;
  at("load").textContent = load;
  document.title = "lockgate-loadgen: " + title;
}
for (const part of [data.manifest, data.settings]) for (const key in part) {
  const value = Array.isArray(part[key]) ? part[key].join(" ") : String(part[key] ?? "");
  if (value !== "" && key !== "title" && key !== "load") row(at("manifest"), [key.replaceAll("_", " "), value]);
}
