//! Computes what a power cut can leave of a sequence of changes.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use xxhash_rust::xxh3::xxh3_64;

use crate::testing::image::{Body, Change, Image, Inode, ROOT, apply, image_of};

/// The images that a power cut can leave of `changes` to a disk that held `origin`; see
/// [`MemoryFilesystem::power_cuts`](crate::testing::MemoryFilesystem::power_cuts).
pub(super) fn images(origin: &[Body], changes: &[Change], limit: usize) -> Vec<Image> {
    let possible = PossibleDisks::of(origin, changes);
    let mut seen = HashSet::new();
    let mut images = Vec::new();
    for outcome in possible.outcomes(limit) {
        let image = possible.image(&outcome);
        if seen.insert(image.clone()) {
            images.push(image);
        }
    }
    images
}

/// The certain and the uncertain state after a power cut.
struct PossibleDisks {
    /// All files and directories that were ever made, with their durable contents.
    bodies: Vec<Body>,
    /// Changes to names, in order. Uncertain changes are numbered from 0.
    names: Vec<(Change, Option<usize>)>,
    /// How many changes to names are uncertain.
    open_names: usize,
    /// The possible contents of each file that was not synced.
    open_files: Vec<(Inode, Vec<Vec<u8>>)>,
}

/// For each uncertain name whether it changed, then for each uncertain file which of its contents it has.
type Outcome = Vec<usize>;

impl PossibleDisks {
    fn of(origin: &[Body], changes: &[Change]) -> Self {
        let mut bodies = origin.to_vec();
        let mut unsynced = BTreeMap::new();
        let mut names: Vec<(Change, Vec<Inode>)> = Vec::new();
        for change in changes {
            match change {
                Change::Create { dir, is_dir, .. } => {
                    bodies.push(Body::new(*is_dir));
                    names.push((change.clone(), vec![*dir]));
                }
                Change::Remove { dir, .. } | Change::Link { dir, .. } => {
                    names.push((change.clone(), vec![*dir]))
                }
                Change::Rename { from, to, .. } => {
                    names.push((change.clone(), vec![from.0, to.0]));
                }
                Change::Write { file, contents } => {
                    unsynced.insert(*file, contents);
                }
                Change::SyncFile { file } => {
                    if let Some(contents) = unsynced.remove(file)
                        && let Some(body) = bodies.get_mut(*file)
                    {
                        *body = Body::File(contents.clone());
                    }
                }
                Change::SyncDir { dir } => {
                    for (_, waits_for) in &mut names {
                        waits_for.retain(|waits_for| waits_for != dir);
                    }
                }
            }
        }

        let reachable = reachable(&bodies, &names);
        let mut open_names = 0;
        let names = names
            .into_iter()
            .filter(|(_, waits_for)| {
                // Contents that can't be reached do not matter.
                waits_for.is_empty() || waits_for.iter().any(|dir| reachable.contains(dir))
            })
            .map(|(change, waits_for)| {
                let number = (!waits_for.is_empty()).then_some(open_names);
                open_names += usize::from(number.is_some());
                (change, number)
            })
            .collect();
        let open_files = unsynced
            .into_iter()
            .filter(|(file, _)| reachable.contains(file))
            .filter_map(|(file, written)| match bodies.get(file) {
                Some(Body::File(durable)) => Some((file, possible_contents(durable, written))),
                _ => None,
            })
            .collect();
        Self {
            bodies,
            names,
            open_names,
            open_files,
        }
    }

    fn image(&self, outcome: &Outcome) -> Image {
        let (names, files) = outcome.split_at(self.open_names);
        let mut bodies = self.bodies.clone();
        for (change, number) in &self.names {
            if number.is_none_or(|number| names.get(number) == Some(&1)) {
                apply(&mut bodies, change);
            }
        }
        for ((file, contents), choice) in self.open_files.iter().zip(files) {
            if let (Some(body), Some(contents)) = (bodies.get_mut(*file), contents.get(*choice)) {
                *body = Body::File(contents.clone());
            }
        }
        image_of(&bodies)
    }

    /// The number of choices for each uncertain item.
    fn choices(&self) -> Vec<usize> {
        let files = self.open_files.iter().map(|(_, contents)| contents.len());
        std::iter::repeat_n(2, self.open_names)
            .chain(files)
            .collect()
    }

    fn outcomes(&self, limit: usize) -> Vec<Outcome> {
        let choices = self.choices();
        let combinations = choices
            .iter()
            .try_fold(1_usize, |product, choices| product.checked_mul(*choices));
        match combinations {
            Some(combinations) if combinations <= limit => {
                (0..combinations).map(|n| digits(n, &choices)).collect()
            }
            _ => self.some_outcomes(&choices, limit),
        }
    }

    fn some_outcomes(&self, choices: &[usize], limit: usize) -> Vec<Outcome> {
        // A disk that keeps the order of changes has a prefix of them.
        let in_order = |contents: usize| {
            (0..=self.open_names).map(move |changed| {
                let pick = |(at, choices): (usize, &usize)| match at < self.open_names {
                    true => usize::from(at < changed),
                    false => contents % choices,
                };
                choices.iter().enumerate().map(pick).collect::<Outcome>()
            })
        };
        // One item differs. Outcomes with all later changes come first.
        let one_off = |contents| {
            in_order(contents).rev().flat_map(|outcome| {
                choices.iter().enumerate().map(move |(at, choices)| {
                    let mut outcome = outcome.clone();
                    if let Some(choice) = outcome.get_mut(at) {
                        *choice = (*choice + 1) % choices;
                    }
                    outcome
                })
            })
        };
        let drawn = (0_u64..).map(|n| {
            let draw = |(at, choices): (usize, &usize)| {
                let seed = [n.to_le_bytes(), (at as u64).to_le_bytes()].concat();
                xxh3_64(&seed) as usize % choices
            };
            choices.iter().enumerate().map(draw).collect()
        });

        let mut seen = HashSet::new();
        in_order(WHOLE)
            .chain(one_off(WHOLE))
            .chain((0..4).flat_map(in_order))
            .chain((0..4).flat_map(one_off))
            .chain(drawn)
            .filter(|outcome| seen.insert(outcome.clone()))
            .take(limit)
            .collect()
    }
}

/// The index of the written contents among the possible contents of a file.
const WHOLE: usize = 0;

/// The written contents, the old ones, the first half of the new ones, and as many zeros. If old contents were written
/// over, the first half is followed by the old bytes.
fn possible_contents(durable: &[u8], written: &[u8]) -> Vec<Vec<u8>> {
    let kept = match written.starts_with(durable) {
        true => durable.len(),
        false => 0,
    };
    let (old, new) = written.split_at(kept);
    let (half, _) = new.split_at(new.len() / 2);
    let half = [old, half].concat();
    let below = durable.get(half.len()..).unwrap_or_default();
    let mut contents = vec![
        written.to_vec(),
        durable.to_vec(),
        [&half, below].concat(),
        [old, &vec![0; new.len()]].concat(),
    ];
    contents.dedup();
    contents
}

/// All inodes that can be reached from the root in some outcome.
fn reachable(bodies: &[Body], names: &[(Change, Vec<Inode>)]) -> BTreeSet<Inode> {
    let mut certain = bodies.to_vec();
    for (change, waits_for) in names {
        if waits_for.is_empty() {
            apply(&mut certain, change);
        }
    }
    let mut links: Vec<(Inode, Inode)> = names
        .iter()
        .filter(|(_, waits_for)| !waits_for.is_empty())
        .filter_map(|(change, _)| match change {
            Change::Create { dir, inode, .. } | Change::Link { dir, inode, .. } => {
                Some((*dir, *inode))
            }
            Change::Rename { to, inode, .. } => Some((to.0, *inode)),
            _ => None,
        })
        .collect();
    for (dir, body) in certain.iter().enumerate() {
        if let Body::Dir(names) = body {
            links.extend(names.values().map(|inode| (dir, *inode)));
        }
    }

    let mut reachable = BTreeSet::new();
    let mut open = vec![ROOT];
    while let Some(at) = open.pop() {
        if reachable.insert(at) {
            open.extend(links.iter().filter(|(dir, _)| *dir == at).map(|(_, to)| to));
        }
    }
    reachable
}

/// The number `n` in the mixed radix of `choices`.
fn digits(mut n: usize, choices: &[usize]) -> Outcome {
    choices
        .iter()
        .map(|choices| {
            let digit = n % choices;
            n /= choices;
            digit
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::fs::Filesystem as _;
    use crate::testing::{MemoryFilesystem, Node};

    /// The possible contents of the file of four bytes at `path`.
    fn found(disk: &MemoryFilesystem, path: &str) -> Vec<Option<Vec<u8>>> {
        let mut found: Vec<_> = disk
            .power_cuts(disk.changes(), 1000)
            .iter()
            .map(|image| match image.get(Path::new(path)) {
                Some(Node::File(contents)) => Some(contents.clone()),
                _ => None,
            })
            .collect();
        found.sort();
        found.dedup();
        found
    }

    fn bytes(contents: &[&[u8]]) -> Vec<Option<Vec<u8>>> {
        contents.iter().map(|c| Some(c.to_vec())).collect()
    }

    #[test]
    fn unsynced_bytes_may_be_missing_and_synced_ones_are_there() {
        let disk = MemoryFilesystem::default();
        let (dir, file) = (Path::new("dir"), Path::new("dir/file"));
        disk.create_dir(dir).unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        let writer = disk.create_file(file).unwrap();
        writer.write_all_at(b"abcd", 0).unwrap();
        let open = [vec![None], bytes(&[b"", b"\0\0\0\0", b"ab", b"abcd"])].concat();
        assert_eq!(found(&disk, "dir/file"), open);

        disk.sync_dir(dir).unwrap();
        assert_eq!(
            found(&disk, "dir/file"),
            bytes(&[b"", b"\0\0\0\0", b"ab", b"abcd"])
        );
        writer.sync().unwrap();
        assert_eq!(found(&disk, "dir/file"), bytes(&[b"abcd"]));
        writer.write_all_at(b"ef", 4).unwrap();
        assert_eq!(
            found(&disk, "dir/file"),
            bytes(&[b"abcd", b"abcd\0\0", b"abcde", b"abcdef"])
        );
    }

    #[test]
    fn overwritten_bytes_may_be_old_new_or_mixed() {
        let disk = MemoryFilesystem::default();
        let file = Path::new("file");
        let writer = disk.create_file(file).unwrap();
        writer.write_all_at(b"abcdef", 0).unwrap();
        writer.sync().unwrap();
        disk.sync_dir(Path::new("")).unwrap();
        drop(writer);
        let writer = disk.reuse_file(file).unwrap().unwrap();
        writer.write_all_at(b"wxyz", 0).unwrap();
        writer.truncate(4).unwrap();
        assert_eq!(
            found(&disk, "file"),
            bytes(&[b"\0\0\0\0", b"abcdef", b"wxcdef", b"wxyz"])
        );
        writer.sync().unwrap();
        assert_eq!(found(&disk, "file"), bytes(&[b"wxyz"]));
    }

    #[test]
    fn a_rename_is_atomic_and_uncertain_until_both_directories_are_synced() {
        let disk = MemoryFilesystem::default();
        let root = Path::new("");
        disk.create_dir(Path::new("a")).unwrap();
        disk.create_dir(Path::new("b")).unwrap();
        disk.sync_dir(root).unwrap();
        disk.rename(Path::new("a"), Path::new("b/a")).unwrap();
        let places = || -> Vec<_> {
            let images = disk.power_cuts(disk.changes(), 1000);
            let is_at = |path: &str| {
                images
                    .iter()
                    .filter(|i| i.contains_key(Path::new(path)))
                    .count()
            };
            vec![images.len(), is_at("a"), is_at("b/a")]
        };
        assert_eq!(places(), [2, 1, 1]);
        disk.sync_dir(Path::new("b")).unwrap();
        assert_eq!(places(), [2, 1, 1]);
        disk.sync_dir(root).unwrap();
        assert_eq!(places(), [1, 0, 1]);
    }

    #[test]
    fn files_in_a_durably_removed_directory_add_no_images() {
        let disk = MemoryFilesystem::default();
        let (dir, file) = (Path::new("dir"), Path::new("dir/file"));
        disk.create_dir(dir).unwrap();
        disk.create_file(file).unwrap();
        disk.remove_file(file).unwrap();
        disk.remove_dir(dir).unwrap();
        assert!(disk.power_cuts(disk.changes(), 1000).len() > 1);
        disk.sync_dir(Path::new("")).unwrap();
        assert_eq!(disk.power_cuts(disk.changes(), 1000), [disk.image()]);
    }

    #[test]
    fn too_many_combinations_give_the_requested_number_of_images() {
        let disk = MemoryFilesystem::default();
        for name in 0..12 {
            disk.create_dir(Path::new(&name.to_string())).unwrap();
        }
        assert_eq!(disk.power_cuts(disk.changes(), 5000).len(), 4096);
        let images = disk.power_cuts(disk.changes(), 100);
        assert_eq!(images.len(), 100);
        assert!(images.contains(&disk.image()));
        assert!(images.contains(&MemoryFilesystem::default().image()));
    }
}
