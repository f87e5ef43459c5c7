//! The exit codes. They are part of the program's interface.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Error;
use burn_backup_remote::MirrorError;
use burn_backup_store::StoreError;

/// For `--help`.
pub const HELP: &str = "\
Exit codes:
  0  success
  1  failure
  2  wrong usage
  3  damage was found
  4  there is no backup
  5  a training uses the place, and the command needs exclusive access
  6  the backup has a newer format than this program supports";

/// The exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    Good = 0,
    Failed = 1,
    Usage = 2,
    Damage = 3,
    NoBackup = 4,
    InUse = 5,
    NewerFormat = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of this program. The message says what failed, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
struct Refusal {
    exit: Exit,
    message: String,
}

/// An error with this exit code.
pub fn refuse(exit: Exit, message: impl Into<String>) -> Error {
    let message = message.into();
    Refusal { exit, message }.into()
}

/// The exit code for this error.
pub fn of(error: &Error) -> Exit {
    error.chain().find_map(of_one).unwrap_or(Exit::Failed)
}

fn of_one(error: &(dyn std::error::Error + 'static)) -> Option<Exit> {
    if let Some(refusal) = error.downcast_ref::<Refusal>() {
        return Some(refusal.exit);
    }
    if let Some(error) = error.downcast_ref::<StoreError>() {
        return Some(of_store(error));
    }
    if let Some(error) = error.downcast_ref::<Arc<MirrorError>>() {
        return Some(of_mirror(error));
    }
    error.downcast_ref::<MirrorError>().map(of_mirror)
}

fn of_store(error: &StoreError) -> Exit {
    match error {
        StoreError::EmptyPath => Exit::Usage,
        StoreError::NotADirectory { .. } | StoreError::Foreign { .. } => Exit::NoBackup,
        StoreError::InUse { .. } | StoreError::TakenOver { .. } => Exit::InUse,
        StoreError::NewerFormat { .. } => Exit::NewerFormat,
        StoreError::NoneLeft { .. }
        | StoreError::Damaged { .. }
        | StoreError::GenerationDamaged { .. } => Exit::Damage,
        _ => Exit::Failed,
    }
}

fn of_mirror(error: &MirrorError) -> Exit {
    match error {
        MirrorError::Url { .. } => Exit::Usage,
        MirrorError::NoDirectory { .. } => Exit::NoBackup,
        MirrorError::InUse { .. } | MirrorError::LeaseLost { .. } => Exit::InUse,
        MirrorError::NewerFormat { .. } => Exit::NewerFormat,
        MirrorError::NoneIntact { .. }
        | MirrorError::Damaged { .. }
        | MirrorError::LocalDamage { .. } => Exit::Damage,
        MirrorError::Store(error) => of_store(error),
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn an_error_keeps_its_code_under_any_context() {
        let refused = refuse(Exit::InUse, "it is in use");
        assert_eq!(of(&refused), Exit::InUse);
        let nested: anyhow::Result<()> = Err(StoreError::EmptyPath).context("in a place");
        assert_eq!(of(&nested.unwrap_err()), Exit::Usage);
        let shared = Arc::new(MirrorError::Store(StoreError::EmptyPath));
        assert_eq!(of(&Error::new(shared)), Exit::Usage);
        assert_eq!(of(&anyhow::anyhow!("something")), Exit::Failed);
    }
}
