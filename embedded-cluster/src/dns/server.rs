//! Queries off the wire, answers onto it.

use std::time::Duration;

use hickory_proto::op::{Edns, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, CNAME, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio::net::{TcpListener, UdpSocket};

use super::follow::SharedZone;
use super::log;
use super::zone::{Answer, Data, Question};

/// An idle connection of a client that asks by TCP is closed after this (RFC 7766 leaves it to the server).
const TCP_IDLE: Duration = Duration::from_secs(10);
/// Responses that wait for a slow TCP client.
const TCP_QUEUE: usize = 32;
/// What CoreDNS advertises by EDNS (RFC 6891).
const MAX_UDP_PAYLOAD: u16 = 1232;

pub(super) struct Handler {
    zone: SharedZone,
    ttl: u32,
}

pub(super) fn start(udp: UdpSocket, tcp: TcpListener, zone: SharedZone, ttl: u32) -> Server<Handler> {
    let mut server = Server::new(Handler { zone, ttl });
    server.register_socket(udp);
    server.register_listener(tcp, TCP_IDLE, TCP_QUEUE);
    server
}

/// Records of an answer by section.
#[derive(Default)]
struct Sections {
    code: Option<ResponseCode>,
    answers: Vec<Record>,
    authority: Vec<Record>,
    additional: Vec<Record>,
}

#[async_trait::async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut response_handle: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let sections = match request.request_info() {
            Ok(info) if request.metadata.message_type == MessageType::Query && request.metadata.op_code == OpCode::Query => {
                let name: Name = info.query.original().name().clone();
                self.sections(&name, info.query.query_type()).await
            }
            Ok(_) => Sections { code: Some(ResponseCode::NotImp), ..Sections::default() },
            Err(_) => Sections { code: Some(ResponseCode::FormErr), ..Sections::default() },
        };
        metadata.response_code = sections.code.unwrap_or(ResponseCode::NoError);
        metadata.authoritative = matches!(metadata.response_code, ResponseCode::NoError | ResponseCode::NXDomain);
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_PAYLOAD);
        let asked_with_edns = request.edns.as_ref().map(|_| &edns);
        let response = MessageResponseBuilder::new(&request.queries, asked_with_edns).build(
            metadata,
            &sections.answers,
            &sections.authority,
            std::iter::empty(),
            &sections.additional,
        );
        match response_handle.send_response(response).await {
            Ok(info) => info,
            Err(error) => {
                log(&format!("[ERROR] plugin/errors: 2 {} {error}", request.src()));
                let mut failed = request.metadata;
                failed.response_code = ResponseCode::ServFail;
                ResponseInfo::from(hickory_proto::op::Header { metadata: failed, counts: hickory_proto::op::HeaderCounts::default() })
            }
        }
    }
}

impl Handler {
    async fn sections(&self, name: &Name, wanted: RecordType) -> Sections {
        let text = name.to_string().to_lowercase();
        let labels: Vec<&str> = text.trim_end_matches('.').split('.').filter(|label| !label.is_empty()).collect();
        let zone = self.zone.read().await;
        let origin = zone.origin();
        match zone.answer(&labels, question(wanted)) {
            Answer::Found(data) if data.is_empty() => Sections { authority: self.soa(&origin), ..Sections::default() },
            Answer::Found(data) => self.records(name, &origin, &data),
            Answer::NoSuchName => Sections { code: Some(ResponseCode::NXDomain), authority: self.soa(&origin), ..Sections::default() },
            Answer::NotOurs => {
                log(&format!("[ERROR] plugin/errors: 2 {text} {wanted}: no upstream: this lab resolves names of {origin} only"));
                Sections { code: Some(ResponseCode::Refused), ..Sections::default() }
            }
        }
    }

    fn records(&self, name: &Name, origin: &str, data: &[Data]) -> Sections {
        let mut sections = Sections::default();
        for data in data {
            let rdata = match data {
                Data::A(ip) => Some(RData::A(A(*ip))),
                Data::Cname(target) => parse(target).map(|target| RData::CNAME(CNAME(target))),
                Data::Srv { port, weight, target, address } => parse(target).map(|target| {
                    if let Some(address) = address {
                        let record = Record::from_rdata(target.clone(), self.ttl, RData::A(A(*address)));
                        if !sections.additional.contains(&record) {
                            sections.additional.push(record);
                        }
                    }
                    RData::SRV(SRV::new(0, *weight, *port, target))
                }),
                Data::Ptr(target) => parse(target).map(|target| RData::PTR(PTR(target))),
                Data::Ns(target) => parse(target).map(|target| RData::NS(NS(target))),
                Data::Txt(text) => Some(RData::TXT(TXT::new(vec![(*text).to_owned()]))),
                Data::Soa => {
                    sections.answers.extend(self.soa(origin));
                    None
                }
            };
            sections.answers.extend(rdata.map(|rdata| Record::from_rdata(name.clone(), self.ttl, rdata)));
        }
        sections
    }

    /// Says how long that a name does not exist may be remembered (RFC 2308).
    fn soa(&self, origin: &str) -> Vec<Record> {
        let names = (parse(origin), parse(&format!("ns.dns.{origin}")), parse(&format!("hostmaster.{origin}")));
        let (Some(origin), Some(server), Some(mailbox)) = names else { return Vec::new() };
        let serial = u32::try_from(jiff::Timestamp::now().as_second()).unwrap_or(1);
        let soa = SOA::new(server, mailbox, serial, 7200, 1800, 86400, self.ttl);
        vec![Record::from_rdata(origin, self.ttl, RData::SOA(soa))]
    }
}

fn parse(name: &str) -> Option<Name> {
    let mut name = Name::from_ascii(name).ok()?;
    name.set_fqdn(true);
    Some(name)
}

fn question(wanted: RecordType) -> Question {
    match wanted {
        RecordType::A | RecordType::ANY => Question::A,
        RecordType::SRV => Question::Srv,
        RecordType::PTR => Question::Ptr,
        RecordType::CNAME => Question::Cname,
        RecordType::SOA => Question::Soa,
        RecordType::NS => Question::Ns,
        RecordType::TXT => Question::Txt,
        _ => Question::Other,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use hickory_proto::op::{Message, Query};
    use hickory_proto::serialize::binary::{BinDecodable, BinEncodable};
    use tokio::sync::RwLock;

    use super::super::zone::{Port, ServiceEntry, Zone};
    use super::*;

    async fn serving() -> (SocketAddr, Server<Handler>) {
        let mut zone = Zone::new("cluster.local");
        zone.namespaces.insert("shop".to_owned());
        let ports = vec![Port { name: "http".to_owned(), protocol: "tcp".to_owned(), number: 80 }];
        let entry = ServiceEntry { cluster_ip: Some(Ipv4Addr::new(10, 96, 0, 5)), external_name: None, ports };
        zone.services.insert(("shop".to_owned(), "web".to_owned()), entry);
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let address = udp.local_addr().expect("an address");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        (address, start(udp, tcp, Arc::new(RwLock::new(zone)), 30))
    }

    async fn ask(server: SocketAddr, name: &str, wanted: RecordType) -> Message {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).expect("a name"), wanted));
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        socket.send_to(&query.to_bytes().expect("encoded"), server).await.expect("sent");
        let mut buffer = [0; 1500];
        let received = tokio::time::timeout(Duration::from_secs(20), socket.recv(&mut buffer)).await.expect("in time");
        Message::from_bytes(&buffer[..received.expect("received")]).expect("decoded")
    }

    #[tokio::test]
    async fn answers_over_udp_with_the_right_codes() {
        let (address, _server) = serving().await;
        let found = ask(address, "Web.Shop.svc.cluster.local.", RecordType::A).await;
        assert_eq!(found.metadata.response_code, ResponseCode::NoError);
        assert!(found.metadata.authoritative);
        assert_eq!(found.answers[0].data, RData::A(A(Ipv4Addr::new(10, 96, 0, 5))));
        let nodata = ask(address, "web.shop.svc.cluster.local.", RecordType::AAAA).await;
        assert_eq!((nodata.metadata.response_code, nodata.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(nodata.authorities[0].record_type(), RecordType::SOA);
        let missing = ask(address, "gone.shop.svc.cluster.local.", RecordType::A).await;
        assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
        assert_eq!(missing.authorities[0].record_type(), RecordType::SOA);
        let outside = ask(address, "example.test.", RecordType::A).await;
        assert_eq!((outside.metadata.response_code, outside.authorities.len()), (ResponseCode::Refused, 0));
    }
}
