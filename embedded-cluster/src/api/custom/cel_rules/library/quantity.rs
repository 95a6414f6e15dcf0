//! Amounts as Kubernetes writes them (`library.Quantity`): `quantity('500Mi').isLessThan(quantity('1Gi'))`.

use cel::common::types::{CelBool, CelDouble, CelInt, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};

use super::{failed, opaque};
use crate::store::amount;

const BILLION: i128 = 1_000_000_000;

/// In billionths.
#[derive(Clone, Debug, PartialEq)]
struct Quantity(i128);

opaque!(Quantity, "kubernetes.Quantity");

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn quantity: (CelString) -> Result<Quantity>)?;
    cel::add_overload!(env, fn is_quantity: (CelString) -> CelBool)?;
    cel::add_member_overload!(env, fn sign: (Quantity) -> CelInt)?;
    cel::add_member_overload!(env, fn is_integer: (Quantity) -> CelBool)?;
    cel::add_member_overload!(env, fn as_integer: (Quantity) -> Result<CelInt>)?;
    cel::add_member_overload!(env, fn as_approximate_float: (Quantity) -> CelDouble)?;
    cel::add_member_overload!(env, fn add: (Quantity, Quantity) -> Result<Quantity>)?;
    cel::add_member_overload!(env, fn add_int: (Quantity, CelInt) -> Result<Quantity>, name = "add")?;
    cel::add_member_overload!(env, fn sub: (Quantity, Quantity) -> Result<Quantity>)?;
    cel::add_member_overload!(env, fn sub_int: (Quantity, CelInt) -> Result<Quantity>, name = "sub")?;
    cel::add_member_overload!(env, fn is_less_than: (Quantity, Quantity) -> CelBool)?;
    cel::add_member_overload!(env, fn is_greater_than: (Quantity, Quantity) -> CelBool)?;
    cel::add_member_overload!(env, fn compare_to: (Quantity, Quantity) -> CelInt)
}

fn quantity(text: &CelString<'_>) -> Result<Quantity, ExecutionError> {
    const WRONG: &str = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
    amount(text.inner()).map(Quantity).ok_or_else(|| failed("quantity", WRONG))
}

fn is_quantity(text: &CelString<'_>) -> CelBool {
    amount(text.inner()).is_some().into()
}

fn sign(of: &Quantity) -> CelInt {
    CelInt::from(of.0.signum() as i64)
}

fn whole(of: &Quantity) -> Option<i64> {
    (of.0 % BILLION == 0).then(|| i64::try_from(of.0 / BILLION).ok()).flatten()
}

fn is_integer(of: &Quantity) -> CelBool {
    whole(of).is_some().into()
}

fn as_integer(of: &Quantity) -> Result<CelInt, ExecutionError> {
    whole(of).map(CelInt::from).ok_or_else(|| failed("asInteger", "cannot convert value to integer"))
}

fn as_approximate_float(of: &Quantity) -> CelDouble {
    CelDouble::from(of.0 as f64 / BILLION as f64)
}

fn total(a: &Quantity, b: Option<i128>) -> Result<Quantity, ExecutionError> {
    b.and_then(|b| a.0.checked_add(b)).map(Quantity).ok_or_else(|| failed("quantity", "integer overflow"))
}

fn add(a: &Quantity, b: &Quantity) -> Result<Quantity, ExecutionError> {
    total(a, Some(b.0))
}

fn add_int(a: &Quantity, b: &CelInt) -> Result<Quantity, ExecutionError> {
    total(a, Some(i128::from(*b.inner()) * BILLION))
}

fn sub(a: &Quantity, b: &Quantity) -> Result<Quantity, ExecutionError> {
    total(a, b.0.checked_neg())
}

fn sub_int(a: &Quantity, b: &CelInt) -> Result<Quantity, ExecutionError> {
    total(a, Some(i128::from(*b.inner()) * -BILLION))
}

fn is_less_than(a: &Quantity, b: &Quantity) -> CelBool {
    (a.0 < b.0).into()
}

fn is_greater_than(a: &Quantity, b: &Quantity) -> CelBool {
    (a.0 > b.0).into()
}

fn compare_to(a: &Quantity, b: &Quantity) -> CelInt {
    CelInt::from(a.0.cmp(&b.0) as i64)
}
