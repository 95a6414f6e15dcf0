use proptest::prelude::*;

use super::*;
use crate::events::Verdict;
use crate::signature::{Controls, evaluate, is_vacuous, verdict};

fn items(met: &[bool]) -> Vec<Item> {
    met.iter().map(|met| Item { name: "item".to_owned(), met: *met, expected: "this".to_owned(), observed: "that".to_owned() }).collect()
}

fn judged(healthy: Option<&[bool]>, fault: Option<&[bool]>, fixed: Option<&[bool]>, vacuous: bool) -> &'static str {
    let [healthy, fault, fixed] = [healthy, fault, fixed].map(|met| met.map(items));
    verdict(&Controls { healthy: healthy.as_deref(), fault: fault.as_deref(), fixed: fixed.as_deref(), vacuous }).name()
}

const GOOD: Option<&[bool]> = Some(&[true, true]);
const BAD: Option<&[bool]> = Some(&[true, false]);

#[test]
fn one_table_of_verdicts() {
    for (healthy, fault, fixed, vacuous, expected) in [
        (GOOD, GOOD, GOOD, false, "proven"),
        (GOOD, BAD, GOOD, false, "unexpected"),
        (BAD, GOOD, GOOD, false, "void"),
        (GOOD, GOOD, BAD, false, "void"),
        (GOOD, BAD, BAD, false, "void"),
        (GOOD, GOOD, GOOD, true, "void"),
        (None, GOOD, GOOD, false, "void"),
        (GOOD, None, GOOD, false, "void"),
        (GOOD, GOOD, None, false, "void"),
        (Some(&[]), GOOD, GOOD, false, "void"),
        (GOOD, Some(&[]), GOOD, false, "void"),
        (GOOD, GOOD, Some(&[]), false, "void"),
    ] {
        assert_eq!(judged(healthy, fault, fixed, vacuous), expected, "{healthy:?} {fault:?} {fixed:?} {vacuous}");
    }
}

#[test]
fn a_failed_control_says_what_it_was() {
    let (bad, good) = (items(&[true, false]), items(&[true]));
    let verdict = verdict(&Controls { healthy: Some(&bad), fault: Some(&good), fixed: Some(&good), vacuous: false });
    assert_eq!(verdict, Verdict::Void { reason: "control `healthy`: item: expected this, observed that".to_owned() });
}

#[test]
fn a_fault_left_out_and_a_fix_left_out_are_never_proven() {
    let healthy = expectation("client: { home: { status: 200 } }");
    let broken = expectation("client: { home: { status: 502 } }");
    let (good, bad) = (seen(vec![request(1, 0, 200, 1)]), seen(vec![request(1, 0, 502, 1)]));
    let run = |first: &Observations, second: &Observations, third: &Observations| {
        let (before, during, after) = (evaluate(&healthy, first), evaluate(&broken, second), evaluate(&healthy, third));
        let controls = Controls { healthy: Some(&before), fault: Some(&during), fixed: Some(&after), vacuous: is_vacuous(&broken, first) };
        verdict(&controls).name()
    };
    assert_eq!(run(&good, &bad, &good), "proven");
    assert_eq!(run(&good, &good, &good), "unexpected");
    assert_eq!(run(&good, &bad, &bad), "void");
    assert_eq!(run(&bad, &bad, &bad), "void");
}

#[test]
fn an_expectation_that_the_healthy_run_meets_is_vacuous() {
    let healthy = seen(vec![request(1, 0, 200, 1)]);
    assert!(is_vacuous(&expectation("client: { home: { status: 200, within: 1s } }"), &healthy));
    assert!(!is_vacuous(&expectation("client: { home: { status: 200 } }\nlog: { errno: ECONNREFUSED }"), &healthy));
    assert!(is_vacuous(&expectation("{}"), &healthy), "nothing expected is met by anything");
}

proptest! {
    /// Whatever is seen: what is expected of the broken run is not met both by it and by a healthy run that meets its control.
    #[test]
    fn proven_needs_both_controls_and_the_signature(
        healthy in prop::collection::vec(any::<bool>(), 0..4),
        fault in prop::collection::vec(any::<bool>(), 0..4),
        fixed in prop::collection::vec(any::<bool>(), 0..4),
        vacuous: bool,
    ) {
        let whole = |met: &[bool]| !met.is_empty() && met.iter().all(|met| *met);
        let proven = judged(Some(&healthy), Some(&fault), Some(&fixed), vacuous) == "proven";
        prop_assert_eq!(proven, whole(&healthy) && whole(&fault) && whole(&fixed) && !vacuous);
    }

    /// No mix of answers makes the matcher panic, and every status bound agrees with counting by hand.
    #[test]
    fn shares_are_counted_as_by_hand(statuses in prop::collection::vec(prop::sample::select(vec![200u16, 502, 503]), 1..30)) {
        let records = statuses.iter().enumerate().map(|(index, status)| request(u32::try_from(index).unwrap(), 0, *status, 1)).collect();
        let expectation = expectation("client: { home: { status: { 502: '>=20%', 503: '<=2', 200: rest } } }");
        let count = |wanted: u16| statuses.iter().filter(|status| **status == wanted).count();
        let by_hand = count(502) * 5 >= statuses.len() && count(503) <= 2;
        prop_assert_eq!(unmet(&evaluate(&expectation, &seen(records))).is_empty(), by_hand);
    }
}
