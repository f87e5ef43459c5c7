//! Error messages of clients may contain credentials.

use super::model::Model;
use super::support::place;
use crate::error::MirrorError;
use crate::place::PutCondition;
use crate::redact::Secrets;

#[tokio::test(start_paused = true)]
async fn no_error_shows_a_credential() {
    let model = Model::new().failing(0, super::model::Fault::Refused);
    let mut place = place(&model);
    place.secrets = Secrets::new(vec!["has failed".to_owned()]);
    let path = "prefix/https://host/a?sig=abc".into();
    let put = place
        .put(&path, "x".into(), PutCondition::Always)
        .await
        .map(drop);
    let error = put.unwrap_err();
    let mut text = format!("{error} {error:?}");
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    assert!(matches!(error, MirrorError::Request { .. }));
    assert!(
        !text.contains("has failed") && text.contains("[redacted]"),
        "{text}"
    );
}
