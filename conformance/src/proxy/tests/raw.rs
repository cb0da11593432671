//! What is not HTTP, and cuts that do not care.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// Greets if it is to, and sends back in capitals whatever comes.
async fn shouter(greeting: &'static str) -> (Proxy, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if stream.write_all(greeting.as_bytes()).await.is_err() {
                continue;
            }
            let mut buf = [0; 100];
            while let Ok(len @ 1..) = stream.read(&mut buf).await {
                buf.make_ascii_uppercase();
                if stream.write_all(&buf[..len]).await.is_err() {
                    break;
                }
            }
        }
    });
    (proxy, task)
}

async fn say(stream: &mut TcpStream, words: &str) -> String {
    stream.write_all(words.as_bytes()).await.unwrap();
    hear(stream).await
}

async fn hear(stream: &mut TcpStream) -> String {
    let mut buf = [0; 100];
    let len = timeout(PATIENCE, stream.read(&mut buf)).await.unwrap();
    String::from_utf8_lossy(&buf[..len.unwrap()]).into_owned()
}

#[tokio::test]
async fn other_protocols_pass_as_they_are() {
    let (proxy, server) = shouter("").await;
    for hello in [
        "hello",
        "HELO me\r\n",
        "PRI * HTTP/2.0\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
        assert_eq!(say(&mut client, hello).await, hello.to_uppercase());
        assert_eq!(say(&mut client, "more").await, "MORE");
        client.shutdown().await.unwrap();
        assert_eq!(hear(&mut client).await, "");
    }
    assert_eq!((proxy.raw_connections(), proxy.requests()), (4, 0));

    // A connection that ceases to be HTTP with this request.
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    let upgrade = "GET / HTTP/1.1\r\nUPGRADE: X\r\n\r\n";
    assert_eq!(say(&mut client, upgrade).await, upgrade);
    assert_eq!(say(&mut client, "more").await, "MORE");
    assert_eq!((proxy.raw_connections(), proxy.requests()), (5, 1));
    server.abort();
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let (proxy, server) = shouter("ready\n").await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(hear(&mut client).await, "ready\n");
    assert_eq!(say(&mut client, "hello").await, "HELLO");
    server.abort();
}

#[tokio::test]
async fn bytes_are_cut_in_either_direction() {
    let (proxy, server) = shouter("").await;
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    assert_eq!(say(&mut client, "one").await, "ONE");
    proxy.cut_after(Direction::Down, 5);
    assert_eq!(say(&mut client, "two").await, "TWO");
    assert_eq!(say(&mut client, "three").await, "TH");
    assert_eq!(hear(&mut client).await, "");
    assert!(proxy.disarm());
    assert_eq!(proxy.bytes(Direction::Down), 8);
    drop(client);

    // The last byte that may pass takes the connection with it.
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    proxy.cut_after(Direction::Down, 3);
    assert_eq!(say(&mut client, "two").await, "TWO");
    assert_eq!(hear(&mut client).await, "");
    assert!(proxy.disarm());

    let before = proxy.bytes(Direction::Up);
    proxy.cut_after(Direction::Up, 4);
    let mut client = TcpStream::connect(proxy.addr()).await.unwrap();
    client.write_all(b"hello").await.unwrap();
    // What got through may still be answered, or not.
    assert!("HELL".starts_with(&hear(&mut client).await));
    assert_eq!(proxy.bytes(Direction::Up), before + 4);
    assert!(proxy.disarm() && !proxy.disarm());
    server.abort();
}

#[tokio::test]
async fn a_cut_falls_into_the_head_of_an_answer() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.cut_after(Direction::Down, 12);
    client.send("GET /n/3 HTTP/1.1\r\n\r\n").await;
    let mut got = String::new();
    client.stream.read_to_string(&mut got).await.unwrap();
    assert_eq!(got, "HTTP/1.1 200");
    assert_eq!(server.seen(), ["GET /n/3 0"]);
    assert!(proxy.disarm());

    // The server never sees the end of this request.
    let mut client = Client::connect(proxy.addr()).await;
    proxy.cut_after(Direction::Up, 60);
    assert!(client.put("/k", 1000).await.is_err());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_client_of_a_server_that_is_gone_is_reset() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    assert!(client.ask("GET /n/1").await.is_ok());
    drop(server);
    let mut client = Client::connect(proxy.addr()).await;
    while client.ask("GET /n/1").await.is_ok() {
        // The port is closed as soon as the task of the server has ended.
        client = Client::connect(proxy.addr()).await;
    }
}
