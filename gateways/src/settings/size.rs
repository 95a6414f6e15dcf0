//! Sizes as nginx writes them: `4k`, `1m`, or plain bytes.

/// Reads bytes with an optional suffix `k` or `m` (powers of 1024, as nginx).
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let mistake = || format!("`{text}` is no size; write bytes, or a number with `k` or `m`, such as `4k`");
    let trimmed = text.trim();
    let (number, factor) = match trimmed.as_bytes().last() {
        Some(b'k' | b'K') => (&trimmed[..trimmed.len() - 1], 1024),
        Some(b'm' | b'M') => (&trimmed[..trimmed.len() - 1], 1024 * 1024),
        _ => (trimmed, 1),
    };
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(mistake());
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(factor)).ok_or_else(mistake)
}

/// Writes bytes so that [`parse`] and nginx read them.
pub(crate) fn write(bytes: u64) -> String {
    match bytes {
        0 => "0".to_owned(),
        bytes if bytes % (1024 * 1024) == 0 => format!("{}m", bytes / 1024 / 1024),
        bytes if bytes % 1024 == 0 => format!("{}k", bytes / 1024),
        bytes => bytes.to_string(),
    }
}

pub(super) mod optional {
    use serde::{Deserialize, Deserializer, Serializer, de};

    // serde's `with` fixes the signature.
    #[allow(clippy::ref_option)]
    pub fn serialize<S: Serializer>(value: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => serializer.serialize_str(&super::write(*bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| super::parse(&text).map_err(de::Error::custom)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_written() {
        for (text, bytes) in [("4k", 4096), ("1m", 1_048_576), ("1000", 1000), ("0", 0)] {
            assert_eq!(parse(text), Ok(bytes));
            assert_eq!(write(bytes), text);
        }
        for wrong in ["", "k", "4kb", "-1", "+4k", "99999999999999999999m", "18446744073709551615k"] {
            assert!(parse(wrong).is_err(), "{wrong} was read");
        }
    }
}
