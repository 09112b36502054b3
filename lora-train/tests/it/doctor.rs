//! `lora doctor` and `--verify-device` from the outside.

use crate::common::{fail, fixtures, lora, succeed, text, train};
use serde_json::Value;

#[test]
fn the_cpu_is_examined_and_the_report_is_a_json_object() {
    let output = succeed(&mut lora(["doctor", "--device", "flex"]));
    for word in [
        "lora_linear",
        "GFLOP/s",
        "GB/s",
        "deberta-v2",
        "verdict          ok",
    ] {
        assert!(output.contains(word), "{word}: {output}");
    }
    let output = lora(["doctor", "--device", "flex", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["verdict"], "ok");
    assert_eq!(report["operations"][0]["error"], 0.0);
    assert_eq!(report["models"].as_array().unwrap().len(), 8);
    assert_eq!(report["device"]["types"]["f16"], true);

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("report.json");
    let mut command = lora(["doctor", "--device", "flex", "--time-limit", "0", "--json"]);
    // No time for any check: that is no failure, but said.
    let printed = succeed(command.arg(&path));
    assert!(printed.contains("ok so far; not run: linear"), "{printed}");
    let report: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(report["verdict"], "incomplete");
    assert_eq!(report["steps"][0]["status"], "skipped");
}

#[test]
fn a_backend_that_is_not_compiled_in_is_refused() {
    fail(
        &mut lora(["doctor", "--device", "rocm"]),
        2,
        &["rocm", "--features", "flex"],
    );
}

#[test]
fn the_first_step_is_compared_with_the_cpu_if_asked() {
    let dir = tempfile::tempdir().unwrap();
    let data = fixtures().join("train20/train.jsonl");
    for packing in [false, true] {
        let mut command = train(&data, &dir.path().join(format!("{packing}")));
        command.args(["--max-steps", "1", "--verify-device"]);
        if packing {
            command.arg("--packing");
        }
        let output = succeed(&mut command);
        assert!(
            output.contains("the first step agrees with the CPU"),
            "{output}"
        );
    }
    // A CPU is not compared unless asked.
    let mut command = train(&data, &dir.path().join("plain"));
    let output = succeed(command.args(["--max-steps", "1"]));
    assert!(!output.contains("agrees with the CPU"), "{output}");
}
