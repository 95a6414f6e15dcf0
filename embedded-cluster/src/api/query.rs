//! Query strings: decoding and the typed reading of what Kubernetes' options hold.

use super::status::Refusal;

/// The parameters of one request, in order; a name may occur several times (`command=sh&command=-c`).
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub fn parse(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(&name.replace('+', " ")), decode(&value.replace('+', " ")))
        });
        Self(pairs.collect())
    }

    /// The first value of a parameter; an empty one counts as absent.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// As Go's conversion of query parameters: `true`, `1`; a name without value is true as well.
    pub fn flag(&self, name: &str) -> bool {
        self.0.iter().find(|(n, _)| n == name).is_some_and(|(_, v)| !matches!(v.as_str(), "false" | "0" | "False" | "FALSE"))
    }

    /// # Errors
    /// 400 when the value is no number of the wanted kind.
    pub fn number<N: std::str::FromStr>(&self, name: &str) -> Result<Option<N>, Refusal> {
        self.get(name)
            .map(|value| {
                value.parse().map_err(|_| {
                    Refusal::bad_request(format!("strconv.ParseInt: parsing \"{value}\": invalid syntax (query parameter {name})"))
                })
            })
            .transpose()
    }
}

/// Percent decoding (RFC 3986 section 2.1); what is no valid escape stays as it is.
pub(crate) fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        if let Some(decoded) = escaped {
            out.push(decoded);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_text_is_a_query(text in ".*") {
            let query = Query::parse(Some(&text));
            let _ = (query.get("a"), query.flag("watch"), query.number::<u64>("limit"));
        }

        #[test]
        fn what_is_encoded_is_decoded(text in ".*") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02x}")).collect();
            proptest::prop_assert_eq!(decode(&encoded), text);
        }
    }

    #[test]
    fn decodes_escapes_plus_and_repeated_names() {
        let query = Query::parse(Some("command=sh&command=-c&command=echo+a%20b&follow=true&bad=%zz&labelSelector=a%3Db%2Cc"));
        assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "echo a b"]);
        assert!(query.flag("follow"));
        assert!(!query.flag("previous"));
        assert_eq!(query.get("bad"), Some("%zz"));
        assert_eq!(query.get("labelSelector"), Some("a=b,c"));
        assert!(query.number::<u64>("follow").is_err());
    }
}
