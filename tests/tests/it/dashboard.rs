//! What a person sees on a terminal with Burn's dashboard.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};

/// The size of a terminal in which none of our lines wraps.
const ROWS: u16 = 50;
const COLUMNS: u16 = 240;

/// The test fails if the screen does not show the expected text within this time.
const PATIENCE: Duration = Duration::from_secs(300);

/// A number of epochs for a training that runs until somebody ends it.
const ENDLESS: &str = "1000000";

/// The program on its own terminal.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    keys: Box<dyn Write + Send>,
    output: Receiver<Vec<u8>>,
    parser: vt100::Parser,
    _master: Box<dyn MasterPty + Send>,
}

/// The screen after the program has ended.
struct FinalScreen {
    text: String,
    code: u32,
}

impl Terminal {
    /// Runs `dashboard` with the instructions `told`.
    fn start(backup_dir: &Path, epochs: &str, told: &[&str]) -> Self {
        let size = PtySize {
            rows: ROWS,
            cols: COLUMNS,
            ..PtySize::default()
        };
        let pty = native_pty_system().openpty(size).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_dashboard"));
        command.arg(backup_dir);
        command.arg(epochs);
        command.args(told);
        command.env("TERM", "xterm-256color");
        command.env("RUST_BACKTRACE", "0");
        let child = pty.slave.spawn_command(command).unwrap();
        let mut reader = pty.master.try_clone_reader().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(read @ 1..) = reader.read(&mut buffer) {
                if sender
                    .send(buffer.get(..read).unwrap_or_default().to_vec())
                    .is_err()
                {
                    return;
                }
            }
        });
        Self {
            child,
            keys: pty.master.take_writer().unwrap(),
            output,
            parser: vt100::Parser::new(ROWS, COLUMNS, 0),
            _master: pty.master,
        }
    }

    /// Waits until the dashboard shows `what`.
    #[track_caller]
    fn wait_for(&mut self, what: &str) {
        self.wait_to_see(what);
        assert!(self.parser.screen().alternate_screen(), "on the dashboard");
    }

    /// Waits until the terminal shows `what`, with or without the dashboard.
    #[track_caller]
    fn wait_to_see(&mut self, what: &str) {
        self.wait_until(what, |text| text.contains(what));
    }

    #[track_caller]
    fn wait_until(&mut self, what: &str, is_there: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        while !is_there(&self.text()) {
            let left = PATIENCE.saturating_sub(begun.elapsed());
            let Ok(bytes) = self.output.recv_timeout(left) else {
                let _ = self.child.kill();
                panic!("{what:?} is not what the screen shows:\n{}", self.text());
            };
            self.parser.process(&bytes);
        }
    }

    fn last_row(&self) -> String {
        let text = self.text();
        text.lines().last().unwrap_or_default().to_owned()
    }

    fn press(&mut self, key: char) {
        write!(self.keys, "{key}").unwrap();
        self.keys.flush().unwrap();
    }

    /// Waits until the program has ended, and reads the screen that it leaves.
    #[track_caller]
    fn end(mut self) -> FinalScreen {
        // The output ends once no process has the terminal open.
        while let Ok(bytes) = self.output.recv_timeout(PATIENCE) {
            self.parser.process(&bytes);
        }
        let code = self.child.wait().unwrap().exit_code();
        let text = self.text();
        let screen = self.parser.screen();
        assert!(!screen.alternate_screen(), "the dashboard is gone:\n{text}");
        assert!(!screen.hide_cursor(), "the cursor is back:\n{text}");
        FinalScreen { text, code }
    }

    fn text(&self) -> String {
        self.parser.screen().contents()
    }
}

impl FinalScreen {
    #[track_caller]
    fn shows(&self, what: &str) {
        let times = self.text.matches(what).count();
        assert_eq!(times, 1, "{what:?} on the screen:\n{}", self.text);
    }
}

#[test]
fn a_refusal_is_seen_on_the_screen_that_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("generations"), b"theirs").unwrap();

    let left = Terminal::start(&dir, "3", &[]).end();
    left.shows("was not made by this crate; it was not touched");
    left.shows("the program goes on");
}

#[test]
fn a_resumed_training_shows_where_it_resumes_and_one_that_is_stopped_by_key_where_it_is_saved() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let left = Terminal::start(&dir, ENDLESS, &["never@0", "stop@8"]).end();
    left.shows(
        "its user stops it; the training is saved at epoch 2, batch 2 (batch 8 of the training)",
    );
    left.shows("the program goes on");

    let mut terminal = Terminal::start(&dir, ENDLESS, &["never@0"]);
    terminal.wait_for("Train none yet; restored from epoch 2, batch 2, saved at ");
    terminal.press('q');
    terminal.wait_for("Stop the training.");
    terminal.press('s');
    let left = terminal.end();
    left.shows("Stopping training from user input; the training is saved at epoch ");
    left.shows("the program goes on");
}

#[test]
fn without_a_dashboard_the_terminal_shows_how_the_training_begins() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let left = Terminal::start(&dir, "3", &["silent@0", "stop@8"]).end();
    left.shows("backups in '");
    left.shows("a new training");
    let left = Terminal::start(&dir, "3", &["silent@0"]).end();
    left.shows("restored from backup ");
}

#[test]
fn the_time_of_the_last_backup_is_on_one_line_of_the_dashboard() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut terminal = Terminal::start(&dir, ENDLESS, &[]);
    terminal.wait_for(", batch 0, saved at ");
    let text = terminal.text();
    let shown: Vec<_> = text.match_indices("saved at ").collect();
    assert_eq!(shown.len(), 1, "{text}");
    let time: String = text[shown[0].0..]
        .chars()
        .skip("saved at ".len())
        .take(9)
        .collect();
    let form: String = time
        .chars()
        .map(|c| if c.is_ascii_digit() { '0' } else { c })
        .collect();
    assert_eq!(form, "00:00:00Z", "{text}");

    terminal.press('q');
    terminal.wait_for("Stop the training immediately.");
    terminal.press('k');
    let left = terminal.end();
    left.shows("Training killed by user.");
    left.shows("the last backup is from epoch ");
    assert_eq!(left.code, 101);
    assert!(!left.text.contains("the program goes on"), "{}", left.text);
}

#[test]
fn a_notice_is_seen_on_the_screen_that_stays() {
    let saved = "SIGTERM; the training is saved at epoch 2, batch 2 (batch 8 of the training)";
    for (told, code) in [
        (&["signals@0", "term@8"][..], 0),
        (&["signals@0", "term@8", "exit@42"][..], 42),
    ] {
        let scratch = tempfile::tempdir().unwrap();
        let left = Terminal::start(&scratch.path().join("backup"), ENDLESS, told).end();
        left.shows(saved);
        assert_eq!(left.code, code, "{}", left.text);
        assert_eq!(left.text.contains("the program goes on"), code == 0);
    }
}

#[test]
fn an_error_is_seen_on_the_screen_that_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let left = Terminal::start(&scratch.path().join("backup"), ENDLESS, &["fail@8"]).end();
    left.shows("the training ended with an error");
    left.shows("the last backup is from epoch 2, batch 0 (batch 6 of the training)");
    left.shows("the program goes on");
}

#[test]
fn a_panic_of_the_model_names_the_last_backup() {
    let scratch = tempfile::tempdir().unwrap();
    // Without a terminal, because Burn's dashboard may still draw over the text on one.
    let output = Command::new(env!("CARGO_BIN_EXE_dashboard"))
        .arg(scratch.path().join("backup"))
        .args([ENDLESS, "panic@14"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("the model panics"), "{said}");
    let last = "the training ended with a panic; the last backup is from epoch ";
    assert!(said.contains(last), "{said}");
    assert_eq!(output.status.code(), Some(101));
}

#[test]
fn a_finished_training_keeps_its_renderer_for_what_follows() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut terminal = Terminal::start(&dir, "3", &["hold@0"]);
    terminal.wait_for("Evaluated");
    terminal.child.kill().unwrap();
    terminal.child.wait().unwrap();
}

#[test]
fn what_a_finished_training_prints_is_seen_once_its_renderer_is_dropped() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let left = Terminal::start(&dir, "3", &["drop@0"]).end();
    left.shows("the program goes on");
    assert!(!left.text.contains("saved"), "{}", left.text);
}

#[test]
fn a_backup_beyond_the_last_epoch_is_seen_on_the_screen_that_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    Terminal::start(&dir, "3", &["stop@14"]).end();
    let left = Terminal::start(&dir, "1", &[]).end();
    left.shows("epoch 3, batch 2 (batch 14 of the training), beyond the requested 1 epoch(s)");
    left.shows("the program goes on");
}

#[test]
fn a_warning_is_seen_on_the_dashboard_and_again_on_the_screen_that_stays() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut terminal = Terminal::start(&dir, ENDLESS, &["workers@2"]);
    terminal.wait_for("NOTE: not exact after a restart");
    terminal.press('q');
    terminal.wait_for("Stop the training.");
    terminal.press('s');
    let left = terminal.end();
    left.shows(
        "warning: not exact after a restart: the training uses Burn's data loader with workers",
    );
    left.shows("the program goes on");
}

#[test]
fn a_loop_by_hand_has_no_dashboard_and_says_on_the_terminal_how_it_begins_and_ends() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let left = Terminal::start(&dir, "3", &["by-hand@4"]).end();
    left.shows("after each batch, the newest is kept; trains on Flex(Cpu); a new training");
    left.shows("the training is saved at epoch 1, batch 4");

    let left = Terminal::start(&dir, "3", &["by-hand@2"]).end();
    left.shows("restored from backup 00000004 at epoch 1, batch 4");
}

const READING: &str = "reading the newest backup: 0";

/// The border of the box at the bottom of the dashboard.
fn border() -> String {
    format!(
        "\u{2514}{}\u{2518}",
        "\u{2500}".repeat(usize::from(COLUMNS) - 2)
    )
}

#[test]
fn a_restore_that_takes_long_is_seen_in_the_border_of_the_dashboard_and_leaves_no_trace() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    Terminal::start(&dir, ENDLESS, &["never@0", "stop@8"]).end();

    let mut terminal = Terminal::start(&dir, ENDLESS, &["never@0", "slow@0"]);
    terminal.wait_for(READING);
    let row = terminal.last_row();
    assert!(
        row.starts_with("\u{2514}\u{2500} reading the newest backup: 0"),
        "{row}"
    );
    assert!(row.ends_with("\u{2500}\u{2518}"), "{row}");
    std::fs::write(scratch.path().join("go"), b"").unwrap();
    terminal.wait_for("Train none yet; restored from epoch 2, batch 2, saved at ");
    assert_eq!(terminal.last_row(), border());
    assert!(
        !terminal.text().contains("reading the"),
        "{}",
        terminal.text()
    );
    terminal.press('q');
    terminal.wait_for("Stop the training.");
    terminal.press('s');
    terminal.end().shows("the program goes on");
}

#[test]
fn a_restore_that_takes_long_is_a_line_on_a_plain_terminal_and_lines_in_a_file() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    Terminal::start(&dir, "3", &["by-hand@4"]).end();
    let mut terminal = Terminal::start(&dir, "3", &["by-hand@2", "slow@0"]);
    terminal.wait_to_see(READING);
    assert!(!terminal.parser.screen().alternate_screen());
    std::fs::write(scratch.path().join("go"), b"").unwrap();
    let left = terminal.end();
    left.shows("reading the newest backup: ");
    left.shows("restored from backup 00000004 at epoch 1, batch 4");

    std::fs::remove_file(scratch.path().join("go")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_dashboard"))
        .arg(&dir)
        .args(["3", "by-hand@2", "slow@0"])
        .stderr(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut lines = lines.map(Result::unwrap);
    let line = lines.find(|line| line.contains("reading the newest backup"));
    let line = line.unwrap();
    assert!(
        line.starts_with("reading the newest backup: 0.000 of 0.0"),
        "{line}"
    );
    assert!(line.ends_with(" MB"), "{line}");
    std::fs::write(scratch.path().join("go"), b"").unwrap();
    assert!(!lines.any(|line| line.contains("reading the newest backup")));
    child.wait().unwrap();
}

#[test]
fn the_wait_for_the_mirror_at_the_end_is_seen_in_the_border_of_the_dashboard() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("backup");
    let mut terminal = Terminal::start(&dir, ENDLESS, &["never@0", "stop@8", "mirror@0"]);
    terminal.wait_for("mirroring the last backup: ");
    let row = terminal.last_row();
    assert!(
        row.starts_with("\u{2514}\u{2500} mirroring the last backup: "),
        "{row}"
    );
    let left = terminal.end();
    left.shows("and in the mirror");
    assert!(!left.text.contains("mirroring the last"), "{}", left.text);
}
