//! Outputs at places of all kinds: links, devices, and the directory that one is in.
#![cfg(unix)]

use crate::common::{fail, fixtures, lora, model, succeed};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

fn eval(predictions: &Path) -> Command {
    let mut command = lora(["eval", "--device", "flex", "--max-length", "48", "--model"]);
    command.arg(model()).arg("--data");
    command.arg(fixtures().join("train20/train.jsonl"));
    command.arg("--predictions").arg(predictions);
    command
}

fn merge(at: &Path) -> Command {
    let mut command = lora(["merge", "--device", "flex", "--model"]);
    command.arg(model()).args(["--output", "."]).current_dir(at);
    command
}

#[test]
fn a_link_stays_and_its_target_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (link, target) = (dir.path().join("link"), dir.path().join("target"));
    symlink("target", &link).unwrap();
    succeed(&mut eval(&link));
    assert!(link.is_symlink() && target.is_file());
    fail(&mut eval(&link), 1, &["already exists"]);
    succeed(eval(&link).arg("--overwrite"));
    assert!(link.is_symlink() && target.is_file());
}

#[test]
fn a_device_is_written_into_and_stays() {
    let before = std::fs::metadata("/dev/null").unwrap();
    succeed(&mut eval(Path::new("/dev/null")));
    let after = std::fs::metadata("/dev/null").unwrap();
    assert_eq!(before.file_type(), after.file_type());
    let output = eval(Path::new("/dev/stdout")).output().unwrap();
    let lines = String::from_utf8(output.stdout).unwrap();
    assert!(lines.contains(r#"{"loss":"#), "{lines}");
}

#[test]
fn files_have_the_mode_that_the_umask_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("scores.jsonl");
    let run = format!("umask 027; exec \"$@\" --predictions {}", file.display());
    let eval = eval(Path::new("unused"));
    let mut command = Command::new("sh");
    command.args(["-c", &run, "sh"]).arg(eval.get_program());
    let args: Vec<_> = eval.get_args().collect();
    command.args(&args[..args.len() - 2]);
    succeed(&mut command);
    let mode = file.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
}

#[test]
fn the_directory_that_one_is_in_is_filled_and_stays_itself() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let inode = || dir.path().metadata().unwrap().ino();
    let names = || {
        let entries = std::fs::read_dir(dir.path()).unwrap();
        entries.count()
    };
    let before = inode();
    succeed(&mut merge(dir.path()));
    let written = names();
    assert!(written > 1 && dir.path().join("config.json").exists());
    fail(&mut merge(dir.path()), 1, &["already exists"]);
    succeed(merge(dir.path()).args(["--overwrite", "--dtype", "f16"]));
    assert_eq!((inode(), names()), (before, written));
    // What is no model stays, and is named before the work.
    std::fs::create_dir(dir.path().join("photos")).unwrap();
    fail(
        merge(dir.path()).arg("--overwrite"),
        1,
        &["give an empty directory"],
    );
    assert_eq!(names(), written + 1);
}
