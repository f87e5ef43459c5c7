//! What is found in a mirror, and what is refused.

use super::model::Model;
use super::support::{Process, machine, newest, place, restore, save, terms};
use crate::error::MirrorError;
use crate::survey::{Survey, SurveyQuery, survey};

async fn find(model: &Model, run_id: &str, has_backup: bool) -> Result<Survey, MirrorError> {
    let question = SurveyQuery {
        run_id: run_id.to_owned(),
        has_backup,
    };
    survey(&place(model), &question, &terms("second")).await
}

/// Mirrors one generation, and returns the training's id.
async fn mirrored(model: &Model) -> String {
    let process = Process::start(model, "first", machine(), 1).await.unwrap();
    process.train(1).await.unwrap();
    let run_id = process.store.identity().run_id.clone();
    process.leave().await;
    run_id
}

#[tokio::test(start_paused = true)]
async fn an_empty_mirror_has_nothing() {
    for has_backup in [false, true] {
        let found = find(&Model::new(), "run", has_backup).await.unwrap();
        assert_eq!(found.run_id, None);
        assert!(found.generations.is_empty() && found.finished.is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn another_trainings_mirror_is_refused_if_there_is_a_backup_and_restored_if_not() {
    let model = Model::new();
    let run_id = mirrored(&model).await;
    let refused = find(&model, "mine", true).await.unwrap_err();
    assert!(
        matches!(&refused, MirrorError::AnotherTraining { found, expected, .. }
            if *found == run_id && expected == "mine"),
        "{refused}"
    );
    let found = find(&model, "mine", false).await.unwrap();
    assert_eq!(found.run_id, Some(run_id.clone()));
    let found = find(&model, &run_id, true).await.unwrap();
    assert_eq!(found.generations[0].number.number(), 1);
}

#[tokio::test(start_paused = true)]
async fn among_several_trainings_none_is_chosen() {
    let model = Model::new();
    let run_id = mirrored(&model).await;
    let other = Model::new();
    mirrored(&other).await;
    for name in other.names() {
        model.replace(&name, other.object(&name));
    }
    let refused = find(&model, "mine", false).await.unwrap_err();
    assert!(
        matches!(refused, MirrorError::SeveralTrainings { count: 2, .. }),
        "{refused}"
    );
    let refused = find(&model, &run_id, true).await.unwrap_err();
    assert!(
        matches!(refused, MirrorError::AnotherTraining { .. }),
        "{refused}"
    );
}

#[tokio::test(start_paused = true)]
async fn foreign_objects_are_left_alone() {
    let model = Model::new();
    model.replace("prefix/readme.txt", "hello");
    model.replace("prefix/run/parts/readme.txt", "hello");
    let process = Process::start(&model, "first", machine(), 1).await.unwrap();
    process.train(2).await.unwrap();
    process.finish().await.unwrap();
    let names = model.names();
    assert!(names.contains(&"prefix/readme.txt".to_owned()));
    assert!(names.contains(&"prefix/run/parts/readme.txt".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_frozen_part_is_sent_once() {
    let model = Model::new();
    let process = Process::start(&model, "first", machine(), 1).await.unwrap();
    process.train(4).await.unwrap();
    process.leave().await;
    let again = model.another();
    let (store, _) = restore(&again, "second").await.unwrap();
    let process = Process::start(&again, "second", store, 1).await.unwrap();
    process.train(2).await.unwrap();
    let mut log = model.log();
    log.extend(again.log());
    let mut parts: Vec<_> = log
        .iter()
        .filter(|what| what.starts_with("put ") && what.contains("/parts/"))
        .collect();
    // Two parts for each of six generations, and the frozen part.
    assert_eq!(parts.len(), 2 * 6 + 1);
    parts.sort_unstable();
    parts.dedup();
    assert_eq!(parts.len(), 2 * 6 + 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_link_skips_generations_and_sends_the_newest() {
    let model = Model::new();
    let process = Process::start(&model, "first", machine(), 1).await.unwrap();
    process.train(1).await.unwrap();
    model.allow(model.requests() + 1);
    process.save();
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    for _ in 0..5 {
        process.save();
    }
    model.allow(u64::MAX);
    process.settle().await.unwrap();
    let status = process.shared.status();
    assert_eq!((status.published, status.skipped), (3, 4));
    let id = process.store.newest().unwrap().unwrap().id();
    assert_eq!(status.mirrored, Some(id));
    // The next backup prunes what is not mirrored any more.
    save(&process.store, "first");
    assert!(
        process
            .store
            .pin(burn_backup_store::GenerationId::new(2))
            .unwrap()
            .is_none()
    );
    process.leave().await;
    let (store, _) = restore(&model.another(), "second").await.unwrap();
    assert_eq!(newest(&store), Some(("first".to_owned(), 7)));
}
