//! Certificates that a client accepts, and ones that it must not.
//!
//! Mechanism: an authority is made (or its key read) at start and signs a certificate for the configured names; the bad kinds differ from
//! the good one in exactly one thing: notAfter in the past, no authority, or another name.

use std::{path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};

use crate::{
    Error,
    config::{CertificateKind, Tls},
};

/// The name in a `wrong_name` certificate; `.invalid` never resolves (RFC 2606).
const OTHER_NAME: &str = "other-service.invalid";

/// A certificate authority of the lab. Two made from one key issue interchangeable certificates.
#[derive(Debug)]
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Makes an authority with a new key.
    pub fn generate() -> Result<Authority, Error> {
        Authority::from_key(KeyPair::generate().map_err(wrong("certificate authority's key"))?)
    }

    /// The authority that belongs to a PEM private key (PKCS #8).
    pub fn from_key_pem(pem: &str) -> Result<Authority, Error> {
        Authority::from_key(KeyPair::from_pem(pem).map_err(wrong("certificate authority from its key"))?)
    }

    fn from_key(key: KeyPair) -> Result<Authority, Error> {
        // Everything but the key is constant, so that replicas sharing a key are one authority to a verifier.
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Cluster Services CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2050, 1, 1);
        let certificate = params.self_signed(&key).map_err(wrong("certificate authority"))?.pem();
        Ok(Authority { issuer: Issuer::new(params, key), certificate })
    }

    /// The authority's certificate, PEM.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The authority's private key, PEM: what `tls.ca_key_file` reads.
    pub fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// Issues a certificate of the given kind for `names`: the chain, and its private key.
    pub fn issue(&self, kind: CertificateKind, names: &[String]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let key = KeyPair::generate().map_err(wrong("server's key"))?;
        let names = match kind {
            CertificateKind::WrongName => vec![OTHER_NAME.to_owned()],
            _ => names.to_vec(),
        };
        let mut params = CertificateParams::new(names.clone()).map_err(wrong("server's certificate"))?;
        if let Some(name) = names.first() {
            params.distinguished_name.push(DnType::CommonName, name.clone());
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = match kind {
            CertificateKind::Expired => date_time_ymd(2021, 1, 1),
            _ => date_time_ymd(2050, 1, 1),
        };
        let certificate = match kind {
            CertificateKind::SelfSigned => params.self_signed(&key),
            _ => params.signed_by(&key, &self.issuer),
        }
        .map_err(wrong("server's certificate"))?;
        let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|reason| rustls::Error::General(reason.to_owned()))?;
        Ok((vec![certificate.der().clone()], key))
    }
}

fn wrong(what: &'static str) -> impl Fn(rcgen::Error) -> Error {
    move |source| Error::Certificate { what, source }
}

/// The authority for these settings: from its key file, or new.
pub(crate) fn authority(key_file: Option<&Path>) -> Result<Authority, Error> {
    match key_file {
        Some(path) => {
            let pem = std::fs::read_to_string(path).map_err(|source| Error::ReadKey { path: path.to_owned(), source })?;
            Authority::from_key_pem(&pem)
        }
        None => Authority::generate(),
    }
}

/// The TLS side of the main port.
pub(crate) fn server_config(tls: &Tls, authority: &Authority) -> Result<Arc<ServerConfig>, Error> {
    let (chain, key) = authority.issue(tls.certificate, &tls.names)?;
    // Named, because a process that links two providers has no default one.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = tls.alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}
