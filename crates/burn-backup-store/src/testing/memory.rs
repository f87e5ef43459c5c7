use std::collections::{BTreeMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::fs::{Entry, EntryKind, Filesystem, HeldLock, LockAttempt, ReadFile, WriteFile};
use crate::testing::image::{Body, Change, Image, Inode, Node, ROOT, apply, image_of};
use crate::testing::power_cut;

#[derive(Default)]
struct Disk {
    bodies: Vec<Body>,
    /// The initial bodies, all durable.
    origin: Vec<Body>,
    changes: Vec<Change>,
    locked: HashSet<Inode>,
}

/// A filesystem in memory that records each change. It can show what a power cut at any point could have left. Changes
/// that were not synced can be there or not. Its clones share the disk. Paths are relative to its root, and `..` is not
/// supported.
#[derive(Clone)]
pub struct MemoryFilesystem {
    disk: Arc<Mutex<Disk>>,
}

impl Default for MemoryFilesystem {
    /// An empty disk.
    fn default() -> Self {
        Self::holding(&Image::new())
    }
}

impl MemoryFilesystem {
    /// A disk that durably holds `image`. A directory that `image` does not name exists if something is in it.
    pub fn holding(image: &Image) -> Self {
        let mut disk = Disk {
            bodies: vec![Body::Dir(BTreeMap::new())],
            ..Disk::default()
        };
        for (path, node) in image {
            disk.put(path, node);
        }
        disk.origin = disk.bodies.clone();
        Self {
            disk: Arc::new(Mutex::new(disk)),
        }
    }

    /// The contents of the disk, as a process sees them.
    pub fn image(&self) -> Image {
        image_of(&self.disk().bodies)
    }

    /// How many changes were made so far, including syncs.
    pub fn changes(&self) -> usize {
        self.disk().changes.len()
    }

    /// The images that a power cut after the first `after` changes could have left, without duplicates.
    ///
    /// A name that was created, renamed or removed is in its old or its new state, independently of the others, unless
    /// its directory was synced since. For a rename across directories, both must be synced. Renames are atomic. A file
    /// that was not synced since it was written has its old contents, the first half of the new ones, all of them, or
    /// as many zeros.
    ///
    /// If there are more than `limit` combinations, `limit` of them are returned. The first are those of a disk that
    /// keeps the order of changes. Next are those that differ from one of these in one thing. The rest are drawn from a
    /// fixed sequence.
    pub fn power_cuts(&self, after: usize, limit: usize) -> Vec<Image> {
        let disk = self.disk();
        let changes = disk.changes.get(..after).unwrap_or(&disk.changes);
        power_cut::images(&disk.origin, changes, limit)
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn names(path: &Path) -> impl Iterator<Item = String> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    })
}

impl Disk {
    /// Puts `node` at `path`, without recording it.
    fn put(&mut self, path: &Path, node: &Node) {
        let mut at = ROOT;
        let names: Vec<_> = names(path).collect();
        for (depth, name) in names.iter().enumerate() {
            let is_last = depth + 1 == names.len();
            let below = self.child(at, name);
            at = match below {
                Some(inode) => inode,
                None => {
                    let inode = self.bodies.len();
                    self.bodies.push(match node {
                        Node::File(contents) if is_last => Body::File(contents.clone()),
                        Node::Other if is_last => Body::Other,
                        _ => Body::Dir(BTreeMap::new()),
                    });
                    if let Some(Body::Dir(names)) = self.bodies.get_mut(at) {
                        names.insert(name.clone(), inode);
                    }
                    inode
                }
            };
        }
    }

    fn child(&self, dir: Inode, name: &str) -> Option<Inode> {
        match self.bodies.get(dir) {
            Some(Body::Dir(names)) => names.get(name).copied(),
            _ => None,
        }
    }

    fn find(&self, path: &Path) -> io::Result<Inode> {
        names(path).try_fold(ROOT, |dir, name| {
            self.child(dir, &name)
                .ok_or_else(|| ErrorKind::NotFound.into())
        })
    }

    /// The directory that holds a path's last name, and that name.
    fn place(&self, path: &Path) -> io::Result<(Inode, String)> {
        let name = names(path).last().ok_or(ErrorKind::InvalidInput)?;
        let dir = self.find(path.parent().unwrap_or(Path::new("")))?;
        self.names_in(dir)?;
        Ok((dir, name))
    }

    fn names_in(&self, dir: Inode) -> io::Result<&BTreeMap<String, Inode>> {
        match self.bodies.get(dir) {
            Some(Body::Dir(names)) => Ok(names),
            _ => Err(ErrorKind::NotADirectory.into()),
        }
    }

    /// How many names a file has.
    fn names_of(&self, inode: Inode) -> usize {
        let dirs = self.bodies.iter().filter_map(|body| match body {
            Body::Dir(names) => Some(names),
            _ => None,
        });
        let names = dirs.flat_map(BTreeMap::values);
        names.filter(|named| **named == inode).count()
    }

    fn create(&mut self, path: &Path, is_dir: bool) -> io::Result<Inode> {
        let (dir, name) = self.place(path)?;
        if self.child(dir, &name).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        let inode = self.bodies.len();
        self.bodies.push(Body::new(is_dir));
        self.make(Change::Create {
            dir,
            name,
            inode,
            is_dir,
        });
        Ok(inode)
    }

    /// Makes a change that is known to be valid, and records it.
    fn make(&mut self, change: Change) {
        apply(&mut self.bodies, &change);
        self.changes.push(change);
    }

    fn remove(&mut self, path: &Path, is_right: impl FnOnce(&Body) -> bool) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        let inode = self.child(dir, &name).ok_or(ErrorKind::NotFound)?;
        if !self.bodies.get(inode).is_some_and(is_right) {
            return Err(ErrorKind::DirectoryNotEmpty.into());
        }
        self.make(Change::Remove { dir, name });
        Ok(())
    }
}

impl Filesystem for MemoryFilesystem {
    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(names(path).fold(PathBuf::from("/"), |dir, name| dir.join(name)))
    }

    fn kind(&self, path: &Path) -> io::Result<Option<EntryKind>> {
        let disk = self.disk();
        Ok(disk
            .find(path)
            .ok()
            .and_then(|at| disk.bodies.get(at))
            .map(kind))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let disk = self.disk();
        let names = disk.names_in(disk.find(dir)?)?;
        Ok(names
            .iter()
            .filter_map(|(name, inode)| {
                Some(Entry {
                    name: name.clone(),
                    kind: disk.bodies.get(*inode).map(kind)?,
                })
            })
            .collect())
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk().create(path, true).map(drop)
    }

    fn create_file(&self, path: &Path) -> io::Result<Box<dyn WriteFile>> {
        let inode = self.disk().create(path, false)?;
        Ok(Box::new(MemoryFile {
            filesystem: self.clone(),
            inode,
        }))
    }

    fn reuses_files(&self) -> bool {
        true
    }

    fn reuse_file(&self, path: &Path) -> io::Result<Option<Box<dyn WriteFile>>> {
        let disk = self.disk();
        let inode = disk.find(path)?;
        if !matches!(disk.bodies.get(inode), Some(Body::File(_))) {
            return Err(ErrorKind::InvalidInput.into());
        }
        Ok(match disk.names_of(inode) {
            1 => Some(Box::new(MemoryFile {
                filesystem: self.clone(),
                inode,
            })),
            _ => None,
        })
    }

    fn open_file(&self, path: &Path) -> io::Result<Box<dyn ReadFile>> {
        let disk = self.disk();
        match disk.bodies.get(disk.find(path)?) {
            Some(Body::File(contents)) => Ok(Box::new(Contents(contents.clone()))),
            _ => Err(ErrorKind::InvalidInput.into()),
        }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let (from, to) = (disk.place(from)?, disk.place(to)?);
        let inode = disk.child(from.0, &from.1).ok_or(ErrorKind::NotFound)?;
        if disk.child(to.0, &to.1).is_some() {
            // POSIX allows this, but the contract says that it is never asked for.
            return Err(ErrorKind::AlreadyExists.into());
        }
        disk.make(Change::Rename { from, to, inode });
        Ok(())
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let inode = disk.find(from)?;
        let (dir, name) = disk.place(to)?;
        if !matches!(disk.bodies.get(inode), Some(Body::File(_))) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if disk.child(dir, &name).is_some() {
            return Err(ErrorKind::AlreadyExists.into());
        }
        disk.make(Change::Link { dir, name, inode });
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk()
            .remove(path, |body| !matches!(body, Body::Dir(_)))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk().remove(
            path,
            |body| matches!(body, Body::Dir(names) if names.is_empty()),
        )
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let file = disk.find(path)?;
        match disk.bodies.get(file) {
            Some(Body::File(_)) => disk.make(Change::SyncFile { file }),
            _ => return Err(ErrorKind::InvalidInput.into()),
        }
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        let dir = disk.find(path)?;
        disk.names_in(dir)?;
        disk.make(Change::SyncDir { dir });
        Ok(())
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<LockAttempt> {
        let mut disk = self.disk();
        let file = match disk.find(path) {
            Ok(file) => file,
            Err(_) => disk.create(path, false)?,
        };
        if !matches!(disk.bodies.get(file), Some(Body::File(_))) {
            return Err(ErrorKind::InvalidInput.into());
        }
        if !disk.locked.insert(file) {
            let owner = match disk.bodies.get(file) {
                Some(Body::File(owner)) => String::from_utf8_lossy(owner).into_owned(),
                _ => String::new(),
            };
            return Ok(LockAttempt::Busy { owner });
        }
        let contents = owner.as_bytes().to_vec();
        disk.make(Change::Write { file, contents });
        Ok(LockAttempt::Held(Box::new(Locked {
            filesystem: self.clone(),
            file,
        })))
    }
}

fn kind(body: &Body) -> EntryKind {
    match body {
        Body::File(_) => EntryKind::File,
        Body::Dir(_) => EntryKind::Dir,
        Body::Other => EntryKind::Other,
    }
}

struct Locked {
    filesystem: MemoryFilesystem,
    file: Inode,
}

impl HeldLock for Locked {
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        Ok(self.filesystem.disk().find(path).ok() == Some(self.file))
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.filesystem.disk().locked.remove(&self.file);
    }
}

struct MemoryFile {
    filesystem: MemoryFilesystem,
    inode: Inode,
}

impl MemoryFile {
    fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.filesystem.disk();
        let mut contents = match disk.bodies.get(self.inode) {
            Some(Body::File(contents)) => contents.clone(),
            _ => Vec::new(),
        };
        change(&mut contents);
        disk.make(Change::Write {
            file: self.inode,
            contents,
        });
    }
}

impl WriteFile for MemoryFile {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).map_err(|_| ErrorKind::FileTooLarge)?;
        self.change(|contents| {
            let end = start + bytes.len();
            contents.resize(contents.len().max(end), 0);
            if let Some(written) = contents.get_mut(start..end) {
                written.copy_from_slice(bytes);
            }
        });
        Ok(bytes.len())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let len = usize::try_from(len).map_err(|_| ErrorKind::FileTooLarge)?;
        self.change(|contents| contents.truncate(len));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let file = self.inode;
        self.filesystem.disk().make(Change::SyncFile { file });
        Ok(())
    }
}

/// The contents of a file at the time it was opened.
struct Contents(Vec<u8>);

impl ReadFile for Contents {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.0.get(start..).unwrap_or_default();
        let read = rest.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..read), rest.get(..read)) {
            to.copy_from_slice(from);
        }
        Ok(read)
    }
}
