//! `report.html`: one file with everything in it, to read after the fact and to hand to a colleague.

use askama::Template;

use super::model::{PhaseReport, ProbeReport, Report, RunReport};
use super::summary;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    totals: String,
}

pub fn render(report: &Report) -> Result<String, askama::Error> {
    Page { report, totals: summary::totals(&report.totals) }.render()
}

/// What the template says about a run.
impl RunReport {
    fn anchor(&self) -> String {
        format!("{}-{}-{}", self.scenario, self.gateway, self.repeat)
    }

    fn seconds(&self) -> String {
        seconds(self.took_ms)
    }

    fn reason(&self) -> &str {
        self.verdict.as_ref().and_then(|verdict| verdict.reason()).unwrap_or_default()
    }
}

impl PhaseReport {
    fn heading(&self) -> &'static str {
        match self.phase {
            crate::signature::Phase::Healthy => "Healthy: before the fault",
            crate::signature::Phase::Fault => "Fault",
            crate::signature::Phase::Fixed => "Fixed: after the repair",
        }
    }

    fn seconds(&self) -> String {
        seconds(self.took_ms)
    }

    fn met(&self) -> usize {
        self.items.iter().filter(|item| item.met).count()
    }

    /// `Kind namespace/name` and the object as text.
    fn shown_objects(&self) -> Vec<(String, String)> {
        self.objects
            .iter()
            .map(|object| {
                let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
                let metadata = &object["metadata"];
                let namespace = text(&metadata["namespace"]);
                let name = if namespace.is_empty() { text(&metadata["name"]) } else { format!("{namespace}/{}", text(&metadata["name"])) };
                (format!("{} {name}", text(&object["kind"])), serde_json::to_string_pretty(object).unwrap_or_default())
            })
            .collect()
    }
}

impl ProbeReport {
    fn shown_results(&self) -> String {
        self.results.iter().map(|(result, count)| format!("{result} × {count}")).collect::<Vec<_>>().join(", ")
    }
}

fn seconds(millis: u64) -> String {
    format!("{:.1} s", std::time::Duration::from_millis(millis).as_secs_f64())
}

/// Hundredths of `part` in `whole`.
fn share(part: &u32, whole: &u32) -> u32 {
    (part * 100).checked_div(*whole).unwrap_or_default()
}
