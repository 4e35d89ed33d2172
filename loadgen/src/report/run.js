// The page of `run`.
head(data.settings.target, data.settings.load);
if (data.cut_short) bad(data.cut_short);
if (data.count_missed) add(at("verdict"), "p", {}, data.count_missed);
if (data.late) bad(data.late);
if (data.limited) bad(data.limited);
for (const miss of data.thresholds_missed || []) bad("missed: " + miss);
// Where the run was late or cut short, the same was said above.
for (const why of data.thresholds_unknown || []) if (why !== data.cut_short) bad("cannot tell: " + why);
const open = data.loop === "open";
if (!open) add(at("verdict"), "p", {}, "Closed loop: a slow server is asked less often, so these times hide what waiting clients would see.");
const summary = [["server", data.server_version], ["answered", number(data.achieved_per_s) + "/s, " + number(data.answered) + " in all"],
  ["errors", number(data.errors)], ["own CPU", data.own_cpu_us_per_request.toFixed(2) + " \u00b5s a request"]];
if (data.offered_per_s !== null) summary.splice(1, 0, ["offered", number(data.offered_per_s) + "/s"]);
if (data.own_lag) summary.push(["own send lag", "p50 " + time(data.own_lag.percentiles.p50.ns) + ", p99.9 " + time(data.own_lag.percentiles["p99.9"].ns) + ", max " + time(data.own_lag.max_ns)]);
const table = newTable(at("main"));
for (const pair of summary) row(table, pair);
for (const kind in data.errors_by_kind) row(table, [kind, data.errors_by_kind[kind].count + " \u00d7 " + data.errors_by_kind[kind].example]).className = "bad";
for (const [name, faults] of [["connection events", data.connection_events], ["warm-up's errors", data.warmup_errors]])
  for (const kind in faults) row(table, [name, faults[kind].count + " \u00d7 " + kind + ": " + faults[kind].example]);
if (data.warmup_dropped) row(table, ["warm-up", number(data.warmup_dropped) + " requests were left waiting for a connection; dropped"]);
row(table, ["own pauses", "max " + time(data.own_pause_max_ns)]);
const percentiles = section("Latency by percentile");
if (data.response) {
  const series = [{ name: open ? "response time (from the intended send)" : "service time (from the actual send)", style: "a", points: data.response_curve }];
  if (open) series.push({ name: "service time (from the actual send)", style: "b", points: data.service_curve });
  const samples = data.response.samples;
  percentilePlot(percentiles, series, samples);
  const table = newTable(percentiles);
  // In a closed loop both are one.
  const line = (name, read, samples) => row(table, [name, read(data.response)].concat(open ? [read(data.service)] : [], samples));
  row(table, ["percentile"].concat(open ? ["response", "service"] : ["service"], "samples above"), true);
  for (const name in data.response.percentiles) {
    const one = data.response.percentiles[name];
    line(name, times => time(times.percentiles[name].ns), number(one.samples_above) + (one.samples_above < 10 ? " (too few to mean much)" : ""));
  }
  line("max", times => time(times.max_ns), "");
  line("mean", times => time(times.mean_ns), "of " + number(samples));
} else add(percentiles, "p", { class: "soft" }, "Not shown: the generator itself was late.");
if (data.steps) {
  const table = newTable(percentiles);
  row(table, ["step", "offered/s", "answered/s", "errors", "p50", "p99", "p99.9", "max"], true);
  const rate = (count, seconds) => seconds ? number(count / seconds) : "\u2013";
  for (const one of data.steps) row(table, [number(one.rate) + "/s", rate(one.offered, one.seconds), rate(one.answered_in_time, one.seconds), number(one.errors),
    ...["p50", "p99", "p99.9"].map(name => time(one.response.percentiles[name].ns)), time(one.response.max_ns)]);
}
const points = data.intervals, end = points.length ? points[points.length - 1].at_s : 1;
const [tx, tTicks] = linearScale(end, (value, decimals) => number(value, decimals) + " s");
const of = key => thinned(points.map(p => [p.at_s, p[key]]));
if (!data.late) {
  const [ly, lTicks] = logScale(points.filter(p => p.max_ns !== null).flatMap(p => [p.p50_ns, p.p99_ns, p.max_ns]));
  plot(section("Latency over time"), "Latency over time", [{ name: "p50", style: "a", points: of("p50_ns") }, { name: "p99", style: "b", points: of("p99_ns") },
    { name: "max", style: "c", points: of("max_ns") }], tx, ly, tTicks, lTicks);
}
// What is answered after the end of the load, when nothing is due any more, is no rate.
const loaded = points.filter(p => p.at_s - p.seconds < data.load_s - 1e-6), during = key => thinned(loaded.map(p => [p.at_s, p[key]]));
const [ry, rTicks] = linearScale(most(loaded.map(p => Math.max(p.rate, open ? p.offered_per_s : 0)), 1) * 1.05, number);
plot(section("Answers a second"), "Answers a second", [{ name: "answered", style: "a", points: during("rate") }].concat(open ? [{ name: "offered", style: "due", points: during("offered_per_s") }] : []), tx, ry, tTicks, rTicks);
