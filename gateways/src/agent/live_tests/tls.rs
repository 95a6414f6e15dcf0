//! TLS on both sides of the real gateways.

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::*;

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "a test's authority");
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn issue(&self, name: &str) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        (CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, &self.0).unwrap(), key)
    }
}

fn secret(name: &str, data: &[(&str, String)]) -> String {
    let data: Vec<String> = data.iter().map(|(key, value)| format!("{key}: {}", STANDARD.encode(value))).collect();
    format!(
        "\n---\napiVersion: v1\nkind: Secret\nmetadata: {{ name: {name}, namespace: shop, resourceVersion: \"9\" }}\ndata: {{ {} }}\n",
        data.join(", ")
    )
}

/// Answers 200 over TLS, until the test ends.
async fn tls_server(certificate: (rcgen::Certificate, KeyPair)) -> u16 {
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certificate.1.serialize_der()));
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.0.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret").await;
                }
            });
        }
    });
    port
}

/// `GET /` over TLS, trusting one certificate only.
async fn https(port: u16, host: &'static str, authority: CertificateDer<'static>) -> std::io::Result<String> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority).unwrap();
    let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(host).unwrap(), stream).await?;
    stream.write_all(format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    // A peer that closes without close_notify has said all it wanted to say
    let _ = stream.read_to_string(&mut answer).await;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_speak_tls_to_a_host_with_a_certificate() {
    for kind in configured() {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let authority = Authority::new();
        let (certificate, key) = authority.issue("shop.test");
        let objects = shop(ok_server("inside"), "")
            .replace("  rules:\n", "  tls: [{ hosts: [shop.test], secretName: shop-tls }]\n  rules:\n")
            + &secret("shop-tls", &[("tls.crt", certificate.pem()), ("tls.key", key.serialize_pem())]);
        bench.apply_objects(&objects).await.unwrap();
        let answer = https(bench.https_port, "shop.test", authority.0.der().clone()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("inside"), "{kind}: {answer}");
        assert!(https(bench.https_port, "other.test", authority.0.der().clone()).await.is_err(), "{kind} has no certificate for that name");
        assert_eq!(bench.status("plain").await, kind.adapter().bench().plain_http, "{kind}");
        bench.gateway.quit().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn backends_certificates_are_verified_where_the_settings_say_so() {
    for kind in configured() {
        let Some(mut bench) = Bench::new(kind) else { continue };
        let (authority, stranger) = (Authority::new(), Authority::new());
        let port = tls_server(authority.issue("shop.internal")).await;
        let with = |tls: &str, authority: &Authority| {
            shop(port, &format!("{{backend-protocol: HTTPS, {tls}}}")) + &secret("ca", &[("ca.crt", authority.0.pem())])
        };
        let verified = "tls: {verify: true, ca-secret: shop/ca, name: shop.internal}";
        for (id, objects, good) in [
            ("not-verified", with("connect-timeout: 2s", &authority), true),
            ("verified", with(verified, &authority), true),
            ("wrong-name", with(&verified.replace("shop.internal", "other.internal"), &authority), false),
            ("untrusted", with(verified, &stranger), false),
        ] {
            bench.apply_objects(&objects).await.unwrap();
            let bad = kind.adapter().bench().untrusted;
            assert_eq!(bench.status(id).await, if good { 200 } else { bad }, "{kind} {id}\n{}", bench.log_text());
            bench.access(id).await;
            if !good {
                let told = kind.adapter().bench().untrusted_told;
                assert!(told.is_empty() || bench.log_text().contains(told), "{kind} {id}: no {told} in\n{}", bench.log_text());
            }
        }
        bench.gateway.quit().await;
    }
}
