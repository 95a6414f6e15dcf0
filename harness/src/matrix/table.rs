//! Scenarios down, gateways across.

use std::collections::BTreeMap;

use serde::Serialize;

/// Version of the JSON form: fields may be added, nothing is removed or changes its meaning within one version.
pub const SCHEMA: u32 = 1;

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matrix {
    pub schema: u32,
    /// `expectations`, or `run` of a folder.
    pub source: &'static str,
    pub gateways: Vec<String>,
    pub rows: Vec<Row>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub scenario: String,
    pub title: String,
    /// By gateway; a gateway that the scenario says nothing about has none.
    pub cells: BTreeMap<String, Cell>,
}

/// What one gateway does under one fault.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Cell {
    /// What clients meet: of probes that fail in some way; when none does, of all.
    pub seen: Vec<Seen>,
    /// Marks of the gateway's own log.
    pub log: Vec<String>,
    /// Why there is nothing to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Of a run: `proven`, `unexpected`, `void`, `unfinished`; of repeats the worst.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Seen {
    /// Probes that meet the same.
    pub probes: Vec<String>,
    /// `504`, `some 502`, `502 x 12 of 20`, `some reset`.
    pub what: String,
    /// `gateway`, `sidecar`, `application` or `nobody`; several are joined by `, `.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub made_by: Option<String>,
}

impl Cell {
    /// Adds what a probe meets, beside other probes that meet the same.
    pub(super) fn add(&mut self, probe: &str, what: String, made_by: Option<String>) {
        match self.seen.iter_mut().find(|seen| seen.what == what && seen.made_by == made_by) {
            Some(seen) => seen.probes.push(probe.to_owned()),
            None => self.seen.push(Seen { probes: vec![probe.to_owned()], what, made_by }),
        }
    }

    pub(super) fn add_mark(&mut self, mark: String) {
        if !self.log.contains(&mark) {
            self.log.push(mark);
        }
    }

    /// `report: 504 by the gateway`; the names of probes only where they do not all meet the same.
    pub(super) fn statements(&self) -> Vec<String> {
        let named = self.seen.len() > 1;
        let one = |seen: &Seen| {
            let who = seen.made_by.as_ref().map_or_else(String::new, |maker| match maker.as_str() {
                "nobody" => String::new(),
                maker => format!(" by {maker}"),
            });
            let probes = if named { format!("{}: ", seen.probes.join(", ")) } else { String::new() };
            format!("{probes}{}{who}", seen.what)
        };
        self.seen.iter().map(one).collect()
    }
}
