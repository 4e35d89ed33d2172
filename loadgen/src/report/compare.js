// The page of `compare`.
const names = data.endpoints.map(one => one.name), first = names[0], styles = ["a", "b", "c", "d", "e", "f"];
const rate = (value, decimals) => value === null ? "\u2013" : number(value, decimals) + "/s";
const measures = [["cpu_per_request", "CPU a request", time], ["p50", "p50", time], ["p99", "p99", time], ["rate", "rate", rate]];
const perCent = data.confidence_percent === null ? null : data.confidence_percent.toFixed(1) + " %";
head(names.join(", "), data.settings.load);
add(at("verdict"), "p", {}, number(data.rounds) + " rounds of " + number(data.round_s) + " s in random order, seed " + data.seed);
if (data.unfinished) bad("cut short: " + data.unfinished);
for (const warning of data.warnings) bad(warning);
if (data.rounds_late) bad(number(data.rounds_late) + " rounds were left out: the generator itself was late in them");
for (const wrong of data.wrong_answers) bad("answered wrongly: " + wrong);
if (data.errors) bad(number(data.errors) + " requests failed; do not trust these numbers");
if (data.loop === "closed") add(at("verdict"), "p", {}, "Closed loop: a slow server is asked less often, so these times hide what waiting clients would see.");

// Ratios: what each round said, the interval, and the median, on a logarithmic axis on which 2 and 1/2 are as far from 1.
const ratios = section("Ratios to " + first);
add(ratios, "p", { class: "soft" }, "Dots: a round each. Mark and number: their median."
  + (perCent ? " Bar: covers the true median with " + perCent + "." : " Too few rounds for an interval, which takes 6."));
const lines = measures.flatMap(([measure, name]) => data.endpoints.map((one, index) => ({ name, index, of: one[measure] })))
  .filter(line => line.index > 0);
// Where a first one is not known, or nothing, there is no ratio to it.
const perRound = line => line.of.to_first === null ? [] : line.of.rounds.map((value, i) => value / data.endpoints[0][measures.find(m => m[1] === line.name)[0]].rounds[i]);
if (lines.length) {
  const seen = lines.flatMap(perRound).concat(1).filter(value => value > 0 && isFinite(value)).map(value => Math.log2(value));
  const low = Math.min(...seen, -0.15) - 0.05, high = Math.max(...seen, 0.15) + 0.05, left = 250, right = 190, step = 26, height = T + step * lines.length + B;
  const svg = add(ratios, "svg", { viewBox: `0 0 ${W} ${height}`, role: "img", "aria-label": "Ratios to " + first });
  const px = value => left + (Math.log2(value) - low) / (high - low) * (W - left - right);
  const marks = high - low > 6 ? [0.0625, 0.25, 1, 4, 16, 64, 256] : high - low > 2 ? [0.25, 0.5, 1, 2, 4, 8] : [0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.4, 1.6, 2];
  for (const value of marks.filter(value => Math.log2(value) >= low && Math.log2(value) <= high)) {
    add(svg, "line", { class: value === 1 ? "due" : "grid", x1: px(value), x2: px(value), y1: T, y2: height - B });
    add(svg, "text", { x: px(value), y: height - B + 18, "text-anchor": "middle" }, value + " \u00d7");
  }
  lines.forEach((line, i) => {
    const y = T + step * (i + 0.5), style = styles[line.index], ratio = line.of.to_first;
    add(svg, "text", { class: "ink", x: 0, y: y + 4 }, line.name + ", " + short(names[line.index]));
    perRound(line).forEach((value, round) => value > 0 && add(svg, "circle", { class: style + " faint", cx: px(value), cy: y + (round % 3 - 1) * 4, r: 3 }));
    if (ratio === null || !(ratio.median > 0)) {
      add(svg, "text", { class: "strong", x: W - right + 16, y: y + 4 }, ratio === null ? "not known" : ratio.median.toFixed(3));
      return;
    }
    if (ratio.low > 0) add(svg, "line", { class: style + " span", x1: px(ratio.low), x2: px(ratio.high), y1: y, y2: y });
    add(svg, "line", { class: style + " span", x1: px(ratio.median), x2: px(ratio.median), y1: y - 9, y2: y + 9 });
    const interval = ratio.low === null ? "" : "  [" + ratio.low.toFixed(3) + ", " + ratio.high.toFixed(3) + "]";
    add(svg, "text", { class: "strong", x: W - right + 16, y: y + 4 }, ratio.median.toFixed(3) + interval);
  });
}
function short(name) { return name.length > 18 ? name.slice(0, 17) + "\u2026" : name; }

const medians = newTable(ratios);
row(medians, ["median over rounds"].concat(names), true);
row(medians, ["target"].concat(data.endpoints.map(one => one.target)));
for (const [measure, name, show] of measures)
  row(medians, [name].concat(data.endpoints.map(one => one[measure].median === null ? "not known" : show(one[measure].median))));
row(medians, ["errors"].concat(data.endpoints.map(one => number(one.errors))));
for (const one of data.endpoints) for (const line of troubles(one)) add(ratios, "p", { class: "bad" }, one.name + ": " + line);

const curves = data.endpoints.map((one, index) => ({ name: one.name, style: styles[index], points: one.response_curve }));
percentilePlot(section("Latency by percentile, all rounds together"), curves, Math.max(...data.endpoints.map(one => one.response.samples)));

// A machine that changed meanwhile shows here: in all of them.
const [roundX, roundTicks] = [value => (value - 1) / Math.max(1, data.rounds - 1), []];
for (let round = 1; round <= data.rounds; round += Math.max(1, Math.ceil(data.rounds / 12))) roundTicks.push([round, String(round)]);
for (const [measure, name, show] of measures) {
  const series = data.endpoints.map((one, index) => ({ name: one.name, style: styles[index],
    points: one[measure].rounds.map((value, i) => [i + 1, value]).filter(p => p[1] !== null) })).filter(one => one.points.length);
  if (!series.length) continue;
  const [y, yTicks] = linearScale(Math.max(...series.flatMap(one => one.points.map(p => p[1])), 1e-9) * 1.05, show);
  plot(section(name + ", round by round"), name + ", round by round", series, roundX, y, roundTicks, yTicks);
}
