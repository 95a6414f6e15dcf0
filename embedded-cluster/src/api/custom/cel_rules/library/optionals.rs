//! `optMap` and `optFlatMap`; what else there is to optional values comes with the interpreter.

use cel::common::ast::{CallExpr, ComprehensionExpr, Expr, IdedExpr, ListExpr, LiteralValue, operators};
use cel::parser::{Macro, MacroExprHelper, ParseError};
use cel::{DeclarationError, Env};

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    env.add_macro(Macro::receiver("optMap", 2, |helper, target, args| expand(helper, target, args, true)))?;
    env.add_macro(Macro::receiver("optFlatMap", 2, |helper, target, args| expand(helper, target, args, false)))
}

/// `x.optMap(v, e)` is `x.hasValue() ? optional.of(e with v = x.value()) : optional.none()`, as in cel-go.
fn expand(
    helper: &mut MacroExprHelper<'_>,
    target: &mut Option<IdedExpr>,
    args: &mut Vec<IdedExpr>,
    is_wrapped: bool,
) -> Result<Option<IdedExpr>, ParseError> {
    let [IdedExpr { expr: Expr::Ident(_), .. }, _] = args.as_slice() else {
        return Err(helper.new_error(args.first().map_or(0, |arg| arg.id), "optMap() variable name must be a simple identifier"));
    };
    let (Some(body), Some(IdedExpr { expr: Expr::Ident(variable), .. }), Some(optional)) = (args.pop(), args.pop(), target.take()) else {
        return Ok(None);
    };
    let mut member = |target: IdedExpr, name: &str, args: Vec<IdedExpr>| {
        helper.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: Some(Box::new(target)), args }))
    };
    let has_value = member(optional.clone(), "hasValue", Vec::new());
    let value = member(optional, "value", Vec::new());
    // A comprehension over nothing binds its accumulator.
    let bound = ComprehensionExpr {
        iter_range: helper.next_expr(Expr::List(ListExpr::new(Vec::new()))),
        iter_var: "#unused".to_owned(),
        iter_var2: None,
        accu_init: value,
        loop_cond: helper.next_expr(Expr::Literal(LiteralValue::Boolean(false.into()))),
        loop_step: helper.next_expr(Expr::Ident(variable.clone())),
        accu_var: variable,
        result: body,
    };
    let bound = helper.next_expr(Expr::Comprehension(Box::new(bound)));
    let mut of_optional = |name: &str, args: Vec<IdedExpr>| {
        let space = helper.next_expr(Expr::Ident("optional".to_owned()));
        helper.next_expr(Expr::Call(CallExpr { func_name: name.to_owned(), target: Some(Box::new(space)), args }))
    };
    let mapped = if is_wrapped { of_optional("of", vec![bound]) } else { bound };
    let none = of_optional("none", Vec::new());
    let chosen = CallExpr { func_name: operators::CONDITIONAL.to_owned(), target: None, args: vec![has_value, mapped, none] };
    Ok(Some(helper.next_expr(Expr::Call(chosen))))
}
