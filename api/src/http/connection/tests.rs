//! What each kind of slow client gets, in a time that passes as soon as everybody waits.

use poem::{endpoint::make, http::StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    task::JoinHandle,
    time::sleep,
};

use super::*;

/// What a connection holds of what its reader did not read yet.
const BUFFER_BYTES: usize = 2 * 1024;
const LARGE_BYTES: usize = 300 * 1024;

/// Answers with a large response, one that takes its time, or what the body was.
async fn answer(mut req: poem::Request) -> poem::Response {
    match req.uri().path() {
        "/large" => vec![b'x'; LARGE_BYTES].into(),
        "/small" => vec![b'x'; 100].into(),
        "/slow" => {
            sleep(Duration::from_secs(25)).await;
            "slow".into()
        }
        "/never" => std::future::pending().await,
        _ => match req.take_body().into_vec().await {
            Ok(body) => format!("{} bytes", body.len()).into(),
            Err(_) => StatusCode::BAD_REQUEST.into(),
        },
    }
}

/// A connection, from its client's side.
struct Peer {
    stream: DuplexStream,
    began: Instant,
    stop: watch::Sender<bool>,
    served: JoinHandle<()>,
}

impl Peer {
    fn connect(protocol: Protocol) -> Self {
        let (stream, other_end) = duplex(BUFFER_BYTES);
        let (stop, stopping) = watch::channel(false);
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        let endpoint = Arc::new(make(|req| async { Ok::<_, poem::Error>(answer(req).await) }));
        let origin = Origin { endpoint, local: address, peer: address, scheme: Scheme::HTTPS };
        let served = tokio::spawn(async move {
            let _ = match protocol {
                Protocol::Http1 => serve_http1(other_end, origin, stopping).await,
                Protocol::Http2 => serve_http2(other_end, origin, stopping).await,
            };
        });
        Self { stream, began: Instant::now(), stop, served }
    }

    async fn http1(sent: &str) -> Self {
        let mut peer = Self::connect(Protocol::Http1);
        peer.stream.write_all(sent.as_bytes()).await.unwrap();
        peer
    }

    /// Says hello as an HTTP/2 client does, with this window for each stream.
    async fn http2(window: u32) -> Self {
        let mut peer = Self::connect(Protocol::Http2);
        peer.stream.write_all(PREFACE).await.unwrap();
        peer.send(SETTINGS, 0, 0, &[&[0, 4][..], &window.to_be_bytes()].concat()).await;
        peer
    }

    async fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let frame = [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat();
        self.stream.write_all(&frame).await.is_ok()
    }

    async fn get(&mut self, stream: u32, path: &str) -> bool {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, &fields(path)).await
    }

    /// Reads what the server sends until it closes, and answers its pings; returns the frames.
    async fn frames(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.frame().await {
            if frame.kind == PING && frame.flags == 0 {
                self.send(PING, ACK, 0, &frame.payload).await;
            }
            frames.push(frame);
        }
        frames
    }

    async fn frame(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: head[3], flags: head[4], payload })
    }

    /// Reads until the server closes; returns what came.
    async fn text(&mut self) -> String {
        let mut bytes = Vec::new();
        let _ = self.stream.read_to_end(&mut bytes).await;
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the server has let go of the connection; returns after how many seconds.
    async fn gone(self) -> u64 {
        self.served.await.unwrap();
        self.began.elapsed().as_secs()
    }

    /// Sends pieces, with pauses between them, until the server has let go, and reads what comes meanwhile; returns how many pieces it took,
    /// and after how many seconds it let go.
    async fn pour(self, pause: Duration, piece: impl Fn(u32) -> Vec<u8>) -> (u32, u64) {
        let (mut reader, mut writer) = tokio::io::split(self.stream);
        let reading = tokio::spawn(async move { tokio::io::copy(&mut reader, &mut tokio::io::sink()).await });
        let mut taken = 0;
        while !self.served.is_finished() && writer.write_all(&piece(taken)).await.is_ok() {
            taken += 1;
            sleep(pause).await;
        }
        self.served.await.unwrap();
        reading.abort();
        (taken, self.began.elapsed().as_secs())
    }
}

#[derive(Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    payload: Vec<u8>,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// The header block of `GET https://x` and a path.
fn fields(path: &str) -> Vec<u8> {
    let text = |index: u8, text: &str| [&[index, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    [vec![0x82, 0x87], text(4, path), text(1, "x")].concat()
}

/// The bytes of all bodies.
fn data(frames: &[Frame]) -> usize {
    frames.iter().filter(|frame| frame.kind == DATA).map(|frame| frame.payload.len()).sum()
}

const HEAD: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";

#[tokio::test(start_paused = true)]
async fn a_silent_http_1_connection_is_closed_after_10_seconds_in_whatever_state() {
    for sent in ["", "G", "GET / HTTP/1.1\r\nHost: x\r\nX:"] {
        let mut peer = Peer::http1(sent).await;
        assert_eq!(peer.text().await, "", "{sent:?}");
        assert_eq!(peer.gone().await, 10, "{sent:?}");
    }
    let mut idle = Peer::http1("GET /small HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(idle.text().await.starts_with("HTTP/1.1 200"));
    assert_eq!(idle.gone().await, 10);
    for part in ["", "half"] {
        let mut silent = Peer::http1(&format!("{HEAD}{part}")).await;
        let text = silent.text().await;
        assert!(text.starts_with("HTTP/1.1 400") && text.contains("connection: close"), "{text:?}");
        assert!((10..=12).contains(&silent.gone().await));
    }
}

#[tokio::test(start_paused = true)]
async fn headers_that_drip_are_closed_after_10_seconds_too() {
    let second = Duration::from_secs(1);
    let (_, gone) = Peer::http1("GET / HTTP/1.1\r\nX: ").await.pour(second, |_| b"x".to_vec()).await;
    assert!((10..=11).contains(&gone), "{gone}");
    let (_, gone) = Peer::connect(Protocol::Http2).pour(second, |number| vec![PREFACE[number as usize]]).await;
    assert!((10..=11).contains(&gone), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_waits_for_its_answer_may_be_silent() {
    let mut peer = Peer::http1("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(peer.text().await.ends_with("slow"));
    assert_eq!(peer.gone().await, 35);
    let mut peer = Peer::http2(65_535).await;
    peer.get(1, "/slow").await;
    // It answers no pings: it has 30 seconds for that.
    let mut bytes = 0;
    while let Some(frame) = peer.frame().await {
        bytes += data(&[frame]);
    }
    assert_eq!(bytes, 4);
    assert!((30..=35).contains(&peer.gone().await));
}

#[tokio::test(start_paused = true)]
async fn a_response_may_make_no_progress_for_30_seconds() {
    let request = "GET /large HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(Peer::http1(request).await.gone().await, 30);
    let mut slow = Peer::http1(request).await;
    let mut piece = [0; BUFFER_BYTES / 2];
    let mut read = 0;
    for _ in 0..20 {
        sleep(Duration::from_secs(25)).await;
        read += slow.stream.read(&mut piece).await.unwrap();
    }
    assert!(read >= 10 * BUFFER_BYTES, "a slow reader is served: {read}");
    assert!((525..=535).contains(&slow.gone().await));
    // On HTTP/2, and with room in the connection itself.
    for (window, path) in [(0, "/large"), (0, "/small"), (1, "/small"), (99, "/small"), (10_000, "/large"), (1 << 20, "/large")] {
        let mut peer = Peer::http2(window).await;
        peer.get(1, path).await;
        let frames = peer.frames().await;
        assert!(data(&frames) <= 65_535.min(window as usize), "{window} {path}");
        assert!((30..=31).contains(&peer.gone().await), "{window} {path}");
    }
    // Nothing is read of what the server sends.
    let mut peer = Peer::http2(1 << 20).await;
    peer.get(1, "/large").await;
    assert!((30..=31).contains(&peer.gone().await));
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_on_http_2_is_served_as_long_as_it_reads() {
    let mut peer = Peer::http2(8 * 1024).await;
    peer.get(1, "/large").await;
    let mut read = 0;
    while read < LARGE_BYTES {
        let frame = peer.frame().await.unwrap();
        match (frame.kind, frame.flags) {
            (DATA, _) => {
                read += frame.payload.len();
                sleep(Duration::from_secs(2)).await;
                let more = u32::try_from(frame.payload.len()).unwrap().to_be_bytes();
                peer.send(WINDOW_UPDATE, 0, 1, &more).await;
                peer.send(WINDOW_UPDATE, 0, 0, &more).await;
            }
            (PING, 0) => assert!(peer.send(PING, ACK, 0, &frame.payload).await),
            _ => {}
        }
    }
    assert!(peer.began.elapsed() > Duration::from_mins(1));
}

#[tokio::test(start_paused = true)]
async fn a_silent_http_2_connection_is_closed_after_10_seconds_in_whatever_state() {
    for sent in [&PREFACE[..0], &PREFACE[..10], PREFACE] {
        let mut peer = Peer::connect(Protocol::Http2);
        peer.stream.write_all(sent).await.unwrap();
        while peer.frame().await.is_some() {}
        assert_eq!(peer.gone().await, 10, "{} bytes", sent.len());
    }
    let mut peer = Peer::http2(65_535).await;
    peer.send(HEADERS, END_STREAM, 1, &fields("/")).await;
    while peer.frame().await.is_some() {}
    assert_eq!(peer.gone().await, 10, "half a header");
    let mut peer = Peer::http2(65_535).await;
    peer.get(1, "/small").await;
    while peer.frame().await.is_some() {}
    assert_eq!(peer.gone().await, 10, "idle");
    let mut peer = Peer::http2(65_535).await;
    peer.send(HEADERS, END_HEADERS, 1, &fields("/")).await;
    peer.send(DATA, 0, 1, b"half").await;
    while peer.frame().await.is_some() {}
    assert_eq!(peer.gone().await, 10, "half a body");
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_that_drips_is_closed_after_30_seconds() {
    for (kind, length) in [(HEADERS, 0), (CONTINUATION, 200), (SETTINGS, 600), (DATA, 1_000)] {
        let mut peer = Peer::http2(65_535).await;
        match kind {
            HEADERS => {}
            CONTINUATION => assert!(peer.send(HEADERS, END_STREAM, 1, &fields("/")).await),
            _ => assert!(peer.send(HEADERS, END_HEADERS, 1, &fields("/")).await),
        }
        let head =
            [0, u8::try_from(length / 256).unwrap(), u8::try_from(length % 256).unwrap(), kind, 0, 0, 0, 0, u8::from(kind != SETTINGS)];
        peer.stream.write_all(&head[..if kind == HEADERS { 5 } else { 9 }]).await.unwrap();
        let (_, gone) = peer.pour(Duration::from_secs(4), |_| vec![0]).await;
        assert!((10..=35).contains(&gone), "{kind}: {gone}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_only_answers_pings_is_told_to_go_after_5_minutes() {
    let mut peer = Peer::http2(65_535).await;
    let frames = peer.frames().await;
    assert!(frames.iter().any(|frame| frame.kind == GOAWAY), "{frames:?}");
    assert!((300..=301).contains(&peer.gone().await));
    let mut peer = Peer::http2(65_535).await;
    sleep(Duration::from_secs(5)).await;
    peer.get(1, "/small").await;
    let frames = peer.frames().await;
    assert_eq!(data(&frames), 100);
    assert!((305..=306).contains(&peer.gone().await));
}

#[tokio::test(start_paused = true)]
async fn requests_that_are_taken_back_again_and_again_end_the_connection() {
    let peer = Peer::http2(65_535).await;
    // A pause between them: the request begins before it is taken back, or h2 itself counts it.
    let (taken, gone) = peer
        .pour(Duration::from_millis(1), |number| {
            let stream = (number / 2 * 2 + 1).to_be_bytes();
            let block = fields("/never");
            match number % 2 {
                0 => [&[0, 0, u8::try_from(block.len()).unwrap(), HEADERS, END_HEADERS | END_STREAM], &stream[..], &block].concat(),
                _ => [&[0, 0, 4, RST_STREAM, 0], &stream[..], &[0, 0, 0, 8]].concat(),
            }
        })
        .await;
    assert!((200..=300).contains(&taken), "{taken}");
    assert!(gone < 5, "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_continuation_flood_ends_the_connection_before_it_takes_memory() {
    let mut peer = Peer::http2(65_535).await;
    peer.send(HEADERS, END_STREAM, 1, &fields("/")).await;
    let frame = [&[0, 0, 10, CONTINUATION, 0, 0, 0, 0, 1][..], &[0; 10]].concat();
    let (taken, gone) = peer.pour(Duration::ZERO, |_| frame.clone()).await;
    assert!(taken < 200, "{taken}");
    assert!(gone < 5, "{gone}");
}

#[tokio::test(start_paused = true)]
async fn no_more_than_32_requests_are_served_at_once_on_a_connection() {
    let mut peer = Peer::http2(65_535).await;
    for number in 0..40 {
        peer.get(2 * number + 1, "/slow").await;
    }
    let (mut refused, mut answered) = (0, 0);
    while answered < 32 {
        let frame = peer.frame().await.unwrap();
        match (frame.kind, frame.flags) {
            (PING, 0) => assert!(peer.send(PING, ACK, 0, &frame.payload).await),
            (RST_STREAM, _) => {
                assert_eq!(frame.payload, [0, 0, 0, 7], "refused, so that it can be sent again");
                refused += 1;
            }
            (DATA, flags) if flags & END_STREAM != 0 => answered += 1,
            _ => {}
        }
    }
    assert_eq!(refused, 8);
}

#[tokio::test(start_paused = true)]
async fn a_stop_answers_what_is_in_flight_and_nothing_else_holds_it_up() {
    for protocol in [Protocol::Http1, Protocol::Http2] {
        let mut peer = match protocol {
            Protocol::Http1 => Peer::http1("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await,
            Protocol::Http2 => Peer::http2(65_535).await,
        };
        if protocol == Protocol::Http2 {
            peer.get(1, "/slow").await;
        }
        sleep(Duration::from_millis(10)).await;
        peer.stop.send_replace(true);
        if protocol == Protocol::Http1 {
            assert!(peer.text().await.ends_with("slow"));
        } else {
            assert_eq!(data(&peer.frames().await), 4);
        }
        assert_eq!(peer.gone().await, 25);
    }
    let mut silent = Peer::http2(65_535).await;
    assert_eq!(silent.frame().await.unwrap().kind, SETTINGS);
    silent.stop.send_replace(true);
    assert!(silent.gone().await <= 3);
}
