//! `matches`, `find`, `findAll` with Go's expressions, and those of CEL's functions on texts whose result is a product.

use cel::common::types::{CelBool, CelInt, CelList, CelString, DYN_TYPE, INT_TYPE, LIST_TYPE, STRING_TYPE};
use cel::common::value::{CowVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::super::super::formats;
use super::{arg, budget, failed};

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>, id = "matches")?;
    cel::add_member_overload!(env, fn matches: (CelString, CelString) -> Result<CelBool>)?;
    cel::add_member_overload!(env, fn find: (CelString, CelString) -> Result<CelString>)?;
    cel::add_member_overload!(env, fn find_all: (CelString, CelString) -> Result<CelList>)?;
    cel::add_member_overload!(env, fn find_some: (CelString, CelString, CelInt) -> Result<CelList>, name = "findAll")?;
    let paid = || budget::TYPE;
    env.add_member_overload("replace", "paid_replace", STRING_TYPE, vec![STRING_TYPE, STRING_TYPE, paid()], replace)?;
    env.add_member_overload("replace", "paid_replace_n", STRING_TYPE, vec![STRING_TYPE, STRING_TYPE, INT_TYPE, paid()], replace)?;
    env.add_member_overload("join", "paid_join", LIST_TYPE, vec![paid()], join)?;
    env.add_member_overload("join", "paid_join_by", LIST_TYPE, vec![STRING_TYPE, paid()], join)?;
    env.add_overload("@template", "template", vec![DYN_TYPE, paid()], template)
}

fn regex(pattern: &str) -> Result<regex::Regex, ExecutionError> {
    formats::compiled(pattern).ok_or_else(|| failed("matches", format!("error parsing regexp: `{pattern}`")))
}

fn matches(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelBool, ExecutionError> {
    Ok(CelBool::from(regex(pattern.inner())?.is_match(text.inner())))
}

fn find(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelString<'static>, ExecutionError> {
    Ok(CelString::from(regex(pattern.inner())?.find(text.inner()).map(|found| found.as_str().to_owned()).unwrap_or_default()))
}

fn find_all(text: &CelString<'_>, pattern: &CelString<'_>) -> Result<CelList<'static>, ExecutionError> {
    find_some(text, pattern, &CelInt::from(-1))
}

fn find_some(text: &CelString<'_>, pattern: &CelString<'_>, most: &CelInt) -> Result<CelList<'static>, ExecutionError> {
    let most = usize::try_from(*most.inner()).unwrap_or(usize::MAX);
    let pattern = regex(pattern.inner())?;
    let found = pattern.find_iter(text.inner()).take(most);
    let texts: Vec<Box<dyn Val>> = found.map(|found| Box::new(CelString::from(found.as_str().to_owned())) as _).collect();
    Ok(CelList::from(texts))
}

fn replace<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let budget = budget::take(&mut args)?;
    let text = |index| arg::<CelString>(&args, index).map(CelString::inner);
    let (text, from, to) = (text(0)?, text(1)?, text(2)?);
    let most = match args.get(3) {
        Some(_) => usize::try_from(*arg::<CelInt>(&args, 3)?.inner()).unwrap_or(usize::MAX),
        None => usize::MAX,
    };
    let times = text.matches(from).take(most).count();
    budget.build(text.len().saturating_add(times.saturating_mul(to.len())))?;
    Ok(CowVal::owned(CelString::from(text.replacen(from, to, most))))
}

fn join<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let budget = budget::take(&mut args)?;
    let between = if args.len() > 1 { arg::<CelString>(&args, 1)?.inner() } else { "" };
    let list = args.first().and_then(|list| list.as_iterable()).ok_or(ExecutionError::MissingArgumentOrTarget)?;
    let mut items = list.iter();
    let mut texts = Vec::new();
    let mut length = 0_usize;
    while let Some(item) = items.next() {
        let text = item.downcast_ref::<CelString>().ok_or_else(|| ExecutionError::no_such_overload("join", Vec::new()))?;
        length = length.saturating_add(text.inner().len()).saturating_add(between.len());
        texts.push(text.inner());
    }
    budget.build(length)?;
    Ok(CowVal::owned(CelString::from(texts.join(between))))
}

/// `@template(text, budget)`: what `format` is called on. A clause of six characters can ask for a thousand digits.
fn template<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let budget = budget::take(&mut args)?;
    let text = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    if let Some(template) = text.downcast_ref::<CelString>() {
        budget.build(template.inner().matches('%').count().saturating_mul(1000))?;
    }
    Ok(text)
}
