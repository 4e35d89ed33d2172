//! What a run came to, as a table for people and as JSON for programs.

use crate::manifest;
use crate::measure::{self, Faults, PERCENTILES, Point, at, samples_above, time};
use crate::run::{Outcome, Step};
use crate::trouble::Trouble;
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// Fewer samples than this above a percentile make it a guess.
const SAMPLES_ABOVE_MIN: u64 = 10;

pub fn table(title: &str, outcome: &Outcome) -> String {
    let mut out = format!("{title}\n");
    summary(&mut out, outcome);
    if let Some(late) = &outcome.late {
        let _ = writeln!(out, "\nno percentiles: {late}");
        return out;
    }
    if let Some(limited) = &outcome.limited {
        let _ = writeln!(out, "\nWARNING: {limited}");
    }
    percentiles(&mut out, outcome);
    steps(&mut out, outcome);
    if outcome.closed {
        let _ = writeln!(
            out,
            "\nClosed loop: a slow server is asked less often, so these times hide what waiting clients would see."
        );
    }
    out
}

fn summary(out: &mut String, outcome: &Outcome) {
    let total = &outcome.total;
    let mut line = |name: &str, value: String| {
        let _ = writeln!(out, "{name:<19}{value}");
    };
    line("server", outcome.server_version.clone());
    if let Some(cut_short) = &outcome.cut_short {
        line("CUT SHORT", cut_short.clone());
    }
    if let Some(missed) = &outcome.count_missed {
        line("ended early", missed.clone());
    }
    if !outcome.closed {
        let of = format!("{} requests in {:.2} s{}", total.offered, outcome.load_s, apart(outcome));
        line("offered", format!("{:.1}/s ({of})", outcome.offered));
    }
    line("achieved", achieved(outcome));
    let mut failures = |name: &str, faults: &Faults| {
        line(name, measure::total(faults).to_string());
        faults.iter().for_each(|(kind, (count, detail))| line("", format!("{count} x {kind}: {detail}")));
    };
    failures("errors", &total.faults);
    if !total.events.is_empty() {
        failures("connection events", &total.events);
    }
    if !total.warmup_faults.is_empty() {
        failures("warm-up's errors", &total.warmup_faults);
    }
    if total.warmup_dropped > 0 {
        line("warm-up", format!("left {} requests waiting for a connection; dropped", total.warmup_dropped));
    }
    if total.bytes > 0 {
        line("row data", bytes_per_second(total.bytes as f64 / outcome.elapsed_s));
    }
    let busiest = outcome.busiest.map(|busiest| format!(", the busiest thread {:.0} % of a core", busiest * 100.0));
    line("own CPU", format!("{:.2} us a request{}", outcome.cpu_ns / 1e3, busiest.unwrap_or_default()));
    if !outcome.closed {
        let (p50, p999, max) = (at(&total.lag, 50.0), at(&total.lag, 99.9), total.lag.max());
        line("own send lag", format!("p50 {}, p99.9 {}, max {}", time(p50), time(p999), time(max)));
    }
    line("own pauses", format!("max {}", time(total.pause_ns)));
}

fn apart(outcome: &Outcome) -> &'static str {
    if outcome.apart { ", each thread's over its own time" } else { "" }
}

/// The rate with what it is made of. Where requests that were due in time were answered after it, also how many that makes.
fn achieved(outcome: &Outcome) -> String {
    let (in_time, answered) = (outcome.in_time, outcome.total.response.len());
    let of = format!("{in_time} answered rightly in {:.2} s{}", outcome.load_s, apart(outcome));
    let later = !outcome.closed && answered > in_time;
    let in_all = if later { format!("; {answered} in {:.2} s", outcome.elapsed_s) } else { String::new() };
    format!("{:.1}/s ({of}{in_all})", outcome.achieved)
}

fn bytes_per_second(rate: f64) -> String {
    if rate < 1e6 { format!("{:.1} kB/s", rate / 1e3) } else { format!("{:.1} MB/s", rate / 1e6) }
}

/// Without samples there is no time to show.
fn shown(histogram: &Histogram<u64>, ns: u64) -> String {
    if histogram.is_empty() { "-".into() } else { time(ns) }
}

fn percentiles(out: &mut String, outcome: &Outcome) {
    let (response, service) = (&outcome.total.response, &outcome.total.service);
    let (first, second) = if outcome.closed { ("service time", "") } else { ("response time", "service time") };
    let _ = writeln!(out, "\n{:<10} {first:>14} {second:>14} {:>15}", "percentile", "samples above");
    let mut line = |name: String, read: &dyn Fn(&Histogram<u64>) -> u64, samples: String| {
        let second = if outcome.closed { String::new() } else { shown(service, read(service)) };
        let line = format!("{name:<10} {:>14} {second:>14} {samples}", shown(response, read(response)));
        let _ = writeln!(out, "{}", line.trim_end());
    };
    for percentile in PERCENTILES {
        let above = samples_above(response.len(), percentile);
        let guess = if above < SAMPLES_ABOVE_MIN { " (too few to mean much)" } else { "" };
        line(format!("p{percentile}"), &|of| at(of, percentile), format!("{above:>15}{guess}"));
    }
    line("max".into(), &Histogram::max, String::new());
    line("mean".into(), &|of| of.mean() as u64, format!("{:>15}", format!("of {}", response.len())));
}

fn steps(out: &mut String, outcome: &Outcome) {
    if outcome.steps.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "\n{:<10} {:>10} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10}",
        "step", "offered/s", "answered/s", "errors", "p50", "p99", "p99.9", "max"
    );
    for step in &outcome.steps {
        let counts = &step.counts;
        let rate = |count: u64| {
            if step.seconds > 0.0 { format!("{:.1}", count as f64 / step.seconds) } else { "-".into() }
        };
        let value = |percentile| shown(&counts.response, at(&counts.response, percentile));
        let _ = writeln!(
            out,
            "{:<10} {:>10} {:>10} {:>8} {:>10} {:>10} {:>10} {:>10}",
            format!("{}/s", step.rate),
            rate(counts.offered),
            rate(step.answered),
            counts.faults_total(),
            value(50.0),
            value(99.0),
            value(99.9),
            value(100.0)
        );
    }
}

fn step(step: &Step) -> Value {
    json!({
        "rate": step.rate, "seconds": step.seconds, "offered": step.counts.offered, "answered": step.counts.response.len(),
        "answered_in_time": step.answered, "errors": step.counts.faults_total(), "response": histogram(&step.counts.response),
    })
}

/// Without samples all times are null.
pub fn histogram(histogram: &Histogram<u64>) -> Value {
    let some = |value: Value| if histogram.is_empty() { Value::Null } else { value };
    let percentiles: serde_json::Map<String, Value> = PERCENTILES
        .iter()
        .map(|&percentile| {
            let ns = some(at(histogram, percentile).into());
            (format!("p{percentile}"), json!({"ns": ns, "samples_above": samples_above(histogram.len(), percentile)}))
        })
        .collect();
    json!({
        "samples": histogram.len(),
        "min_ns": some(histogram.min().into()),
        "mean_ns": some(histogram.mean().into()),
        "max_ns": some(histogram.max().into()),
        "percentiles": percentiles,
    })
}

/// Points of the percentile curve: [percentile, ns], denser towards the end.
pub fn curve(histogram: &Histogram<u64>) -> Vec<Value> {
    if histogram.is_empty() {
        return Vec::new();
    }
    histogram
        .iter_quantiles(5)
        .map(|step| json!([step.quantile_iterated_to() * 100.0, step.value_iterated_to()]))
        .collect()
}

/// Without times where the generator was late.
fn point(point: &Point, late: bool) -> Value {
    let mut value = json!({
        "at_s": point.at_s, "seconds": point.seconds, "rate": point.rate(), "offered": point.offered, "offered_per_s": point.offered_rate(),
        "done": point.done, "errors": point.faults, "lag_p999_ns": point.lag_p999_ns,
    });
    if !late {
        value["p50_ns"] = point.times.map(|times| times.p50_ns).into();
        value["p99_ns"] = point.times.map(|times| times.p99_ns).into();
        value["max_ns"] = point.times.map(|times| times.max_ns).into();
    }
    value
}

pub fn faults(faults: &Faults) -> Value {
    let one =
        |(kind, (count, detail)): (&String, &(u64, String))| (kind.clone(), json!({"count": count, "example": detail}));
    Value::Object(faults.iter().map(one).collect())
}

pub fn json(outcome: &Outcome, settings: &Value) -> Value {
    let total = &outcome.total;
    let mut value = json!({
        "loop": if outcome.closed { "closed" } else { "open" },
        "offered_per_s": if outcome.closed { Value::Null } else { json!(outcome.offered) },
        "achieved_per_s": outcome.achieved,
        "requests": total.offered,
        "answered": total.response.len(),
        "answered_in_time": outcome.in_time,
        "warmup_dropped": total.warmup_dropped,
        "load_s": outcome.load_s,
        "elapsed_s": outcome.elapsed_s,
        "row_bytes": total.bytes,
        "own_cpu_us_per_request": outcome.cpu_ns / 1e3,
        "busiest_thread_cores": outcome.busiest,
        "own_lag": if outcome.closed { Value::Null } else { histogram(&total.lag) },
        "own_pause_max_ns": total.pause_ns,
        "answered_after_own_pause": total.touched,
        "late": outcome.late,
        "limited": outcome.limited,
        "cut_short": outcome.cut_short,
        "count_missed": outcome.count_missed,
        "interrupted": outcome.interrupted,
        "server_version": outcome.server_version,
        "intervals": outcome.points.iter().map(|one| point(one, outcome.late.is_some())).collect::<Vec<_>>(),
        "settings": settings,
        "manifest": manifest::collect(),
    });
    Trouble::of(total).tell(&mut value);
    if outcome.late.is_none() {
        value["response"] = histogram(&total.response);
        value["service"] = histogram(&total.service);
        value["response_curve"] = curve(&total.response).into();
        if !outcome.steps.is_empty() {
            value["steps"] = outcome.steps.iter().map(step).collect();
        }
        value["service_curve"] = curve(&total.service).into();
    }
    value
}
