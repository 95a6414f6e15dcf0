//! TLS on top of a connection, verifying or not, as the plan says.

use std::io::Cursor;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::failure::Failure;
use super::plan::TlsClient;
use super::record::{Outcome, Phase};

/// Makes the handshake; errors of the kernel keep their errno.
///
/// `protocol` is the one that ALPN offers; a server that does not choose it speaks HTTP/1.1 (RFC 7301 section 3.2).
pub async fn handshake(client: &TlsClient, protocol: &'static [u8], stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
    let config = config(client, protocol)?;
    let name = ServerName::try_from(client.server_name.clone()).map_err(|_| {
        Failure::new(Outcome::ProbeError, Phase::Tls, format!("`{}` is neither a host name nor an address", client.server_name))
    })?;
    TlsConnector::from(config).connect(name, stream).await.map_err(|error| {
        let mut failure = Failure::from_io(&error, Phase::Tls);
        if failure.errno.is_none() {
            failure.outcome = Outcome::TlsFailed;
        }
        failure
    })
}

fn config(client: &TlsClient, protocol: &'static [u8]) -> Result<Arc<ClientConfig>, Failure> {
    let invalid = |detail: String| Failure::new(Outcome::ProbeError, Phase::Tls, detail);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| invalid(error.to_string()))?;
    let mut config = match &client.trusted {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_reader_iter(Cursor::new(pem.as_bytes())) {
                let certificate = certificate.map_err(|error| invalid(format!("`trusted` is not PEM: {error}")))?;
                roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate { provider })).with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    Ok(Arc::new(config))
}

/// Takes any certificate, as `curl -k` does; the proof that the peer holds its key is still checked.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
