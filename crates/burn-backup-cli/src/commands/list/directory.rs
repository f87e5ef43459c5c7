use std::collections::BTreeSet;
use std::path::Path;
use std::time::SystemTime;

use anyhow::Result;
use burn_backup_remote::Mirror;
use burn_backup_store::{Observation, Observer, OpenGeneration, Use};
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, TextStyle, ago, bytes};
use crate::place::Place;
use crate::source::{Directory, MAX_LISTINGS, pruned_too_soon};
use crate::training::{Position, Training};

/// The contents of a backup directory.
#[derive(Debug, Serialize)]
struct Listing {
    place: String,
    kind: &'static str,
    run_id: Option<String>,
    run_seed: Option<u64>,
    format: Option<u32>,
    in_use: InUse,
    mirror: Option<String>,
    generations: Vec<Row>,
    quarantine: Vec<Quarantined>,
    /// The newer generations that were set aside when the training went back to an older one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    aside: Vec<SetAside>,
    /// The staging entries of saves and removals that were interrupted or are in progress.
    leftovers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct InUse {
    /// `unused`, `in_use` or `unknown`.
    state: &'static str,
    by: Option<String>,
}

#[derive(Debug, Serialize)]
struct Row {
    number: u64,
    /// `manifest_whole`, `damaged` or `another_training`.
    status: &'static str,
    damage: Option<String>,
    created: Option<Timestamp>,
    bytes: Option<u64>,
    /// How many of these bytes are shared with another generation.
    linked_bytes: Option<u64>,
    position: Option<Position>,
    phase: Option<String>,
    in_mirror: Option<bool>,
}

#[derive(Debug, Serialize)]
struct SetAside {
    number: u64,
    path: String,
    position: Option<Position>,
}

#[derive(Debug, Serialize)]
struct Quarantined {
    name: String,
    generation: Option<u64>,
    path: String,
    reason: Option<String>,
}

pub fn list(path: &Path, mirror: Option<&Place>, output: &Output) -> Result<Exit> {
    let directory = Directory::open(path)?;
    let mirrored = mirror
        .map(|mirror| mirrored(mirror, &directory))
        .transpose()?;
    let generations = rows(&directory, mirrored.as_ref())?;
    let listing = Listing::new(&directory, mirror, generations)?;
    let exit = listing.exit();
    output.print(&listing)?;
    Ok(exit)
}

/// The generations, newest first.
fn rows(directory: &Directory, mirrored: Option<&BTreeSet<u64>>) -> Result<Vec<Row>> {
    for _ in 0..MAX_LISTINGS {
        let ids = directory.observer.generations()?;
        let mut rows = Vec::new();
        for id in &ids {
            let in_mirror = mirrored.map(|mirrored| mirrored.contains(&id.number()));
            let row = match directory.observer.open(*id)? {
                Observation::Manifest(generation) => Row::of(&generation, directory, in_mirror),
                Observation::Damaged(damage) => {
                    Row::damaged(id.number(), damage.to_string(), in_mirror)
                }
                // It was pruned after it was listed.
                _ => continue,
            };
            rows.push(row);
        }
        // If all were pruned, there are new ones: list again.
        if !rows.is_empty() || ids.is_empty() {
            return Ok(rows);
        }
    }
    Err(pruned_too_soon())
}

/// The generations in the mirror that belong to the directory's training.
fn mirrored(place: &Place, directory: &Directory) -> Result<BTreeSet<u64>> {
    let Place::Mirror(url) = place else {
        return Err(refuse(Exit::Usage, "--mirror needs the URL of a mirror"));
    };
    let trainings = Mirror::new(url).connect()?.observe()?;
    let run_id = directory
        .identity
        .as_ref()
        .map(|identity| identity.run_id.as_str());
    let ours = trainings
        .iter()
        .filter(|training| Some(training.run_id()) == run_id);
    Ok(ours
        .flat_map(|training| training.generations())
        .map(|id| id.number())
        .collect())
}

impl Row {
    fn of(generation: &OpenGeneration, directory: &Directory, in_mirror: Option<bool>) -> Self {
        let manifest = generation.manifest();
        let training = Training::of(manifest);
        Self {
            number: generation.id().number(),
            status: match directory.is_of_another(manifest) {
                true => "another_training",
                false => "manifest_whole",
            },
            damage: None,
            created: Timestamp::try_from(manifest.created).ok(),
            bytes: Some(manifest.bytes()),
            linked_bytes: linked_bytes(generation),
            position: training.position,
            phase: training.phase,
            in_mirror,
        }
    }

    fn damaged(number: u64, damage: String, in_mirror: Option<bool>) -> Self {
        Self {
            number,
            status: "damaged",
            damage: Some(damage),
            created: None,
            bytes: None,
            linked_bytes: None,
            position: None,
            phase: None,
            in_mirror,
        }
    }

    fn columns(&self, is_mirrored: bool) -> Vec<String> {
        let created = self.created.map(SystemTime::from);
        let mut columns = vec![
            self.number.to_string(),
            self.position
                .map_or_else(|| "-".to_owned(), |position| position.to_string()),
            self.phase.clone().unwrap_or_else(|| "-".to_owned()),
            created.map_or_else(|| "-".to_owned(), ago),
            self.bytes.map_or_else(|| "-".to_owned(), bytes),
            self.linked_bytes
                .filter(|linked| *linked > 0)
                .map_or_else(|| "-".to_owned(), bytes),
        ];
        if is_mirrored {
            let word = match self.in_mirror {
                Some(true) => "yes",
                _ => "no",
            };
            columns.push(word.to_owned());
        }
        columns.push(match (self.status, &self.damage) {
            (_, Some(damage)) => format!("damaged: {damage}"),
            ("another_training", _) => "of another training".to_owned(),
            _ => "manifest whole".to_owned(),
        });
        columns
    }
}

impl Listing {
    fn new(directory: &Directory, mirror: Option<&Place>, generations: Vec<Row>) -> Result<Self> {
        let observer = &directory.observer;
        let identity = directory.identity.as_ref();
        let (state, by) = match observer.in_use()? {
            Use::Unused => ("unused", None),
            Use::InUse(by) => ("in_use", Some(by)),
            Use::Unknown(last) => ("unknown", last),
            _ => ("unknown", None),
        };
        let quarantine = observer
            .quarantined()?
            .into_iter()
            .map(|quarantined| Quarantined {
                name: quarantined.name,
                generation: quarantined.generation.map(|id| id.number()),
                path: quarantined.path.display().to_string(),
                reason: quarantined.reason,
            });
        let leftovers = observer.leftovers()?;
        Ok(Self {
            place: observer.path().display().to_string(),
            kind: "directory",
            run_id: identity.map(|identity| identity.run_id.clone()),
            run_seed: identity.map(|identity| identity.run_seed),
            format: identity.map(|identity| identity.format),
            in_use: InUse { state, by },
            mirror: mirror.map(ToString::to_string),
            generations,
            quarantine: quarantine.collect(),
            aside: set_aside(observer)?,
            leftovers: leftovers
                .iter()
                .map(|path| path.display().to_string())
                .collect(),
        })
    }

    fn exit(&self) -> Exit {
        match () {
            () if self.generations.iter().any(|row| row.status == "damaged") => Exit::Damage,
            () if self.generations.is_empty() && self.quarantine.is_empty() => Exit::NoBackup,
            () => Exit::Good,
        }
    }
}

impl Report for Listing {
    fn show(&self, page: &mut Page) {
        page.field("backup", &self.place);
        match &self.run_id {
            Some(run_id) => page.field("training", run_id),
            None => page.field(
                "training",
                TextStyle::Warning
                    .paint("burn-backup.json is missing or damaged; the next start recreates it"),
            ),
        }
        page.field("in use", in_use(&self.in_use));
        page.field_if("mirror", self.mirror.as_ref());
        page.gap();
        match self.generations.is_empty() {
            true => page.line("There is no generation."),
            false => {
                let mut titles = vec![">number", "position", "phase", ">made", ">size", ">linked"];
                if self.mirror.is_some() {
                    titles.push("in the mirror");
                }
                titles.push("state");
                let rows = self
                    .generations
                    .iter()
                    .map(|row| row.columns(self.mirror.is_some()));
                page.table(&titles, rows.collect());
            }
        }
        if !self.quarantine.is_empty() {
            page.heading("In quarantine");
            let row = |quarantined: &Quarantined| {
                let reason = quarantined
                    .reason
                    .as_deref()
                    .unwrap_or("the reason is not known");
                vec![quarantined.name.clone(), reason.replace('\n', " ")]
            };
            page.table(
                &["name", "reason"],
                self.quarantine.iter().map(row).collect(),
            );
        }
        if !self.aside.is_empty() {
            page.heading("Set aside, because the training went back to an older generation");
            let row = |aside: &SetAside| {
                let position = aside.position.as_ref();
                let position = position.map_or("not known".to_owned(), ToString::to_string);
                vec![aside.number.to_string(), position]
            };
            page.table(
                &[">number", "position"],
                self.aside.iter().map(row).collect(),
            );
        }
        if !self.leftovers.is_empty() {
            let what = match self.in_use.state {
                "in_use" => "part of a save or removal in progress, or kept for reuse",
                _ => "left by an interrupted save or removal; the next start removes it",
            };
            let entries = match self.leftovers.len() {
                1 => "1 staging entry".to_owned(),
                several => format!("{several} staging entries"),
            };
            page.gap();
            page.line(format!("{entries}: {what}."));
        }
    }
}

fn set_aside(observer: &Observer) -> Result<Vec<SetAside>> {
    let aside = observer.set_aside()?.into_iter().map(|aside| {
        let position = match observer.open_aside(&aside)? {
            Observation::Manifest(generation) => Training::of(generation.manifest()).position,
            _ => None,
        };
        Ok(SetAside {
            number: aside.generation.number(),
            path: aside.path.display().to_string(),
            position,
        })
    });
    aside.collect()
}

fn in_use(in_use: &InUse) -> String {
    match (in_use.state, &in_use.by) {
        ("unused", _) => "no".to_owned(),
        ("in_use", Some(by)) => TextStyle::Good.paint(format!("by {by}")),
        (_, Some(last)) => format!("not known; last by {last}"),
        _ => "not known".to_owned(),
    }
}

/// The bytes of the generation's files that have other hard links; `None` if that is unknown.
#[cfg(unix)]
fn linked_bytes(generation: &OpenGeneration) -> Option<u64> {
    use std::os::unix::fs::MetadataExt as _;

    let linked = generation.manifest().parts.iter().map(|part| {
        let file = std::fs::symlink_metadata(generation.path().join(&part.file)).ok()?;
        Some(if file.nlink() > 1 { part.bytes } else { 0 })
    });
    linked.sum()
}

#[cfg(not(unix))]
fn linked_bytes(_: &OpenGeneration) -> Option<u64> {
    None
}
