//! TLS: the listener's certificate and its key, which may change while the service runs.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use aws_lc_rs::digest::{SHA256, digest};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        crypto::aws_lc_rs::{default_provider, sign::any_supported_type},
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{Error as PemError, PemObject},
        },
        server::{ClientHello, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use zeroize::{Zeroize, Zeroizing};

use crate::secret_file::{self, Content, FileError};

/// What a client that speaks HTTP/2 asks for (ALPN).
pub const HTTP_2: &[u8] = b"h2";
const HTTP_1: &[u8] = b"http/1.1";

/// Why a certificate and its key are not used. It names the setting and the file, and says what is wrong.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate's file cannot be used.
    #[error("--tls-cert: {0}")]
    Certificate(FileError),
    /// The key's file cannot be used, or the key is that of another certificate.
    #[error("--tls-key: {0}")]
    Key(FileError),
    /// rustls refuses the settings.
    #[error("TLS: {0}")]
    Settings(#[from] rustls::Error),
}

/// The TLS 1.2 and 1.3 of a listener, with the certificate and key that two files hold.
pub struct Tls {
    files: Files,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
}

impl Tls {
    /// Loads a certificate, with those between it and its root, and its private key, both PEM.
    ///
    /// # Errors
    ///
    /// [`TlsError`] if a file cannot be used, or the two do not belong together.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files { certificate: certificate.to_owned(), key: key.to_owned() };
        let current = Arc::new(Current(RwLock::new(Arc::new(files.read()?.pair(&files)?))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&current) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![HTTP_2.to_vec(), HTTP_1.to_vec()];
        Ok(Self { files, current, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// Makes TLS of a connection.
    #[must_use]
    pub fn acceptor(&self) -> TlsAcceptor {
        self.acceptor.clone()
    }

    /// Loads the files anew if one of them changed; returns whether one did. Open connections stay as they are, and new ones get the new
    /// certificate. On an error the present certificate stays.
    ///
    /// # Errors
    ///
    /// As [`Tls::load`].
    pub fn reload_if_changed(&self) -> Result<bool, TlsError> {
        let contents = self.files.read()?;
        if contents.fingerprint() == self.current.pair().fingerprint {
            return Ok(false);
        }
        let pair = Arc::new(contents.pair(&self.files)?);
        *self.current.0.write().unwrap_or_else(PoisonError::into_inner) = pair;
        Ok(true)
    }
}

/// The pair that new connections get.
struct Current(RwLock<Arc<Pair>>);

impl Current {
    fn pair(&self) -> Arc<Pair> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.pair().certified))
    }
}

impl fmt::Debug for Current {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Current")
    }
}

/// A certificate and its key, and what tells them from others.
struct Pair {
    certified: Arc<CertifiedKey>,
    fingerprint: [u8; 32],
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
}

impl Files {
    fn read(&self) -> Result<Contents, TlsError> {
        Ok(Contents {
            certificate: secret_file::read(&self.certificate, Content::Public).map_err(TlsError::Certificate)?,
            key: secret_file::read(&self.key, Content::Secret).map_err(TlsError::Key)?,
        })
    }
}

/// Why a file is not read as PEM.
fn not_pem(error: &PemError) -> String {
    match error {
        PemError::MissingSectionEnd { .. } => "a PEM block is cut off: its END line is missing".to_owned(),
        PemError::IllegalSectionStart { .. } => "a BEGIN line is damaged".to_owned(),
        PemError::Base64Decode(_) => "a PEM block is damaged: what it holds is not base64".to_owned(),
        error => format!("it is not PEM: {error}"),
    }
}

/// What the two files hold.
struct Contents {
    certificate: Zeroizing<Vec<u8>>,
    key: Zeroizing<Vec<u8>>,
}

impl Contents {
    fn fingerprint(&self) -> [u8; 32] {
        let (certificate, key) = (digest(&SHA256, &self.certificate), digest(&SHA256, &self.key));
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest(&SHA256, &[certificate.as_ref(), key.as_ref()].concat()).as_ref());
        fingerprint
    }

    fn pair(&self, files: &Files) -> Result<Pair, TlsError> {
        let certificate = |problem: String| TlsError::Certificate(FileError::new(&files.certificate, problem));
        let key = |problem: String| TlsError::Key(FileError::new(&files.key, problem));
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&self.certificate).collect();
        let chain = chain.map_err(|error| certificate(not_pem(&error)))?;
        if chain.is_empty() {
            return Err(certificate("it holds no certificate in PEM".to_owned()));
        }
        let mut der = PrivateKeyDer::from_pem_slice(&self.key).map_err(|error| match error {
            PemError::NoItemsFound => key("it holds no private key in PEM, or one with a password: write it without".to_owned()),
            // Headers such as `Proc-Type: 4,ENCRYPTED` stand before the base64 of keys with a password.
            _ if self.key.windows(9).any(|part| part == b"ENCRYPTED") => key("it has a password: write it without".to_owned()),
            error => key(not_pem(&error)),
        })?;
        let signer = any_supported_type(&der);
        der.zeroize();
        let signer = signer.map_err(|_| key("it holds no RSA, ECDSA or Ed25519 key that can be used".to_owned()))?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                key(format!("it is not the key of the first certificate in {}", files.certificate.display()))
            }
            error => certificate(format!("its first certificate cannot be read: {error}")),
        })?;
        Ok(Pair { certified: Arc::new(certified), fingerprint: self.fingerprint() })
    }
}
