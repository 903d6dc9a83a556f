//! A response on HTTP/2 that is handed out only as fast as its client takes it.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::activity::InFlight;

/// What is handed out at a time, in bytes.
const PIECE_BYTES: usize = 4 * 1024;

/// A body in pieces. hyper takes the next one only when the client's windows have room for all before it, so that it is known when the
/// client takes nothing any more. The last piece is a single byte: until that fits, the response is not finished.
pub struct Paced<B> {
    body: B,
    /// What of the body's last frame was not handed out.
    rest: Bytes,
    in_flight: InFlight,
}

impl<B: Body<Data = Bytes> + Unpin> Paced<B> {
    /// This body, as the response to a request.
    pub fn new(body: B, mut in_flight: InFlight) -> Self {
        in_flight.progress();
        if body.is_end_stream() {
            in_flight.finish();
        }
        Self { body, rest: Bytes::new(), in_flight }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        this.in_flight.progress();
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)).map(|frame| frame.map(Frame::into_data)) {
                Some(Ok(Ok(data))) => this.rest = data,
                Some(Ok(Err(trailers))) => return Poll::Ready(Some(Ok(trailers))),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    this.in_flight.finish();
                    return Poll::Ready(None);
                }
            }
        }
        let size = match this.rest.len() {
            length @ 0..=1 => length,
            length => PIECE_BYTES.min(length - 1),
        };
        let piece = this.rest.split_to(size);
        if this.is_end_stream() {
            this.in_flight.finish();
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(body.lower() + rest);
        hint
    }
}
