//! Label selectors, as `metav1.LabelSelectorAsSelector` and `labels.SelectorFromSet` understand them.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

pub(crate) type Labels = BTreeMap<String, String>;

/// Equality of every pair. An empty selector matches everything; callers for whom it means nothing check first.
pub(crate) fn matches_map(selector: &Labels, labels: Option<&Labels>) -> bool {
    selector.iter().all(|(key, value)| labels.and_then(|l| l.get(key)) == Some(value))
}

/// `matchLabels` and `matchExpressions` together; an empty selector matches everything.
pub(crate) fn matches(selector: &LabelSelector, labels: Option<&Labels>) -> bool {
    let by_label = selector.match_labels.as_ref().is_none_or(|wanted| matches_map(wanted, labels));
    by_label
        && selector.match_expressions.iter().flatten().all(|requirement| {
            requirement_holds(
                &requirement.operator,
                requirement.values.as_deref().unwrap_or_default(),
                labels.and_then(|l| l.get(&requirement.key)),
            )
        })
}

/// One requirement of a label selector or a node selector term. `NotIn` and `DoesNotExist` hold for a missing label.
pub(crate) fn requirement_holds(operator: &str, values: &[String], label: Option<&String>) -> bool {
    let number = |text: &String| text.parse::<i64>().ok();
    match operator {
        "In" => label.is_some_and(|value| values.contains(value)),
        "NotIn" => label.is_none_or(|value| !values.contains(value)),
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        "Gt" => label.and_then(number) > values.first().and_then(number) && label.is_some(),
        "Lt" => matches!((label.and_then(number), values.first().and_then(number)), (Some(have), Some(limit)) if have < limit),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn a_map_selector_needs_every_pair() {
        let selector = labels(&[("app", "shop"), ("tier", "web")]);
        assert!(matches_map(&selector, Some(&labels(&[("app", "shop"), ("tier", "web"), ("x", "y")]))));
        assert!(!matches_map(&selector, Some(&labels(&[("app", "shop")]))));
        assert!(!matches_map(&selector, None));
    }

    #[test]
    fn expressions_treat_missing_labels_as_kubernetes_does() {
        let expression = |operator: &str, values: &[&str]| LabelSelector {
            match_expressions: Some(vec![LabelSelectorRequirement {
                key: "app".to_owned(),
                operator: operator.to_owned(),
                values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
            }]),
            ..LabelSelector::default()
        };
        let shop = labels(&[("app", "shop")]);
        for (operator, values, on_shop, on_nothing) in [
            ("In", vec!["shop", "cart"], true, false),
            ("In", vec!["cart"], false, false),
            ("NotIn", vec!["shop"], false, true),
            ("NotIn", vec!["cart"], true, true),
            ("Exists", vec![], true, false),
            ("DoesNotExist", vec![], false, true),
        ] {
            assert_eq!(matches(&expression(operator, &values), Some(&shop)), on_shop, "{operator} {values:?}");
            assert_eq!(matches(&expression(operator, &values), None), on_nothing, "{operator} {values:?} without labels");
        }
        assert!(matches(&LabelSelector::default(), None), "an empty selector matches everything");
    }

    #[test]
    fn numeric_operators_need_numbers() {
        let three = "3".to_owned();
        assert!(requirement_holds("Gt", &["2".to_owned()], Some(&three)));
        assert!(!requirement_holds("Gt", &["3".to_owned()], Some(&three)));
        assert!(requirement_holds("Lt", &["4".to_owned()], Some(&three)));
        assert!(!requirement_holds("Lt", &["4".to_owned()], Some(&"x".to_owned())));
    }
}
