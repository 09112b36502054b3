#!/usr/bin/env python3
"""Packs the three crates as for the registry, and builds a scratch application outside the workspace against the packed files.

Each Rust example of the crates' READMEs is a program of the application, word for word; those without `no_run` are run. The application
has the lock file and the profiles of the workspace, so that nothing but the three crates is compiled again.

    python3 scripts/check_packages.py
"""

import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATES = ["lora-core", "lora-models", "lora-train"]
# Bytes of a packed crate; the registry takes 10 MB.
LIMIT = 1_000_000
NEEDED = {"Cargo.toml", "README.md", "LICENSE-MIT", "LICENSE-APACHE", "src/lib.rs"}
# What nobody needs who builds the crate.
UNWANTED = ("tests/", "benches/", "fuzz/", "examples/")


def cargo(*arguments: str, cwd: Path = ROOT) -> None:
    subprocess.run(["cargo", *arguments], cwd=cwd, check=True)


def target_directory() -> Path:
    """The target directory of the workspace, wherever it is set."""
    command = ["cargo", "metadata", "--offline", "--no-deps", "--format-version", "1"]
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return Path(re.search(r'"target_directory":"([^"]+)"', text).group(1))


def unpack(archive: Path, into: Path, name: str) -> Path:
    """Unpacks a crate, and checks what is in it."""
    size = archive.stat().st_size
    if size > LIMIT:
        raise SystemExit(f"{archive.name} has {size} bytes, more than {LIMIT}: see `include` in {name}/Cargo.toml")
    with tarfile.open(archive) as tar:
        tar.extractall(into, filter="data")
    folder = into / archive.name.removesuffix(".crate")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    missing = NEEDED - files
    unwanted = [file for file in files if file.startswith(UNWANTED)]
    if missing or unwanted:
        raise SystemExit(f"{archive.name} lacks {sorted(missing)}, and should not have {sorted(unwanted)[:5]}")
    print(f"{archive.name}: {len(files)} files, {size / 1000:.0f} KB")
    return folder


def examples(folder: Path, name: str) -> dict[str, tuple[str, bool]]:
    """The Rust examples of a README by a name, with True for those that are run."""
    text = (folder / "README.md").read_text()
    found = re.findall(r"^```rust(,no_run)?\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    if not found:
        raise SystemExit(f"the README of {name} has no example")
    return {f"{name}-{number}": (code, not no_run) for number, (no_run, code) in enumerate(found, 1)}


def manifest(folders: dict[str, Path], programs: list[str]) -> str:
    """The manifest of the application: the crates from the unpacked folders, all else as in the workspace."""
    workspace = (ROOT / "Cargo.toml").read_text()
    burn = re.search(r"^burn = .*$", workspace, re.MULTILINE).group(0)
    burn_train = re.search(r"^burn-train = .*$", workspace, re.MULTILINE).group(0)
    profiles = workspace[workspace.index("[profile.release]") : workspace.index("# Lints, documentation and tests of the backends")]
    # Nothing is measured here, so our crates need no optimization.
    quick = [f"{name} = {{ opt-level = 0 }}" for name in CRATES]
    profiles = "\n".join(line for line in profiles.splitlines() if not line.startswith("lora-"))
    lines = [
        "[workspace]",
        "",
        "[package]",
        'name = "scratch"',
        'version = "0.0.0"',
        'edition = "2024"',
        "",
        "[dependencies]",
        burn,
        burn_train,
        *[f'{name} = {{ path = "{folder}", features = ["flex"] }}' for name, folder in folders.items()],
        "",
        "[patch.crates-io]",
        *[f'{name} = {{ path = "{folder}" }}' for name, folder in folders.items()],
        "",
        profiles,
        *quick,
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    target = target_directory()
    selected = [argument for name in CRATES for argument in ("--package", name)]
    # Nothing is compiled here. `--allow-dirty`: a checkout with changes is checked as it is.
    cargo("package", "--offline", "--no-verify", "--allow-dirty", "--quiet", *selected)
    with tempfile.TemporaryDirectory(prefix="lora-packages-") as folder:
        scratch = Path(folder)
        folders = {}
        programs = {}
        for name in CRATES:
            version = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]["version"]
            folders[name] = unpack(target / "package" / f"{name}-{version}.crate", scratch, name)
            programs |= examples(folders[name], name)
        application = scratch / "application"
        (application / "src/bin").mkdir(parents=True)
        for name, (code, _) in programs.items():
            (application / f"src/bin/{name}.rs").write_text(code)
        (application / "Cargo.toml").write_text(manifest(folders, list(programs)))
        shutil.copy(ROOT / "Cargo.lock", application)
        os.environ["CARGO_TARGET_DIR"] = str(target)
        cargo("build", "--offline", "--release", "--bins", cwd=application)
        for name, (_, run) in programs.items():
            if run:
                subprocess.run([target / "release" / name], cwd=application, check=True)
            (target / "release" / name).unlink()
    print(f"{len(programs)} examples were built against the packages, {sum(run for _, run in programs.values())} were run")


if __name__ == "__main__":
    main()
