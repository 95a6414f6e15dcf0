//! What a table shall contain, and how to get it there from what it contains.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::batch::Batch;
use super::expression::{Expression, Verdict};

/// Content of one table of the family `ip`. What two contents share is not compared.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::network) struct Ruleset {
    pub(in crate::network) chains: BTreeMap<Arc<str>, Arc<Chain>>,
    pub(in crate::network) sets: BTreeMap<Arc<str>, Arc<NamedSet>>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(in crate::network) struct Chain {
    /// Where the kernel enters it; `None` for chains that others jump to.
    pub(in crate::network) base: Option<BaseChain>,
    pub(in crate::network) rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) struct BaseChain {
    pub(in crate::network) kind: ChainKind,
    pub(in crate::network) hook: Hook,
    pub(in crate::network) priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::network) enum ChainKind {
    Filter,
    Nat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::network) enum Hook {
    Prerouting = 0,
    Input = 1,
    Forward = 2,
    Output = 3,
    Postrouting = 4,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::network) struct Rule {
    /// Why it is there: kept with the rule in the kernel, and named in errors.
    pub(in crate::network) comment: String,
    pub(in crate::network) expressions: Vec<Expression>,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::network) struct NamedSet {
    pub(in crate::network) key_length: u32,
    pub(in crate::network) content: SetContent,
}

#[derive(Clone, Debug, PartialEq)]
pub(in crate::network) enum SetContent {
    Keys(BTreeSet<Vec<u8>>),
    Verdicts(BTreeMap<Vec<u8>, Verdict>),
    /// Filled by packets; keys are forgotten after this time.
    Remembered(Duration),
}

impl Rule {
    pub(in crate::network) fn new(comment: impl Into<String>, parts: impl IntoIterator<Item = Vec<Expression>>) -> Self {
        Self { comment: comment.into(), expressions: parts.into_iter().flatten().collect() }
    }
}

impl Ruleset {
    pub(in crate::network) fn add_base_chain(&mut self, name: &str, base: BaseChain, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Arc::new(Chain { base: Some(base), rules }));
    }

    pub(in crate::network) fn add_chain(&mut self, name: impl Into<Arc<str>>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Arc::new(Chain { base: None, rules }));
    }

    pub(in crate::network) fn add_set(&mut self, name: impl Into<Arc<str>>, key_length: u32, content: SetContent) {
        self.sets.insert(name.into(), Arc::new(NamedSet { key_length, content }));
    }
}

/// A table with this content, whatever it contained before.
pub(in crate::network) fn replace(table: &str, wanted: &Ruleset) -> Batch {
    let mut batch = Batch::new(table);
    // Deleting what may not exist is an error, so it is made to exist first.
    batch.add_table();
    batch.delete_table();
    batch.add_table();
    difference(&mut batch, &Ruleset::default(), wanted);
    batch
}

/// Changes a table that contains `present` to contain `wanted`. Empty where they are equal.
pub(in crate::network) fn update(table: &str, present: Option<&Ruleset>, wanted: &Ruleset) -> Batch {
    match present {
        Some(present) if present.can_become(wanted) => {
            let mut batch = Batch::new(table);
            difference(&mut batch, present, wanted);
            batch
        }
        _ => replace(table, wanted),
    }
}

/// What is referred to is made before what refers to it, and goes after it.
fn difference(batch: &mut Batch, present: &Ruleset, wanted: &Ruleset) {
    let chains = Changes::between(&present.chains, &wanted.chains);
    let sets = Changes::between(&present.sets, &wanted.sets);
    for (name, chain) in chains.changed.iter().filter(|(name, _)| !present.chains.contains_key(*name)) {
        batch.add_chain(name, chain.base);
    }
    for (name, set) in sets.changed.iter().filter(|(name, _)| !present.sets.contains_key(*name)) {
        batch.add_set(name, set);
    }
    for (name, chain) in chains.changed {
        let before = present.chains.get(name).map(|old| old.rules.as_slice()).unwrap_or_default();
        if before == chain.rules {
            continue;
        }
        if !before.is_empty() {
            batch.flush_chain(name);
        }
        for rule in &chain.rules {
            batch.add_rule(name, rule);
        }
    }
    for (name, set) in sets.changed {
        change_elements(batch, name, present.sets.get(name), set);
    }
    for name in &chains.gone {
        batch.flush_chain(name);
    }
    for name in sets.gone {
        batch.delete_set(name);
    }
    for name in chains.gone {
        batch.delete_chain(name);
    }
}

/// What is in one map and not in the other.
struct Changes<'a, T> {
    /// New, or another than before.
    changed: Vec<(&'a str, &'a Arc<T>)>,
    gone: Vec<&'a str>,
}

impl<'a, T> Changes<'a, T> {
    /// One walk through both: a thousand look-ups by name would take longer than the kernel does.
    fn between(present: &'a BTreeMap<Arc<str>, Arc<T>>, wanted: &'a BTreeMap<Arc<str>, Arc<T>>) -> Self {
        let (mut changed, mut gone) = (Vec::new(), Vec::new());
        let mut before = present.iter().peekable();
        for (name, value) in wanted {
            while let Some((name, _)) = before.next_if(|(old, _)| *old < name) {
                gone.push(&**name);
            }
            let same = before.next_if(|(old, _)| *old == name).is_some_and(|(_, old)| Arc::ptr_eq(old, value));
            if !same {
                changed.push((&**name, value));
            }
        }
        gone.extend(before.map(|(name, _)| &**name));
        Self { changed, gone }
    }
}

fn change_elements(batch: &mut Batch, name: &str, present: Option<&Arc<NamedSet>>, wanted: &NamedSet) {
    match (&wanted.content, present.map(|set| &set.content)) {
        (SetContent::Keys(wanted), before) => {
            let none = BTreeSet::new();
            let before = if let Some(SetContent::Keys(keys)) = before { keys } else { &none };
            batch.delete_elements(name, before.difference(wanted).map(|key| (key.as_slice(), None)));
            batch.add_elements(name, wanted.difference(before).map(|key| (key.as_slice(), None)));
        }
        (SetContent::Verdicts(wanted), before) => {
            let none = BTreeMap::new();
            let before = if let Some(SetContent::Verdicts(map)) = before { map } else { &none };
            batch.delete_elements(
                name,
                before
                    .iter()
                    .filter(|(key, verdict)| wanted.get(*key) != Some(verdict))
                    .map(|(key, verdict)| (key.as_slice(), Some(verdict))),
            );
            batch.add_elements(
                name,
                wanted
                    .iter()
                    .filter(|(key, verdict)| before.get(*key) != Some(verdict))
                    .map(|(key, verdict)| (key.as_slice(), Some(verdict))),
            );
        }
        (SetContent::Remembered(_), _) => {}
    }
}

impl Ruleset {
    /// Whether a difference can be made; otherwise a set of another kind, or a chain at another hook, has the same name.
    fn can_become(&self, wanted: &Self) -> bool {
        let chains = Changes::between(&self.chains, &wanted.chains).changed;
        let sets = Changes::between(&self.sets, &wanted.sets).changed;
        chains.into_iter().all(|(name, new)| self.chains.get(name).is_none_or(|old| old.base == new.base))
            && sets.into_iter().all(|(name, new)| self.sets.get(name).is_none_or(|old| old.is_like(new)))
    }
}

impl NamedSet {
    /// Whether one can become the other by changing elements.
    fn is_like(&self, other: &Self) -> bool {
        self.key_length == other.key_length
            && match (&self.content, &other.content) {
                (SetContent::Remembered(one), SetContent::Remembered(another)) => one == another,
                (one, another) => std::mem::discriminant(one) == std::mem::discriminant(another),
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::nftables::Register;

    /// One base chain that leads to `services` by a map.
    fn ruleset(services: &[(u8, &str)]) -> Ruleset {
        let mut rules = Ruleset::default();
        let mut jumps = BTreeMap::new();
        for (key, comment) in services {
            let chain = format!("service-{key}");
            rules.add_chain(chain.clone(), vec![Rule::new(*comment, [vec![Expression::Counter]])]);
            jumps.insert(vec![10, 96, 0, *key], Verdict::Goto(chain.into()));
        }
        rules.add_set("services", 4, SetContent::Verdicts(jumps));
        let decide = Expression::Decide { key: Register(0), map: "services".to_owned() };
        let base = BaseChain { kind: ChainKind::Nat, hook: Hook::Output, priority: -100 };
        rules.add_base_chain("nat-output", base, vec![Rule::new("to services", [vec![decide]])]);
        rules
    }

    #[test]
    fn nothing_is_sent_for_what_is_there_already() {
        let rules = ruleset(&[(1, "one"), (2, "two")]);
        assert!(update("t", Some(&rules), &rules).purposes().is_empty());
    }

    #[test]
    fn only_what_changed_is_sent() {
        let batch = update("t", Some(&ruleset(&[(1, "one"), (2, "two")])), &ruleset(&[(1, "one"), (2, "second")]));
        assert_eq!(batch.purposes(), ["flush chain service-2", "add rule \"second\" to chain service-2"]);
    }

    #[test]
    fn chains_exist_before_they_are_referred_to_and_until_after() {
        let batch = update("t", Some(&ruleset(&[(1, "one")])), &ruleset(&[(2, "two")]));
        assert_eq!(
            batch.purposes(),
            [
                "add chain service-2",
                "add rule \"two\" to chain service-2",
                "delete elements of set services",
                "add elements to set services",
                "flush chain service-1",
                "delete chain service-1",
            ]
        );
    }

    #[test]
    fn a_first_ruleset_and_one_that_cannot_be_reached_by_changes_replace_the_table() {
        let rules = ruleset(&[]);
        let mut moved = rules.clone();
        Arc::make_mut(moved.chains.get_mut("nat-output").unwrap()).base.as_mut().unwrap().hook = Hook::Prerouting;
        let mut other_set = rules.clone();
        Arc::make_mut(other_set.sets.get_mut("services").unwrap()).key_length = 8;
        for (present, wanted) in [(None, &rules), (Some(&rules), &moved), (Some(&rules), &other_set)] {
            assert_eq!(update("t", present, wanted).purposes()[..3], ["add table t", "delete table t", "add table t"]);
        }
    }
}
