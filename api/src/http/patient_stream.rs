//! The bytes of a connection: it notes when they wait for the client.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

use super::{activity::Activity, middleware::UnreadBody, refusal::in_envelope};

/// How long the server goes on reading after its response from a client that still sends, which would otherwise get a reset.
pub const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much it may send meanwhile, in bytes.
pub const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// What is kept of what was read last, in bytes: the head of nearly all requests.
const KEPT_BYTES: usize = 2 * 1024;

/// A connection that notes when it waits for its client. Its end waits for a client that still sends.
pub struct PatientStream<S> {
    stream: S,
    unread: UnreadBody,
    activity: Arc<Activity>,
    /// Runs while the rest of a body is thrown away.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
    /// The first bytes of what was read last.
    last_read: Vec<u8>,
    instead: Option<Instead>,
}

/// What is written instead of other bytes.
struct Instead {
    bytes: Vec<u8>,
    written: usize,
    /// How many bytes it stands for.
    stands_for: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> PatientStream<S> {
    /// This connection; `unread` says whether its last request's body was not read to the end.
    #[must_use]
    pub const fn new(stream: S, unread: UnreadBody, activity: Arc<Activity>) -> Self {
        Self { stream, unread, activity, linger: None, last_read: Vec::new(), instead: None }
    }

    /// Writes an answer in the envelope for these bytes, if they are hyper's own answer; how many of them count as written then.
    fn poll_write_instead(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Option<Poll<io::Result<usize>>> {
        if self.instead.is_none() {
            self.instead = in_envelope(bytes, &self.last_read).map(|answer| Instead { bytes: answer, written: 0, stands_for: bytes.len() });
        }
        let Self { stream, instead, .. } = self;
        let Instead { bytes, written, stands_for } = instead.as_mut()?;
        while *written < bytes.len() {
            match Pin::new(&mut *stream).poll_write(cx, &bytes[*written..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(count)) => *written += count,
                other => return Some(other),
            }
        }
        let stands_for = *stands_for;
        self.instead = None;
        Some(Poll::Ready(Ok(stands_for)))
    }

    fn noted<T>(&self, written: Poll<T>) -> Poll<T> {
        self.activity.wrote(written.is_ready());
        written
    }

    /// Throws away what still comes: closing with bytes unread would reset the connection, and the response with it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let (time, left) = self.linger.get_or_insert_with(|| (Box::pin(tokio::time::sleep(LINGER_TIME)), LINGER_BYTES));
        let mut bytes = [0; 16 * 1024];
        while *left > 0 {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => *left = left.saturating_sub(buffer.filled().len()),
                Poll::Ready(_) => return Poll::Ready(()),
                Poll::Pending => return time.as_mut().poll(cx),
            }
            if time.is_elapsed() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for PatientStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.activity.is_deaf() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        let new = &buffer.filled()[before..];
        if !new.is_empty() {
            self.last_read.clear();
            self.last_read.extend_from_slice(&new[..new.len().min(KEPT_BYTES)]);
        }
        self.activity.read(read.is_ready().then_some(new.len()));
        read
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for PatientStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = match self.poll_write_instead(cx, bytes) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        self.noted(written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        let written = match self.poll_write_instead(cx, first) {
            Some(written) => written,
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        };
        self.noted(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.noted(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
            ready!(self.noted(shut))?;
        }
        if self.unread.get() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
