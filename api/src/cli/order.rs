//! The export of one certificate, for `csrd certificate export` and `csrd certificate sync`.

use std::path::Path;

use anyhow::{Context, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use shared::{
    clock::{Clock, SystemClock},
    custom_certificate::{CertificateStatus, CustomCertificate},
    custom_csr::KeyType,
    ids::CustomCertificateId,
    seal::{Binding, Sealer},
    storage::{Export, SealedRow, StartedExport, Store},
    x509::chain::PemChain,
};
use worker::keys::private_key::PrivateKey;
use zeroize::Zeroizing;

use super::{
    actor,
    data_dir::master_key_path,
    database::DatabaseArgs,
    export::{self, Done, ECDSA, Files, Options, Pair, Place, RSA, command},
    master_keys,
    settings::{complain, say},
};

/// Refuses a data directory without a master key.
pub fn check_master_key(database: &DatabaseArgs) -> anyhow::Result<()> {
    if master_keys::load(&database.data_dir)?.is_empty() {
        let path = master_key_path(&database.data_dir);
        bail!("there is no {}: run this where the workers run, with their master key", path.display());
    }
    Ok(())
}

/// A certificate to export.
pub struct Order<'a> {
    /// Its ID.
    pub id: CustomCertificateId,
    /// The directory.
    pub out: &'a Path,
    /// The options.
    pub options: &'a Options,
    /// Whether to replace files that no export wrote.
    pub force: bool,
}

impl Order<'_> {
    /// Whether an export of a certificate would change nothing. Records and unseals nothing.
    pub async fn is_done(&self, store: &dyn Store, certificate: &CustomCertificate) -> anyhow::Result<bool> {
        let id = self.id.to_string();
        let place = Place::find(self.out, &id, self.options, self.force)?;
        let members = members(store, &place, self.id).await?;
        Ok(place.unchanged_files()?.is_some_and(|found| is_same(certificate, &members, &found)))
    }

    /// Exports it. The audit entry is committed before the private key is unsealed. An export that is refused before that is not recorded.
    pub async fn run(&self, database: &DatabaseArgs, store: &dyn Store) -> anyhow::Result<()> {
        let files = master_keys::load(&database.data_dir)?;
        let at_hand = master_keys::at_hand(&database.data_dir, &files);
        let sealer = Sealer::of(String::new(), files.into_iter().map(|file| file.key).collect());
        let (id, shown) = (self.id.to_string(), self.out.display());
        let place = Place::find(self.out, &id, self.options, self.force)?;
        let export = match store.start_export(self.id, &actor::local(), SystemClock.now()).await? {
            StartedExport::Recorded(export) => export,
            StartedExport::NotFound => bail!("there is no custom certificate {id}: see csrd certificate list"),
            StartedExport::NotUsable { zone, custom_csr_id } => bail!(
                "the custom certificate {id} of {zone} names custom CSR {custom_csr_id}, which is not active or none that this zone may use, \
                 and nothing was written: it may be of another zone, or of an account that is not granted, or that is not the zone's (see csrd \
                 zone list, csrd account list)"
            ),
        };
        let Export { certificate, sealed } = *export;
        if certificate.status(SystemClock.now()) == CertificateStatus::Expired {
            complain(&format!("the certificate expired at {}: it is written all the same", certificate.chain.not_after.rfc3339()));
        }
        let members = members(store, &place, self.id).await?;
        // The files are compared without unsealing anything: the chain shows whether the private key is the right one.
        if place.unchanged_files()?.is_some_and(|found| is_same(&certificate, &members, &found)) {
            let said = say(&format!("nothing changed: {shown} has this certificate already"));
            self.warn_of_readers()?;
            return Ok(said?);
        }
        let opener = Opener { sealer, at_hand };
        let pair = opener.pair(&certificate, &sealed)?;
        let mut bundle = Vec::new();
        for (name, member) in &members {
            let combined = if member.id == self.id { pair.combined() } else { opener.recorded(store, member).await?.combined() };
            bundle.push((*name, combined));
        }
        let files = Files { pair, bundle };
        let mut directory = place.claim().await?;
        let done = directory.write(&files)?;
        let said = say(&match (done, directory.due_command()) {
            (Done::Wrote, _) => format!("wrote {} to {shown}", directory.names(&files)),
            (_, Some(_)) => format!("{shown} has this certificate already; the command has not succeeded since it came, and runs again"),
            (Done::Remembered, None) => format!("nothing changed but how the next export is done: {shown} has this certificate already"),
            (Done::Nothing, None) => format!("nothing changed: {shown} has this certificate already"),
        });
        drop(files);
        self.warn_of_readers()?;
        if let Some(due) = directory.due_command() {
            command::run(due, &id, self.out).await?.check()?;
            directory.command_succeeded()?;
        }
        Ok(said?)
    }

    fn warn_of_readers(&self) -> anyhow::Result<()> {
        for warning in export::kept_out(self.out, self.force)? {
            complain(&warning);
        }
        Ok(())
    }
}

/// The certificates of one set that lie beside the combined file of one of them, by the name of the file.
type Members = Vec<(&'static str, CustomCertificate)>;

/// What belongs beside the combined file of a certificate: for each kind of key that a terminator can choose by, it or the certificate of the
/// newest custom CSR of its set. Empty if it is of no set, or if no combined file is written.
async fn members(store: &dyn Store, place: &Place<'_>, id: CustomCertificateId) -> anyhow::Result<Members> {
    let mut members = Vec::new();
    if !place.is_combined()? {
        return Ok(members);
    }
    let matched = store.list_matched_certificates(Some(id)).await?;
    for (name, kind) in [(RSA, Kind::Rsa), (ECDSA, Kind::Ecdsa)] {
        let of_kind = matched.iter().filter(|matched| Kind::of(matched.key_type) == Some(kind));
        let Some(chosen) = of_kind.max_by_key(|matched| (matched.id == id, matched.custom_csr_id, matched.id)) else { continue };
        // With its chain.
        members.extend(store.find_certificate(&chosen.zone, chosen.id).await?.map(|found| (name, found)));
    }
    Ok(members)
}

/// The kinds of keys by which TLS servers choose among certificates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Rsa,
    Ecdsa,
}

impl Kind {
    const fn of(key_type: KeyType) -> Option<Self> {
        match key_type {
            KeyType::Rsa2048 | KeyType::Rsa3072 | KeyType::Rsa4096 => Some(Self::Rsa),
            KeyType::P256v1 | KeyType::P384 => Some(Self::Ecdsa),
            KeyType::Ed25519 | KeyType::MlDsa44 => None,
        }
    }
}

/// What opens private keys.
struct Opener {
    sealer: Sealer,
    /// The master keys, in words.
    at_hand: String,
}

impl Opener {
    /// The private key of a certificate, and its chain.
    fn pair(&self, certificate: &CustomCertificate, sealed: &SealedRow) -> anyhow::Result<Pair> {
        let (id, row_id, scope) = (certificate.id.to_string(), sealed.id.to_string(), sealed.scope.to_string());
        let (master_key_id, at_hand) = (&sealed.master_key_id, &self.at_hand);
        if !self.sealer.holds(master_key_id) {
            bail!(
                "the private key of custom CSR {row_id} needs the master key {master_key_id}, but {at_hand}: run this where the workers run"
            );
        }
        let binding = Binding::custom_csr(&row_id, &scope, &sealed.spki_sha256);
        let der = self.sealer.open(&binding, &sealed.sealed_private_key).with_context(|| format!("master key {master_key_id}"))?;
        check_pair(&id, &row_id, &der, &certificate.chain.pem)?;
        Ok(Pair { key: to_pem(&der), chain: certificate.chain.pem.clone().into_bytes() })
    }

    /// The same of another certificate, whose export is recorded before.
    async fn recorded(&self, store: &dyn Store, certificate: &CustomCertificate) -> anyhow::Result<Pair> {
        match store.start_export(certificate.id, &actor::local(), SystemClock.now()).await? {
            StartedExport::Recorded(export) => self.pair(&export.certificate, &export.sealed),
            StartedExport::NotFound | StartedExport::NotUsable { .. } => {
                bail!(
                    "the custom certificate {} of the same set changed at this moment, and nothing was written: repeat the export",
                    certificate.id
                )
            }
        }
    }
}

/// Whether the files hold these chains and the private keys for them.
fn is_same(certificate: &CustomCertificate, members: &Members, found: &Files) -> bool {
    let are_members = found.bundle.len() == members.len()
        && members
            .iter()
            .zip(&found.bundle)
            .all(|((name, member), (found, combined))| name == found && split(combined).is_some_and(|pair| is_pair(member, &pair)));
    are_members && is_pair(certificate, &found.pair)
}

fn is_pair(certificate: &CustomCertificate, found: &Pair) -> bool {
    let (id, csr, chain) = (certificate.id.to_string(), certificate.custom_csr_id.to_string(), &certificate.chain.pem);
    let key = from_pem(&found.key).filter(|der| to_pem(der) == found.key);
    found.chain == chain.as_bytes() && key.is_some_and(|der| check_pair(&id, &csr, &der, chain).is_ok())
}

/// The private key and the chain of a file that has both.
fn split(combined: &[u8]) -> Option<Pair> {
    let end = combined.windows(END.len()).position(|window| window == END)? + END.len();
    let (key, chain) = combined.split_at_checked(end)?;
    Some(Pair { key: key.to_vec().into(), chain: chain.to_vec() })
}

/// Checks, before anything is written, that the leaf's public key is that of the private key, and that the chain has nothing but
/// certificates: somebody who can write to the database, and nothing else, could have replaced them.
fn check_pair(id: &str, custom_csr_id: &str, private_key: &[u8], chain: &str) -> anyhow::Result<()> {
    let parsed = PemChain::parse(chain).ok().filter(|parsed| parsed.pem() == chain);
    let leaf = parsed.and_then(|parsed| parsed.first_spki_sha256());
    let key = KeyType::ALL.iter().find_map(|key_type| PrivateKey::parse(*key_type, private_key).ok()).map(|key| key.spki_sha256());
    if leaf.is_none() || leaf != key {
        bail!(
            "the chain of custom certificate {id} does not begin with a certificate for the private key of custom CSR {custom_csr_id}: \
             its row was changed, and nothing was written"
        );
    }
    Ok(())
}

const BEGIN: &[u8] = b"-----BEGIN PRIVATE KEY-----\n";
const END: &[u8] = b"-----END PRIVATE KEY-----\n";

/// The private key in what [`to_pem`] made.
fn from_pem(pem: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let lines = pem.strip_prefix(BEGIN)?.strip_suffix(END)?;
    let mut base64 = Zeroizing::new(Vec::with_capacity(lines.len()));
    base64.extend(lines.iter().filter(|byte| **byte != b'\n'));
    STANDARD.decode(&*base64).ok().map(Zeroizing::new)
}

/// The private key as PEM (RFC 7468, 10).
fn to_pem(der: &[u8]) -> Zeroizing<Vec<u8>> {
    let base64 = Zeroizing::new(STANDARD.encode(der));
    // Large enough from the start, since a buffer that grows leaves copies behind.
    let mut pem = Zeroizing::new(Vec::with_capacity(base64.len() * 2 + 128));
    pem.extend_from_slice(BEGIN);
    for line in base64.as_bytes().chunks(64) {
        pem.extend_from_slice(line);
        pem.push(b'\n');
    }
    pem.extend_from_slice(END);
    pem
}
