//! What requests say that are made without the SDK, as a server sees them.

mod client;
mod server;

use std::collections::HashMap;

use larder_s3::{S3Config, S3Place};
use larder_traits::{Atomicity, BlobMulti, Classify, ErrorKind, Outcome};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use client::{config, pattern, soon};
use server::BUCKET;

/// What was asked: the first line, and the headers by their names.
type Asked = (String, HashMap<String, String>);

/// An answer with this in its first line and its headers.
fn answer(head: &str, body: &str) -> String {
    let len = body.len();
    format!("HTTP/1.1 {head}\r\ncontent-length: {len}\r\n\r\n{body}")
}

/// One page of a listing with nothing in it.
fn nothing() -> String {
    let flags = "<KeyCount>0</KeyCount><IsTruncated>false</IsTruncated>";
    answer(
        "200 OK",
        &format!("<ListBucketResult>{flags}</ListBucketResult>"),
    )
}

/// A PUT that was done.
fn done() -> String {
    answer("200 OK\r\netag: \"1\"", "")
}

/// A refusal for the time of a request, by a server whose own time is this.
fn skewed(date: &str) -> String {
    let code = "<Error><Code>RequestTimeTooSkewed</Code></Error>";
    answer(&format!("403 Forbidden\r\ndate: {date}"), code)
}

/// A server that gives these answers, one after the other and to whatever it is asked; and its configuration.
async fn telling(answers: Vec<String>) -> (S3Config, JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let telling = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody asks");
        let mut asked = Vec::new();
        for answer in answers {
            asked.push(hear(&mut stream).await);
            let told = stream.write_all(answer.as_bytes()).await;
            told.expect("somebody listens");
        }
        asked
    });
    (config(&endpoint).with_conditional_writes(false), telling)
}

async fn hear(stream: &mut TcpStream) -> Asked {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a head has an end"));
    }
    let head = String::from_utf8(head).expect("a head is text");
    let (first, rest) = head.split_once("\r\n").expect("it has lines");
    let headers: HashMap<_, _> = rest
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let len = headers
        .get("content-length")
        .map_or(0, |len| len.parse().expect("a number"));
    let body = stream.read_exact(&mut vec![0; len]).await;
    body.expect("a body is as long as it says");
    (first.to_owned(), headers)
}

/// Failure: on Ceph no empty value could be set. Cause: nothing said that a PUT has no body, and the gateway wants to know.
/// Fix: every PUT says how long its body is.
#[tokio::test]
async fn an_empty_value_has_a_length() {
    let (config, telling) = telling(vec![nothing(), done()]).await;
    let blobs = S3Place::open(config).await.unwrap().blob_multi();
    let set = blobs.set(soon(), "k", pattern(1, 0), Atomicity::RequireAtomic);
    set.await.unwrap();
    let asked = telling.await.unwrap();
    assert_eq!(asked[1].1["content-length"], "0");
}

/// A machine whose clock is wrong goes by the server's once it was told so.
#[tokio::test]
async fn a_request_is_made_again_for_the_time_of_the_server() {
    let answers = vec![nothing(), skewed("Sun, 06 Nov 1994 08:49:37 GMT"), done()];
    let (config, telling) = telling(answers).await;
    let blobs = S3Place::open(config).await.unwrap().blob_multi();
    let set = blobs.set(soon(), "k", pattern(1, 10), Atomicity::RequireAtomic);
    set.await.unwrap();
    let asked = telling.await.unwrap();
    let dates: Vec<&str> = asked
        .iter()
        .map(|(_, headers)| &headers["x-amz-date"][..])
        .collect();
    assert_eq!(dates[0][..4], dates[1][..4]);
    assert!(
        !dates[1].starts_with("1994") && dates[2].starts_with("19941106T0849"),
        "{dates:?}"
    );
}

/// Who says nothing new of the time is taken at the word.
#[tokio::test]
async fn a_refusal_without_a_time_is_a_refusal() {
    for date in ["", "tomorrow"] {
        let (config, telling) = telling(vec![nothing(), skewed(date)]).await;
        let blobs = S3Place::open(config).await.unwrap().blob_multi();
        let set = blobs.set(soon(), "k", pattern(1, 10), Atomicity::RequireAtomic);
        let e = set.await.unwrap_err();
        assert_eq!(
            (e.kind(), e.outcome()),
            (ErrorKind::PermissionDenied, Outcome::NotApplied)
        );
        assert_eq!(telling.await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn requests_say_what_they_are() {
    let (config, telling) = telling(vec![nothing(), done()]).await;
    let config = config.with_session("access", "secret", "token");
    let blobs = S3Place::open(config).await.unwrap().blob_multi();
    let set = blobs.set(soon(), "a b", pattern(1, 10), Atomicity::RequireAtomic);
    set.await.unwrap();
    let asked = telling.await.unwrap();
    let (list, put) = (&asked[0], &asked[1]);
    let query = "encoding-type=url&list-type=2&max-keys=1&prefix=p%2F%21blobs%2F";
    assert_eq!(list.0, format!("GET /{BUCKET}/?{query} HTTP/1.1"));
    assert_eq!(put.0, format!("PUT /{BUCKET}/p/%21blobs/a%2120b HTTP/1.1"));
    for (name, value) in [
        ("content-length", "10"),
        ("content-type", "application/octet-stream"),
        ("x-amz-security-token", "token"),
    ] {
        assert_eq!(put.1[name], value);
    }
    assert!(put.1["x-amz-meta-larder"].starts_with("1-"));
    // Nobody waits for a server to say that it will listen.
    assert!(!put.1.contains_key("expect"));
    let secret = asked
        .iter()
        .any(|(_, headers)| headers.values().any(|it| it.contains("secret")));
    assert!(!secret);
}
