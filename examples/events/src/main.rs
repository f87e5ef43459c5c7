//! Posts the events of a training's backups as JSON to an HTTP server, as one would to a chat or a monitor.
//! The server is part of this program, listens on loopback, and prints each body.

mod server;

use std::io::{self, Write as _};
use std::path::Path;

use burn::optim::{AdamConfig, GradientsParams};
use burn::tensor::Device;
use burn_backup_restore::{BackupAndRestore, Event, Trainee};
use digits::data;
use digits::model::DigitsModel;

use server::Server;

const SEED: u64 = 42;

fn main() -> anyhow::Result<()> {
    let server = Server::start()?;
    let url = server.url();
    let backups = tempfile::tempdir()?;
    // Half of the training, and then the rest, which is restored.
    for epochs in [1, 2] {
        train(backups.path(), epochs, post_to(url.clone()))?;
    }
    let posts = server.stop()?;
    writeln!(io::stdout(), "{posts} events were posted to {url}")?;
    Ok(())
}

/// Posts each event. It runs on its own thread, so that the training waits for no server.
fn post_to(url: String) -> impl FnMut(Event) + Send + 'static {
    move |event| {
        // A failed post is no reason to end the training.
        let json = event.to_json();
        let request = ureq::post(&url).content_type("application/json");
        if let Err(error) = request.send(json) {
            let _ = writeln!(io::stderr(), "'{}' is not posted: {error}", event.name());
        }
    }
}

fn train(
    backup_dir: &Path,
    epochs: usize,
    on_event: impl FnMut(Event) + Send + 'static,
) -> anyhow::Result<()> {
    let device = Device::flex();
    device.seed(SEED);
    let device = device.autodiff();
    let (loader, _) = data::loaders(SEED);
    let loader = loader.to_device(&device);
    let mut t = Trainee {
        model: DigitsModel::new(&device, None),
        optim: AdamConfig::new().init(),
        lr: 1e-3,
    };
    let backup = BackupAndRestore::new(backup_dir)
        .save_freq(20)
        .seed(SEED)
        .delete_checkpoint(epochs == 2)
        .on_event(on_event);
    let mut session = backup.resume(&mut t, &device)?;
    for _ in session.epochs(epochs) {
        let mut batches = session.batches(&loader)?;
        while let Some(batch) = session.next(&mut batches, &t)? {
            let grads = t.model.classify_to_train(batch).loss.backward();
            let grads = GradientsParams::from_grads(grads, &t.model);
            t.model = t.optim.step(t.lr, t.model, grads);
            session.stepped(&t);
        }
        if session.epoch_done(&t).is_stop() {
            break;
        }
    }
    session.finish(&t)?;
    Ok(())
}
