//! Devices of another process. Both that process and the training can be killed.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use burn::remote::RemoteHost;
use burn_backup_restore::BackupExt as _;
use burn_backup_tests::{Backend, Halt, Hooks, Spread, Training};
use test_fork::test;

use crate::process::{run, run_well, trainee_on};
use crate::support::{assert_exact, uninterrupted};

const SPREADS: [Spread; 3] = [Spread::One, Spread::Main(2), Spread::Sharded(2)];

/// A process with two devices.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start() -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_trainee"))
            .args(["serve", "0", "2"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        let address = line.trim_end().strip_prefix("listening ").unwrap();
        Self {
            child,
            address: address.to_owned(),
        }
    }

    /// The training on this server's devices.
    fn training(&self, spread: Spread) -> Training {
        let devices = RemoteHost::websocket(&self.address).devices().unwrap();
        let mut devices = devices.into_vec();
        devices.truncate(spread.devices());
        Training {
            spread,
            devices,
            ..Training::new(Backend::Flex)
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The errors are ignored: the test may have failed, or may have killed the server already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_a_remote_device_the_training_is_the_same_as_on_a_local_one() {
    let server = Server::start();
    for spread in SPREADS {
        let local = Training {
            spread,
            ..Training::new(Backend::Flex)
        };
        let remote = uninterrupted(&server.training(spread));
        assert!(
            remote.weights == uninterrupted(&local).weights,
            "{spread:?}"
        );
    }
}

#[test]
fn interrupted_on_remote_devices_it_ends_as_if_uninterrupted() {
    let server = Server::start();
    for spread in SPREADS {
        let training = server.training(spread);
        let expected = uninterrupted(&training);
        for halt in [Halt::Stop(9), Halt::Fail(4), Halt::StopInValidation(8)] {
            assert_exact(&training, &expected, |b| b.save_freq(2), &[halt]);
        }
    }
}

#[test]
fn a_killed_client_resumes_exactly_in_another_process() {
    let mut server = Server::start();
    for (spread, name) in SPREADS.into_iter().zip(["one", "main", "sharded"]) {
        let on = |server: &Server| format!("{name}={}", server.address);
        let expected = uninterrupted(&server.training(spread));
        for at in [2, 8] {
            let scratch = tempfile::tempdir().unwrap();
            let dir = scratch.path().join("backup");
            let abort = format!("abort@{at}");
            let (status, _) = run(&mut trainee_on(&on(&server), &dir, 1, &[&abort]));
            assert!(!status.success());
            if spread.devices() > 1 {
                // Burn 0.22.1 may send the next client's transfers between devices to the dead client.
                server = Server::start();
            }
            let said = run_well(&mut trainee_on(&on(&server), &dir, 1, &[]));
            assert_eq!(said.error, "");
            // The backup of each step waited for the backup of the previous step.
            let step = (at - 1) / spread.devices();
            assert!(said.restored >= step.saturating_sub(1), "{name}, {at}");
            assert!(
                said.weights == format!("{:?}", expected.weights),
                "{name}, {at}"
            );
            assert!(
                said.records == format!("{:?}", expected.records),
                "{name}, {at}"
            );
        }
    }
}

/// Kills the server in the middle of batch `at`, and resumes the training on another server.
fn kill_the_server(spread: Spread, at: usize, configure: impl Fn(Training) -> Training) {
    let server = Arc::new(Mutex::new(Server::start()));
    let training = configure(server.lock().unwrap().training(spread));
    let expected = {
        let server = Server::start();
        uninterrupted(&configure(server.training(spread)))
    };
    let scratch = tempfile::tempdir().unwrap();
    let backup = || Training::backup(scratch.path()).save_freq(1);
    let first = backup();
    let handle = first.handle();
    let killed = server.clone();
    let run = training.run_with_learner(
        Halt::Never,
        |training, hooks: Hooks| {
            training.learner(hooks.on_train(move |batch| {
                if batch == at {
                    killed.lock().unwrap().kill();
                }
            }))
        },
        |builder| builder.backup_and_restore(training.spread_over_devices(first)),
    );
    assert!(
        run.error.is_some(),
        "{spread:?}, {at}: it ends with an error"
    );
    let trained = handle.last_backup().map_or(0, |at| at.global_step);
    let steps = at.div_ceil(spread.devices()) as u64;
    assert!(
        trained < steps,
        "{spread:?}, {at}: no backup of a step that was lost"
    );

    let server = Server::start();
    let second = backup();
    let handle = second.handle();
    let run = configure(server.training(spread)).run(second, Halt::Never);
    assert!(run.error.is_none(), "{spread:?}, {at}: {:?}", run.error);
    let restored = handle.restored_from().map_or(0, |at| at.global_step);
    assert_eq!(restored, trained, "{spread:?}, {at}");
    assert!(run.weights == expected.weights, "{spread:?}, {at}");
    assert!(run.records == expected.records, "{spread:?}, {at}");
}

#[test]
fn a_killed_server_ends_the_training_with_an_error_and_another_one_resumes_it_exactly() {
    for spread in SPREADS {
        for at in [1, 8] {
            kill_the_server(spread, at, |training| training);
        }
    }
}

/// Data that is sent to a dead server is lost without an error.
#[test]
fn a_killed_server_is_noticed_by_a_training_that_reads_nothing() {
    for spread in SPREADS {
        kill_the_server(spread, 3, |training| Training {
            reads: false,
            ..training
        });
    }
}
