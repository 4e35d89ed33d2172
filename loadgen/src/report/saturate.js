// The page of `saturate`.
const bound = data.bound_ns, held = data.probes.filter(one => one.why_not === null), missed = data.probes.filter(one => one.why_not !== null);
const set = data.settings;
head(set.target, `open loop, each rate for ${number(set.duration_s)} s after ${number(set.warmup_s)} s of warm-up, ${set.arrivals} arrivals, ${set.connections} connections, seed ${set.seed}`);
const answer = data.rate === null ? "no rate held" : number(data.rate) + "/s with p99 under " + time(bound);
add(at("verdict"), "p", {}, answer + "; " + data.limit);
if (data.unfinished) bad(data.unfinished);
for (const wrong of data.wrong_answers) bad("answered wrongly: " + wrong);
if (data.generator_limited) bad("the generator was the limit: the target may do more");

const rates = data.probes.map(one => one.rate), low = Math.min(...rates), high = Math.max(...rates, low * 1.01);
const x = value => Math.log(value / low) / Math.log(high / low), xTicks = [];
for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++)
  for (const part of [1, 2, 5]) if (part * 10 ** power >= low && part * 10 ** power <= high) xTicks.push([part * 10 ** power, number(part * 10 ** power) + "/s"]);
const dots = (of, read) => of.filter(one => read(one) !== null).map(one => [one.rate, read(one)]);
const kinds = read => [{ name: "held", style: "a", dots: true, points: dots(held, read) }, { name: "did not hold", style: "miss", dots: true, points: dots(missed, read) }];

const [y, yTicks] = logScale(data.probes.map(one => one.p99_ns).concat(bound));
plot(section("p99 of each rate tried"), "p99 of each rate tried",
  kinds(one => one.p99_ns).concat({ name: "the bound", style: "due", points: [[low, bound], [high, bound]] }), x, y, xTicks, yTicks);
const [ry, rTicks] = linearScale(Math.max(high, ...data.probes.map(one => one.achieved_per_s)) * 1.05, number);
const due = Array.from({ length: 41 }, (_, i) => low * (high / low) ** (i / 40)).map(rate => [rate, rate]);
plot(section("Answered a second"), "Answered a second",
  kinds(one => one.achieved_per_s).concat({ name: "asked", style: "due", points: due }), x, ry, xTicks, rTicks);

const table = newTable(section("Every try, in order"));
row(table, ["asked/s", "answered/s", "p99", "verdict"], true);
for (const one of data.probes)
  row(table, [number(one.rate), number(one.achieved_per_s), one.p99_ns === null ? "\u2013" : time(one.p99_ns), [one.why_not ?? "held"].concat(troubles(one)).join("; ")]);
