//! The contents of a disk, and the changes to them.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The contents of a disk: everything below its root, by path.
pub type Image = BTreeMap<PathBuf, Node>;

/// A file, a directory, or something else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Node {
    /// A regular file and its contents.
    File(Vec<u8>),
    /// A directory.
    Dir,
    /// Something that is neither, such as a symbolic link.
    Other,
}

/// Identifies a file or directory, also after a rename.
pub(super) type Inode = usize;

pub(super) const ROOT: Inode = 0;

/// One change to the disk, in the order of the calls.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// A new file or directory appears in a directory.
    Create {
        dir: Inode,
        name: String,
        inode: Inode,
        is_dir: bool,
    },
    /// A file gets one more name.
    Link {
        dir: Inode,
        name: String,
        inode: Inode,
    },
    /// A name is removed from a directory.
    Remove { dir: Inode, name: String },
    /// A name is moved from one directory to another, in one step.
    Rename {
        from: (Inode, String),
        to: (Inode, String),
        inode: Inode,
    },
    /// A file gets these contents.
    Write { file: Inode, contents: Vec<u8> },
    /// A file's contents become durable.
    SyncFile { file: Inode },
    /// A directory's names become durable.
    SyncDir { dir: Inode },
}

/// The contents of an inode.
#[derive(Debug, Clone)]
pub(super) enum Body {
    File(Vec<u8>),
    Dir(BTreeMap<String, Inode>),
    Other,
}

impl Body {
    pub(super) fn new(is_dir: bool) -> Self {
        if is_dir {
            Self::Dir(BTreeMap::new())
        } else {
            Self::File(Vec::new())
        }
    }
}

/// The tree below the root.
pub(super) fn image_of(bodies: &[Body]) -> Image {
    let mut image = Image::new();
    let mut open = vec![(PathBuf::new(), ROOT)];
    while let Some((path, inode)) = open.pop() {
        let node = match bodies.get(inode) {
            Some(Body::File(contents)) => Node::File(contents.clone()),
            Some(Body::Dir(names)) => {
                open.extend(names.iter().map(|(name, inode)| (path.join(name), *inode)));
                Node::Dir
            }
            Some(Body::Other) | None => Node::Other,
        };
        if inode != ROOT {
            image.insert(path, node);
        }
    }
    image
}

/// Applies a change, if its directories and files exist.
pub(super) fn apply(bodies: &mut [Body], change: &Change) {
    let mut link = |dir: Inode, name: &String, inode: Option<Inode>| {
        if let Some(Body::Dir(names)) = bodies.get_mut(dir) {
            match inode {
                Some(inode) => names.insert(name.clone(), inode),
                None => names.remove(name),
            };
        }
    };
    match change {
        Change::Create {
            dir, name, inode, ..
        }
        | Change::Link { dir, name, inode } => link(*dir, name, Some(*inode)),
        Change::Remove { dir, name } => link(*dir, name, None),
        Change::Rename { from, to, inode } => {
            link(from.0, &from.1, None);
            link(to.0, &to.1, Some(*inode));
        }
        Change::Write { file, contents } => {
            if let Some(body) = bodies.get_mut(*file) {
                *body = Body::File(contents.clone());
            }
        }
        Change::SyncFile { .. } | Change::SyncDir { .. } => {}
    }
}
