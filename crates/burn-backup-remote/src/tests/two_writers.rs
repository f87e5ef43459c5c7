//! Two processes that both try to write to the mirror.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use burn_backup_store::testing::report;

use super::model::Model;
use super::support::{Process, TTL, machine, newest, restore};
use crate::error::MirrorError;

/// Longer than a process waits for another process's lease.
const WAIT: Duration = Duration::from_secs(25);

/// A process begins or resumes from the mirror, and mirrors two generations. Returns its outcome.
async fn life(model: Model, name: &'static str) -> Result<u64, Arc<MirrorError>> {
    let (store, _) = restore(&model, name).await.map_err(Arc::new)?;
    let process = Process::start(&model, name, store, 1)
        .await
        .map_err(Arc::new)?;
    process.train(1).await?;
    let number = process.save().number();
    process.settle().await?;
    // The machine dies.
    process.die().await;
    Ok(number)
}

/// The first process is stopped after `first_stops` requests, the second one after `second_stops`. Then the first one
/// continues to its end, and after it the second one.
async fn interleave(first_stops: u64, second_stops: u64) -> (u64, u64) {
    let context = format!("stopped at {first_stops} and {second_stops}");
    let model = Model::new();
    let (first, second) = (model.another(), model.another());
    first.allow(first_stops);
    second.allow(second_stops);
    let first_life = tokio::spawn(life(first.clone(), "first"));
    sleep(WAIT).await;
    let second_life = tokio::spawn(life(second.clone(), "second"));
    sleep(WAIT).await;
    let made = second.requests();
    first.allow(u64::MAX);
    // The first process may wait for the lease of the stopped second one.
    let first_end = timeout(4 * WAIT, first_life).await;
    second.allow(u64::MAX);
    let second_end = timeout(8 * WAIT, second_life).await;
    let first_end = first_end.expect(&context).unwrap();
    let second_end = second_end.expect(&context).unwrap();

    let ends = [("first", &first_end), ("second", &second_end)];
    for (name, end) in &ends {
        if let Err(error) = end {
            let is_expected = error.is_loss()
                || error.is_unavailable()
                || matches!(
                    **error,
                    MirrorError::Newer { .. }
                        | MirrorError::AnotherTraining { .. }
                        | MirrorError::SeveralTrainings { .. }
                );
            assert!(is_expected, "{context}: {name} ended with {error}");
        }
    }
    // The generation of the last process that ended well is restored.
    match restore(&model.another(), "third").await {
        Ok((store, _)) => {
            let found = newest(&store);
            let last = ends.iter().rev().find(|(_, end)| end.is_ok());
            if let (Some((name, end)), Some((process, number))) = (last, &found) {
                let ended_well = ends.iter().filter(|(_, end)| end.is_ok()).count();
                let expected = *end.as_ref().unwrap();
                match ended_well {
                    1 => assert!(
                        (process.as_str(), *number) == (*name, expected) || *number > expected,
                        "{context}: {found:?}"
                    ),
                    _ => assert!(*number >= expected, "{context}: {found:?}"),
                }
            }
        }
        // Both began with an empty mirror.
        Err(MirrorError::SeveralTrainings { .. }) => {}
        Err(error) => panic!("{context}: {error}"),
    }
    (first.requests(), made)
}

#[tokio::test(start_paused = true)]
async fn two_writers_stopped_anywhere_never_mix() {
    let (first_all, _) = interleave(u64::MAX, 0).await;
    let (_, second_all) = interleave(u64::MAX, u64::MAX).await;
    let mut cases = 0;
    for first_stops in 0..=first_all {
        for second_stops in 0..=second_all {
            interleave(first_stops, second_stops).await;
            cases += 1;
        }
    }
    report(&format!("{cases} interleavings of two writers"));
}

#[tokio::test(start_paused = true)]
async fn a_suspended_writer_notices_its_successor_and_stops() {
    let model = Model::new();
    let asleep = model.another();
    let first = Process::start(&asleep, "first", machine(), 1)
        .await
        .unwrap();
    first.train(1).await.unwrap();
    asleep.allow(asleep.requests());
    let awake = model.another();
    let (store, _) = restore(&awake, "second").await.unwrap();
    let second = Process::start(&awake, "second", store, 1).await.unwrap();
    second.train(1).await.unwrap();

    asleep.allow(u64::MAX);
    first.save();
    let stopped = first.settle().await.unwrap_err();
    assert!(
        matches!(&*stopped, MirrorError::LeaseLost { holder, .. } if holder == "second"),
        "{stopped}"
    );
    second.train(1).await.unwrap();
    assert_eq!(newest(&second.store), Some(("second".to_owned(), 3)));
}

#[tokio::test(start_paused = true)]
async fn a_writer_whose_lease_was_deleted_stops_and_says_so_each_time() {
    let model = Model::new();
    let process = Process::start(&model, "first", machine(), 1).await.unwrap();
    process.train(1).await.unwrap();
    let names = model.names();
    let lease = names.iter().find(|name| name.ends_with("/lease.json"));
    model.remove(lease.unwrap());
    for _ in 0..2 {
        process.save();
        let stopped = process.settle().await.unwrap_err();
        assert!(
            matches!(&*stopped, MirrorError::LeaseDeleted { .. }),
            "{stopped}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_mirror_in_use_is_refused_and_a_released_one_is_used_at_once() {
    let model = Model::new();
    let client = model.another();
    let first = Process::start(&client, "first", machine(), 1)
        .await
        .unwrap();
    first.train(1).await.unwrap();
    let refused = restore(&model.another(), "second").await.map(drop);
    let refused = refused.unwrap_err();
    assert!(
        matches!(&refused, MirrorError::InUse { holder, .. } if holder == "first"),
        "{refused}"
    );
    first.train(1).await.unwrap();
    first.leave().await;

    let began = Instant::now();
    let (store, _) = restore(&model.another(), "second").await.unwrap();
    assert_eq!(newest(&store), Some(("first".to_owned(), 2)));
    assert!(began.elapsed() < TTL / 2);
}

#[tokio::test(start_paused = true)]
async fn two_that_begin_at_once_do_not_both_write() {
    let model = Model::new();
    let (client, other) = (model.another(), model.another());
    let (first, second) = tokio::join!(
        Process::start(&client, "first", machine(), 1),
        Process::start(&other, "second", machine(), 1)
    );
    let (first, second) = (first.unwrap(), second.unwrap());
    first.save();
    second.save();
    let settled = [first.settle().await, second.settle().await];
    let written = settled.iter().filter(|settled| settled.is_ok());
    assert!(written.count() <= 1, "{settled:?}");
}

#[tokio::test(start_paused = true)]
async fn a_late_writer_notices_that_another_one_has_resumed() {
    let model = Model::new();
    let client = model.another();
    let first = Process::start(&client, "first", machine(), 1)
        .await
        .unwrap();
    first.train(1).await.unwrap();
    let here = first.store.clone();
    first.die().await;

    // The mirror could not be read at the start.
    let late = model.another();
    late.allow(0);
    let store = Arc::into_inner(here).unwrap();
    let back = Process::start(&late, "back", store, 1).await.unwrap();
    let other = model.another();
    let (store, _) = restore(&other, "second").await.unwrap();
    let second = Process::start(&other, "second", store, 1).await.unwrap();
    second.train(2).await.unwrap();
    second.leave().await;

    late.allow(u64::MAX);
    back.save();
    let stopped = back.settle().await.unwrap_err();
    assert!(matches!(*stopped, MirrorError::Newer { .. }), "{stopped}");
}
