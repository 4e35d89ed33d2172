//! The counters a shard owns and the control thread scrapes: plain cells, one row per metric.
