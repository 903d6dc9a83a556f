//! Hand-over links: whoever has one can read one custom CSR and bring one certificate for it, without a token.

use std::time::Duration;

use aws_lc_rs::{digest, hmac, rand};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::{
    clock::Timestamp,
    ids::{CustomCertificateId, CustomCsrId, HandoverId},
    seal::{SealError, Sealer},
    webhook_secret::WebhookKey,
};

/// The path of links; the secret follows it.
pub const PATH: &str = "/handover";
/// How long the link of an event lasts: the longest time that is allowed.
pub const EVENT_LIFE: Duration = Duration::from_hours(24 * 30);

/// Octets of a secret.
const SECRET_BYTES: usize = 32;

/// What makes a link hard to guess: 256 random bits. Only its SHA-256 is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret([u8; SECRET_BYTES]);

impl Secret {
    /// Makes a secret, or returns `None` if there are no random numbers.
    #[must_use]
    pub fn generate() -> Option<Self> {
        let mut secret = [0; SECRET_BYTES];
        rand::fill(&mut secret).ok()?;
        Some(Self(secret))
    }

    /// Parses the 43 characters of base64url in a link, or returns `None`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// The form in links.
    #[must_use]
    pub fn to_text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// The form in the database.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        sha256
    }
}

/// Makes the links that events carry.
///
/// An event is sent until its receiver takes it, by any worker, and each time with the same link. So the secret of such a link is not random
/// but computed from its ID and a key that only workers have: the database has only its SHA-256, as for any other link.
pub struct EventLinks {
    public_url: String,
    key: hmac::Key,
}

impl EventLinks {
    /// Makes links that begin with `public_url`, which ends without a slash.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the key comes from a key pair of webhooks that needs a master key which the sealer lacks.
    pub fn new(public_url: &str, key: &WebhookKey, sealer: &Sealer) -> Result<Self, SealError> {
        Ok(Self { public_url: public_url.to_owned(), key: key.handover_key(sealer)? })
    }

    /// A new link to an active custom CSR, to be stored with the event. A certificate that comes through it replaces `replaces`, under the
    /// same ID, unless that is deleted.
    #[must_use]
    pub fn fresh(&self, custom_csr_id: CustomCsrId, replaces: Option<CustomCertificateId>, now: Timestamp) -> NewHandover {
        let id = HandoverId::new(now);
        NewHandover { id, custom_csr_id, replaces, secret: self.secret(id), note: None, expires_at: now.plus(EVENT_LIFE) }
    }

    /// The link with this ID, which [`EventLinks::fresh`] made.
    #[must_use]
    pub fn url(&self, id: HandoverId) -> String {
        url(&self.public_url, &self.secret(id))
    }

    fn secret(&self, id: HandoverId) -> Secret {
        let mut secret = [0; SECRET_BYTES];
        secret.copy_from_slice(hmac::sign(&self.key, id.to_string().as_bytes()).as_ref());
        Secret(secret)
    }
}

/// The link with this secret, below a URL that ends without a slash.
#[must_use]
pub fn url(public_url: &str, secret: &Secret) -> String {
    format!("{public_url}{PATH}/{}", secret.to_text())
}

/// A hand-over link about to be made.
#[derive(Clone)]
pub struct NewHandover {
    /// Its ID, chosen by the caller.
    pub id: HandoverId,
    /// The custom CSR that it shows.
    pub custom_csr_id: CustomCsrId,
    /// The certificate that the new one replaces.
    pub replaces: Option<CustomCertificateId>,
    /// Its secret.
    pub secret: Secret,
    /// The tenant's note to whoever opens it.
    pub note: Option<String>,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// A hand-over link, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handover {
    /// Its ID.
    pub id: HandoverId,
    /// What it shows.
    pub custom_csr_id: CustomCsrId,
    /// The certificate that the new one replaces.
    pub replaces: Option<CustomCertificateId>,
    /// The tenant's note to whoever opens it.
    pub note: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When it was first opened.
    pub opened_at: Option<Timestamp>,
    /// When a certificate came through it, which ended it.
    pub used_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

impl Handover {
    /// Whether it can still be used.
    #[must_use]
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.used_at.is_none() && self.revoked_at.is_none() && now < self.expires_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::MasterKey;

    #[test]
    fn the_link_of_an_event_is_the_same_whoever_tells_of_it_and_no_other_key_makes_it() {
        let (old, new) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let sealer = Sealer::new(old.clone(), Vec::new());
        let mut key = WebhookKey::generate("k".to_owned(), &sealer).unwrap();
        let links = EventLinks::new("https://csrd.example", &key, &sealer).unwrap();
        let now = Timestamp::from_micros(0);
        let link = links.fresh(CustomCsrId::new(now), None, now);
        let url = links.url(link.id);
        assert_eq!(url, format!("https://csrd.example/handover/{}", link.secret.to_text()));
        assert_ne!(url, links.url(HandoverId::new(now)));
        // After a change of the master key, too.
        key.reseal(&Sealer::new(new.clone(), vec![old])).unwrap();
        let resealed = EventLinks::new("https://csrd.example", &key, &Sealer::new(new, Vec::new())).unwrap();
        assert_eq!(resealed.url(link.id), url);
        assert!(EventLinks::new("https://csrd.example", &key, &sealer).is_err());
        let other = WebhookKey::generate("k".to_owned(), &sealer).unwrap();
        assert_ne!(EventLinks::new("https://csrd.example", &other, &sealer).unwrap().url(link.id), url);
    }

    #[test]
    fn a_secret_is_43_characters_that_are_read_back_and_nothing_else_is() {
        let secret = Secret::generate().unwrap();
        let text = secret.to_text();
        assert_eq!(text.len(), 43);
        assert!(Secret::parse(&text) == Some(secret.clone()));
        assert_ne!(secret.sha256(), Secret::generate().unwrap().sha256());
        for bad in ["", &text[1..], &format!("{text}="), &format!("{text}A"), &text.replace(|c: char| c.is_alphanumeric(), "/")] {
            assert!(Secret::parse(bad).is_none(), "{bad}");
        }
    }
}
