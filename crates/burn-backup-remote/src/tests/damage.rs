//! Objects whose bytes differ from what was put.

use super::model::Model;
use super::support::{Process, contents, machine, newest, restore};
use crate::error::MirrorError;

/// A mirror with the generations 1 and 2.
async fn mirrored() -> Model {
    let model = Model::new();
    let process = Process::start(&model, "first", machine(), 2).await.unwrap();
    process.train(2).await.unwrap();
    process.leave().await;
    model
}

/// The objects that only generation 2 needs.
fn of_the_newest(model: &Model) -> Vec<String> {
    let mut names = model.names();
    let (mut newest, mut other) = (String::new(), String::new());
    for name in names.iter().filter(|name| name.contains("/generations/")) {
        let document = model.object(name);
        let document = String::from_utf8(document.to_vec()).unwrap();
        match name.ends_with("00000002.json") {
            true => newest = document,
            false => other = document,
        }
    }
    names.retain(|name| {
        let part = name
            .rsplit_once('/')
            .map(|(_, part)| part.split('-').next().unwrap());
        let is_named = |document: &str| document.contains(part.unwrap());
        match name.contains("/parts/") {
            true => is_named(&newest) && !is_named(&other),
            false => name.ends_with("00000002.json"),
        }
    });
    assert_eq!(names.len(), 3, "{names:?}");
    names
}

#[tokio::test(start_paused = true)]
async fn if_the_newest_one_is_damaged_the_previous_one_is_restored() {
    let names = of_the_newest(&mirrored().await);
    for index in 0..names.len() {
        for damage in ["cut", "longer", "changed", "empty", "missing"] {
            let model = mirrored().await;
            let name = &of_the_newest(&model)[index];
            let mut bytes = model.object(name).to_vec();
            match damage {
                "cut" => bytes.truncate(bytes.len() / 2),
                "longer" if name.contains("/generations/") => bytes.push(b'x'),
                // Bytes after the end of a part are not read.
                "longer" => continue,
                "changed" => {
                    let middle = bytes.len() / 2;
                    bytes[middle] ^= 1;
                }
                _ => bytes.clear(),
            }
            match damage {
                "missing" => model.remove(name),
                _ => model.replace(name, bytes),
            }
            let (store, _) = restore(&model.another(), "second").await.unwrap();
            let expected = Some(("first".to_owned(), 1));
            assert_eq!(newest(&store), expected, "{damage} {name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn if_none_is_whole_that_is_an_error() {
    let model = mirrored().await;
    for name in model.names() {
        if name.contains("/parts/") {
            model.remove(&name);
        }
    }
    let refused = restore(&model.another(), "second").await.map(drop);
    assert!(refused.unwrap_err().is_damage());
}

#[tokio::test(start_paused = true)]
async fn a_newer_format_is_refused_and_nothing_is_changed() {
    for name in ["lease.json", "00000002.json"] {
        let model = mirrored().await;
        let names = model.names();
        let name = names.iter().find(|there| there.ends_with(name)).unwrap();
        let document = String::from_utf8(model.object(name).to_vec()).unwrap();
        let newer = document.replacen("\"format\":1", "\"format\":2", 1);
        model.replace(name, newer);
        let refused = restore(&model.another(), "second").await.map(drop);
        let refused = refused.unwrap_err();
        assert!(
            matches!(refused, MirrorError::NewerFormat { found: 2, .. }),
            "{refused}"
        );
        assert_eq!(model.names().len(), names.len());
    }
}

#[tokio::test(start_paused = true)]
async fn missing_objects_are_sent_again() {
    let model = mirrored().await;
    let (store, _) = restore(&model.another(), "second").await.unwrap();
    let frozen = blake3::hash(&contents("frozen", "", 0))
        .to_hex()
        .to_string();
    let names = model.names();
    let name = names.iter().find(|name| name.contains(&frozen)).unwrap();
    model.remove(name);
    let second = model.another();
    let process = Process::start(&second, "second", store, 2).await.unwrap();
    process.train(1).await.unwrap();
    process.leave().await;
    let (store, _) = restore(&model.another(), "third").await.unwrap();
    assert_eq!(newest(&store), Some(("second".to_owned(), 3)));
}
