//! Bodies: passed on whole, cut, shortened, and never held.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::server::{body, pattern};
use super::*;

#[tokio::test]
async fn bodies_of_every_framing_pass_whole() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    for len in [0, 1, 999, 1000, 1001, 300_000] {
        for kind in ["n", "chunked"] {
            let got = client.ask(&format!("GET /{kind}/{len}")).await.unwrap();
            assert!(got.complete && got.body == body(len), "{kind} {len}");
        }
    }
    // A HEAD says a length and brings nothing.
    client.send("HEAD /n/7 HTTP/1.1\r\n\r\n").await;
    client.send("GET /n/1 HTTP/1.1\r\n\r\n").await;
    let mut bytes = vec![0; 400];
    let mut at = 0;
    while bytes[..at].iter().filter(|b| **b == b'\r').count() < 8 {
        at += client.stream.read(&mut bytes[at..]).await.unwrap();
    }
    let text = String::from_utf8_lossy(&bytes[..at]);
    assert!(
        text.contains("content-length: 7\r\nEtag: x\r\n\r\nHTTP/1.1 200"),
        "{text}"
    );

    let mut client = Client::connect(proxy.addr()).await;
    client
        .send("PUT /k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n\0\x01\r\n1\r\n\x02\r\n0\r\n\r\n")
        .await;
    assert!(client.answer().await.unwrap().body.starts_with(b"got 3"));
    let got = client.ask("GET /end/70000").await.unwrap();
    assert!(got.complete && got.body == body(70_000));
    assert_eq!(proxy.raw_connections(), 0);
    assert_eq!(server.seen().len(), 16);
}

#[tokio::test]
async fn a_cut_body_ends_where_it_was_cut() {
    let (_server, proxy) = world().await;
    for kind in ["n", "chunked"] {
        for after_bytes in [0, 1, 1000, 1500, 99_999] {
            proxy.misbehave(1, Misbehaviour::CutBody { after_bytes });
            let mut client = Client::connect(proxy.addr()).await;
            let got = client.ask(&format!("GET /{kind}/100000")).await.unwrap();
            let expected = body(usize::try_from(after_bytes).unwrap());
            assert!(
                !got.complete && got.body == expected,
                "{kind} {after_bytes}"
            );
            assert!(client.is_closed().await);
        }
    }
    // One that is no longer than the cut is whole, and the connection lives on.
    proxy.misbehave(1, Misbehaviour::CutBody { after_bytes: 5 });
    let mut client = Client::connect(proxy.addr()).await;
    assert!(client.ask("GET /n/5").await.unwrap().complete);
    assert!(client.ask("GET /n/6").await.unwrap().complete);
}

#[tokio::test]
async fn a_short_body_looks_complete() {
    let (_server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    for kind in ["n", "chunked", "end"] {
        for (len_bytes, len) in [
            (0, 0),
            (1, 1),
            (1500, 1500),
            (99_999, 99_999),
            (200_000, 100_000),
        ] {
            proxy.misbehave(1, Misbehaviour::ShortBody { len_bytes });
            let got = client.ask(&format!("GET /{kind}/100000")).await.unwrap();
            assert!(got.complete && got.body == body(len), "{kind} {len}");
            if kind == "end" {
                client = Client::connect(proxy.addr()).await;
            }
        }
    }
}

/// A server that does not read makes the client wait, so that what lies in between is bounded; and all of it arrives.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_body_is_never_held() {
    const LEN: usize = 96 << 20;
    const HELD_MAX: usize = 40 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let mut client = Client::connect(proxy.addr()).await;
    let (mut server, _) = listener.accept().await.unwrap();
    client
        .send(format!("PUT /k HTTP/1.1\r\nContent-Length: {LEN}\r\n\r\n"))
        .await;
    let piece: Vec<u8> = (0..251 * 1024).map(pattern).collect();
    let mut sent = 0;
    let mut push = async |sent: &mut usize| {
        while *sent < LEN {
            let from = *sent % piece.len();
            let to = piece.len().min(from + LEN - *sent);
            *sent += client.stream.write(&piece[from..to]).await.unwrap();
        }
        client.stream.flush().await.unwrap();
    };
    assert!(timeout(SILENCE * 4, push(&mut sent)).await.is_err());
    assert!(
        sent < HELD_MAX,
        "{sent} bytes fit between client and server"
    );

    let reader = tokio::spawn(async move {
        let (mut seen, mut buf) = (0, vec![0; 1 << 16]);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(server.read_u8().await.unwrap());
        }
        while seen < LEN {
            let len = server.read(&mut buf).await.unwrap();
            assert!(len > 0 && (seen..).zip(&buf[..len]).all(|(at, b)| *b == pattern(at)));
            seen += len;
        }
        server
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            .await
            .unwrap();
        server
    });
    timeout(PATIENCE, push(&mut sent)).await.unwrap();
    assert_eq!(client.answer().await.unwrap().status, 200);
    drop(reader.await.unwrap());
    assert!(proxy.bytes(Direction::Up) > u64::try_from(LEN).unwrap());
}
