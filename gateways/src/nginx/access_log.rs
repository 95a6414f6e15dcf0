//! nginx's access log: `upstreaminfo` as ingress-nginx defines it, extended at its end by what the lab needs.

use std::time::Duration;

use serde::Serialize;

use crate::log::{method_and_target, present};

/// The `log_format` that [`NginxAccess::parse`] reads. Up to `$req_id` it is ingress-nginx's `log-format-upstream` word for word
/// (internal/ingress/controller/config/config.go); behind it come the request's host, the upstream's connect and header
/// times, and the connection's number, by which lines of the error log are joined to it.
pub const LOG_FORMAT: &str = concat!(
    r#"$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent" "#,
    r#"$request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr "#,
    r#"$upstream_response_length $upstream_response_time $upstream_status $req_id "#,
    r#""$host" "$upstream_connect_time" "$upstream_header_time" "$connection""#
);

/// One try at one upstream server (nginx logs a list of them where `proxy_next_upstream` made it try again).
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct UpstreamAttempt {
    /// `address:port`, or the upstream's name where nginx had no server to try.
    pub address: String,
    /// Status that the upstream gave, or the one that nginx made for a failed try (502, 504).
    pub status: Option<u16>,
    /// Bytes of the upstream's response.
    pub response_length: Option<u64>,
    /// Time until the connection stood (zero for a reused one); `None` where it never did.
    pub connect_time: Option<Duration>,
    /// Time until the response's header was read; `None` where it never was.
    pub header_time: Option<Duration>,
    /// Time until the last byte of the response, or until the try failed.
    pub response_time: Option<Duration>,
}

/// One line of nginx's access log. Times have nginx's resolution of a millisecond.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct NginxAccess {
    pub remote_address: String,
    /// nginx's `$time_local`, e.g. `21/Nov/2026:04:10:11 +0000`.
    pub time: String,
    /// The request line as the client sent it.
    pub request: String,
    pub method: Option<String>,
    /// Request target with query.
    pub target: Option<String>,
    pub status: u16,
    pub body_bytes_sent: u64,
    pub user_agent: Option<String>,
    pub request_length: u64,
    pub request_time: Duration,
    /// ingress-nginx's name of the backend: `<namespace>-<service>-<port>`; `None` where no backend was chosen.
    pub upstream_name: Option<String>,
    pub attempts: Vec<UpstreamAttempt>,
    pub request_id: Option<String>,
    pub host: Option<String>,
    /// nginx's number of the client connection: `*17` in the error log. Unique among the workers, counted on over reloads.
    pub connection: Option<u64>,
}

impl NginxAccess {
    /// Reads a line that was written with [`LOG_FORMAT`].
    pub fn parse(line: &str) -> Option<Self> {
        let (remote_address, rest) = line.split_once(" - ")?;
        let (_user, rest) = rest.split_once(" [")?;
        let (time, rest) = rest.split_once("] ")?;
        let (request, rest) = quoted(rest)?;
        let (status, rest) = rest.split_once(' ')?;
        let (body_bytes_sent, rest) = rest.split_once(' ')?;
        let (_referer, rest) = quoted(rest)?;
        let (user_agent, rest) = quoted(rest)?;
        let (request_length, rest) = rest.split_once(' ')?;
        let (request_time, rest) = rest.split_once(' ')?;
        let (upstream_name, rest) = rest.strip_prefix('[')?.split_once("] [")?;
        let (_alternative, rest) = rest.split_once("] ")?;
        let (addresses, rest) = list(rest)?;
        let (lengths, rest) = list(rest)?;
        let (times, rest) = list(rest)?;
        let (statuses, rest) = list(rest)?;
        let (request_id, rest) = rest.split_once(' ')?;
        let (host, rest) = quoted(rest)?;
        let (connect_times, rest) = quoted(rest)?;
        let (header_times, rest) = quoted(rest)?;
        let (connection, rest) = quoted(rest)?;
        if !rest.is_empty() {
            return None;
        }
        let (connect_times, header_times) = (split_list(&connect_times), split_list(&header_times));
        let nth = |values: &[&str], index: usize| values.get(index).copied().filter(|value| *value != "-").map(str::to_owned);
        let attempts = addresses
            .iter()
            .enumerate()
            .filter(|(_, address)| **address != "-")
            .map(|(index, address)| UpstreamAttempt {
                address: (*address).to_owned(),
                status: nth(&statuses, index).and_then(|status| status.parse().ok()),
                response_length: nth(&lengths, index).and_then(|length| length.parse().ok()),
                connect_time: nth(&connect_times, index).and_then(|time| seconds(&time)),
                header_time: nth(&header_times, index).and_then(|time| seconds(&time)),
                response_time: nth(&times, index).and_then(|time| seconds(&time)),
            })
            .collect();
        let (method, target) = method_and_target(&request);
        Some(Self {
            remote_address: remote_address.to_owned(),
            time: time.to_owned(),
            method,
            target,
            status: status.parse().ok()?,
            body_bytes_sent: body_bytes_sent.parse().ok()?,
            user_agent: present(&user_agent),
            request_length: request_length.parse().ok()?,
            request_time: seconds(request_time)?,
            upstream_name: present(upstream_name),
            attempts,
            request_id: present(request_id),
            host: present(&host),
            connection: connection.parse().ok(),
            request,
        })
    }
}

/// A quoted field and what comes behind it and a space. nginx escapes quotes, backslashes and bytes outside of printable ASCII as `\xXX`
/// (ngx_http_log_module, `escape=default`).
fn quoted(text: &str) -> Option<(String, &str)> {
    let (field, rest) = text.strip_prefix('"')?.split_once('"')?;
    let mut bytes = Vec::with_capacity(field.len());
    let mut remaining = field.as_bytes();
    while let Some((first, behind)) = remaining.split_first() {
        let escaped = (*first == b'\\' && behind.first() == Some(&b'x'))
            .then(|| std::str::from_utf8(behind.get(1..3)?).ok().and_then(|digits| u8::from_str_radix(digits, 16).ok()))
            .flatten();
        match escaped {
            Some(byte) => {
                bytes.push(byte);
                remaining = &behind[3..];
            }
            None => {
                bytes.push(*first);
                remaining = behind;
            }
        }
    }
    Some((String::from_utf8_lossy(&bytes).into_owned(), rest.strip_prefix(' ').unwrap_or(rest)))
}

/// A list of an upstream variable and what comes behind it. Tries are separated by `, `, and by ` : ` where an internal redirect led to
/// another group of servers (ngx_http_upstream_module, $upstream_addr).
fn list(text: &str) -> Option<(Vec<&str>, &str)> {
    let mut end = 0;
    loop {
        end += text[end..].find(' ')?;
        if text[..end].ends_with(',') {
            end += 1;
        } else if text[end..].starts_with(" : ") {
            end += 3;
        } else {
            return Some((split_list(&text[..end]), &text[end + 1..]));
        }
    }
}

fn split_list(text: &str) -> Vec<&str> {
    text.split(", ").flat_map(|part| part.split(" : ")).collect()
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Written by nginx 1.22.1.
    const RETRIED: &str = r#"127.0.0.1 - - [21/Nov/2026:04:41:58 +0000] "GET / HTTP/1.1" 502 150 "-" "-" 96 0.001 [shop-shop-80] [] 127.0.0.1:36457, 127.0.0.1:36457, 127.0.0.1:36457 0, 0, 0 0.000, 0.000, 0.000 502, 502, 502 refused "shop.test" "-, -, -" "-, -, -" "7""#;

    #[test]
    fn a_retried_request() {
        insta::assert_json_snapshot!(NginxAccess::parse(RETRIED).unwrap());
    }

    #[test]
    fn other_lines_are_no_records() {
        for line in
            ["", "GET / HTTP/1.1", &RETRIED[..RETRIED.len() - 1], &RETRIED.replace("502 150", "abc 150"), &format!("{RETRIED} more")]
        {
            assert_eq!(NginxAccess::parse(line), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_it_panic(line in r#"[ -~]{0,80}"#, cut in 0usize..300, extra in "[\"\\\\x, :-]{0,6}") {
            let _ = NginxAccess::parse(&line);
            let cut = cut.min(RETRIED.len());
            let _ = NginxAccess::parse(&format!("{}{extra}{}", &RETRIED[..cut], &RETRIED[cut..]));
        }

        #[test]
        fn lists_have_as_many_attempts_as_tries(tries in 1usize..5, separator in prop_oneof![Just(", "), Just(" : ")]) {
            let join = |value: &str| vec![value; tries].join(separator);
            let line = format!(
                r#"10.0.0.1 - - [21/Nov/2026:04:41:58 +0000] "GET /a%20b HTTP/1.1" 200 5 "-" "curl/8" 90 0.010 [s-s-80] [] {} {} {} {} id-1 "shop.test" "{}" "{}" "7""#,
                join("10.0.0.2:80"), join("5"), join("0.004"), join("200"), join("0.001"), join("0.003")
            );
            let access = NginxAccess::parse(&line).unwrap();
            prop_assert_eq!(access.attempts.len(), tries);
            prop_assert_eq!(access.attempts[tries - 1].header_time, Some(Duration::from_millis(3)));
            prop_assert_eq!(access.request_id.as_deref(), Some("id-1"));
        }
    }
}
