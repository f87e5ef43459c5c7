//! Backups for the tests.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn_backup_store::{Committed, OpenOptions, PartDigest, Store};
use burn_pack::{Bytes, DType, Scalar, Tensor, Writer};
use serde_json::{Value, json};

/// A copy of a fixture of this workspace.
pub fn fixture(name: &str, to: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    copy(&root.join(name), to);
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &to),
            false => drop(fs::copy(entry.path(), to).unwrap()),
        }
    }
}

/// Every file of a directory, with its contents.
pub fn contents(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => {
                    all.insert(path.clone(), None);
                    open.push(path);
                }
                false => drop(all.insert(path.clone(), Some(fs::read(&path).unwrap()))),
            }
        }
    }
    all
}

pub fn open(dir: &Path) -> Store {
    Store::open(dir, OpenOptions::default().run_seed(Some(7))).unwrap()
}

/// Two generations of a training that was interrupted twice.
pub fn training(dir: &Path) {
    let store = open(dir);
    for number in [1, 2] {
        let _ = save(&store, number);
    }
}

/// Commits a generation with all fields and parts.
pub fn save(store: &Store, number: u64) -> Committed {
    let mut staging = store.stage().unwrap();
    for (name, bytes) in parts(number) {
        let mut digest = PartDigest::default();
        digest.update(&bytes);
        if !(name == "frozen" && staging.link(name, &digest).unwrap()) {
            let mut part = staging.part(name).unwrap();
            part.append(bytes).unwrap();
            part.finish().unwrap();
        }
    }
    staging.commit(state(number)).unwrap()
}

/// The records of a generation.
pub fn parts(number: u64) -> Vec<(&'static str, Vec<u8>)> {
    let scheduler = Writer::new(Vec::new()).with_scalar("step", Scalar::from(number));
    let optimizer = vec![
        tensor(
            "11.moment_1",
            DType::F32,
            &[2, 2],
            f32s(&[0.5, 0.25, number as f32, 0.0]),
        ),
        tensor("11.moment_2", DType::F32, &[2, 2], f32s(&[0.5; 4])),
    ];
    let optimizer = Writer::new(optimizer).with_scalar("11.time", Scalar::from(number));
    let written = |writer: Writer| writer.into_bytes().unwrap().to_vec();
    vec![
        ("model", written(Writer::new(model(number)))),
        ("frozen", written(Writer::new(frozen()))),
        ("optimizer", written(optimizer)),
        ("scheduler", written(scheduler)),
    ]
}

/// The trained part of the model.
pub fn model(number: u64) -> Vec<Tensor> {
    let changed = match number {
        1 => [1.0, 2.0, 3.0, 4.0],
        _ => [1.0, 5.0, f32::NAN, 8.0],
    };
    vec![
        tensor("layer.weight", DType::F32, &[2, 2], f32s(&changed)),
        tensor("layer.bias", DType::BF16, &[2], vec![0x80, 0x3f, 0, 0x40]),
        tensor(
            "steps",
            DType::I64,
            &[1],
            (number as i64 * 10).to_le_bytes().to_vec(),
        ),
        match number {
            1 => tensor("old", DType::U8, &[1], vec![1]),
            _ => tensor("new", DType::F64, &[1], 1_f64.to_le_bytes().to_vec()),
        },
    ]
}

/// The frozen part of the model.
pub fn frozen() -> Vec<Tensor> {
    vec![tensor(
        "embedding.weight",
        DType::F16,
        &[3],
        vec![0, 0x3c, 0, 0x40, 0, 0x42],
    )]
}

fn tensor(name: &str, dtype: DType, shape: &[usize], bytes: Vec<u8>) -> Tensor {
    Tensor::new(
        name.to_owned(),
        dtype,
        shape.to_vec(),
        Some(11),
        Bytes::from_bytes_vec(bytes),
    )
}

fn f32s(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

fn state(number: u64) -> Value {
    json!({
        "position": { "epoch": number + 3, "step_in_epoch": 5, "global_step": 10 * (number + 2) + 5 },
        "phase": "train",
        "early_stopped": false,
        "learning_rate": 0.001,
        "reseed_steps": true,
        "optimizer_steps": 10 * (number + 2) + 5,
        "configuration": { "accumulation": 2, "label": "the \u{1b}[31mbest" },
        "cadence": { "uptime": 4321.5, "interruptions": 2, "backup_cost": 0.0421 },
        "burn": "0.22",
        "model": [
            ["layer.weight", [2, 2], "f32"],
            ["layer.bias", [2], "bf16"],
            ["steps", [1], "i64"],
            ["embedding.weight", [3], "f16"],
        ],
        "history": [
            { "metric": "Loss", "split": "train", "values": { "1": "2.5", "2": "1.25", "3": "0.75" } },
            { "metric": "Loss", "split": "valid", "values": { "1": "2", "2": "1.5", "3": "NaN" } },
            { "metric": "Accuracy", "split": "valid", "values": { "1": 50, "2": 75, "3": 80 } },
        ],
        "runs": [
            { "began": "2026-11-01T10:00:00Z", "host": "a", "process": 100, "ended": "stopped" },
            {
                "began": "2026-11-01T12:30:00Z",
                "from": { "epoch": 2, "step_in_epoch": 5, "global_step": 15 },
                "host": "b",
                "process": 200,
            },
            {
                "began": "2026-11-02T08:00:00Z",
                "from": { "epoch": 3, "step_in_epoch": 0, "global_step": 20 },
                "host": "b",
                "frequency": "every 10 batches",
                "process": 300,
                "ended": "failed",
            },
        ],
        "of_tomorrow": { "shape": [1, 2, 3] },
    })
}

/// Changes one byte of a file.
pub fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}
