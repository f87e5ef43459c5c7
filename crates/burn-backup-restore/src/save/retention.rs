//! Decides which of all existing backups are kept, from the policy and the facts about each backup.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use burn_backup_store::{GenerationId, Manifest};
use serde::Deserialize;

use crate::divergence::RollBack;
use crate::handle::BackupHandle;
use crate::keep::{Candidate, Keep};
use crate::messages::warn;
use crate::metrics::History;
use crate::mirror::MirrorRetention;
use crate::position::Position;
use crate::state::{Fork, Phase, TrainingState};

/// Decides which backups are kept. Both the pruning thread and the mirror's thread use it.
pub(crate) struct Retention {
    keep: Keep,
    handle: BackupHandle,
    inputs: Mutex<RetentionInputs>,
}

#[derive(Default)]
struct RetentionInputs {
    known: BTreeMap<GenerationId, Candidate>,
    /// The backups that the training abandoned when it went back.
    abandoned: Vec<Fork>,
    /// The backups that stayed at the last prune.
    stayed: BTreeSet<GenerationId>,
    /// The metrics for which a missing value was reported.
    missed: BTreeSet<String>,
}

/// The fields of a state document that decide whether its backup is kept.
#[derive(Deserialize)]
struct StateExcerpt {
    position: Position,
    phase: Phase,
    first_epoch: usize,
    #[serde(default)]
    history: History,
    #[serde(default)]
    rollbacks: Vec<RollBack>,
}

/// The facts about a backup from its manifest; `None` if this crate did not write it.
pub(crate) fn candidate(manifest: &Manifest) -> Option<Candidate> {
    let outline: StateExcerpt = manifest.state().ok()?;
    let StateExcerpt {
        position,
        phase,
        first_epoch,
        history,
        rollbacks,
    } = outline;
    let candidate = of(position, phase, first_epoch, &history, manifest.created);
    Some(Candidate {
        rollbacks: origins(&rollbacks),
        ..candidate
    })
}

fn of(
    position: Position,
    phase: Phase,
    first_epoch: usize,
    history: &History,
    created: SystemTime,
) -> Candidate {
    let is_end = position.step_in_epoch == 0 && phase == Phase::Train;
    let closes = position.epoch.checked_sub(1);
    let closes = closes.filter(|epoch| is_end && *epoch >= first_epoch);
    Candidate {
        step: position.global_step,
        rollbacks: Vec::new(),
        created,
        closes,
        values: closes
            .map(|epoch| history.of_validation(epoch))
            .unwrap_or_default(),
    }
}

fn origins(rollbacks: &[RollBack]) -> Vec<u64> {
    rollbacks.iter().map(|rollback| rollback.from).collect()
}

impl Retention {
    pub(crate) fn new(keep: Keep, abandoned: &[Fork], handle: BackupHandle) -> Self {
        Self {
            keep,
            handle,
            inputs: Mutex::new(RetentionInputs {
                abandoned: abandoned.to_vec(),
                ..RetentionInputs::default()
            }),
        }
    }

    /// Whether it needs the manifests of existing backups.
    pub(crate) fn needs_manifests(&self) -> bool {
        self.keep.needs_candidates()
    }

    /// Learns about an existing backup, on this disk or in the mirror.
    pub(crate) fn learn(&self, manifest: &Manifest) {
        if self.keep.needs_candidates()
            && let Some(candidate) = candidate(manifest)
        {
            self.inputs().known.insert(manifest.generation, candidate);
        }
    }

    /// Learns about a backup that was committed with this state.
    pub(crate) fn committed(&self, id: GenerationId, created: SystemTime, state: &TrainingState) {
        if !self.keep.needs_candidates() {
            return;
        }
        let candidate = of(
            state.position,
            state.phase,
            state.first_epoch,
            &state.history,
            created,
        );
        let candidate = Candidate {
            rollbacks: origins(&state.rollbacks),
            ..candidate
        };
        self.warn_of_missing(&candidate);
        self.inputs().known.insert(id, candidate);
    }

    /// Which of the backups on this disk stay. They are given newest first.
    pub(crate) fn kept(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        let mut inputs = self.inputs();
        let kept = self.keep.decide(newest_first, &inputs.known);
        inputs.stayed = kept.clone();
        if self.handle.mirror().is_none() {
            forget(&mut inputs, newest_first);
        }
        kept
    }

    /// The same for the backups in the mirror. The policy is applied to those that exist there. Backups that the
    /// training abandoned stay.
    fn kept_in_mirror(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        let mut inputs = self.inputs();
        let forks = &inputs.abandoned;
        let is_left_behind = |id: &GenerationId| forks.iter().any(|fork| fork.has_left(*id));
        let (left, line): (Vec<_>, Vec<_>) = newest_first.iter().copied().partition(is_left_behind);
        let mut kept = self.keep.decide(&line, &inputs.known);
        forget(&mut inputs, newest_first);
        kept.extend(left);
        kept
    }

    /// Warns once for each metric that the policy uses but the validation has no value for.
    fn warn_of_missing(&self, candidate: &Candidate) {
        let Some(epoch) = candidate.closes else {
            return;
        };
        for metric in self.keep.metrics() {
            let is_missing = !candidate.values.contains_key(metric);
            if is_missing && self.inputs().missed.insert(metric.to_owned()) {
                warn(&self.handle, &missing(metric, epoch, candidate));
            }
        }
    }

    /// The data is plain, so a panic elsewhere leaves nothing half done in it.
    fn inputs(&self) -> MutexGuard<'_, RetentionInputs> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets backups that are neither on this disk nor in the mirror. A backup is forgotten if it is older than the
/// newest of `there`, is not in `there`, and did not stay at the last prune.
fn forget(inputs: &mut RetentionInputs, there: &[GenerationId]) {
    let newest = there.first().copied().unwrap_or_default();
    let RetentionInputs { known, stayed, .. } = inputs;
    known.retain(|id, _| *id > newest || stayed.contains(id) || there.contains(id));
}

fn missing(metric: &str, epoch: usize, candidate: &Candidate) -> String {
    let known: Vec<_> = candidate.values.keys().map(String::as_str).collect();
    let known = match known.as_slice() {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    format!(
        "Keep::best(\"{metric}\", ..) keeps no backup of epoch {epoch}, because its validation has no value of this \
         metric (it has: {known}): name a metric of the validation, or call Session::log between Session::trained and \
         Session::epoch_done. If this is said only after a restart, set BackupAndRestore::metric_logs",
    )
}

impl MirrorRetention for Retention {
    fn learn(&self, manifest: &Manifest) {
        Self::learn(self, manifest);
    }

    fn kept(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        self.kept_in_mirror(newest_first)
    }
}
