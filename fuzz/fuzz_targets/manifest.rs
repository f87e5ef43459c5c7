//! Any bytes as a manifest or as `burn-backup.json`: raw, or, if they are a JSON object, sealed.
//! Whatever they say, there is an answer, and no generation is lost that they don't claim.
#![no_main]

use std::sync::LazyLock;

use burn_backup_fuzz::{DIR, number_of_whole, open, three_generations};
use burn_backup_store::StoreError;
use burn_backup_store::testing::{Image, MemoryFilesystem, Node, seal};
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Image> = LazyLock::new(three_generations);

fuzz_target!(|data: &[u8]| {
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let (is_sealed, is_manifest) = (choice & 1 == 0, choice & 2 == 0);
    let bytes = match serde_json::from_slice(data) {
        Ok(document) if is_sealed => seal(&document).expect("it is a JSON object"),
        _ => data.to_vec(),
    };
    let path = match is_manifest {
        true => format!("{DIR}/generations/00000003/manifest.json"),
        false => format!("{DIR}/burn-backup.json"),
    };
    let mut image = IMAGE.clone();
    image.insert(path.into(), Node::File(bytes));
    let disk = MemoryFilesystem::holding(&image);

    match open(&disk).and_then(|store| store.newest()) {
        Ok(newest) => {
            let newest = newest.expect("two generations are whole");
            if !is_manifest || newest.id().number() < 3 {
                let number = newest.id().number();
                assert_eq!(number_of_whole(newest), Some(number));
                assert!(number == 2 || !is_manifest);
            }
        }
        Err(StoreError::NewerFormat { .. } | StoreError::AnotherRun { .. }) => {
            // They say so, and are sealed.
            assert!(disk.image().len() >= IMAGE.len());
        }
        Err(error) => panic!("{error}"),
    }
});
