//! DDP with Burn's all-reduce, which exists on CUDA only.

#[cfg(feature = "cuda")]
mod found {
    use std::panic::catch_unwind;

    use burn::tensor::distributed::{DistributedConfig, ReduceOperation};
    use burn::tensor::{Device, DeviceType};
    use burn::train::ExecutionStrategy;
    use burn_backup_restore::{BackupAndRestore, BackupExt as _};
    use burn_backup_tests::{Backend, Halt, Run, Training};

    /// The CUDA devices of the machine.
    pub fn devices() -> Vec<Device> {
        catch_unwind(|| Device::enumerate(DeviceType::Cuda).into_vec()).unwrap_or_default()
    }

    fn run(training: &Training, backup: BackupAndRestore, halt: Halt) -> Run {
        let config = DistributedConfig {
            all_reduce_op: ReduceOperation::Mean,
        };
        let ddp = ExecutionStrategy::ddp(training.devices.clone(), config);
        training.run_with(halt, |builder| {
            builder.backup_and_restore(backup.execution(ddp))
        })
    }

    pub fn ends_as_if_uninterrupted(devices: Vec<Device>) {
        let training = Training {
            // With several devices, nothing may be drawn, and nothing may be averaged in no fixed order.
            draws: devices.len() == 1,
            norm: devices.len() == 1,
            devices,
            ..Training::new(Backend::Cuda)
        };
        let fresh = || tempfile::tempdir().unwrap();
        // The first run selects the kernels.
        for _ in 0..2 {
            run(&training, Training::backup(fresh().path()), Halt::Never);
        }
        let expected = run(&training, Training::backup(fresh().path()), Halt::Never);
        assert!(expected.error.is_none(), "{:?}", expected.error);
        for halt in [Halt::Stop(1), Halt::Stop(8), Halt::StopInValidation(8)] {
            let scratch = fresh();
            let backup = || Training::backup(scratch.path()).save_freq(1);
            let stopped = run(&training, backup(), halt);
            assert!(stopped.interrupted.is_some(), "{halt:?}");
            let resumed = run(&training, backup(), Halt::Never);
            assert!(resumed.error.is_none(), "{:?}", resumed.error);
            assert!(resumed.weights == expected.weights, "{halt:?}");
            assert!(resumed.records == expected.records, "{halt:?}");
        }
    }
}

#[test]
fn ddp_on_cuda_ends_as_if_uninterrupted() {
    #[cfg(feature = "cuda")]
    match found::devices() {
        devices if devices.is_empty() => skip("there is no CUDA device"),
        devices => found::ends_as_if_uninterrupted(devices),
    }
    #[cfg(not(feature = "cuda"))]
    skip("it is built without the feature `cuda`");
}

fn skip(reason: &str) {
    burn_backup_tests::report(&format!(
        "DDP with Burn's all-reduce: skipped, for {reason}"
    ));
}
