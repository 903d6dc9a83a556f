//! Where requests may go: checked when a URL is told, and again for every address that a connection is made to.

use std::{
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use reqwest::{
    Url,
    dns::{Addrs, Name, Resolve, Resolving},
};
use tokio::time::timeout;

use super::{OutboundError, address::is_public};

/// How long a name may take to be looked up when a URL is told.
const LOOK_UP_TIME: Duration = Duration::from_secs(3);
/// The longest URL, in characters.
pub const URL_MAX_CHARS: usize = 2048;

/// Where requests may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// To public addresses alone: for URLs that tenants choose.
    Public,
    /// To any address, and to this machine without TLS: for URLs that the operator chooses, or allows.
    Anywhere,
}

/// The addresses of a host.
type Found = Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send>>;
/// Looks a host up: the system does, or a test.
type LookUp = Arc<dyn Fn(String) -> Found + Send + Sync>;

/// Decides where requests may go.
#[derive(Clone)]
pub struct Gate {
    reach: Reach,
    look_up: LookUp,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gate({:?})", self.reach)
    }
}

impl Gate {
    /// A gate that asks the system for the addresses of names.
    #[must_use]
    pub fn new(reach: Reach) -> Self {
        Self::with(reach, |host| {
            Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
        })
    }

    pub(super) fn with(reach: Reach, look_up: impl Fn(String) -> Found + Send + Sync + 'static) -> Self {
        Self { reach, look_up: Arc::new(look_up) }
    }

    /// Reads a URL that somebody chose.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as the end of a sentence that begins with "it".
    pub fn target(&self, text: &str) -> Result<Url, String> {
        if text.chars().count() > URL_MAX_CHARS {
            return Err(format!("has over {URL_MAX_CHARS} characters"));
        }
        if !is_one_word(text) {
            return Err("must not hold blanks or control characters".to_owned());
        }
        let url: Url = text.parse().map_err(|_| "is not a URL, such as https://hooks.example/csrd".to_owned())?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must not hold a user or a password".to_owned());
        }
        match (url.scheme(), url.host()) {
            ("https", Some(_)) => {}
            ("http", Some(host)) if self.reach == Reach::Anywhere && is_loopback(&host) => {}
            _ => return Err("must begin with https://".to_owned()),
        }
        self.check_literal(&url).map_err(|_| NOT_PUBLIC.to_owned())?;
        Ok(url)
    }

    /// Looks up where a URL leads now. A name that is not known now may be known later.
    ///
    /// # Errors
    ///
    /// What is wrong with it, like that of [`Gate::target`].
    pub async fn leads_out(&self, url: &Url) -> Result<(), String> {
        let Some(host) = url.domain() else { return Ok(()) };
        match timeout(LOOK_UP_TIME, (self.look_up)(host.to_owned())).await {
            Ok(Ok(addresses)) if !self.lets_through(&addresses) => Err(NOT_PUBLIC.to_owned()),
            _ => Ok(()),
        }
    }

    /// Refuses a URL whose host is an address that is not let through: nobody looks one up.
    pub(super) fn check_literal(&self, url: &Url) -> Result<(), OutboundError> {
        let address = match url.host() {
            Some(url::Host::Ipv4(address)) => IpAddr::V4(address),
            Some(url::Host::Ipv6(address)) => IpAddr::V6(address),
            Some(url::Host::Domain(_)) | None => return Ok(()),
        };
        if self.lets_through(&[address]) { Ok(()) } else { Err(OutboundError::refused()) }
    }

    /// One address that is not let through makes all of them suspect.
    fn lets_through(&self, addresses: &[IpAddr]) -> bool {
        self.reach == Reach::Anywhere || addresses.iter().all(|address| is_public(*address))
    }
}

const NOT_PUBLIC: &str = "leads to an address that is not public";

fn is_loopback(host: &url::Host<&str>) -> bool {
    match host {
        url::Host::Domain(name) => *name == "localhost",
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => IpAddr::V6(*address).to_canonical().is_loopback(),
    }
}

/// Connections are made to the very addresses that were judged: no second look-up can give others.
impl Resolve for Gate {
    fn resolve(&self, name: Name) -> Resolving {
        let gate = self.clone();
        Box::pin(async move {
            let addresses = (gate.look_up)(name.as_str().to_owned()).await?;
            if !gate.lets_through(&addresses) {
                return Err(OutboundError::refused().into());
            }
            let addresses: Addrs = Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(addresses)
        })
    }
}

/// Whether a text has neither blanks nor control characters: what reads URLs drops some of them, and encodes others.
#[must_use]
pub fn is_one_word(text: &str) -> bool {
    !text.chars().any(|c| c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(reach: Reach) -> Gate {
        Gate::with(reach, |host| {
            let addresses: io::Result<Vec<IpAddr>> = match host.as_str() {
                "public.example" => Ok(vec!["8.8.8.8".parse().unwrap(), "2606:4700::1111".parse().unwrap()]),
                "mixed.example" => Ok(vec!["8.8.8.8".parse().unwrap(), "10.0.0.1".parse().unwrap()]),
                "mapped.example" => Ok(vec!["::ffff:127.0.0.1".parse().unwrap()]),
                "localhost" => Ok(vec!["127.0.0.1".parse().unwrap()]),
                _ => Err(io::Error::other("no such host")),
            };
            Box::pin(async move { addresses })
        })
    }

    async fn judged(reach: Reach, text: &str) -> Result<(), String> {
        let gate = gate(reach);
        gate.leads_out(&gate.target(text)?).await
    }

    #[tokio::test]
    async fn a_tenants_url_is_https_to_a_public_address_or_to_a_name_that_may_get_one() {
        for good in ["https://public.example/x?y=z", "HTTPS://8.8.8.8:8443/", "https://[2606:4700::1111]/", "https://unheard-of.example/"] {
            assert_eq!(judged(Reach::Public, good).await, Ok(()), "{good}");
        }
        for (bad, why) in [
            ("", "is not a URL"),
            ("public.example", "is not a URL"),
            ("/x", "is not a URL"),
            ("https://", "is not a URL"),
            ("http://public.example/", "https://"),
            ("http://127.0.0.1/", "https://"),
            ("ftp://public.example/", "https://"),
            ("file:///etc/passwd", "https://"),
            ("data:,x", "https://"),
            ("https://user@public.example/", "password"),
            ("https://:word@public.example/", "password"),
            ("https://127.0.0.1/", "not public"),
            ("https://127.1/", "not public"),
            ("https://2130706433/", "not public"),
            ("https://0x7f000001/", "not public"),
            ("https://0177.0.0.1/", "not public"),
            ("https://[::1]/", "not public"),
            ("https://[::ffff:10.0.0.1]/", "not public"),
            ("https://[64:ff9b::10.0.0.1]/", "not public"),
            ("https://169.254.169.254/latest/meta-data", "not public"),
            ("https://localhost/", "not public"),
            ("https://mixed.example/", "not public"),
            ("https://mapped.example/", "not public"),
        ] {
            let refused = judged(Reach::Public, bad).await.unwrap_err();
            assert!(refused.contains(why), "{bad}: {refused}");
        }
        let long = |chars: usize| format!("https://public.example/{}", "x".repeat(chars - 23));
        assert_eq!(judged(Reach::Public, &long(URL_MAX_CHARS)).await, Ok(()));
        assert!(judged(Reach::Public, &long(URL_MAX_CHARS + 1)).await.is_err());
    }

    #[tokio::test]
    async fn where_private_addresses_are_allowed_only_this_machine_is_reached_without_tls() {
        for good in ["https://10.0.0.1/", "https://mixed.example/", "http://127.0.0.1:1/", "http://[::1]/", "http://localhost/"] {
            assert_eq!(judged(Reach::Anywhere, good).await, Ok(()), "{good}");
        }
        for bad in ["http://10.0.0.1/", "http://public.example/", "http://localhost.example/", "http://0.0.0.0/"] {
            assert!(judged(Reach::Anywhere, bad).await.is_err(), "{bad}");
        }
    }
}
