use std::fs::File;
use std::io::Write as _;

/// Shows a figure on the standard error of the process that runs the tests, even if the test passes.
///
/// A test with `test_fork::test` runs in a process of its own, whose standard error is captured. On
/// Linux the figure goes to the parent's instead, which should be a terminal or a pipe: in a file, the
/// parent writes over it. Elsewhere it is shown only if the test fails.
pub fn report(figure: &str) {
    match parents_standard_error() {
        // A test doesn't fail because a figure can't be shown.
        Some(mut file) => drop(file.write_all(format!("{figure}\n").as_bytes())),
        None => burn_backup_store::testing::report(figure),
    }
}

fn parents_standard_error() -> Option<File> {
    std::env::var_os("TEST_FORK_OCCURS")?;
    #[cfg(target_os = "linux")]
    {
        let parent = std::os::unix::process::parent_id();
        let path = format!("/proc/{parent}/fd/2");
        File::options().append(true).open(path).ok()
    }
    #[cfg(not(target_os = "linux"))]
    None
}
