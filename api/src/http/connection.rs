//! One HTTP/1.1 connection: it bounds the time and size of what arrives, and its end drops no request.

use std::{
    convert::Infallible,
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
    net::TcpStream,
    sync::{Notify, watch},
};

use super::{middleware::UnreadBody, patient_stream::PatientStream};

/// How long a request's headers may take to arrive, and how long a connection may be idle.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A request's headers may have this size.
const HEADER_BYTES: usize = 64 * 1024;
/// How long a new connection may take to send its first request once the server stops, and any connection to send the rest of one.
const LAST_REQUEST_TIME: Duration = Duration::from_secs(1);
/// How long a request that has arrived on an idle connection may take to be noticed once the server stops.
const NOTICE_TIME: Duration = Duration::from_millis(50);

/// Serves the requests of a connection until its client leaves, or until it is idle after `stopping` became true.
pub async fn serve_connection<E>(
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
    let (unread, requests) = (UnreadBody::default(), Arc::new(Requests::default()));
    let (marker, counted) = (unread.clone(), Arc::clone(&requests));
    let service = service_fn(move |req: Request<Incoming>| {
        let (endpoint, unread, in_flight) = (Arc::clone(&endpoint), marker.clone(), InFlight::begin(&counted));
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
    // hyper would close a connection whose next request has arrived but was not read yet.
    let notice_time = if requests.begun() == 0 { LAST_REQUEST_TIME } else { NOTICE_TIME };
    tokio::select! {
        ended = &mut connection => return ended,
        () = requests.until_in_flight() => {}
        () = tokio::time::sleep(notice_time) => {}
    }
    connection.as_mut().graceful_shutdown();
    match tokio::time::timeout(LAST_REQUEST_TIME, &mut connection).await {
        Ok(ended) => ended,
        // Nothing, or half a request: who waits for it would wait in vain.
        Err(_) if requests.in_flight() == 0 => Ok(()),
        Err(_) => connection.await,
    }
}

/// The requests of one connection, by number.
#[derive(Default)]
struct Requests {
    begun: AtomicUsize,
    answered: AtomicUsize,
    begins: Notify,
}

impl Requests {
    fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    fn in_flight(&self) -> usize {
        self.begun() - self.answered.load(Ordering::SeqCst)
    }

    async fn until_in_flight(&self) {
        while self.in_flight() == 0 {
            self.begins.notified().await;
        }
    }
}

/// Counts a request whose response is not there yet.
struct InFlight(Arc<Requests>);

impl InFlight {
    fn begin(requests: &Arc<Requests>) -> Self {
        requests.begun.fetch_add(1, Ordering::SeqCst);
        requests.begins.notify_one();
        Self(Arc::clone(requests))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::SeqCst);
    }
}
