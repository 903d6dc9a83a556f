//! The accept loop: it bounds the number of connections, and drains at the end.

use std::{
    collections::HashMap,
    future::Future,
    io::ErrorKind,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use poem::Endpoint;
use rustix::process::{Resource, getrlimit};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch},
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{client::TrustedProxies, connection::serve_connection, tls::Tls};

/// File descriptors that connections leave to the rest of the process, which opens files and database connections while it runs. If the
/// limit is very low, half of it.
const SPARE_DESCRIPTORS: u64 = 32;
/// A pause after a failed accept: without file descriptors, the loop would take a whole core.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often the server looks for free file descriptors if no connection ends.
const DESCRIPTORS_PAUSE: Duration = Duration::from_millis(500);
/// The log has another warning of missing file descriptors only after this time without one.
const WARNINGS_APART: Duration = Duration::from_mins(1);
/// How long a stopping server takes connections out of the listener's queue, to which clients may still add.
const QUEUE_TIME: Duration = Duration::from_secs(1);

/// Which connections are taken, and how.
pub struct Options {
    /// The most that are open; more wait in the listener's queue.
    pub max_connections: usize,
    /// The most that are open from one address; more are closed at once.
    pub max_connections_per_address: usize,
    /// Whose addresses may have as many as there are: each speaks for many clients.
    pub trusted_proxies: TrustedProxies,
    /// What TLS needs, or `None` for plain HTTP.
    pub tls: Option<Arc<Tls>>,
}

impl Default for Options {
    fn default() -> Self {
        Self { max_connections: 10_000, max_connections_per_address: 256, trusted_proxies: TrustedProxies::default(), tls: None }
    }
}

/// Serves until `shutdown` resolves. Then it takes the connections in the listener's queue and no more, and answers what is in flight
/// for at most `patience`.
///
/// False if some requests were still unanswered.
pub async fn serve<E>(listener: TcpListener, options: Options, endpoint: E, shutdown: impl Future<Output = ()>, patience: Duration) -> bool
where
    E: Endpoint<Output = poem::Response> + 'static,
{
    let places = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
    // Every connection holds a sender: when the last is gone, so are they.
    let (open, mut all_closed) = mpsc::channel::<()>(1);
    let (stop, stopping) = watch::channel(false);
    let connections =
        Connections { endpoint: Arc::new(endpoint), options, addresses: Arc::default(), stopping, open, ended: Arc::default() };
    let mut warnings = Warnings::default();
    let accept_all = async {
        loop {
            match accept(&listener, &places).await {
                Ok((stream, peer, place)) => {
                    let is_scarce = is_scarce(stream.as_raw_fd());
                    connections.spawn(stream, peer, place);
                    if is_scarce {
                        warnings.warn("the limit is near");
                        connections.until_descriptors_are_free(&listener).await;
                    }
                }
                Err(error) => {
                    warnings.warn(&error.to_string());
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept_all => {}
        () = shutdown => {}
    }
    let end = Instant::now() + patience;
    // Idle connections end, which gives places to those in the queue.
    stop.send_replace(true);
    let (stop_last, stopping) = watch::channel(false);
    let last = Connections { stopping, ..connections };
    let all_taken = take_queued(listener, &places, end, |stream, peer, place| last.spawn(stream, peer, place)).await;
    drop(last);
    stop_last.send_replace(true);
    timeout_at(end, all_closed.recv()).await.is_ok() && all_taken
}

type Place = OwnedSemaphorePermit;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> std::io::Result<(TcpStream, SocketAddr, Place)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

/// Takes the clients that connected before the end, each once there is a place for it: closing the listener would reset them. False if some
/// got none in time.
async fn take_queued(
    listener: TcpListener,
    places: &Arc<Semaphore>,
    end: Instant,
    mut take: impl FnMut(TcpStream, SocketAddr, Place),
) -> bool {
    // Not tokio's: its view of the queue may be old.
    let Ok(listener) = listener.into_std() else { return true };
    // Clients go on connecting for as long as the queue is there.
    let mut last = Instant::now() + QUEUE_TIME;
    while Instant::now() < last {
        match listener.accept() {
            Ok((stream, peer)) => {
                let began = Instant::now();
                let Ok(Ok(place)) = timeout_at(end, Arc::clone(places).acquire_owned()).await else { return false };
                last += began.elapsed();
                if stream.set_nonblocking(true).is_ok()
                    && let Ok(stream) = TcpStream::from_std(stream)
                {
                    take(stream, peer, place);
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return true,
            // Such as no file descriptor left, or a client that went away.
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
    true
}

/// Whether a descriptor of this number leaves few to the rest of the process: the system gives the lowest that is free.
fn is_scarce(descriptor: RawFd) -> bool {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return false };
    u64::try_from(descriptor).is_ok_and(|number| number + SPARE_DESCRIPTORS.min(limit / 2) >= limit)
}

/// Warns once, not at each try, that connections must wait.
#[derive(Default)]
struct Warnings(Option<Instant>);

impl Warnings {
    fn warn(&mut self, reason: &str) {
        if self.0.is_none_or(|last| last.elapsed() > WARNINGS_APART) {
            tracing::warn!(reason, "connections cannot be accepted for now: raise the limit of file descriptors (ulimit -n)");
        }
        self.0 = Some(Instant::now());
    }
}

/// How many connections each address has.
#[derive(Debug, Default)]
struct Addresses(Mutex<HashMap<IpAddr, usize>>);

impl Addresses {
    /// A connection of this address, or `None` if it has `max` already.
    fn take(self: &Arc<Self>, address: IpAddr, max: usize) -> Option<AddressPlace> {
        let mut counts = self.counts();
        let count = counts.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(AddressPlace { addresses: Arc::clone(self), address })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection of an address.
struct AddressPlace {
    addresses: Arc<Addresses>,
    address: IpAddr,
}

impl Drop for AddressPlace {
    fn drop(&mut self) {
        let mut counts = self.addresses.counts();
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Starts connections and knows when one ends.
struct Connections<E> {
    endpoint: Arc<E>,
    options: Options,
    addresses: Arc<Addresses>,
    stopping: watch::Receiver<bool>,
    open: mpsc::Sender<()>,
    ended: Arc<Notify>,
}

impl<E: Endpoint<Output = poem::Response> + 'static> Connections<E> {
    /// Serves a connection in a task of its own, which holds its place until the end. If its address has too many, it is closed.
    fn spawn(&self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let Options { max_connections_per_address, trusted_proxies, tls, .. } = &self.options;
        let address = peer.ip().to_canonical();
        let max = if trusted_proxies.contains(address) { usize::MAX } else { *max_connections_per_address };
        let Some(address_place) = self.addresses.take(address, max) else {
            tracing::debug!(%peer, "connection closed: its address has too many");
            return;
        };
        let (endpoint, stopping) = (Arc::clone(&self.endpoint), self.stopping.clone());
        let (open, ended) = (self.open.clone(), Arc::clone(&self.ended));
        let tls = tls.as_ref().map(|tls| tls.acceptor());
        tokio::spawn(async move {
            if let Err(error) = serve_connection(stream, peer, endpoint, tls, stopping).await {
                tracing::debug!(%error, %peer, "connection ended");
            }
            drop((place, address_place, open));
            ended.notify_one();
        });
    }

    /// Waits until another connection leaves enough file descriptors to the rest of the process. It does not wait if no connection is open:
    /// however low the limit is, one client at a time is served.
    async fn until_descriptors_are_free(&self, listener: &TcpListener) {
        while self.open.strong_count() > 1 && listener.as_fd().try_clone_to_owned().map_or(true, |copy| is_scarce(copy.as_raw_fd())) {
            let _ = timeout(DESCRIPTORS_PAUSE, self.ended.notified()).await;
        }
    }
}
