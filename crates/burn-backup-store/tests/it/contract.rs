//! The contract of every filesystem under the store. The real one, the faulty one and the one in memory pass the same
//! tests.

use std::io::ErrorKind;
use std::path::Path;

use burn_backup_store::testing::{FaultyFilesystem, Image, MemoryFilesystem, Node};
use burn_backup_store::{EntryKind, Filesystem, LockAttempt, RealFilesystem};

/// The text in a file.
fn read(fs: &dyn Filesystem, path: &Path) -> std::io::Result<String> {
    let file = fs.open_file(path)?;
    let mut contents = vec![0; file.len()? as usize];
    let read = file.read_full_at(&mut contents, 0)?;
    assert_eq!(read, contents.len());
    assert_eq!(file.read_at(&mut [0; 8], contents.len() as u64)?, 0);
    Ok(String::from_utf8(contents).unwrap())
}

fn suite(fs: &dyn Filesystem, root: &Path) {
    let (dir, file) = (root.join("dir"), root.join("file"));

    assert_eq!(fs.kind(&dir).unwrap(), None);
    fs.create_dir(&dir).unwrap();
    assert_eq!(fs.kind(&dir).unwrap(), Some(EntryKind::Dir));
    assert_eq!(
        fs.create_dir(&dir).unwrap_err().kind(),
        ErrorKind::AlreadyExists
    );
    let below_nothing = root.join("none/dir");
    assert_eq!(
        fs.create_dir(&below_nothing).unwrap_err().kind(),
        ErrorKind::NotFound
    );

    let writer = fs.create_file(&file).unwrap();
    writer.write_all_at(b"contents", 0).unwrap();
    writer.sync().unwrap();
    drop(writer);
    assert_eq!(fs.kind(&file).unwrap(), Some(EntryKind::File));
    let again = fs.create_file(&file).err().unwrap();
    assert_eq!(again.kind(), ErrorKind::AlreadyExists);

    assert_eq!(fs.open_file(&file).unwrap().len().unwrap(), 8);
    assert_eq!(read(fs, &file).unwrap(), "contents");
    assert_eq!(
        fs.open_file(&dir).err().unwrap().kind(),
        ErrorKind::InvalidInput
    );
    let missing = fs.open_file(&root.join("none")).err().unwrap();
    assert_eq!(missing.kind(), ErrorKind::NotFound);

    let moved = dir.join("moved");
    fs.rename(&file, &moved).unwrap();
    fs.sync_dir(&dir).unwrap();
    fs.sync_dir(root).unwrap();
    assert_eq!(fs.kind(&file).unwrap(), None);
    let entries = fs.list(&dir).unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(
        (entries[0].name.as_str(), entries[0].kind),
        ("moved", EntryKind::File)
    );

    assert!(
        fs.remove_dir(&dir).is_err(),
        "a directory with something in it"
    );
    fs.remove_file(&moved).unwrap();
    fs.remove_dir(&dir).unwrap();
    assert_eq!(fs.kind(&dir).unwrap(), None);
}

fn second_names_suite(fs: &dyn Filesystem, root: &Path) {
    let (dir, other_dir) = (root.join("first"), root.join("other"));
    let (first, second) = (dir.join("file"), other_dir.join("second"));
    fs.create_dir(&dir).unwrap();
    fs.create_dir(&other_dir).unwrap();
    fs.create_file(&first)
        .and_then(|file| file.write_all_at(b"contents", 0).and_then(|()| file.sync()))
        .unwrap();
    let read = |path: &Path| read(fs, path);
    let kind_of_error = |from: &Path, to: &Path| fs.link(from, to).unwrap_err().kind();

    fs.link(&first, &second).unwrap();
    fs.sync_dir(&other_dir).unwrap();
    for path in [&first, &second] {
        assert_eq!(fs.kind(path).unwrap(), Some(EntryKind::File));
        assert_eq!(read(path).unwrap(), "contents");
    }
    assert_eq!(fs.list(&other_dir).unwrap()[0].name, "second");

    assert_eq!(kind_of_error(&first, &second), ErrorKind::AlreadyExists);
    assert_eq!(kind_of_error(&first, &dir), ErrorKind::AlreadyExists);
    let new = other_dir.join("new");
    assert_eq!(kind_of_error(&dir.join("none"), &new), ErrorKind::NotFound);
    let nowhere = root.join("none/new");
    assert_eq!(kind_of_error(&first, &nowhere), ErrorKind::NotFound);
    assert_eq!(kind_of_error(&dir, &new), ErrorKind::InvalidInput);
    assert_eq!(fs.kind(&new).unwrap(), None);

    // The directory of the first name moves, and then the first name is removed.
    let moved = root.join("moved");
    fs.rename(&dir, &moved).unwrap();
    assert_eq!(read(&moved.join("file")).unwrap(), "contents");
    assert_eq!(read(&second).unwrap(), "contents");
    fs.remove_file(&moved.join("file")).unwrap();
    assert_eq!(fs.kind(&moved.join("file")).unwrap(), None);
    assert_eq!(read(&second).unwrap(), "contents");

    // The reverse: the second name is removed, and the first one stays.
    fs.link(&second, &moved.join("third")).unwrap();
    fs.remove_file(&moved.join("third")).unwrap();
    assert_eq!(read(&second).unwrap(), "contents");
    fs.remove_file(&second).unwrap();
    for dir in [&moved, &other_dir] {
        fs.remove_dir(dir).unwrap();
    }
}

#[cfg(unix)]
fn links_suite(fs: &dyn Filesystem) {
    let temporary = tempfile::tempdir().unwrap();
    let (target, link) = (
        temporary.path().join("target"),
        temporary.path().join("link"),
    );
    std::fs::write(&target, b"contents").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    assert_eq!(fs.kind(&link).unwrap(), Some(EntryKind::Other));
    assert!(fs.open_file(&link).is_err());
    let second = temporary.path().join("second");
    let error = fs.link(&link, &second).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(fs.kind(&second).unwrap(), None);
    let taken = fs.link(&target, &link).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AlreadyExists);
    fs.remove_file(&link).unwrap();
    assert!(target.exists());
}

fn lock_suite(fs: &dyn Filesystem, root: &Path) {
    let path = root.join("lock");
    let LockAttempt::Held(first) = fs.lock(&path, "the first").unwrap() else {
        panic!("nobody holds the lock");
    };
    match fs.lock(&path, "the second").unwrap() {
        LockAttempt::Busy { owner, .. } => assert_eq!(owner, "the first"),
        LockAttempt::Held(_) => panic!("two hold the lock"),
    }
    drop(first);
    assert!(matches!(
        fs.lock(&path, "the third").unwrap(),
        LockAttempt::Held(_)
    ));
}

fn real_suites(fs: &dyn Filesystem) {
    let temporary = tempfile::tempdir().unwrap();
    suite(fs, temporary.path());
    second_names_suite(fs, temporary.path());
    lock_suite(fs, temporary.path());
    #[cfg(unix)]
    links_suite(fs);
}

#[test]
fn the_real_filesystem_keeps_the_contract() {
    real_suites(&RealFilesystem);
}

#[test]
fn a_faulty_filesystem_without_faults_keeps_the_contract() {
    real_suites(&FaultyFilesystem::new(|_, _| Ok(())));
}

#[test]
fn the_filesystem_in_memory_keeps_the_contract() {
    for root in ["", "/", "deep"] {
        let disk = MemoryFilesystem::holding(&Image::from([("deep".into(), Node::Dir)]));
        suite(&disk, Path::new(root));
        second_names_suite(&disk, Path::new(root));
        lock_suite(&disk, Path::new(root));
    }
}
