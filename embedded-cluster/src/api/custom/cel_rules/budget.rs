//! What a rule may cost. Comprehensions over comprehensions and texts that double with each `+` grow without bound, so
//! every turn of a loop and every value that a rule builds is paid for.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use cel::ExecutionError;
use cel::common::types::{CelBytes, CelList, CelMap, CelString, Type};
use cel::common::value::{CowVal, StaticVal, Val};

/// As kube-apiserver's `PerCallLimit`, where a unit is about one step of evaluation.
pub(super) const PER_RULE: i64 = 1_000_000;
/// As kube-apiserver's `RuntimeCELCostBudget`, for all rules of one object.
pub(super) const PER_OBJECT: i64 = 10_000_000;
/// Single steps (a search in a long text) cost more than a unit; this bounds those of one object together.
pub(super) const LONGEST: Duration = Duration::from_secs(5);
/// Bytes of a new value that cost a unit.
const BYTES_PER_UNIT: usize = 16;
/// Largest text or list that a rule may build.
const LARGEST: usize = 1 << 20;

pub(super) const TYPE: Type = Type::new_unspecified_type("budget");
static STATIC_TYPE: Type = TYPE;

#[derive(Debug)]
struct Account {
    left: AtomicI64,
    ends: Instant,
}

/// Passed to functions as an argument that expressions cannot write themselves.
#[derive(Clone, Debug)]
pub(super) struct Budget(Arc<Account>);

impl Budget {
    pub fn new(units: i64, ends: Instant) -> Self {
        Self(Arc::new(Account { left: AtomicI64::new(units), ends }))
    }

    pub fn left(&self) -> i64 {
        self.0.left.load(Ordering::Relaxed)
    }

    pub fn is_exhausted(&self) -> bool {
        self.left() < 0
    }

    /// Whether there was enough.
    pub fn charge(&self, units: usize) -> bool {
        let units = i64::try_from(units).unwrap_or(i64::MAX);
        let left = self.left().saturating_sub(units);
        let left = if Instant::now() > self.0.ends { -1 } else { left };
        self.0.left.store(left, Ordering::Relaxed);
        left >= 0
    }

    /// Pays for a new value of so many bytes.
    ///
    /// # Errors
    /// When it is too large, or too much has been built already. That error may be hidden by `||`: callers ask
    /// [`Self::is_exhausted`] too.
    pub fn build(&self, bytes: usize) -> Result<(), ExecutionError> {
        if bytes > LARGEST {
            self.0.left.store(-1, Ordering::Relaxed);
        }
        if self.charge(1 + bytes / BYTES_PER_UNIT) { Ok(()) } else { Err(exhausted()) }
    }
}

fn exhausted() -> ExecutionError {
    ExecutionError::function_error("budget", "operation cancelled: actual cost limit exceeded")
}

impl Val for Budget {
    fn get_type(&self) -> &Type {
        &STATIC_TYPE
    }

    fn cel_type() -> &'static Type {
        &STATIC_TYPE
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> Option<&dyn Any> {
        Some(self)
    }
}

impl StaticVal for Budget {}

/// Bytes of a value, about.
fn size(value: &dyn Val) -> usize {
    if let Some(text) = value.downcast_ref::<CelString>() {
        return text.inner().len();
    }
    if let Some(bytes) = value.downcast_ref::<CelBytes>() {
        return bytes.inner().len();
    }
    if let Some(list) = value.downcast_ref::<CelList>() {
        return list.inner().iter().map(|item| 32 + size(item.as_ref())).sum();
    }
    if let Some(map) = value.downcast_ref::<CelMap>() {
        return map.inner().values().map(|item| 64 + size(item.as_ref())).sum();
    }
    16
}

/// `@sized(value, budget)`: the value, paid for.
pub(super) fn sized<'b, 'v>(mut args: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>, ExecutionError> {
    let budget = take(&mut args)?;
    let value = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    budget.build(size(value.as_ref()))?;
    Ok(value)
}

/// The budget that stands last among the arguments.
pub(super) fn take(args: &mut Vec<CowVal<'_, '_>>) -> Result<Budget, ExecutionError> {
    let last = args.pop().ok_or(ExecutionError::MissingArgumentOrTarget)?;
    last.downcast_ref::<Budget>().cloned().ok_or(ExecutionError::MissingArgumentOrTarget)
}
