//! Programs that must succeed or fail, and tests in a process of their own.

use std::env;
use std::process::{Command, Output};

/// Environment variable with the name of the only test of a process.
const ALONE: &str = "TEST_SUPPORT_ALONE";

/// Runs a test in a process of its own, and returns true when it passed there. In that process, returns false at once.
///
/// ```ignore
/// #[test]
/// fn memory_is_given_back() {
///     if passed_alone("memory::memory_is_given_back") {
///         return;
///     }
///     // The body, alone in its process.
/// }
/// ```
///
/// A process has one count of allocations, one stream of random numbers a device, and one end if something aborts: what depends
/// on one of these cannot run beside other tests.
///
/// # Panics
/// If the test fails in its process, with what it printed, and if no test has that name.
#[track_caller]
pub fn passed_alone(test: &str) -> bool {
    if env::var(ALONE).is_ok_and(|name| name == test) {
        return false;
    }
    let output = Command::new(env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(ALONE, test)
        .output()
        .unwrap();
    let printed = text(&output);
    assert!(output.status.success(), "{}\n{printed}", output.status);
    assert!(printed.contains("1 passed"), "no test `{test}`\n{printed}");
    true
}

/// Returns what a program printed, its messages last.
pub fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// Runs a program to its end, asserts success, and returns what it printed, its messages last.
#[track_caller]
pub fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}\n{}", text(&output));
    text(&output)
}

/// Runs a program to its end, and asserts its exit code and that it printed these words.
#[track_caller]
pub fn fail(command: &mut Command, code: i32, words: &[&str]) {
    let output = command.output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in: {text}");
    }
}
