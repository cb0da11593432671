//! A server that does as its paths say, and a client that shows what arrives.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{PATIENCE, io, timeout};

/// `GET /n/5` answers 5 bytes with their length, `/chunked/5` in chunks, `/end/5` up to the end of the connection;
/// `PUT` answers how much came; `/refuse` answers before the body, `/late` notes before the body and after it.
pub(super) struct Server {
    pub(super) addr: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<String>>> = Arc::default();
        let notes = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let notes = Arc::clone(&notes);
                // What becomes of a connection is seen from the other side.
                tokio::spawn(async move { drop(connection(stream, &notes).await) });
            }
        });
        Self { addr, seen, task }
    }

    /// The requests that were complete, with the length of their bodies.
    pub(super) fn seen(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// The byte at a place of every body.
pub(super) fn pattern(at: usize) -> u8 {
    u8::try_from(at % 251).unwrap()
}

pub(super) fn body(len: usize) -> Vec<u8> {
    (0..len).map(pattern).collect()
}

async fn connection(stream: TcpStream, seen: &Mutex<Vec<String>>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let head = head(&mut stream).await?;
        let mut words = head.split(' ');
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        if path == "/refuse" {
            seen.lock().unwrap().push(format!("{method} {path}"));
            stream
                .write_all(b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n")
                .await?;
            continue;
        }
        if head.contains("expect: 100-continue") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let (got, intact) = take(&mut stream, &head).await?;
        assert!(intact, "what arrives is what was sent");
        seen.lock().unwrap().push(format!("{method} {path} {got}"));
        let (kind, len) = path[1..].split_once('/').unwrap_or(("", "0"));
        let answer = match kind {
            "n" => body(len.parse().unwrap()),
            "chunked" => {
                chunked(&mut stream, len.parse().unwrap()).await?;
                continue;
            }
            "end" => {
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
                stream.write_all(&body(len.parse().unwrap())).await?;
                return stream.shutdown().await;
            }
            _ => format!("got {got}, as number {}", seen.lock().unwrap().len()).into_bytes(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nEtag: x\r\n\r\n",
            answer.len()
        );
        stream.write_all(head.as_bytes()).await?;
        if method != "HEAD" {
            stream.write_all(&answer).await?;
        }
    }
}

async fn chunked(stream: &mut BufReader<TcpStream>, len: usize) -> io::Result<()> {
    stream
        .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await?;
    for chunk in body(len).chunks(1000) {
        let size = format!("{:x};n=1\r\n", chunk.len());
        stream.write_all(size.as_bytes()).await?;
        stream.write_all(chunk).await?;
        stream.write_all(b"\r\n").await?;
    }
    stream.write_all(b"0\r\nSum: 1\r\n\r\n").await
}

/// A head; the names of its headers in lower case, and so are their values.
async fn head(stream: &mut BufReader<TcpStream>) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let (first, rest) = head.split_once("\r\n").unwrap();
    Ok(format!("{first}\r\n{}", rest.to_lowercase()))
}

/// Reads a body without keeping it: its length, and whether it is the pattern.
async fn take(stream: &mut BufReader<TcpStream>, head: &str) -> io::Result<(usize, bool)> {
    let (mut got, mut intact) = (0, true);
    let mut left = length(head).unwrap_or(0);
    let chunked = head.contains("transfer-encoding: chunked");
    let mut piece = vec![0; 64 * 1024];
    loop {
        if chunked && left == 0 {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            left = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            if left == 0 {
                stream.read_line(&mut line).await?;
                return Ok((got, intact));
            }
        }
        while left > 0 {
            let max = left.min(piece.len());
            let len = stream.read(&mut piece[..max]).await?;
            if len == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            intact &= (got..).zip(&piece[..len]).all(|(at, b)| *b == pattern(at));
            (got, left) = (got + len, left - len);
        }
        if !chunked {
            return Ok((got, intact));
        }
        stream.read_line(&mut String::new()).await?;
    }
}

fn length(head: &str) -> Option<usize> {
    let (_, rest) = head.split_once("content-length: ")?;
    rest.split("\r\n").next()?.parse().ok()
}

/// What a client got.
#[derive(Debug)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
    /// The body ended as it had said.
    pub(super) complete: bool,
}

pub(super) struct Client {
    pub(super) stream: BufReader<TcpStream>,
}

impl Client {
    pub(super) async fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(super) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).await.unwrap();
    }

    /// Asks without a body.
    pub(super) async fn ask(&mut self, line: &str) -> io::Result<Got> {
        self.send(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n"))
            .await;
        self.answer().await
    }

    /// Puts so many bytes.
    pub(super) async fn put(&mut self, path: &str, len: usize) -> io::Result<Got> {
        let head = format!("PUT {path} HTTP/1.1\r\nContent-Length: {len}\r\n\r\n");
        self.send(head).await;
        self.send(body(len)).await;
        self.answer().await
    }

    pub(super) async fn answer(&mut self) -> io::Result<Got> {
        timeout(PATIENCE, self.whole()).await?
    }

    async fn whole(&mut self) -> io::Result<Got> {
        let head = head(&mut self.stream).await?;
        let status = head[9..12].parse().unwrap();
        let mut got = Got {
            status,
            head,
            body: Vec::new(),
            complete: false,
        };
        if got.head.contains("transfer-encoding: chunked") {
            got.complete = self.chunks(&mut got.body).await.is_ok();
        } else if let Some(len) = length(&got.head) {
            got.body = vec![0; len];
            let mut at = 0;
            while at < len {
                match self.stream.read(&mut got.body[at..]).await? {
                    0 => break,
                    more => at += more,
                }
            }
            got.body.truncate(at);
            got.complete = at == len;
        } else if status >= 200 {
            self.stream.read_to_end(&mut got.body).await?;
            got.complete = true;
        }
        Ok(got)
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let mut line = String::new();
            self.stream.read_line(&mut line).await?;
            let size = line.trim().split(';').next().unwrap();
            let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
            if size == 0 {
                while line != "\r\n" {
                    line.clear();
                    if self.stream.read_line(&mut line).await? == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                return Ok(());
            }
            for _ in 0..size {
                body.push(self.stream.read_u8().await?);
            }
            self.stream.read_line(&mut line).await?;
        }
    }

    /// Whether the connection is closed, and nothing more came before.
    pub(super) async fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        let end = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        rest.is_empty() && end.is_ok()
    }
}
