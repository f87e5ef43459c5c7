use std::path::{Path, PathBuf};

use crate::testing::{Image, Node};

/// Names with a meaning in a backup directory, and names without one.
const NAMES: [&str; 14] = [
    "burn-backup.json",
    "lock",
    "generations",
    "quarantine",
    "manifest.json",
    "model.bpk",
    "optimizer.bpk",
    "reason.txt",
    "00000001",
    "00000002",
    "00000009",
    ".staging-00000004-0123456789abcdef",
    ".staging-removed-generations+00000001-0123456789abcdef",
    FOREIGN_FILE.0,
];

/// The name and the contents of a file that this crate did not write.
pub const FOREIGN_FILE: (&str, &[u8]) = ("notes.txt", b"somebody else's");

/// Makes one random edit to an image. It changes a byte or bits of it; cuts, lengthens, empties or replaces a file;
/// removes, swaps, copies or moves a file or directory; or adds one, possibly [`FOREIGN_FILE`]. The edit is chosen by
/// `numbers`, and by zeros when they are used up. Returns a description of the edit.
pub fn edit(image: &mut Image, numbers: &mut dyn Iterator<Item = u16>) -> String {
    let mut draw = |below: usize| usize::from(numbers.next().unwrap_or_default()) % below;
    let paths: Vec<PathBuf> = image.keys().cloned().collect();
    let files: Vec<PathBuf> = image
        .iter()
        .filter(|(_, node)| matches!(node, Node::File(_)))
        .map(|(path, _)| path.clone())
        .collect();
    let mut pick = |from: &[PathBuf]| from.get(draw(from.len().max(1))).cloned();
    let (Some(path), Some(other), Some(file), Some(other_file)) =
        (pick(&paths), pick(&paths), pick(&files), pick(&files))
    else {
        return "nothing to edit".to_owned();
    };
    let name = NAMES.get(draw(NAMES.len())).copied().unwrap_or_default();
    match draw(11) {
        0..=2 => {
            let mask = 1 + draw(255) as u8;
            let at = edit_file(image, &file, |bytes| {
                let at = draw(bytes.len().max(1));
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= mask;
                }
                at
            });
            format!("byte {at:?} of '{}' ^ {mask:#04x}", file.display())
        }
        3 => {
            let len = edit_file(image, &file, |bytes| {
                bytes.truncate(draw(bytes.len().max(1)));
                bytes.len()
            });
            format!("'{}' cut to {len:?} bytes", file.display())
        }
        4 => {
            let tail = vec![draw(256) as u8; 1 + draw(5000)];
            edit_file(image, &file, |bytes| bytes.extend_from_slice(&tail));
            format!("{} bytes more in '{}'", tail.len(), file.display())
        }
        5 => {
            remove(image, &path);
            format!("'{}' removed", path.display())
        }
        6 => {
            let (a, b) = (image.get(&file).cloned(), image.get(&other_file).cloned());
            if let (Some(a), Some(b)) = (a, b) {
                image.insert(file.clone(), b);
                image.insert(other_file.clone(), a);
            }
            format!(
                "'{}' and '{}' exchanged",
                file.display(),
                other_file.display()
            )
        }
        7 => {
            if let Some(contents) = image.get(&other_file).cloned() {
                image.insert(file.clone(), contents);
            }
            format!("'{}' copied to '{}'", other_file.display(), file.display())
        }
        8 => {
            let to = other.parent().unwrap_or(Path::new("")).join(name);
            rename(image, &path, &to);
            format!("'{}' moved to '{}'", path.display(), to.display())
        }
        9 => {
            let node = [Node::Dir, Node::Other, Node::File(Vec::new())];
            let node = node.get(draw(3)).cloned().unwrap_or(Node::Dir);
            remove(image, &path);
            let text = format!("'{}' is {node:?} now", path.display());
            image.insert(path, node);
            text
        }
        _ => {
            let dir = match image.get(&other) {
                Some(Node::Dir) => other.as_path(),
                _ => other.parent().unwrap_or(Path::new("")),
            };
            let new = dir.join(name);
            image
                .entry(new.clone())
                .or_insert_with(|| Node::File(FOREIGN_FILE.1.to_vec()));
            format!("a new '{}'", new.display())
        }
    }
}

/// Edits an image once for each list of numbers. Returns the descriptions of the edits.
pub fn edit_each(image: &mut Image, drawn: &[Vec<u16>]) -> Vec<String> {
    drawn
        .iter()
        .map(|numbers| edit(image, &mut numbers.iter().copied()))
        .collect()
}

/// The part of an image that is at `path` and below.
pub fn below(image: &Image, path: &Path) -> Image {
    let entries = image.iter().filter(|(other, _)| other.starts_with(path));
    entries
        .map(|(path, node)| (path.clone(), node.clone()))
        .collect()
}

fn edit_file<T>(image: &mut Image, path: &Path, edit: impl FnOnce(&mut Vec<u8>) -> T) -> Option<T> {
    match image.get_mut(path) {
        Some(Node::File(bytes)) => Some(edit(bytes)),
        _ => None,
    }
}

fn remove(image: &mut Image, path: &Path) {
    image.retain(|other, _| !other.starts_with(path));
}

/// Moves a file or directory to a free place that is not inside itself.
fn rename(image: &mut Image, from: &Path, to: &Path) {
    if image.contains_key(to) || to.starts_with(from) {
        return;
    }
    let moved: Vec<_> = image
        .iter()
        .filter_map(|(path, node)| {
            let below = path.strip_prefix(from).ok()?;
            let place = if below.as_os_str().is_empty() {
                to.to_path_buf()
            } else {
                to.join(below)
            };
            Some((place, node.clone()))
        })
        .collect();
    remove(image, from);
    image.extend(moved);
}
