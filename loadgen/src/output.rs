//! What a run came to, as a table for people and as JSON for programs.

use crate::manifest;
use crate::measure::{PERCENTILES, Point, at, samples_above, time};
use crate::run::{Outcome, Step};
use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::fmt::Write;

/// Fewer samples than this above a percentile make it a guess.
const SAMPLES_ABOVE_MIN: u64 = 10;

pub fn table(title: &str, outcome: &Outcome) -> String {
    let mut out = String::new();
    let total = &outcome.total;
    let _ = writeln!(out, "{title}");
    let _ = writeln!(out, "server           {}", outcome.server_version);
    if !outcome.closed {
        let _ = writeln!(out, "offered          {:.1}/s ({} requests)", outcome.offered, total.offered);
    }
    let _ = writeln!(
        out,
        "achieved         {:.1}/s ({} answered rightly in {:.2} s)",
        outcome.achieved,
        total.response.len(),
        outcome.elapsed_s
    );
    let _ = writeln!(out, "errors           {}", total.faults_total());
    for (kind, (count, detail)) in &total.faults {
        let _ = writeln!(out, "  {count:>8} x {kind}: {detail}");
    }
    if total.bytes > 0 {
        let (per_second, unit) = match total.bytes as f64 / outcome.elapsed_s {
            rate if rate < 1e6 => (rate / 1e3, "kB"),
            rate => (rate / 1e6, "MB"),
        };
        let _ = writeln!(out, "row data         {per_second:.1} {unit}/s");
    }
    let _ = writeln!(out, "own CPU          {:.2} us a request", outcome.cpu_ns / 1e3);
    if !outcome.closed {
        let lag = &total.lag;
        let (p50, p999) = (at(lag, 50.0), at(lag, 99.9));
        let _ = writeln!(out, "own send lag     p50 {}, p99.9 {}, max {}", time(p50), time(p999), time(lag.max()));
    }
    if let Some(late) = &outcome.late {
        let _ = writeln!(out, "\nno percentiles: {late}");
        return out;
    }
    let second = if outcome.closed { "" } else { "service time" };
    let first = if outcome.closed { "service time" } else { "response time" };
    let _ = writeln!(out, "\n{:<10} {first:>14} {second:>14} {:>15}", "percentile", "samples above");
    for percentile in PERCENTILES {
        let above = samples_above(total.response.len(), percentile);
        let value = |histogram: &Histogram<u64>| time(at(histogram, percentile));
        let service = if outcome.closed { String::new() } else { value(&total.service) };
        let guess = if above < SAMPLES_ABOVE_MIN { " (too few to mean much)" } else { "" };
        let response = value(&total.response);
        let _ = writeln!(out, "{:<10} {response:>14} {service:>14} {above:>15}{guess}", format!("p{percentile}"));
    }
    let service = if outcome.closed { String::new() } else { time(total.service.max()) };
    let _ = writeln!(out, "{:<10} {:>14} {service:>14}", "max", time(total.response.max()));
    let service = if outcome.closed { String::new() } else { time(total.service.mean() as u64) };
    let samples = format!("of {}", total.response.len());
    let _ = writeln!(out, "{:<10} {:>14} {service:>14} {samples:>15}", "mean", time(total.response.mean() as u64));
    steps(&mut out, outcome);
    if outcome.closed {
        let _ = writeln!(
            out,
            "\nClosed loop: a slow server is asked less often, so these times hide what waiting clients would see."
        );
    }
    out
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
        let (counts, seconds) = (&step.counts, step.seconds.max(1e-9));
        let value = |percentile| time(at(&counts.response, percentile));
        let _ = writeln!(
            out,
            "{:<10} {:>10.1} {:>10.1} {:>8} {:>10} {:>10} {:>10} {:>10}",
            format!("{}/s", step.rate),
            counts.offered as f64 / seconds,
            counts.response.len() as f64 / seconds,
            counts.faults_total(),
            value(50.0),
            value(99.0),
            value(99.9),
            time(counts.response.max())
        );
    }
}

fn step(step: &Step) -> Value {
    json!({
        "rate": step.rate, "seconds": step.seconds, "offered": step.counts.offered, "answered": step.counts.response.len(),
        "errors": step.counts.faults_total(), "response": histogram(&step.counts.response),
    })
}

fn histogram(histogram: &Histogram<u64>) -> Value {
    let percentiles: serde_json::Map<String, Value> = PERCENTILES
        .iter()
        .map(|&percentile| {
            let value = at(histogram, percentile);
            (
                format!("p{percentile}"),
                json!({"ns": value, "samples_above": samples_above(histogram.len(), percentile)}),
            )
        })
        .collect();
    json!({
        "samples": histogram.len(),
        "min_ns": if histogram.is_empty() { 0 } else { histogram.min() },
        "mean_ns": histogram.mean(),
        "max_ns": histogram.max(),
        "percentiles": percentiles,
    })
}

/// Points of the percentile curve: [percentile, ns], denser towards the end.
fn curve(histogram: &Histogram<u64>) -> Vec<Value> {
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
        "at_s": point.at_s, "rate": point.rate(), "offered": point.offered, "offered_per_s": point.offered_rate(),
        "done": point.done, "errors": point.faults, "lag_p999_ns": point.lag_p999_ns,
    });
    if !late {
        value["p50_ns"] = point.p50_ns.into();
        value["p99_ns"] = point.p99_ns.into();
        value["max_ns"] = point.max_ns.into();
    }
    value
}

pub fn json(outcome: &Outcome, settings: &Value) -> Value {
    let total = &outcome.total;
    let faults: serde_json::Map<String, Value> = (total.faults.iter())
        .map(|(kind, (count, detail))| (kind.clone(), json!({"count": count, "example": detail})))
        .collect();
    let mut value = json!({
        "loop": if outcome.closed { "closed" } else { "open" },
        "offered_per_s": if outcome.closed { Value::Null } else { json!(outcome.offered) },
        "achieved_per_s": outcome.achieved,
        "requests": total.offered,
        "answered": total.response.len(),
        "errors": total.faults_total(),
        "errors_by_kind": faults,
        "elapsed_s": outcome.elapsed_s,
        "row_bytes": total.bytes,
        "own_cpu_us_per_request": outcome.cpu_ns / 1e3,
        "own_lag": if outcome.closed { Value::Null } else { histogram(&total.lag) },
        "late": outcome.late,
        "interrupted": outcome.interrupted,
        "server_version": outcome.server_version,
        "intervals": outcome.points.iter().map(|one| point(one, outcome.late.is_some())).collect::<Vec<_>>(),
        "settings": settings,
        "manifest": manifest::collect(),
    });
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
