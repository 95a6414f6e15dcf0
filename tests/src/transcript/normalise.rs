//! Takes out of kubectl's output what differs from run to run and from cluster to cluster: ages, times, addresses, uids,
//! random names, versions, sizes of machines.

/// Letters and digits of generated names (`k8s.io/apimachinery/pkg/util/rand`).
const SAFE: &str = "bcdfghjklmnpqrstvwxz2456789";
/// `d` is a digit, `A` a letter, the rest itself.
const TIMES: [(&str, &str); 3] =
    [("dddd-dd-ddTdd:dd:dd", "<time>"), ("AAA, dd AAA dddd dd:dd:dd +dddd", "<time>"), ("dddd-dd-dd dd:dd:dd +dddd UTC", "<time>")];
/// Lines of which only the key is told.
const VOLATILE_LINES: [&str; 18] = [
    "Resource Version:",
    "imageID:",
    "Image ID:",
    "memory.available",
    "ephemeral-storage.available",
    "resourceVersion:",
    "\"resourceVersion\":",
    "Machine ID:",
    "System UUID:",
    "Boot ID:",
    "Kernel Version:",
    "OS Image:",
    "Container Runtime Version:",
    "Kubelet Version:",
    "Kube-Proxy Version:",
    "cpu:",
    "memory:",
    "ephemeral-storage:",
];

pub struct Normaliser {
    nodes: Vec<String>,
}

impl Normaliser {
    /// `nodes`: names of the cluster's nodes.
    pub fn new(mut nodes: Vec<String>) -> Self {
        // The longest first: one may be the beginning of another.
        nodes.sort_by_key(|name| std::cmp::Reverse(name.len()));
        Self { nodes }
    }

    pub fn text(&self, text: &str) -> String {
        text.lines().map(|line| self.line(line) + "\n").collect()
    }

    fn line(&self, line: &str) -> String {
        let line = line.replace('\t', "  ");
        let indent = line.len() - line.trim_start().len();
        let body = line[indent..].trim_end();
        if let Some(key) = VOLATILE_LINES.iter().find(|key| body.starts_with(**key)) {
            return format!("{}{key} <volatile>", &line[..indent]);
        }
        let mut body = times(body);
        for node in &self.nodes {
            body = body.replace(node.as_str(), "<node>");
        }
        format!("{}{}", &line[..indent], uncounted(&columns(&words(&body))))
    }
}

/// Columns are as wide as their widest value, which is volatile as well.
fn columns(text: &str) -> String {
    let mut narrow = String::with_capacity(text.len());
    let mut spaces = 0;
    for character in text.chars() {
        if character == ' ' {
            spaces += 1;
            continue;
        }
        narrow.push_str(match spaces {
            0 => "",
            1 => " ",
            _ => "  ",
        });
        spaces = 0;
        narrow.push(character);
    }
    narrow
}

/// `<age> (x7 over <age>)`: how often something happened depends on how long one looks.
fn uncounted(text: &str) -> String {
    let Some((before, rest)) = text.split_once(" (x") else { return text.to_owned() };
    match rest.split_once(" over <age>)") {
        Some((count, after)) if count.bytes().all(|b| b.is_ascii_digit()) => format!("{before}{after}"),
        _ => text.to_owned(),
    }
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut characters = text.chars();
    pattern.chars().all(|wanted| match (wanted, characters.next()) {
        ('d', Some(c)) => c.is_ascii_digit(),
        ('A', Some(c)) => c.is_ascii_alphabetic(),
        (wanted, Some(c)) => wanted == c,
        (_, None) => false,
    })
}

fn times(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    'characters: while let Some(first) = rest.chars().next() {
        for (pattern, name) in TIMES {
            if matches(pattern, rest) {
                out.push_str(name);
                rest = &rest[pattern.len()..];
                // Fractions and the zone.
                rest = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
                rest = rest.strip_prefix('Z').unwrap_or(rest);
                continue 'characters;
            }
        }
        out.push(first);
        rest = &rest[first.len_utf8()..];
    }
    out
}

/// Replaces each word (letters, digits, `-`, `.`) that is volatile.
fn words(line: &str) -> String {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    let mut out = String::with_capacity(line.len());
    let mut word = String::new();
    for character in line.chars().chain(std::iter::once('\n')) {
        if is_part(character) {
            word.push(character);
            continue;
        }
        // A full stop after a word belongs to the sentence.
        let bare = word.trim_end_matches('.');
        out.push_str(&replaced(bare));
        out.push_str(&word[bare.len()..]);
        word.clear();
        if character != '\n' {
            out.push(character);
        }
    }
    out
}

fn replaced(word: &str) -> String {
    let is_hex = |text: &str, least: usize| text.len() >= least && text.chars().all(|c| c.is_ascii_hexdigit());
    let safe = |text: &str| text.chars().all(|c| SAFE.contains(c));
    let has_digit = |text: &str| text.chars().any(|c| c.is_ascii_digit());
    if word.len() == 36 && word.split('-').map(str::len).eq([8, 4, 4, 4, 12]) {
        return "<uid>".to_owned();
    }
    if word.split('.').count() == 4 && word.split('.').all(|part| part.parse::<u8>().is_ok()) && word != "0.0.0.0" {
        return "<ip>".to_owned();
    }
    if is_age(word) {
        return "<age>".to_owned();
    }
    if is_hex(word, 32) {
        return "<hex>".to_owned();
    }
    if word.starts_with('v') && word.matches('.').count() == 2 && word[1..].starts_with(|c: char| c.is_ascii_digit()) {
        return "<version>".to_owned();
    }
    if let Some(number) = word.strip_suffix("Ki")
        && number.parse::<u64>().is_ok()
    {
        return "<quantity>".to_owned();
    }
    if word.parse::<u32>().is_ok_and(|port| (30000..=65535).contains(&port)) {
        return "<port>".to_owned();
    }
    if let Some((name, hex)) = word.rsplit_once('.')
        && is_hex(hex, 14)
    {
        return format!("{}.<hex>", replaced(name));
    }
    if let Some(prefix) = word.strip_suffix('-') {
        return format!("{}-", replaced(prefix));
    }
    if let Some((rest, last)) = word.rsplit_once('-') {
        if last.len() == 5 && safe(last) {
            return format!("{}-<random>", replaced(rest));
        }
        if (8..=10).contains(&last.len()) && safe(last) && has_digit(last) {
            return format!("{rest}-<hash>");
        }
    }
    if (8..=10).contains(&word.len()) && safe(word) && has_digit(word) {
        return "<hash>".to_owned();
    }
    word.to_owned()
}

/// `5s`, `3m12s`, `2d`, `17ms`, `1.5s`.
fn is_age(word: &str) -> bool {
    let mut digits = false;
    let mut unit_seen = false;
    let mut rest = word;
    while let Some(first) = rest.chars().next() {
        if first.is_ascii_digit() || first == '.' && digits {
            digits = true;
            rest = &rest[1..];
            continue;
        }
        if !digits {
            return false;
        }
        let Some(unit) = ["ms", "y", "d", "h", "m", "s"].into_iter().find(|unit| rest.starts_with(unit)) else { return false };
        rest = &rest[unit.len()..];
        (digits, unit_seen) = (false, true);
    }
    unit_seen && !digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_from_run_to_run_is_taken_out() {
        let normaliser = Normaliser::new(vec!["node-0".to_owned(), "node-01".to_owned()]);
        for (line, expected) in [
            (
                "web-86f6b4b56d-fmbxp   1/1     Running   0          3m12s   10.244.1.2   node-01",
                "web-<hash>-<random>  1/1  Running  0  <age>  <ip>  <node>",
            ),
            ("Start Time:       Sat, 21 Nov 2026 07:32:33 +0000", "Start Time:  <time>"),
            ("Created on:   2026-11-21 07:32:33 +0000 UTC", "Created on:  <time>"),
            ("  uid: 148e2ddd-b66d-4ef9-8744-2c2077103959", "  uid: <uid>"),
            ("  creationTimestamp: \"2026-11-21T07:32:33Z\"", "  creationTimestamp: \"<time>\""),
            ("Controlled By:  ReplicaSet/web-86f6b4b56d", "Controlled By:  ReplicaSet/web-<hash>"),
            ("kubernetes   ClusterIP   10.96.0.1   <none>   443/TCP   5m", "kubernetes  ClusterIP  <ip>  <none>  443/TCP  <age>"),
            ("Liveness: http-get delay=0s", "Liveness: http-get delay=<age>"),
            ("kube-proxy default-scheduler http", "kube-proxy default-scheduler http"),
            ("  resourceVersion: \"1234\"", "  resourceVersion: <volatile>"),
            ("3s (x2 over 15s)  kubelet", "<age>  kubelet"),
            ("web.18a9f4c2b3d4e5f6", "web.<hex>"),
        ] {
            assert_eq!(normaliser.line(line), expected, "{line}");
        }
    }
}
