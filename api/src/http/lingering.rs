//! A request body on HTTP/2 whose rest is thrown away when nobody reads on: some clients look for the answer only when they have sent all.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::time::timeout;

use super::patient_stream::{LINGER_BYTES, LINGER_TIME};

type Bodied = Pin<Box<dyn Stream<Item = std::io::Result<Bytes>> + Send>>;

/// The bytes of a body. Dropped before its end, it goes on for a while: the stream would be reset otherwise.
struct Lingering(Option<Bodied>);

/// This body, with its rest thrown away at the end.
#[must_use]
pub fn lingering(body: poem::Body) -> poem::Body {
    poem::Body::from_bytes_stream(Lingering(Some(Box::pin(body.into_bytes_stream()))))
}

impl Stream for Lingering {
    type Item = std::io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(body) = &mut self.0 else { return Poll::Ready(None) };
        let next = body.as_mut().poll_next(cx);
        if !matches!(next, Poll::Pending | Poll::Ready(Some(Ok(_)))) {
            self.0 = None;
        }
        next
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take() else { return };
        tokio::spawn(timeout(LINGER_TIME, async move {
            let mut left = LINGER_BYTES;
            while let Some(Ok(bytes)) = body.next().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    break;
                }
            }
        }));
    }
}
