//! Secrets of webhooks: made where a webhook is made, sealed to a public key, and opened where it is told of events.
//!
//! A process that only serves the API has no master key. So workers keep key pairs (X25519), each private key sealed by a master key as all
//! private keys are, and whoever makes a webhook seals its secret to the public key. The record's layout, version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 32 | a public key of this record alone |
//! | n | ciphertext: AES-256-GCM |
//! | 16 | tag |
//!
//! Its key is HKDF-SHA-256 of the shared secret, with both public keys and the place of the record as info: moved elsewhere it does not
//! open. Each key seals once, so the nonce is zero.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    agreement::{EphemeralPrivateKey, PrivateKey, UnparsedPublicKey, X25519, agree, agree_ephemeral},
    digest,
    encoding::{AsBigEndian, Curve25519SeedBin},
    error::Unspecified,
    hkdf::{HKDF_SHA256, Salt},
    hmac, rand,
    rand::SystemRandom,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use crate::seal::{Binding, SealError, Sealer, master_key_id};

const VERSION: u8 = 1;
const PUBLIC_KEY_BYTES: usize = 32;
const HEADER_BYTES: usize = 1 + PUBLIC_KEY_BYTES;
/// The random bytes of a secret.
const SECRET_BYTES: usize = 24;
/// What its text begins with (Standard Webhooks).
const PREFIX: &str = "whsec_";
/// In place of the scope of the private keys: they are no tenant's.
const SCOPE: &str = "webhooks";

/// A key pair, its private key sealed.
#[derive(Debug, Clone)]
pub struct WebhookKey {
    /// Its ID.
    pub id: String,
    /// What its record is bound to in place of a zone or account.
    pub scope: String,
    /// The public key.
    pub public_key: Vec<u8>,
    /// SHA-256 of the public key.
    pub spki_sha256: [u8; 32],
    /// Which master key sealed the private key.
    pub master_key_id: String,
    /// The private key, sealed.
    pub sealed_private_key: Vec<u8>,
}

impl WebhookKey {
    /// Makes a key pair.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the sealer lacks the master key that seals.
    pub fn generate(id: String, sealer: &Sealer) -> Result<Self, SealError> {
        let private_key = PrivateKey::generate(&X25519).map_err(|_| SealError)?;
        let public_key = private_key.compute_public_key().map_err(|_| SealError)?.as_ref().to_vec();
        let seed: Curve25519SeedBin = private_key.as_be_bytes().map_err(|_| SealError)?;
        let seed = Zeroizing::new(seed.as_ref().to_vec());
        let spki_sha256 = digest::digest(&digest::SHA256, &public_key).as_ref().try_into().map_err(|_| SealError)?;
        let mut key =
            Self { id, scope: SCOPE.to_owned(), public_key, spki_sha256, master_key_id: String::new(), sealed_private_key: Vec::new() };
        key.sealed_private_key = sealer.seal(&key.binding(), &seed)?;
        key.master_key_id = master_key_id(&key.sealed_private_key).ok_or(SealError)?;
        Ok(key)
    }

    /// The key for the secrets of hand-over links in events. It is derived from the private key, which stays the same when it is sealed anew.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the private key needs a master key that the sealer lacks.
    pub fn handover_key(&self, sealer: &Sealer) -> Result<hmac::Key, SealError> {
        let seed = sealer.open(&self.binding(), &self.sealed_private_key)?;
        let key = Salt::new(HKDF_SHA256, &[]).extract(&seed);
        Ok(key.expand(&[b"handovers.secret"], hmac::HMAC_SHA256).map_err(|_| SealError)?.into())
    }

    /// Opens the private key, for nothing but to see that it can be.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the record was changed, or needs a master key that the sealer lacks.
    pub fn check(&self, sealer: &Sealer) -> Result<(), SealError> {
        sealer.open(&self.binding(), &self.sealed_private_key).map(drop)
    }

    #[cfg(test)]
    pub(crate) fn reseal(&mut self, sealer: &Sealer) -> Result<(), SealError> {
        self.sealed_private_key = sealer.reseal(&self.binding(), &self.sealed_private_key)?;
        Ok(())
    }

    fn binding(&self) -> Binding<'_> {
        Binding {
            table: "webhook_keys",
            row_id: &self.id,
            column: "sealed_private_key",
            scope: &self.scope,
            spki_sha256: &self.spki_sha256,
        }
    }
}

/// The secret of a webhook: whoever has it can sign as this service.
pub struct WebhookSecret(Zeroizing<Vec<u8>>);

impl WebhookSecret {
    /// Makes a secret.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the system has no random numbers.
    pub fn generate() -> Result<Self, SealError> {
        let mut secret = Zeroizing::new(vec![0; SECRET_BYTES]);
        rand::fill(secret.as_mut_slice()).map_err(|_| SealError)?;
        Ok(Self(secret))
    }

    /// `whsec_` and base64, as the receiver needs it.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!("{PREFIX}{}", STANDARD.encode(self.0.as_slice()))
    }

    /// Seals it for this webhook of this zone or account.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the public key is none.
    pub fn seal(&self, public_key: &[u8], webhook_id: &str, scope: &str) -> Result<Vec<u8>, SealError> {
        let one_time = EphemeralPrivateKey::generate(&X25519, &SystemRandom::new()).map_err(|_| SealError)?;
        let own = one_time.compute_public_key().map_err(|_| SealError)?.as_ref().to_vec();
        let info = info(&own, public_key, webhook_id, scope);
        let key = agree_ephemeral(one_time, UnparsedPublicKey::new(&X25519, public_key), Unspecified, |shared| derive(shared, &info))
            .map_err(|_| SealError)?;
        let mut record = Vec::with_capacity(HEADER_BYTES + SECRET_BYTES + AES_256_GCM.tag_len());
        record.push(VERSION);
        record.extend_from_slice(&own);
        record.extend_from_slice(&self.0);
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::empty(), &mut record[HEADER_BYTES..]).map_err(|_| SealError)?;
        record.extend_from_slice(tag.as_ref());
        Ok(record)
    }

    /// Opens the record of this webhook.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the record was changed, belongs elsewhere, or needs a master key that the sealer lacks.
    pub fn open(record: &[u8], key: &WebhookKey, sealer: &Sealer, webhook_id: &str, scope: &str) -> Result<Self, SealError> {
        if record.len() < HEADER_BYTES + AES_256_GCM.tag_len() || record[0] != VERSION {
            return Err(SealError);
        }
        let seed = sealer.open(&key.binding(), &key.sealed_private_key)?;
        let private_key = PrivateKey::from_private_key(&X25519, &seed).map_err(|_| SealError)?;
        let (header, ciphertext) = record.split_at(HEADER_BYTES);
        let info = info(&header[1..], &key.public_key, webhook_id, scope);
        let opens = agree(&private_key, UnparsedPublicKey::new(&X25519, &header[1..]), Unspecified, |shared| derive(shared, &info));
        let mut secret = Zeroizing::new(ciphertext.to_vec());
        let nonce = Nonce::assume_unique_for_key([0; NONCE_LEN]);
        let opened = opens.map_err(|_| SealError)?.open_in_place(nonce, Aad::empty(), &mut secret).map_err(|_| SealError)?.len();
        secret.truncate(opened);
        Ok(Self(secret))
    }

    /// The value of `webhook-signature` (Standard Webhooks) for a message with this ID and this time in seconds since the Unix epoch.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: i64, body: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        format!("v1,{}", STANDARD.encode(hmac::sign(&key, format!("{id}.{timestamp}.{body}").as_bytes())))
    }
}

fn derive(shared: &[u8], info: &[u8]) -> Result<LessSafeKey, Unspecified> {
    let key: UnboundKey = Salt::new(HKDF_SHA256, &[]).extract(shared).expand(&[info], &AES_256_GCM)?.into();
    Ok(LessSafeKey::new(key))
}

/// Each part with its length before it: no two different places give the same bytes.
fn info(one_time: &[u8], public_key: &[u8], webhook_id: &str, scope: &str) -> Vec<u8> {
    let parts: [&[u8]; 6] = [b"webhooks.sealed_secret", &[VERSION], one_time, public_key, webhook_id.as_bytes(), scope.as_bytes()];
    parts.iter().fold(Vec::with_capacity(256), |mut info, part| {
        info.extend_from_slice(&(part.len() as u64).to_be_bytes());
        info.extend_from_slice(part);
        info
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::MasterKey;

    #[test]
    fn a_secret_opens_for_its_webhook_alone_and_unchanged_under_any_master_key_that_sealed_the_key_pair() {
        let (old, new) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let sealer = Sealer::new(old.clone(), Vec::new());
        let mut key = WebhookKey::generate("k".to_owned(), &sealer).unwrap();
        let secret = WebhookSecret::generate().unwrap();
        let record = secret.seal(&key.public_key, "w", "zones/z").unwrap();
        assert!(!record.windows(SECRET_BYTES).any(|window| window == secret.0.as_slice()));
        let open = |record: &[u8], key: &WebhookKey, sealer: &Sealer, id: &str, scope: &str| {
            WebhookSecret::open(record, key, sealer, id, scope).map(|secret| secret.to_text())
        };
        assert_eq!(open(&record, &key, &sealer, "w", "zones/z"), Ok(secret.to_text()));
        assert!(open(&record, &key, &sealer, "v", "zones/z").is_err() && open(&record, &key, &sealer, "w", "zones/y").is_err());
        for at in 0..record.len() {
            let mut changed = record.clone();
            changed[at] ^= 1;
            assert!(open(&changed, &key, &sealer, "w", "zones/z").is_err(), "byte {at}");
            assert!(open(&record[..at], &key, &sealer, "w", "zones/z").is_err(), "{at} bytes");
        }
        let both = Sealer::new(new.clone(), vec![old]);
        key.sealed_private_key = both.reseal(&key.binding(), &key.sealed_private_key).unwrap();
        assert_eq!(open(&record, &key, &Sealer::new(new, Vec::new()), "w", "zones/z"), Ok(secret.to_text()));
        assert!(open(&record, &key, &sealer, "w", "zones/z").is_err());
    }

    #[test]
    fn a_signature_is_that_of_the_specifications_example() {
        let secret = WebhookSecret(Zeroizing::new(STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap()));
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, "{\"test\": 2432232314}");
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(secret.to_text(), "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
    }
}
