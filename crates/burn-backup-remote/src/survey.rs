//! Surveys a mirror: its trainings and their readable generations.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use burn_backup_store::GenerationId;
use object_store::path::Path;

use crate::error::MirrorError;
use crate::finish::FinishedDocument;
use crate::keys::{Keys, Kind, Ordinal, parse};
use crate::lease::{LeaseDocument, LeaseSettings, wait};
use crate::place::Place;

/// How many trainings an error message names.
const NAMED: usize = 3;

/// What a mirror holds of the requested training.
#[derive(Debug, Clone, Default)]
pub(crate) struct Survey {
    /// The training; `None` if the mirror has none.
    pub run_id: Option<String>,
    /// The readable generations, newest first.
    pub generations: Vec<Ordinal>,
    /// The greatest number in the mirror.
    pub greatest: GenerationId,
    /// The document that marks the training as finished, if it is.
    pub finished: Option<FinishedDocument>,
    /// The process that may still write to the mirror, and how long to wait for it.
    pub holder: Option<(String, Duration)>,
    /// The remains of trainings that are finished, or never began.
    pub leftovers: Vec<Path>,
}

/// The training to find.
#[derive(Debug, Clone)]
pub(crate) struct SurveyQuery {
    /// The training of the backup directory.
    pub run_id: String,
    /// Whether the directory has, or had, a backup of it.
    pub has_backup: bool,
}

/// A training that the mirror has objects of.
#[derive(Default)]
pub(crate) struct Run {
    pub is_finished: bool,
    /// The readable generations, newest first.
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

/// Surveys the mirror.
///
/// # Errors
///
/// [`MirrorError::AnotherTraining`], [`MirrorError::SeveralTrainings`], [`MirrorError::InUse`] if another process
/// has just begun a training in it, and errors of requests.
pub(crate) async fn survey(
    place: &Place,
    question: &SurveyQuery,
    terms: &LeaseSettings,
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
                    .extend(dead_starts(place, &runs, terms).await?);
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

/// Refuses a mirror in which another process has begun a training. Returns the remains of trainings that never made a
/// backup.
pub(crate) async fn refuse_others(
    place: &Place,
    run_id: &str,
    terms: &LeaseSettings,
) -> Result<Vec<Path>, MirrorError> {
    let mut runs = runs(place).await?;
    runs.retain(|other, run| other != run_id && !run.is_finished);
    if let Some((other, _)) = runs.iter().find(|(_, run)| run.has_backup()) {
        return Err(another(place, other, run_id));
    }
    dead_starts(place, &runs, terms).await
}

/// All trainings that the mirror has objects of.
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
        // A listing may not show the object yet.
        run.is_finished = run.is_finished || place.head(&keys.finished()).await?.is_some();
        if !run.is_finished {
            let lease = LeaseDocument::get(place, &keys).await?;
            run.lease = lease.map(|(lease, _)| lease);
            run.to_read = to_read(place, &keys, run).await?;
        }
    }
    Ok(runs)
}

/// The generations that the lease names and that exist, or all if there is no lease; newest first.
async fn to_read(place: &Place, keys: &Keys, run: &Run) -> Result<Vec<Ordinal>, MirrorError> {
    let mut there = match &run.lease {
        Some(lease) => present(place, keys, &lease.generations, &run.listed).await?,
        None => run.listed.iter().copied().collect(),
    };
    there.sort_unstable_by(|a, b| b.cmp(a));
    Ok(there)
}

/// The `named` generations whose documents exist. Documents that a listing has shown are not requested.
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

/// The remains of trainings without a backup. Waits for a process that may be about to make its first one.
async fn dead_starts(
    place: &Place,
    runs: &BTreeMap<String, Run>,
    terms: &LeaseSettings,
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
