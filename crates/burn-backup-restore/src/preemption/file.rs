//! A file whose existence is a notice.

use std::error::Error;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use super::PreemptionWatcher;
use crate::notice::Notice;

/// How much of the file is read, in bytes.
const READ_LIMIT: u64 = 4096;

/// How much of the first line becomes part of the notice, in characters.
const REASON_LIMIT: usize = 200;

/// Watches for a file. When it exists, the machine is about to be stopped.
///
/// Use it for sources without their own watcher: a hook of the scheduler, the `preStop` of a container, or a person
/// who types `touch`. The file counts even if it exists when the training starts, so remove it before the next start.
///
/// If the first line is text, it becomes part of the notice's reason. To use this, write the file under another name
/// and rename it, so that it is never seen without its text.
///
/// # Example
///
/// ```
/// use burn_backup_restore::{FileWatcher, PreemptionWatcher};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let mut watcher = FileWatcher::new("no-such-directory/evicted");
/// assert_eq!(watcher.poll()?, None);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FileWatcher {
    path: PathBuf,
}

/// Whether the file exists is unknown.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot check whether the file '{}' exists: check that this user may access its directory",
    path.display()
)]
struct Undetermined {
    path: PathBuf,
    source: io::Error,
}

impl FileWatcher {
    /// Watches for the file at `path`. A relative path is resolved here, once.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self {
            path: std::path::absolute(&path).unwrap_or(path),
        }
    }
}

impl PreemptionWatcher for FileWatcher {
    fn name(&self) -> String {
        format!("the file '{}'", self.path.display())
    }

    fn poll(&mut self) -> Result<Option<Notice>, Box<dyn Error + Send + Sync>> {
        match fs::metadata(&self.path) {
            // Opening anything else could block forever, for example a named pipe.
            Ok(metadata) if metadata.is_file() => {
                Ok(Some(notice(&self.path, first_line(&self.path))))
            }
            Ok(_) => Ok(Some(notice(&self.path, None))),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Box::new(Undetermined {
                path: self.path.clone(),
                source,
            })),
        }
    }
}

fn notice(path: &Path, text: Option<String>) -> Notice {
    let text = text.map_or_else(String::new, |text| format!(": {text}"));
    Notice::new(format!("the file '{}' exists{text}", path.display()))
}

/// The beginning of the first line, if there is one and it is text.
fn first_line(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(READ_LIMIT).read_to_end(&mut bytes))
        .ok()?;
    let line = bytes.split(|byte| *byte == b'\n').next()?;
    let text: String = str::from_utf8(line)
        .ok()?
        .trim()
        .chars()
        .take(REASON_LIMIT)
        .collect();
    // The line ends up in logs and on terminals.
    let is_text = !text.is_empty() && !text.chars().any(char::is_control);
    is_text.then_some(text)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::preemption::watcher::testing::{FromFn, first_notice, notices};

    /// The reason, after the part that names the file.
    fn reason_of(content: &[u8]) -> String {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("evicted");
        fs::write(&path, content).unwrap();
        let notice = FileWatcher::new(&path).poll().unwrap().unwrap();
        assert_eq!(notice.deadline(), None);
        let named = format!("the file '{}' exists", path.display());
        notice.reason().strip_prefix(&named).unwrap().to_owned()
    }

    #[test]
    fn a_file_is_a_notice_once_it_exists() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("evicted");
        let mut watcher = FileWatcher::new(&path);
        assert_eq!(watcher.poll().unwrap(), None);
        fs::write(&path, "").unwrap();
        let named = format!("the file '{}' exists", path.display());
        assert_eq!(watcher.poll().unwrap(), Some(Notice::new(named)));
    }

    #[test]
    fn the_first_line_is_part_of_the_reason() {
        assert_eq!(reason_of(b""), "");
        assert_eq!(reason_of(b"  \n"), "");
        assert_eq!(reason_of(b"drained by ops"), ": drained by ops");
        assert_eq!(reason_of(b"drained\r\nby ops\n"), ": drained");
        assert_eq!(
            reason_of("entleert für morgen\n\u{1b}".as_bytes()),
            ": entleert für morgen"
        );
    }

    #[test]
    fn a_long_line_is_cut_between_characters() {
        let line = "ü".repeat(1000);
        assert_eq!(reason_of(line.as_bytes()), format!(": {}", "ü".repeat(200)));
    }

    #[test]
    fn non_text_is_left_out() {
        assert_eq!(reason_of(b"\xff\xfe\n"), "");
        assert_eq!(reason_of(b"\x1b[2Jcleared\n"), "");
        assert_eq!(reason_of(&vec![0; 1 << 20]), "");
    }

    #[test]
    fn a_directory_is_a_notice_too() {
        let dir = TempDir::new().unwrap();
        assert!(FileWatcher::new(dir.path()).poll().unwrap().is_some());
    }

    #[test]
    fn an_inaccessible_path_is_an_error() {
        let error = FileWatcher::new("evict\0ed").poll().unwrap_err();
        assert!(
            error.to_string().contains("cannot check whether"),
            "{error}"
        );
        assert!(error.source().is_some());
    }

    #[test]
    fn a_watched_file_is_noticed_when_it_is_made() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("evicted");
        let (polled, polls) = std::sync::mpsc::channel();
        let mut watcher = FileWatcher::new(&path);
        let (_watchers, notices) = notices(FromFn(std::time::Duration::ZERO, move || {
            let seen = watcher.poll();
            let _ = polled.send(seen.as_ref().is_ok_and(Option::is_none));
            seen
        }));
        assert_eq!(polls.recv(), Ok(true), "the file is missing");
        fs::write(&path, "").unwrap();
        assert!(notices.recv().unwrap().reason().contains("evicted"));
    }

    #[test]
    fn an_existing_file_is_noticed_at_once() {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("evicted");
        fs::write(&path, "again").unwrap();
        assert!(
            first_notice(FileWatcher::new(&path))
                .reason()
                .ends_with(": again")
        );
    }
}
