//! `GET …/pods/{name}/log`

use http::{Method, Response};
use jiff::{SignedDuration, Timestamp};

use super::super::respond::{self, Body};
use super::super::route::Target;
use super::super::router::Call;
use super::super::status::{FieldError, Refusal};
use super::container::container;
use crate::kubelet::LogOptions;

pub(crate) async fn log(call: &Call, target: &Target) -> Result<Response<Body>, Refusal> {
    if call.method != Method::GET {
        return Err(Refusal::method_not_allowed());
    }
    let options = options(call, target)?;
    let container = container(&call.state, target, &call.query)?;
    let lines = call.state.access.logs(&container, &options).await?;
    Ok(respond::stream("text/plain", lines))
}

fn options(call: &Call, target: &Target) -> Result<LogOptions, Refusal> {
    let query = &call.query;
    let mut mistakes = Vec::new();
    let mut at_least = |name: &'static str, minimum: i64| -> Result<Option<i64>, Refusal> {
        let value = query.number::<i64>(name)?;
        if let Some(value) = value
            && value < minimum
        {
            let bound = if minimum == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            mistakes.push(FieldError::invalid(name, &value.into(), bound));
        }
        Ok(value)
    };
    let tail = at_least("tailLines", 0)?;
    let limit = at_least("limitBytes", 1)?;
    let since_seconds = at_least("sinceSeconds", 1)?;
    let since_time = match query.get("sinceTime") {
        None => None,
        Some(text) => {
            Some(text.parse::<Timestamp>().map_err(|error| Refusal::bad_request(format!("sinceTime: parsing time \"{text}\": {error}")))?)
        }
    };
    if since_seconds.is_some() && since_time.is_some() {
        mistakes.push(FieldError::forbidden("", "at most one of `sinceTime` or `sinceSeconds` may be specified"));
    }
    if !mistakes.is_empty() {
        let mut refusal = Refusal::invalid(&target.kind, target.object_name()?, &mistakes);
        refusal.message = refusal.message.replacen("Pod", "PodLogOptions", 1);
        return Err(refusal);
    }
    let since_seconds = since_seconds.map(|s| Timestamp::now().saturating_sub(SignedDuration::from_secs(s)));
    let since_seconds = since_seconds.transpose().map_err(|error| Refusal::bad_request(format!("sinceSeconds: {error}")))?;
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        tail_lines: tail.and_then(|n| usize::try_from(n).ok()),
        since: since_time.or(since_seconds),
        timestamps: query.flag("timestamps"),
        limit_bytes: limit.and_then(|n| usize::try_from(n).ok()),
    })
}
