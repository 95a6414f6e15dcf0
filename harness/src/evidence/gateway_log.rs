//! The gateway's log of a phase, each line read and joined to the request that it is about.

use gateways::GatewayKind;
use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::kubernetes::logs::LogLine;
use crate::signature::GatewayLine;

/// Reads all lines of one pod's log. The agent's own lines are left out: nothing that the lab itself says may meet an
/// expectation.
pub fn read(gateway: GatewayKind, lines: &[LogLine]) -> Vec<GatewayLine> {
    let own: Vec<&LogLine> = lines.iter().filter(|line| !line.text.starts_with(gateways::AGENT_PREFIX)).collect();
    let texts: Vec<gateways::LogLine> = own.iter().map(|line| gateways::LogLine { text: &line.text, at: line.at }).collect();
    own.iter()
        .zip(gateways::read_log(gateway, &texts))
        .map(|(line, read)| {
            let (record, request_id) = read.map_or((None, None), |read| (Some(read.record), read.request_id));
            GatewayLine { text: line.text.clone(), at: line.at, request_id: request_id.and_then(|id| id.parse().ok()), record }
        })
        .collect()
}

/// Request ids that lines of the access log carry.
pub fn logged_requests(lines: &[GatewayLine]) -> impl Iterator<Item = Uuid> {
    lines.iter().filter(|line| line.record.as_ref().is_some_and(|record| record.of_request)).filter_map(|line| line.request_id)
}

/// A little earlier than a phase began: the gateway's clock is the same, but log lines are dated by the container runtime.
pub fn just_before(start: Timestamp) -> Timestamp {
    start.checked_sub(SignedDuration::from_millis(5)).unwrap_or(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the access log of nginx, and one of its error log about the same connection.
    #[test]
    fn lines_are_read_dated_and_joined() {
        let id = "11111111-1111-4111-8111-111111111111";
        let at = Some("2026-11-21T04:00:01Z".parse().unwrap());
        let error = "2026/11/21 04:00:00 [error] 20#20: *7 upstream timed out (110: Connection timed out) while reading response header \
                     from upstream, client: 10.244.0.2, server: shop.test, request: \"GET / HTTP/1.1\", host: \"shop.test\"";
        let access = format!(
            "10.244.0.2 - - [21/Nov/2026:04:00:00 +0000] \"GET / HTTP/1.1\" 504 160 \"-\" \"gatelab-probe\" 120 1.000 [shop-shop-http] [] \
             10.244.1.2:8080 0 1.000 504 {id} \"shop.test\" \"0.001\" \"-\" \"7\""
        );
        let lines = [error.to_owned(), access, "start-up chatter".to_owned()].map(|text| LogLine { at, text });
        let read = read("nginx".parse().unwrap(), &lines);
        let ids: Vec<_> = read.iter().map(|line| line.request_id.map(|id| id.to_string())).collect();
        assert_eq!(ids, [Some(id.to_owned()), Some(id.to_owned()), None]);
        assert_eq!(read[2].record, None);
        assert_eq!(logged_requests(&read).count(), 1, "an error is no line of the access log");
    }

    #[test]
    fn what_the_agent_says_is_no_evidence() {
        let line = LogLine { at: None, text: "gateway-agent: 502 connect() failed".into() };
        assert!(read(GatewayKind::ALL[0], &[line]).is_empty());
    }
}
