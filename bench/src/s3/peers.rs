//! The clients, each behind the same few calls.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use bytes::Bytes;
use futures_util::TryStreamExt;
use larder_s3::{S3Blob, S3Config, S3Place};
use larder_traits::{Atomicity, BlobMulti};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _, WriteMultipart};
use opendal_core::{HttpTransporter, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;

use super::{ACCESS_KEY, BUCKET, FAN_OUT, LARGE, LISTED, PART_LEN_BYTES, Place, SECRET_KEY};
use crate::harness::Result;

const REGION: &str = "us-east-1";

/// What is asked of every client.
#[async_trait]
pub(super) trait Client: Send + Sync {
    async fn set(&self, key: &str, value: Bytes) -> Result;

    /// The value in one piece, in whatever way is the fastest.
    async fn get(&self, key: &str) -> Result<Bytes>;

    /// The value as its caller's own.
    async fn get_vec(&self, key: &str) -> Result<Vec<u8>>;

    /// How many keys ours has below [`LISTED`].
    async fn list(&self) -> Result<usize>;
}

impl Place {
    /// What the name of a key is, for clients that know no places.
    fn name(&self, key: &str) -> String {
        format!("{}/!blobs/{key}", self.prefix)
    }

    /// What the names of all keys start with that are listed.
    fn listed(&self) -> String {
        format!("{}/!blobs/{LISTED}", self.prefix_of_ours)
    }
}

/// Far enough for everything.
fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(60)
}

pub(super) struct Ours(S3Blob);

impl Ours {
    pub(super) async fn open(place: &Place) -> Result<Self> {
        let config = S3Config::new(BUCKET)
            .with_endpoint(&place.endpoint)
            .with_prefix(&place.prefix)
            .with_credentials(ACCESS_KEY, SECRET_KEY)
            .with_payload_signing(false)
            .with_conditional_writes(false);
        Ok(Self(S3Place::open(config).await?.blob_multi()))
    }
}

#[async_trait]
impl Client for Ours {
    async fn set(&self, key: &str, value: Bytes) -> Result {
        let set = self.0.set(deadline(), key, value, Atomicity::RequireAtomic);
        Ok(set.await?)
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let found = self.0.get_bytes(deadline(), key).await?;
        Ok(found.ok_or("it was set")?)
    }

    async fn get_vec(&self, key: &str) -> Result<Vec<u8>> {
        let found = self.0.get(deadline(), key).await?;
        Ok(found.ok_or("it was set")?)
    }

    async fn list(&self) -> Result<usize> {
        Ok(self.0.list_prefix(deadline(), LISTED).await?.len())
    }
}

/// Amazon's client as it comes.
pub(super) struct Amazon {
    client: aws_sdk_s3::Client,
    place: Place,
}

impl Amazon {
    pub(super) fn new(place: Place) -> Self {
        let credentials = Credentials::new(ACCESS_KEY, SECRET_KEY, None, None, "bench");
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .region(Region::new(REGION))
            .endpoint_url(&place.endpoint)
            .credentials_provider(credentials)
            .force_path_style(true)
            .build();
        Self {
            client: aws_sdk_s3::Client::from_conf(config),
            place,
        }
    }

    /// Creating it again does nothing.
    pub(super) async fn create_bucket(&self) -> Result {
        self.client.create_bucket().bucket(BUCKET).send().await?;
        Ok(())
    }
}

#[async_trait]
impl Client for Amazon {
    async fn set(&self, key: &str, value: Bytes) -> Result {
        let put = self.client.put_object().bucket(BUCKET);
        let put = put.key(self.place.name(key)).body(value.into());
        put.send().await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        let get = self.client.get_object().bucket(BUCKET);
        let found = get.key(self.place.name(key)).send().await?;
        Ok(found.body.collect().await?.into_bytes())
    }

    async fn get_vec(&self, key: &str) -> Result<Vec<u8>> {
        let get = self.client.get_object().bucket(BUCKET);
        let found = get.key(self.place.name(key)).send().await?;
        Ok(found.body.collect().await?.to_vec())
    }

    async fn list(&self) -> Result<usize> {
        let list = self.client.list_objects_v2().bucket(BUCKET);
        let list = list.prefix(self.place.listed());
        let mut pages = list.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            found.extend(page?.contents.unwrap_or_default());
        }
        Ok(found.len())
    }
}

pub(super) struct ObjectStore {
    store: AmazonS3,
    place: Place,
    in_parts: bool,
}

impl ObjectStore {
    pub(super) fn open(place: Place) -> Result<Self> {
        let store = AmazonS3Builder::new()
            .with_endpoint(&place.endpoint)
            .with_allow_http(true)
            .with_region(REGION)
            .with_bucket_name(BUCKET)
            .with_access_key_id(ACCESS_KEY)
            .with_secret_access_key(SECRET_KEY)
            .with_unsigned_payload(true)
            .build()?;
        Ok(Self {
            store,
            place,
            in_parts: false,
        })
    }

    /// The same that writes in parts, several at a time.
    pub(super) fn in_parts(self) -> Self {
        Self {
            in_parts: true,
            ..self
        }
    }

    fn path(&self, key: &str) -> Result<Path> {
        Ok(Path::parse(self.place.name(key))?)
    }
}

#[async_trait]
impl Client for ObjectStore {
    async fn set(&self, key: &str, value: Bytes) -> Result {
        let path = self.path(key)?;
        if !self.in_parts {
            self.store.put(&path, value.into()).await?;
            return Ok(());
        }
        let upload = self.store.put_multipart(&path).await?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, PART_LEN_BYTES);
        let mut rest = value;
        while !rest.is_empty() {
            upload.wait_for_capacity(FAN_OUT).await?;
            upload.put(rest.split_to(rest.len().min(PART_LEN_BYTES)));
        }
        upload.finish().await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        Ok(self.store.get(&self.path(key)?).await?.bytes().await?)
    }

    async fn get_vec(&self, key: &str) -> Result<Vec<u8>> {
        Ok(self.get(key).await?.into())
    }

    async fn list(&self) -> Result<usize> {
        let path = Path::parse(self.place.listed().trim_end_matches('/'))?;
        let found: Vec<_> = self.store.list(Some(&path)).try_collect().await?;
        Ok(found.len())
    }
}

pub(super) struct OpenDal {
    operator: Operator,
    place: Place,
}

impl OpenDal {
    pub(super) fn open(place: Place) -> Result<Self> {
        HttpTransporter::install_default(ReqwestTransport::default());
        let builder = opendal_service_s3::S3::default()
            .endpoint(&place.endpoint)
            .region(REGION)
            .bucket(BUCKET)
            .access_key_id(ACCESS_KEY)
            .secret_access_key(SECRET_KEY)
            .disable_config_load()
            .disable_ec2_metadata();
        Ok(Self {
            operator: Operator::new(builder)?,
            place,
        })
    }

    /// What is large comes in parts; what is small would only pay for that.
    async fn read(&self, key: &str) -> Result<opendal_core::Buffer> {
        let name = self.place.name(key);
        if key != LARGE {
            return Ok(self.operator.read(&name).await?);
        }
        let read = self.operator.read_with(&name);
        Ok(read.chunk(PART_LEN_BYTES).concurrent(FAN_OUT).await?)
    }
}

#[async_trait]
impl Client for OpenDal {
    async fn set(&self, key: &str, value: Bytes) -> Result {
        let name = self.place.name(key);
        if key != LARGE {
            self.operator.write(&name, value).await?;
            return Ok(());
        }
        let write = self.operator.write_with(&name, value);
        write.chunk(PART_LEN_BYTES).concurrent(FAN_OUT).await?;
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        Ok(self.read(key).await?.to_bytes())
    }

    async fn get_vec(&self, key: &str) -> Result<Vec<u8>> {
        Ok(self.read(key).await?.to_vec())
    }

    async fn list(&self) -> Result<usize> {
        let listed = self.place.listed();
        let list = self.operator.list_with(&listed);
        Ok(list.recursive(true).await?.len())
    }
}
