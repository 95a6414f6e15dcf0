//! Who makes a request: a client certificate's or a service account token's bearer.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The user a request acts for, as `authentication.k8s.io` names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub user: String,
    /// Empty for users that are no objects.
    pub uid: String,
    pub groups: Vec<String>,
}

impl Identity {
    /// A user with its groups; `system:authenticated` is added.
    pub fn new<'a>(user: &str, groups: impl IntoIterator<Item = &'a str>) -> Self {
        let mut groups: Vec<String> = groups.into_iter().map(str::to_owned).collect();
        groups.push("system:authenticated".to_owned());
        Self { user: user.to_owned(), uid: String::new(), groups }
    }

    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|mine| mine == group)
    }

    pub fn service_account(namespace: &str, name: &str) -> Self {
        Self::new(
            &format!("system:serviceaccount:{namespace}:{name}"),
            ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}")],
        )
    }
}

/// A year: longer than any lab, so that the kubelet need not rotate.
pub const LIFETIME_SECONDS: u64 = 365 * 24 * 3600;
/// For whom tokens are, and who issues them.
pub const AUDIENCE: &str = "https://kubernetes.default.svc.cluster.local";

/// A service account that a token was issued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBearer {
    pub namespace: String,
    pub name: String,
    /// The account's; empty when it was not known: then any account of the name is meant.
    pub uid: String,
}

/// Makes and checks service account tokens: JSON Web Tokens signed (HMAC-SHA256) with a key that never leaves this
/// process. Nothing is kept per token.
pub struct TokenIssuer {
    key: [u8; 64],
}

impl Default for TokenIssuer {
    fn default() -> Self {
        Self::new()
    }
}

impl TokenIssuer {
    pub fn new() -> Self {
        Self { key: rand::random() }
    }

    /// A token for the service account with this uid; an empty uid binds it to the name alone.
    pub fn issue(&self, namespace: &str, service_account: &str, uid: &str, seconds: u64, audiences: &[String]) -> String {
        let now = seconds_now();
        let claims = json!({
            "aud": audiences,
            "exp": now + seconds,
            "iat": now,
            "nbf": now,
            "iss": AUDIENCE,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": {"namespace": namespace, "serviceaccount": {"name": service_account, "uid": uid}},
            "sub": format!("system:serviceaccount:{namespace}:{service_account}"),
        });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(self.sign(&signed));
        format!("{signed}.{signature}")
    }

    /// Whom a token stands for; `None` when it was not issued here, is for somebody else or has expired.
    pub fn verify(&self, token: &str) -> Option<TokenBearer> {
        let (signed, signature) = token.rsplit_once('.')?;
        let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
        let expected = self.sign(signed);
        // Compared without stopping at the first difference, so that timing tells nothing.
        let differs =
            signature.len() != expected.len() || signature.iter().zip(expected).fold(0, |difference, (a, b)| difference | (a ^ b)) != 0;
        if differs {
            return None;
        }
        let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        if claims["exp"].as_u64()? < seconds_now() {
            return None;
        }
        if !claims["aud"].as_array()?.iter().any(|audience| audience == AUDIENCE) {
            return None;
        }
        let account = &claims["kubernetes.io"];
        let text = |value: &Value| value.as_str().map(str::to_owned);
        Some(TokenBearer {
            namespace: text(&account["namespace"])?,
            name: text(&account["serviceaccount"]["name"])?,
            uid: text(&account["serviceaccount"]["uid"]).unwrap_or_default(),
        })
    }

    /// HMAC-SHA256 (RFC 2104); the key is exactly one block long, so needs no padding.
    fn sign(&self, message: &str) -> [u8; 32] {
        let inner = Sha256::new().chain_update(self.key.map(|b| b ^ 0x36)).chain_update(message).finalize();
        Sha256::new().chain_update(self.key.map(|b| b ^ 0x5c)).chain_update(inner).finalize().into()
    }
}

fn seconds_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_for_their_account_and_cannot_be_altered() {
        let issuer = TokenIssuer::new();
        let here = [AUDIENCE.to_owned()];
        let token = issuer.issue("gateway", "controller", "u1", 60, &here);
        let bearer = TokenBearer { namespace: "gateway".to_owned(), name: "controller".to_owned(), uid: "u1".to_owned() };
        assert_eq!(issuer.verify(&token), Some(bearer));
        assert_eq!(issuer.verify(&issuer.issue("gateway", "controller", "u1", 60, &["vault".to_owned()])), None, "another audience's");
        assert_eq!(TokenIssuer::new().verify(&token), None, "another cluster's token");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = signed.split_once('.').unwrap();
        let forged =
            URL_SAFE_NO_PAD.encode(r#"{"exp":99999999999,"kubernetes.io":{"namespace":"kube-system","serviceaccount":{"name":"admin"}}}"#);
        assert_eq!(issuer.verify(&format!("{header}.{forged}.{signature}")), None);
        assert_eq!(issuer.verify("no token at all"), None);
        assert_eq!(issuer.verify(""), None);
    }

    #[test]
    fn signature_is_hmac_sha256() {
        // RFC 4231 test case 2, its key "Jefe" padded with zeros to a block as RFC 2104 says.
        let mut key = [0; 64];
        key[..4].copy_from_slice(b"Jefe");
        let signature = TokenIssuer { key }.sign("what do ya want for nothing?");
        let hex: String = signature.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }
}
