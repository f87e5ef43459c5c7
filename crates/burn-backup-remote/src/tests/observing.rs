//! Reading a mirror without changing it.

use std::sync::Arc;

use burn_backup_store::{GenerationId, OpenOptions, Store};

use super::model::Model;
use super::support::{Process, machine, place};
use crate::error::MirrorError;
use crate::mirror::Mirror;
use crate::observe::trainings;
use crate::retention::KeepLast;

#[tokio::test(start_paused = true)]
async fn observing_shows_the_owner_and_changes_nothing() {
    let model = Model::new();
    assert!(trainings(&place(&model)).await.unwrap().is_empty());

    let process = Process::start(&model, "first", machine(), 2).await.unwrap();
    process.train(3).await.unwrap();
    let run_id = process.store.identity().run_id.clone();
    let observer = model.another();
    let found = trainings(&place(&observer)).await.unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].run_id(), run_id);
    let numbers: Vec<_> = found[0].generations().map(GenerationId::number).collect();
    assert_eq!(numbers, [3, 2]);
    assert_eq!(found[0].holder().unwrap().0, "first");
    assert_eq!(found[0].finished(), None);
    let changes = |request: &String| request.contains("put") || request.contains("delete");
    let log = observer.log();
    assert!(!log.is_empty() && !log.iter().any(changes), "{log:?}");

    process.train(1).await.unwrap();
    process.leave().await;
    let found = trainings(&place(&model)).await.unwrap();
    assert_eq!(found[0].holder(), None);
    assert_eq!(found[0].greatest().number(), 4);
}

#[tokio::test(start_paused = true)]
async fn observing_shows_a_finished_training() {
    let model = Model::new();
    let process = Process::start(&model, "first", machine(), 2).await.unwrap();
    process.train(2).await.unwrap();
    process.finish().await.unwrap();
    let found = trainings(&place(&model)).await.unwrap();
    assert_eq!(found[0].finished(), Some(GenerationId::new(2)));
    assert_eq!(found[0].generations().count(), 0);
}

/// Commits and mirrors two generations, of which the newest stays.
fn mirrored(dir: &std::path::Path, url: &str) -> std::sync::Arc<Store> {
    let store = std::sync::Arc::new(Store::open(dir, OpenOptions::default()).unwrap());
    let connection = Mirror::new(url).connect().unwrap();
    let mirroring = connection.mirror(None, &store, None, Arc::new(KeepLast(1)), Box::new(|_| {}));
    for number in 1..=2_u8 {
        let mut staging = store.stage().unwrap();
        let mut part = staging.part("model").unwrap();
        part.append(vec![number; 20]).unwrap();
        part.finish().unwrap();
        let committed = staging.commit(number).unwrap();
        mirroring.committed(committed.id());
        let go_on = &mut |_| std::ops::ControlFlow::Continue(());
        mirroring.flush(None, go_on).unwrap();
    }
    store
}

#[test]
fn a_copy_is_byte_identical_and_leaves_the_lease_to_the_training() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = |name: &str| temporary.path().join(name);
    std::fs::create_dir(dir("mirror")).unwrap();
    let url = format!("file://{}", dir("mirror").display());
    let store = mirrored(&dir("backup"), &url);

    let connection = Mirror::new(&*url).connect().unwrap();
    let found = connection.observe().unwrap().remove(0);
    let id = found.generations().next().unwrap();
    let manifest = connection.manifest(&found, id).unwrap();
    assert_eq!(manifest.state::<u8>().unwrap(), 2);
    let mut copy = Store::open(dir("copy"), OpenOptions::default()).unwrap();
    let mut bytes = 0;
    let on_transfer = &mut |transfer: crate::Transfer| bytes = transfer.done;
    connection.copy(&found, id, &mut copy, on_transfer).unwrap();
    assert_eq!(bytes, 20);
    let read = |name: &str| {
        let place = dir(name).join(format!("generations/{id}"));
        ["manifest.json", "model.bpk"].map(|file| std::fs::read(place.join(file)).unwrap())
    };
    assert_eq!(read("copy"), read("backup"));
    assert_eq!(copy.identity().run_id, store.identity().run_id);
    // If the lease were taken, this process would be its holder.
    let after = connection.observe().unwrap().remove(0);
    assert_eq!(format!("{after:?}"), format!("{found:?}"));
}

#[test]
fn parts_pruned_meanwhile_are_not_damaged() {
    let temporary = tempfile::tempdir().unwrap();
    let dir = |name: &str| temporary.path().join(name);
    std::fs::create_dir(dir("mirror")).unwrap();
    let url = format!("file://{}", dir("mirror").display());
    let store = mirrored(&dir("backup"), &url);
    let connection = Mirror::new(&*url).connect().unwrap();
    let found = connection.observe().unwrap().remove(0);
    let id = found.generations().next().unwrap();

    let gone = connection
        .manifest(&found, GenerationId::new(1))
        .unwrap_err();
    assert!(matches!(gone, MirrorError::Pruned { .. }), "{gone}");

    // A damaged part is damage, ...
    let parts = dir("mirror").join(&store.identity().run_id).join("parts");
    for part in std::fs::read_dir(&parts).unwrap() {
        std::fs::write(part.unwrap().path(), [0; 20]).unwrap();
    }
    let mut copy = Store::open(dir("copy"), OpenOptions::default()).unwrap();
    let damaged = connection.copy(&found, id, &mut copy, &mut |_| {});
    assert!(damaged.unwrap_err().is_damage());
    assert!(copy.newest().unwrap().is_none());

    // .. unless the generation is not to be read any more.
    let root = parts.parent().unwrap();
    std::fs::remove_file(root.join("lease.json")).unwrap();
    std::fs::remove_dir_all(root.join("generations")).unwrap();
    let gone = connection.copy(&found, id, &mut copy, &mut |_| {});
    assert!(matches!(gone, Err(MirrorError::Pruned { .. })));
}
