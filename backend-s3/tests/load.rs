//! A server that is killed and started again while clients write and read: whatever they were told has to fit together.

mod calls;
mod server;

use std::time::Duration;

use larder_conformance::lin::Verdict;
use larder_s3::{S3Config, S3Place};

use calls::{Clients, Load};
use server::{ACCESS_KEY, BUCKET, SECRET_KEY, Server};

const CLIENTS: usize = 4;
const KILLS: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_through_kills_of_the_server_are_linearizable() {
    let server = Server::start().await.unwrap();
    let mut handles = Vec::new();
    for _ in 0..=CLIENTS {
        let config = S3Config::new(BUCKET)
            .with_endpoint(server.endpoint())
            .with_credentials(ACCESS_KEY, SECRET_KEY)
            .with_part_len_bytes((16_usize << 10).try_into().unwrap())
            .with_conditional_writes(false);
        handles.push(S3Place::open(config).await.unwrap().blob_multi());
    }
    let last = handles.pop().unwrap();
    let load = Load {
        calls_max: 60,
        patience: Duration::from_secs(5),
        long_len_bytes: 40 << 10,
        long_every: 3,
        deletes_alone: false,
    };
    let clients = Clients::start(load, handles);
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(60)).await;
        server.kill();
        tokio::time::sleep(Duration::from_millis(30)).await;
        server.start_again().await.unwrap();
    }
    let report = clients.judge(&last).await.unwrap().report;
    assert!(
        report.overlapping > 20,
        "there was little to judge: {report:?}"
    );
    assert!(
        matches!(report.verdict, Verdict::Linearizable),
        "{report:?}"
    );
}
