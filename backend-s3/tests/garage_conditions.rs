//! Garage accepts the conditions of writes and overwrites all the same, so nothing may be declared there that stands on
//! them, by one node or by three.

mod real;

use std::process::ExitCode;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use larder_conformance::BoxError;
use larder_s3::S3Place;
use larder_traits::{
    Backend, Classify, ErrorKind, ExpirationPolicy, HighVolumeBackend, Metadata, ObjectContext,
    ObjectId, Outcome,
};
use libtest_mimic::{Arguments, Trial};

use real::{Garage, GarageCluster, Server};

const BUCKET: &str = "larder-conditions";

fn is(holds: bool, what: &str) -> Result<(), BoxError> {
    if holds { Ok(()) } else { Err(what.into()) }
}

async fn conditions_are_not_believed<S: Server>() -> Result<(), BoxError> {
    for endpoint in S::endpoints() {
        let client = real::client::<S>(&endpoint);
        real::make_bucket(&client, BUCKET).await?;
        // If this fails, Garage has learned it, and rows are worth a try there.
        for _ in 0..2 {
            let put = client.put_object().bucket(BUCKET).key("twice");
            put.if_none_match("*").send().await?;
        }
        let config = real::plain::<S>(&endpoint, BUCKET).with_prefix("rows");
        let place = S3Place::open(config).await?;
        is(!place.has_conditional_writes(), "conditions were believed")?;
        is(place.row_caps().is_none(), "rows were declared")?;
        let id = ObjectId::new(ObjectContext::new("conditions", Vec::new()), "a".to_owned());
        let rows = place.high_volume();
        let whole = Metadata::new();
        let put = rows.put_non_tombstone(&id, &whole, Bytes::new()).await;
        let told = put.map_err(|e| (e.kind(), e.outcome()));
        let unsupported = (ErrorKind::Unsupported, Outcome::NotApplied);
        is(told == Err(unsupported), "a row was put")?;
        // An idle time stands on conditions as well.
        let idle = Metadata::with_policy(ExpirationPolicy::TimeToIdle(Duration::from_secs(9)));
        let objects = place.backend();
        let put = objects
            .put_object(&id, &idle, stream::empty().boxed())
            .await;
        let told = put.map_err(|e| (e.kind(), e.outcome()));
        is(told == Err(unsupported), "an idle time was accepted")?;
        let left = client.list_objects_v2().bucket(BUCKET).prefix("rows");
        let left = left.send().await?;
        is(
            left.contents().is_empty(),
            "the trial left something behind",
        )?;
    }
    Ok(())
}

fn trial<S: Server>(name: &str) -> Trial {
    if S::endpoints().is_empty() {
        return real::absent::<S>(name);
    }
    Trial::test(name, || {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let done = runtime.block_on(conditions_are_not_believed::<S>());
        done.map_err(|e| e.to_string().into())
    })
}

fn main() -> ExitCode {
    let trials = vec![
        trial::<Garage>("conditions_are_not_believed_of_one_node"),
        trial::<GarageCluster>("conditions_are_not_believed_of_three_nodes"),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
