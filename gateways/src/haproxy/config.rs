//! Model to haproxy.cfg. Pure, so that a person can read what each Ingress becomes in a snapshot.
//!
//! It follows HAProxy Ingress' template (rootfs/etc/templates/haproxy/haproxy.tmpl) wherever that shapes answers: timeouts, redispatch,
//! the TCP health check of every server, 404 for what is not routed. Hosts and paths are matched by rules in place of its map files.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use super::{
    KIND,
    access_log::LOG_FORMAT,
    servers::{FREE_SLOTS, NOWHERE},
};
use crate::{
    agent::Files,
    configuration::{digest, line, secret_file},
    model::{Backend, Host, HostName, Model, PathMatch, Route, Target},
    settings::{BackendProtocol, RetryOn, pattern},
};

/// Where things are.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Folder for configuration and sockets.
    pub state: PathBuf,
    pub http_port: u16,
    pub https_port: u16,
    /// Limit of open files of this process: HAProxy refuses to start with a `maxconn` that it has no file descriptors for.
    pub open_files: u64,
    /// The pod's name servers, for names that are looked up while requests are served.
    pub name_servers: Vec<IpAddr>,
    /// Target of `log`.
    pub log: String,
}

pub(super) const CONF: &str = "haproxy.cfg";
pub(super) const ADMIN_SOCKET: &str = "admin.sock";
const RESOLVERS: &str = "kubernetes";
const CERTIFICATES: &str = "tls/certificates.list";

/// All files that HAProxy reads, by name in the state folder.
pub fn render(model: &Model, layout: &Layout) -> Files {
    let mut writer = Writer { model, layout, text: String::new(), files: Files::new(), backends: BTreeMap::new() };
    let mut rules = String::new();
    for host in &model.hosts {
        writer.rules(host, &mut rules);
    }
    writer.head();
    if model.backends.values().any(|backend| backend.external.is_some()) {
        writer.resolvers();
    }
    writer.frontends(&rules);
    let backends = std::mem::take(&mut writer.backends);
    for (name, body) in &backends {
        line!(writer, "backend {name}");
        writer.text.push_str(body);
    }
    line!(writer, "backend _error404");
    line!(
        writer,
        "    http-request return status 404 content-type text/html lf-string \"<html><body><h1>404 Not Found</h1></body></html>\\n\""
    );
    let mut files = writer.files;
    files.insert(CONF.into(), writer.text);
    files
}

struct Writer<'a> {
    model: &'a Model,
    layout: &'a Layout,
    text: String,
    files: Files,
    /// Body by name.
    backends: BTreeMap<String, String>,
}

fn time(duration: Duration) -> String {
    format!("{}ms", duration.as_millis())
}

impl<'a> Writer<'a> {
    fn head(&mut self) {
        let (global, layout) = (&self.model.global, self.layout);
        // HAProxy Ingress has 2000; each takes two descriptors, and some are needed besides
        let connections = (layout.open_files.saturating_sub(100) * 2 / 5).clamp(50, 2000);
        line!(self, "global");
        line!(self, "    log {} len 8192 format raw local0", layout.log);
        // The new worker takes the listening sockets over from the old one through this socket, so that none is ever closed
        line!(self, "    stats socket {} mode 600 level admin expose-fd listeners", layout.state.join(ADMIN_SOCKET).display());
        line!(self, "    maxconn {connections}");
        // timeout-stop
        line!(self, "    hard-stop-after 10m");
        if global.workers > 0 {
            line!(self, "    nbthread {}", global.workers);
        }
        line!(self, "    tune.bufsize {}", global.response_header_buffer.clamp(2048, 1 << 24));
        line!(self, "    ssl-default-bind-options no-sslv3 no-tlsv10 no-tlsv11 no-tls-tickets");
        // Since 2.6 HAProxy's own HTTP client, for Lua and OCSP, reads the system's certificates at each start and reload, whether it is
        // used or not: four fifths of the CPU time of a start
        line!(self, ".if version_atleast(2.6)");
        line!(self, "    httpclient.ssl.verify none");
        line!(self, ".endif");
        self.snippet(global.snippets.lines(KIND, "global"));
        line!(self, "defaults");
        line!(self, "    log global");
        line!(self, "    mode http");
        line!(self, "    maxconn {connections}");
        line!(self, "    option redispatch");
        line!(self, "    option dontlognull");
        line!(self, "    option http-keep-alive");
        line!(self, "    option forwardfor");
        line!(self, "    timeout client {}", time(Duration::from_secs(50)));
        line!(self, "    timeout client-fin {}", time(Duration::from_secs(50)));
        line!(self, "    timeout connect {}", time(global.connect_timeout));
        line!(self, "    timeout http-keep-alive {}", time(global.client_idle_timeout));
        line!(self, "    timeout http-request {}", time(Duration::from_secs(5)));
        line!(self, "    timeout queue {}", time(Duration::from_secs(5)));
        line!(self, "    timeout server {}", time(global.read_timeout));
        line!(self, "    timeout server-fin {}", time(Duration::from_secs(50)));
        line!(self, "    timeout tunnel {}", time(global.tunnel_timeout));
        self.snippet(global.snippets.lines(KIND, "defaults"));
    }

    /// As HAProxy Ingress writes it for `dns-resolvers`.
    fn resolvers(&mut self) {
        let global = &self.model.global;
        line!(self, "resolvers {RESOLVERS}");
        for (index, server) in self.layout.name_servers.iter().enumerate() {
            let address = SocketAddr::new(*server, 53);
            line!(self, "    nameserver dns{index} {address}");
        }
        line!(self, "    accepted_payload_size 8192");
        line!(self, "    hold obsolete 0s");
        line!(self, "    hold valid {}", time(global.dns_valid));
        line!(self, "    timeout resolve {}", time(global.dns_timeout));
        line!(self, "    timeout retry {}", time(global.dns_timeout));
    }

    fn snippet(&mut self, text: Option<&str>) {
        for text_line in text.iter().flat_map(|text| text.lines()) {
            line!(self, "    {text_line}");
        }
    }

    fn frontends(&mut self, rules: &str) {
        let layout = self.layout;
        let certificates = self.certificates();
        for (name, bind) in [
            ("http", format!(":{}", layout.http_port)),
            // With strict-sni no certificate is needed to start, and a handshake for a name that has none is refused
            ("https", format!(":{} ssl strict-sni alpn h2,http/1.1 crt-list {}", layout.https_port, certificates.display())),
        ] {
            line!(self, "frontend {name}");
            line!(self, "    bind {bind}");
            line!(self, "    log-format \"{}\"", LOG_FORMAT.replace('"', "\\\""));
            line!(self, "    http-request set-header X-Request-ID %[uuid()] unless {{ req.hdr(X-Request-ID) -m found }}");
            line!(self, "    http-request set-var(txn.request_id) req.hdr(X-Request-ID)");
            line!(self, "    http-request set-var(txn.host) req.hdr(Host)");
            line!(self, "    http-request set-var(txn.name) req.hdr(Host),field(1,:),lower");
            line!(self, "    http-request set-header X-Forwarded-Proto {name}");
            if name == "http" {
                self.redirects();
            }
            self.text.push_str(rules);
            line!(self, "    default_backend _error404");
        }
    }

    fn redirects(&mut self) {
        let model = self.model;
        for host in &model.hosts {
            for route in host.routes.iter().filter(|route| route.redirect_to_https) {
                for path in paths(route) {
                    line!(self, "    http-request redirect scheme https code 302 if {} {path}", name_rule(&host.name));
                }
            }
        }
    }

    /// `crt-list` file: one certificate a line, with the name that it is for.
    fn certificates(&mut self) -> PathBuf {
        let mut list = String::new();
        for host in &self.model.hosts {
            let Some(certificate) = &host.certificate else { continue };
            let pem = format!("{}\n{}\n", certificate.chain.trim_end(), certificate.key.trim_end());
            let name = match &host.name {
                HostName::Exact(name) => name.clone(),
                HostName::Wildcard(rest) => format!("*.{rest}"),
                HostName::Any => "*".to_owned(),
            };
            let file = secret_file(&mut self.files, &self.layout.state, "pem", &pem);
            let _ = writeln!(list, "{} {name}", file.display());
        }
        self.files.insert(CERTIFICATES.into(), list);
        self.layout.state.join(CERTIFICATES)
    }

    /// Rules of one host, the most exact first: HAProxy takes the first that applies.
    fn rules(&mut self, host: &'a Host, rules: &mut String) {
        let name = name_rule(&host.name);
        let mut routes: Vec<&Route> = host.routes.iter().collect();
        routes.sort_by_key(|route| (route.matching != PathMatch::Exact, std::cmp::Reverse(route.path.len())));
        for route in routes {
            // Without such a Service or port HAProxy Ingress leaves the path out
            let Target::Backend(key) = &route.target else { continue };
            let Some(backend) = self.model.backends.get(key) else { continue };
            let target = self.backend(backend, route);
            for path in paths(route) {
                let _ = writeln!(rules, "    use_backend {target} if {name} {path}");
            }
        }
        if host.name != HostName::Any {
            // A host's request that none of its paths is for is not for the host of all names either
            let _ = writeln!(rules, "    use_backend _error404 if {name}");
        }
    }

    /// The name of the backend that a route needs: one for each port of a Service, and others where a route has settings of its own.
    fn backend(&mut self, backend: &Backend, route: &Route) -> String {
        let body = self.backend_body(backend, route);
        let known = self.backends.get(&backend.name);
        let name = if known.is_none_or(|known| *known == body) {
            backend.name.clone()
        } else {
            format!("{}-{}", backend.name, &digest(&body)[..8])
        };
        self.backends.insert(name.clone(), body);
        name
    }

    fn backend_body(&mut self, backend: &Backend, route: &Route) -> String {
        let settings = &route.settings;
        let mut body = String::new();
        let mut add = |text: &str| {
            body.push_str("    ");
            body.push_str(text);
            body.push('\n');
        };
        add("balance roundrobin");
        add(&format!("timeout connect {}", time(settings.connect_timeout)));
        add(&format!("timeout server {}", time(settings.read_timeout)));
        if settings.tunnel_timeout != self.model.global.tunnel_timeout {
            add(&format!("timeout tunnel {}", time(settings.tunnel_timeout)));
        }
        // HAProxy Ingress sets neither: HAProxy's own defaults are `safe` and 3
        add(if settings.keepalive_connections == 0 { "http-reuse never" } else { "http-reuse safe" });
        let retries = if settings.retry_on.is_empty() { 0 } else { settings.retry_tries.saturating_sub(1) };
        add(&format!("retries {retries}"));
        let reasons = retry_on(&settings.retry_on);
        if retries > 0 && reasons != "conn-failure" {
            add(&format!("retry-on {reasons}"));
            if !settings.retry_non_idempotent {
                add("http-request disable-l7-retry if { method POST PATCH LOCK }");
            }
        }
        if settings.request_body_limit > 0 {
            add(&format!("http-request deny deny_status 413 if {{ req.hdr_val(content-length) gt {} }}", settings.request_body_limit));
        }
        if !settings.allow_sources.is_empty() {
            let networks: Vec<String> = settings.allow_sources.iter().map(ToString::to_string).collect();
            add(&format!("http-request deny if !{{ src {} }}", networks.join(" ")));
        }
        for text_line in settings.snippets.lines(KIND, "backend").into_iter().flat_map(str::lines) {
            add(text_line);
        }
        if let Some(target) = &settings.rewrite_target {
            let (path, target) = (pattern(&route.path).replace('\\', "\\\\"), target.as_str());
            add(&match target {
                "/" => format!("http-request replace-path ^{path}/?(.*)$ /\\1"),
                _ => format!("http-request replace-path ^{path}(.*)$ {target}\\1"),
            });
        }
        // health-check-interval: 2s
        let mut options = format!("check inter 2s weight 1 pool-purge-delay {}", time(settings.idle_timeout));
        if settings.passive_check_failures > 0 {
            // The next health check, due at any moment, and then one each 2s: a server is back after so many that it passed (TCP checks,
            // which say nothing about answers)
            let rise = 1 + settings.passive_check_ejection.as_millis().div_ceil(2000);
            let _ = write!(options, " observe layer7 error-limit {} on-error mark-down rise {rise}", settings.passive_check_failures);
        }
        if settings.keepalive_requests > 0 {
            let _ = write!(options, " max-reuse {}", settings.keepalive_requests);
        }
        match settings.backend_protocol {
            BackendProtocol::Http => {}
            BackendProtocol::H2c | BackendProtocol::Grpc => options.push_str(" proto h2"),
            BackendProtocol::Https => options.push_str(" ssl"),
            BackendProtocol::Grpcs => options.push_str(" ssl alpn h2"),
        }
        if options.contains(" ssl") {
            self.upstream_tls(route, &mut options);
        }
        if let Some(external) = &backend.external {
            let name = format!("{}:{}", external.name, external.port);
            // Without an address until DNS has given one: a name that cannot be resolved must not keep HAProxy from starting
            add(&format!("server srv001 {name} {options} resolvers {RESOLVERS} resolve-prefer ipv4 init-addr none"));
            return body;
        }
        let mut slot = 0;
        let mut server = |address: &dyn std::fmt::Display, state: &str| {
            slot += 1;
            add(&format!("server srv{slot:03} {address} {options}{state}"));
        };
        for endpoint in &backend.endpoints {
            server(endpoint, "");
        }
        for _ in 0..FREE_SLOTS {
            server(&NOWHERE, " disabled");
        }
        body
    }

    fn upstream_tls(&mut self, route: &Route, options: &mut String) {
        let settings = &route.settings;
        if settings.tls_verify {
            let ca = match &route.ca {
                Some(pem) => secret_file(&mut self.files, &self.layout.state, "ca", pem),
                None => "/etc/ssl/certs/ca-certificates.crt".into(),
            };
            let _ = write!(options, " verify required ca-file {}", ca.display());
        } else {
            options.push_str(" verify none");
        }
        if let Some(name) = settings.tls_name.as_ref().filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)))
        {
            let _ = write!(options, " sni str({name})");
            if settings.tls_verify {
                let _ = write!(options, " verifyhost {name}");
            }
        }
    }
}

/// The condition for a request's host name; none for all names.
fn name_rule(name: &HostName) -> String {
    match name {
        HostName::Exact(name) => format!("{{ var(txn.name) -m str {name} }}"),
        // One label, as the Kubernetes API wants it
        HostName::Wildcard(rest) => format!("{{ var(txn.name) -m reg ^[^.]+\\\\.{}$ }}", rest.replace('.', "\\\\.")),
        HostName::Any => String::new(),
    }
}

/// The conditions for a request's path, any of which is enough.
fn paths(route: &Route) -> Vec<String> {
    let path = &route.path;
    match route.matching {
        _ if path == "/" && route.matching != PathMatch::Exact => vec!["{ path -m beg / }".to_owned()],
        PathMatch::Exact => vec![format!("{{ path -m str \"{path}\" }}")],
        PathMatch::Prefix => vec![format!("{{ path -m str \"{path}\" }}"), format!("{{ path -m beg \"{path}/\" }}")],
        PathMatch::TextPrefix => vec![format!("{{ path -m beg \"{path}\" }}")],
    }
}

/// Words of `retry-on`. HAProxy knows no 429 there.
fn retry_on(reasons: &[RetryOn]) -> String {
    let mut words: Vec<&str> = Vec::new();
    for reason in reasons {
        let meaning: &[&str] = match reason {
            RetryOn::ConnectFailure => &["conn-failure"],
            RetryOn::Error => &["conn-failure", "empty-response"],
            RetryOn::Timeout => &["conn-failure", "response-timeout"],
            RetryOn::InvalidHeader => &["junk-response"],
            RetryOn::Http403 => &["403"],
            RetryOn::Http404 => &["404"],
            RetryOn::Http429 => &[],
            RetryOn::Http500 => &["500"],
            RetryOn::Http502 => &["502"],
            RetryOn::Http503 => &["503"],
            RetryOn::Http504 => &["504"],
        };
        for word in meaning {
            if !words.contains(word) {
                words.push(word);
            }
        }
    }
    if words.is_empty() { "none".to_owned() } else { words.join(" ") }
}
