//! Model to nginx.conf. Pure, so that a person can read what each Ingress becomes in a snapshot.
//!
//! It follows ingress-nginx' template (rootfs/etc/nginx/template/nginx.tmpl) wherever that shapes answers, with stock nginx' own
//! balancer in place of ingress-nginx' Lua one:
//! * `max_fails=0`: the Lua balancer knows no passive ejection, so a failing server stays in.
//! * Every server is written as often as a request may be tried. The Lua balancer asks for one more try after each failure
//!   (`set_more_tries(1)` in rootfs/etc/nginx/lua/balancer.lua), with a single endpoint too; stock nginx tries each server entry once.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    path::PathBuf,
};

use super::{KIND, access_log::LOG_FORMAT};
use crate::{
    EffectiveSettings,
    agent::Files,
    configuration::{digest, line, secret_file},
    model::{Backend, Certificate, ExternalName, Host, HostName, Model, PathMatch, Route, Target},
    settings::{BackendProtocol, RetryOn, duration, pattern, size},
};

/// Where things are, and what the binary can do.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Folder for configuration, sockets and temporary files.
    pub state: PathBuf,
    pub http_port: u16,
    pub https_port: u16,
    /// Major, minor, patch.
    pub version: (u64, u64, u64),
    /// Whether the master runs as root (of its user namespace), where nginx wants to be told which user its workers are.
    pub root: bool,
    /// Limit of open files of this process, for `worker_rlimit_nofile`.
    pub open_files: u64,
    /// The pod's name servers, for names that are looked up while requests are served.
    pub name_servers: Vec<IpAddr>,
}

impl Layout {
    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }
}

const HTTP2_DIRECTIVE: (u64, u64, u64) = (1, 25, 1);
pub(super) const CONF: &str = "nginx.conf";
pub(super) const GENERATION_CONF: &str = "generation.conf";

/// All files that nginx reads, by name in the state folder, but for [`GENERATION_CONF`].
pub fn render(model: &Model, layout: &Layout) -> Files {
    let fallback = Host { name: HostName::Any, routes: Vec::new(), certificate: None };
    let mut writer = Writer { model, layout, text: String::new(), files: Files::new(), upstreams: BTreeMap::new() };
    let needs_fallback = !model.hosts.iter().any(|host| host.name == HostName::Any);
    for host in model.hosts.iter().chain(needs_fallback.then_some(&fallback)) {
        writer.servers(host);
    }
    let servers = std::mem::take(&mut writer.text);
    writer.head();
    let upstreams = std::mem::take(&mut writer.upstreams);
    for (name, (backend, settings)) in &upstreams {
        writer.upstream(name, backend, settings);
    }
    writer.text.push_str(&servers);
    writer.text.push_str("}\n");
    let mut files = writer.files;
    files.insert(CONF.into(), writer.text);
    files
}

struct Writer<'a> {
    model: &'a Model,
    layout: &'a Layout,
    text: String,
    files: Files,
    upstreams: BTreeMap<String, (&'a Backend, &'a EffectiveSettings)>,
}

fn time(duration: std::time::Duration) -> String {
    duration::write(duration)
}

fn on_off(value: bool) -> &'static str {
    if value { "on" } else { "off" }
}

impl<'a> Writer<'a> {
    fn snippet(&mut self, indent: &str, text: Option<&str>) {
        for text_line in text.iter().flat_map(|text| text.lines()) {
            line!(self, "{indent}{text_line}");
        }
    }

    fn head(&mut self) {
        let (global, layout) = (&self.model.global, self.layout);
        let state = layout.state.display();
        line!(self, "daemon off;");
        if layout.root {
            line!(self, "user root;");
        }
        match global.workers {
            0 => line!(self, "worker_processes auto;"),
            workers => line!(self, "worker_processes {workers};"),
        }
        line!(self, "worker_rlimit_nofile {};", layout.open_files);
        // ingress-nginx: worker-shutdown-timeout
        line!(self, "worker_shutdown_timeout 240s;");
        line!(self, "pid {state}/nginx.pid;");
        line!(self, "error_log stderr notice;");
        self.snippet("", global.snippets.lines(KIND, "main"));
        line!(self, "events {{");
        line!(self, "    multi_accept on;");
        // ingress-nginx has 16384; every connection is allocated beforehand, and a lab has few
        line!(self, "    worker_connections {};", layout.open_files.min(4096));
        line!(self, "    use epoll;");
        line!(self, "}}");
        line!(self, "http {{");
        for name in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            line!(self, "    {name}_temp_path {state}/temporary/{name};");
        }
        line!(self, "    log_format upstreaminfo '{LOG_FORMAT}';");
        line!(self, "    access_log /proc/self/fd/1 upstreaminfo;");
        line!(self, "    default_type text/html;");
        line!(self, "    server_tokens off;");
        line!(self, "    tcp_nopush on;");
        line!(self, "    tcp_nodelay on;");
        line!(self, "    reset_timedout_connection on;");
        line!(self, "    keepalive_timeout {};", time(global.client_idle_timeout));
        line!(self, "    keepalive_requests 1000;");
        line!(self, "    client_header_timeout 60s;");
        line!(self, "    client_body_timeout 60s;");
        line!(self, "    client_header_buffer_size 1k;");
        line!(self, "    large_client_header_buffers 4 8k;");
        line!(self, "    client_body_buffer_size 8k;");
        line!(self, "    server_names_hash_bucket_size 128;");
        line!(self, "    map_hash_bucket_size 128;");
        // A request id from the client is kept, else one is made (ingress-nginx: generate-request-id)
        line!(self, "    map $http_x_request_id $req_id {{ default $http_x_request_id; \"\" $request_id; }}");
        // With a keepalive pool the header is dropped, otherwise it says close (ingress-nginx: $connection_upgrade)
        line!(self, "    map $http_upgrade $connection_upgrade {{ default upgrade; \"\" \"\"; }}");
        line!(self, "    map $http_upgrade $connection_upgrade_or_close {{ default upgrade; \"\" close; }}");
        line!(self, "    map $host $proxy_alternative_upstream_name {{ default \"\"; }}");
        line!(self, "    include {state}/{GENERATION_CONF};");
        self.snippet("    ", global.snippets.lines(KIND, "http"));
    }

    fn upstream(&mut self, name: &str, backend: &Backend, settings: &EffectiveSettings) {
        let tries = if settings.retry_on.is_empty() { 1 } else { settings.retry_tries.max(1) as usize };
        let failures = settings.passive_check_failures;
        // Failures are counted for each `server` line, so that with passive checks there is one for each endpoint
        let repeats = if failures > 0 { 1 } else { tries.div_ceil(backend.endpoints.len().max(1)) };
        line!(self, "    upstream {name} {{");
        let checks = match failures {
            0 => "max_fails=0".to_owned(),
            _ => {
                // One count for all workers, as NGINX Ingress Controller has it (upstream-zone-size)
                line!(self, "        zone {name} 256k;");
                format!("max_fails={failures} fail_timeout={}s", settings.passive_check_ejection.as_millis().div_ceil(1000))
            }
        };
        for _ in 0..repeats {
            for endpoint in &backend.endpoints {
                line!(self, "        server {endpoint} {checks};");
            }
        }
        if settings.keepalive_connections > 0 {
            line!(self, "        keepalive {};", settings.keepalive_connections);
            // nginx 1.19.10
            if self.layout.version >= (1, 19, 10) && !settings.keepalive_time.is_zero() {
                line!(self, "        keepalive_time {};", time(settings.keepalive_time));
            }
            line!(self, "        keepalive_timeout {};", time(settings.idle_timeout));
            if settings.keepalive_requests > 0 {
                line!(self, "        keepalive_requests {};", settings.keepalive_requests);
            }
        }
        self.snippet("        ", settings.snippets.lines(KIND, "upstream"));
        line!(self, "    }}");
    }

    fn servers(&mut self, host: &'a Host) {
        self.server(host, None);
        match &host.certificate {
            Some(certificate) => self.server(host, Some(certificate)),
            // ingress-nginx answers unknown names with a made-up certificate; without one the handshake is refused (nginx 1.19.4)
            None if host.name == HostName::Any && self.layout.version >= (1, 19, 4) => {
                line!(self, "    server {{");
                line!(
                    self,
                    "        listen {} ssl{} default_server reuseport backlog=4096;",
                    self.layout.https_port,
                    self.http2_parameter()
                );
                self.http2_directive();
                line!(self, "        ssl_reject_handshake on;");
                line!(self, "    }}");
            }
            None => {}
        }
    }

    fn server(&mut self, host: &'a Host, certificate: Option<&Certificate>) {
        let (port, scheme) = match certificate {
            Some(_) => (self.layout.https_port, format!(" ssl{}", self.http2_parameter())),
            None => (self.layout.http_port, String::new()),
        };
        let default = if host.name == HostName::Any { " default_server reuseport backlog=4096" } else { "" };
        line!(self, "    server {{");
        line!(self, "        listen {port}{scheme}{default};");
        if certificate.is_some() {
            self.http2_directive();
        }
        match &host.name {
            HostName::Exact(name) => line!(self, "        server_name {name};"),
            // One label, as the Kubernetes API wants it; nginx' own wildcards stand for any number
            HostName::Wildcard(rest) => line!(self, "        server_name \"~^[A-Za-z0-9_-]+\\.{}$\";", rest.replace('.', "\\.")),
            HostName::Any => line!(self, "        server_name _;"),
        }
        if let Some(certificate) = certificate {
            let chain = secret_file(&mut self.files, &self.layout.state, "crt", &certificate.chain);
            let key = secret_file(&mut self.files, &self.layout.state, "key", &certificate.key);
            line!(self, "        ssl_certificate {};", chain.display());
            line!(self, "        ssl_certificate_key {};", key.display());
            line!(self, "        ssl_protocols TLSv1.2 TLSv1.3;");
        }
        line!(self, "        set $proxy_upstream_name \"\";");
        let settings = host.routes.first().map_or(&self.model.global, |route| &route.settings);
        self.snippet("        ", settings.snippets.lines(KIND, "server"));
        for (location, route) in locations(&host.routes) {
            self.location(&location, route, certificate.is_some());
        }
        if !host.routes.iter().any(|route| route.path == "/" && route.matching != PathMatch::Exact) {
            // ingress-nginx' default backend
            line!(self, "        location / {{ return 404; }}");
        }
        line!(self, "    }}");
    }

    /// ingress-nginx: use-http2, for TLS only. nginx 1.25.1 made a directive of the parameter.
    fn http2_parameter(&self) -> &'static str {
        if self.layout.version < HTTP2_DIRECTIVE { " http2" } else { "" }
    }

    fn http2_directive(&mut self) {
        if self.layout.version >= HTTP2_DIRECTIVE {
            line!(self, "        http2 on;");
        }
    }

    fn location(&mut self, location: &str, route: &'a Route, encrypted: bool) {
        let settings = &route.settings;
        line!(self, "        location {location} {{");
        let (Target::Backend(name) | Target::Unresolved(name)) = &route.target;
        line!(self, "            set $proxy_upstream_name \"{name}\";");
        if route.redirect_to_https && !encrypted {
            // ingress-nginx: http-redirect-code
            line!(self, "            return 308 https://$host$request_uri;");
        } else if let Some(backend) = self.model.backends.get(name).filter(|backend| !backend.is_empty()) {
            match &backend.external {
                Some(external) => self.external(route, external),
                None => {
                    let upstream = self.upstream_name(backend, settings);
                    self.proxy(route, &upstream, settings.keepalive_connections > 0);
                }
            }
        } else {
            // No endpoints, no such Service or no such port: the Lua balancer finds no backend and ends with 503
            line!(self, "            return 503;");
        }
        line!(self, "        }}");
    }

    /// One `upstream` for each backend, and another for each different setting of its connection pool.
    fn upstream_name(&mut self, backend: &'a Backend, settings: &'a EffectiveSettings) -> String {
        fn pool(settings: &EffectiveSettings) -> impl PartialEq + std::fmt::Debug {
            (
                settings.keepalive_connections,
                settings.keepalive_requests,
                settings.keepalive_time,
                settings.idle_timeout,
                (settings.passive_check_failures, settings.passive_check_ejection),
                if settings.retry_on.is_empty() { 1 } else { settings.retry_tries },
                settings.snippets.lines(KIND, "upstream").map(str::to_owned),
            )
        }
        let name = if pool(settings) == pool(&self.model.global) {
            backend.name.clone()
        } else {
            format!("{}-{}", backend.name, &digest(&format!("{:?}", pool(settings)))[..8])
        };
        self.upstreams.insert(name.clone(), (backend, settings));
        name
    }

    /// A name in a variable is looked up for each request, by nginx' own resolver; it has no pool of connections.
    fn external(&mut self, route: &Route, external: &ExternalName) {
        let settings = &route.settings;
        let servers: Vec<String> = self.layout.name_servers.iter().map(ToString::to_string).collect();
        // Without one nginx answers 502, "no resolver defined"
        if !servers.is_empty() {
            // `valid` takes whole seconds
            let valid = settings.dns_valid.as_millis().div_ceil(1000).max(1);
            line!(self, "            resolver {} valid={valid}s ipv6=off;", servers.join(" "));
        }
        line!(self, "            resolver_timeout {};", time(settings.dns_timeout));
        line!(self, "            set $external_name \"{}:{}\";", external.name, external.port);
        self.proxy(route, "$external_name", false);
    }

    fn proxy(&mut self, route: &Route, upstream: &str, pooled: bool) {
        let settings = &route.settings;
        let (module, scheme) = match settings.backend_protocol {
            BackendProtocol::Http => ("proxy", "http"),
            BackendProtocol::Https => ("proxy", "https"),
            BackendProtocol::Grpc | BackendProtocol::H2c => ("grpc", "grpc"),
            BackendProtocol::Grpcs => ("grpc", "grpcs"),
        };
        let http = module == "proxy";
        let indent = "            ";
        // ingress-nginx: $location.Allowlist
        if !settings.allow_sources.is_empty() {
            for network in &settings.allow_sources {
                line!(self, "{indent}allow {network};");
            }
            line!(self, "{indent}deny all;");
        }
        // buildProxyPass() in ingress-nginx' template.go: the URI that fits becomes the target, whole
        if let Some(target) = settings.rewrite_target.as_ref().filter(|target| target.as_str() != route.path) {
            line!(self, "{indent}rewrite \"(?i){}\" {} break;", pattern(&route.path), target.as_str());
        }
        line!(self, "{indent}client_max_body_size {};", size::write(settings.request_body_limit));
        if http {
            line!(self, "{indent}proxy_http_version 1.1;");
            let connection = if pooled { "$connection_upgrade" } else { "$connection_upgrade_or_close" };
            line!(self, "{indent}proxy_set_header Upgrade $http_upgrade;");
            line!(self, "{indent}proxy_set_header Connection {connection};");
        }
        for (header, value) in [
            ("Host", "$http_host"),
            ("X-Request-ID", "$req_id"),
            ("X-Real-IP", "$remote_addr"),
            ("X-Forwarded-For", "$remote_addr"),
            ("X-Forwarded-Host", "$http_host"),
            ("X-Forwarded-Port", "$server_port"),
            ("X-Forwarded-Proto", "$scheme"),
            ("X-Forwarded-Scheme", "$scheme"),
            ("X-Scheme", "$scheme"),
        ] {
            line!(self, "{indent}{module}_set_header {header} {value};");
        }
        line!(self, "{indent}{module}_connect_timeout {};", time(settings.connect_timeout));
        line!(self, "{indent}{module}_read_timeout {};", time(settings.read_timeout));
        line!(self, "{indent}{module}_send_timeout {};", time(settings.send_timeout));
        line!(self, "{indent}{module}_buffer_size {};", size::write(settings.response_header_buffer));
        if http {
            line!(self, "{indent}proxy_buffering {};", on_off(settings.response_buffering));
            line!(self, "{indent}proxy_buffers {} {};", settings.buffer_count.max(2), size::write(settings.response_header_buffer));
            line!(self, "{indent}proxy_request_buffering {};", on_off(settings.request_buffering));
        }
        line!(self, "{indent}{module}_next_upstream {};", next_upstream(settings));
        line!(self, "{indent}{module}_next_upstream_timeout {};", time(settings.retry_timeout));
        line!(self, "{indent}{module}_next_upstream_tries {};", settings.retry_tries);
        if scheme.ends_with('s') {
            self.upstream_tls(module, route, indent);
        }
        self.snippet(indent, settings.snippets.lines(KIND, "location"));
        line!(self, "{indent}{module}_pass {scheme}://{upstream};");
        if http {
            line!(self, "{indent}proxy_redirect off;");
        }
    }

    fn upstream_tls(&mut self, module: &str, route: &Route, indent: &str) {
        let settings = &route.settings;
        line!(self, "{indent}{module}_ssl_verify {};", on_off(settings.tls_verify));
        if settings.tls_verify {
            let ca = match &route.ca {
                Some(pem) => secret_file(&mut self.files, &self.layout.state, "ca", pem),
                None => "/etc/ssl/certs/ca-certificates.crt".into(),
            };
            line!(self, "{indent}{module}_ssl_trusted_certificate {};", ca.display());
            line!(self, "{indent}{module}_ssl_verify_depth 5;");
        }
        if let Some(name) = &settings.tls_name {
            line!(self, "{indent}{module}_ssl_name \"{}\";", name.replace(['"', '\\', '\n'], ""));
            line!(self, "{indent}{module}_ssl_server_name on;");
        }
    }
}

fn next_upstream(settings: &EffectiveSettings) -> String {
    let reasons = reasons(&settings.retry_on);
    // Without a reason there is no second try of any request
    if settings.retry_non_idempotent && !settings.retry_on.is_empty() { format!("{reasons} non_idempotent") } else { reasons }
}

/// Value of `proxy_next_upstream`, but for `non_idempotent`.
pub(crate) fn reasons(retry_on: &[RetryOn]) -> String {
    if retry_on.is_empty() {
        return "off".to_owned();
    }
    let mut words: Vec<&str> = Vec::new();
    for reason in retry_on {
        let word = match reason {
            RetryOn::Error | RetryOn::ConnectFailure => "error",
            RetryOn::Timeout => "timeout",
            RetryOn::InvalidHeader => "invalid_header",
            RetryOn::Http403 => "http_403",
            RetryOn::Http404 => "http_404",
            RetryOn::Http429 => "http_429",
            RetryOn::Http500 => "http_500",
            RetryOn::Http502 => "http_502",
            RetryOn::Http503 => "http_503",
            RetryOn::Http504 => "http_504",
        };
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words.join(" ")
}

/// nginx locations for a host's routes. nginx takes an exact location before the longest prefix, as the Kubernetes API wants it. An
/// element-wise prefix becomes an exact location and a prefix with a slash, unless an exact route claims that location already.
fn locations(routes: &[Route]) -> Vec<(String, &Route)> {
    let mut taken = BTreeSet::new();
    let mut locations = Vec::new();
    let mut add = |location: String, route| {
        if taken.insert(location.clone()) {
            locations.push((location, route));
        }
    };
    for route in routes.iter().filter(|route| route.matching == PathMatch::Exact) {
        add(format!("= {}", route.path), route);
    }
    for route in routes.iter().filter(|route| route.matching == PathMatch::Prefix) {
        if route.path == "/" {
            add("/".to_owned(), route);
        } else {
            add(format!("= {}", route.path), route);
            add(format!("{}/", route.path), route);
        }
    }
    for route in routes.iter().filter(|route| route.matching == PathMatch::TextPrefix) {
        add(route.path.clone(), route);
    }
    locations
}
