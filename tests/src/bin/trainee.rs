//! A training in a process of its own, which does what it is told.
//!
//! `trainee serve PORT DEVICES` serves so many devices of the CPU on this port of the loopback
//! interface, or on a free one for port 0, and says first `listening ADDRESS`.
//!
//! `trainee BACKEND BACKUP_DIR FREQUENCY [WHAT@AT]..`: `BACKEND` is one of this process, or the address of
//! a server with `main=`, for the first two of its devices with the optimizer on the first one, with
//! `sharded=`, for both of them to optimize, or with `one=`. `FREQUENCY` is a number of batches, or 0 for
//! each epoch. What it is told to do, and in which of its batches or calls, counted from 1, or 0
//! for before the training:
//!
//! - `abort`: to abort in that training batch; `abort-in-validation`: in that validation batch;
//!   `abort-in-call`: in that call to the filesystem.
//! - `stop`: to be stopped in that training batch, as by its user.
//! - `keep`: to keep the backup at its end; `keep-all`: to keep all generations.
//! - `replaced`: to set another training strategy after the backups.
//! - `fill`: to fill the disk that `BACKUP_DIR` is on; `free`: to free it again.
//! - `wait`: to say `waiting`, and wait for a line on the standard input.
//!
//! At its end it prints a line each on the number of batches that were trained before this process
//! (`restored`), the backups that were `committed` and that `failed`, the `error` that ended it, the
//! `weights`, and what the user's own checkpointers got last (`records`).
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::remote::RemoteHost;
use burn::server::{RemoteServer, WebSocketTransport};
use burn::tensor::Device;
use burn::train::{Interrupter, TrainingStrategy};
use burn_backup_restore::{BackupExt as _, SaveFreq};
use burn_backup_store::Filesystem;
use burn_backup_store::testing::FaultyFilesystem;
use burn_backup_tests::{Backend, Halt, Hooks, Spread, Training};

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
    let training = training_on(backend);
    let frequency = match frequency.parse().unwrap() {
        0 => SaveFreq::Epoch,
        steps => SaveFreq::Steps(steps),
    };
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

    let mut backup = Training::backup(backup_dir).save_freq(frequency);
    if let Some(at) = told_of("abort-in-call") {
        backup = backup.filesystem(aborting(at));
    }
    backup = backup.delete_checkpoint(told_of("keep").is_none());
    if told_of("keep-all").is_some() {
        backup = backup.keep_last(usize::MAX);
    }
    let halt = told_of("abort-in-validation").map_or(Halt::Never, Halt::AbortInValidation);
    let interrupter = Interrupter::new();
    let stopped = interrupter.clone();
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
        |training, hooks: Hooks| training.learner(hooks.on_train(act)),
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
    println!("weights {:?}", run.weights);
    let records = match run.records.epoch {
        0 => String::new(),
        _ => format!("{:?}", run.records),
    };
    println!("records {records}");
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

/// Writes until that fails.
fn fill(file: &mut File, chunk: &[u8]) -> io::Error {
    loop {
        if let Err(error) = file.write_all(chunk) {
            return error;
        }
    }
}

/// Aborts the process in the call number `at`.
fn aborting(at: usize) -> Arc<dyn Filesystem> {
    let calls = AtomicUsize::new(0);
    Arc::new(FaultyFilesystem::new(move |_, _| {
        if calls.fetch_add(1, Ordering::Relaxed) + 1 == at {
            std::process::abort();
        }
        Ok(())
    }))
}
