//! A connection that waits for its client for a bounded time.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::Sleep,
};

use crate::http::middleware::UnreadBody;

/// How long a response may make no progress.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// How long the server goes on reading after its response from a client that still sends, which would otherwise get a reset.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much it may send meanwhile, in bytes.
const LINGER_BYTES: usize = 16 * 1024 * 1024;

/// A TCP connection whose writes fail after 30 seconds without progress. hyper bounds the time of reads itself.
pub struct PatientStream {
    stream: TcpStream,
    unread: UnreadBody,
    /// Runs while a write waits for the client.
    write_time: Option<Pin<Box<Sleep>>>,
    /// Runs while the rest of a body is thrown away.
    linger: Option<(Pin<Box<Sleep>>, usize)>,
}

impl PatientStream {
    /// This connection; `unread` says whether its last request's body was not read to the end.
    #[must_use]
    pub const fn new(stream: TcpStream, unread: UnreadBody) -> Self {
        Self { stream, unread, write_time: None, linger: None }
    }

    fn in_time<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.write_time = None;
            return written;
        }
        let time = self.write_time.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIME)));
        ready!(time.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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

impl AsyncRead for PatientStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.in_time(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, slices: &[io::IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.linger.is_none() {
            ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        }
        if self.unread.get() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }
}
