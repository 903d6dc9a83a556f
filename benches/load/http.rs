//! A lean HTTP/1.1 client: the generator has to share the cores with what it measures.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// One connection, kept alive.
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// A response. A chunked body is kept as it was sent: see [`unchunked`].
pub struct Answer<'a> {
    pub status: u16,
    pub chunked: bool,
    pub body: &'a [u8],
}

impl Answer<'_> {
    pub fn contains(&self, text: &str) -> bool {
        let text = text.as_bytes();
        self.body.windows(text.len()).any(|window| window == text)
    }
}

/// The parsed head of a response.
struct Head {
    status: u16,
    begin: usize,
    /// `None` if the body is chunked.
    length: Option<usize>,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address).await.with_context(|| format!("no connection to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::with_capacity(16 * 1024) })
    }

    /// Sends a request made by [`request`] and reads the whole answer.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Answer<'_>> {
        self.stream.write_all(request).await?;
        self.buffer.clear();
        let mut head = None;
        loop {
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                bail!("the connection was closed within an answer");
            }
            if head.is_none() {
                head = parse_head(&self.buffer)?;
            }
            let Some(Head { status, begin, length }) = head else { continue };
            let body = &self.buffer[begin..];
            if length.map_or_else(|| body.ends_with(b"0\r\n\r\n"), |length| body.len() >= length) {
                return Ok(Answer { status, chunked: length.is_none(), body: &self.buffer[begin..] });
            }
        }
    }
}

fn parse_head(bytes: &[u8]) -> anyhow::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(begin) = response.parse(bytes)? else { return Ok(None) };
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.map(|header| std::str::from_utf8(header.value)?.parse().context("content-length")).transpose()?;
    Ok(Some(Head { status: response.code.unwrap_or_default(), begin, length }))
}

/// The content of a chunked body.
pub fn unchunked(mut body: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let Ok(httparse::Status::Complete((begin, size))) = httparse::parse_chunk_size(body) else { bail!("a broken chunk") };
        let end = begin + usize::try_from(size)?;
        if size == 0 {
            return Ok(content);
        }
        content.extend_from_slice(body.get(begin..end).context("a chunk that is cut")?);
        body = body.get(end + 2..).context("a chunk without an end")?;
    }
}

/// The bytes of a request, to be sent any number of times.
pub fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text.extend([name, ": ", value, "\r\n"]);
    }
    if !body.is_empty() {
        text.extend(["Content-Type: application/json\r\nContent-Length: ", &body.len().to_string(), "\r\n"]);
    }
    text += "\r\n";
    text += body;
    text.into_bytes()
}
