//! A short hash of everything that was learned.

use anyhow::Context as _;
use burn::rl::PolicyState as _;
use burn::tensor::Bytes;
use burn_pack::Reader;
use xxhash_rust::xxh3::Xxh3;

use crate::agent::DqnRecord;
use crate::policy::EpsilonGreedyState;

/// The XXH3 hash of the policy, the target network and the optimizer's state: names, shapes, types and
/// bytes.
pub fn of(policy: EpsilonGreedyState, agent: DqnRecord) -> anyhow::Result<String> {
    let mut hash = Xxh3::new();
    add(&mut hash, policy.into_record().into_bytes()?)?;
    add(&mut hash, agent.target.into_bytes()?)?;
    add(&mut hash, agent.optimizer.into_bytes()?)?;
    hash.update(&agent.trainings.to_le_bytes());
    Ok(format!("{:032x}", hash.digest128()))
}

/// Adds a record. Its parameters' ids differ in each process, so their paths replace them.
fn add(hash: &mut Xxh3, record: Bytes) -> anyhow::Result<()> {
    let reader = Reader::from_bytes(record).context("cannot read a record again")?;
    let paths = reader.metadata().clone();
    let named = |name: &str| match name.split_once('.') {
        Some((id, field)) => match paths.get(id) {
            Some(path) => format!("{path}: {field}"),
            None => name.to_owned(),
        },
        None => name.to_owned(),
    };
    let mut entries = Vec::new();
    for (name, scalar) in reader.scalars() {
        entries.push((named(name), format!("{scalar:?}").into_bytes()));
    }
    for tensor in reader.into_tensors()? {
        let (name, dtype, shape, _, bytes) = tensor.into_parts()?;
        let form = format!("{dtype:?} {shape:?} ");
        entries.push((named(&name), [form.as_bytes(), &bytes].concat()));
    }
    entries.sort();
    for (name, entry) in entries {
        hash.update(name.as_bytes());
        hash.update(&entry);
    }
    Ok(())
}
