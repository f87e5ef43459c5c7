//! What is in a mirror: whose, and which generations of it are to be read.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use burn_backup_store::GenerationId;
use object_store::path::Path;

use crate::error::MirrorError;
use crate::finish::FinishedDocument;
use crate::keys::{Keys, Kind, Ordinal, parse};
use crate::lease::{LeaseDocument, Terms, wait};
use crate::place::Place;

/// How many trainings a message names.
const NAMED: usize = 3;

/// What a mirror has of the training that it is looked into for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    /// The training; `None` if the mirror has none.
    pub run_id: Option<String>,
    /// The generations that are to be read, the newest first.
    pub generations: Vec<Ordinal>,
    /// The greatest number that anything in the mirror has.
    pub greatest: GenerationId,
    /// If this training has run to its end.
    pub finished: Option<FinishedDocument>,
    /// Who may still write to it, and for how long that is waited for.
    pub holder: Option<(String, Duration)>,
    /// What is left of trainings that are finished, or never began.
    pub leftovers: Vec<Path>,
}

/// What is asked about.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// The training of the backup directory.
    pub run_id: String,
    /// Whether there is, or was, a backup of it there.
    pub has_backup: bool,
}

/// A training that the mirror has something of.
#[derive(Default)]
pub(crate) struct Run {
    pub is_finished: bool,
    /// Those that are to be read, the newest first.
    pub to_read: Vec<Ordinal>,
    listed: BTreeSet<Ordinal>,
    pub lease: Option<LeaseDocument>,
    objects: Vec<Path>,
}

impl Run {
    fn has_backup(&self) -> bool {
        !self.to_read.is_empty()
    }

    pub(crate) fn greatest(&self) -> GenerationId {
        let named = self.lease.iter().flat_map(|lease| &lease.generations);
        let all = self.listed.iter().chain(named);
        all.map(|ordinal| ordinal.number).max().unwrap_or_default()
    }
}

/// Looks into the mirror.
///
/// # Errors
///
/// [`MirrorError::AnotherTraining`], [`MirrorError::SeveralTrainings`], [`MirrorError::InUse`] if another process
/// has just begun a training in it, and errors of requests.
pub(crate) async fn survey(
    place: &Place,
    question: &Question,
    terms: &Terms,
) -> Result<Survey, MirrorError> {
    place.check_directory().await?;
    let mut runs = runs(place).await?;
    let mut survey = Survey::default();
    for run in runs.values().filter(|run| run.is_finished) {
        survey.leftovers.extend(run.objects.iter().cloned());
    }
    let ours = runs.remove(&question.run_id);
    if ours.as_ref().is_some_and(|run| run.is_finished) {
        let keys = Keys::new(&place.prefix, &question.run_id);
        survey.finished = FinishedDocument::get(place, &keys).await?;
        survey.run_id = Some(question.run_id.clone());
        return Ok(survey);
    }
    runs.retain(|_, run| !run.is_finished);
    let others: Vec<&str> = runs
        .iter()
        .filter(|(_, run)| run.has_backup())
        .map(|(run_id, _)| run_id.as_str())
        .collect();
    let run_id = match (&ours, others.as_slice()) {
        (Some(_), []) => question.run_id.clone(),
        (None, []) => {
            if !question.has_backup {
                survey
                    .leftovers
                    .extend(dead_beginners(place, &runs, terms).await?);
            }
            return Ok(survey);
        }
        (None, [only]) if !question.has_backup => (*only).to_owned(),
        (None, several) if !question.has_backup => {
            return Err(MirrorError::SeveralTrainings {
                mirror: place.name.to_string(),
                count: several.len(),
                found: several
                    .iter()
                    .copied()
                    .take(NAMED)
                    .collect::<Vec<_>>()
                    .join(", "),
            });
        }
        (_, [other, ..]) => return Err(another(place, other, &question.run_id)),
    };
    let run = match ours {
        Some(run) => Some(run),
        None => runs.remove(&run_id),
    };
    if let Some(run) = run {
        survey.greatest = run.greatest();
        survey.generations = run.to_read;
        survey.holder = run
            .lease
            .filter(|lease| !lease.is_released && !terms.single_writer)
            .map(|lease| (lease.holder.clone(), lease.ttl()));
    }
    survey.run_id = Some(run_id);
    Ok(survey)
}

/// Refuses a mirror in which another process has begun a training, and gives what is left of those that have come to
/// nothing.
pub(crate) async fn refuse_others(
    place: &Place,
    run_id: &str,
    terms: &Terms,
) -> Result<Vec<Path>, MirrorError> {
    let mut runs = runs(place).await?;
    runs.retain(|other, run| other != run_id && !run.is_finished);
    if let Some((other, _)) = runs.iter().find(|(_, run)| run.has_backup()) {
        return Err(another(place, other, run_id));
    }
    dead_beginners(place, &runs, terms).await
}

/// All trainings that the mirror has something of.
pub(crate) async fn runs(place: &Place) -> Result<BTreeMap<String, Run>, MirrorError> {
    let mut runs: BTreeMap<String, Run> = BTreeMap::new();
    for object in place.list(&place.prefix).await? {
        let Some((run_id, kind)) = parse(&place.prefix, &object.location) else {
            continue;
        };
        let run = runs.entry(run_id).or_default();
        match kind {
            Kind::Finished => {
                run.is_finished = true;
                continue;
            }
            Kind::Generation(ordinal) => drop(run.listed.insert(ordinal)),
            Kind::Lease | Kind::Part(_) => {}
        }
        run.objects.push(object.location);
    }
    for (run_id, run) in &mut runs {
        let keys = Keys::new(&place.prefix, run_id);
        // A listing may not have it yet.
        run.is_finished = run.is_finished || place.head(&keys.finished()).await?.is_some();
        if !run.is_finished {
            let lease = LeaseDocument::get(place, &keys).await?;
            run.lease = lease.map(|(lease, _)| lease);
            run.to_read = to_read(place, &keys, run).await?;
        }
    }
    Ok(runs)
}

/// The generations that the lease names and that are there, or all if there is no lease; the newest first.
async fn to_read(place: &Place, keys: &Keys, run: &Run) -> Result<Vec<Ordinal>, MirrorError> {
    let mut there = match &run.lease {
        Some(lease) => present(place, keys, &lease.generations, &run.listed).await?,
        None => run.listed.iter().copied().collect(),
    };
    there.sort_unstable_by(|a, b| b.cmp(a));
    Ok(there)
}

/// Those of the `named` generations whose documents are there. Those that a listing has shown need not be asked for.
pub(crate) async fn present(
    place: &Place,
    keys: &Keys,
    named: &[Ordinal],
    listed: &BTreeSet<Ordinal>,
) -> Result<Vec<Ordinal>, MirrorError> {
    let mut there = Vec::with_capacity(named.len());
    for ordinal in named {
        let path = keys.generation(*ordinal);
        if listed.contains(ordinal) || place.head(&path).await?.is_some() {
            there.push(*ordinal);
        }
    }
    Ok(there)
}

/// What is left of trainings that have no backup. A process that may be about to make its first one is waited for.
async fn dead_beginners(
    place: &Place,
    runs: &BTreeMap<String, Run>,
    terms: &Terms,
) -> Result<Vec<Path>, MirrorError> {
    let mut left = Vec::new();
    for (run_id, run) in runs {
        wait(place, &Keys::new(&place.prefix, run_id), terms).await?;
        left.extend(run.objects.iter().cloned());
    }
    Ok(left)
}

fn another(place: &Place, found: &str, expected: &str) -> MirrorError {
    MirrorError::AnotherTraining {
        mirror: place.name.to_string(),
        found: found.to_owned(),
        expected: expected.to_owned(),
    }
}
