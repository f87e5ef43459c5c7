//! Writing a file on a thread of its own, so that what comes next is made and hashed meanwhile.

use std::io::{self, Write as _};
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::fs::WriteFile;
use crate::threads::{self, Thread};

/// How many pieces may wait to be written.
const WAITING: usize = 2;

/// A range of bytes that somebody holds.
pub(super) struct Piece {
    pub holder: Arc<dyn AsRef<[u8]> + Send + Sync>,
    pub range: Range<usize>,
}

impl Piece {
    pub(super) fn bytes(&self) -> &[u8] {
        let bytes = self.holder.as_ref().as_ref();
        bytes.get(self.range.clone()).unwrap_or_default()
    }
}

/// A file that a thread is writing. Dropped, it waits until the thread has stopped.
pub(super) struct Background {
    pieces: Option<SyncSender<Piece>>,
    thread: Option<Thread<io::Result<Box<dyn WriteFile>>>>,
}

impl Background {
    /// Without a thread, the file comes back.
    pub(super) fn start(file: Box<dyn WriteFile>) -> Result<Self, Box<dyn WriteFile>> {
        let (pieces, inbox) = sync_channel(WAITING);
        let thread = threads::spawn("backup-write", file, move |file| write(file, &inbox))?;
        Ok(Self {
            pieces: Some(pieces),
            thread: Some(thread),
        })
    }

    /// Has the bytes written, after those before. An error may be that of an earlier write.
    pub(super) fn write(&mut self, piece: Piece) -> io::Result<()> {
        let is_running = (self.pieces.as_ref()).is_some_and(|pieces| pieces.send(piece).is_ok());
        if is_running {
            return Ok(());
        }
        Err(match self.stop() {
            Err(error) => error,
            Ok(_) => gone(),
        })
    }

    /// Waits until everything is written, and gives the file back.
    pub(super) fn stop(&mut self) -> io::Result<Box<dyn WriteFile>> {
        self.pieces = None;
        match self.thread.take().map(Thread::join) {
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) | None => Err(gone()),
        }
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // The file is thrown away: its directory goes next, and nothing may be written into it then.
        let _ = self.stop();
    }
}

fn write(mut file: Box<dyn WriteFile>, inbox: &Receiver<Piece>) -> io::Result<Box<dyn WriteFile>> {
    while let Ok(piece) = inbox.recv() {
        file.write_all(piece.bytes())?;
    }
    Ok(file)
}

fn gone() -> io::Error {
    io::Error::other("the thread that writes the file is gone")
}
