//! One connection, plain or TLS, HTTP/1.1 or HTTP/2: it bounds the time and size of what arrives, and its end drops no request.

use std::{
    convert::Infallible,
    error::Error,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    time::Duration,
};

use hyper::{
    Method, Request, Response, Version,
    body::{Body as _, Incoming},
    header::{CONNECTION, HeaderValue},
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use poem::{
    Endpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    activity::{Activity, CLOSING_TIME, Overdue, Protocol, SILENCE_TIME},
    body::BODY_TIME,
    lingering::lingering,
    middleware::UnreadBody,
    paced::Paced,
    patient_stream::PatientStream,
    tls::HTTP_2,
};

/// A request's headers may have this size.
const HEADER_BYTES: u32 = 64 * 1024;
/// How long a request that has arrived on an idle connection may take to be noticed once the server stops.
const NOTICE_TIME: Duration = Duration::from_millis(50);
/// Requests that an HTTP/2 client may have in flight on one connection.
const STREAMS_MAX: u32 = 32;
/// Requests that may be reset on one HTTP/2 connection because of errors in them.
const ERROR_RESETS_MAX: usize = 256;
/// What an HTTP/2 client may send of one body, and of all bodies on a connection, before they are read, in bytes. More than a body may have:
/// some clients look for an answer only when they have sent all.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 512 * 1024;
/// What is held of a response that an HTTP/2 client does not take yet, in bytes.
const SEND_BYTES: usize = 64 * 1024;
/// When the server stops, how long requests in flight may keep it from saying so: clients such as Python's `h2` take no response after a
/// GOAWAY.
const GOAWAY_AFTER: Duration = Duration::from_secs(5);
/// When an HTTP/2 client that sends no request is asked for a sign of life, and how long that may take: it comes after the frame that is
/// being sent.
const PING_AFTER: Duration = Duration::from_secs(5);
const PONG_TIME: Duration = Duration::from_secs(25);

type Ended = Result<(), Box<dyn Error + Send + Sync>>;

/// Serves the requests of a connection until its client leaves, or until it is idle after `stopping` became true.
pub async fn serve_connection<E>(
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<E>,
    tls: Option<TlsAcceptor>,
    mut stopping: watch::Receiver<bool>,
) -> Ended
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(peer);
    let origin = Origin { endpoint, local, peer, scheme: if tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP } };
    let Some(tls) = tls else { return serve_http1(stream, origin, stopping).await };
    let too_late = async {
        let _ = stopping.wait_for(|stopping| *stopping).await;
        tokio::time::sleep(CLOSING_TIME).await;
    };
    let stream = tokio::select! {
        accepted = timeout(SILENCE_TIME, tls.accept(stream)) => accepted??,
        () = too_late => return Ok(()),
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(HTTP_2);
    if is_http2 { Box::pin(serve_http2(stream, origin, stopping)).await } else { Box::pin(serve_http1(stream, origin, stopping)).await }
}

/// Where requests come from, and what answers them.
struct Origin<E> {
    endpoint: Arc<E>,
    local: SocketAddr,
    peer: SocketAddr,
    scheme: Scheme,
}

impl<E: Endpoint<Output = poem::Response>> Origin<E> {
    async fn answer(&self, req: Request<Incoming>, unread: &UnreadBody) -> poem::Response {
        let mut req = poem::Request::from((req, LocalAddr(self.local.into()), RemoteAddr(self.peer.into()), self.scheme.clone()));
        req.extensions_mut().insert(unread.clone());
        // On HTTP/1 the end of the connection lingers.
        if req.version() == Version::HTTP_2 && unread.get() {
            let body = req.take_body();
            req.set_body(lingering(body));
        }
        self.endpoint.get_response(req).await
    }
}

async fn serve_http1<S, E>(stream: S, origin: Origin<E>, stopping: watch::Receiver<bool>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Endpoint<Output = poem::Response> + 'static,
{
    let (activity, unread, origin) = (Activity::new(Protocol::Http1), UnreadBody::default(), Arc::new(origin));
    let stream = PatientStream::new(stream, unread.clone(), Arc::clone(&activity));
    let requests = Arc::clone(&activity);
    let service = service_fn(move |req: Request<Incoming>| {
        unread.set(!req.body().is_end_stream());
        let (origin, unread, mut in_flight) = (Arc::clone(&origin), unread.clone(), requests.begin(&unread));
        async move {
            let mut response: Response<_> = origin.answer(req, &unread).await.into();
            if unread.get() {
                // hyper closes it after this response: the client must not send the next request here.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            in_flight.finish();
            Ok::<_, Infallible>(response)
        }
    });
    let header_bytes = HEADER_BYTES as usize;
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SILENCE_TIME).max_buf_size(header_bytes).max_header_size(header_bytes);
    // Its own cannot be written after the year 9999, and panics.
    builder.auto_date_header(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    until_ended(connection, http1::Connection::graceful_shutdown, Duration::ZERO, &activity, stopping).await
}

async fn serve_http2<S, E>(stream: S, origin: Origin<E>, stopping: watch::Receiver<bool>) -> Ended
where
    S: AsyncRead + AsyncWrite + Unpin,
    E: Endpoint<Output = poem::Response> + 'static,
{
    let (activity, origin) = (Activity::new(Protocol::Http2), Arc::new(origin));
    let stream = PatientStream::new(stream, UnreadBody::default(), Arc::clone(&activity));
    let requests = Arc::clone(&activity);
    let service = service_fn(move |req: Request<Incoming>| {
        let unread = UnreadBody::default();
        unread.set(!req.body().is_end_stream());
        let (origin, requests, in_flight) = (Arc::clone(&origin), Arc::clone(&requests), requests.begin(&unread));
        let (began, is_head) = (Instant::now(), req.method() == Method::HEAD);
        async move {
            let mut response = origin.answer(req, &unread).await;
            if is_head {
                response.take_body();
            }
            if unread.get() && began.elapsed() >= BODY_TIME {
                requests.end();
            }
            Ok::<_, Infallible>(Response::<_>::from(response).map(|body| Paced::new(body, in_flight)))
        }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_TIME)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES)
        .max_local_error_reset_streams(ERROR_RESETS_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(SEND_BYTES)
        .auto_date_header(false);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    until_ended(connection, http2::Connection::graceful_shutdown, GOAWAY_AFTER, &activity, stopping).await
}

/// Serves a connection until it ends, until it has kept the server waiting for too long, or until it is idle after `stopping` became true.
/// `end` has it end in order, which its requests in flight delay by `delay` at most.
async fn until_ended<C>(
    connection: C,
    end: impl Fn(Pin<&mut C>),
    delay: Duration,
    activity: &Activity,
    mut stopping: watch::Receiver<bool>,
) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        ended = until_overdue(connection.as_mut(), &end, activity) => return ended,
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    // hyper would close a connection whose next request has arrived but was not read yet.
    let notice_time = if activity.is_new() { CLOSING_TIME } else { NOTICE_TIME };
    tokio::select! {
        ended = until_overdue(connection.as_mut(), &end, activity) => return ended,
        () = activity.until_busy(true) => {}
        () = tokio::time::sleep(notice_time) => {}
    }
    if !delay.is_zero() {
        let last_answer = async {
            let _ = timeout(delay, activity.until_busy(false)).await;
            // What is handed out is written a moment later.
            tokio::time::sleep(NOTICE_TIME).await;
        };
        tokio::select! {
            ended = until_overdue(connection.as_mut(), &end, activity) => return ended,
            () = last_answer => {}
        }
    }
    end(connection.as_mut());
    match timeout(CLOSING_TIME, until_overdue(connection.as_mut(), &end, activity)).await {
        Ok(ended) => ended,
        // Nothing, or half a request: who waits for it would wait in vain.
        Err(_) if !activity.is_busy() => Ok(()),
        Err(_) => until_overdue(connection.as_mut(), &end, activity).await,
    }
}

/// Serves a connection until it ends, or until it has kept the server waiting for too long.
async fn until_overdue<C>(mut connection: Pin<&mut C>, end: &impl Fn(Pin<&mut C>), activity: &Activity) -> Ended
where
    C: Future<Output = hyper::Result<()>>,
{
    loop {
        let overdue = tokio::select! {
            ended = connection.as_mut() => return Ok(ended?),
            overdue = activity.until_overdue() => overdue,
        };
        match overdue {
            // The connection sees that it cannot read.
            Overdue::Body => {}
            Overdue::Request => end(connection.as_mut()),
            Overdue::Everything => return Err("it kept the server waiting for too long".into()),
        }
    }
}

#[cfg(test)]
mod tests;
