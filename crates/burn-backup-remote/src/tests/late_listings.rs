//! Listings that do not show recent puts yet, or still show deleted objects.

use burn_backup_store::testing::report;

use super::model::{Fault, Model};
use super::support::{Process, machine, newest, newest_manifest, restore};

/// How many objects a training puts before its first manifest. The lease is one of the first.
const AT_MOST: usize = 12;

#[tokio::test(start_paused = true)]
async fn the_newest_generation_is_found_though_listings_lag() {
    let training = async |model: &Model| {
        let process = Process::start(model, "first", machine(), 2).await.unwrap();
        let trained = tokio::select! {
            trained = process.train(4) => trained.is_ok(),
            () = model.died() => false,
        };
        process.die().await;
        trained
    };
    let whole = Model::new();
    training(&whole).await;
    let mut cases = 0;
    for lag in 1..=AT_MOST {
        for request in 0..whole.requests() {
            let model = Model::new()
                .lagging(lag)
                .failing(request, Fault::KilledAfter);
            training(&model).await;
            let Some(there) = newest_manifest(&model) else {
                continue;
            };
            let (store, found) = restore(&model.another(), "second").await.unwrap();
            // A training that no listing shows is not found.
            if found.is_some() {
                let expected = Some(("first".to_owned(), there));
                assert_eq!(
                    newest(&store),
                    expected,
                    "{lag} behind, killed at {request}"
                );
                cases += 1;
            }
        }
    }
    report(&format!("{cases} restores with late listings"));
    assert!(cases > 100);
}

#[tokio::test(start_paused = true)]
async fn a_finished_training_does_not_come_back_though_listings_lag() {
    for lag in 1..=AT_MOST {
        let model = Model::new().lagging(lag);
        let process = Process::start(&model, "first", machine(), 1).await.unwrap();
        process.train(3).await.unwrap();
        process.finish().await.unwrap();
        let (_, found) = restore(&model.another(), "second").await.unwrap();
        assert_eq!(found, None, "{lag} behind");
    }
}
