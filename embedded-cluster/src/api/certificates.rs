//! The cluster's certificate authority, the API server's certificate, client certificates, and kubeconfig files.

use std::collections::HashMap;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use sha2::{Digest, Sha256};

use super::identity::Identity;

/// Names and addresses by which clients reach the API: from the host, through the Service, by the control plane's
/// address in the cluster's network.
const SERVER_NAMES: [&str; 5] =
    ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];
const SERVER_ADDRESSES: [Ipv4Addr; 3] = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 96, 0, 1), Ipv4Addr::new(172, 18, 0, 1)];

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error("making the cluster's certificates: {0}")]
    Generate(#[from] rcgen::Error),
    #[error("setting up TLS for the API server: {0}")]
    Tls(String),
    #[error("writing {}: {source}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
}

/// A certificate and its key, PEM.
#[derive(Clone)]
pub struct ClientCertificate {
    pub certificate_pem: String,
    pub key_pem: String,
}

/// The authority that all of a cluster's clients trust. Keys are ECDSA P-256: made in well under a millisecond, where
/// RSA would take longer than the whole cluster's start.
pub struct Certificates {
    authority: CertifiedIssuer<'static, KeyPair>,
    server: Arc<rustls::ServerConfig>,
    admin: ClientCertificate,
    /// Whom each client certificate stands for, by SHA-256 of its DER form. Only certificates issued here exist.
    clients: Mutex<HashMap<[u8; 32], Identity>>,
}

impl Certificates {
    /// Makes the authority, the server's certificate and the administrator's client certificate.
    ///
    /// # Errors
    /// When the crypto library refuses; there is no known cause on a working machine.
    pub fn generate() -> Result<Self, CertificateError> {
        let authority = CertifiedIssuer::self_signed(authority_params(), KeyPair::generate()?)?;
        let server = server_config(&authority)?;
        let admin = Identity::new("kubernetes-admin", ["kubeadm:cluster-admins", "system:masters"]);
        let (certificate, admin_files) = issue(&authority, &admin)?;
        let clients = Mutex::new(HashMap::from([(fingerprint(&certificate), admin)]));
        Ok(Self { authority, server, admin: admin_files, clients })
    }

    /// The authority's certificate, as it goes into `ca.crt` and the ConfigMap `kube-root-ca.crt`.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    pub fn admin(&self) -> &ClientCertificate {
        &self.admin
    }

    /// A client certificate for any user.
    ///
    /// # Errors
    /// As [`Certificates::generate`].
    pub fn issue_client(&self, user: &str, groups: &[&str]) -> Result<ClientCertificate, CertificateError> {
        let identity = Identity::new(user, groups.iter().copied());
        let (certificate, files) = issue(&self.authority, &identity)?;
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint(&certificate), identity);
        Ok(files)
    }

    /// What a client needs to speak TLS to the API server as `user`.
    ///
    /// # Errors
    /// As [`Certificates::generate`].
    pub fn client_config(&self, user: &str, groups: &[&str]) -> Result<Arc<rustls::ClientConfig>, CertificateError> {
        let identity = Identity::new(user, groups.iter().copied());
        let (certificate, files) = issue(&self.authority, &identity)?;
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).insert(fingerprint(&certificate), identity);
        let tls = |error: &dyn std::fmt::Display| CertificateError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der().clone()).map_err(|e| tls(&e))?;
        let key = PrivateKeyDer::from_pem_slice(files.key_pem.as_bytes()).map_err(|e| tls(&e))?;
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![certificate], key)
            .map_err(|e| tls(&e))?;
        Ok(Arc::new(config))
    }

    /// A kubeconfig for the administrator. `server` is the URL, such as `https://127.0.0.1:6443`; `name` becomes the
    /// name of cluster, user and context.
    pub fn kubeconfig(&self, server: &str, name: &str) -> String {
        // Written by hand: values are base64, a URL and our own names, none of which needs YAML quoting.
        let ca = STANDARD.encode(self.ca_pem());
        let certificate = STANDARD.encode(&self.admin.certificate_pem);
        let key = STANDARD.encode(&self.admin.key_pem);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
             users:\n- name: {name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
             contexts:\n- name: {name}\n  context:\n    cluster: {name}\n    user: {name}\ncurrent-context: {name}\npreferences: {{}}\n"
        )
    }

    /// Writes [`Certificates::kubeconfig`] so that only the owner can read it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_kubeconfig(&self, path: &Path, server: &str, name: &str) -> Result<(), CertificateError> {
        let failed = |source| CertificateError::Write { path: path.to_owned(), source };
        // A file that is there already would keep its mode; the temporary one never exists with another.
        let temporary = path.with_extension("new");
        let _ = std::fs::remove_file(&temporary);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
        file.write_all(self.kubeconfig(server, name).as_bytes()).map_err(failed)?;
        std::fs::rename(&temporary, path).map_err(failed)
    }

    pub(super) fn server_config(&self) -> Arc<rustls::ServerConfig> {
        self.server.clone()
    }

    pub(super) fn identity(&self, certificate: &CertificateDer<'_>) -> Option<Identity> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner).get(&fingerprint(certificate)).cloned()
    }
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named("kubernetes", &[]);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    valid_from_now(&mut params);
    params
}

fn server_config(authority: &CertifiedIssuer<'static, KeyPair>) -> Result<Arc<rustls::ServerConfig>, CertificateError> {
    let mut params = CertificateParams::new(SERVER_NAMES.map(str::to_owned))?;
    params.subject_alt_names.extend(SERVER_ADDRESSES.map(|address| SanType::IpAddress(IpAddr::V4(address))));
    params.distinguished_name = named("kube-apiserver", &[]);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    valid_from_now(&mut params);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;

    let tls = |error: &dyn std::fmt::Display| CertificateError::Tls(error.to_string());
    let mut roots = RootCertStore::empty();
    roots.add(authority.der().clone()).map_err(|e| tls(&e))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|e| tls(&e))?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| tls(&e))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(vec![certificate.der().clone()], key)
        .map_err(|e| tls(&e))?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn issue(
    authority: &CertifiedIssuer<'static, KeyPair>,
    identity: &Identity,
) -> Result<(CertificateDer<'static>, ClientCertificate), rcgen::Error> {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&identity.user, &identity.groups);
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    valid_from_now(&mut params);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, authority)?;
    let files = ClientCertificate { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() };
    Ok((certificate.der().clone(), files))
}

/// A lab lives for hours; a day of slack before now allows for clocks set back meanwhile.
fn valid_from_now(params: &mut CertificateParams) {
    let now = time::OffsetDateTime::now_utc();
    params.not_before = now - time::Duration::days(1);
    params.not_after = now + time::Duration::days(365);
}

/// Kubernetes takes the user from CN and the groups from O; rcgen keeps one value for O, which suffices for tools that
/// show it. What counts here is the certificate's fingerprint.
fn named(common_name: &str, groups: &[String]) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    if let Some(group) = groups.last() {
        name.push(DnType::OrganizationName, group.as_str());
    }
    name.push(DnType::CommonName, common_name);
    name
}

fn fingerprint(certificate: &CertificateDer<'_>) -> [u8; 32] {
    Sha256::digest(certificate.as_ref()).into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn kubeconfig_is_private_even_over_an_open_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kubeconfig");
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        Certificates::generate().unwrap().write_kubeconfig(&path, "https://127.0.0.1:1", "lab").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(std::fs::read_to_string(&path).unwrap().contains("server: https://127.0.0.1:1\n"));
    }

    #[test]
    fn only_certificates_issued_here_are_known() {
        let certificates = Certificates::generate().unwrap();
        let foreign = Certificates::generate().unwrap();
        assert!(certificates.identity(foreign.authority.der()).is_none());
        assert_eq!(certificates.clients.lock().unwrap().values().next().unwrap().user, "kubernetes-admin");
    }
}
