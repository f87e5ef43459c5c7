//! One request fails, at each position in turn.

use burn_backup_store::testing::report;

use super::model::{Fault, Model};
use super::support::{Process, is_finished, machine, newest, restore};

/// Trains, mirrors three generations, and ends. Returns the number of requests.
async fn training(model: &Model) -> u64 {
    let process = Process::start(model, "first", machine(), 1).await.unwrap();
    process.train(3).await.unwrap();
    let requests = model.requests();
    process.leave().await;
    requests
}

#[tokio::test(start_paused = true)]
async fn whatever_request_fails_the_newest_generation_is_mirrored_in_the_end() {
    let requests = training(&Model::new()).await;
    let mut cases = 0;
    for fault in [Fault::Refused, Fault::Unanswered, Fault::Cut] {
        for request in 0..requests {
            let model = Model::new().failing(request, fault);
            training(&model).await;
            let (store, _) = restore(&model.another(), "second").await.unwrap();
            let expected = Some(("first".to_owned(), 3));
            assert_eq!(newest(&store), expected, "{fault:?} at {request}");
            cases += 1;
        }
    }
    report(&format!("{cases} requests failed, of {requests}"));
}

#[tokio::test(start_paused = true)]
async fn whatever_request_of_a_restore_fails_it_is_whole_or_an_error() {
    let model = Model::new();
    training(&model).await;
    let reader = model.another();
    restore(&reader, "reader").await.unwrap();
    let requests = reader.requests();
    let mut cases = 0;
    for fault in [Fault::Refused, Fault::Unanswered, Fault::Cut] {
        for request in 0..requests {
            let reader = model.another().failing(request, fault);
            if let Ok((store, _)) = restore(&reader, "reader").await {
                let expected = Some(("first".to_owned(), 3));
                assert_eq!(newest(&store), expected, "{fault:?} at {request}");
            }
            // The next restore succeeds.
            let (store, _) = restore(&model.another(), "reader").await.unwrap();
            assert!(newest(&store).is_some());
            cases += 1;
        }
    }
    report(&format!("{cases} restores met a failing request"));
}

#[tokio::test(start_paused = true)]
async fn whatever_request_of_the_end_fails_nothing_old_comes_back() {
    let end = async |model: &Model| {
        let process = Process::start(model, "first", machine(), 1).await.unwrap();
        process.train(2).await.unwrap();
        let before = model.requests();
        let finished = process.finish().await;
        (before, model.requests(), finished.is_ok())
    };
    let (before, after, is_finished_well) = end(&Model::new()).await;
    assert!(is_finished_well);
    for fault in [Fault::Refused, Fault::Unanswered] {
        for request in before..after {
            let model = Model::new().failing(request, fault);
            end(&model).await;
            let (store, found) = restore(&model.another(), "second").await.unwrap();
            match is_finished(&model) {
                true => assert_eq!(found, None, "{fault:?} at {request}"),
                false => assert_eq!(newest(&store).unwrap().1, 2, "{fault:?} at {request}"),
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn objects_that_cannot_be_deleted_stay_and_are_not_read() {
    let model = Model::new().denying("delete");
    training(&model).await;
    let manifests = |names: Vec<String>| {
        let manifests = names
            .into_iter()
            .filter(|name| name.contains("/generations/"));
        manifests.count()
    };
    assert_eq!(manifests(model.names()), 3);
    let (store, _) = restore(&model.another(), "second").await.unwrap();
    assert_eq!(newest(&store), Some(("first".to_owned(), 3)));
}

#[tokio::test(start_paused = true)]
async fn a_mirror_is_used_once_it_can_be_reached() {
    let model = Model::new();
    model.allow(0);
    let process = Process::start(&model, "first", machine(), 1);
    let process = process.await.unwrap();
    process.save();
    assert!(process.shared.is_flushed().is_none());
    model.allow(u64::MAX);
    process.settle().await.unwrap();
    assert!(process.shared.status().failures <= 1);
}
