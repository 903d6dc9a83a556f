//! Requests to a csrd, repeated where that helps.

use std::{error::Error, time::Duration};

use reqwest::{
    Method, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    redirect::Policy,
};
use serde_json::Value;

use crate::{
    failure::{Class, Failure},
    output::complain,
    problem::Origin,
    scope::Scope,
    session::Session,
};

/// How long the service may take to be reached.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long an answer may take: more than the service waits for a custom CSR, which is 30 s at most.
const ANSWER_TIME: Duration = Duration::from_mins(1);
/// The largest answer that is read, in bytes.
const BODY_MAX_BYTES: usize = 16 * 1024 * 1024;
/// How long to pause before each repetition if the service does not say.
const PAUSES: [Duration; 3] = [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1)];
/// The longest pause that the service may ask for.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// Sends requests about one zone or account.
pub struct Client {
    http: reqwest::Client,
    session: Session,
}

/// A request. It may be repeated, unless it is a POST without an Idempotency-Key that is not idempotent.
pub struct Request<'a> {
    method: Method,
    /// The segments of the path after the zone or account.
    path: Vec<&'a str>,
    query: Vec<(&'a str, String)>,
    body: Value,
    prefer_secs: Option<u64>,
    idempotency_key: Option<&'a str>,
    is_idempotent: bool,
    names: &'a [(&'a str, &'a str)],
}

impl<'a> Request<'a> {
    /// A request without a body.
    pub fn new(method: Method, path: impl Into<Vec<&'a str>>) -> Self {
        let path = path.into();
        Self {
            method,
            path,
            query: Vec::new(),
            body: Value::Null,
            prefer_secs: None,
            idempotency_key: None,
            is_idempotent: false,
            names: &[],
        }
    }

    /// With a parameter, if it has a value.
    pub fn query(mut self, name: &'a str, value: Option<impl ToString>) -> Self {
        self.query.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// With a body. Its members come from options of their names, but for those given here.
    pub fn body(mut self, body: Value, names: &'a [(&'a str, &'a str)]) -> Self {
        (self.body, self.names) = (body, names);
        self
    }

    /// The answer may wait for a custom CSR.
    pub const fn prefer_wait(mut self, secs: u64) -> Self {
        self.prefer_secs = Some(secs);
        self
    }

    /// Made once, however often it is sent.
    pub const fn idempotent_by(mut self, key: &'a str) -> Self {
        self.idempotency_key = Some(key);
        self
    }

    /// An idempotent POST.
    pub const fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }

    /// Whether it does no more when it arrives twice.
    fn may_repeat(&self) -> bool {
        self.method != Method::POST || self.is_idempotent || self.idempotency_key.is_some()
    }

    /// The ID in the path.
    fn id(&self) -> Option<&'a str> {
        self.path.get(1).copied()
    }
}

/// An answer that is a success.
pub struct Answer {
    pub result: Value,
    pub result_info: Value,
    /// Whether the service waited, as it was asked to.
    pub has_waited: bool,
}

/// What one attempt came to.
enum Attempt {
    Answered {
        status: StatusCode,
        pause: Option<Duration>,
        has_waited: bool,
        /// Whether nothing was done.
        is_undone: bool,
        envelope: Value,
    },
    /// There is no answer of csrd's: whether the request may have arrived, and whether there may be one next time.
    Silent { may_have_arrived: bool, is_temporary: bool, line: String },
}

impl Client {
    /// A client for this session.
    pub fn new(session: Session) -> Result<Self, Failure> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIME)
            .timeout(ANSWER_TIME)
            // The token is for this service alone.
            .redirect(Policy::none())
            .referer(false)
            .user_agent(concat!("csrctl/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::new(Class::Unreachable, format!("no TLS client can be made: {}", cause(&error))))?;
        Ok(Self { http, session })
    }

    /// The zone or account.
    pub const fn scope(&self) -> &Scope {
        &self.session.scope
    }

    /// Sends a request until there is an answer that counts, four times at most, and prints its warnings.
    pub async fn send(&self, request: &Request<'_>) -> Result<Answer, Failure> {
        let origin = Origin { id: request.id(), body: &request.body, names: request.names, scope: self.scope() };
        let (mut pauses, mut may_be_done) = (PAUSES.into_iter(), false);
        loop {
            let attempt = self.attempt(request).await;
            let pause = pauses.next();
            let pause = match attempt {
                Attempt::Answered { status, has_waited, envelope, .. } if status.is_success() => {
                    origin.messages(&envelope).iter().for_each(|line| complain(line));
                    let [result, result_info] = ["result", "result_info"].map(|name| envelope[name].clone());
                    return Ok(Answer { result, result_info, has_waited });
                }
                // An attempt before this one did it, and its answer was lost.
                Attempt::Answered { status: StatusCode::NOT_FOUND, .. } if may_be_done && request.method == Method::DELETE => {
                    let result = serde_json::json!({"id": request.id()});
                    return Ok(Answer { result, result_info: Value::Null, has_waited: false });
                }
                Attempt::Answered { status, pause: asked, is_undone, envelope, .. } => {
                    let may_repeat = is_temporary(status) && (is_undone || request.may_repeat());
                    let pause = asked.or(pause).filter(|_| pause.is_some() && may_repeat);
                    may_be_done |= !is_undone;
                    pause.filter(|pause| *pause <= PAUSE_MAX).ok_or_else(|| origin.failure(status.as_u16(), &envelope))?
                }
                Attempt::Silent { may_have_arrived, is_temporary, line } => {
                    may_be_done |= may_have_arrived;
                    let may_repeat = is_temporary && (!may_have_arrived || request.may_repeat());
                    pause.filter(|_| may_repeat).ok_or_else(|| Failure::new(Class::Unreachable, line))?
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn attempt(&self, request: &Request<'_>) -> Attempt {
        let shown = self.session.url.origin().ascii_serialization();
        let silent = |error: &reqwest::Error| Attempt::Silent {
            may_have_arrived: !error.is_connect(),
            is_temporary: true,
            line: format!("{shown} cannot be reached: {}", cause(error)),
        };
        let response = match self.build(request).send().await {
            Ok(response) => response,
            Err(error) => return silent(&error),
        };
        let (status, headers) = (response.status(), response.headers());
        let pause = headers.get(RETRY_AFTER).and_then(|secs| secs.to_str().ok()?.trim().parse().ok()).map(Duration::from_secs);
        let has_waited = headers.contains_key("preference-applied");
        // 503 without that header says that nothing was done; other faults say nothing.
        let may_be_done = headers.contains_key("x-should-retry") || (status.is_server_error() && status != StatusCode::SERVICE_UNAVAILABLE);
        let other = |what: &str| Attempt::Silent {
            may_have_arrived: true,
            is_temporary: is_temporary(status),
            line: format!("what answers at {shown} is no csrd, {what}, HTTP status {}: check the URL", status.as_u16()),
        };
        if status.is_redirection() {
            return other("it redirects");
        }
        let body = match whole(response).await {
            Ok(Some(body)) => body,
            Ok(None) => return other("its answer is too large"),
            Err(error) => return silent(&error),
        };
        match serde_json::from_slice::<Value>(&body) {
            Ok(envelope) if envelope["success"] == status.is_success() && envelope["errors"].is_array() => {
                Attempt::Answered { status, pause, has_waited, is_undone: !may_be_done, envelope }
            }
            _ => other("its answer is not in the envelope"),
        }
    }

    fn build(&self, request: &Request<'_>) -> reqwest::RequestBuilder {
        let mut url = self.session.url.clone();
        extend(&mut url, &["api", "v4"]);
        extend(&mut url, &self.session.scope.segments());
        extend(&mut url, &request.path);
        if !request.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&request.query);
        }
        let mut token = HeaderValue::try_from(format!("Bearer {}", self.session.token)).unwrap_or(HeaderValue::from_static(""));
        token.set_sensitive(true);
        let mut building = self.http.request(request.method.clone(), url).header(AUTHORIZATION, token).header(ACCEPT, "application/json");
        if !request.body.is_null() {
            building = building.header(CONTENT_TYPE, "application/json").body(request.body.to_string());
        }
        if let Some(secs) = request.prefer_secs {
            building = building.header("prefer", format!("wait={secs}"));
        }
        if let Some(key) = request.idempotency_key {
            building = building.header("idempotency-key", key);
        }
        building
    }
}

/// Too many requests, or a fault of the service's.
fn is_temporary(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error()
}

fn extend(url: &mut Url, segments: &[&str]) {
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(segments);
    }
}

/// The body, or `None` if it is too large.
async fn whole(mut response: Response) -> Result<Option<Vec<u8>>, reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > BODY_MAX_BYTES {
            return Ok(None);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(Some(body))
}

/// The innermost cause, which says most: `Connection refused`, `invalid peer certificate`.
fn cause(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}
