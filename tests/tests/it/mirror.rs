//! A machine is lost, and another one with an empty disk resumes its training.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use burn_backup_restore::{
    BackupAndRestore, BackupError, BackupHandle, LeaseStatus, Mirror, MirrorError, ObjectStore,
    Outcome, Preemption, PreemptionWatcher,
};
use burn_backup_store::{OpenOptions, Store};
use burn_backup_tests::{
    Backend, BatchSource, Halt, Loaders, Loop, LoopHalt, LoopRun, Run, Spread, Training,
};
use log::{Level, LevelFilter};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{BackoffConfig, ObjectStoreExt as _, RetryConfig};
use s3_server::{ACCESS_KEY, Answer, S3Server, SECRET_KEY};
use tempfile::TempDir;
use test_fork::test;

use crate::log_lines;
use crate::support::uninterrupted;

/// Machines that are lost, and a mirror that outlives them.
struct Cloud {
    store: Arc<dyn ObjectStore>,
    machines: TempDir,
    machine: AtomicUsize,
}

impl Cloud {
    fn new() -> Self {
        Self::on(Arc::new(InMemory::new()))
    }

    fn on(store: Arc<dyn ObjectStore>) -> Self {
        Self {
            store,
            machines: tempfile::tempdir().unwrap(),
            machine: AtomicUsize::new(0),
        }
    }

    /// The backup directory on the current machine.
    fn dir(&self) -> PathBuf {
        let machine = self.machine.load(Ordering::Relaxed);
        self.machines
            .path()
            .join(machine.to_string())
            .join("backup")
    }

    /// Switches to another machine, with an empty disk.
    fn replace_machine(&self) {
        self.machine.fetch_add(1, Ordering::Relaxed);
    }

    fn mirror(&self) -> Mirror {
        // A process that has panicked blocks the mirror for a short time only.
        Mirror::with_store(self.store.clone(), "run").lease_ttl(Duration::from_millis(200))
    }

    fn backup(&self) -> BackupAndRestore {
        Training::backup(self.dir()).mirror(self.mirror())
    }

    /// The names of the objects.
    fn objects(&self) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let objects = runtime.block_on(futures_util::TryStreamExt::try_collect::<Vec<_>>(
            self.store.list(None),
        ));
        let names = objects.unwrap().into_iter();
        names.map(|object| object.location.to_string()).collect()
    }

    fn object(&self, name: &str) -> Vec<u8> {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        let read = runtime.block_on(async {
            let object = self.store.get(&Key::from(name)).await.unwrap();
            object.bytes().await.unwrap()
        });
        read.to_vec()
    }
}

/// Interrupts a training by each of `halts`, each time on another machine, and then lets it end.
#[track_caller]
fn assert_exact(training: &Training, expected: &Run, halts: &[Halt]) {
    let cloud = Cloud::new();
    let mut losses: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    let mut trained = 0;
    let mut before = None;
    let mut run = |halt| {
        cloud.replace_machine();
        let backup = cloud.backup().save_freq(1);
        let handle = backup.handle();
        let run = training.run(backup, halt);
        let from = handle.restored_from().map_or(0, |at| at.global_step);
        assert!(from <= trained, "{halts:?}");
        // An orderly end loses nothing.
        if matches!(before.replace(halt), Some(Halt::Stop(_))) {
            assert_eq!(from, trained, "{halts:?}");
        }
        // Several devices log their losses in no fixed order.
        if training.spread == Spread::One {
            for (step, loss) in (from..).zip(&run.losses) {
                let first = losses.insert(step, loss.clone());
                let is_same = first.is_none_or(|first| first == *loss);
                assert!(is_same, "step {step} in {halts:?}");
            }
        }
        trained = from + run.losses.len() as u64 / training.spread.devices() as u64;
        run
    };
    for halt in halts {
        let _ = run(*halt);
    }
    let last = run(Halt::Never);
    assert!(
        last.error.is_none() && last.interrupted.is_none(),
        "{:?}",
        last.error
    );
    assert!(last.weights == expected.weights, "weights after {halts:?}");
    assert!(last.records == expected.records, "records after {halts:?}");
    assert!(!cloud.dir().exists());
    let objects = cloud.objects();
    let is_finished = matches!(objects.as_slice(), [only] if only.ends_with("/finished.json"));
    assert!(is_finished, "{objects:?}");
}

#[test]
fn stopped_at_any_batch_another_machine_resumes_exactly() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    for batch in 1..=17 {
        assert_exact(&training, &expected, &[Halt::Stop(batch)]);
        assert_exact(&training, &expected, &[Halt::Fail(batch)]);
    }
    let several = [
        Halt::Stop(2),
        Halt::StopInValidation(3),
        Halt::Fail(3),
        Halt::Stop(7),
    ];
    assert_exact(&training, &expected, &several);
}

#[test]
fn on_several_devices_and_under_ddp_too() {
    for spread in [Spread::Main(2), Spread::Ddp(2)] {
        let training = Training::spread(spread);
        let expected = uninterrupted(&training);
        for batch in [1, 4, 5] {
            assert_exact(&training, &expected, &[Halt::Stop(batch)]);
        }
    }
}

fn loops() -> Loop {
    Loop {
        epochs: 2,
        source: BatchSource::Loader(Loaders::Burns, 0),
        ..Loop::new(Backend::Flex)
    }
}

fn losses(runs: &[LoopRun]) -> BTreeMap<u64, Vec<u8>> {
    let losses = runs.iter().flat_map(|run| run.losses.clone());
    losses.collect()
}

#[test]
fn a_loop_by_hand_resumes_on_another_machine_too() {
    let program = loops();
    let scratch = tempfile::tempdir().unwrap();
    let expected = program.run(Training::backup(scratch.path()), LoopHalt::Never);
    for halt in [LoopHalt::Stop(3), LoopHalt::Return(5), LoopHalt::Panic(9)] {
        let cloud = Cloud::new();
        let runs = [halt, LoopHalt::Never].map(|halt| {
            cloud.replace_machine();
            program.run(cloud.backup().save_freq(1), halt)
        });
        assert_eq!(
            runs[1].outcome,
            Some(Outcome::Finished),
            "{:?}",
            runs[1].error
        );
        // A process that does not end in order does not wait for the mirror.
        if matches!(halt, LoopHalt::Stop(_)) {
            assert!(runs[1].losses.len() < expected.losses.len());
        }
        assert!(losses(&runs) == expected.losses, "{halt:?}");
    }
}

/// Runs a training that is stopped after its fourth batch.
fn stopped(cloud: &Cloud) -> BackupHandle {
    let backup = cloud.backup().save_freq(1);
    let handle = backup.handle();
    let run = Training::new(Backend::Flex).run(backup, Halt::Stop(4));
    assert!(run.error.is_none(), "{:?}", run.error);
    handle
}

fn run(backup: BackupAndRestore) -> Run {
    Training::new(Backend::Flex).run(backup, Halt::Never)
}

#[test]
fn the_handle_and_the_result_say_what_the_mirror_has() {
    let cloud = Cloud::new();
    let backup = cloud.backup().save_freq(1);
    let handle = backup.handle();
    assert!(handle.mirror_stats().is_none());
    let run = Training::new(Backend::Flex).run(backup, Halt::Stop(4));
    let stats = handle.mirror_stats().unwrap();
    assert_eq!(stats.last, handle.last_backup());
    assert_eq!(
        (stats.behind, stats.failed, stats.lease),
        (0, 0, LeaseStatus::Held)
    );
    assert!(stats.bytes > 0 && stats.committed > 0 && stats.upload_last.is_some());
    assert!(stats.last_error.is_none() && stats.stopped.is_none());
    drop(run);
}

#[test]
fn an_older_disk_resumes_from_the_mirror_and_a_newer_one_from_itself() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    let cloud = Cloud::new();
    stopped(&cloud);
    let kept = tempfile::tempdir().unwrap();
    let older = kept.path().join("older");
    copy(&cloud.dir(), &older);

    cloud.replace_machine();
    let further = cloud.backup().save_freq(1);
    training.run(further, Halt::Stop(3));

    // The first machine comes back.
    let back = Training::backup(&older).mirror(cloud.mirror()).save_freq(1);
    let handle = back.handle();
    let run = training.run(back, Halt::Stop(2));
    assert!(run.error.is_none(), "{:?}", run.error);
    assert_eq!(handle.restored_from().unwrap().global_step, 7);

    // Takes a backup that the mirror does not have.
    let alone = Training::backup(&older).save_freq(1);
    training.run(alone, Halt::Stop(2));
    let newer = Training::backup(&older)
        .mirror(cloud.mirror())
        .save_freq(100);
    let handle = newer.handle();
    training.run(newer, Halt::Fail(1));
    assert_eq!(handle.restored_from().unwrap().global_step, 11);
    assert_eq!(handle.mirror_stats().unwrap().last, handle.restored_from());

    cloud.replace_machine();
    let last = training.run(cloud.backup(), Halt::Never);
    assert!(last.weights == expected.weights);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type().unwrap().is_dir() {
            true => copy(&from, &to),
            false => drop(fs::copy(from, to).unwrap()),
        }
    }
}

#[test]
fn another_trainings_mirror_is_refused_and_both_backups_stay() {
    let [first, second] = [Cloud::new(), Cloud::new()];
    stopped(&first);
    stopped(&second);
    let objects = first.objects();
    let mixed = Training::backup(second.dir()).mirror(first.mirror());
    let run = run(mixed);
    let error = run.backup_error();
    assert!(
        matches!(error, BackupError::Mirror(error) if matches!(**error, MirrorError::AnotherTraining { .. })),
        "{error}"
    );
    assert_eq!(first.objects(), objects);
    assert!(second.dir().join("generations").exists());
}

#[test]
fn a_finished_training_and_a_discarded_one_are_deleted_in_both_places() {
    let cloud = Cloud::new();
    let backup = cloud.backup().delete_checkpoint(false);
    let handle = backup.handle();
    assert!(run(backup).error.is_none());
    assert!(cloud.dir().exists() && cloud.objects().len() > 3);
    handle.discard().unwrap();
    assert!(!cloud.dir().exists());
    assert_eq!(cloud.objects().len(), 1);

    // Another machine can discard it, too.
    let cloud = Cloud::new();
    stopped(&cloud);
    cloud.replace_machine();
    cloud.backup().handle().discard().unwrap();
    assert_eq!(cloud.objects().len(), 1);
    cloud.backup().handle().discard().unwrap();

    // The next training starts from the beginning.
    let backup = cloud.backup();
    let handle = backup.handle();
    assert!(run(backup).error.is_none());
    assert_eq!(handle.restored_from(), None);
}

fn s3(server: &S3Server) -> Arc<dyn ObjectStore> {
    let retry = RetryConfig {
        max_retries: 1,
        retry_timeout: Duration::from_secs(1),
        backoff: BackoffConfig::default(),
    };
    s3_server::client(&server.endpoint(), retry).unwrap()
}

#[test]
fn without_a_mirror_nothing_is_started_and_a_backup_on_the_disk_resumes() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    let objects = tempfile::tempdir().unwrap();
    let mut server = S3Server::start(objects.path()).unwrap();
    let cloud = Cloud::on(s3(&server));
    stopped(&cloud);
    let dir = cloud.dir();
    server.stop();

    cloud.replace_machine();
    let refused = run(cloud.backup());
    let error = refused.backup_error();
    assert!(
        matches!(error, BackupError::MirrorUnreachable { .. }),
        "{error}"
    );
    assert!(
        error.to_string().contains("start_new_if_unreachable"),
        "{error}"
    );

    let here = Training::backup(&dir).mirror(cloud.mirror()).save_freq(1);
    let handle = here.handle();
    training.run(here, Halt::Stop(3));
    assert_eq!(handle.restored_from().unwrap().global_step, 4);
    assert!(handle.stopped_at().is_some());
    assert_eq!(handle.mirror_stats().unwrap().lease, LeaseStatus::Waiting);

    // The server is back, and gets the missing backups before anything is trained.
    server.restart().unwrap();
    let here = Training::backup(&dir).mirror(cloud.mirror()).save_freq(1);
    training.run(here, Halt::Stop(1));
    cloud.replace_machine();
    let backup = cloud.backup();
    let handle = backup.handle();
    let last = training.run(backup, Halt::Never);
    assert_eq!(handle.restored_from().unwrap().global_step, 8);
    assert!(last.weights == expected.weights);

    cloud.replace_machine();
    server.stop();
    let anew = cloud.mirror().start_new_if_unreachable(true);
    let anew = Training::backup(cloud.dir()).mirror(anew);
    let handle = anew.handle();
    let begun = training.run(anew, Halt::Stop(2));
    assert!(begun.error.is_none(), "{:?}", begun.error);
    assert_eq!(handle.restored_from(), None);
}

#[test]
fn a_server_that_answers_badly_delays_the_mirror_and_not_the_training() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    for answer in [
        Answer::Unavailable,
        Answer::After(Duration::from_millis(50)),
        Answer::Half,
    ] {
        let objects = tempfile::tempdir().unwrap();
        let server = Arc::new(S3Server::start(objects.path()).unwrap());
        let cloud = Cloud::on(s3(&server));
        stopped(&cloud);
        let mut dirs = vec![cloud.dir()];
        server.answer(answer);
        let here = Training::backup(&dirs[0])
            .mirror(cloud.mirror())
            .save_freq(1);
        let run = training.run(here, Halt::Stop(3));
        assert!(run.error.is_none(), "{answer:?}: {:?}", run.error);

        // A cut answer never counts as complete.
        if answer == Answer::Half {
            cloud.replace_machine();
            dirs.push(cloud.dir());
            let refused = training.run(cloud.backup(), Halt::Never);
            assert!(refused.error.is_some());
        }
        server.answer(Answer::Well);
        let here = Training::backup(&dirs[0])
            .mirror(cloud.mirror())
            .save_freq(1);
        training.run(here, Halt::Stop(1));
        cloud.replace_machine();
        let backup = cloud.backup();
        let handle = backup.handle();
        let last = training.run(backup, Halt::Never);
        assert_eq!(handle.restored_from().unwrap().global_step, 8, "{answer:?}");
        assert!(last.weights == expected.weights);
    }
}

/// A notice after the second batch, with this much time left.
struct After(Duration);

impl PreemptionWatcher for After {
    fn name(&self) -> String {
        "test".to_owned()
    }

    fn poll(
        &mut self,
    ) -> Result<Option<burn_backup_restore::Notice>, Box<dyn std::error::Error + Send + Sync>> {
        let notice = burn_backup_restore::Notice::new("the end");
        Ok(Some(notice.with_deadline(SystemTime::now() + self.0)))
    }
}

#[test]
fn a_notice_has_the_mirror_flushed_and_says_which_of_both_was_reached() {
    let training = Training {
        // Trains for as long as the notice leaves time.
        epochs: 1_000_000,
        checkpoints: false,
        ..Training::new(Backend::Flex)
    };
    let objects = tempfile::tempdir().unwrap();
    let server = S3Server::start(objects.path()).unwrap();
    let cloud = Cloud::on(s3(&server));
    let noticed = |grace| {
        let notice = Preemption::new()
            .watch(After(grace))
            .grace_period(Duration::from_secs(60));
        let backup = cloud.backup().save_before_preemption(notice);
        let handle = backup.handle();
        let run = training.run(backup, Halt::Never);
        let reason = run.interrupted.unwrap().reason.unwrap();
        (handle, reason)
    };
    let (handle, reason) = noticed(Duration::ZERO);
    assert!(
        reason.contains("could") || reason.contains("is saved at"),
        "{reason}"
    );
    let stopped = handle.stopped_at().unwrap();
    assert!(
        reason.contains("NOT in the mirror")
            || handle.mirror_stats().unwrap().last == Some(stopped)
    );

    let (handle, reason) = noticed(Duration::from_secs(2));
    assert!(reason.ends_with("and in the mirror"), "{reason}");
    assert_eq!(handle.mirror_stats().unwrap().last, handle.stopped_at());

    server.answer(Answer::Unavailable);
    let (handle, reason) = noticed(Duration::from_secs(2));
    assert!(handle.stopped_at().is_some());
    assert!(reason.contains("but NOT in the mirror"), "{reason}");
}

#[test]
fn no_credential_is_in_a_message_a_log_or_an_object() {
    log_lines::listen();
    log::set_max_level(LevelFilter::Trace);
    let objects = tempfile::tempdir().unwrap();
    let server = S3Server::start(objects.path()).unwrap();
    let cloud = Cloud::on(s3(&server));
    stopped(&cloud);
    server.answer(Answer::Unavailable);
    // Logs the lines of a training that has its own backup and a mirror that can't be reached.
    Training::new(Backend::Flex).run(cloud.backup(), Halt::Fail(6));
    cloud.replace_machine();
    let refused = run(cloud.backup());
    let error = refused.backup_error();
    let mut said = format!("{error} {error:?}");
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        said.push_str(&format!(" {cause} {cause:?}"));
        source = cause.source();
    }
    server.answer(Answer::Well);
    for name in cloud.objects() {
        said.push_str(&String::from_utf8_lossy(&cloud.object(&name)));
    }
    said.push_str(&format!("{:?} {}", cloud.mirror(), cloud.mirror()));
    let logged: Vec<_> = Level::iter().flat_map(log_lines::logged).collect();
    assert!(logged.iter().any(|line| line.contains("503")), "{logged:?}");
    said.push_str(&logged.join("\n"));
    for secret in [ACCESS_KEY, SECRET_KEY, "X-Amz-Signature"] {
        assert!(!said.contains(secret), "{secret} is in a message");
    }
}

#[test]
fn a_mirror_in_use_by_another_machine_is_refused() {
    let cloud = Cloud::new();
    stopped(&cloud);
    cloud.replace_machine();
    let mut store = Store::open(cloud.dir(), OpenOptions::default()).unwrap();
    let mut connection = cloud.mirror().connect().unwrap();
    let found = connection.find(&store.identity().run_id, false).unwrap();
    // The connection blocks the mirror as long as it exists.
    connection
        .fetch(&found, None, &mut store, &mut |_| {})
        .unwrap();

    cloud.replace_machine();
    let refused = run(cloud.backup());
    let error = refused.backup_error();
    assert!(
        matches!(error, BackupError::Mirror(error) if matches!(**error, MirrorError::InUse { .. })),
        "{error}"
    );
    drop(connection);
    assert!(run(cloud.backup()).error.is_none());
}

#[test]
fn an_impossible_mirror_is_an_error_at_the_launch() {
    for (url, reason) in [
        ("", "it is not a URL"),
        ("bucket/prefix", "it is not a URL"),
        ("ftp://host/prefix", "its scheme is unknown"),
        ("s3:///prefix", "it names no bucket"),
        ("file://host/dir", "it names no absolute path"),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let refused = run(Training::backup(scratch.path().join("backup")).mirror(url));
        let text = refused.backup_error().to_string();
        assert!(text.contains(reason), "{url}: {text}");
    }
    let scratch = tempfile::tempdir().unwrap();
    let missing = format!("file://{}", scratch.path().join("missing").display());
    let refused = run(Training::backup(scratch.path().join("backup")).mirror(missing.as_str()));
    let text = refused.backup_error().to_string();
    assert!(text.contains("is missing"), "{text}");
}

#[test]
fn a_directory_is_a_mirror_too() {
    let training = Training::new(Backend::Flex);
    let expected = uninterrupted(&training);
    let scratch = tempfile::tempdir().unwrap();
    let place = scratch.path().join("mirror");
    fs::create_dir(&place).unwrap();
    let url = format!("file://{}", place.display());
    let backup = |machine: &str| {
        let backup = Training::backup(scratch.path().join(machine)).save_freq(1);
        backup.mirror(Mirror::new(&url).lease_ttl(Duration::from_millis(200)))
    };
    training.run(backup("first"), Halt::Stop(5));
    let second = backup("second");
    let handle = second.handle();
    let run = training.run(second, Halt::Never);
    assert_eq!(handle.restored_from().unwrap().global_step, 5);
    assert!(run.weights == expected.weights);
}

#[test]
fn layers_unfrozen_on_a_lost_machine_are_unfrozen_on_the_next_one() {
    let cloud = Cloud::new();
    stopped(&cloud);
    cloud.replace_machine();
    let backup = cloud.backup();
    let training = Training::new(Backend::Flex);
    let model = training.model(Default::default());
    let _ = backup.restore_trained(model).unwrap();
    assert!(cloud.dir().join("generations").exists());
    // Without a backup anywhere, nothing is created.
    let nowhere = Cloud::new();
    let model = training.model(Default::default());
    let _ = nowhere.backup().restore_trained(model).unwrap();
    assert!(!nowhere.dir().exists());
}

/// The comparisons above are not of empty sets.
#[test]
fn a_mirror_holds_what_the_disk_holds() {
    let cloud = Cloud::new();
    stopped(&cloud);
    let generations = fs::read_dir(cloud.dir().join("generations")).unwrap();
    let newest = generations
        .map(|entry| entry.unwrap().path())
        .max()
        .unwrap();
    let objects = cloud.objects();
    let mut parts = Vec::new();
    for file in fs::read_dir(newest).unwrap() {
        let path = file.unwrap().path();
        let bytes = fs::read(&path).unwrap();
        if path.ends_with("manifest.json") {
            let documents = objects.iter().filter(|name| name.contains("/generations/"));
            let documents: Vec<_> = documents.map(|name| cloud.object(name)).collect();
            let document: serde_json::Value = serde_json::from_slice(&documents[0]).unwrap();
            assert_eq!(document["manifest"].as_str().unwrap().as_bytes(), bytes);
        } else {
            parts.push(bytes);
        }
    }
    let there = objects.iter().filter(|name| name.contains("/parts/"));
    let there: Vec<_> = there.map(|name| cloud.object(name)).collect();
    parts.sort_unstable();
    parts.dedup();
    // Pruned objects may still exist.
    assert!(parts.len() >= 3 && parts.iter().all(|part| there.contains(part)));
}
