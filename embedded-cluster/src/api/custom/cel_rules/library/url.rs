//! URLs (`library.URLs`): absolute ones, and absolute paths, as Go's `url.ParseRequestURI` reads them.

use std::collections::HashMap;

use cel::common::types::{CelBool, CelList, CelMap, CelMapKey, CelString, Type};
use cel::common::value::{StaticVal, Val};
use cel::{DeclarationError, Env, ExecutionError};
use http::Uri;

use super::{failed, opaque};

#[derive(Clone, Debug, PartialEq)]
struct Url {
    uri: Uri,
    /// As it was written: `Uri` makes `/` of none.
    path: String,
}

opaque!(Url, "kubernetes.URL");

pub(super) fn declare(env: &mut Env) -> Result<(), DeclarationError> {
    cel::add_overload!(env, fn url: (CelString) -> Result<Url>)?;
    cel::add_overload!(env, fn is_url: (CelString) -> CelBool, name = "isURL")?;
    cel::add_member_overload!(env, fn get_scheme: (Url) -> CelString)?;
    cel::add_member_overload!(env, fn get_host: (Url) -> CelString)?;
    cel::add_member_overload!(env, fn get_hostname: (Url) -> CelString)?;
    cel::add_member_overload!(env, fn get_port: (Url) -> CelString)?;
    cel::add_member_overload!(env, fn get_escaped_path: (Url) -> CelString)?;
    cel::add_member_overload!(env, fn get_query: (Url) -> CelMap)
}

fn parse(text: &str) -> Option<Url> {
    let uri: Uri = text.parse().ok()?;
    let after_scheme = text.split_once("://").map_or(text, |(_, rest)| rest);
    let path = if after_scheme.contains('/') { uri.path().to_owned() } else { String::new() };
    (uri.scheme().is_some() || text.starts_with('/')).then_some(Url { uri, path })
}

fn url(text: &CelString<'_>) -> Result<Url, ExecutionError> {
    let text = text.inner();
    parse(text)
        .ok_or_else(|| failed("url", format!("URL parse error during conversion from string: parse \"{text}\": invalid URI for request")))
}

fn is_url(text: &CelString<'_>) -> CelBool {
    parse(text.inner()).is_some().into()
}

fn get_scheme(url: &Url) -> CelString<'static> {
    CelString::from(url.uri.scheme_str().unwrap_or_default().to_owned())
}

/// Host and port.
fn get_host(url: &Url) -> CelString<'static> {
    let authority = url.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    CelString::from(host.to_owned())
}

fn get_hostname(url: &Url) -> CelString<'static> {
    let host = url.uri.host().unwrap_or_default();
    CelString::from(host.trim_start_matches('[').trim_end_matches(']').to_owned())
}

fn get_port(url: &Url) -> CelString<'static> {
    CelString::from(url.uri.port().map(|port| port.as_str().to_owned()).unwrap_or_default())
}

fn get_escaped_path(url: &Url) -> CelString<'static> {
    CelString::from(url.path.clone())
}

/// Names and their values, decoded.
fn get_query(url: &Url) -> CelMap<'static> {
    let mut lists: HashMap<String, Vec<Box<dyn Val>>> = HashMap::new();
    for pair in url.uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        lists.entry(decoded(name)).or_default().push(Box::new(CelString::from(decoded(value))));
    }
    let entries = lists.into_iter().map(|(name, values)| (CelMapKey::from(name), Box::new(CelList::from(values)) as Box<dyn Val>));
    CelMap::from(entries.collect::<HashMap<_, _>>())
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = bytes.get(at + 1..at + 3).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        match (bytes[at], code) {
            (b'%', Some(code)) => {
                plain.push(code);
                at += 2;
            }
            (b'+', _) => plain.push(b' '),
            (byte, _) => plain.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&plain).into_owned()
}
