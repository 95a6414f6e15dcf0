//! Counters in the Prometheus text exposition format, at `/metrics` of the admin port.

use std::{
    collections::BTreeMap,
    fmt::Write,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::journal::{ConnectionEnd, RequestEnd};

/// Upper bounds of the duration histogram, in seconds.
const BUCKETS: [f64; 12] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

#[derive(Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) connections: AtomicU64,
    pub(crate) connections_open: AtomicI64,
    pub(crate) requests_in_flight: AtomicI64,
    ends: Mutex<BTreeMap<ConnectionEnd, u64>>,
    requests: Mutex<BTreeMap<(Option<u16>, RequestEnd), u64>>,
    buckets: [AtomicU64; BUCKETS.len()],
    duration_micros: AtomicU64,
    durations: AtomicU64,
}

impl Metrics {
    pub(crate) fn connection_ended(&self, end: ConnectionEnd) {
        self.connections_open.fetch_sub(1, Ordering::Relaxed);
        *self.ends.lock().unwrap_or_else(PoisonError::into_inner).entry(end).or_default() += 1;
    }

    pub(crate) fn request_ended(&self, status: Option<u16>, end: RequestEnd, duration: Duration) {
        self.requests_in_flight.fetch_sub(1, Ordering::Relaxed);
        *self.requests.lock().unwrap_or_else(PoisonError::into_inner).entry((status, end)).or_default() += 1;
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            if duration.as_secs_f64() <= *bound {
                bucket.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.duration_micros.fetch_add(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.durations.fetch_add(1, Ordering::Relaxed);
    }

    /// The text that a Prometheus server reads.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        let simple = [
            ("backend_connections_total", "counter", self.connections.load(Ordering::Relaxed).to_string()),
            ("backend_connections_open", "gauge", self.connections_open.load(Ordering::Relaxed).to_string()),
            ("backend_requests_in_flight", "gauge", self.requests_in_flight.load(Ordering::Relaxed).to_string()),
        ];
        for (name, kind, value) in simple {
            let _ = writeln!(text, "# TYPE {name} {kind}\n{name} {value}");
        }
        let _ = writeln!(text, "# TYPE backend_connections_ended_total counter");
        for (end, count) in self.ends.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let _ = writeln!(text, "backend_connections_ended_total{{how=\"{}\"}} {count}", label(end));
        }
        let _ = writeln!(text, "# TYPE backend_requests_total counter");
        for ((status, end), count) in self.requests.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            let _ = writeln!(text, "backend_requests_total{{status=\"{status}\",how=\"{}\"}} {count}", label(end));
        }
        let name = "backend_request_duration_seconds";
        let _ = writeln!(text, "# TYPE {name} histogram");
        for (bound, bucket) in BUCKETS.iter().zip(&self.buckets) {
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {}", bucket.load(Ordering::Relaxed));
        }
        let count = self.durations.load(Ordering::Relaxed);
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum {}", self.duration_micros.load(Ordering::Relaxed) as f64 / 1e6);
        let _ = writeln!(text, "{name}_count {count}");
        text
    }
}

/// The name that serde gives a variant, the same as in the journal.
fn label(end: &impl serde::Serialize) -> String {
    match serde_json::to_value(end) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_counted_once_and_its_buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.request_ended(Some(200), RequestEnd::Completed, Duration::from_millis(30));
        let text = metrics.render();
        assert!(text.contains("backend_requests_total{status=\"200\",how=\"completed\"} 1"), "{text}");
        assert!(text.contains("_bucket{le=\"0.025\"} 0\n") && text.contains("_bucket{le=\"0.05\"} 1\n"), "{text}");
        assert!(text.contains("_bucket{le=\"+Inf\"} 1\n") && text.contains("_sum 0.03\n"), "{text}");
    }
}
