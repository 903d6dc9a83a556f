//! Keys that an identity provider publishes by URL: who needs new ones asks for them, and one task fetches them for all.

use std::{
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::{Instant, timeout},
};

use shared::outbound::Url;

/// Between two fetches because of tokens: anyone can name a key that is not there.
const BETWEEN_ASKS: Duration = Duration::from_secs(30);
/// How long a request waits for a fetch, which takes no longer by itself.
const WAIT: Duration = Duration::from_secs(10);

/// What those who need new keys and the task that fetches them tell each other.
pub(super) struct Renewal {
    asks: Mutex<Asks>,
    asked: Notify,
    /// The number of the last ask that was answered.
    answered: watch::Sender<u64>,
    /// Why there are no keys.
    problem: Mutex<String>,
    /// When the last fetch that brought keys ended.
    fetched: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Asks {
    last: Option<Instant>,
    number: u64,
}

impl Renewal {
    pub fn new() -> Self {
        let problem = "their JWK set is being fetched".to_owned();
        Self {
            asks: Mutex::default(),
            asked: Notify::new(),
            answered: watch::Sender::new(0),
            problem: Mutex::new(problem),
            fetched: Mutex::default(),
        }
    }

    /// Asks for a fetch, unless one was asked for a moment ago, and waits until that one has ended. A request that goes away takes nothing
    /// with it: the fetch is another task's.
    pub async fn ask(&self) {
        let wanted = {
            let mut asks = self.asks();
            if asks.last.is_none_or(|last| last.elapsed() >= BETWEEN_ASKS) {
                asks.last = Some(Instant::now());
                asks.number += 1;
                self.asked.notify_one();
            }
            asks.number
        };
        let mut answered = self.answered.subscribe();
        // Too late is as good as in vain: the token is judged by the keys that are there.
        let _ = timeout(WAIT, answered.wait_for(|answered| *answered >= wanted)).await;
    }

    /// Resolves when somebody asked for a fetch.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The number of the last ask: a fetch that begins now answers it.
    pub fn number(&self) -> u64 {
        self.asks().number
    }

    /// A fetch has ended that answers this ask, well or with a problem.
    pub fn answer(&self, number: u64, problem: Option<&str>) {
        match problem {
            Some(problem) => problem.clone_into(&mut self.problem.lock().unwrap_or_else(PoisonError::into_inner)),
            None => *self.fetched.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now()),
        }
        self.answered.send_replace(number);
    }

    /// Why there are no keys, if there are none.
    pub fn problem(&self) -> String {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How long ago a fetch last brought keys, whether they were new or not.
    pub fn age(&self) -> Option<Duration> {
        self.fetched.lock().unwrap_or_else(PoisonError::into_inner).map(|at| at.elapsed())
    }

    fn asks(&self) -> MutexGuard<'_, Asks> {
        self.asks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the URL of a JWK set.
///
/// # Errors
///
/// What is wrong with it, where it is neither HTTPS nor HTTP to this machine, or holds a password.
pub fn jwks_url(text: &str) -> Result<Url, String> {
    let url: Url = text.parse().map_err(|_| "write a URL, such as https://id.example/jwks".to_owned())?;
    // Whoever reads the log reads the URL.
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL must not hold a user or a password".to_owned());
    }
    match (url.scheme(), url.host_str()) {
        ("https", Some(_)) => Ok(url),
        ("http", Some(host)) if is_loopback(host) => Ok(url),
        _ => Err("write an https URL, such as https://id.example/jwks; http is for 127.0.0.1, [::1] and localhost alone".to_owned()),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test]
    async fn all_who_ask_wait_for_one_fetch_that_begins_later_and_nobody_asks_again_soon() {
        let (renewal, moment) = (Renewal::new(), Duration::ZERO);
        let earlier = renewal.number();
        assert_eq!(renewal.age(), None);
        let mut asking = pin!(async { tokio::join!(renewal.ask(), renewal.ask()) });
        assert!(timeout(moment, &mut asking).await.is_err());
        renewal.asked().await;
        renewal.answer(earlier, None);
        assert!(timeout(moment, &mut asking).await.is_err(), "a fetch that began before may have missed the key");
        assert_eq!(renewal.number(), 1);
        assert!(renewal.age().is_some());
        renewal.answer(1, Some("refused"));
        asking.await;
        assert_eq!(renewal.problem(), "refused");
        renewal.ask().await;
        assert_eq!(renewal.number(), 1);
        assert!(timeout(moment, renewal.asked()).await.is_err(), "nothing is left to be fetched");
    }

    #[test]
    fn a_url_is_https_or_http_to_this_machine_and_holds_no_password() {
        for good in [
            "https://id.example/jwks",
            "https://10.0.0.1:8443/x?y=z",
            "http://127.0.0.1:8080/",
            "http://127.9.9.9/",
            "http://[::1]:1/",
            "http://localhost/a",
            "HTTP://LOCALHOST/",
        ] {
            assert!(jwks_url(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "id.example",
            "http://id.example/",
            "http://127.0.0.1.example/",
            "http://localhost.example/",
            "http://10.0.0.1/",
            "http://[::2]/",
            "http://0.0.0.0/",
            "ftp://127.0.0.1/",
            "file:///jwks.json",
            "data:,x",
            "https://",
            "https://user@id.example/",
            "https://:word@id.example/",
        ] {
            assert!(jwks_url(bad).is_err(), "{bad}");
        }
    }
}
