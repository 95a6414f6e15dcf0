//! Certificates as a verifying client judges them, and handshakes that go nowhere.

use std::{sync::Arc, time::Duration};

use fake_backends::{
    Authority, Backend,
    journal::{Entry, Since, TlsOutcome},
};
use rstest::rstest;
use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::wire::{Client, End, PATIENCE, backend};

async fn handshake(backend: &Backend, trusted: &Authority, alpn: &[&str]) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.certificate_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = TcpStream::connect(backend.address().unwrap()).await.unwrap();
    let name = ServerName::try_from("shop.test").unwrap();
    timeout(PATIENCE, TlsConnector::from(Arc::new(config)).connect(name, stream)).await.unwrap()
}

fn certificate_error(error: &std::io::Error) -> CertificateError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(error)) => error.clone(),
        other => panic!("{other:?}"),
    }
}

fn tls_outcome(backend: &Backend) -> Option<TlsOutcome> {
    let entries = backend.journal().read(Since::Seq(0)).entries;
    entries.into_iter().find_map(|entry| if let Entry::Connection(connection) = entry { connection.tls } else { None })
}

#[rstest]
#[case(&["http/1.1"], Some("http/1.1"))]
#[case(&[], None)]
#[tokio::test]
async fn a_valid_certificate_is_trusted_by_its_authority(#[case] alpn: &[&str], #[case] chosen: Option<&str>) {
    let backend = backend("{name: shop, tls: {names: [shop.test], alpn: [h2, http/1.1]}}").await;
    let stream = handshake(&backend, &backend.authority().unwrap(), alpn).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes));
    assert_eq!(Client::over(stream).get("/").await.header("x-app"), Some("shop"));
    assert!(matches!(tls_outcome(&backend), Some(TlsOutcome::Complete { server_name: Some(name), .. }) if name == "shop.test"));
}

#[tokio::test]
async fn h2_is_chosen_by_alpn() {
    let backend = backend("tls: {names: [shop.test], alpn: [h2, http/1.1]}").await;
    let stream = handshake(&backend, &backend.authority().unwrap(), &["h2"]).await.unwrap();
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let (response, _) = sender.send_request(http::Request::get("https://shop.test/").body(()).unwrap(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
}

#[tokio::test]
async fn bad_certificates_fail_each_in_its_own_way() {
    let backend = backend("tls: {names: [shop.test], certificate: expired}").await;
    let trusted = backend.authority().unwrap();
    let error = certificate_error(&handshake(&backend, &trusted, &[]).await.unwrap_err());
    assert!(matches!(error, CertificateError::Expired | CertificateError::ExpiredContext { .. }), "{error:?}");

    backend.set([("tls.certificate", "wrong_name")]).unwrap();
    let error = certificate_error(&handshake(&backend, &trusted, &[]).await.unwrap_err());
    assert!(matches!(error, CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. }), "{error:?}");

    backend.set([("tls.certificate", "self_signed")]).unwrap();
    let error = certificate_error(&handshake(&backend, &trusted, &[]).await.unwrap_err());
    assert!(matches!(error, CertificateError::UnknownIssuer | CertificateError::Other(_)), "{error:?}");

    // The authority outlives the switches.
    backend.set([("tls.certificate", "valid")]).unwrap();
    assert!(handshake(&backend, &trusted, &[]).await.is_ok());
}

#[tokio::test]
async fn replicas_with_one_key_are_trusted_through_either_authority() {
    let authority = Authority::generate().unwrap();
    let key = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(key.path(), authority.key_pem()).unwrap();
    let backend = backend(&format!("tls: {{names: [shop.test], ca_key_file: '{}'}}", key.path().display())).await;
    assert!(handshake(&backend, &authority, &[]).await.is_ok());
    assert!(handshake(&backend, &Authority::generate().unwrap(), &[]).await.is_err());
}

#[tokio::test]
async fn a_stalled_handshake_is_never_answered() {
    let backend = backend("tls: {handshake: stalled}").await;
    let mut client = Client::to(&backend).await;
    // The beginning of a handshake record.
    client.send("\x16\x03\x01\x00\x05hello").await;
    assert!(client.is_silent_for(Duration::from_millis(300)).await);
    assert_eq!(tls_outcome(&backend), Some(TlsOutcome::Stalled));
}

#[tokio::test]
async fn plain_http_to_a_tls_port_gets_an_alert_or_a_400() {
    let backend = backend("tls: {}").await;
    let mut client = Client::to(&backend).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (bytes, _) = client.until_end().await;
    // An alert record (type 21, RFC 8446 section 5.1), or nothing where the close overtook it.
    assert!(bytes.first().is_none_or(|first| *first == 21), "{bytes:?}");
    assert_eq!(tls_outcome(&backend), Some(TlsOutcome::NotTls));

    backend.set([("tls.plain_http", "bad_request")]).unwrap();
    let mut client = Client::to(&backend).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (bytes, end) = client.until_end().await;
    assert!(bytes.starts_with(b"HTTP/1.1 400 "), "{}", String::from_utf8_lossy(&bytes));
    assert_eq!(end, End::Fin);
}
