//! The accept loop: HTTP/1.1 with bounds on time and number, and a drain at the end.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    header::{CONNECTION, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use poem::{
    Endpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::Instant,
};

use crate::{middleware::UnreadBody, patient_stream::PatientStream};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a request's headers may take to arrive, and how long a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A request's headers may have this size.
const HEADER_BYTES: usize = 64 * 1024;
/// A pause after a failed accept: out of file descriptors, an endless loop would take a whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Accepts that fail are told of again only after such a time without any.
const ERRORS_APART: Duration = Duration::from_mins(1);
/// How long a connection without a request in flight may take to send one once the server stops.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);

/// Serves until `shutdown` resolves, then takes what waits in the listener's queue and no more, and answers what is in flight, for as
/// long as `patience`.
///
/// False if some requests were still unanswered.
pub async fn serve<E>(listener: TcpListener, endpoint: E, shutdown: impl Future<Output = ()>, patience: Duration) -> bool
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    // Every connection holds a sender: when the last is gone, so are they.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let (stop, stopping) = watch::channel(false);
    let connections = Connections { endpoint: Arc::new(endpoint), stopping };
    let mut shutdown = pin!(shutdown);
    let mut last_error: Option<Instant> = None;
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                connections.spawn(stream, peer, (place, open.clone()));
            }
            Err(error) => {
                // Once, not at each try: those that are open are served on.
                if last_error.is_none_or(|last| last.elapsed() > ERRORS_APART) {
                    tracing::warn!(%error, "connections cannot be accepted for now: more file descriptors may be needed (ulimit -n)");
                }
                last_error = Some(Instant::now());
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    take_queued(listener, &places, |stream, peer, place| connections.spawn(stream, peer, (place, open.clone())));
    stop.send_replace(true);
    drop(open);
    tokio::time::timeout(patience, all_closed.recv()).await.is_ok()
}

type Place = OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Clients that connected before the end are served: closing the listener would reset them.
fn take_queued(listener: TcpListener, places: &Arc<Semaphore>, mut take: impl FnMut(TcpStream, SocketAddr, Place)) {
    let Ok(listener) = listener.into_std() else { return };
    while let Ok(place) = Arc::clone(places).try_acquire_owned() {
        let Ok((stream, peer)) = listener.accept() else { return };
        if stream.set_nonblocking(true).is_ok()
            && let Ok(stream) = TcpStream::from_std(stream)
        {
            take(stream, peer, place);
        }
    }
}

struct Connections<E> {
    endpoint: Arc<E>,
    stopping: watch::Receiver<bool>,
}

impl<E: Endpoint<Output = poem::Response> + 'static> Connections<E> {
    /// Serves a connection in a task of its own, which holds `held` until the end.
    fn spawn<H: Send + 'static>(&self, stream: TcpStream, peer: SocketAddr, held: H) {
        let (endpoint, stopping) = (Arc::clone(&self.endpoint), self.stopping.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_connection(stream, peer, endpoint, stopping).await {
                tracing::debug!(%error, %peer, "connection ended");
            }
            drop(held);
        });
    }
}

async fn serve_connection<E>(
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<E>,
    mut stopping: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(peer);
    let (unread, in_flight) = (UnreadBody::default(), Arc::new(AtomicUsize::new(0)));
    let (marker, counted) = (unread.clone(), Arc::clone(&in_flight));
    let service = service_fn(move |req: Request<Incoming>| {
        let (endpoint, unread, in_flight) = (Arc::clone(&endpoint), marker.clone(), InFlight::new(&counted));
        async move {
            unread.set(!hyper::body::Body::is_end_stream(req.body()));
            let mut req = poem::Request::from((req, LocalAddr(local.into()), RemoteAddr(peer.into()), Scheme::HTTP));
            req.extensions_mut().insert(unread.clone());
            let mut response: Response<_> = endpoint.get_response(req).await.into();
            if unread.get() {
                // hyper closes it after this response: the client must not send the next request here.
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            drop(in_flight);
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES).max_header_size(HEADER_BYTES);
    // Its own cannot be written after the year 9999, and panics.
    builder.auto_date_header(false);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(PatientStream::new(stream, unread)), service));
    tokio::select! {
        ended = &mut connection => return ended,
        _ = stopping.wait_for(|stopping| *stopping) => {}
    }
    connection.as_mut().graceful_shutdown();
    match tokio::time::timeout(LAST_REQUEST_TIME, &mut connection).await {
        Ok(ended) => ended,
        // Nothing, or half a request: who waits for it would wait in vain.
        Err(_) if in_flight.load(Ordering::SeqCst) == 0 => Ok(()),
        Err(_) => connection.await,
    }
}

/// Counts a request whose response is not there yet.
struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}
