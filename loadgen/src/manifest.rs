//! What a number was measured on: without it, it cannot be compared with another.

use crate::target::redact;
use serde_json::{Value, json};
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn collect() -> Value {
    let read = |path: &str| fs::read_to_string(path).map(|text| text.trim().to_string()).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string())
    };
    let memory = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:").map(|rest| rest.trim().to_string()));
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "when": utc(seconds),
        "loadgen": env!("CARGO_PKG_VERSION"),
        "arguments": std::env::args().skip(1).map(|argument| redact(&argument)).collect::<Vec<_>>(),
        "cpu": field("model name"),
        "cpus": std::thread::available_parallelism().map(usize::from).unwrap_or(0),
        "hypervisor": cpuinfo.lines().any(|line| line.starts_with("flags") && line.contains(" hypervisor")),
        "governor": read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "memory": memory,
        "kernel": read("/proc/sys/kernel/osrelease"),
        "kernel_command_line_mitigations": read("/proc/cmdline").split(' ').filter(|word| word.contains("mitigations")).collect::<Vec<_>>(),
        "load_average": read("/proc/loadavg"),
        "transparent_hugepages": read("/sys/kernel/mm/transparent_hugepage/enabled"),
    })
}

/// RFC 3339 in UTC (days to civil date after Howard Hinnant's description).
pub fn utc(seconds: u64) -> String {
    let (days, second) = ((seconds / 86_400) as i64, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(utc(1_795_186_801), "2026-11-20T15:00:01Z");
    }

    #[test]
    fn the_manifest_names_cpu_and_kernel() {
        let manifest = collect();
        assert!(manifest["kernel"].as_str().is_some_and(|kernel| !kernel.is_empty()));
        assert!(manifest["cpus"].as_u64().is_some_and(|cpus| cpus > 0));
    }
}
