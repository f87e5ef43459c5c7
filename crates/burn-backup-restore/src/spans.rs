//! Spans and events for `tracing`, with the feature of that name. Without the feature, these functions do nothing.

use crate::event::Event;

#[cfg(feature = "tracing")]
const TARGET: &str = "burn_backup";

/// The span of a backup's stage, until it is dropped.
#[cfg(feature = "tracing")]
pub(crate) struct StageSpan {
    _span: tracing::span::EnteredSpan,
}

/// The span of a backup's stage, until it is dropped.
#[cfg(not(feature = "tracing"))]
pub(crate) struct StageSpan;

#[cfg(feature = "tracing")]
macro_rules! stages {
    ($($stage:ident)*) => {$(
        pub(crate) fn $stage() -> StageSpan {
            StageSpan {
                _span: tracing::info_span!(target: TARGET, stringify!($stage)).entered(),
            }
        }
    )*};
}

#[cfg(not(feature = "tracing"))]
macro_rules! stages {
    ($($stage:ident)*) => {$(
        pub(crate) fn $stage() -> StageSpan {
            StageSpan
        }
    )*};
}

stages!(snapshot encode commit prune restore);

/// The event, with its fields as JSON.
#[cfg(feature = "tracing")]
pub(crate) fn event(event: &Event) {
    let name = event.name();
    match event {
        Event::Restored { .. }
        | Event::Committed { .. }
        | Event::Mirrored { .. }
        | Event::Finished { .. } => {
            tracing::info!(target: TARGET, event = name, fields = event.to_json(), "{event}");
        }
        Event::Failed { .. } | Event::MirrorStopped { .. } => {
            tracing::error!(target: TARGET, event = name, fields = event.to_json(), "{event}");
        }
        _ => tracing::warn!(target: TARGET, event = name, fields = event.to_json(), "{event}"),
    }
}

#[cfg(not(feature = "tracing"))]
pub(crate) fn event(_event: &Event) {}
