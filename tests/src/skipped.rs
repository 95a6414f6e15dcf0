use std::io::Write;

/// Says on standard error that something was not tested. libtest captures what `eprintln!` prints, and shows it of failed tests
/// only; what is written to the stream itself it leaves alone, so that a skip is seen in every run.
pub fn skipped(what: &str) {
    let _ = std::io::stderr().lock().write_all(format!("skipped: {what}\n").as_bytes());
}
