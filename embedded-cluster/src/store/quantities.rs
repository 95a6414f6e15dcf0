//! Amounts (`resource.Quantity`) in their canonical form, as kube-apiserver writes them whatever the client wrote:
//! `0.5` is `500m`, `1024Mi` is `1Gi`.

use serde_json::Value;

/// 10^9: amounts are kept in billionths, the finest that Kubernetes knows.
const NANO: i128 = 1_000_000_000;
const BINARY: [(&str, i128); 6] = [("Ei", 1 << 60), ("Pi", 1 << 50), ("Ti", 1 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20), ("Ki", 1 << 10)];
/// Suffix and how many billionths it stands for, the largest first.
const DECIMAL: [(&str, i128); 10] = [
    ("E", NANO * 1_000_000_000_000_000_000),
    ("P", NANO * 1_000_000_000_000_000),
    ("T", NANO * 1_000_000_000_000),
    ("G", NANO * 1_000_000_000),
    ("M", NANO * 1_000_000),
    ("k", NANO * 1_000),
    ("", NANO),
    ("m", 1_000_000),
    ("u", 1_000),
    ("n", 1),
];

/// In billionths; `None` for what is no amount, or one too large to be told exactly.
pub(crate) fn amount(text: &str) -> Option<i128> {
    read(text).map(|amount| if amount.negative { -amount.nanos } else { amount.nanos })
}

struct Amount<'a> {
    negative: bool,
    nanos: i128,
    suffix: &'a str,
}

fn read(text: &str) -> Option<Amount<'_>> {
    let end = text.find(|c: char| !matches!(c, '0'..='9' | '+' | '-' | '.')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (negative, digits) = match number.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let mantissa: i128 = digits.parse().ok()?;
    let scale = tens(fraction.len())?;
    let binary = BINARY.iter().find(|(name, _)| *name == suffix);
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty());
    let unit = match (binary, exponent) {
        (Some((_, factor)), _) => factor.checked_mul(NANO)?,
        (None, Some(exponent)) => {
            let exponent: i32 = exponent.parse().ok()?;
            let factor = tens(usize::try_from(exponent.unsigned_abs()).ok()?)?;
            if exponent < 0 { NANO / factor } else { factor.checked_mul(NANO)? }
        }
        (None, None) => DECIMAL.iter().find(|(name, _)| *name == suffix)?.1,
    };
    // Rounded up, as Kubernetes does with what is finer than a billionth.
    let amount = mantissa.checked_mul(unit)?;
    Some(Amount { negative, nanos: (amount + scale - 1) / scale, suffix })
}

fn tens(exponent: usize) -> Option<i128> {
    10_i128.checked_pow(u32::try_from(exponent).ok()?)
}

/// The canonical form; `None` as of [`amount`].
pub(crate) fn canonical(text: &str) -> Option<String> {
    let Amount { negative, nanos, suffix } = read(text)?;
    let binary = BINARY.iter().find(|(name, _)| *name == suffix);
    let exponent = suffix.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty());
    if nanos == 0 {
        return Some("0".to_owned());
    }
    let sign = if negative { "-" } else { "" };
    if exponent.is_some() {
        // The exponent form stays one, in steps of a thousand.
        let (power, unit) = (-3_i32..=6).rev().map(|step| 3 * step).find_map(|power| {
            let unit = tens(usize::try_from(9 + power).ok()?)?;
            (nanos % unit == 0).then_some((power, unit))
        })?;
        return Some(if power == 0 { format!("{sign}{}", nanos / unit) } else { format!("{sign}{}e{power}", nanos / unit) });
    }
    Some(format!("{sign}{}", with_suffix(nanos, binary.is_some())))
}

/// Not negative.
fn with_suffix(nanos: i128, binary: bool) -> String {
    // Binary suffixes are for whole bytes of at least one KiB; smaller amounts are told in the decimal form.
    if binary && nanos % NANO == 0 && nanos / NANO >= 1024 {
        let bytes = nanos / NANO;
        let (suffix, factor) = BINARY.iter().find(|(_, factor)| bytes % factor == 0).copied().unwrap_or(("", 1));
        return format!("{}{suffix}", bytes / factor);
    }
    let (suffix, factor) = DECIMAL.iter().find(|(_, factor)| nanos % factor == 0).copied().unwrap_or(("n", 1));
    format!("{}{suffix}", nanos / factor)
}

/// An amount that is added to others: the sum is told in the form of the first that is not zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub nanos: i128,
    binary: bool,
}

impl Sum {
    pub fn count(number: usize) -> Self {
        Self { nanos: i128::try_from(number).unwrap_or(i128::MAX / NANO) * NANO, binary: false }
    }

    pub fn of(value: &Value) -> Option<Self> {
        let read = read(value.as_str()?)?;
        let nanos = if read.negative { -read.nanos } else { read.nanos };
        Some(Self { nanos, binary: BINARY.iter().any(|(name, _)| *name == read.suffix) })
    }

    pub fn plus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_add(other.nanos), binary: if self.nanos == 0 { other.binary } else { self.binary } }
    }

    /// Kubernetes' result is not negative either.
    pub fn minus(self, other: Self) -> Self {
        Self { nanos: self.nanos.saturating_sub(other.nanos).max(0), ..self }
    }
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.nanos {
            0 => f.write_str("0"),
            nanos => f.write_str(&with_suffix(nanos, self.binary)),
        }
    }
}

/// Rewrites the amounts in a field that maps resource names to quantities, if it is there.
pub(super) fn canonicalize(object: &mut Value, field: &str) {
    let amounts = object.get_mut(field).and_then(Value::as_object_mut);
    for amount in amounts.into_iter().flat_map(|map| map.values_mut()) {
        let text = match &*amount {
            Value::String(text) => text.clone(),
            Value::Number(number) => number.to_string(),
            _ => continue,
        };
        if let Some(canonical) = canonical(&text) {
            *amount = canonical.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_told_in_the_form_of_its_first_amount() {
        let of = |text: &str| Sum::of(&Value::from(text)).unwrap();
        assert_eq!(Sum::count(0).plus(of("512Mi")).plus(of("512Mi")).to_string(), "1Gi");
        assert_eq!(of("100m").plus(of("1")).to_string(), "1100m");
        assert_eq!(of("1").minus(of("2")).to_string(), "0");
    }

    // What `resource.MustParse(text).String()` says.
    #[rstest::rstest]
    #[case("0.5", "500m")]
    #[case("500m", "500m")]
    #[case("1000m", "1")]
    #[case("1024Mi", "1Gi")]
    #[case("1.5Gi", "1536Mi")]
    #[case("1000", "1k")]
    #[case("2048", "2048")]
    #[case("1024", "1024")]
    #[case("100000Ki", "100000Ki")]
    #[case("0", "0")]
    #[case("0Mi", "0")]
    #[case("0.1", "100m")]
    #[case("1e3", "1e3")]
    #[case("12e6", "12e6")]
    #[case("1e-3", "1e-3")]
    #[case("100e3", "100e3")]
    #[case("1E", "1E")]
    #[case("-1.5", "-1500m")]
    #[case("128974848", "128974848")]
    #[case("0.5Ki", "512")]
    #[case("10M", "10M")]
    #[case("1000M", "1G")]
    fn amounts_are_told_as_kubernetes_does(#[case] given: &str, #[case] expected: &str) {
        assert_eq!(canonical(given).as_deref(), Some(expected));
    }

    #[test]
    fn what_is_no_amount_is_left_alone() {
        for text in ["", "m", "1 Gi", "one", "1.2.3", "1Zi", "--1", "99999999999999999999999999999999999999999"] {
            assert_eq!(canonical(text), None, "{text}");
        }
    }
}
