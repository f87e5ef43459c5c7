//! Several processes that start on the same directory at the same time.

use burn_backup_tests::{Backend, Training, report};
use test_fork::test;

use crate::process::{Waiting, trainee};
use crate::support::uninterrupted;

const PROCESSES: usize = 4;
const ROUNDS: usize = 20;

#[test]
fn of_several_processes_that_start_at_once_exactly_one_trains() {
    let expected = format!("{:?}", uninterrupted(&Training::new(Backend::Flex)).weights);
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    for round in 0..ROUNDS {
        let mut processes: Vec<_> = (0..PROCESSES)
            .map(|_| Waiting::start(&mut trainee(Backend::Flex, &dir, 1, &["wait@0", "wait@4"])))
            .collect();
        for process in &mut processes {
            assert!(process.waits().is_ok(), "ready");
        }
        for process in &mut processes {
            process.proceed();
        }
        let mut training = Vec::new();
        for mut process in processes {
            match process.waits() {
                Ok(()) => training.push(process),
                Err(said) => {
                    assert!(said.error.contains("is in use by "), "{}", said.error);
                }
            }
        }
        assert_eq!(training.len(), 1, "in round {round}");
        for mut process in training {
            // What a killed process leaves, such as its lock file, does not block the next ones.
            if round % 2 == 0 {
                process.kill();
            } else {
                process.proceed();
                let said = process.end();
                assert_eq!(said.error, "");
                assert!(said.weights == expected);
                assert!(said.restored >= 2, "{}", said.restored);
            }
        }
    }
    report(&format!(
        "races: {ROUNDS} of {PROCESSES} processes each, one of them trained each time"
    ));
}
