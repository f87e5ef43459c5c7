//! A part that is sent in pieces.

use std::sync::Arc;

use burn_backup_store::{GenerationId, Store};

use super::model::{Fault, Model};
use super::support::{Process, machine, restore};

/// Two pieces, and a part of a third one.
const BYTES: usize = 33 * 1024 * 1024;

fn large() -> Arc<[u8]> {
    let bytes =
        (0..BYTES / 4).flat_map(|word| (word as u32).wrapping_mul(0x9e37_79b9).to_le_bytes());
    bytes.collect()
}

fn save(store: &Store, bytes: Arc<[u8]>) -> GenerationId {
    let mut staging = store.stage().unwrap();
    let mut part = staging.part("large").unwrap();
    part.append(bytes).unwrap();
    part.finish().unwrap();
    let committed = staging.commit(serde_json::Value::Null).unwrap();
    committed.id()
}

async fn mirrored(model: &Model, bytes: Arc<[u8]>) -> u64 {
    let store = machine();
    save(&store, bytes);
    let process = Process::start(model, "first", store, 1).await.unwrap();
    process.settle().await.unwrap();
    let requests = model.requests();
    process.leave().await;
    requests
}

async fn assert_restored(model: &Model, bytes: &[u8], context: &str) {
    let (store, _) = restore(&model.another(), "second").await.unwrap();
    let mut newest = store.newest().unwrap().unwrap();
    assert!(
        newest.take_part("large").as_deref() == Some(bytes),
        "{context}"
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_request_fails_all_pieces_arrive_in_the_end() {
    let bytes = large();
    let whole = Model::new();
    let requests = mirrored(&whole, bytes.clone()).await;
    assert_restored(&whole, &bytes, "uninterrupted").await;
    let log = whole.log();
    let pieces = |log: &[String]| log.iter().filter(|what| what.starts_with("piece")).count();
    assert_eq!(pieces(&log), 3);
    for fault in [Fault::Refused, Fault::Unanswered] {
        for request in 0..requests {
            let of = &log[request as usize];
            if !["begin", "piece", "complete", "head prefix"]
                .iter()
                .any(|what| of.starts_with(what))
            {
                continue;
            }
            let model = Model::new().failing(request, fault);
            mirrored(&model, bytes.clone()).await;
            let context = format!("{fault:?} at {request}: {of}");
            assert_restored(&model, &bytes, &context).await;
            let begun = model.log();
            let count = |what: &str| begun.iter().filter(|entry| entry.starts_with(what)).count();
            if of.starts_with("piece") || of.starts_with("complete") {
                assert_eq!((count("begin"), count("abort")), (2, 1), "{context}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn pieces_are_discarded_when_the_process_ends() {
    let model = Model::new();
    let store = machine();
    save(&store, large());
    let begun = model.log().len();
    assert_eq!(begun, 0);
    let process = Process::start(&model, "first", store, 1).await.unwrap();
    while !model.log().iter().any(|what| what.starts_with("piece")) {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    process.leave().await;
    assert!(model.log().iter().any(|what| what.starts_with("abort")));
    assert!(!model.names().iter().any(|name| name.contains("/parts/")));
}
