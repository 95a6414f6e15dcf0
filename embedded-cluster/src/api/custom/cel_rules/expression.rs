//! Expressions: parsed within bounds, checked for names that nobody declared, and set up so that evaluation can be stopped.

use cel::common::ast::{CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, operators};

use super::budget::Budget;
use super::{library, values::Boxed};

/// kube-apiserver reads up to 100,000 characters; the longest rule of the Gateway API has 1,600.
const LONGEST: usize = 16 << 10;
/// How deep an expression may nest: evaluation recurses on the stack of whoever asks.
const DEEPEST: usize = 100;
/// Reading recurses too, by what there is rather than by what is allowed. 16 KiB of the worst (`((((`, `a.b.c.d`) fit.
const READING_STACK: usize = 256 << 20;
/// Variables that only [`bound`] writes: expressions have no `@`.
const BUDGET: &str = "@budget";
const TURN: &str = "@turn:";

/// An expression that can be evaluated.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    root: IdedExpr,
    steps: usize,
    pub uses_old_self: bool,
}

/// What reading an expression came to.
#[derive(Clone, Debug)]
pub(super) enum Read {
    Ready(Expression),
    /// Kubernetes has these functions and this server has not.
    NotEvaluated(Vec<String>),
    /// Does not compile, in cel-go's words.
    Refused(String),
}

/// Runs what reads expressions, on a stack that their nesting cannot overflow.
pub(super) fn on_reading_stack<T: Send>(read: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("cel".to_owned()).stack_size(READING_STACK);
        thread.spawn_scoped(scope, read).ok()?.join().ok()
    })
}

/// Reads an expression, [`on_reading_stack`] only.
pub(super) fn read(source: &str, self_shape: super::shape::Shape<'_>, old_self_is_optional: bool) -> Read {
    if source.len() > LONGEST {
        return Read::Refused(format!("ERROR: :1:0: expression code point size exceeds limit: size: {}, limit {LONGEST}", source.len()));
    }
    let program = match library::ENVIRONMENT.compile(source) {
        Ok(program) => program,
        Err(errors) => return Read::Refused(errors.to_string()),
    };
    if depth(program.expression()) > DEEPEST {
        return Read::Refused(format!("ERROR: <input>:1:1: expression nests deeper than {DEEPEST} levels"));
    }
    let findings = super::check::names(program.expression(), self_shape, old_self_is_optional);
    if let Some((at, wrong)) = findings.errors.first() {
        let start = program.source_info().offset_for(*at).map_or(0, |(start, _)| start as usize);
        return Read::Refused(located(source, start, wrong));
    }
    if !findings.not_evaluated.is_empty() {
        return Read::NotEvaluated(findings.not_evaluated);
    }
    let mut root = program.expression().clone();
    let steps = bound(&mut root);
    Read::Ready(Expression { root, steps, uses_old_self: findings.uses_old_self })
}

/// cel-go's way of pointing at a place.
fn located(source: &str, start: usize, wrong: &str) -> String {
    let before: String = source.chars().take(start).collect();
    let (line, column) = (before.matches('\n').count(), before.chars().rev().take_while(|c| *c != '\n').count());
    let text = source.lines().nth(line).unwrap_or_default();
    format!("ERROR: <input>:{}:{}: {wrong}\n | {text}\n | {}^", line + 1, column + 1, ".".repeat(column))
}

/// Everything right below an expression.
pub(super) fn below(expr: &IdedExpr) -> Vec<&IdedExpr> {
    match &expr.expr {
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::Comprehension(loops) => {
            vec![&loops.iter_range, &loops.accu_init, &loops.loop_cond, &loops.loop_step, &loops.result]
        }
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Struct(made) => made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => Vec::new(),
    }
}

fn entry_parts(entry: &EntryExpr) -> Vec<&IdedExpr> {
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

fn depth(expr: &IdedExpr) -> usize {
    1 + below(expr).into_iter().map(depth).max().unwrap_or(0)
}

fn ident(name: &str) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Ident(name.to_owned()) }
}

fn call(function: &str, args: Vec<IdedExpr>) -> IdedExpr {
    IdedExpr { id: 0, expr: Expr::Call(CallExpr { func_name: function.to_owned(), target: None, args }) }
}

/// Makes every turn of a loop and every value that grows be paid for. Returns how many steps the expression itself takes.
fn bound(expr: &mut IdedExpr) -> usize {
    let grows = match &mut expr.expr {
        Expr::Comprehension(loops) => return bound_loop(loops),
        Expr::Call(made) => {
            let pays = library::pays(made);
            let grows = library::grows(&made.func_name) && !adds_to_result(made);
            let steps: usize = made.target.as_deref_mut().into_iter().chain(&mut made.args).map(bound).sum();
            if pays {
                made.args.push(ident(BUDGET));
            }
            if let Some(template) = made.target.as_deref_mut().filter(|_| made.func_name == "format") {
                *template = call("@template", vec![std::mem::take(template), ident(BUDGET)]);
            }
            (grows, steps)
        }
        // Literals alone are no longer than the expression.
        Expr::List(list) => {
            let grows = list.elements.iter().any(|element| !matches!(element.expr, Expr::Literal(_)));
            (grows, list.elements.iter_mut().map(bound).sum())
        }
        Expr::Map(map) => {
            let parts = map.entries.iter_mut().flat_map(|entry| match &mut entry.expr {
                EntryExpr::MapEntry(entry) => vec![&mut entry.key, &mut entry.value],
                EntryExpr::StructField(field) => vec![&mut field.value],
            });
            (true, parts.map(bound).sum())
        }
        Expr::Select(select) => (false, bound(&mut select.operand)),
        Expr::Struct(_) | Expr::Ident(_) | Expr::Literal(_) | Expr::Unspecified => (false, 0),
    };
    let (grows, steps) = grows;
    if grows {
        let value = std::mem::take(expr);
        *expr = call("@sized", vec![value, ident(BUDGET)]);
    }
    steps + 1
}

/// `@result + [x]`, as `map` and `filter` expand to: the interpreter appends in place when it sees just that.
fn adds_to_result(made: &CallExpr) -> bool {
    made.func_name == operators::ADD && matches!(made.args.first().map(|arg| &arg.expr), Some(Expr::Ident(name)) if name.starts_with('@'))
}

fn bound_loop(loops: &mut ComprehensionExpr) -> usize {
    let outside = bound(&mut loops.iter_range) + bound(&mut loops.accu_init) + bound(&mut loops.result);
    let turn = bound(&mut loops.loop_cond) + bound_step(&mut loops.loop_step);
    let goes_on = ident(&format!("{TURN}{turn}"));
    if !matches!(loops.loop_cond.expr, Expr::Literal(_)) {
        let condition = std::mem::take(&mut loops.loop_cond);
        loops.loop_cond = call(operators::LOGICAL_AND, vec![goes_on, condition]);
    } else if let Expr::Call(step) = &mut loops.loop_step.expr
        && step.func_name == operators::CONDITIONAL
        && let Some(guard) = step.args.first_mut()
    {
        *guard = call(operators::LOGICAL_AND, vec![goes_on, std::mem::take(guard)]);
    } else {
        let (step, result) = (std::mem::take(&mut loops.loop_step), ident(&loops.accu_var));
        loops.loop_step = call(operators::CONDITIONAL, vec![goes_on, step, result]);
    }
    outside + 1
}

/// A step's own list `[x]` of one is not counted again with each turn.
fn bound_step(step: &mut IdedExpr) -> usize {
    match &mut step.expr {
        Expr::Call(made) if made.func_name == operators::CONDITIONAL => made.args.iter_mut().map(bound_step).sum::<usize>() + 1,
        Expr::Call(made) if adds_to_result(made) => {
            let added = made.args.iter_mut().skip(1);
            let steps = added.map(|list| match &mut list.expr {
                Expr::List(list) => list.elements.iter_mut().map(bound).sum(),
                _ => bound(list),
            });
            steps.sum::<usize>() + 1
        }
        _ => bound(step),
    }
}

/// The values of one evaluation.
pub(super) struct Scope<'v> {
    pub self_value: Boxed<'v>,
    pub old_self: Option<Boxed<'v>>,
    pub budget: Budget,
}

impl cel::context::VariableResolver for Scope<'_> {
    fn resolve<'b>(&'b self, variable: &str) -> Option<cel::common::value::CowVal<'b, 'b>> {
        use cel::common::types::CelBool;
        use cel::common::value::CowVal;
        const FALSE: CelBool = CelBool::FALSE;
        const TRUE: CelBool = CelBool::TRUE;
        match variable {
            "self" => Some(CowVal::Borrowed(self.self_value.as_ref())),
            "oldSelf" => self.old_self.as_ref().map(|old| CowVal::Borrowed(old.as_ref())),
            BUDGET => Some(CowVal::Borrowed(&self.budget)),
            _ => {
                let steps = variable.strip_prefix(TURN)?.parse().ok()?;
                Some(CowVal::Borrowed(if self.budget.charge(steps) { &TRUE } else { &FALSE }))
            }
        }
    }
}

/// Why there is no result.
#[derive(Debug, PartialEq)]
pub(super) enum Failure {
    /// More than [`super::budget::PER_RULE`], or than was left.
    TooCostly,
    /// As cel-go says it.
    Error(String),
}

impl Expression {
    pub fn root(&self) -> &IdedExpr {
        &self.root
    }

    /// Evaluates, and makes of the result what the caller wants of it.
    pub fn evaluate<T>(&self, scope: &Scope<'_>, result: impl FnOnce(&dyn cel::common::value::Val) -> T) -> Result<T, Failure> {
        scope.budget.charge(self.steps);
        let mut context = cel::Context::with_env(library::ENVIRONMENT.clone());
        context.set_variable_resolver(scope);
        // Nothing in an expression is known to make the interpreter panic; should there be, it is one rule's error.
        let evaluated = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            cel::Value::resolve_val(&self.root, &context).map(|value| result(value.as_ref()))
        }));
        if scope.budget.is_exhausted() {
            return Err(Failure::TooCostly);
        }
        match evaluated {
            Ok(value) => value.map_err(|error| Failure::Error(library::wording(&error))),
            Err(_) => Err(Failure::Error("internal error".to_owned())),
        }
    }
}
