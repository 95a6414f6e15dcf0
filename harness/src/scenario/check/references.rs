//! Names that have to be defined somewhere else in the file.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde_json::Value;

use crate::scenario::app::App;
use crate::scenario::decode::Spanned;
use crate::scenario::expect::{ClientExpectation, GatewayExpectation, ObjectExpectation};
use crate::scenario::model::{Change, Scenario};
use crate::scenario::planning::gateway_names;
use crate::scenario::problem::{Mistake, Problems, Span};
use crate::scenario::substitute::substitute;
use crate::scenario::time::{Scale, Time, Times};
use crate::signature::path::Path;

pub fn check(scenario: &Scenario, app: Option<&App>, apps: &BTreeMap<String, Arc<App>>, problems: &mut Problems) {
    if app.is_none() {
        unknown(&scenario.app.value, scenario.app.span, "an application under _apps", apps.keys().cloned().collect(), problems);
    }
    let times = scenario.times(Scale::Lab);
    let mut checker = Checker { times: &times, used: BTreeSet::new(), problems };
    checker.probes(scenario);
    checker.changes(scenario, app);
    checker.expectations(scenario);
    checker.gateway(scenario);
    checker.unused_times(scenario);
    names_of_probes(scenario, problems);
    objects_exist(scenario, app, problems);
}

fn unknown(name: &str, span: Span, what: &str, known: Vec<String>, problems: &mut Problems) {
    problems.add(span, Mistake::UnknownReference { name: name.to_owned(), what: what.to_owned(), known });
}

struct Checker<'a> {
    times: &'a Times,
    used: BTreeSet<String>,
    problems: &'a mut Problems,
}

impl Checker<'_> {
    fn name(&mut self, name: &str, span: Span) {
        if self.times.0.contains_key(name) {
            self.used.insert(name.to_owned());
        } else {
            unknown(name, span, "a scaled time of `times` or `gateway`", self.times.0.keys().cloned().collect(), self.problems);
        }
    }

    fn time(&mut self, time: &Time, span: Span) {
        for name in time.names() {
            self.name(name, span);
        }
    }

    fn object(&mut self, object: &Value, span: Span) {
        // Every name is asked for one at a time, so that used and unknown ones are told apart.
        for name in self.times.0.keys() {
            let without =
                Times(self.times.0.iter().filter(|(other, _)| *other != name).map(|(name, time)| (name.clone(), *time)).collect());
            if substitute(object, &without).is_err_and(|missing| missing.contains(name)) {
                self.used.insert(name.clone());
            }
        }
        if let Err(missing) = substitute(object, self.times) {
            for name in missing {
                self.name(&name, span);
            }
        }
    }

    fn probes(&mut self, scenario: &Scenario) {
        for probe in scenario.probes.values() {
            let single = [&probe.gap, &probe.lasting];
            for time in single.into_iter().flatten() {
                self.time(time, time.span);
            }
            if let Some(sweep) = &probe.sweep {
                for time in [&sweep.from, &sweep.to, &sweep.step] {
                    self.time(time, sweep.span);
                }
            }
            if let Some(deadline) = &probe.deadline {
                self.time(deadline, probe.span);
            }
            if let Some(during) = &probe.during {
                self.change(during, during.span);
            }
        }
    }

    fn change(&mut self, change: &Change, span: Span) {
        for object in change.apply.iter().chain(&change.patch) {
            self.object(object, object.span);
        }
        for link in &change.links {
            if let Some(latency) = &link.latency {
                self.time(latency, link.span);
            }
        }
        if let Some(settle) = &change.settle {
            if let Some(within) = &settle.within {
                self.time(within, span);
            }
            for object in &settle.until {
                self.path(object);
            }
        }
    }

    fn changes(&mut self, scenario: &Scenario, app: Option<&App>) {
        if let Some(setup) = &scenario.setup {
            self.change(setup, setup.span);
        }
        self.change(&scenario.fault, scenario.fault.span);
        self.change(&scenario.fix.change(), scenario.fix.span);
        for manifest in app.into_iter().flat_map(|app| &app.manifests) {
            self.object(&manifest.object, scenario.app.span);
        }
    }

    fn client(&mut self, expected: &ClientExpectation) {
        let failed = expected.failed.as_ref().map(|failed| [&failed.within, &failed.at_least]);
        for time in [&expected.within, &expected.at_least].into_iter().chain(failed.into_iter().flatten()).flatten() {
            self.time(time, time.span);
        }
        for gap in &expected.by_gap {
            self.time(&gap.from, gap.span);
            self.time(&gap.to, gap.span);
        }
    }

    fn path(&mut self, object: &Spanned<ObjectExpectation>) {
        let selecting = object.selects.iter().flat_map(|selection| &selection.fields).map(|(path, value)| (path, value.span));
        for (path, span) in object.path.iter().map(|path| (path, object.span)).chain(selecting) {
            if let Err(reason) = Path::parse(path) {
                let mistake = Mistake::BadValue {
                    value: path.clone(),
                    what: "a path".to_owned(),
                    reason,
                    example: "status.conditions[Ready].status".to_owned(),
                };
                self.problems.add(span, mistake);
            }
        }
    }

    fn expectations(&mut self, scenario: &Scenario) {
        for expected in scenario.healthy.values() {
            self.client(expected);
        }
        let shared = GatewayExpectation {
            client: scenario.expect.client.clone(),
            kubernetes: scenario.expect.kubernetes.clone(),
            order: scenario.expect.order.clone(),
            ..GatewayExpectation::empty()
        };
        let own = gateway_names().into_iter().filter_map(|gateway| scenario.expect.of(gateway)).map(|own| own.value.clone());
        for parts in own.chain(std::iter::once(shared)) {
            for expected in parts.client.values() {
                self.client(expected);
            }
            for object in &parts.kubernetes {
                self.path(object);
            }
            for order in &parts.order {
                self.time(&order.within, order.span);
            }
        }
    }

    fn gateway(&mut self, scenario: &Scenario) {
        let Some(settings) = &scenario.gateway else { return };
        for (name, setting) in &settings.value.0 {
            if let crate::scenario::model::Setting::Plain(value) = &setting.value
                && let Err(missing) = crate::scenario::substitute::resolve_setting(value, self.times)
            {
                self.name(&missing, setting.span);
            }
            // A scaled setting is used by being set.
            self.used.insert(name.clone());
        }
    }

    fn unused_times(&mut self, scenario: &Scenario) {
        // Names used within settings, such as `idle-timeout: $pool-idle`.
        let settings = serde_json::to_string(&scenario.gateway).unwrap_or_default();
        for (name, time) in &scenario.times {
            if !self.used.contains(name) && !settings.contains(&format!("${name}")) {
                self.problems.contradiction(
                    time.span,
                    format!("the time `{name}` is used nowhere"),
                    "defined here",
                    format!("use it as `${name}` in a time or as `${{{name}}}` in an object, or remove it"),
                );
            }
        }
    }
}

/// Probes that expectations speak of.
fn names_of_probes(scenario: &Scenario, problems: &mut Problems) {
    let known = || scenario.probes.keys().cloned().collect::<Vec<_>>();
    let mut check = |name: &String, span: Span| {
        if !scenario.probes.contains_key(name) {
            unknown(name, span, "a probe", known(), problems);
        }
    };
    for (name, expected) in &scenario.healthy {
        check(name, expected.span);
    }
    let expect = &scenario.expect.value;
    let own: Vec<&GatewayExpectation> =
        gateway_names().into_iter().filter_map(|gateway| expect.of(gateway)).map(|own| &own.value).collect();
    for (name, expected) in own.iter().flat_map(|parts| &parts.client).chain(&expect.client) {
        check(name, expected.span);
    }
    for (name, expected) in own.iter().flat_map(|parts| &parts.backend).chain(&expect.backend) {
        check(name, expected.span);
    }
    for line in own.iter().flat_map(|parts| parts.log.iter()) {
        if let Some(name) = &line.of {
            check(name, line.span);
        }
    }
    for order in own.iter().flat_map(|parts| &parts.order).chain(&expect.order) {
        check(&order.failures_of, order.span);
    }
}

/// A patch of an object that nothing created changes nothing, or fails late.
fn objects_exist(scenario: &Scenario, app: Option<&App>, problems: &mut Problems) {
    let Some(app) = app else { return };
    let identity = |object: &Value| {
        let kind = object["kind"].as_str().unwrap_or_default();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        format!("{kind}/{name}")
    };
    let mut known: BTreeSet<String> = app.manifests.iter().map(|manifest| identity(&manifest.object)).collect();
    // Made by the lab in every cluster.
    known.extend(["Deployment/gateway", "Service/gateway", "ConfigMap/gateway-settings", "Pod/client"].map(ToOwned::to_owned));
    let changes = scenario.setup.iter().map(|setup| setup.value.clone()).chain([scenario.fault.value.clone(), scenario.fix.change()]);
    for change in changes.chain(scenario.probes.values().filter_map(|probe| probe.during.as_ref()).map(|during| during.value.clone())) {
        known.extend(change.apply.iter().map(|object| identity(object)));
        let patched = change.patch.iter().map(|object| (identity(object), object.span));
        let named = change
            .delete
            .iter()
            .chain(&change.restart)
            .filter(|name| name.name.is_some())
            .map(|name| (format!("{}/{}", name.kind, name.name.as_deref().unwrap_or_default()), name.span));
        for (name, span) in patched.chain(named) {
            if !known.contains(&name) && !name.starts_with('/') && !name.ends_with('/') {
                unknown(&name, span, "an object of the application or applied before", known.iter().cloned().collect(), problems);
            }
        }
    }
    let cause = scenario.cause.object.to_string();
    if scenario.cause.object.name.is_some() && scenario.cause.object.namespace.is_none() && !known.contains(&cause) {
        unknown(&cause, scenario.cause.object.span, "an object of the application or of the fault", known.into_iter().collect(), problems);
    }
}
