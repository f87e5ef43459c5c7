//! A training in its own process, which follows instructions.
//!
//! `trainee serve PORT DEVICES` serves so many devices of the CPU on this port of the loopback interface, or
//! on a free port for 0. First it prints `listening ADDRESS`.
//!
//! `trainee BACKEND BACKUP_DIR FREQUENCY [WHAT@AT]..`: `BACKEND` is one of this process, or the address of a
//! server. The address follows `main=`, `sharded=` or `one=`. `main=` uses its first two devices, with the
//! optimizer on the first one. `sharded=` has both of them optimize. `FREQUENCY` is a number of batches, or 0
//! for each epoch. Each instruction says what to do, and in which batch or call, counted from 1. 0 stands for
//! before the training:
//!
//! - `abort`: it aborts in that training batch. `abort-in-validation`: in that validation batch.
//!   `abort-in-call`: in that filesystem call.
//! - `stop`: it is stopped in that training batch, as by its user.
//! - `signals`: it takes SIGTERM and SIGINT as preemption notices. `usr1-too`: and SIGUSR1. `exit`: it then
//!   exits with that code. `grace`: it has so many milliseconds until the kill. `left`: it leaves the signals
//!   to the program after the launch.
//! - `term`, `int`, `usr1`: it sends itself that signal in that training batch. `term-in-validation`: in that
//!   validation batch. `term-in-call`: in that filesystem call. `term-after`: after the training.
//! - `term-again`: it sends itself SIGTERM in that training batch again and again, until it ends.
//! - `tokio-before`, `tokio-after`: it handles Ctrl-C with tokio, from before the training or from after it.
//!   After the training it sends itself one, and prints `heard Ctrl-C` when tokio has received it.
//! - `never`: it takes no backups on its own.
//! - `logs`: it writes metric logs, into `logs` beside the backup.
//! - `rollback`: this item is NaN in the second epoch, and the training goes back then. It needs `logs` and
//!   `ours`.
//! - `keep`: it keeps the backup at its end. `keep-all`: it keeps all generations.
//! - `workers`: it loads with so many workers. `ours`: with our loader. `burns-sampler`: with our loader of
//!   Burn's sampler.
//! - `replaced`: it sets another training strategy after the backups.
//! - `fill`: it fills the disk that `BACKUP_DIR` is on. `free`: it frees the disk again.
//! - `wait`: it prints `waiting`, and waits for a line on the standard input.
//!
//! At its end it prints one line for each of these:
//!
//! - `restored`: the number of batches that were trained before this process.
//! - `committed` and `failed`: the numbers of backups.
//! - `error`: the error that ended it.
//! - `interrupted`: what interrupted it. `stopped-at`: the number of batches after which it was saved then.
//! - `notice`: the notice that came.
//! - `weights`: the weights.
//! - `records`: the last records that the user's own checkpointers got.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use burn::remote::RemoteHost;
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;
use burn::train::{Interrupter, TrainingStrategy};
use burn_backup_restore::{AfterPreemption, BackupExt as _, Divergence, Preemption, SaveFreq};
use burn_backup_store::Filesystem;
use burn_backup_store::testing::FaultyFilesystem;
use burn_backup_tests::{Backend, Halt, Hooks, Loaders, Poison, Spread, Training};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::low_level::raise;
use tokio::runtime::{self, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [what, port, devices] = arguments.as_slice()
        && what == "serve"
    {
        return serve(port.parse().unwrap(), devices.parse().unwrap());
    }
    let [backend, backup_dir, frequency, told @ ..] = arguments.as_slice() else {
        eprintln!("usage: trainee BACKEND BACKUP_DIR FREQUENCY [WHAT@AT]..");
        std::process::exit(2);
    };
    let mut training = training_on(backend);
    let told: Vec<(String, usize)> = told
        .iter()
        .map(|told| told.split_once('@').unwrap())
        .map(|(what, at)| (what.to_owned(), at.parse().unwrap()))
        .collect();
    let told_of = |which: &str| {
        told.iter()
            .find(|(what, _)| what == which)
            .map(|(_, at)| *at)
    };

    training.workers = told_of("workers").unwrap_or(0);
    if told_of("ours").is_some() {
        training.loaders = Loaders::Resumable;
    }
    if told_of("burns-sampler").is_some() {
        training.loaders = Loaders::ResumableWithBurnsSampler;
    }
    let frequency = match (told_of("never"), frequency.parse().unwrap()) {
        (Some(_), _) => SaveFreq::Never,
        (None, 0) => SaveFreq::Epoch,
        (None, steps) => SaveFreq::Steps(steps),
    };
    let mut backup = Training::backup(backup_dir).save_freq(frequency);
    if let Some(at) = told_of("abort-in-call") {
        backup = backup.filesystem(in_call(at, || std::process::abort()));
    }
    if let Some(at) = told_of("term-in-call") {
        backup = backup.filesystem(in_call(at, || raise(SIGTERM).unwrap()));
    }
    if let Some(item) = told_of("rollback") {
        training.poison = Some(Poison {
            items: 1 << item,
            epoch: Some(2),
            inputs: f32::NAN,
        });
        backup = backup.on_divergence(Divergence::RollBack { at_most: 3 });
    }
    if told_of("logs").is_some() {
        backup = backup.metric_logs(Path::new(backup_dir).with_file_name("logs"));
    }
    if told_of("signals").is_some() {
        let mut preemption = Preemption::signals();
        if told_of("usr1-too").is_some() {
            preemption = preemption.signal(SIGUSR1);
        }
        if let Some(code) = told_of("exit") {
            preemption = preemption.after(AfterPreemption::Exit(code.try_into().unwrap()));
        }
        if told_of("left").is_some() {
            preemption = preemption.leave_signals_after_launch();
        }
        if let Some(millis) = told_of("grace") {
            preemption = preemption.grace_period(Duration::from_millis(millis as u64));
        }
        backup = backup.save_before_preemption(preemption);
    }
    backup = backup.delete_checkpoint(told_of("keep").is_none());
    if told_of("keep-all").is_some() {
        backup = backup.keep_last(usize::MAX);
    }
    let halt = told_of("abort-in-validation").map_or(Halt::Never, Halt::AbortInValidation);
    let interrupter = Interrupter::new();
    let stopped = interrupter.clone();
    let term_in_validation = told_of("term-in-validation");
    let term_after = told_of("term-after");
    let ctrl_c = told_of("tokio-before").map(|_| CtrlC::listen());
    let tokio_after = told_of("tokio-after");
    let handle = backup.handle();
    let is_replaced = told_of("replaced").is_some();
    let ballast = Path::new(backup_dir).with_file_name("ballast");
    let act = move |at: usize| {
        for (what, when) in &told {
            if *when == at {
                obey(what, &ballast, &stopped);
            }
        }
    };
    act(0);
    let backup = training.spread_over_devices(backup);
    let run = training.run_with_learner(
        halt,
        |training, hooks: Hooks| {
            let hooks = match term_in_validation {
                Some(at) => hooks.on_valid(move |batch| {
                    if batch == at {
                        raise(SIGTERM).unwrap();
                    }
                }),
                None => hooks,
            };
            training.learner(hooks.on_train(act))
        },
        |training| {
            let training = training.with_interrupter(interrupter);
            let training = training.backup_and_restore(backup);
            match is_replaced {
                true => training.with_training_strategy(TrainingStrategy::default()),
                false => training,
            }
        },
    );

    let restored = handle.restored_from().map_or(0, |at| at.global_step);
    println!("restored {restored}");
    println!("committed {}", handle.stats().committed);
    println!("failed {}", handle.stats().failed);
    println!(
        "error {}",
        run.error.as_ref().map_or(String::new(), |e| e.to_string())
    );
    let interrupted = run.interrupted.and_then(|stop| stop.reason);
    println!("interrupted {}", interrupted.unwrap_or_default());
    let stopped_at = handle.stopped_at().map(|at| at.global_step.to_string());
    println!("stopped-at {}", stopped_at.unwrap_or_default());
    let notice = handle.notice().map(|notice| notice.to_string());
    println!("notice {}", notice.unwrap_or_default());
    println!("weights {:?}", run.weights);
    let records = match run.records.epoch {
        0 => String::new(),
        _ => format!("{:?}", run.records),
    };
    println!("records {records}");
    if term_after.is_some() {
        raise(SIGTERM).unwrap();
        println!("it goes on");
    }
    if let Some(ctrl_c) = ctrl_c.or_else(|| tokio_after.map(|_| CtrlC::listen())) {
        raise(SIGINT).unwrap();
        ctrl_c.wait();
        println!("heard Ctrl-C");
    }
}

/// The listener of `tokio::signal::ctrl_c`, and when it is first polled.
struct CtrlC {
    runtime: Runtime,
    interrupts: Signal,
}

impl CtrlC {
    fn listen() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap();
        let interrupts = {
            let _entered = runtime.enter();
            signal(SignalKind::interrupt()).unwrap()
        };
        Self {
            runtime,
            interrupts,
        }
    }

    fn wait(mut self) {
        self.runtime.block_on(self.interrupts.recv()).unwrap();
    }
}

/// The training on the backend, or on the server, that `backend` names.
fn training_on(backend: &str) -> Training {
    let Some((spread, address)) = backend.split_once('=') else {
        let known = |known: &&Backend| format!("{known:?}") == *backend;
        return Training::new(*Backend::ALL.iter().find(known).unwrap());
    };
    let spread = match spread {
        "main" => Spread::Main(2),
        "sharded" => Spread::Sharded(2),
        _ => Spread::One,
    };
    let mut devices = RemoteHost::websocket(address).devices().unwrap().into_vec();
    devices.truncate(spread.devices());
    Training {
        spread,
        devices,
        ..Training::new(Backend::Flex)
    }
}

fn serve(port: u16, devices: usize) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    println!("listening ws://{}", listener.local_addr().unwrap());
    let transport = WebSocketTransport::from_listener(listener);
    let devices = vec![Device::flex(); devices];
    RemoteServer::new(devices).serve(transport).unwrap();
}

fn obey(what: &str, ballast: &Path, interrupter: &Interrupter) {
    match what {
        "abort" => std::process::abort(),
        "term" => raise(SIGTERM).unwrap(),
        "int" => raise(SIGINT).unwrap(),
        "usr1" => raise(SIGUSR1).unwrap(),
        "term-again" => loop {
            raise(SIGTERM).unwrap();
            thread::yield_now();
        },
        "stop" => interrupter.stop(Some("it was told to")),
        "fill" => {
            let mut file = File::create(ballast).unwrap();
            // Whole pages, then what is left.
            for chunk in [&[0; 65536][..], &[0; 1]] {
                let error = fill(&mut file, chunk);
                assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
            }
        }
        "free" => fs::remove_file(ballast).unwrap(),
        "wait" => {
            println!("waiting");
            io::stdin().read_line(&mut String::new()).unwrap();
        }
        _ => {}
    }
}

/// Writes until a write fails.
fn fill(file: &mut File, chunk: &[u8]) -> io::Error {
    loop {
        if let Err(error) = file.write_all(chunk) {
            return error;
        }
    }
}

/// Calls `what` in the call number `at`.
fn in_call(at: usize, what: impl Fn() + Send + Sync + 'static) -> Arc<dyn Filesystem> {
    let calls = AtomicUsize::new(0);
    Arc::new(FaultyFilesystem::new(move |_, _| {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == at {
            what();
        }
        Ok(())
    }))
}
