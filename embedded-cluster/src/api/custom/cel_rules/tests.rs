//! Rules held against objects: what kube-apiserver says of the same.

use serde_json::{Value, json};

use super::*;

fn root(spec: Value) -> Value {
    json!({"type": "object", "properties": {"spec": spec}})
}

fn all_types() -> Value {
    json!({"type": "object", "properties": {
        "int": {"type": "integer"}, "number": {"type": "number"}, "text": {"type": "string"}, "flag": {"type": "boolean"},
        "port": {"x-kubernetes-int-or-string": true}, "when": {"type": "string", "format": "date-time"},
        "day": {"type": "string", "format": "date"}, "pause": {"type": "string", "format": "duration"},
        "bytes": {"type": "string", "format": "byte"}, "nothing": {"type": "string", "nullable": true},
        "list": {"type": "array", "items": {"type": "integer"}}, "texts": {"type": "array", "items": {"type": "string"}},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "named": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "items": {"type": "object", "properties": {"name": {"type": "string"}, "size": {"type": "integer"}}}},
        "map": {"type": "object", "additionalProperties": {"type": "string"}},
        "namespace": {"type": "string"}, "a-b": {"type": "string"}, "a.b": {"type": "string"}, "a/b": {"type": "string"},
        "a__b": {"type": "string"}, "object": {"type": "object", "properties": {"a": {"type": "string"}}}
    }})
}

fn with_rule(mut schema: Value, rule: Value) -> Value {
    schema["x-kubernetes-validations"] = json!([rule]);
    schema
}

fn findings(schema: &Value, object: &Value, old: Option<&Value>) -> (Vec<String>, Vec<String>) {
    let found = evaluate(&Rules::default(), schema, object, old);
    (found.errors.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect(), found.warnings)
}

/// What a rule on `spec` says of it.
fn said(rule: &str, spec: Value) -> Vec<String> {
    let schema = root(with_rule(all_types(), json!({"rule": rule})));
    let refused = refused(&schema);
    assert!(refused.is_empty(), "{rule}: {refused:?}");
    findings(&schema, &json!({"spec": spec}), None).0
}

fn definition(schema: &Value) -> Value {
    json!({"spec": {"versions": [{"schema": {"openAPIV3Schema": schema}}]}})
}

fn refused(schema: &Value) -> Vec<String> {
    definition_mistakes(&definition(schema)).0.into_iter().map(|error| format!("{}: {}", error.field, error.message)).collect()
}

fn spec() -> Value {
    json!({"int": 3, "number": 2, "text": "abc", "flag": true, "port": "http", "when": "2026-01-02T03:04:05Z", "day": "2026-01-02",
        "pause": "1h30m", "bytes": "aGk=", "nothing": null, "list": [1, 2, 3], "texts": ["a", "b"], "set": ["a", "b"],
        "named": [{"name": "x", "size": 1}, {"name": "y", "size": 2}], "map": {"k-1": "v"}, "namespace": "n", "a-b": "dash", "a.b": "dot",
        "a/b": "slash", "a__b": "underscores", "object": {"a": "x"}})
}

#[rstest::rstest]
// Types
#[case("self.int == 3 && self.int / 2 == 1")]
#[case("self.number / 4.0 == 0.5 && type(self.number) == double")]
#[case("type(self.port) == string ? self.port == 'http' : self.port == 80")]
#[case("self.when > timestamp('2026-01-01T00:00:00Z') && self.when.getFullYear() == 2026")]
#[case("self.day.getDate() == 2")]
#[case("self.pause == duration('90m') && self.pause > duration('1h')")]
#[case("self.bytes == b'hi'")]
#[case("has(self.nothing) && self.nothing == null")]
#[case("has(self.text) && !has(self.object.b) || true")]
#[case("self.map['k-1'] == 'v' && 'k-1' in self.map && self.map.all(k, k.startsWith('k'))")]
// Names
#[case("self.__namespace__ == 'n' && self.a__dash__b == 'dash' && self.a__dot__b == 'dot'")]
#[case("self.a__slash__b == 'slash' && self.a__underscores__b == 'underscores' && has(self.__namespace__)")]
// Macros
#[case("self.list.all(x, x > 0) && self.list.exists(x, x == 2) && self.list.exists_one(x, x == 2) && self.list.existsOne(x, x == 2)")]
#[case("self.list.map(x, x * 2) == [2, 4, 6] && self.list.filter(x, x > 1) == [2, 3] && self.list.map(x, x > 1, x) == [2, 3]")]
#[case("self.list.map(x, self.list.filter(y, y > x).size()) == [2, 1, 0]")]
// Sets and maps do not mind the order
#[case("self.set == ['b', 'a'] && (self.set + ['b', 'c']).size() == 3")]
#[case("(self.named + self.named).size() == 2 && self.named == self.named && (self.list + self.list).size() == 6")]
#[case("self.object == {'a': 'x'} && self.texts == ['a', 'b'] && ['a', 'b'] == self.texts")]
// Optional values
#[case("self.?text.orValue('x') == 'abc' && self.map[?'no'].orValue('x') == 'x' && self.?text.hasValue()")]
#[case("self.?text.optMap(t, t + 'd').orValue('') == 'abcd' && self.map[?'no'].optFlatMap(t, optional.of(t)) == optional.none()")]
// Texts
#[case("self.text.matches('^[a-c]+$') && matches(self.text, 'b') && !self.text.matches(r'^\\d$')")]
#[case("'a1b22'.find('[0-9]+') == '1' && 'a1b22'.findAll('[0-9]+') == ['1', '22'] && 'a1b22'.findAll('[0-9]+', 1) == ['1']")]
#[case("'a,b'.split(',') == ['a', 'b'] && ['a', 'b'].join('-') == 'a-b' && self.texts.join() == 'ab'")]
#[case("'aXa'.replace('a', 'bb') == 'bbXbb' && 'aXa'.replace('a', 'b', 1) == 'bXa' && ' a '.trim() == 'a' && 'abc'.substring(1) == 'bc'")]
#[case("'A'.lowerAscii() == 'a' && 'a'.upperAscii() == 'A' && 'abcb'.indexOf('b') == 1 && 'abcb'.lastIndexOf('b') == 3")]
#[case("'%d of %s'.format([self.int, self.text]) == '3 of abc' && 'abc'.charAt(1) == 'b' && strings.quote('a') == '\"a\"'")]
// Lists and sets
#[case("self.list.isSorted() && self.list.sum() == 6 && self.list.min() == 1 && self.list.max() == 3 && [1.5, 2.0].sum() == 3.5")]
#[case("self.list.indexOf(2) == 1 && self.list.lastIndexOf(9) == -1 && !['b', 'a'].isSorted() && [].sum() == 0")]
#[case("sets.contains(self.list, [1, 3]) && sets.equivalent([1, 1], [1]) && sets.intersects(self.list, [3, 4]) && !sets.contains([], [1])")]
// URLs
#[case("isURL('https://u@a.test:8/p?q=1&q=2') && url('https://u@a.test:8/p?q=1').getHost() == 'a.test:8' && !isURL('a b') && !isURL('x')")]
#[case(
    "url('https://[::1]:8/p').getHostname() == '::1' && url('https://a.test:8/p').getPort() == '8' && url('/a%20b').getEscapedPath() == '/a%20b'"
)]
#[case(
    "url('https://a/?q=1&q=a%20b').getQuery()['q'] == ['1', 'a b'] && url('https://a').getEscapedPath() == '' && url('https://a').getScheme() == 'https'"
)]
// Amounts
#[case(
    "quantity('500Mi').isLessThan(quantity('1Gi')) && quantity('1k').asInteger() == 1000 && !isQuantity('1x') && quantity('50m').sign() == 1"
)]
#[case(
    "quantity('1').add(quantity('500m')).compareTo(quantity('1.5')) == 0 && quantity('1').sub(1) == quantity('0') && !quantity('1m').isInteger()"
)]
#[case("quantity('1500m').asApproximateFloat() == 1.5 && quantity('2').isGreaterThan(quantity('1')) && isQuantity('1Ki')")]
// Addresses
#[case(
    "isIP('10.0.0.1') && !isIP('::ffff:1.2.3.4') && ip('::1').family() == 6 && ip('::1').isLoopback() && ip('10.0.0.1').isGlobalUnicast()"
)]
#[case("ip.isCanonical('::1') && !ip.isCanonical('0:0::1') && ip('0.0.0.0').isUnspecified() && string(ip('::1')) == '::1'")]
#[case("ip('224.0.0.1').isLinkLocalMulticast() && ip('169.254.0.1').isLinkLocalUnicast()")]
#[case("cidr('10.0.0.0/8').containsIP('10.1.1.1') && cidr('10.0.0.0/8').containsIP(ip('10.1.1.1')) && !isCIDR('10.0.0.0')")]
#[case(
    "cidr('10.0.0.0/8').containsCIDR('10.1.0.0/16') && cidr('10.1.2.3/8').masked() == cidr('10.0.0.0/8') && cidr('10.1.2.3/8').ip() == ip('10.1.2.3')"
)]
#[case(
    "cidr('10.0.0.0/8').prefixLength() == 8 && string(cidr('10.0.0.0/8')) == '10.0.0.0/8' && cidr('10.0.0.0/8').containsCIDR(cidr('10.0.0.0/8'))"
)]
fn what_holds_says_nothing_and_its_opposite_is_told(#[case] rule: &str) {
    assert_eq!(said(rule, spec()), [""; 0]);
    let opposite = format!("!({rule})");
    assert_eq!(said(&opposite, spec()), [format!("spec: Invalid value: \"object\": failed rule: {opposite}")]);
}

#[rstest::rstest]
#[case("self.map['no'] == ''", "no such key: no evaluating rule: self.map['no'] == ''")]
#[case("self.list[9] == 1", "index out of bounds: 9 evaluating rule: self.list[9] == 1")]
#[case("self.int / 0 == 1", "division by zero evaluating rule: self.int / 0 == 1")]
#[case(
    "self.port > 1",
    "'no such overload': call arguments did not match a supported operator, function or macro signature for rule: self.port > 1"
)]
fn errors_are_told_as_cel_go_does(#[case] rule: &str, #[case] detail: &str) {
    assert_eq!(said(rule, spec()), [format!("spec: Invalid value: \"object\": {detail}")]);
}

#[rstest::rstest]
#[case(json!({"rule": "false"}), "spec: Invalid value: \"object\": failed rule: false")]
#[case(json!({"rule": "false", "message": " no "}), "spec: Invalid value: \"object\": no")]
#[case(json!({"rule": "false", "message": "no", "messageExpression": "'text is ' + self.text"}), "spec: Invalid value: \"object\": text is abc")]
#[case(json!({"rule": "false", "message": "no", "messageExpression": "self.map['x']"}), "spec: Invalid value: \"object\": no")]
#[case(json!({"rule": "false", "message": "no", "messageExpression": "''"}), "spec: Invalid value: \"object\": no")]
#[case(json!({"rule": "false", "message": "no", "reason": "FieldValueForbidden"}), "spec: Forbidden: no")]
#[case(json!({"rule": "false", "message": "no", "reason": "FieldValueRequired", "fieldPath": ".text"}), "spec.text: Required value: no")]
#[case(json!({"rule": "false", "message": "no", "reason": "FieldValueDuplicate"}), "spec: Duplicate value: \"object\"")]
#[case(json!({"rule": "false", "message": "no", "fieldPath": ".object.a"}), "spec.object.a: Invalid value: \"object\": no")]
#[case(json!({"rule": "false", "message": "no", "fieldPath": ".map['a.b']"}), "spec.map[a.b]: Invalid value: \"object\": no")]
#[case(json!({"rule": "false", "message": "no", "fieldPath": "['a.b']"}), "spec.a.b: Invalid value: \"object\": no")]
fn reasons_messages_and_paths(#[case] rule: Value, #[case] expected: &str) {
    let schema = root(with_rule(all_types(), rule));
    assert_eq!(refused(&schema), [""; 0]);
    assert_eq!(findings(&schema, &json!({"spec": spec()}), None).0, [expected]);
}

#[test]
fn rules_stand_on_every_node() {
    let rule = |rule: &str| json!([{"rule": rule}]);
    let schema = json!({"type": "object", "x-kubernetes-validations": rule("self.metadata.name == self.kind && self.apiVersion == 'x/v1'"),
        "properties": {
            "list": {"type": "array", "items": {"type": "integer", "x-kubernetes-validations": rule("self > 0")}},
            "map": {"type": "object", "additionalProperties": {"type": "string", "x-kubernetes-validations": rule("self != ''")}},
            "port": {"x-kubernetes-int-or-string": true, "x-kubernetes-validations": rule("self != 0")},
            "some": {"type": "object", "properties": {"a": {"type": "string"}},
                "allOf": [{"x-kubernetes-validations": rule("has(self.a)"), "properties": {"a": {"x-kubernetes-validations": rule("self != 'x'")}}}]},
            "embedded": {"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-validations": rule("self.metadata.name != ''")}}});
    assert_eq!(refused(&schema), [""; 0]);
    let object = json!({"apiVersion": "x/v1", "kind": "K", "metadata": {"name": "n"}, "list": [1, 0], "map": {"a.b": "", "c": "d"}, "port": 0,
        "some": {}, "embedded": {"metadata": {"name": ""}}});
    assert_eq!(
        findings(&schema, &object, None).0,
        [
            "<nil>: Invalid value: \"object\": failed rule: self.metadata.name == self.kind && self.apiVersion == 'x/v1'",
            "list[1]: Invalid value: \"integer\": failed rule: self > 0",
            "map[a.b]: Invalid value: \"string\": failed rule: self != ''",
            "port: Invalid value: \"\": failed rule: self != 0",
            "some: Invalid value: \"object\": failed rule: has(self.a)",
            "embedded: Invalid value: \"object\": failed rule: self.metadata.name != ''",
        ]
    );
    let good = json!({"apiVersion": "x/v1", "kind": "n", "metadata": {"generateName": "n", "name": "n"}, "list": null, "some": {"a": "y"}});
    assert_eq!(findings(&schema, &good, None).0, [""; 0]);
    assert_eq!(
        findings(&schema, &json!({"apiVersion": "x/v1", "kind": "n", "metadata": {"name": "n"}, "some": {"a": "x"}}), None).0.len(),
        1
    );
    assert!(!Rules::default().are_in(&all_types()));
}

#[test]
fn transition_rules_want_something_to_compare_with() {
    let mut schema = root(all_types());
    let rule = json!([{"rule": "self == oldSelf", "message": "is immutable"}]);
    schema["properties"]["spec"]["properties"]["int"]["x-kubernetes-validations"] = rule.clone();
    schema["properties"]["spec"]["properties"]["named"]["items"]["properties"]["size"]["x-kubernetes-validations"] = rule;
    let object = |spec: Value| json!({"spec": spec});
    let named = |size: i64| object(json!({"named": [{"name": "z", "size": 9}, {"name": "y", "size": size}]}));
    let immutable = |path: &str| vec![format!("{path}: Invalid value: \"integer\": is immutable")];
    let old = object(spec());
    assert_eq!(findings(&schema, &object(json!({"int": 4})), None).0, [""; 0], "created");
    assert_eq!(findings(&schema, &object(json!({"int": 4})), Some(&object(json!({})))).0, [""; 0], "was not there");
    assert_eq!(findings(&schema, &object(json!({"int": 3})), Some(&old)).0, [""; 0]);
    assert_eq!(findings(&schema, &object(json!({"int": 4})), Some(&old)).0, immutable("spec.int"));
    assert_eq!(findings(&schema, &named(2), Some(&old)).0, [""; 0], "items are found by their keys");
    assert_eq!(findings(&schema, &named(3), Some(&old)).0, immutable("spec.named[1].size"));
    let rule = json!({"rule": "oldSelf.hasValue() ? oldSelf.value().int < self.int : self.int == 1", "optionalOldSelf": true});
    let schema = root(with_rule(all_types(), rule));
    assert_eq!(refused(&schema), [""; 0]);
    let judged = |int: i64, old: Option<&Value>| findings(&schema, &object(json!({"int": int})), old).0.len();
    assert_eq!([judged(1, None), judged(2, None), judged(4, Some(&old)), judged(3, Some(&old))], [0, 1, 0, 1]);
}

#[test]
fn what_was_broken_before_is_warned_of_only() {
    let schema = root(with_rule(all_types(), json!({"rule": "self.int < 3", "message": "too large"})));
    let (old, other) = (json!({"spec": {"int": 3}}), json!({"spec": {"int": 3, "text": "changed"}}));
    let broken = ["spec: Invalid value: \"object\": too large".to_owned()];
    assert_eq!(findings(&schema, &old, None), (broken.to_vec(), vec![]));
    assert_eq!(findings(&schema, &old, Some(&old)), (vec![], broken.to_vec()));
    assert_eq!(findings(&schema, &other, Some(&old)), (broken.to_vec(), vec![]));
}

#[rstest::rstest]
#[case("self.int >", "compilation failed: ERROR: <input>:1:")]
#[case("self.colour == 1", "compilation failed: ERROR: <input>:1:5: undefined field 'colour'\n | self.colour == 1\n | ....^")]
#[case("self.list.all(x, y > 1)", "undeclared reference to 'y' (in container '')")]
#[case("self.named.all(x, x.colour > 1)", "undefined field 'colour'")]
#[case("self.object.a.b == 1", "undefined field 'b'")]
#[case("paint(self.text)", "undeclared reference to 'paint' (in container '')")]
#[case("self.text.paint()", "undeclared reference to 'paint' (in container '')")]
#[case("self.text.matches('(')", "error parsing regexp")]
#[case("self.int + 1", "cel expression must evaluate to a bool")]
#[case("self.text", "cel expression must evaluate to a bool")]
#[case("Point{x: 1} == 1", "undeclared reference to 'Point'")]
#[case("", "Required value: rule is not specified")]
fn rules_that_do_not_compile_are_refused(#[case] rule: &str, #[case] why: &str) {
    let refused = refused(&root(with_rule(all_types(), json!({"rule": rule}))));
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert!(
        refused[0].starts_with("spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: ")
            && refused[0].contains(why),
        "{refused:?}"
    );
}

#[rstest::rstest]
#[case(json!({"rule": "true", "reason": "FieldValueOdd"}), "reason: Unsupported value: \"FieldValueOdd\"")]
#[case(json!({"rule": "true", "fieldPath": ".colour"}), "fieldPath: Invalid value: \".colour\": fieldPath must be a valid path")]
#[case(json!({"rule": "true", "message": "a\nb"}), "message: Invalid value: \"a\\nb\": message must not contain line breaks")]
#[case(json!({"rule": "true\n&& true"}), "message: Required value: message must be specified if rule contains line breaks")]
#[case(json!({"rule": "true", "messageExpression": "self.colour"}), "messageExpression compilation failed: ")]
fn rules_have_rules(#[case] rule: Value, #[case] why: &str) {
    let refused = refused(&root(with_rule(all_types(), rule)));
    assert!(refused.len() == 1 && refused[0].contains(why), "{refused:?}");
}

#[test]
fn what_is_not_evaluated_is_warned_of() {
    for rule in ["semver(self.text).major() == 1", "self.map.all(k, v, v != '')", "!format.dns1123Label().validate(self.text).hasValue()"] {
        let schema = root(with_rule(all_types(), json!({"rule": rule})));
        let (errors, warnings) = definition_mistakes(&definition(&schema));
        assert_eq!(errors, []);
        assert!(warnings.len() == 1 && warnings[0].contains("which this API server does not evaluate"), "{rule}: {warnings:?}");
        assert_eq!(findings(&schema, &json!({"spec": spec()}), None).0, [""; 0]);
    }
}

/// What would take for ever, all memory or the stack is refused instead.
#[test]
fn hostile_expressions_are_refused() {
    let deep = |open: &str, middle: &str, close: &str, times: usize| format!("{}{middle}{}", open.repeat(times), close.repeat(times));
    for rule in [
        deep("(", "true", ")", 8000),
        deep("[", "", "]", 8000),
        deep("!", "true", "", 16000),
        deep("-", "1", "", 16000) + " == 1",
        format!("self{} == 1", ".a".repeat(8000)),
        format!("1{} == 1", "+1".repeat(8000)),
        format!("true{}", "&&true".repeat(2500)),
        format!("{}true", "true ? true : ".repeat(1100)),
        format!("self.text{} == ''", ".trim()".repeat(2000)),
        "(".repeat(16000),
        "[{'a': ".repeat(2000),
        "'".repeat(16000),
        "\u{0}\u{ffff}\\".repeat(1000),
        "x".repeat(17000),
    ] {
        let refused = refused(&root(with_rule(all_types(), json!({"rule": rule}))));
        // A long chain of `&&` is balanced, and `!!` is nothing.
        let is_shallow = rule.starts_with("true&&") || rule.starts_with('!');
        assert!(refused.len() == 1 || is_shallow, "{}", rule.chars().take(20).collect::<String>());
    }
}

#[rstest::rstest]
#[case("[0,1,2,3,4,5,6,7,8,9]".to_owned(), 8)]
#[case("self.list".to_owned(), 20)]
fn endless_loops_end(#[case] list: String, #[case] times: usize) {
    let mut rule = "true".to_owned();
    for depth in 0..times {
        rule = format!("{list}.all(x{depth}, {rule})");
    }
    let said = said(&rule, json!({"list": (0..100).collect::<Vec<_>>()}));
    assert!(said.len() == 1 && said[0].contains("cost limit exceeded': no further validation rules will be run"), "{said:?}");
    let loops = list.clone();
    let mut rule = "1".to_owned();
    for depth in 0..times {
        rule = format!("{loops}.map(x{depth}, {rule})");
    }
    let said = self::said(&format!("{rule} != []"), json!({"list": (0..100).collect::<Vec<_>>()}));
    assert!(said.len() == 1 && said[0].contains("cost limit exceeded"), "{said:?}");
}

#[test]
fn what_doubles_ends() {
    let mut doubled = "[self.text]".to_owned();
    let mut tripled = "[1]".to_owned();
    for step in 0..40 {
        doubled = format!("{doubled}.map(x{step}, x{step} + x{step})");
        tripled = format!("{tripled}.map(x{step}, [x{step}, x{step}, x{step}])");
    }
    let quoted = format!("{}'\"'{} != ''", "strings.quote(".repeat(40), ")".repeat(40));
    let long = "x".repeat(100_000);
    for rule in [
        format!("{doubled} != []"),
        format!("{tripled} != []"),
        quoted,
        "self.text.replace('x', self.text) != ''".to_owned(),
        "self.text.split('').join(self.text) != ''".to_owned(),
        "'%.999f'.format([1.0]).replace('0', '%.999f').format(self.list.map(x, 1.0)) != ''".to_owned(),
        "sets.contains(self.texts, self.texts)".to_owned(),
    ] {
        let said = said(&rule, json!({"text": long, "list": [1], "texts": vec!["a"; 10_000]}));
        assert!(said.len() == 1 && said[0].contains("cost limit exceeded"), "{rule:.60}: {said:?}");
    }
    // An error does not hide behind what it stands beside.
    let said = said(&format!("{doubled} != [] || true"), json!({"text": long}));
    assert!(said.len() == 1 && said[0].contains("cost limit exceeded"), "{said:?}");
}

/// As deep as is allowed, on a stack as small as a server's threads have.
#[test]
fn the_deepest_rule_fits_a_worker() {
    let nested = format!("{}true{}", "self.list.exists(x, ".repeat(15), ")".repeat(15));
    let chain = format!("1{} > 0", "+1".repeat(90));
    for rule in [nested, chain, format!("{}true{}", "(".repeat(60), ")".repeat(60)), format!("{}true", "!self.flag ? false : ".repeat(60))]
    {
        let thread = std::thread::Builder::new().stack_size(1 << 20);
        thread.spawn(move || assert_eq!(said(&rule, json!({"list": [1], "flag": true})), [""; 0])).unwrap().join().unwrap();
    }
}
