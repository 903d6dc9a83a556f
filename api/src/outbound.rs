//! Requests that csrd sends itself: whatever the other side does, each ends within a time, and its answer within a size.

use std::{error::Error, time::Duration};

use reqwest::{Certificate, Client, Response, StatusCode, header, redirect::Policy};

pub use reqwest::Url;

/// How long a request may take, its redirects and its answer together.
const TIME: Duration = Duration::from_secs(10);
/// The largest answer that is read, in bytes.
const BODY_MAX_BYTES: usize = 1024 * 1024;
/// The most redirects that are followed.
const REDIRECTS_MAX: usize = 5;

/// Sends requests.
#[derive(Debug, Clone)]
pub struct Outbound {
    client: Client,
    time: Duration,
}

/// Why no request can be sent, or why it has no answer that counts: one line without the URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct OutboundError(String);

impl Outbound {
    /// Trusts the system's root certificates, and those of this PEM text.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] if a certificate cannot be read, or if there is none at all.
    pub fn new(ca_pem: Option<&[u8]>) -> Result<Self, OutboundError> {
        let roots = ca_pem.map(certificates).transpose()?.unwrap_or_default();
        let client = Client::builder()
            .tls_certs_merge(roots)
            // Followed one by one below: each is looked at.
            .redirect(Policy::none())
            // A proxy comes from settings or not at all.
            .no_proxy()
            .referer(false)
            // Requests are minutes apart.
            .pool_max_idle_per_host(0)
            .user_agent(concat!("csrd/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| OutboundError(format!("no TLS client can be made: {}", cause(&error))))?;
        Ok(Self { client, time: TIME })
    }

    /// Reads what is at this URL. Redirects lead to HTTPS on the same host only.
    ///
    /// # Errors
    ///
    /// [`OutboundError`] if there is no answer 200, not all of it in 10 s, or more than 1 MiB.
    pub async fn get(&self, url: &Url, accept: &str) -> Result<Vec<u8>, OutboundError> {
        let answer = async { whole(self.follow(url, accept).await?).await };
        let late = |_| OutboundError(format!("no whole answer came within {} s", self.time.as_secs_f64()));
        tokio::time::timeout(self.time, answer).await.map_err(late)?
    }

    async fn follow(&self, url: &Url, accept: &str) -> Result<Response, OutboundError> {
        let mut place = url.clone();
        for _ in 0..=REDIRECTS_MAX {
            let request = self.client.get(place.clone()).header(header::ACCEPT, accept);
            let response = request.send().await.map_err(|error| OutboundError(cause(&error)))?;
            match response.status() {
                StatusCode::OK => return Ok(response),
                status if status.is_redirection() => place = next(&place, &response)?,
                status => return Err(OutboundError(format!("the answer has the status {}", status.as_u16()))),
            }
        }
        Err(OutboundError(format!("it redirects more than {REDIRECTS_MAX} times")))
    }
}

/// Where a redirect leads.
fn next(place: &Url, response: &Response) -> Result<Url, OutboundError> {
    let location = response.headers().get(header::LOCATION).and_then(|location| place.join(location.to_str().ok()?).ok());
    let location = location.ok_or_else(|| OutboundError(format!("the answer has the status {}", response.status().as_u16())))?;
    if location.scheme() != "https" || location.host_str() != place.host_str() {
        return Err(OutboundError("it redirects to another host, or not to HTTPS: give the URL where it ends".to_owned()));
    }
    Ok(location)
}

/// The body, unless it is too large.
async fn whole(mut response: Response) -> Result<Vec<u8>, OutboundError> {
    let too_large = || OutboundError(format!("the answer has over {BODY_MAX_BYTES} bytes"));
    if response.content_length().is_some_and(|length| length > BODY_MAX_BYTES as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| OutboundError(cause(&error)))? {
        if body.len() + chunk.len() > BODY_MAX_BYTES {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate>, OutboundError> {
    let certificates = Certificate::from_pem_bundle(pem).map_err(|_| OutboundError("it is not PEM".to_owned()))?;
    if certificates.is_empty() { Err(OutboundError("it holds no certificate (PEM)".to_owned())) } else { Ok(certificates) }
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
        let outbound = Outbound { time: Duration::from_millis(if pause.is_zero() { 60_000 } else { 300 }), ..Outbound::new(None).unwrap() };
        let outcome = outbound.get(&url, "application/json").await;
        server.abort();
        outcome.map(|body| body.len()).map_err(|error| error.to_string())
    }

    /// The client may leave at any time.
    async fn serve(connection: &mut TcpStream, head: &str, body: &[u8], times: usize, pause: Duration) -> std::io::Result<()> {
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") {
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

    #[test]
    fn certificates_that_are_none_are_refused() {
        for (pem, problem) in [
            (&b""[..], "it holds no certificate (PEM)"),
            (b"junk", "it holds no certificate (PEM)"),
            (b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "it is not PEM"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "no TLS client can be made"),
        ] {
            let refused = Outbound::new(Some(pem)).unwrap_err().to_string();
            assert!(refused.starts_with(problem) && !refused.contains('\n'), "{refused}");
        }
    }
}
