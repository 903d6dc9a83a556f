//! Everything that runs on a key thread: making keys and CSRs, and sealing the keys. Nothing here waits for the database.

use std::sync::Arc;

use rcgen::SigningKey;
use shared::{
    custom_csr::{CustomCsr, KeyType},
    seal::{Binding, SealError, Sealer, master_key_id},
    storage::{GeneratedCsr, NewPoolKey, PoolKey},
};
use ulid::Ulid;

use crate::{
    csr::{CsrError, certification_request},
    keys::{
        KeyGenerator, KeygenError,
        blocked::BlockedKeys,
        private_key::{PrivateKey, PrivateKeyError},
        quality::{self, Check, FailedChecks, NewKey, Unfit},
    },
};

/// The most keys that one attempt makes while they fail checks. A generator that makes this many unfit keys is broken.
pub const KEYS_OF_ATTEMPT: u32 = 5;

/// Why nothing was made. Tenants read the message, so it holds no secret.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The key was not generated.
    #[error("{0}")]
    Keygen(#[from] KeygenError),
    /// The key failed a check, and another one is to be made.
    #[error("{0}")]
    Unfit(#[from] Unfit),
    /// The private key could not be read or written.
    #[error("{0}")]
    PrivateKey(#[from] PrivateKeyError),
    /// The CSR was not built.
    #[error("{0}")]
    Csr(#[from] CsrError),
    /// The private key was not sealed, or a key of the key pool not unsealed.
    #[error("the private key could not be sealed")]
    Seal(#[from] SealError),
    /// Nothing can be sealed: this process lacks the current master key.
    #[error("the current master key is not here")]
    NoMasterKey,
}

/// Makes keys and CSRs, and seals the keys.
pub struct Maker {
    /// Makes private keys.
    pub key_generator: Arc<dyn KeyGenerator>,
    /// Seals private keys.
    pub sealer: Arc<Sealer>,
    /// Keys that are not to be used.
    pub blocked_keys: BlockedKeys,
    /// Counts the keys that failed a check.
    pub failed_checks: Arc<FailedChecks>,
}

impl Maker {
    /// Makes a fresh key and the CSR of `custom_csr`.
    pub fn make(&self, custom_csr: &CustomCsr) -> Result<GeneratedCsr, MakeError> {
        self.check_can_seal()?;
        let private_key = self.key_generator.generate(custom_csr.request.key_type)?;
        let (private_key_info, spki_sha256) = (private_key.to_private_key_info()?, private_key.spki_sha256());
        let key = self.checked(custom_csr.request.key_type, &private_key, &private_key_info, &spki_sha256)?;
        // The signature of the CSR is the one that is verified.
        let csr_pem = self.request(custom_csr, &key)?;
        self.seal(custom_csr, csr_pem, spki_sha256, &private_key_info)
    }

    /// Checks a new key, all but its signature.
    fn checked<'a>(
        &self,
        key_type: KeyType,
        private_key: &'a PrivateKey,
        private_key_info: &[u8],
        spki_sha256: &[u8; 32],
    ) -> Result<NewKey<'a>, MakeError> {
        self.refuse_blocked(spki_sha256)?;
        quality::check(key_type, private_key, private_key_info).map_err(|unfit| self.unfit(unfit.0))
    }

    /// A key failed a check: it is logged and counted, and the caller asks for another one.
    fn unfit(&self, check: Check) -> MakeError {
        MakeError::Unfit(self.failed_checks.report(check))
    }

    fn refuse_blocked(&self, spki_sha256: &[u8; 32]) -> Result<(), MakeError> {
        if self.blocked_keys.contains(spki_sha256) { Err(self.unfit(Check::Blocked)) } else { Ok(()) }
    }

    /// The CSR, signed by this key.
    fn request(&self, custom_csr: &CustomCsr, key: &impl SigningKey) -> Result<String, MakeError> {
        certification_request(&custom_csr.request, key).map_err(|error| match error {
            CsrError::Signature => self.unfit(Check::Signature),
            CsrError::Values(_) => error.into(),
        })
    }

    /// Makes the CSR of `custom_csr` with a key of the key pool, which was checked when it was made, and seals that key anew for its custom CSR.
    pub fn make_with(&self, custom_csr: &CustomCsr, key: &PoolKey) -> Result<GeneratedCsr, MakeError> {
        // The list may be newer than the key.
        self.refuse_blocked(&key.spki_sha256)?;
        self.check_can_seal()?;
        let private_key_info = self.sealer.open(&Binding::pool_key(&key.id, &key.spki_sha256), &key.sealed_private_key)?;
        let private_key = PrivateKey::parse(KeyType::Rsa2048, &private_key_info)?;
        let csr_pem = self.request(custom_csr, &private_key)?;
        self.seal(custom_csr, csr_pem, private_key.spki_sha256(), &private_key_info)
    }

    /// Makes an RSA key for the key pool.
    pub fn make_ahead(&self) -> Result<NewPoolKey, MakeError> {
        self.check_can_seal()?;
        let private_key = self.key_generator.generate(KeyType::Rsa2048)?;
        let (private_key_info, spki_sha256) = (private_key.to_private_key_info()?, private_key.spki_sha256());
        let key = self.checked(KeyType::Rsa2048, &private_key, &private_key_info, &spki_sha256)?;
        key.check_signature().map_err(|unfit| self.unfit(unfit.0))?;
        let id = Ulid::generate().to_string();
        let (master_key_id, sealed_private_key) = self.sealed(&Binding::pool_key(&id, &spki_sha256), &private_key_info)?;
        Ok(NewPoolKey { id, spki_sha256, master_key_id, sealed_private_key })
    }

    /// Before anything is made, and again when it is to be sealed: the current master key may become another one meanwhile.
    fn check_can_seal(&self) -> Result<(), MakeError> {
        self.sealer.lacks().map_or(Ok(()), |_| Err(MakeError::NoMasterKey))
    }

    /// A sealed record, and the ID of the master key that sealed it.
    fn sealed(&self, binding: &Binding<'_>, private_key_info: &[u8]) -> Result<(String, Vec<u8>), MakeError> {
        let record = self.sealer.seal(binding, private_key_info).or_else(|error| self.check_can_seal().and(Err(error.into())))?;
        Ok((master_key_id(&record).ok_or(SealError)?, record))
    }

    fn seal(
        &self,
        custom_csr: &CustomCsr,
        csr_pem: String,
        spki_sha256: [u8; 32],
        private_key_info: &[u8],
    ) -> Result<GeneratedCsr, MakeError> {
        let (row_id, scope) = (custom_csr.id.to_string(), custom_csr.scope.to_string());
        let binding = Binding::custom_csr(&row_id, &scope, &spki_sha256);
        let (master_key_id, sealed_private_key) = self.sealed(&binding, private_key_info)?;
        Ok(GeneratedCsr { csr_pem, spki_sha256, master_key_id, sealed_private_key })
    }
}
