//! The machine dies at each request in turn.

use std::time::Duration;

use tokio::time::sleep;

use burn_backup_store::testing::report;

use super::model::{Fault, Model};
use super::support::{
    Process, TTL, is_finished, machine, newest, newest_manifest, place, restore, terms,
};
use crate::survey::{SurveyQuery, survey};

const GENERATIONS: usize = 3;

/// Trains until the end, or until the machine dies.
async fn training(model: &Model, keep: usize) {
    let process = tokio::select! {
        process = Process::start(model, "first", machine(), keep) => process.unwrap(),
        () = model.died() => return,
    };
    let is_alive = tokio::select! {
        trained = process.train(GENERATIONS) => trained.is_ok(),
        () = model.died() => false,
    };
    match is_alive {
        true => {
            let died = model.died();
            let task = process.task.abort_handle();
            tokio::select! {
                finished = process.finish() => finished.unwrap(),
                () = died => task.abort(),
            }
        }
        false => process.die().await,
    }
}

#[tokio::test(start_paused = true)]
async fn wherever_the_machine_dies_another_one_resumes_the_newest_generation() {
    let mut cases = 0;
    for keep in [1, 2] {
        let whole = Model::new();
        training(&whole, keep).await;
        for fault in [Fault::KilledBefore, Fault::KilledAfter] {
            for request in 0..whole.requests() {
                let context = format!("{fault:?} at {request}, {keep} are kept");
                let model = Model::new().failing(request, fault);
                training(&model, keep).await;
                let (there, is_over) = (newest_manifest(&model), is_finished(&model));

                let second = model.another();
                let (store, found) = restore(&second, "second").await.unwrap();
                let expected = there.filter(|_| !is_over);
                assert_eq!(found.map(|id| id.number()), expected, "{context}");
                assert_eq!(
                    newest(&store).map(|(_, number)| number),
                    expected,
                    "{context}"
                );

                let process = Process::start(&second, "second", store, keep)
                    .await
                    .unwrap();
                process.train(2).await.unwrap();
                let number = process.save().number();
                process.settle().await.unwrap();
                assert!(
                    expected.is_none_or(|expected| number > expected),
                    "{context}"
                );
                process.die().await;

                let (store, _) = restore(&model.another(), "third").await.unwrap();
                let expected = Some(("second".to_owned(), number));
                assert_eq!(newest(&store), expected, "{context}");
                cases += 1;
            }
        }
    }
    report(&format!("{cases} machines died"));
}

#[tokio::test(start_paused = true)]
async fn leftovers_of_dead_machines_are_removed_after_a_while() {
    let whole = Model::new();
    training(&whole, 1).await;
    for request in 0..whole.requests() {
        let model = Model::new().failing(request, Fault::KilledBefore);
        training(&model, 1).await;
        model.pass(Duration::from_secs(7200));
        let second = model.another();
        let (store, _) = restore(&second, "second").await.unwrap();
        let process = Process::start(&second, "second", store, 1).await.unwrap();
        process.train(1).await.unwrap();
        // After this time, no process can depend on the replaced objects.
        sleep(2 * TTL).await;
        process.train(1).await.unwrap();
        process.leave().await;
        let mut names = model.names();
        names.retain(|name| !name.ends_with("/finished.json"));
        // The lease, the manifest, its three parts, and two parts of the previous generation.
        assert_eq!(names.len(), 7, "killed at {request}: {names:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_finished_training_leaves_only_its_finished_mark() {
    let model = Model::new();
    training(&model, 2).await;
    let names = model.names();
    assert!(
        names.len() == 1 && names[0].ends_with("/finished.json"),
        "{names:?}"
    );

    let client = model.another();
    let next = Process::start(&client, "next", machine(), 1).await.unwrap();
    next.train(1).await.unwrap();
    next.leave().await;
    let (store, _) = restore(&model.another(), "last").await.unwrap();
    assert_eq!(newest(&store), Some(("next".to_owned(), 1)));
}

#[tokio::test(start_paused = true)]
async fn a_machine_with_an_older_backup_learns_that_the_training_has_finished() {
    let model = Model::new();
    let first = Process::start(&model, "first", machine(), 1).await.unwrap();
    first.train(1).await.unwrap();
    let run_id = first.store.identity().run_id.clone();
    first.finish().await.unwrap();
    let question = SurveyQuery {
        run_id,
        has_backup: true,
    };
    let found = survey(&place(&model), &question, &terms("second"))
        .await
        .unwrap();
    assert_eq!(found.finished.unwrap().newest.number(), 1);
    assert!(found.generations.is_empty());
}
