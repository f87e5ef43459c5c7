//! The supervisor, with shell scripts as trainings.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// A test that waits for something this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// A script in its own directory, run by the supervisor.
struct Training {
    dir: TempDir,
    script: String,
    options: Vec<String>,
}

/// Writes a heartbeat as the library does.
const BEAT: &str = r#"
beat() { # count, step, committed step
    printf '{"process":%d,"count":%d,"position":{"epoch":1,"step_in_epoch":%d,"global_step":%d},"restored":null,"committed":{"epoch":1,"step_in_epoch":%d,"global_step":%d},"commits":1}\n' \
        $$ "$1" "$2" "$2" "$3" "$3" > "$BURN_BACKUP_HEARTBEAT"
}
"#;

impl Training {
    fn new(script: &str) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            script: format!("{BEAT}\n{script}"),
            options: Vec::new(),
        }
    }

    fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.to_owned(), value.to_owned()]);
        self
    }

    fn flag(mut self, name: &str) -> Self {
        self.options.push(name.to_owned());
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_burn-backup"));
        command.arg("run").args(&self.options);
        if !self.options.iter().any(|option| option == "--backoff") {
            command.args(["--backoff", "0.01", "--max-backoff", "0.02"]);
        }
        command
            .args(["--", "sh", "-c", &self.script])
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&self) -> Output {
        self.command().output().unwrap()
    }

    fn start(&self) -> Child {
        self.command().spawn().unwrap()
    }

    /// Waits until the script has made the file.
    #[track_caller]
    fn wait_for(&self, name: &str) -> String {
        let path = self.path(name);
        wait_until(&format!("{name} exists"), || {
            fs::read_to_string(&path).is_ok_and(|text| text.ends_with('\n'))
        });
        self.read(name).trim().to_owned()
    }
}

#[track_caller]
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn is_running(pid: &str) -> bool {
    // A zombie does not run.
    fs::read_to_string(Path::new("/proc").join(pid).join("stat"))
        .is_ok_and(|stat| !stat.contains(") Z "))
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
}

fn errors(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", errors(output));
}

#[test]
fn success_or_a_code_to_fix_ends_with_its_code_and_output() {
    for (code, runs) in [(0, 1), (78, 1), (2, 1), (7, 1)] {
        let script = format!("echo run >> runs; echo out; echo err >&2; exit {code}");
        let training = Training::new(&script).option("--fix-first", "7");
        let output = training.run();
        assert_code(&output, code);
        assert_eq!(training.read("runs").lines().count(), runs);
        assert_eq!(output.stdout, b"out\n");
        assert!(errors(&output).contains("err\n"));
    }
}

#[test]
fn crashes_kills_and_stops_are_followed_by_a_restart_that_knows_of_them() {
    let script = r#"
        echo "${BURN_BACKUP_LAST_END-none}" >> runs
        case $(wc -l < runs) in
            1) exit 1 ;;
            2) kill -9 $$ ;;
            3) exit 75 ;;
            4) exit 42 ;;
            *) exit 0 ;;
        esac"#;
    let training = Training::new(script)
        .option("--again", "42")
        .option("--log", "events");
    let output = training.run();
    assert_code(&output, 0);
    let runs = training.read("runs");
    let runs: Vec<_> = runs.lines().collect();
    assert_eq!(
        runs,
        [
            "none",
            "ended with code 1",
            "was ended by SIGKILL",
            "ended with code 75",
            "ended with code 42"
        ]
    );
    let events = training.read("events");
    for event in [
        "the command was ended by SIGKILL",
        "it is started again in ",
        "4 restarts in 0s",
    ] {
        assert!(events.contains(event), "{event} in {events}");
        assert!(errors(&output).contains(event), "{event}");
    }
}

#[test]
fn a_command_without_progress_is_given_up_with_its_last_lines() {
    let script = r#"
        echo run >> runs
        seq 1 100 | sed 's/^/line /' >&2
        echo "cannot open the data" >&2
        exit 1"#;
    let training = Training::new(script)
        .option("--max-restarts", "3")
        .option("--log", "events");
    let output = training.run();
    assert_code(&output, 78);
    assert_eq!(training.read("runs").lines().count(), 4);
    let text = errors(&output);
    assert!(
        text.contains("GIVING UP: 3 restarts without a new backup"),
        "{text}"
    );
    let events = training.read("events");
    assert!(events.contains("    cannot open the data"), "{events}");
    assert!(events.contains("    line 100") && !events.contains("line 1\n"));
    assert!(text.contains("earlier events are in 'events'"));
}

#[test]
fn for_programs_each_event_is_a_line_of_json() {
    let training = Training::new("exit 0")
        .option("--log", "events")
        .flag("--json");
    let output = training.run();
    assert_code(&output, 0);
    for events in [errors(&output), training.read("events")] {
        let events: Vec<serde_json::Value> = events
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(events.len(), 3, "{events:?}");
        assert_eq!(events[1]["event"], "the command ended with code 0");
        assert!(events[1]["time"].as_str().unwrap().ends_with('Z'));
    }
}

#[test]
fn as_long_as_there_are_new_backups_it_is_restarted() {
    let script = r#"
        echo run >> runs
        n=$(wc -l < runs)
        beat 1 $((n * 10)) $((n * 10))
        [ "$n" -lt 12 ] && exit 1
        exit 0"#;
    let training = Training::new(script).option("--max-restarts", "2");
    let output = training.run();
    assert_code(&output, 0);
    assert_eq!(training.read("runs").lines().count(), 12);
    let text = errors(&output);
    assert!(text.contains("11 restarts"), "{text}");
    assert!(text.contains("at epoch 1, batch 120 (batch 120 of the training)"));

    // The same backup again is no progress.
    let training = Training::new("echo run >> runs; beat 1 10 10; exit 1");
    let output = training.option("--max-restarts", "2").run();
    assert_code(&output, 78);
}

#[test]
fn a_signal_is_passed_on_and_a_clean_end_is_waited_for() {
    for (signal, name) in [
        (Signal::SIGTERM, "TERM"),
        (Signal::SIGUSR1, "USR1"),
        (Signal::SIGINT, "INT"),
    ] {
        let script = format!(
            "trap 'echo got >> got; sleep 0.3; echo saved > saved; exit 75' {name}
             echo $$ > ready
             while :; do sleep 0.05; done"
        );
        let training = Training::new(&script);
        let supervisor = training.start();
        training.wait_for("ready");
        send(&supervisor, signal);
        let output = supervisor.wait_with_output().unwrap();
        assert_code(&output, 75);
        assert_eq!(training.read("saved"), "saved\n", "{name}");
        assert_eq!(training.read("got"), "got\n", "{name}");
        assert!(errors(&output).contains(&format!("SIG{name} is passed on")));
    }
}

#[test]
fn a_command_that_outlasts_its_grace_period_is_killed_with_its_children() {
    let script = r#"
        trap '' TERM
        sleep 1000 & echo $! > below
        echo $$ > ready
        while :; do sleep 0.05; done"#;
    let training = Training::new(script).option("--grace", "0.3");
    let supervisor = training.start();
    let pid = training.wait_for("ready");
    let below = training.wait_for("below");
    send(&supervisor, Signal::SIGTERM);
    let output = supervisor.wait_with_output().unwrap();
    assert_code(&output, 137);
    assert!(!is_running(&pid));
    wait_until("what it has started is gone", || !is_running(&below));
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_left_the_group_is_not_waited_for() {
    let training = Training::new("setsid sleep 1000 & echo $! > below; echo err >&2; exit 0");
    let output = training.start();
    // The process also keeps the supervisor's output open, so the test waits for the status only.
    let status = { output }.wait().unwrap();
    assert_eq!(status.code(), Some(0));
    let below = Pid::from_raw(training.wait_for("below").parse().unwrap());
    let _ = kill(below, Signal::SIGKILL);
}

#[test]
fn a_second_signal_does_not_wait_for_the_grace_period() {
    let script = r#"
        trap 'echo got >> got' TERM
        echo $$ > ready
        while :; do sleep 0.05; done"#;
    let training = Training::new(script).option("--grace", "1h");
    let supervisor = training.start();
    training.wait_for("ready");
    send(&supervisor, Signal::SIGTERM);
    training.wait_for("got");
    send(&supervisor, Signal::SIGTERM);
    let output = supervisor.wait_with_output().unwrap();
    assert_code(&output, 137);
    assert_eq!(training.read("got").lines().count(), 2);
}

#[test]
fn a_signal_during_the_wait_for_a_restart_ends_it() {
    let training = Training::new("echo run >> runs; exit 1").option("--backoff", "1h");
    let training = training.option("--max-backoff", "1h");
    let mut supervisor = training.start();
    let mut lines = BufReader::new(supervisor.stderr.take().unwrap()).lines();
    lines
        .find(|line| line.as_ref().unwrap().contains("it is started again in"))
        .unwrap()
        .unwrap();
    send(&supervisor, Signal::SIGTERM);
    assert_eq!(supervisor.wait().unwrap().code(), Some(1));
    assert_eq!(training.read("runs"), "run\n");
}

#[test]
fn a_hanging_command_is_asked_for_stacks_and_restarted() {
    let script = r#"
        echo run >> runs
        [ "$(wc -l < runs)" -gt 1 ] && exit 0
        trap 'echo stacks > stacks' QUIT
        beat 1 1 0; sleep 0.3; beat 2 2 0
        echo $$ > ready
        while :; do sleep 0.05; done"#;
    let training = Training::new(script)
        .option("--hang-timeout", "0.5")
        .option("--grace", "0.2");
    let output = training.run();
    assert_code(&output, 0);
    assert_eq!(training.read("stacks"), "stacks\n");
    let text = errors(&output);
    assert!(text.contains("hangs: no batch for"), "{text}");
    assert!(text.contains("the command hung, and was ended"), "{text}");
    assert!(!is_running(training.read("ready").trim()));
}

#[test]
fn a_command_without_batches_does_not_hang() {
    let training = Training::new("sleep 1").option("--hang-timeout", "0.1");
    assert_code(&training.run(), 0);
}

#[test]
#[cfg(target_os = "linux")]
fn when_the_supervisor_is_killed_the_training_is_signalled_and_ends() {
    let script = r#"
        trap 'echo saved > saved; exit 75' TERM
        echo $$ > ready
        while :; do sleep 0.05; done"#;
    let training = Training::new(script);
    let mut supervisor = training.start();
    let pid = training.wait_for("ready");
    send(&supervisor, Signal::SIGKILL);
    assert_eq!(supervisor.wait().unwrap().signal(), Some(9));
    training.wait_for("saved");
    wait_until("it has ended", || !is_running(&pid));
}

#[test]
fn a_missing_command_is_reported_and_not_retried() {
    let program = env!("CARGO_BIN_EXE_burn-backup");
    let output = Command::new(program)
        .args(["run", "--", "/no/such/program"])
        .output()
        .unwrap();
    assert_code(&output, 1);
    assert!(errors(&output).contains("/no/such/program"));
    let output = Command::new(program).arg("run").output().unwrap();
    assert_code(&output, 2);
}

#[test]
fn a_closed_standard_error_ends_nothing() {
    let training = Training::new("echo run >> runs; echo err >&2; [ $(wc -l < runs) -ge 3 ]");
    let mut supervisor = training.start();
    drop(supervisor.stderr.take());
    let mut output = String::new();
    let mut stdout = supervisor.stdout.take().unwrap();
    stdout.read_to_string(&mut output).unwrap();
    assert_eq!(supervisor.wait().unwrap().code(), Some(0));
    assert_eq!(training.read("runs").lines().count(), 3);
}

/// As process 1 of a container, it reaps orphans and passes signals on.
#[test]
#[cfg(target_os = "linux")]
fn as_process_1_it_leaves_no_zombies() {
    let script = r#"
        (sh -c 'sleep 0.1 & echo $! > orphan') 
        sleep 0.5
        stat=$(cat /proc/$(cat orphan)/stat 2>/dev/null)
        echo "stat: $stat" > seen
        trap 'exit 75' TERM
        echo $$ > ready
        while :; do sleep 0.05; done"#;
    let training = Training::new(script);
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
        ])
        .arg(env!("CARGO_BIN_EXE_burn-backup"))
        .args(["run", "--", "sh", "-c", &training.script])
        .current_dir(training.dir.path())
        .stdin(Stdio::null())
        .stderr(Stdio::piped());
    // Not every machine allows namespaces to its users.
    let can = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--pid",
            "--fork",
            "--mount-proc",
            "true",
        ])
        .status();
    if !can.is_ok_and(|status| status.success()) {
        // Namespaces are not available.
        return;
    }
    let mut child = command.spawn().unwrap();
    training.wait_for("ready");
    assert_eq!(training.read("seen"), "stat: \n");
    // The supervisor is the only child of `unshare`.
    let of = format!("/proc/{0}/task/{0}/children", child.id());
    let supervisor = fs::read_to_string(of).unwrap();
    let supervisor = Pid::from_raw(supervisor.trim().parse().unwrap());
    kill(supervisor, Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(75));
}
