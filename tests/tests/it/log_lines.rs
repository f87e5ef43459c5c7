//! The lines that this crate logs in the process of a test.

use std::sync::Mutex;

use log::{Level, LevelFilter, Metadata, Record};

static LINES: Mutex<Vec<(Level, String)>> = Mutex::new(Vec::new());

/// The text at which the logger panics, and how often.
static PANICS: Mutex<Option<(&'static str, usize)>> = Mutex::new(None);

struct Listener;

impl log::Log for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("burn_backup::")
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let text = record.args().to_string();
        LINES.lock().unwrap().push((record.level(), text.clone()));
        assert!(!panics_at(&text), "the test has the logger panic");
    }

    fn flush(&self) {}
}

fn panics_at(text: &str) -> bool {
    match &mut *PANICS.lock().unwrap() {
        Some((with, left)) if *left > 0 && text.contains(*with) => {
            *left -= 1;
            true
        }
        _ => false,
    }
}

/// Installs the logger. Call this once per process, so the test must run in its own process.
pub fn listen() {
    log::set_logger(&Listener).unwrap();
    log::set_max_level(LevelFilter::Info);
}

/// Makes the logger panic the next `times` times that it logs a line with this text.
pub fn panic_at(text: &'static str, times: usize) {
    *PANICS.lock().unwrap() = Some((text, times));
}

/// The lines logged at this level so far.
pub fn logged(level: Level) -> Vec<String> {
    let lines = LINES.lock().unwrap();
    let of_level = lines.iter().filter(|(of, _)| *of == level);
    of_level.map(|(_, text)| text.clone()).collect()
}
