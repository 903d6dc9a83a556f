//! Requests that csrd sends itself, all of them through one gate: whatever the other side does, each ends within a time, its answer within a
//! size, and it goes where it may go.

mod address;
mod gate;

use std::{error::Error, sync::Arc, time::Duration};

use reqwest::{Body, Certificate, Client, Response, StatusCode, header, header::HeaderValue, redirect::Policy};

pub use self::gate::{Gate, Reach, URL_MAX_CHARS, is_one_word};
pub use reqwest::{Url, header::HeaderMap};

/// How long fetching may take, its redirects and its answer together.
const GET_TIME: Duration = Duration::from_secs(10);
/// How long telling may take, until the head of the answer is there.
const POST_TIME: Duration = Duration::from_secs(15);
/// The largest answer that is read, in bytes.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// The most redirects that are followed.
const REDIRECTS_MAX: usize = 5;

/// Sends requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
    gate: Gate,
    get_time: Duration,
    post_time: Duration,
}

/// How requests are sent, for a process that may never send one: whoever sends reads the system's root certificates.
#[derive(Debug, Clone)]
pub struct OutboundSettings {
    /// Root certificates beside the system's, as PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// Where requests may go.
    pub reach: Reach,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The body.
    pub body: Vec<u8>,
    /// The Retry-After header, as it came.
    pub retry_after: Option<String>,
}

/// Why no request can be sent, or why it has no answer that counts: one line without the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct OutboundError {
    reason: String,
    is_late: bool,
}

impl OutboundError {
    fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), is_late: false }
    }

    /// A target is not one, for this reason of [`Gate::target`].
    #[must_use]
    pub fn of_target(reason: &str) -> Self {
        Self::new(format!("the URL {reason}"))
    }

    fn refused() -> Self {
        Self::new("its host leads to an address that is not public")
    }

    /// What was to come within this time.
    fn late(what: &str, time: Duration) -> Self {
        Self { is_late: true, ..Self::new(format!("no {what} came within {} s", time.as_secs_f64())) }
    }

    /// Whether the other side let us wait until the time was over: another request there would most likely wait as long.
    #[must_use]
    pub const fn is_late(&self) -> bool {
        self.is_late
    }
}

impl Outbound {
    /// Trusts the system's root certificates, and those of this PEM text.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] if a certificate cannot be read, or if there is none at all.
    pub fn new(ca_pem: Option<&[u8]>, reach: Reach) -> Result<Self, OutboundError> {
        Self::through(Gate::new(reach), ca_pem)
    }

    fn through(gate: Gate, ca_pem: Option<&[u8]>) -> Result<Self, OutboundError> {
        let roots = ca_pem.map(certificates).transpose()?.unwrap_or_default();
        let client = Client::builder()
            .tls_certs_merge(roots)
            .dns_resolver(Arc::new(gate.clone()))
            // Followed one by one below, if at all: each is looked at.
            .redirect(Policy::none())
            // A proxy comes from settings or not at all.
            .no_proxy()
            .referer(false)
            // An address is judged for each request.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("csrd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OutboundError::new(format!("no TLS client can be made: {}", cause(&error))))?;
        Ok(Self { client, gate, get_time: GET_TIME, post_time: POST_TIME })
    }

    /// Reads what is at this URL. Redirects lead to HTTPS on the same host only.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] if there is no answer 200, not all of it in 10 s, or more than 1 MiB.
    pub async fn get(&self, url: &Url, accept: &str) -> Result<Vec<u8>, OutboundError> {
        let answer = async { whole(self.follow(url, accept).await?).await };
        let late = |_| OutboundError::late("whole answer", self.get_time);
        tokio::time::timeout(self.get_time, answer).await.map_err(late)?
    }

    /// Gets this URL, with the Retry-After header of the answer. No redirect is followed.
    ///
    /// # Errors
    ///
    /// Like [`Outbound::get`].
    pub async fn ask(&self, url: &Url, accept: &str) -> Result<Answer, OutboundError> {
        self.gate.check_literal(url)?;
        let answer = async {
            let request = self.client.get(url.clone()).header(header::ACCEPT, accept);
            let response = request.send().await.map_err(|error| OutboundError::new(cause(&error)))?;
            if response.status() != StatusCode::OK {
                return Err(OutboundError::new(format!("the answer has the status {}", response.status().as_u16())));
            }
            let retry_after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
            Ok(Answer { body: whole(response).await?, retry_after })
        };
        let late = |_| OutboundError::late("whole answer", self.get_time);
        tokio::time::timeout(self.get_time, answer).await.map_err(late)?
    }

    /// Posts JSON, and returns the status of the answer, whatever it is: no redirect is followed, and no more of the answer is read.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] if the request may not go there, or if there is no answer in 15 s.
    pub async fn post(&self, url: &Url, mut headers: HeaderMap, json: String) -> Result<u16, OutboundError> {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.post_bytes(url, headers, json).await
    }

    /// The same with a body of any type; the headers name it.
    ///
    /// # Errors
    ///
    /// Those of [`Outbound::post`].
    pub async fn post_bytes(&self, url: &Url, headers: HeaderMap, body: impl Into<Body>) -> Result<u16, OutboundError> {
        self.gate.check_literal(url)?;
        let request = self.client.post(url.clone()).headers(headers).body(body);
        let late = |_| OutboundError::late("answer", self.post_time);
        let answer = tokio::time::timeout(self.post_time, request.send()).await.map_err(late)?;
        answer.map(|response| response.status().as_u16()).map_err(|error| OutboundError::new(cause(&error)))
    }

    async fn follow(&self, url: &Url, accept: &str) -> Result<Response, OutboundError> {
        let mut place = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            self.gate.check_literal(&place)?;
            let request = self.client.get(place.clone()).header(header::ACCEPT, accept);
            let response = request.send().await.map_err(|error| OutboundError::new(cause(&error)))?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                status if status.is_redirection() => place = next(&place, &response)?,
                status => return Err(OutboundError::new(format!("the answer has the status {}", status.as_u16()))),
            }
        }
        Err(OutboundError::new(format!("it redirects more than {REDIRECTS_MAX} times")))
    }
}

/// Where a redirect leads.
fn next(place: &Url, response: &Response) -> Result<Url, OutboundError> {
    let location = response.headers().get(header::LOCATION).and_then(|location| place.join(location.to_str().ok()?).ok());
    let location = location.ok_or_else(|| OutboundError::new(format!("the answer has the status {}", response.status().as_u16())))?;
    if location.scheme() != "https" || location.host_str() != place.host_str() {
        return Err(OutboundError::new("it redirects to another host, or not to HTTPS: give the URL where it ends"));
    }
    Ok(location)
}

/// The body, unless it is too large.
async fn whole(mut response: Response) -> Result<Vec<u8>, OutboundError> {
    let too_large = || OutboundError::new(format!("the answer has over {BODY_MAX_BYTES} bytes"));
    if response.content_length().is_some_and(|length| length > BODY_MAX_BYTES as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| OutboundError::new(cause(&error)))? {
        if body.len() + chunk.len() > BODY_MAX_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, OutboundError> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|_| OutboundError::new("it is not PEM"))?;
    if certificates.is_empty() { Err(OutboundError::new("it holds no certificate (PEM)")) } else { Ok(certificates) }
}

/// The innermost cause, which says most: `Connection refused`, `invalid peer certificate`.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::{
        net::IpAddr,
        sync::atomic::{AtomicUsize, Ordering},
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    /// What the server's answer says whose head and body these are; the body comes again and again, with a pause between.
    async fn outcome_of(head: &str, body: &[u8], times: usize, pause: Duration) -> Result<usize, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url: Url = format!("http://{}/jwks", listener.local_addr().unwrap()).parse().unwrap();
        let (head, body) = (head.to_owned(), body.to_vec());
        let server = tokio::spawn(async move {
            let (mut connection, _) = listener.accept().await.unwrap();
            serve(&mut connection, &head, &body, times, pause).await
        });
        let time = Duration::from_millis(if pause.is_zero() { 60_000 } else { 300 });
        let outbound = Outbound { get_time: time, ..Outbound::new(None, Reach::Anywhere).unwrap() };
        let outcome = outbound.get(&url, "application/json").await;
        server.abort();
        outcome.map(|body| body.len()).map_err(|error| error.to_string())
    }

    /// The client may leave at any time.
    async fn serve(connection: &mut TcpStream, head: &str, body: &[u8], times: usize, pause: Duration) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.windows(4).any(|end| end == b"\r\n\r\n") {
            if connection.read_buf(&mut request).await? == 0 {
                return Ok(());
            }
        }
        connection.write_all(format!("HTTP/1.1 {head}\r\n\r\n").as_bytes()).await?;
        for _ in 0..times {
            connection.write_all(body).await?;
            tokio::time::sleep(pause).await;
        }
        connection.shutdown().await
    }

    async fn at_once(head: &str, body: &[u8], times: usize) -> Result<usize, String> {
        outcome_of(head, body, times, Duration::ZERO).await
    }

    #[tokio::test]
    async fn an_answer_is_read_up_to_its_bound_whether_it_tells_its_length_or_not() {
        let part = vec![b'x'; 64 * 1024];
        for (head, times) in [("200 OK\r\nContent-Length: 1048576", 16), ("200 OK", 16), ("200 OK", 0)] {
            assert_eq!(at_once(head, &part, times).await, Ok(times * part.len()), "{head}");
        }
        let chunk = format!("10000\r\n{}\r\n", "x".repeat(part.len()));
        for (head, body, times) in [
            ("200 OK\r\nContent-Length: 1048577", &part[..], 0),
            ("200 OK", &part, 17),
            ("200 OK\r\nTransfer-Encoding: chunked", chunk.as_bytes(), 17),
        ] {
            assert_eq!(at_once(head, body, times).await.unwrap_err(), "the answer has over 1048576 bytes", "{head}");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_short_does_not_count() {
        assert!(at_once("200 OK\r\nContent-Length: 5", b"1234", 1).await.is_err());
        assert!(at_once("200 OK\r\nTransfer-Encoding: chunked", b"4\r\n1234\r\n", 1).await.is_err());
    }

    #[tokio::test]
    async fn an_answer_that_drips_or_never_ends_is_given_up() {
        let drip = Duration::from_millis(20);
        for head in ["200 OK", "200 OK\r\nContent-Length: 1000000"] {
            assert_eq!(outcome_of(head, b"x", usize::MAX, drip).await.unwrap_err(), "no whole answer came within 0.3 s", "{head}");
        }
    }

    #[tokio::test]
    async fn another_status_is_named() {
        for status in ["404", "500", "204", "206", "304"] {
            assert_eq!(at_once(&format!("{status} x"), b"", 0).await.unwrap_err(), format!("the answer has the status {status}"));
        }
    }

    #[tokio::test]
    async fn what_is_asked_says_when_to_ask_again_and_follows_no_redirect() {
        for (head, expected) in [
            ("200 OK\r\nRetry-After: 21600", Ok((2, Some("21600".to_owned())))),
            ("200 OK", Ok((2, None))),
            ("302 Found\r\nLocation: /other", Err("the answer has the status 302".to_owned())),
            ("503 Busy\r\nRetry-After: 5", Err("the answer has the status 503".to_owned())),
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let url: Url = format!("http://{}/x", listener.local_addr().unwrap()).parse().unwrap();
            let server = tokio::spawn(async move {
                let (mut connection, _) = listener.accept().await.unwrap();
                serve(&mut connection, head, b"{}", 1, Duration::ZERO).await
            });
            let answer = Outbound::new(None, Reach::Anywhere).unwrap().ask(&url, "application/json").await;
            server.abort();
            assert_eq!(answer.map(|answer| (answer.body.len(), answer.retry_after)).map_err(|error| error.to_string()), expected);
        }
        let private = Outbound::new(None, Reach::Public).unwrap().ask(&"https://10.0.0.1/".parse().unwrap(), "*/*").await;
        assert_eq!(private.unwrap_err(), OutboundError::refused());
    }

    #[tokio::test]
    async fn a_redirect_leads_to_https_on_the_same_host_or_nowhere() {
        for location in
            ["/other", "http://127.0.0.1:1/", "https://localhost/", "https://127.0.0.2/", "file:///etc/passwd", "//evil.example/"]
        {
            let refused = at_once(&format!("302 Found\r\nLocation: {location}"), b"", 0).await.unwrap_err();
            assert!(refused.starts_with("it redirects to another host, or not to HTTPS"), "{location}: {refused}");
        }
        // Port 1 is nobody's.
        let followed = at_once("307 Temporary Redirect\r\nLocation: https://127.0.0.1:1/", b"", 0).await.unwrap_err();
        assert!(followed.contains("refused"), "{followed}");
        assert_eq!(at_once("302 Found", b"", 0).await.unwrap_err(), "the answer has the status 302");
    }

    /// A server that lets clients wait for its answer, or answers this; how many connections it got.
    async fn receiver(answer: Option<&'static str>) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&connections);
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    match answer {
                        Some(head) => serve(&mut connection, head, b"x", 100_000, Duration::ZERO).await,
                        // Until the client leaves.
                        None => connection.read_to_end(&mut Vec::new()).await.map(drop),
                    }
                });
            }
        });
        (address, connections)
    }

    /// Names that lead somewhere else at each look-up: the last place stays.
    fn rebinding(reach: Reach, places: &[&str]) -> Gate {
        let places: Vec<IpAddr> = places.iter().map(|place| place.parse().unwrap()).collect();
        let looks = AtomicUsize::new(0);
        Gate::with(reach, move |_| {
            let place = places[looks.fetch_add(1, Ordering::SeqCst).min(places.len() - 1)];
            Box::pin(async move { Ok(vec![place]) })
        })
    }

    async fn posted(gate: Gate, url: &str) -> Result<u16, OutboundError> {
        Outbound::through(gate, None).unwrap().post(&url.parse().unwrap(), HeaderMap::new(), "{}".to_owned()).await
    }

    #[tokio::test]
    async fn a_name_that_leads_to_a_private_address_on_the_second_look_is_not_connected_to() {
        let (address, connections) = receiver(Some("200 OK")).await;
        for private in ["127.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"] {
            let gate = rebinding(Reach::Public, &["8.8.8.8", private]);
            let url = gate.target("https://hooks.example/").unwrap();
            assert_eq!(gate.leads_out(&url).await, Ok(()), "the first look gives a public address");
            let url = format!("http://hooks.example:{}/", address.port());
            assert_eq!(posted(gate, &url).await, Err(OutboundError::refused()), "{private}");
        }
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "[64:ff9b::127.0.0.1]"] {
            let url = format!("http://{host}:{}/", address.port());
            assert_eq!(posted(Gate::new(Reach::Public), &url).await, Err(OutboundError::refused()), "{host}");
        }
        assert_eq!(posted(Gate::new(Reach::Public), &format!("http://localhost:{}/", address.port())).await, Err(OutboundError::refused()));
        assert_eq!(connections.load(Ordering::SeqCst), 0);
        let gate = rebinding(Reach::Anywhere, &["127.0.0.1"]);
        assert_eq!(posted(gate, &format!("http://hooks.example:{}/", address.port())).await, Ok(200), "where it is allowed");
    }

    #[tokio::test]
    async fn what_is_told_follows_no_redirect_and_reads_no_body_and_waits_no_longer_than_its_time() {
        let (elsewhere, connections) = receiver(Some("200 OK")).await;
        let head: &'static str = format!("307 Temporary Redirect\r\nLocation: http://{elsewhere}/").leak();
        for (head, status) in [(head, 307), ("204 No Content", 204), ("200 OK\r\nContent-Length: 100000", 200), ("410 Gone", 410)] {
            let (address, _) = receiver(Some(head)).await;
            assert_eq!(posted(Gate::new(Reach::Anywhere), &format!("http://{address}/")).await, Ok(status));
        }
        assert_eq!(connections.load(Ordering::SeqCst), 0);
        let (silent, _) = receiver(None).await;
        let outbound = Outbound { post_time: Duration::from_millis(200), ..Outbound::new(None, Reach::Anywhere).unwrap() };
        let late = outbound.post(&format!("http://{silent}/").parse().unwrap(), HeaderMap::new(), String::new()).await;
        assert_eq!(late.unwrap_err().to_string(), "no answer came within 0.2 s");
    }

    #[test]
    fn certificates_that_are_none_are_refused() {
        for (pem, problem) in [
            (&b""[..], "it holds no certificate (PEM)"),
            (b"junk", "it holds no certificate (PEM)"),
            (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "it is not PEM"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no TLS client can be made"),
        ] {
            let refused = Outbound::new(Some(pem), Reach::Anywhere).unwrap_err().to_string();
            assert!(refused.starts_with(problem) && !refused.contains('\n'), "{refused}");
        }
    }
}
