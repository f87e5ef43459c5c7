//! Exported files are read by burn-pack and by safetensors.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn_pack::{Reader, Scalar, Tensor};
use safetensors::SafeTensors;

use crate::backups::{fixture, frozen, model, open, parts, training};
use crate::program::Scratch;

/// Name, shape, type, id and bytes.
type Contents = BTreeMap<String, (Vec<usize>, String, Option<u64>, Vec<u8>)>;

fn contents(tensors: Vec<Tensor>) -> Contents {
    let contents = tensors.into_iter().map(|tensor| {
        let (name, dtype, shape, id, bytes) = tensor.into_parts().unwrap();
        (
            name,
            (shape.to_vec(), dtype.name().to_owned(), id, bytes.to_vec()),
        )
    });
    contents.collect()
}

fn read(path: &Path) -> Contents {
    contents(Reader::from_file(path).unwrap().into_tensors().unwrap())
}

fn part(name: &str, number: u64) -> Vec<u8> {
    parts(number)
        .into_iter()
        .find(|(part, _)| *part == name)
        .unwrap()
        .1
}

#[test]
fn both_parts_of_a_model_become_one_file() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    scratch.run("export backup --to out").good();
    let names: Vec<_> = fs::read_dir(scratch.join("out"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    assert_eq!(names, ["model.bpk"]);
    let all: Vec<_> = model(2).into_iter().chain(frozen()).collect();
    assert_eq!(read(&scratch.join("out/model.bpk")), contents(all));

    scratch
        .run("export backup --to all --all --generation 1")
        .good();
    let all: Vec<_> = model(1).into_iter().chain(frozen()).collect();
    assert_eq!(read(&scratch.join("all/model.bpk")), contents(all));
    for name in ["optimizer", "scheduler"] {
        assert_eq!(
            fs::read(scratch.join(format!("all/{name}.bpk"))).unwrap(),
            part(name, 1)
        );
    }
}

#[test]
fn safetensors_have_the_same_bytes() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    scratch
        .run("export backup --to out --all --format safetensors")
        .good();
    let file = |name: &str| fs::read(scratch.join(format!("out/{name}.safetensors"))).unwrap();
    let bytes = file("model");
    let read = SafeTensors::deserialize(&bytes).unwrap();
    let expected = contents(model(2).into_iter().chain(frozen()).collect());
    assert_eq!(read.len(), expected.len());
    for (name, (shape, dtype, _, bytes)) in &expected {
        let tensor = read.tensor(name).unwrap();
        assert_eq!(tensor.shape(), shape);
        assert_eq!(format!("{:?}", tensor.dtype()).to_lowercase(), *dtype);
        assert_eq!(tensor.data(), bytes, "{name}");
    }
    // Scalars are in the metadata.
    for (name, key) in [("optimizer", "11.time"), ("scheduler", "step")] {
        let bytes = file(name);
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()[key], "2");
    }
    assert_eq!(
        SafeTensors::deserialize(&file("optimizer")).unwrap().len(),
        2
    );
    assert_eq!(
        SafeTensors::deserialize(&file("scheduler")).unwrap().len(),
        0
    );
}

#[test]
fn trainings_of_all_formats_are_exported() {
    let scratch = Scratch::new();
    for format in ["format-1", "format-2"] {
        for name in ["complete", "interrupted", "with-metrics", "by-hand"] {
            let dir = format!("{format}-{name}");
            fixture(
                &format!("tests/fixtures/{format}/{name}/backup"),
                &scratch.join(&dir),
            );
            for option in ["--format burnpack", "--format safetensors"] {
                let json = scratch
                    .run(&format!(
                        "export {dir} --to {dir}-out --all {option} --json"
                    ))
                    .good()
                    .json();
                let files: Vec<_> = json["files"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|file| file["record"].as_str().unwrap())
                    .collect();
                assert!(
                    files.contains(&"model") && files.contains(&"optimizer"),
                    "{json}"
                );
            }
            let model = match name {
                "by-hand" => "trainee-model",
                _ => "model",
            };
            let burnpack = read(&scratch.join(format!("{dir}-out/{model}.bpk")));
            let bytes = fs::read(scratch.join(format!("{dir}-out/{model}.safetensors"))).unwrap();
            let safetensors = SafeTensors::deserialize(&bytes).unwrap();
            for (name, (_, _, _, bytes)) in &burnpack {
                assert_eq!(safetensors.tensor(name).unwrap().data(), bytes, "{name}");
            }
            assert!(burnpack.len() == safetensors.len() && burnpack.len() > 5);
        }
    }
}

#[test]
fn existing_files_are_not_overwritten_unless_forced() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    fs::create_dir(scratch.join("out")).unwrap();
    // The second of two files exists, so the first one is not written either.
    let other = scratch.join("out/optimizer.bpk");
    fs::write(&other, "mine").unwrap();
    scratch
        .run("export backup --to out --all")
        .ends_with(1)
        .says(&["optimizer.bpk' already exists", "--force"]);
    assert_eq!(fs::read_dir(scratch.join("out")).unwrap().count(), 1);
    assert_eq!(fs::read(&other).unwrap(), b"mine");
    scratch.run("export backup --to out --all --force").good();
    assert_eq!(fs::read(&other).unwrap(), part("optimizer", 2));
}

#[test]
fn a_quantized_tensor_is_named_where_safetensors_has_no_type_for_it() {
    // `burn-pack` writes the record with the quantized tensor.
    let scratch = Scratch::new();
    let scheme = burn_pack::DType::QFloat(Default::default());
    let elements = 8;
    let quantized = Tensor::new(
        "layer.quantized".to_owned(),
        scheme,
        vec![elements],
        None,
        burn_pack::Bytes::from_bytes_vec(quantized_bytes(elements)),
    );
    let record = burn_pack::Writer::new(vec![quantized])
        .with_scalar("one", Scalar::from(true))
        .into_bytes();
    let store = open(&scratch.join("backup"));
    let mut staging = store.stage().unwrap();
    let mut writer = staging.part("model").unwrap();
    writer.append(record.unwrap().to_vec()).unwrap();
    writer.finish().unwrap();
    let _ = staging.commit(1).unwrap();
    drop(store);
    let ran = scratch.run("export backup --to out --format safetensors");
    ran.ends_with(1)
        .says(&["'layer.quantized' is quantized", "burnpack"]);
    assert!(!scratch.join("out").exists());
    scratch.run("export backup --to out").good();
    assert_eq!(fs::read_dir(scratch.join("out")).unwrap().count(), 1);
}

/// Eight bits for each element, in words of 32 bits, and the scale.
fn quantized_bytes(elements: usize) -> Vec<u8> {
    let mut bytes = vec![1; elements];
    bytes.extend(1_f32.to_le_bytes());
    bytes
}

#[test]
fn a_generation_in_a_mirror_is_exported_as_well() {
    let scratch = Scratch::new();
    training(&scratch.join("backup"));
    let url = scratch.mirror("mirror");
    scratch.run(&format!("push backup --to {url}")).good();
    scratch.run(&format!("export {url} --to out")).good();
    scratch.run("export backup --to here").good();
    let read = |dir: &str| fs::read(scratch.join(dir).join("model.bpk")).unwrap();
    assert!(read("out") == read("here"));
}
