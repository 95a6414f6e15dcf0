//! The functions that expressions may call: CEL's own and Kubernetes' (`apiserver/pkg/cel/environment/base.go`, 1.33).

mod lists;
mod network;
mod optionals;
mod quantity;
mod text;
mod url;

use std::sync::{Arc, LazyLock};

use cel::common::ast::{CallExpr, Expr, IdedExpr, operators};
use cel::common::types::{CelString, DYN_TYPE};
use cel::common::value::CowVal;
use cel::{DeclarationError, Env, ExecutionError};

use super::budget;
use super::values::Boxed;

pub(super) static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    if let Err(error) = declare(&mut env) {
        // Declared twice: a mistake of this module, which its tests find.
        tracing::error!(%error, "functions of CEL rules are missing");
    }
    Arc::new(env)
});

fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_overload("@sized", "sized", vec![DYN_TYPE, budget::TYPE], budget::sized)?;
    env.add_extension(cel::extensions::strings)?;
    lists::declare(env)?;
    network::declare(env)?;
    optionals::declare(env)?;
    quantity::declare(env)?;
    text::declare(env)?;
    url::declare(env)
}

/// Names that stand for types.
pub(super) const TYPES: [&str; 11] =
    ["bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint", "optional_type"];

/// First parts of functions' names.
pub(super) const SPACES: [&str; 5] = ["format", "ip", "optional", "sets", "strings"];

#[rustfmt::skip]
const KNOWN: &[&str] = &[
    // CEL
    "bool", "bytes", "contains", "double", "duration", "dyn", "endsWith", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear",
    "getFullYear", "getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds", "int", "matches", "size", "startsWith",
    "string", "timestamp", "type", "uint",
    // Optional values
    "hasValue", "optional.none", "optional.of", "optional.ofNonZeroValue", "or", "orValue", "value",
    // Texts
    "charAt", "find", "findAll", "format", "indexOf", "join", "lastIndexOf", "lowerAscii", "replace", "split", "strings.quote",
    "substring", "trim", "upperAscii",
    // Lists and sets
    "isSorted", "max", "min", "sets.contains", "sets.equivalent", "sets.intersects", "sum",
    // Addresses
    "cidr", "containsCIDR", "containsIP", "family", "ip", "ip.isCanonical", "isCIDR", "isGlobalUnicast", "isIP",
    "isLinkLocalMulticast", "isLinkLocalUnicast", "isLoopback", "isUnspecified", "masked", "prefixLength",
    "getEscapedPath", "getHost", "getHostname", "getPort", "getQuery", "getScheme", "isURL", "url",
    // Quantities
    "add", "asApproximateFloat", "asInteger", "compareTo", "isGreaterThan", "isInteger", "isLessThan", "isQuantity", "quantity",
    "sign", "sub",
    // Operators
    operators::CONDITIONAL, operators::LOGICAL_NOT, operators::NEGATE, operators::OPT_INDEX, operators::OPT_SELECT,
    operators::NOT_STRICTLY_FALSE, operators::IN, operators::INDEX, operators::ADD, operators::SUBSTRACT, operators::MULTIPLY,
    operators::DIVIDE,
];

pub(super) fn is_known(function: &str) -> bool {
    const BINARY: [&str; 9] = [
        operators::MODULO,
        operators::LOGICAL_AND,
        operators::LOGICAL_OR,
        operators::EQUALS,
        operators::NOT_EQUALS,
        operators::LESS,
        operators::LESS_EQUALS,
        operators::GREATER,
        operators::GREATER_EQUALS,
    ];
    KNOWN.contains(&function) || BINARY.contains(&function)
}

/// Kubernetes has these and this server has not: versions, formats by name, comprehensions with two variables.
pub(super) fn is_missing(function: &str) -> bool {
    const MISSING: [&str; 9] =
        ["isSemver", "major", "minor", "patch", "semver", "transformList", "transformMap", "transformMapEntry", "validate"];
    MISSING.contains(&function) || function.starts_with("format.")
}

/// Functions whose result can be longer than what they are given, or is put together from it.
pub(super) fn grows(function: &str) -> bool {
    matches!(function, operators::ADD | "format" | "split" | "findAll" | "quote")
}

/// Whether a call takes the budget as its last argument, because what it does grows with the product of what it is given.
pub(super) fn pays(call: &CallExpr) -> bool {
    let is_of_sets = || matches!(call.target.as_deref(), Some(IdedExpr { expr: Expr::Ident(space), .. }) if space == "sets");
    matches!(call.func_name.as_str(), "join" | "replace") || is_of_sets()
}

/// What `timestamp(text)` or `duration(text)` gives, if anything.
pub(super) fn convert<'v>(function: &str, text: String) -> Option<Boxed<'v>> {
    let args = vec![CowVal::owned(CelString::from(text))];
    let convert = ENVIRONMENT.find_overload(function, &args)?;
    convert(args).ok().map(CowVal::into_owned)
}

/// An error as cel-go says it.
pub(super) fn wording(error: &ExecutionError) -> String {
    match error {
        ExecutionError::NoSuchKey(key) => format!("no such key: {key}"),
        ExecutionError::IndexOutOfBounds(cel::Value::Int(index)) => format!("index out of bounds: {index}"),
        ExecutionError::DivisionByZero(_) => "division by zero".to_owned(),
        ExecutionError::RemainderByZero(_) => "modulus by zero".to_owned(),
        ExecutionError::Overflow(..) => "integer overflow".to_owned(),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedIndex(..) => "no such overload".to_owned(),
        ExecutionError::FunctionError { message, .. } => message.clone(),
        other => other.to_string().chars().take(1000).collect(),
    }
}

fn failed(function: &str, why: impl std::fmt::Display) -> ExecutionError {
    ExecutionError::function_error(function, why)
}

/// An argument that overloads have made sure of.
fn arg<'b, 'v, T: cel::common::value::FromVal<'b, 'v>>(args: &'b [CowVal<'_, 'v>], index: usize) -> Result<&'b T, ExecutionError> {
    args.get(index).and_then(|value| value.as_ref().downcast_ref::<T>()).ok_or(ExecutionError::MissingArgumentOrTarget)
}

/// A value of a type of its own that is only passed about, compared, and asked by functions.
macro_rules! opaque {
    ($name:ident, $type_name:literal) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                <Self as Val>::cel_type()
            }

            fn cel_type() -> &'static Type {
                static TYPE: Type = Type::new_unspecified_type($type_name);
                &TYPE
            }

            fn equals(&self, other: &dyn Val) -> bool {
                other.downcast_ref::<Self>() == Some(self)
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn std::any::Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}
    };
}
use opaque;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_is_declared_once() {
        declare(&mut Env::stdlib()).unwrap();
    }
}
