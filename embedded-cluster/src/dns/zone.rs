//! What the cluster's names mean: the Kubernetes DNS specification (version 1.1.0) over Services, endpoints and
//! namespaces, without any I/O.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// Namespace and name.
pub(super) type ServiceKey = (String, String);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ServiceEntry {
    /// `None` for headless Services.
    pub(super) cluster_ip: Option<Ipv4Addr>,
    pub(super) external_name: Option<String>,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) name: String,
    /// Lower case: `tcp`, `udp`.
    pub(super) protocol: String,
    pub(super) number: u16,
}

/// One ready address of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EndpointEntry {
    pub(super) ip: Ipv4Addr,
    /// `spec.hostname` of its pod, or the address with dashes.
    pub(super) hostname: String,
    pub(super) ports: Vec<Port>,
}

/// Everything that answers are made from.
#[derive(Clone, Debug)]
pub(super) struct Zone {
    /// Labels of the cluster domain, such as `["cluster", "local"]`.
    pub(super) domain: Vec<String>,
    pub(super) namespaces: BTreeSet<String>,
    pub(super) services: BTreeMap<ServiceKey, ServiceEntry>,
    /// By Service and EndpointSlice.
    pub(super) endpoints: BTreeMap<ServiceKey, BTreeMap<String, Vec<EndpointEntry>>>,
}

/// What is asked for, as far as answers differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    A,
    Srv,
    Ptr,
    Cname,
    Soa,
    Ns,
    Txt,
    /// A type that no name here has.
    Other,
}

/// A record's name is the question's unless given. Names are written without the final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    A(Ipv4Addr),
    Cname(String),
    Srv { port: u16, weight: u16, target: String, address: Option<Ipv4Addr> },
    Ptr(String),
    Soa,
    Ns(String),
    Txt(&'static str),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The name exists; no records: NODATA.
    Found(Vec<Data>),
    NoSuchName,
    /// Not a name of this cluster.
    NotOurs,
}

impl Zone {
    pub(super) fn new(domain: &str) -> Self {
        Self {
            domain: domain.trim_matches('.').to_lowercase().split('.').map(str::to_owned).collect(),
            namespaces: BTreeSet::new(),
            services: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }

    pub(super) fn origin(&self) -> String {
        self.domain.join(".")
    }

    /// `labels` in lower case, the most specific first.
    pub(super) fn answer(&self, labels: &[&str], question: Question) -> Answer {
        if let [reversed @ .., "in-addr", "arpa"] = labels {
            return self.reverse(reversed, question);
        }
        let origin: Vec<&str> = self.domain.iter().map(String::as_str).collect();
        let Some(inner) = labels.strip_suffix(origin.as_slice()) else { return Answer::NotOurs };
        let namespace_exists = |namespace: &str| self.namespaces.contains(namespace);
        match inner {
            [] => match question {
                Question::Soa => Answer::Found(vec![Data::Soa]),
                Question::Ns => Answer::Found(vec![Data::Ns(format!("ns.dns.{}", self.origin()))]),
                _ => Answer::Found(Vec::new()),
            },
            ["dns-version"] => Answer::Found(if question == Question::Txt { vec![Data::Txt("1.1.0")] } else { Vec::new() }),
            // Names between the root of the zone and a Service exist, but have no records (RFC 8020).
            ["svc" | "pod"] => Answer::Found(Vec::new()),
            [namespace, "svc" | "pod"] => existing(namespace_exists(namespace)),
            [address, namespace, "pod"] => match dashed(address) {
                // As CoreDNS with `pods insecure`, kubeadm's choice: any address, in a namespace that exists.
                Some(ip) if namespace_exists(namespace) => only(question, Question::A, Data::A(ip)),
                _ => Answer::NoSuchName,
            },
            [rest @ .., name, namespace, "svc"] => self.service(rest, name, namespace, question),
            _ => Answer::NoSuchName,
        }
    }

    fn service(&self, rest: &[&str], name: &str, namespace: &str, question: Question) -> Answer {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(service) = self.services.get(&key) else { return Answer::NoSuchName };
        let own_name = format!("{name}.{namespace}.svc.{}", self.origin());
        if let Some(external) = &service.external_name {
            let asked_itself = rest.is_empty() && matches!(question, Question::A | Question::Cname | Question::Other);
            return if asked_itself { Answer::Found(vec![Data::Cname(external.clone())]) } else { Answer::NoSuchName };
        }
        match rest {
            [] => self.service_itself(&key, service, &own_name, question, |_| true),
            // `_http._tcp`: SRV of one port.
            [port, protocol] if port.starts_with('_') && protocol.starts_with('_') => {
                let (port, protocol) = (&port[1..], &protocol[1..]);
                self.service_itself(&key, service, &own_name, question, |p| p.name == port && p.protocol == protocol)
            }
            [host] if !host.starts_with('_') => {
                let of_host: Vec<&EndpointEntry> = self.endpoints_of(&key).filter(|e| e.hostname == *host).collect();
                if of_host.is_empty() {
                    return Answer::NoSuchName;
                }
                Answer::Found(match question {
                    Question::A => unique(of_host.iter().map(|e| Data::A(e.ip))),
                    Question::Srv => endpoint_srv(&of_host, &own_name, |_| true),
                    _ => Vec::new(),
                })
            }
            _ => Answer::NoSuchName,
        }
    }

    fn service_itself(
        &self,
        key: &ServiceKey,
        service: &ServiceEntry,
        own_name: &str,
        question: Question,
        wanted: impl Fn(&Port) -> bool,
    ) -> Answer {
        let Some(cluster_ip) = service.cluster_ip else {
            // Headless: the endpoints themselves; the specification wants NXDOMAIN when none is ready.
            let ready: Vec<&EndpointEntry> =
                self.endpoints_of(key).filter(|e| e.ports.iter().any(&wanted) || e.ports.is_empty() && service.ports.is_empty()).collect();
            if ready.is_empty() {
                return Answer::NoSuchName;
            }
            return Answer::Found(match question {
                Question::A => unique(ready.iter().map(|e| Data::A(e.ip))),
                Question::Srv => endpoint_srv(&ready, own_name, wanted),
                _ => Vec::new(),
            });
        };
        let ports: Vec<&Port> = service.ports.iter().filter(|port| wanted(port)).collect();
        if ports.is_empty() {
            return Answer::NoSuchName;
        }
        Answer::Found(match question {
            Question::A => vec![Data::A(cluster_ip)],
            Question::Srv => {
                let weight = weight(ports.len());
                ports
                    .iter()
                    .map(|port| Data::Srv { port: port.number, weight, target: own_name.to_owned(), address: Some(cluster_ip) })
                    .collect()
            }
            _ => Vec::new(),
        })
    }

    fn endpoints_of(&self, key: &ServiceKey) -> impl Iterator<Item = &EndpointEntry> {
        self.endpoints.get(key).into_iter().flat_map(BTreeMap::values).flatten()
    }

    fn reverse(&self, reversed: &[&str], question: Question) -> Answer {
        let forward: Vec<&str> = reversed.iter().rev().copied().collect();
        let Ok(ip) = forward.join(".").parse::<Ipv4Addr>() else { return Answer::NoSuchName };
        let origin = self.origin();
        let of_service = self.services.iter().find(|(_, service)| service.cluster_ip == Some(ip));
        let mut names: Vec<Data> =
            of_service.map(|((namespace, name), _)| Data::Ptr(format!("{name}.{namespace}.svc.{origin}"))).into_iter().collect();
        if names.is_empty() {
            for ((namespace, name), slices) in &self.endpoints {
                let hosts = slices.values().flatten().filter(|e| e.ip == ip);
                names.extend(hosts.map(|e| Data::Ptr(format!("{}.{name}.{namespace}.svc.{origin}", e.hostname))));
            }
        }
        match names.is_empty() {
            true => Answer::NoSuchName,
            false if question == Question::Ptr => Answer::Found(unique(names.into_iter())),
            false => Answer::Found(Vec::new()),
        }
    }
}

fn existing(exists: bool) -> Answer {
    if exists { Answer::Found(Vec::new()) } else { Answer::NoSuchName }
}

fn only(question: Question, having: Question, data: Data) -> Answer {
    Answer::Found(if question == having { vec![data] } else { Vec::new() })
}

fn unique(data: impl Iterator<Item = Data>) -> Vec<Data> {
    let mut kept: Vec<Data> = Vec::new();
    for data in data {
        if !kept.contains(&data) {
            kept.push(data);
        }
    }
    kept
}

fn endpoint_srv(endpoints: &[&EndpointEntry], own_name: &str, wanted: impl Fn(&Port) -> bool) -> Vec<Data> {
    let all: Vec<(&EndpointEntry, &Port)> =
        endpoints.iter().flat_map(|e| e.ports.iter().filter(|port| wanted(port)).map(move |port| (*e, port))).collect();
    let weight = weight(all.len());
    let record = |(e, port): &(&EndpointEntry, &Port)| Data::Srv {
        port: port.number,
        weight,
        target: format!("{}.{own_name}", e.hostname),
        address: Some(e.ip),
    };
    unique(all.iter().map(record))
}

/// CoreDNS shares a weight of 100 among the records.
fn weight(records: usize) -> u16 {
    u16::try_from(100 / records.max(1)).unwrap_or(1).max(1)
}

/// `10-244-0-5` as an address.
fn dashed(text: &str) -> Option<Ipv4Addr> {
    text.replace('-', ".").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, number: u16) -> Port {
        Port { name: name.to_owned(), protocol: "tcp".to_owned(), number }
    }

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 244, 0, last)
    }

    fn zone() -> Zone {
        let mut zone = Zone::new("cluster.local");
        zone.namespaces = ["shop".to_owned(), "empty".to_owned()].into();
        let key = |name: &str| ("shop".to_owned(), name.to_owned());
        let with = |cluster_ip: Option<Ipv4Addr>| ServiceEntry { cluster_ip, external_name: None, ports: vec![port("http", 80)] };
        zone.services.insert(key("web"), with(Some(Ipv4Addr::new(10, 96, 0, 5))));
        zone.services.insert(key("db"), with(None));
        zone.services.insert(key("idle"), with(None));
        zone.services.insert(key("away"), ServiceEntry { external_name: Some("example.test".to_owned()), ..ServiceEntry::default() });
        let endpoint =
            |last: u8, hostname: &str| EndpointEntry { ip: ip(last), hostname: hostname.to_owned(), ports: vec![port("http", 8080)] };
        zone.endpoints.insert(key("db"), [("db-1".to_owned(), vec![endpoint(2, "db-0"), endpoint(3, "10-244-0-3")])].into());
        zone.endpoints.insert(key("web"), [("web-1".to_owned(), vec![endpoint(9, "10-244-0-9")])].into());
        zone
    }

    fn ask(name: &str, question: Question) -> Answer {
        zone().answer(&name.split('.').collect::<Vec<_>>(), question)
    }

    #[test]
    fn services_with_an_address() {
        let address = Data::A(Ipv4Addr::new(10, 96, 0, 5));
        assert_eq!(ask("web.shop.svc.cluster.local", Question::A), Answer::Found(vec![address]));
        assert_eq!(ask("web.shop.svc.cluster.local", Question::Other), Answer::Found(vec![]), "AAAA: the name exists");
        let target = "web.shop.svc.cluster.local".to_owned();
        let srv = Data::Srv { port: 80, weight: 100, target, address: Some(Ipv4Addr::new(10, 96, 0, 5)) };
        assert_eq!(ask("_http._tcp.web.shop.svc.cluster.local", Question::Srv), Answer::Found(vec![srv]));
        assert_eq!(ask("_http._udp.web.shop.svc.cluster.local", Question::Srv), Answer::NoSuchName);
    }

    #[test]
    fn headless_services_are_their_ready_endpoints() {
        assert_eq!(ask("db.shop.svc.cluster.local", Question::A), Answer::Found(vec![Data::A(ip(2)), Data::A(ip(3))]));
        assert_eq!(ask("db-0.db.shop.svc.cluster.local", Question::A), Answer::Found(vec![Data::A(ip(2))]));
        assert_eq!(ask("10-244-0-3.db.shop.svc.cluster.local", Question::A), Answer::Found(vec![Data::A(ip(3))]));
        assert_eq!(ask("db-7.db.shop.svc.cluster.local", Question::A), Answer::NoSuchName);
        assert_eq!(ask("idle.shop.svc.cluster.local", Question::A), Answer::NoSuchName, "no ready endpoint");
        let Answer::Found(srv) = ask("db.shop.svc.cluster.local", Question::Srv) else { panic!("no SRV") };
        let target = "db-0.db.shop.svc.cluster.local".to_owned();
        assert_eq!(srv[0], Data::Srv { port: 8080, weight: 50, target, address: Some(ip(2)) });
    }

    #[test]
    fn names_that_do_not_exist_and_names_without_records_differ() {
        assert_eq!(ask("nothing.shop.svc.cluster.local", Question::A), Answer::NoSuchName);
        assert_eq!(ask("shop.svc.cluster.local", Question::A), Answer::Found(vec![]));
        assert_eq!(ask("nowhere.svc.cluster.local", Question::A), Answer::NoSuchName);
        assert_eq!(ask("svc.cluster.local", Question::A), Answer::Found(vec![]));
        assert_eq!(ask("web.cluster.local", Question::A), Answer::NoSuchName);
        assert_eq!(ask("example.test", Question::A), Answer::NotOurs);
        assert_eq!(ask("web.shop.svc.cluster.local.shop.svc.cluster.local", Question::A), Answer::NoSuchName, "a search list at work");
    }

    #[test]
    fn pods_by_address_in_existing_namespaces() {
        assert_eq!(ask("10-244-0-77.shop.pod.cluster.local", Question::A), Answer::Found(vec![Data::A(ip(77))]));
        assert_eq!(ask("10-244-0-77.nowhere.pod.cluster.local", Question::A), Answer::NoSuchName);
        assert_eq!(ask("not-an-ip.shop.pod.cluster.local", Question::A), Answer::NoSuchName);
    }

    #[test]
    fn external_names_and_reverse_lookups() {
        let cname = Answer::Found(vec![Data::Cname("example.test".to_owned())]);
        assert_eq!(ask("away.shop.svc.cluster.local", Question::A), cname);
        assert_eq!(ask("5.0.96.10.in-addr.arpa", Question::Ptr), Answer::Found(vec![Data::Ptr("web.shop.svc.cluster.local".to_owned())]));
        assert_eq!(
            ask("2.0.244.10.in-addr.arpa", Question::Ptr),
            Answer::Found(vec![Data::Ptr("db-0.db.shop.svc.cluster.local".to_owned())])
        );
        assert_eq!(ask("1.1.1.1.in-addr.arpa", Question::Ptr), Answer::NoSuchName);
    }
}
