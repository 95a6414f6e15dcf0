//! Questions about identity and permission: objects that are answered, never stored.

use http::{Method, Response, StatusCode};
use serde_json::{Value, json};

use super::super::body;
use super::super::discovery;
use super::super::identity::Identity;
use super::super::respond::{self, Body};
use super::super::router::Call;
use super::super::status::Refusal;
use super::attributes::Attributes;
use super::{decide, resolver};

pub(crate) type Review = fn(&Call, namespace: Option<&str>) -> Result<Response<Body>, Refusal>;

/// Handler for a path of the groups that answer questions, and the namespace in it.
pub(crate) fn review<'a>(group: &str, rest: &[&'a str]) -> Option<(Review, Option<&'a str>)> {
    let (plural, namespace) = match rest {
        [plural] => (plural, None),
        ["namespaces", namespace, plural] => (plural, Some(*namespace)),
        _ => return None,
    };
    let answered = discovery::ANSWERED.iter().find(|answered| answered.group == group && answered.plural == *plural)?;
    if answered.namespaced != namespace.is_some() {
        return None;
    }
    let review: Review = match answered.kind {
        "SelfSubjectReview" => self_subject,
        "TokenReview" => token,
        "SelfSubjectRulesReview" => rules,
        "SelfSubjectAccessReview" => own_access,
        "LocalSubjectAccessReview" => local_access,
        "SubjectAccessReview" => access,
        _ => return None,
    };
    Some((review, namespace))
}

fn given(call: &Call) -> Result<Value, Refusal> {
    if call.method != Method::POST {
        return Err(Refusal::method_not_allowed());
    }
    let review = body::parse(call)?;
    if review.is_object() { Ok(review) } else { Err(Refusal::bad_request("the body is no object")) }
}

fn answered(mut review: Value, status: Value) -> Response<Body> {
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    review["metadata"]["creationTimestamp"] = Value::Null;
    review["status"] = status;
    respond::json(StatusCode::CREATED, &review)
}

fn user_info(identity: &Identity) -> Value {
    let mut user = json!({"username": identity.user, "groups": identity.groups});
    if !identity.uid.is_empty() {
        user["uid"] = identity.uid.clone().into();
    }
    user
}

fn self_subject(call: &Call, _: Option<&str>) -> Result<Response<Body>, Refusal> {
    Ok(answered(given(call)?, json!({"userInfo": user_info(&call.identity)})))
}

fn token(call: &Call, _: Option<&str>) -> Result<Response<Body>, Refusal> {
    let review = given(call)?;
    let text = review["spec"]["token"].as_str().unwrap_or_default();
    if text.is_empty() {
        let message = "TokenReview.authentication.k8s.io \"\" is invalid: spec.token: Required value";
        return Err(Refusal::new(422, "Invalid", message));
    }
    let status = match call.state.bearer(text) {
        Some(identity) => json!({
            "authenticated": true,
            "user": user_info(&identity),
            "audiences": [super::super::identity::AUDIENCE],
        }),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    };
    Ok(answered(review, status))
}

/// What a review asks, as attributes.
fn asked(review: &Value, kind: &str) -> Result<Attributes, Refusal> {
    let (resource, path) = (&review["spec"]["resourceAttributes"], &review["spec"]["nonResourceAttributes"]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    match (resource.is_object(), path.is_object()) {
        (true, false) => Ok(Attributes {
            verb: text(&resource["verb"]),
            path: String::new(),
            group: text(&resource["group"]),
            resource: text(&resource["resource"]),
            subresource: text(&resource["subresource"]),
            namespace: resource["namespace"].as_str().map(str::to_owned),
            name: text(&resource["name"]),
        }),
        (false, true) => Ok(Attributes { verb: text(&path["verb"]), path: text(&path["path"]), ..Attributes::default() }),
        (true, true) => Err(invalid(
            kind,
            "spec.nonResourceAttributes: Invalid value: \"null\": cannot be specified in combination with resourceAttributes",
        )),
        (false, false) => Err(invalid(
            kind,
            "spec.resourceAttributes: Invalid value: \"null\": exactly one of nonResourceAttributes or resourceAttributes must be specified",
        )),
    }
}

fn invalid(kind: &str, what: &str) -> Refusal {
    Refusal::new(422, "Invalid", format!("{kind}.authorization.k8s.io \"\" is invalid: {what}"))
}

fn decided(call: &Call, review: Value, user: &Identity, asked: &Attributes) -> Response<Body> {
    let decision = decide(&call.state.store, user, asked);
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    answered(review, status)
}

fn own_access(call: &Call, _: Option<&str>) -> Result<Response<Body>, Refusal> {
    let review = given(call)?;
    let asked = asked(&review, "SelfSubjectAccessReview")?;
    Ok(decided(call, review, &call.identity, &asked))
}

/// The user that a review is about.
fn subject(review: &Value, kind: &str) -> Result<Identity, Refusal> {
    let spec = &review["spec"];
    let groups: Vec<String> = spec["groups"].as_array().into_iter().flatten().filter_map(|g| g.as_str().map(str::to_owned)).collect();
    let user = spec["user"].as_str().unwrap_or_default().to_owned();
    if user.is_empty() && groups.is_empty() {
        return Err(invalid(kind, "spec.user: Invalid value: \"\": at least one of user or group must be specified"));
    }
    Ok(Identity { user, uid: spec["uid"].as_str().unwrap_or_default().to_owned(), groups })
}

fn access(call: &Call, _: Option<&str>) -> Result<Response<Body>, Refusal> {
    let review = given(call)?;
    let (asked, user) = (asked(&review, "SubjectAccessReview")?, subject(&review, "SubjectAccessReview")?);
    Ok(decided(call, review, &user, &asked))
}

fn local_access(call: &Call, namespace: Option<&str>) -> Result<Response<Body>, Refusal> {
    let review = given(call)?;
    let (asked, user) = (asked(&review, "LocalSubjectAccessReview")?, subject(&review, "LocalSubjectAccessReview")?);
    if !asked.is_resource() || asked.namespace.as_deref() != namespace {
        let namespace = namespace.unwrap_or_default();
        return Err(Refusal::bad_request(format!("spec.resourceAttributes.namespace must match namespace: {namespace}")));
    }
    Ok(decided(call, review, &user, &asked))
}

fn rules(call: &Call, _: Option<&str>) -> Result<Response<Body>, Refusal> {
    let review = given(call)?;
    let Some(namespace) = review["spec"]["namespace"].as_str().filter(|n| !n.is_empty()).map(str::to_owned) else {
        return Err(Refusal::bad_request("no namespace on request"));
    };
    let (mut resources, mut paths, mut faults) = (Vec::new(), Vec::new(), Vec::new());
    resolver::visit(&call.state.store, &call.identity, Some(&namespace), &mut |found| {
        match found {
            Ok(granted) if !granted.rule.resources.is_empty() => resources.push(granted.rule.resource_rule()),
            Ok(granted) if !granted.rule.paths.is_empty() => {
                paths.push(json!({"verbs": granted.rule.verbs, "nonResourceURLs": granted.rule.paths}));
            }
            Ok(_) => {}
            Err(fault) => faults.push(fault),
        }
        true
    });
    let mut status = json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false});
    if !faults.is_empty() {
        status["evaluationError"] = faults.join(", ").into();
    }
    Ok(answered(review, status))
}
