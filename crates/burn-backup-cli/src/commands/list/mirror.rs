use std::time::SystemTime;

use anyhow::Result;
use burn_backup_remote::{Connection, Mirror, MirrorError, MirroredTraining};
use burn_backup_store::GenerationId;
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Exit, refuse};
use crate::output::{Output, Page, Report, ago, bytes};
use crate::training::{Position, Training};

/// The contents of a mirror.
#[derive(Debug, Serialize)]
struct Listing {
    place: String,
    kind: &'static str,
    trainings: Vec<Listed>,
}

/// A training in the mirror.
#[derive(Debug, Serialize)]
struct Listed {
    run_id: String,
    /// The last generation of a training that has run to its end.
    finished: Option<u64>,
    /// The process that has not released the mirror.
    lease: Option<Lease>,
    generations: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Lease {
    holder: String,
    ttl_seconds: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    number: u64,
    /// `manifest_whole` or `damaged`.
    status: &'static str,
    damage: Option<String>,
    created: Option<Timestamp>,
    bytes: Option<u64>,
    position: Option<Position>,
    phase: Option<String>,
}

pub fn list(url: &str, output: &Output) -> Result<Exit> {
    let mirror = Mirror::new(url);
    let connection = mirror.connect()?;
    let found = connection.observe()?;
    if found.is_empty() {
        return Err(refuse(
            Exit::NoBackup,
            format!("there is no backup in {mirror}: the mirror has no training. Check the URL"),
        ));
    }
    let mut trainings = Vec::new();
    for training in &found {
        trainings.push(Listed::of(training, &connection)?);
    }
    let listing = Listing {
        place: mirror.to_string(),
        kind: "mirror",
        trainings,
    };
    let exit = listing.exit();
    output.print(&listing)?;
    Ok(exit)
}

impl Listed {
    fn of(training: &MirroredTraining, connection: &Connection) -> Result<Self> {
        let rows = training
            .generations()
            .map(|id| Row::of(connection, training, id));
        Ok(Self {
            run_id: training.run_id().to_owned(),
            finished: training.finished().map(GenerationId::number),
            lease: training.holder().map(|(holder, ttl)| Lease {
                holder: holder.to_owned(),
                ttl_seconds: ttl.as_secs_f64(),
            }),
            generations: rows.filter_map(Result::transpose).collect::<Result<_>>()?,
        })
    }
}

impl Row {
    /// `None` if the generation was pruned after it was listed.
    fn of(
        connection: &Connection,
        training: &MirroredTraining,
        id: GenerationId,
    ) -> Result<Option<Self>> {
        let number = id.number();
        Ok(match connection.manifest(training, id) {
            Ok(manifest) => {
                let Training {
                    position, phase, ..
                } = Training::of(&manifest);
                Some(Self {
                    number,
                    status: "manifest_whole",
                    damage: None,
                    created: Timestamp::try_from(manifest.created).ok(),
                    bytes: Some(manifest.bytes()),
                    position,
                    phase,
                })
            }
            Err(MirrorError::Pruned { .. }) => None,
            Err(error) if error.is_damage() => Some(Self {
                number,
                status: "damaged",
                damage: Some(error.to_string()),
                created: None,
                bytes: None,
                position: None,
                phase: None,
            }),
            Err(error) => return Err(error.into()),
        })
    }

    fn columns(&self) -> Vec<String> {
        let nothing = || "-".to_owned();
        vec![
            self.number.to_string(),
            self.position
                .map_or_else(nothing, |position| position.to_string()),
            self.phase.clone().unwrap_or_else(nothing),
            self.created.map(SystemTime::from).map_or_else(nothing, ago),
            self.bytes.map_or_else(nothing, bytes),
            match &self.damage {
                Some(damage) => format!("damaged: {damage}"),
                None => "manifest whole".to_owned(),
            },
        ]
    }
}

impl Listing {
    fn exit(&self) -> Exit {
        let mut rows = self
            .trainings
            .iter()
            .flat_map(|training| &training.generations);
        match (rows.clone().any(|row| row.damage.is_some()), rows.next()) {
            (true, _) => Exit::Damage,
            (false, Some(_)) => Exit::Good,
            (false, None) => Exit::NoBackup,
        }
    }
}

impl Report for Listing {
    fn show(&self, page: &mut Page) {
        page.field("mirror", &self.place);
        for training in &self.trainings {
            page.gap();
            page.field("training", &training.run_id);
            let lease = training.lease.as_ref();
            page.field_if(
                "lease",
                lease.map(|lease| {
                    let Lease { holder, ttl_seconds } = lease;
                    format!("last renewed by {holder}; without a renewal within {ttl_seconds} s, that process is gone")
                }),
            );
            if let Some(last) = training.finished {
                page.field(
                    "finished",
                    format!("yes, with generation {last}; its generations are no longer read"),
                );
                continue;
            }
            if training.generations.is_empty() {
                page.line("There is no generation.");
                continue;
            }
            page.gap();
            let titles = [">number", "position", "phase", ">made", ">size", "state"];
            page.table(
                &titles,
                training.generations.iter().map(Row::columns).collect(),
            );
        }
    }
}
