//! Signatures: version 4 of Amazon's, in headers.
//!
//! `aws-sigv4` brings requests of any kind into the form that is signed, which takes as long as a third of all else that
//! a small one needs here. Those of this crate are built in that form, so what is left is to write it down. The keys are
//! that crate's, and a test holds the whole against it.

use std::fmt::Write;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use sha2::{Digest, Sha256};

use crate::thin::Request;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// What is signed of every request.
#[derive(Debug)]
pub(crate) struct Scope {
    /// As it stands in the header.
    host: String,
    /// What paths begin with.
    path: String,
    region: String,
    service: String,
}

impl Scope {
    /// The scope of requests to `address` and below it.
    pub(crate) fn new(address: &str, region: &str, service: &str) -> Self {
        let (scheme, rest) = address.split_once("://").unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let host = authority
            .rsplit_once('@')
            .map_or(authority, |(_, host)| host);
        // What goes without saying is not said.
        let port = match scheme.to_ascii_lowercase().as_str() {
            "http" => ":80",
            _ => ":443",
        };
        Self {
            host: host.strip_suffix(port).unwrap_or(host).to_owned(),
            path: path.to_owned(),
            region: region.to_owned(),
            service: service.to_owned(),
        }
    }

    /// The headers that sign a request; with the hash of its body, or without.
    ///
    /// # Errors
    ///
    /// A time that no header can hold.
    pub(crate) fn sign(
        &self,
        request: &Request,
        credentials: &Credentials,
        now: SystemTime,
        with_body: bool,
    ) -> Result<Vec<(&'static str, String)>, Box<dyn std::error::Error + Send + Sync>> {
        let date = DateTime::from_secs(DateTime::from(now).secs());
        let mut date = date.fmt(DateTimeFormat::DateTime)?;
        date.retain(|letter| !matches!(letter, '-' | ':'));
        let day = date.split('T').next().unwrap_or_default();
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let body = if with_body {
            hex::encode(Sha256::digest(&request.body))
        } else {
            "UNSIGNED-PAYLOAD".to_owned()
        };
        let mut added = vec![("x-amz-content-sha256", body), ("x-amz-date", date)];
        if let Some(token) = credentials.session_token() {
            added.push(("x-amz-security-token", token.to_owned()));
        }
        let (target, query) = request
            .target
            .split_once('?')
            .unwrap_or((&request.target, ""));
        let mut text = format!("{}\n{}{target}\n{query}\n", request.method, self.path);
        let names = self.write_headers(request, &added, &mut text);
        write!(text, "\n{names}\n{}", added[0].1)?;
        let sum = hex::encode(Sha256::digest(text.as_bytes()));
        let text = format!("{ALGORITHM}\n{}\n{scope}\n{sum}", added[1].1);
        let secret = credentials.secret_access_key();
        let key = generate_signing_key(secret, now, &self.region, &self.service);
        let signature = calculate_signature(key, text.as_bytes());
        let who = credentials.access_key_id();
        let words = format!(
            "{ALGORITHM} Credential={who}/{scope}, SignedHeaders={names}, Signature={signature}"
        );
        added.push(("authorization", words));
        Ok(added)
    }

    /// Writes all headers in the order of their names, and returns these.
    fn write_headers(
        &self,
        request: &Request,
        added: &[(&str, String)],
        text: &mut String,
    ) -> String {
        let mut headers = vec![("host", self.host.as_str())];
        let others = request.headers.iter().chain(added);
        headers.extend(others.map(|(name, value)| (*name, value.as_str())));
        headers.sort_unstable();
        let mut names = String::new();
        for (name, value) in headers {
            text.extend([name, ":", value.trim(), "\n"]);
            names.extend([if names.is_empty() { "" } else { ";" }, name]);
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_sigv4::http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    };
    use aws_sigv4::sign::v4;
    use aws_smithy_runtime_api::client::identity::Identity;
    use proptest::prelude::*;

    use super::*;

    /// The same by the SDK's own crate.
    fn by_the_sdk(
        address: &str,
        request: &Request,
        credentials: &Credentials,
        now: SystemTime,
        with_body: bool,
    ) -> Vec<(&'static str, String)> {
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        let identity = Identity::from(credentials.clone());
        let params = v4::SigningParams::builder()
            .identity(&identity)
            .region("here")
            .name("s3")
            .time(now)
            .settings(settings)
            .build()
            .expect("nothing is missing")
            .into();
        let body = if with_body {
            SignableBody::Bytes(&request.body)
        } else {
            SignableBody::UnsignedPayload
        };
        let headers = request
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()));
        let url = format!("{address}{}", request.target);
        let signable = SignableRequest::new(request.method, url, headers, body);
        let signed = sign(signable.expect("it is one"), &params).expect("it can be signed");
        let (headers, _) = signed.into_parts().0.into_parts();
        headers
            .iter()
            .map(|it| (it.name(), it.value().to_owned()))
            .collect()
    }

    proptest! {
        #[test]
        fn a_signature_is_the_one_of_the_sdk(
            (name, value) in ("[ -~é]{1,20}", "[!-~]{1,12}"),
            (token, with_body, listing) in any::<(bool, bool, bool)>(),
            secs in 0_u64..4_000_000_000,
            address in prop::sample::select(vec![
                "http://127.0.0.1:9000/pantry", "http://[::1]:80/pantry", "https://pantry.jam.example:443",
                "https://pantry.jam.example:9000", "https://jam.example/s3/pantry", "http://jam.example:443",
            ]),
        ) {
            let request = if listing {
                Request::of_bucket(&[("prefix", &name), ("list-type", "2"), ("continuation-token", &value)])
            } else {
                Request::of_object("PUT", &name)
                    .header("x-amz-meta-larder", value.clone())
                    .header("if-match", value)
                    .body("plum".into())
            };
            let token = token.then(|| "token".to_owned());
            let credentials = Credentials::new("access", "secret", token, None, "test");
            let now = SystemTime::UNIX_EPOCH + Duration::from_millis(secs * 1_000 + 7);
            let scope = Scope::new(address, "here", "s3");
            let mut ours = scope.sign(&request, &credentials, now, with_body).unwrap();
            let mut theirs = by_the_sdk(address, &request, &credentials, now, with_body);
            ours.sort();
            theirs.sort();
            prop_assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_host_is_signed_as_it_is_sent() {
        for (address, host) in [
            (
                "http://cook:plum@jam.example:9000/pantry",
                "jam.example:9000",
            ),
            ("HTTP://jam.example:80", "jam.example"),
            ("https://jam.example:80/", "jam.example:80"),
        ] {
            assert_eq!(Scope::new(address, "here", "s3").host, host);
        }
    }
}
