//! `junit.xml`: a suite for each scenario, a case for each gateway. What was unexpected is a failure, a void run an error.

use std::collections::BTreeMap;
use std::time::Duration;

use quick_junit::{NonSuccessKind, Report as Junit, SerializeError, TestCase, TestCaseStatus, TestSuite};

use super::model::{Report, RunReport};
use crate::events::Verdict;

pub fn render(report: &Report) -> Result<String, SerializeError> {
    let mut suites: BTreeMap<&str, Vec<&RunReport>> = BTreeMap::new();
    for run in &report.runs {
        suites.entry(&run.scenario).or_default().push(run);
    }
    let mut junit = Junit::new("gatelab");
    junit.set_time(Duration::from_millis(report.took_ms));
    for (scenario, runs) in suites {
        let mut suite = TestSuite::new(scenario);
        for run in runs {
            suite.add_test_case(case(run));
        }
        junit.add_test_suite(suite);
    }
    junit.to_string()
}

fn case(run: &RunReport) -> TestCase {
    let name = if run.repeat > 1 { format!("{} #{}", run.gateway, run.repeat) } else { run.gateway.clone() };
    let mut case = TestCase::new(name, status(run));
    case.set_classname(format!("gatelab.{}", run.scenario));
    case.set_time(Duration::from_millis(run.took_ms));
    case
}

fn status(run: &RunReport) -> TestCaseStatus {
    let mut status = match &run.verdict {
        Some(Verdict::Proven) => return TestCaseStatus::success(),
        Some(Verdict::Skipped { reason }) => {
            let mut skipped = TestCaseStatus::skipped();
            skipped.set_message(reason);
            return skipped;
        }
        Some(Verdict::Unexpected) => {
            let mut failure = TestCaseStatus::non_success(NonSuccessKind::Failure);
            failure.set_message("the fault showed another signature than the documented one").set_type("unexpected");
            failure
        }
        Some(Verdict::Void { reason }) => {
            let mut error = TestCaseStatus::non_success(NonSuccessKind::Error);
            error.set_message(reason).set_type("void");
            error
        }
        None => {
            let mut error = TestCaseStatus::non_success(NonSuccessKind::Error);
            error.set_message("the run was not finished").set_type("unfinished");
            error
        }
    };
    let lines: Vec<String> = run
        .unmet()
        .map(|(phase, item)| format!("{}: {}: expected {}, observed {}", phase.name(), item.name, item.expected, item.observed))
        .chain(run.errors.iter().cloned())
        .collect();
    status.set_description(lines.join("\n"));
    status
}
