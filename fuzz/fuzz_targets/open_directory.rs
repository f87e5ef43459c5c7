//! A backup directory after edits that the input draws: what is found in it is exactly what was
//! saved, or there is an error; and it can be saved into and removed.
#![no_main]

use std::path::Path;
use std::sync::LazyLock;

use burn_backup_fuzz::{DIR, number_of_whole, open, save, three_generations};
use burn_backup_store::StoreError;
use burn_backup_store::testing::{Image, MemoryFilesystem, below, edit};
use libfuzzer_sys::fuzz_target;

static IMAGE: LazyLock<Image> = LazyLock::new(three_generations);

/// How many edits an input makes at the most.
const EDITS: usize = 12;

fuzz_target!(|data: &[u8]| {
    let mut image = IMAGE.clone();
    let mut numbers = data.chunks_exact(2).map(|pair| usize::from(pair[0]) << 8 | usize::from(pair[1]));
    let mut edits = 0;
    while numbers.len() > 0 && edits < EDITS {
        edit(&mut image, |below| numbers.next().unwrap_or_default() % below);
        edits += 1;
    }
    let untouched = (1..=3).rev().find(|number| {
        let dir = Path::new(DIR).join(format!("generations/{number:08}"));
        below(&IMAGE, &dir) == below(&image, &dir)
    });

    let disk = MemoryFilesystem::holding(&image);
    let store = match open(&disk).and_then(|store| store.newest().map(|newest| (store, newest))) {
        Ok((store, Some(newest))) => {
            let number = number_of_whole(newest).expect("it is what was saved");
            assert!(Some(number) >= untouched);
            store
        }
        Ok((store, None)) => {
            assert_eq!(untouched, None);
            store
        }
        Err(StoreError::NoneLeft { .. }) => {
            assert_eq!(untouched, None);
            return;
        }
        Err(_) => return,
    };
    save(&store, 99).expect("there is nothing in the way");
    let newest = store.newest().expect("it can be read").expect("it is there");
    assert_eq!(number_of_whole(newest), Some(99));
    store.remove().expect("there is nothing in the way");
    let after = open(&disk).and_then(|store| store.newest());
    let left: Vec<_> = disk.image().into_keys().collect();
    assert!(matches!(after, Ok(None)), "{after:?} is found in {left:?}");
});
