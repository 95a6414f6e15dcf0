//! `isSorted`, `sum`, `min`, `max`, `indexOf`, `lastIndexOf`; `sets.contains`, `sets.equivalent`, `sets.intersects`.

use std::cmp::Ordering;

use cel::common::types::{CelBool, CelInt, DYN_TYPE, LIST_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{budget, failed};

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_member_overload("isSorted", "list_is_sorted", LIST_TYPE, vec![], is_sorted)?;
    env.add_member_overload("sum", "list_sum", LIST_TYPE, vec![], sum)?;
    env.add_member_overload("min", "list_min", LIST_TYPE, vec![], |args| extreme("min", Ordering::Less, args))?;
    env.add_member_overload("max", "list_max", LIST_TYPE, vec![], |args| extreme("max", Ordering::Greater, args))?;
    env.add_member_overload("indexOf", "list_index_of", LIST_TYPE, vec![DYN_TYPE], |args| position(args, false))?;
    env.add_member_overload("lastIndexOf", "list_last_index_of", LIST_TYPE, vec![DYN_TYPE], |args| position(args, true))?;
    let sets = || vec![LIST_TYPE, LIST_TYPE, budget::TYPE];
    env.add_overload("sets.contains", "list_sets_contains_list", sets(), |args| {
        compare(args, |a, b| b.iter().all(|item| a.iter().any(|other| other.equals(*item))))
    })?;
    env.add_overload("sets.equivalent", "list_sets_equivalent_list", sets(), |args| {
        compare(args, |a, b| {
            let holds = |a: &[&dyn Val], b: &[&dyn Val]| b.iter().all(|item| a.iter().any(|other| other.equals(*item)));
            holds(a, b) && holds(b, a)
        })
    })?;
    env.add_overload("sets.intersects", "list_sets_intersects_list", sets(), |args| {
        compare(args, |a, b| b.iter().any(|item| a.iter().any(|other| other.equals(*item))))
    })
}

fn items<'b, 'v>(args: &'b [CowVal<'_, 'v>], index: usize) -> Result<Vec<&'b (dyn Val + 'v)>, ExecutionError> {
    let list = args.get(index).and_then(|list| list.as_iterable()).ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let mut iterator = list.iter();
    let mut items = Vec::new();
    while let Some(item) = iterator.next() {
        items.push(item);
    }
    Ok(items)
}

fn order(a: &dyn Val, b: &dyn Val) -> Result<Ordering, ExecutionError> {
    a.as_comparer().ok_or_else(|| ExecutionError::no_such_overload("_<_", Vec::new()))?.compare(b)
}

fn is_sorted<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    for pair in items(&args, 0)?.windows(2) {
        if order(pair[0], pair[1])? == Ordering::Greater {
            return Ok(CowVal::owned(CelBool::from(false)));
        }
    }
    Ok(CowVal::owned(CelBool::from(true)))
}

fn sum<'b, 'v>(args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let mut items = items(&args, 0)?.into_iter();
    let Some(first) = items.next() else { return Ok(CowVal::owned(CelInt::from(0))) };
    let mut total: Box<dyn Val + 'v> = first.clone_as_boxed();
    for item in items {
        let adder = total.as_adder().ok_or_else(|| ExecutionError::no_such_overload("_+_", Vec::new()))?;
        total = adder.add(item)?.into_owned();
    }
    Ok(CowVal::Owned(total))
}

fn extreme<'b, 'v>(name: &str, wanted: Ordering, args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let items = items(&args, 0)?;
    let mut best = *items.first().ok_or_else(|| failed(name, format!("{name} called on empty list")))?;
    for item in items {
        if order(item, best)? == wanted {
            best = item;
        }
    }
    Ok(CowVal::Owned(best.clone_as_boxed()))
}

fn position<'b, 'v>(args: Vec<CowVal<'b, 'v>>, is_last: bool) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let wanted = args.get(1).ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let items = items(&args, 0)?;
    let is_it = |item: &&dyn Val| item.equals(wanted.as_ref());
    let found = if is_last { items.iter().rposition(|item| is_it(item)) } else { items.iter().position(|item| is_it(item)) };
    Ok(CowVal::owned(CelInt::from(found.and_then(|index| i64::try_from(index).ok()).unwrap_or(-1))))
}

/// Each with each: paid for by their product.
fn compare<'b, 'v>(
    mut args: Vec<CowVal<'b, 'v>>,
    holds: impl Fn(&[&dyn Val], &[&dyn Val]) -> bool,
) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let budget = budget::take(&mut args)?;
    let (a, b) = (items(&args, 0)?, items(&args, 1)?);
    budget.build(a.len().saturating_mul(b.len()))?;
    let plain = |list: Vec<&'_ (dyn Val + 'v)>| -> Vec<Box<dyn Val + 'v>> { list.into_iter().map(|item| item.clone_as_boxed()).collect() };
    let (a, b) = (plain(a), plain(b));
    let (a, b): (Vec<&dyn Val>, Vec<&dyn Val>) = (a.iter().map(|x| &**x as _).collect(), b.iter().map(|x| &**x as _).collect());
    Ok(CowVal::owned(CelBool::from(holds(&a, &b))))
}
