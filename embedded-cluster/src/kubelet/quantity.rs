//! Kubernetes quantities (`500m`, `128Mi`, `2`) as numbers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// What every node claims to have: the lab does not meter processors.
pub(super) const NODE_CPUS: f64 = 8.0;
/// Bytes.
pub(super) const NODE_MEMORY: f64 = 16.0 * 1024.0 * 1024.0 * 1024.0;

/// In the base unit: processors or bytes.
pub(super) fn value(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || matches!(c, '.' | '+' | '-'))).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().ok()?;
    let factor = match unit {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1_048_576.0,
        "Gi" => 1_073_741_824.0,
        "Ti" => 1_099_511_627_776.0,
        exponent => return format!("{number}{exponent}").parse().ok(),
    };
    Some(number * factor)
}

/// Whole bytes.
pub(super) fn bytes(quantity: &Quantity) -> Option<u64> {
    let value = value(quantity)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked to be a sensible number of bytes")]
    (1.0..1e18).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_understood() {
        let of = |text: &str| value(&Quantity(text.to_owned()));
        assert_eq!(of("500m"), Some(0.5));
        assert_eq!(of("128Mi"), Some(134_217_728.0));
        assert_eq!(of("1e3"), Some(1000.0));
        assert_eq!(of("2"), Some(2.0));
        assert_eq!(of("much"), None);
        assert_eq!(bytes(&Quantity("64Ki".to_owned())), Some(65_536));
        assert_eq!(bytes(&Quantity("0".to_owned())), None);
    }
}
