//! Which backups stay, going by all that are there: the policy, with what is known of each.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use burn_backup_store::{GenerationId, Manifest};
use serde::Deserialize;

use crate::divergence::RollBack;
use crate::handle::BackupHandle;
use crate::keep::{Candidate, Keep};
use crate::metrics::History;
use crate::mirror::MirrorRetention;
use crate::position::Position;
use crate::say::warn;
use crate::state::{Fork, Phase, TrainingState};

/// Decides which backups stay. The thread that prunes asks it, and that of the mirror.
pub(crate) struct Retention {
    keep: Keep,
    handle: BackupHandle,
    facts: Mutex<Facts>,
}

#[derive(Default)]
struct Facts {
    known: BTreeMap<GenerationId, Candidate>,
    /// What the training has left behind when it went back.
    left_behind: Vec<Fork>,
    /// Those that stayed at the last prune.
    stayed: BTreeSet<GenerationId>,
    /// Metrics of which was said that they have no value.
    missed: BTreeSet<String>,
}

/// What of a state document tells whether its backup stays.
#[derive(Deserialize)]
struct Outline {
    position: Position,
    phase: Phase,
    first_epoch: usize,
    #[serde(default)]
    history: History,
    #[serde(default)]
    rollbacks: Vec<RollBack>,
}

/// What is known of a backup by its manifest; nothing if that is not one of this crate.
pub(crate) fn candidate(manifest: &Manifest) -> Option<Candidate> {
    let outline: Outline = manifest.state().ok()?;
    let Outline {
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
    pub(crate) fn new(keep: Keep, left_behind: &[Fork], handle: BackupHandle) -> Self {
        Self {
            keep,
            handle,
            facts: Mutex::new(Facts {
                left_behind: left_behind.to_vec(),
                ..Facts::default()
            }),
        }
    }

    /// Whether it has to know of the backups that are there already.
    pub(crate) fn needs_manifests(&self) -> bool {
        self.keep.needs_candidates()
    }

    /// A backup is there, on this disk or in the mirror.
    pub(crate) fn learn(&self, manifest: &Manifest) {
        if self.keep.needs_candidates()
            && let Some(candidate) = candidate(manifest)
        {
            self.facts().known.insert(manifest.generation, candidate);
        }
    }

    /// One is committed, with this state.
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
        self.facts().known.insert(id, candidate);
    }

    /// Which of the backups on this disk stay, which are given newest first.
    pub(crate) fn stay(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        let mut facts = self.facts();
        let stay = self.keep.decide(newest_first, &facts.known);
        facts.stayed = stay.clone();
        if self.handle.mirror().is_none() {
            forget(&mut facts, newest_first);
        }
        stay
    }

    /// The same of those in the mirror: the policy is applied to what is there. What the training has left behind stays.
    fn stay_mirrored(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        let mut facts = self.facts();
        let forks = &facts.left_behind;
        let is_left_behind = |id: &GenerationId| forks.iter().any(|fork| fork.has_left(*id));
        let (left, line): (Vec<_>, Vec<_>) = newest_first.iter().copied().partition(is_left_behind);
        let mut stay = self.keep.decide(&line, &facts.known);
        forget(&mut facts, newest_first);
        stay.extend(left);
        stay
    }

    /// Says once of each metric that the policy goes by it and the validation has no value of it.
    fn warn_of_missing(&self, candidate: &Candidate) {
        let Some(epoch) = candidate.closes else {
            return;
        };
        for metric in self.keep.metrics() {
            let is_missing = !candidate.values.contains_key(metric);
            if is_missing && self.facts().missed.insert(metric.to_owned()) {
                warn(&self.handle, &missing(metric, epoch, candidate));
            }
        }
    }

    /// Plain data: a panic elsewhere leaves nothing half done in it.
    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Forgets what is neither here nor in the mirror: of those older than the newest of `there`, what is not among them and
/// did not stay.
fn forget(facts: &mut Facts, there: &[GenerationId]) {
    let newest = there.first().copied().unwrap_or_default();
    let Facts { known, stayed, .. } = facts;
    known.retain(|id, _| *id > newest || stayed.contains(id) || there.contains(id));
}

fn missing(metric: &str, epoch: usize, candidate: &Candidate) -> String {
    let known: Vec<_> = candidate.values.keys().map(String::as_str).collect();
    let known = match known.as_slice() {
        [] => "and is not known to give any".to_owned(),
        known => format!("but of {}", known.join(", ")),
    };
    format!(
        "Keep::best(\"{metric}\", ..) keeps no backup of epoch {epoch}: its validation gave no value of that metric, \
         {known}; give the name of a metric of the validation, or Session::log it between Session::trained and \
         Session::epoch_done; of Burn's metric loggers, one in memory does not know an epoch after a restart, where \
         BackupAndRestore::metric_logs does",
    )
}

impl MirrorRetention for Retention {
    fn learn(&self, manifest: &Manifest) {
        Self::learn(self, manifest);
    }

    fn stay(&self, newest_first: &[GenerationId]) -> BTreeSet<GenerationId> {
        self.stay_mirrored(newest_first)
    }
}
