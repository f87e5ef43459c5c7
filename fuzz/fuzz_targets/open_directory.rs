#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| burn_backup_fuzz::open_directory(data));
