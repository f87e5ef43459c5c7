use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::device::Backend;

/// The machine on which the measurements were taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The name of the processor, if the system reports it.
    cpu: Option<String>,
    /// The number of threads that can run at once.
    cores: Option<usize>,
    /// The device of the trainings.
    #[serde(default)]
    device: Backend,
    /// The directory whose file system was measured.
    dir: PathBuf,
}

impl Machine {
    /// This machine, with backups written in `dir`.
    pub fn here(dir: &Path) -> Self {
        let cpu_info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            cpu: cpu_model(&cpu_info),
            cores: std::thread::available_parallelism()
                .ok()
                .map(|cores| cores.get()),
            device: Backend::chosen(),
            dir: dir.to_owned(),
        }
    }
}

fn cpu_model(cpu_info: &str) -> Option<String> {
    let line = cpu_info
        .lines()
        .find(|line| line.starts_with("model name"))?;
    let (_, model) = line.split_once(':')?;
    Some(model.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_is_found_among_other_lines() {
        let info =
            "processor\t: 0\nmodel\t\t: 85\nmodel name\t: Some CPU @ 2.60GHz\nflags\t: fpu\n";
        assert_eq!(cpu_model(info).as_deref(), Some("Some CPU @ 2.60GHz"));
        assert_eq!(cpu_model("Processor: other\n"), None);
    }
}
