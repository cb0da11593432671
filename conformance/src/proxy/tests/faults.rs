//! What can be armed for the nth request.

use super::*;

#[tokio::test]
async fn requests_are_counted_over_connections_that_live_on() {
    let (server, proxy) = world().await;
    let mut one = Client::connect(proxy.addr()).await;
    let mut two = Client::connect(proxy.addr()).await;
    for _ in 0..3 {
        assert_eq!(one.ask("GET /n/3").await.unwrap().body, [0, 1, 2]);
        let got = two.put("/k", 10).await.unwrap();
        assert!(got.body.starts_with(b"got 10"), "{got:?}");
    }
    assert_eq!((proxy.connections(), proxy.requests()), (2, 6));
    assert_eq!(proxy.request_lines()[..2], ["GET /n/3", "PUT /k"]);
    assert_eq!(server.seen().len(), 6);
    assert_eq!(proxy.raw_connections(), 0);
    assert!(!proxy.disarm());

    proxy.arm(4, FaultKind::ErrorBefore);
    assert!(one.ask("GET /n/1").await.is_ok());
    assert!(two.ask("GET /n/2").await.is_ok());
    assert!(one.ask("GET /n/3").await.is_ok());
    assert!(two.ask("GET /n/4").await.is_err());
    assert!(one.ask("GET /n/5").await.is_ok());
    assert!(proxy.disarm());
}

#[tokio::test]
async fn an_error_before_resets_and_the_server_hears_nothing() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.arm(1, FaultKind::ErrorBefore);
    let error = client.put("/k", 100).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(proxy.disarm());
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn an_error_after_resets_and_the_server_has_the_request() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.only(Some("PUT"));
    proxy.arm(1, FaultKind::ErrorAfter);
    assert!(client.ask("GET /n/3").await.is_ok());
    let error = client.put("/k", 100).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(proxy.disarm());
    assert_eq!(server.seen(), ["GET /n/3 0", "PUT /k 100"]);
}

#[tokio::test]
async fn silence_has_no_effect_or_has_it() {
    let (server, proxy) = world().await;
    proxy.arm(1, FaultKind::Hang);
    let mut client = Client::connect(proxy.addr()).await;
    client
        .send("PUT /a HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0")
        .await;
    assert!(is_silent(&mut client).await);
    assert!(server.seen().is_empty());
    assert!(proxy.disarm());

    proxy.misbehave(1, Misbehaviour::HangAfter);
    let mut client = Client::connect(proxy.addr()).await;
    client
        .send("PUT /b HTTP/1.1\r\nContent-Length: 1\r\n\r\n\0")
        .await;
    assert!(is_silent(&mut client).await);
    assert_eq!(server.seen(), ["PUT /b 1"]);
}

#[tokio::test]
async fn a_made_up_answer_leaves_the_connection_usable() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    for status in [429, 500, 503] {
        let answer = Answer::s3(status, "SlowDown").retry_after(7);
        proxy.misbehave(1, Misbehaviour::Answer(answer));
        let got = client.put("/k", 100_000).await.unwrap();
        assert_eq!(got.status, status);
        assert!(got.head.contains("retry-after: 7\r\n"), "{}", got.head);
        assert!(
            String::from_utf8(got.body)
                .unwrap()
                .contains("<Code>SlowDown</Code>")
        );
    }
    let error = Answer::s3(200, "InternalError");
    proxy.misbehave_always(Misbehaviour::Answer(error));
    for _ in 0..3 {
        let got = client.ask("GET /n/3").await.unwrap();
        assert!(got.status == 200 && got.body.starts_with(b"<?xml"));
    }
    assert!(proxy.disarm() && server.seen().is_empty());
    assert_eq!(client.ask("GET /n/3").await.unwrap().body, [0, 1, 2]);
}

#[tokio::test]
async fn a_request_is_delivered_twice_one_after_the_other() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.misbehave(1, Misbehaviour::Twice);
    let got = client.put("/k", 100_000).await.unwrap();
    assert_eq!(got.body, b"got 100000, as number 1");
    assert_eq!(server.seen(), ["PUT /k 100000", "PUT /k 100000"]);

    proxy.misbehave(1, Misbehaviour::Again);
    let got = client.ask("DELETE /k").await.unwrap();
    assert_eq!(got.body, b"got 0, as number 4");
    assert_eq!(client.ask("GET /n/1").await.unwrap().body, [0]);
    assert_eq!(server.seen().len(), 5);
}

#[tokio::test]
async fn a_late_request_lands_when_it_is_told_to() {
    let (server, proxy) = world().await;
    for put in [true, false] {
        proxy.misbehave(1, Misbehaviour::Late);
        let mut client = Client::connect(proxy.addr()).await;
        if put {
            client.put("/k", 100_000).await.unwrap_err();
        } else {
            client.ask("DELETE /k").await.unwrap_err();
        }
    }
    let mut client = Client::connect(proxy.addr()).await;
    client.put("/k", 5).await.unwrap();
    assert_eq!((proxy.undelivered(), server.seen().len()), (2, 1));
    assert_eq!(proxy.deliver().await.unwrap(), 2);
    assert_eq!(server.seen(), ["PUT /k 5", "PUT /k 100000", "DELETE /k 0"]);
    assert_eq!(proxy.undelivered(), 0);
}

#[tokio::test]
async fn delays_hold_back_one_request_or_all() {
    let (server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    proxy.misbehave(1, Misbehaviour::Delay(SILENCE * 8));
    client.send("DELETE /k HTTP/1.1\r\n\r\n").await;
    assert!(is_silent(&mut client).await);
    assert!(server.seen().is_empty());
    assert_eq!(client.answer().await.unwrap().status, 200);
    proxy.delay(SILENCE);
    let start = std::time::Instant::now();
    assert!(client.ask("DELETE /k").await.is_ok());
    assert!(client.ask("DELETE /k").await.is_ok());
    assert!(start.elapsed() >= SILENCE * 2);
}

#[tokio::test]
async fn a_client_that_expects_a_word_gets_it() {
    let (server, proxy) = world().await;
    let head = "PUT /k HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    for what in [
        None,
        Some(Misbehaviour::Twice),
        Some(Misbehaviour::LoseAnswer),
        Some(Misbehaviour::Late),
    ] {
        proxy.disarm();
        if let Some(what) = &what {
            proxy.misbehave(1, what.clone());
        }
        let mut client = Client::connect(proxy.addr()).await;
        client.send(head).await;
        assert_eq!(client.answer().await.unwrap().status, 100);
        client.send([0, 1, 2]).await;
        let answered = matches!(what, None | Some(Misbehaviour::Twice));
        assert_eq!(client.answer().await.is_ok(), answered, "{what:?}");
    }
    assert_eq!(proxy.deliver().await.unwrap(), 1);
    assert_eq!(server.seen(), ["PUT /k 3"; 5]);

    // Refused before the body, by the proxy or by the server: the answer arrives, and then the connection closes.
    proxy.misbehave(1, Misbehaviour::Answer(Answer::new(503)));
    for (path, status) in [("/k", 503), ("/refuse", 417)] {
        let mut client = Client::connect(proxy.addr()).await;
        client.send(head.replace("/k", path)).await;
        assert_eq!(client.answer().await.unwrap().status, status);
        assert!(client.is_closed().await);
    }
}

#[tokio::test]
async fn a_client_that_asks_ahead_is_answered_in_order() {
    let (_server, proxy) = world().await;
    proxy.misbehave(2, Misbehaviour::Answer(Answer::new(500)));
    let mut client = Client::connect(proxy.addr()).await;
    client
        .send("GET /n/1 HTTP/1.1\r\n\r\nGET /n/2 HTTP/1.1\r\n\r\nGET /n/3 HTTP/1.1\r\n\r\n")
        .await;
    let mut statuses = Vec::new();
    for _ in 0..3 {
        statuses.push(client.answer().await.unwrap().status);
    }
    assert_eq!(statuses, [200, 500, 200]);
}

#[tokio::test]
async fn everything_ends_with_the_proxy() {
    let (_server, proxy) = world().await;
    let mut client = Client::connect(proxy.addr()).await;
    assert!(client.ask("GET /n/1").await.is_ok());
    let addr = proxy.addr();
    drop(proxy);
    assert!(client.is_closed().await);
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
