//! The demo identity: what lets a first start be used at once.

use std::{io::ErrorKind, net::SocketAddr, path::Path, time::Duration};

use anyhow::Context;
use api::{
    auth::{
        JwtSettings,
        signing::{Secret, TokenRequest, create_demo_secret, issue, load_demo_secret},
    },
    secret_file::is_temporary,
};
use shared::{
    clock::{Clock, SystemClock},
    custom_csr::{KeyType, KeyTypes},
    ids::{Scope, TenantId},
    printable::escape,
    storage::Store,
};

use super::{
    actor, bad_setting,
    data_dir::{is_master_key_name, signing_key_path},
    database::create_private_dir,
    settings::Output,
    token,
};

const DEMO_ZONE: &str = "demo";
const DEMO_QUOTA: u32 = 100;
const TOKEN_TTL: Duration = Duration::from_hours(24);

const NEEDED: &str = "give --jwt-jwks-url, --jwt-jwks-file, --jwt-public-key-file or --jwt-secret-file";

/// The files that a data directory may hold before a first start: those that other commands make. Beside them and master keys there may be what a start that
/// was killed left behind.
const FIRST_START_FILES: [&str; 4] = ["csrd.db", "csrd.db-wal", "csrd.db-shm", "csrd.db.lock"];

/// The demo identity of this start.
pub struct Demo {
    /// Its secret.
    pub secret: Secret,
    /// Whether it was made just now.
    pub is_new: bool,
}

/// Without a key for tokens there is the demo identity, and that is for the own machine only.
pub fn check_listener(listen: SocketAddr) -> anyhow::Result<()> {
    // An IPv4 address may be written as one of IPv6.
    if listen.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(bad_setting(format!("--listen: {listen} is not a loopback address, and the demo identity is for those alone: {NEEDED}")))
}

/// Finds the demo identity, or makes it on a first start.
pub async fn find_or_make(data_dir: &Path, store: &dyn Store) -> anyhow::Result<Demo> {
    let path = signing_key_path(data_dir);
    if let Some(secret) = load_demo_secret(&path)? {
        return Ok(Demo { secret, is_new: false });
    }
    if !is_first_start(data_dir, store).await? {
        return Err(bad_setting(format!(
            "no key for tokens: {NEEDED} (the demo identity is made on a first start with an empty --data-dir only)"
        )));
    }
    create_private_dir(data_dir)?;
    // First: a start that is killed here is followed by another first start, one that is killed after the file by none.
    store.grant_scope(&demo_zone()?, None, Some(DEMO_QUOTA), &actor::local(), SystemClock.now()).await?;
    let created = create_demo_secret(&path);
    if created.as_ref().is_err_and(|error| error.kind() == ErrorKind::AlreadyExists)
        && let Some(secret) = load_demo_secret(&path)?
    {
        // Another process made it at the same moment.
        return Ok(Demo { secret, is_new: false });
    }
    let secret = created.with_context(|| format!("{} cannot be created", path.display()))?;
    Ok(Demo { secret, is_new: true })
}

/// Whether nothing lies there, wherever the database is; or nothing but what other commands make, and no process made keys on this
/// database.
async fn is_first_start(data_dir: &Path, store: &dyn Store) -> anyhow::Result<bool> {
    let mut is_empty = true;
    if data_dir.exists() {
        for entry in std::fs::read_dir(data_dir).with_context(|| format!("--data-dir: {}", data_dir.display()))? {
            let name = entry?.file_name();
            let is_known = FIRST_START_FILES.iter().any(|known| name == *known) || is_master_key_name(&name);
            if !is_known && !is_temporary(&name) {
                return Ok(false);
            }
            is_empty = false;
        }
    }
    let made_keys = store.count_pool_keys().await? > 0 || store.list_master_keys().await?.iter().any(|key| key.in_use);
    Ok(is_empty || !made_keys)
}

fn demo_zone() -> anyhow::Result<Scope> {
    Ok(Scope::Zone(TenantId::parse(DEMO_ZONE).context("the demo zone's ID")?))
}

/// Tells how to begin. In a thread of its own: a reader of standard output that stopped reading holds nothing up.
pub async fn print_welcome(
    base: &str,
    data_dir: &Path,
    settings: &JwtSettings,
    is_new: bool,
    key_types: &KeyTypes,
    store: &dyn Store,
) -> anyhow::Result<()> {
    let place = data_dir.display().to_string();
    let how = if is_new {
        let request = TokenRequest { zones: vec![DEMO_ZONE.into()], accounts: vec![], scope: None, subject: "demo".into(), ttl: TOKEN_TTL };
        let token = issue(settings, &request, SystemClock.now())?;
        token::record(store, &request).await?;
        // Where the default is not accepted, the line names one that is.
        let named = key_types.words().next().filter(|_| !key_types.contains(KeyType::Rsa2048));
        let key_type = named.map_or_else(String::new, |word| format!(",\"key_type\":\"{word}\""));
        format!(
            "A first request, for the demo zone (its token is valid for a day):\n\
             curl -sS -X POST '{base}/api/v4/zones/{DEMO_ZONE}/custom_csrs' -H 'Authorization: Bearer {token}' \
             -H 'Prefer: wait=30' -H 'Content-Type: application/json' -d '{{\"country\":\"US\",\"state\":\"California\",\"locality\":\"San Francisco\",\
             \"organization\":\"Demo\",\"common_name\":\"www.csrd-demo.com\",\"sans\":[\"www.csrd-demo.com\",\"csrd-demo.com\"]{key_type}}}'"
        )
    } else {
        format!("A token for the demo zone: csrd token issue --zone {DEMO_ZONE} (with this --data-dir)")
    };
    let text = format!("csrd answers on {base}; its data directory is {}\nSwagger UI: {base}/docs\n{how}\n", escape(&place));
    std::thread::Builder::new().name("welcome".to_owned()).spawn(move || {
        if let Err(error) = Output::new().text(&text) {
            tracing::warn!("{error}");
        }
    })?;
    Ok(())
}
