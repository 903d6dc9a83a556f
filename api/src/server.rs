//! The accept loop: HTTP/1.1 and HTTP/2 with bounds on time and number, and a drain at the end.

use std::{convert::Infallible, future::Future, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use poem::{
    Endpoint,
    http::uri::Scheme,
    web::{LocalAddr, RemoteAddr},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

/// Connections at once; more wait in the listener's queue.
const MAX_CONNECTIONS: usize = 10_000;
/// How long a request's headers may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// A request's headers may have this size.
const HEADER_BYTES: usize = 64 * 1024;
/// A pause after a failed accept: out of file descriptors, an endless loop would take a whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` resolves, then takes no more connections and answers what is in flight, `patience` long.
///
/// False where some requests were still unanswered.
pub async fn serve<E>(listener: TcpListener, endpoint: E, shutdown: impl Future<Output = ()>, patience: Duration) -> bool
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    let endpoint = Arc::new(endpoint);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES);
    let keep_alive = Some(Duration::from_secs(20));
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(keep_alive).max_concurrent_streams(200);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            () = &mut shutdown => break,
        };
        let Some((stream, peer, place)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = connection(&builder, stream, peer, Arc::clone(&endpoint));
        let watched = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = watched.await {
                tracing::debug!(%error, %peer, "connection ended");
            }
            drop(place);
        });
    }
    drop(listener);
    tokio::time::timeout(patience, graceful.shutdown()).await.is_ok()
}

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, place)),
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            None
        }
    }
}

fn connection<E>(
    builder: &auto::Builder<TokioExecutor>,
    stream: TcpStream,
    peer: SocketAddr,
    endpoint: Arc<E>,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = Box<dyn std::error::Error + Send + Sync>> + Send + 'static
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    // Small answers must not wait for the acknowledgement of earlier ones.
    let _ = stream.set_nodelay(true);
    let local = stream.local_addr().unwrap_or(peer);
    let service = service_fn(move |req: Request<Incoming>| {
        let endpoint = Arc::clone(&endpoint);
        async move {
            let req = poem::Request::from((req, LocalAddr(local.into()), RemoteAddr(peer.into()), Scheme::HTTP));
            Ok::<Response<_>, Infallible>(endpoint.get_response(req).await.into())
        }
    });
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()
}
