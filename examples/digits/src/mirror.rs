use std::time::Duration;

use anyhow::Context as _;
use burn_backup_restore::{BackupAndRestore, Mirror};

#[derive(Debug, clap::Args)]
pub struct MirrorArguments {
    /// Where backups are mirrored to: a URL such as s3://bucket/prefix, gs://bucket/prefix,
    /// az://container/prefix or file:///directory.
    #[arg(long = "mirror", value_name = "URL")]
    url: Option<String>,

    /// Another process may take over the mirror when this one has been silent for so many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 15.0, requires = "url")]
    lease: f64,

    /// Promises that no other process ever writes to the mirror at the same time.
    #[arg(long, requires = "url")]
    single_writer: bool,
}

impl MirrorArguments {
    pub fn add_to(&self, backup: BackupAndRestore) -> anyhow::Result<BackupAndRestore> {
        let Some(url) = &self.url else {
            return Ok(backup);
        };
        let lease = Duration::try_from_secs_f64(self.lease)
            .context("--lease must be a number of seconds, 0 or more")?;
        let mirror = Mirror::new(url).lease_ttl(lease);
        Ok(backup.mirror(mirror.single_writer(self.single_writer)))
    }
}
