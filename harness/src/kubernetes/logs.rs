//! What containers wrote.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::LogParams;

use super::client::{Kubernetes, KubernetesError};
use super::exec::ExecTarget;

/// Room for a cause and the stack trace after it.
const LAST_LINES: i64 = 60;

/// One line with the time at which the container runtime took it.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLine {
    pub at: Option<Timestamp>,
    pub text: String,
}

impl Kubernetes {
    /// Lines since a time; earlier lines of the same second are left out, which the API itself (whole seconds) does not do.
    pub async fn logs_since(&self, target: &ExecTarget, since: Timestamp) -> Result<Vec<LogLine>, KubernetesError> {
        let api: Api<Pod> = Api::namespaced(self.client().clone(), &target.namespace);
        let params = LogParams { container: target.container.clone(), timestamps: true, ..LogParams::default() };
        let text = self.bounded(format!("reading the log of {target}"), api.logs(&target.pod, &params)).await?;
        Ok(text.lines().map(split_time).filter(|line| line.at.is_none_or(|at| at >= since)).collect())
    }

    /// The last lines of the container that ended last.
    pub async fn last_words(&self, target: &ExecTarget) -> Result<Vec<String>, KubernetesError> {
        let api: Api<Pod> = Api::namespaced(self.client().clone(), &target.namespace);
        let params =
            LogParams { container: target.container.clone(), previous: true, tail_lines: Some(LAST_LINES), ..LogParams::default() };
        let text = self.bounded(format!("reading the log of {target}"), api.logs(&target.pod, &params)).await?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

/// With `timestamps=true` every line begins with its RFC 3339 time and a space.
fn split_time(line: &str) -> LogLine {
    if let Some((time, text)) = line.split_once(' ')
        && let Ok(at) = time.parse()
    {
        return LogLine { at: Some(at), text: text.to_owned() };
    }
    LogLine { at: None, text: line.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_off_the_line() {
        let line = split_time("2026-11-21T04:00:00.123456789Z 10.244.0.2 - GET / 200");
        assert_eq!(line.text, "10.244.0.2 - GET / 200");
        assert!(line.at.is_some());
        assert_eq!(split_time("no time").text, "no time");
    }
}
