#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    icecore_fuzz::targets::run("undelta", input);
});
