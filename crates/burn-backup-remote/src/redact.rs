//! Removes possible credentials from messages.

use std::env;
use std::sync::Arc;

use url::Url;

use crate::aws_profile;
use crate::error::Cause;

const REDACTED: &str = "[redacted]";

/// Redacting shorter values would remove ordinary words from messages.
const MIN_SECRET_BYTES: usize = 6;

/// The prefixes of environment variables that may hold credentials.
const OWNERS: [&str; 4] = ["AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_"];

/// Parts of the names of such variables.
const MARKS: [&str; 6] = [
    "KEY",
    "SECRET",
    "TOKEN",
    "PASSWORD",
    "SAS",
    "CONNECTION_STRING",
];

/// Values that may be credentials.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[String]>);

impl Secrets {
    /// The possible credentials in the process's environment, and in the mirror's URL.
    pub(crate) fn known(url: Option<&Url>) -> Self {
        let is_secret = |name: &str| {
            OWNERS.iter().any(|owner| name.starts_with(owner))
                && MARKS.iter().any(|mark| name.contains(mark))
        };
        let mut secrets: Vec<String> = env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| is_secret(name))
            .map(|(_, value)| value)
            .collect();
        // A connection string contains its secrets among other settings.
        let settings: Vec<String> = secrets
            .iter()
            .flat_map(|secret| secret.split(';'))
            .filter_map(|setting| setting.split_once('='))
            .filter(|(name, _)| name.contains("Key") || name.contains("Signature"))
            .map(|(_, value)| value.to_owned())
            .collect();
        secrets.extend(settings);
        if let Some(profile) = aws_profile::credentials() {
            secrets.extend([profile.access_key_id, profile.secret_access_key]);
            secrets.extend(profile.session_token);
        }
        if let Some(url) = url {
            secrets.extend(url.password().map(str::to_owned));
            secrets.extend(url.query().map(str::to_owned));
        }
        Self::new(secrets)
    }

    pub(crate) fn new(mut secrets: Vec<String>) -> Self {
        secrets.retain(|secret| secret.len() >= MIN_SECRET_BYTES);
        // One secret may be a part of another one.
        secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        Self(secrets.into())
    }

    /// The message of an error and its causes, without credentials.
    pub(crate) fn cause(&self, error: &(dyn std::error::Error + 'static)) -> Cause {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let said = cause.to_string();
            // The clients' errors repeat their causes.
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            source = cause.source();
        }
        Cause(self.redact(&text))
    }

    /// The text without credentials and without the signatures of URLs.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in self.0.iter() {
            text = text.replace(secret, REDACTED);
        }
        without_queries(&without_body(&text))
    }
}

/// Reduces a server's answer in the text to its code and its message. A server may repeat the request, with headers
/// that contain a token.
fn without_body(text: &str) -> String {
    let Some(at) = text.find("<?xml").or_else(|| text.find("<Error>")) else {
        return text.to_owned();
    };
    let (before, body) = text.split_at(at);
    let element = |name: &str| {
        let (_, after) = body.split_once(&format!("<{name}>"))?;
        after
            .split_once(&format!("</{name}>"))
            .map(|(text, _)| text)
    };
    let said: Vec<&str> = ["Code", "Message"]
        .into_iter()
        .filter_map(element)
        .collect();
    format!("{before}{}", said.join(": "))
}

/// Removes the query and the user from each URL in the text.
fn without_queries(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + "://".len());
        shown.push_str(before);
        let ends = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ')' | '>' | '<' | ',');
        let (url, after) = after.split_at(after.find(ends).unwrap_or(after.len()));
        let (place, query) = match url.split_once('?') {
            Some((place, _)) => (place, "?.."),
            None => (url, ""),
        };
        let host_ends = place.find('/').unwrap_or(place.len());
        let (authority, path) = place.split_at(host_ends);
        // A container's name also comes before an at sign: az://container@account.
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                shown.push_str(REDACTED);
                shown.push('@');
                shown.push_str(host);
            }
            _ => shown.push_str(authority),
        }
        shown.push_str(path);
        shown.push_str(query);
        rest = after;
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_signatures_are_removed_and_the_rest_stays() {
        let secrets = Secrets::new(vec!["s3cr3t-key".to_owned(), "key".to_owned()]);
        for (text, shown) in [
            ("the key is s3cr3t-key.", "the key is [redacted]."),
            (
                "error for url (https://host/a?sig=abc&b=c) twice: https://host/b?x",
                "error for url (https://host/a?..) twice: https://host/b?..",
            ),
            (
                "s3://user:word@bucket/a, then",
                "s3://[redacted]@bucket/a, then",
            ),
            ("az://container@account/a", "az://container@account/a"),
            ("why?", "why?"),
        ] {
            assert_eq!(secrets.redact(text), shown);
        }
    }

    #[test]
    fn only_code_and_message_of_an_answer_are_shown() {
        let text = "403 Forbidden: <?xml version=\"1.0\"?><Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message>\
                    <CanonicalRequest>x-amz-security-token:abc</CanonicalRequest></Error> at the end";
        let shown = Secrets::default().redact(text);
        assert_eq!(shown, "403 Forbidden: SignatureDoesNotMatch: No.");
    }

    #[test]
    fn each_cause_is_shown_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("{0}")]
        struct Outer(&'static str, #[source] std::io::Error);
        let io = || std::io::Error::other("refused");
        let secrets = Secrets::default();
        assert_eq!(secrets.cause(&Outer("put", io())).0, "put: refused");
        assert_eq!(
            secrets.cause(&Outer("put: refused", io())).0,
            "put: refused"
        );
    }
}
