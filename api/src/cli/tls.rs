//! Settings of TLS, and certificates that change while the service runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use api::http::tls::Tls;
use clap::Args;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};

use super::{bad_setting, reload::Fault};

/// Between two looks at the files. By their content, so that a file system without fine times and a swapped link are noticed too.
const LOOK: Duration = Duration::from_secs(5);

/// The certificate and key of HTTPS.
#[derive(Args)]
pub struct TlsArgs {
    /// Serve HTTPS, HTTP/2 too, with this certificate and those between it and its root (PEM); a changed file is loaded within 10 seconds
    #[arg(long, env = "CSRD_TLS_CERT", hide_env_values = true, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// The private key of --tls-cert (PEM)
    #[arg(long, env = "CSRD_TLS_KEY", hide_env_values = true, value_name = "FILE")]
    tls_key: Option<PathBuf>,
}

impl TlsArgs {
    /// What TLS needs, or `None` for plain HTTP.
    pub fn load(&self) -> anyhow::Result<Option<Arc<Tls>>> {
        match (&self.tls_cert, &self.tls_key) {
            (None, None) => Ok(None),
            (Some(certificate), Some(key)) => {
                Tls::load(certificate, key).map(|tls| Some(Arc::new(tls))).map_err(|error| bad_setting(error.to_string()))
            }
            (Some(_), None) => Err(bad_setting("--tls-key is missing: --tls-cert needs the private key too")),
            (None, Some(_)) => Err(bad_setting("--tls-cert is missing: --tls-key needs the certificate too")),
        }
    }
}

/// Loads the certificate and its key anew when a file changes, and at once on SIGHUP. A pair that cannot be used is an error in the log, once,
/// and the present one stays.
pub async fn reload(tls: Arc<Tls>, mut hangups: Signal) {
    let mut fault = Fault::default();
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let is_hangup = tokio::select! {
            _ = look.tick() => false,
            _ = hangups.recv() => true,
        };
        match tls.reload_if_changed() {
            Ok(changed) => {
                fault.mended();
                if changed {
                    tracing::info!("the TLS certificate and its key were loaded anew");
                }
            }
            Err(error) => {
                let text = error.to_string();
                if fault.is_news(&text, is_hangup) {
                    tracing::error!(error = text, "the TLS certificate and its key stay as they are");
                }
            }
        }
    }
}

/// The signal on which files are loaded anew.
pub fn hangups() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}
