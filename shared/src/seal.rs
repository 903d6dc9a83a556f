//! Sealing: how a private key is stored.
//!
//! A record is AES-256-GCM under a fresh data key, and the data key is wrapped by a master key with AES-256-KWP
//! (RFC 5649), which needs no nonce, so nonces cannot run out. The record's layout, version 1:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1 |
//! | 8 | ID of the master key |
//! | 40 | the data key, wrapped |
//! | 12 | nonce |
//! | n | ciphertext |
//! | 16 | tag |
//!
//! The additional data ([`Binding`]) names where the record belongs: moved to another row, column or scope it does not open.

use std::{fmt, sync::Arc};

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    key_wrap::{AES_256, AesKek, KeyWrapPadded},
    rand,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::sync::watch;
use zeroize::{Zeroize, Zeroizing};

use crate::printable::hex;

const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const WRAPPED_BYTES: usize = KEY_BYTES + 8;
const HEADER_BYTES: usize = 1 + ID_BYTES + WRAPPED_BYTES + NONCE_LEN;
const TAG_BYTES: usize = 16;

/// A record could not be sealed or opened. The error has no details, so that nobody learns from them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the sealed record cannot be sealed or opened with the master keys at hand")]
pub struct SealError;

/// Why a file is no master key file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a master key: one line with the base64 of 32 bytes is expected")]
pub struct MasterKeyError;

/// A master key: 32 random bytes, known by the first 8 bytes of their SHA-256 in hexadecimal.
#[derive(Clone)]
pub struct MasterKey {
    id: [u8; ID_BYTES],
    /// Written on the heap directly: a value that moves leaves copies on the stack.
    secret: Arc<Zeroizing<Vec<u8>>>,
}

impl MasterKey {
    /// Makes a fresh master key.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the system has no random numbers.
    pub fn generate() -> Result<Self, SealError> {
        let mut secret = Zeroizing::new(vec![0; KEY_BYTES]);
        rand::fill(secret.as_mut_slice()).map_err(|_| SealError)?;
        Ok(Self::new(secret))
    }

    /// Reads the one line of a `master.key` file.
    ///
    /// # Errors
    ///
    /// [`MasterKeyError`] if the text is anything else.
    pub fn parse(line: &str) -> Result<Self, MasterKeyError> {
        let line = line.strip_suffix('\n').unwrap_or(line);
        // Wiped even after an error. One byte longer than a key, since the decoder wants room for whole groups of three.
        let mut secret = Zeroizing::new(vec![0; KEY_BYTES + 1]);
        match STANDARD.decode_slice(line, &mut secret) {
            Ok(KEY_BYTES) => {}
            _ => return Err(MasterKeyError),
        }
        secret.truncate(KEY_BYTES);
        Ok(Self::new(secret))
    }

    fn new(secret: Zeroizing<Vec<u8>>) -> Self {
        let hash = digest::digest(&digest::SHA256, secret.as_slice());
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&hash.as_ref()[..ID_BYTES]);
        Self { id, secret: Arc::new(secret) }
    }

    /// Keeps it out of swap space until the process ends: locks do not nest, and another master key may lie on the same page.
    ///
    /// # Errors
    ///
    /// The operating system's error, for example if its limit of locked memory is too low.
    pub fn lock_in_memory(&self) -> std::io::Result<()> {
        std::mem::forget(region::lock(self.secret.as_ptr(), self.secret.len())?);
        Ok(())
    }

    /// The line for a `master.key` file, newline included.
    #[must_use]
    pub fn to_line(&self) -> Zeroizing<String> {
        let mut line = Zeroizing::new(String::with_capacity(64));
        STANDARD.encode_string(self.secret.as_slice(), &mut line);
        line.push('\n');
        line
    }

    /// The ID, 16 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        hex(&self.id)
    }

    fn kek(&self) -> Result<AesKek, SealError> {
        AesKek::new(&AES_256, self.secret.as_slice()).map_err(|_| SealError)
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MasterKey({})", self.id())
    }
}

/// Where a sealed record belongs.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The table.
    pub table: &'a str,
    /// The row's ID.
    pub row_id: &'a str,
    /// The column.
    pub column: &'a str,
    /// The zone or account, as `zones/ID` or `accounts/ID`.
    pub scope: &'a str,
    /// SHA-256 of the SubjectPublicKeyInfo that belongs to the private key.
    pub spki_sha256: &'a [u8; 32],
}

impl<'a> Binding<'a> {
    /// The private key of a custom CSR.
    #[must_use]
    pub const fn custom_csr(row_id: &'a str, scope: &'a str, spki_sha256: &'a [u8; 32]) -> Self {
        Self { table: "custom_csrs", row_id, column: "sealed_private_key", scope, spki_sha256 }
    }

    /// A private key of the key pool, which belongs to no scope yet.
    #[must_use]
    pub const fn pool_key(row_id: &'a str, spki_sha256: &'a [u8; 32]) -> Self {
        Self { table: "pool_keys", row_id, column: "sealed_private_key", scope: "pool", spki_sha256 }
    }

    /// Each part with its length before it: no two different bindings give the same bytes.
    fn aad(&self, master_key_id: &[u8]) -> Vec<u8> {
        let Self { table, row_id, column, scope, spki_sha256 } = self;
        let parts: [&[u8]; 7] =
            [&[VERSION], master_key_id, table.as_bytes(), row_id.as_bytes(), column.as_bytes(), scope.as_bytes(), *spki_sha256];
        parts.iter().fold(Vec::with_capacity(256), |mut aad, part| {
            aad.extend_from_slice(&(part.len() as u64).to_be_bytes());
            aad.extend_from_slice(part);
            aad
        })
    }
}

/// Seals with the current master key, and opens with every master key that it has. The keys may change while it is used.
#[derive(Debug)]
pub struct Sealer {
    keys: watch::Sender<MasterKeys>,
}

/// The master keys of a process.
#[derive(Debug, Clone)]
struct MasterKeys {
    current_id: String,
    all: Vec<MasterKey>,
}

impl Sealer {
    /// A sealer with the current master key and the ones that older records need.
    #[must_use]
    pub fn new(current: MasterKey, older: Vec<MasterKey>) -> Self {
        Self::of(current.id(), std::iter::once(current).chain(older).collect())
    }

    /// A sealer with these master keys, of which the one with the ID `current_id` seals. Without that one it only opens.
    #[must_use]
    pub fn of(current_id: String, all: Vec<MasterKey>) -> Self {
        Self { keys: watch::Sender::new(MasterKeys { current_id, all }) }
    }

    /// Replaces the master keys, and says which one seals from now on. Whatever is being sealed or opened is finished with the former ones.
    pub fn replace(&self, current_id: String, all: Vec<MasterKey>) {
        self.keys.send_replace(MasterKeys { current_id, all });
    }

    /// The ID of the master key that seals.
    #[must_use]
    pub fn current_id(&self) -> String {
        self.keys.borrow().current_id.clone()
    }

    /// The ID of the master key that should seal, if the sealer lacks it: then it seals nothing.
    #[must_use]
    pub fn lacks(&self) -> Option<String> {
        let keys = self.keys.borrow();
        keys.current().is_none().then(|| keys.current_id.clone())
    }

    /// Waits until the sealer has the master key that seals.
    pub async fn can_seal(&self) {
        let mut keys = self.keys.subscribe();
        // The sender is our own, and does not go.
        let _ = keys.wait_for(|keys| keys.current().is_some()).await;
    }

    /// Whether records of this master key can be opened.
    #[must_use]
    pub fn holds(&self, id: &str) -> bool {
        self.keys.borrow().all.iter().any(|key| key.id() == id)
    }

    /// All its master keys.
    #[must_use]
    pub fn master_keys(&self) -> Vec<MasterKey> {
        self.keys.borrow().all.clone()
    }

    /// Seals `plaintext` for the place that `binding` names. [`master_key_id`] tells by which master key.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the sealer lacks the master key that seals, or the system has no random numbers.
    pub fn seal(&self, binding: &Binding<'_>, plaintext: &[u8]) -> Result<Vec<u8>, SealError> {
        let current = self.keys.borrow().current().cloned().ok_or(SealError)?;
        let mut data_key = Zeroizing::new([0; KEY_BYTES]);
        let mut nonce = [0; NONCE_LEN];
        rand::fill(data_key.as_mut()).map_err(|_| SealError)?;
        rand::fill(&mut nonce).map_err(|_| SealError)?;
        let mut wrapped = [0; WRAPPED_BYTES];
        let wrapped = current.kek()?.wrap_with_padding(data_key.as_ref(), &mut wrapped).map_err(|_| SealError)?;

        let mut record = Vec::with_capacity(HEADER_BYTES + plaintext.len() + TAG_BYTES);
        record.push(VERSION);
        record.extend_from_slice(&current.id);
        record.extend_from_slice(wrapped);
        record.extend_from_slice(&nonce);
        record.extend_from_slice(plaintext);
        let aad = Aad::from(binding.aad(&current.id));
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = gcm(data_key.as_slice())?.seal_in_place_separate_tag(nonce, aad, &mut record[HEADER_BYTES..]);
        let Ok(tag) = sealed else {
            record.zeroize();
            return Err(SealError);
        };
        record.extend_from_slice(tag.as_ref());
        Ok(record)
    }

    /// Opens a record from the place that `binding` names.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the record was changed, belongs elsewhere, or needs a master key that the sealer lacks.
    pub fn open(&self, binding: &Binding<'_>, record: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        if record.len() < HEADER_BYTES + TAG_BYTES || record[0] != VERSION {
            return Err(SealError);
        }
        let (header, ciphertext) = record.split_at(HEADER_BYTES);
        let (id, rest) = header[1..].split_at(ID_BYTES);
        let (wrapped, nonce) = rest.split_at(WRAPPED_BYTES);
        let master_key = self.keys.borrow().all.iter().find(|key| key.id == *id).cloned().ok_or(SealError)?;
        let mut data_key = Zeroizing::new([0; WRAPPED_BYTES]);
        let data_key = master_key.kek()?.unwrap_with_padding(wrapped, data_key.as_mut()).map_err(|_| SealError)?;
        let mut plaintext = Zeroizing::new(ciphertext.to_vec());
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError)?;
        let opened = gcm(data_key)?.open_in_place(nonce, Aad::from(binding.aad(id)), &mut plaintext).map_err(|_| SealError)?.len();
        plaintext.truncate(opened);
        Ok(plaintext)
    }

    /// Seals a record of another master key anew, for the same place. What was sealed is checked by that, and is wiped afterwards.
    ///
    /// # Errors
    ///
    /// [`SealError`] if the record does not open, or cannot be sealed: see [`Sealer::open`] and [`Sealer::seal`].
    pub fn reseal(&self, binding: &Binding<'_>, record: &[u8]) -> Result<Vec<u8>, SealError> {
        self.seal(binding, &self.open(binding, record)?)
    }
}

impl MasterKeys {
    fn current(&self) -> Option<&MasterKey> {
        self.all.iter().find(|key| key.id() == self.current_id)
    }
}

/// The ID of the master key that sealed a record, as the record itself says; none if it is too short for one.
#[must_use]
pub fn master_key_id(record: &[u8]) -> Option<String> {
    record.get(1..=ID_BYTES).map(hex)
}

fn gcm(data_key: &[u8]) -> Result<LessSafeKey, SealError> {
    UnboundKey::new(&AES_256_GCM, data_key).map(LessSafeKey::new).map_err(|_| SealError)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPKI: [u8; 32] = [7; 32];

    fn sealer() -> Sealer {
        Sealer::new(MasterKey::generate().unwrap(), Vec::new())
    }

    fn binding() -> Binding<'static> {
        Binding::custom_csr("row", "zones/z", &SPKI)
    }

    #[test]
    fn a_record_of_an_older_master_key_opens_and_new_ones_carry_the_current_id() {
        let (old, new) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let before = Sealer::new(old.clone(), Vec::new());
        let record = before.seal(&binding(), b"secret").unwrap();
        let after = Sealer::new(new.clone(), vec![old.clone()]);
        assert_eq!(after.open(&binding(), &record).unwrap().as_slice(), b"secret");
        assert_eq!(master_key_id(&after.seal(&binding(), b"x").unwrap()), Some(new.id()));
        assert!(after.holds(&old.id()) && !before.holds(&new.id()));
        assert_eq!(Sealer::new(new, Vec::new()).open(&binding(), &record).unwrap_err(), SealError);
    }

    #[test]
    fn a_sealer_without_the_current_master_key_opens_and_seals_nothing_until_it_gets_it() {
        let (old, new) = (MasterKey::generate().unwrap(), MasterKey::generate().unwrap());
        let sealer = Sealer::new(old.clone(), Vec::new());
        let record = sealer.seal(&binding(), b"secret").unwrap();
        sealer.replace(new.id(), vec![old.clone()]);
        assert_eq!((sealer.lacks(), sealer.current_id()), (Some(new.id()), new.id()));
        assert_eq!(sealer.seal(&binding(), b"secret"), Err(SealError));
        assert_eq!(sealer.reseal(&binding(), &record), Err(SealError));
        assert_eq!(sealer.open(&binding(), &record).unwrap().as_slice(), b"secret");
        sealer.replace(new.id(), vec![old, new.clone()]);
        let resealed = sealer.reseal(&binding(), &record).unwrap();
        assert_eq!((sealer.lacks(), master_key_id(&resealed)), (None, Some(new.id())));
        assert_eq!(Sealer::new(new, Vec::new()).open(&binding(), &resealed).unwrap().as_slice(), b"secret");
        assert_eq!(sealer.reseal(&Binding { row_id: "row2", ..binding() }, &record), Err(SealError));
        assert_eq!(master_key_id(&[1; 8]), None);
    }

    #[test]
    fn a_record_moved_elsewhere_does_not_open() {
        let sealer = sealer();
        let record = sealer.seal(&binding(), b"secret").unwrap();
        let other_spki = [8; 32];
        for elsewhere in [
            Binding { table: "others", ..binding() },
            Binding { row_id: "row2", ..binding() },
            Binding { column: "other", ..binding() },
            Binding { scope: "accounts/z", ..binding() },
            Binding { spki_sha256: &other_spki, ..binding() },
            Binding { row_id: "rowz", scope: "ones/z", ..binding() },
        ] {
            assert_eq!(sealer.open(&elsewhere, &record), Err(SealError), "{elsewhere:?}");
        }
    }

    #[test]
    fn a_master_key_reads_back_from_its_line_and_shows_only_its_id() {
        let key = MasterKey::generate().unwrap();
        let line = key.to_line();
        assert_eq!(MasterKey::parse(&line).unwrap().id(), key.id());
        assert_eq!(format!("{key:?}"), format!("MasterKey({})", key.id()));
        assert_eq!(key.id().len(), 16);
        for bad in ["", "\n", "AAAA", &format!("{}{}", *line, *line), &line[..40]] {
            assert!(MasterKey::parse(bad).is_err());
        }
    }

    proptest! {
        #[test]
        fn sealing_round_trips_and_any_flipped_bit_or_cut_is_refused(secret: Vec<u8>, place: prop::sample::Index, bit in 0_u8..8) {
            let sealer = sealer();
            let record = sealer.seal(&binding(), &secret).unwrap();
            prop_assert_eq!(&*sealer.open(&binding(), &record).unwrap(), &secret);
            let at = place.index(record.len());
            let mut flipped = record.clone();
            flipped[at] ^= 1 << bit;
            prop_assert_eq!(sealer.open(&binding(), &flipped), Err(SealError));
            prop_assert_eq!(sealer.open(&binding(), &record[..at]), Err(SealError));
        }

        #[test]
        fn opening_never_panics(record: Vec<u8>) {
            prop_assert_eq!(sealer().open(&binding(), &record), Err(SealError));
        }
    }
}
