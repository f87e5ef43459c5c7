//! Places without conditional puts.

use super::model::{Conditions, Model};
use super::support::{Process, machine, newest, restore, terms};
use crate::error::MirrorError;
use crate::lease::LeaseSettings;

#[tokio::test(start_paused = true)]
async fn without_conditions_only_a_single_writer_is_accepted() {
    for conditions in [Conditions::Ignored, Conditions::Unsupported] {
        let model = Model::new().with(conditions);
        let process = Process::start(&model, "first", machine(), 1).await.unwrap();
        process.save();
        let refused = process.settle().await.unwrap_err();
        assert!(
            matches!(*refused, MirrorError::NoConditionalPut { .. }),
            "{conditions:?}: {refused}"
        );

        let model = Model::new().with(conditions);
        let single = |name| LeaseSettings {
            single_writer: true,
            ..terms(name)
        };
        let process = Process::start_as(&model, "first", machine(), 1, single("first"));
        let process = process.await.unwrap();
        process.train(3).await.unwrap();
        process.die().await;
        let store = machine();
        drop(store);
        let model = model.with(Conditions::Honoured);
        let (store, _) = restore(&model, "second").await.unwrap();
        assert_eq!(newest(&store), Some(("first".to_owned(), 3)));
    }
}
