//! Models by name, from servers made here that speak the Hub's protocol: one that has the models, and one to which it
//! redirects for the contents of large files.

use crate::hub_server::{COMMIT, Fault, Hub, NEW_COMMIT, Repo};
use lora_models::ModelError;
use lora_models::checkpoint::Checkpoint;
use lora_models::hub::{HubOptions, resolve};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures");

/// A model of the fixtures, as the repository `org/model`.
fn fixture(name: &str) -> Repo {
    Repo::of_dir("org/model", &Path::new(FIXTURES).join(name))
}

fn get(name: &str, options: &HubOptions) -> Result<PathBuf, ModelError> {
    resolve(name, options, &mut |_, _, _| ())
}

#[track_caller]
fn error(name: &str, options: &HubOptions) -> String {
    get(name, options).unwrap_err().to_string()
}

/// All files below a directory, by their paths in it; a link counts as what it leads to.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(at) = open.pop() {
        for entry in fs::read_dir(at).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                found.push(
                    path.strip_prefix(dir)
                        .unwrap()
                        .to_str()
                        .unwrap()
                        .to_string(),
                );
            }
        }
    }
    found.sort();
    found
}

/// The unfinished files of a cache.
fn parts(cache: &Path) -> Vec<PathBuf> {
    let all = files(cache)
        .into_iter()
        .filter(|name| name.ends_with(".part"));
    all.map(|name| cache.join(name)).collect()
}

/// Asserts that a failed download leaves no revision, no weights, and nothing outside of the model's folders.
#[track_caller]
fn assert_nothing_is_half_there(cache: &Path) {
    for name in files(cache) {
        let weights = name.contains("snapshots")
            && (name.ends_with(".safetensors") || name.ends_with(".bin"));
        let stray = !name.starts_with("models--org--model/") && !name.starts_with(".locks/");
        assert!(!weights && !stray && !name.contains("/refs/"), "{name}");
    }
}

#[test]
fn a_model_is_downloaded_and_then_needs_no_server() {
    let repo = fixture("gpt2_tied");
    let hub = Hub::start(repo.clone());
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());

    let mut seen: Vec<(String, u64, u64)> = Vec::new();
    let snapshot = resolve("org/model", &options, &mut |file, done, total| {
        seen.push((file.to_string(), done, total));
    })
    .unwrap();
    assert_eq!(
        snapshot,
        cache
            .path()
            .join("models--org--model/snapshots")
            .join(COMMIT)
    );
    for name in [
        "config.json",
        "tokenizer.json",
        "vocab.json",
        "merges.txt",
        "model.safetensors",
    ] {
        assert_eq!(
            fs::read(snapshot.join(name)).unwrap(),
            repo.files[name],
            "{name}"
        );
    }
    // What is no part of a model stays where it is.
    assert!(repo.files.contains_key("expected.safetensors"));
    assert!(!snapshot.join("expected.safetensors").exists());
    assert!(Checkpoint::open(&snapshot).unwrap().len() > 10);
    let reference = cache.path().join("models--org--model/refs/main");
    assert_eq!(fs::read_to_string(reference).unwrap(), COMMIT);
    assert_eq!(parts(cache.path()), Vec::<PathBuf>::new());

    // The weights come last, and their bytes are counted up to all of them.
    let size = repo.files["model.safetensors"].len() as u64;
    let weights: Vec<_> = seen
        .iter()
        .filter(|(file, _, _)| file == "model.safetensors")
        .collect();
    assert_eq!(weights.first().map(|(_, done, _)| *done), Some(0));
    assert!(weights.is_sorted_by_key(|(_, done, _)| *done));
    assert_eq!(
        seen.last(),
        Some(&("model.safetensors".to_string(), size, size))
    );

    // With the server, only the question for the commit; without it, none.
    hub.forget_requests();
    assert_eq!(get("org/model", &options).unwrap(), snapshot);
    assert_eq!(hub.requests(), ["GET /api/models/org/model/revision/main"]);
    assert_eq!(
        get("org/model", &options.clone().offline()).unwrap(),
        snapshot
    );
    drop(hub);
    assert_eq!(get("org/model", &options).unwrap(), snapshot);
    assert!(error("org/other", &options).contains("cannot be reached"));
    assert!(error("org/other", &options.clone().offline()).contains("HF_HUB_OFFLINE"));
}

#[test]
fn a_full_commit_in_the_cache_is_not_asked_for() {
    let hub = Hub::start(fixture("gpt2_tied"));
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let name = format!("org/model@{COMMIT}");
    let snapshot = get(&name, &options).unwrap();
    hub.forget_requests();
    assert_eq!(get(&name, &options).unwrap(), snapshot);
    assert_eq!(hub.requests(), Vec::<String>::new());
}

#[test]
fn a_new_commit_is_downloaded_with_the_files_that_changed() {
    let mut repo = fixture("gpt2_tied");
    let hub = Hub::start(repo.clone());
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let old = get("org/model", &options).unwrap();

    repo.commit = NEW_COMMIT.to_string();
    repo.files
        .insert("config.json".to_string(), b"{\"new\": 1}".to_vec());
    hub.serve(repo);
    hub.forget_requests();
    let new = get("org/model", &options).unwrap();
    assert_ne!(old, new);
    assert_eq!(fs::read(new.join("config.json")).unwrap(), b"{\"new\": 1}");
    let gets: Vec<String> = hub
        .requests()
        .into_iter()
        .filter(|r| r.starts_with("GET"))
        .collect();
    assert_eq!(gets.len(), 2, "the list and the new file: {gets:?}");
    assert!(Checkpoint::open(&new).is_ok() && Checkpoint::open(&old).is_ok());
}

#[test]
fn a_renamed_model_is_followed_and_the_token_stays_with_the_server() {
    let mut repo = fixture("gpt2_tied");
    repo.old_id = Some("short".to_string());
    repo.token = Some("hf_secret".to_string());
    let hub = Hub::start(repo);
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path()).with_token("hf_secret");
    let snapshot = get("short", &options).unwrap();
    assert_eq!(
        snapshot,
        cache.path().join("models--short/snapshots").join(COMMIT)
    );
    assert!(
        hub.tokens()
            .iter()
            .all(|token| token.as_deref() == Some("Bearer hf_secret"))
    );
    let storage = hub.storage_tokens();
    assert_eq!(storage, [None], "the token went to another server");
}

#[test]
fn a_connection_that_drops_is_gone_on_with() {
    let repo = fixture("gpt2_tied");
    let hub = Hub::start(repo.clone());
    hub.fail([Fault::Cut(1000), Fault::Cut(500)]);
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let snapshot = get("org/model", &options).unwrap();
    assert_eq!(hub.ranges(), [None, Some(1000), Some(1500)]);
    let weights = fs::read(snapshot.join("model.safetensors")).unwrap();
    assert_eq!(weights, repo.files["model.safetensors"]);
}

#[test]
fn a_download_given_up_goes_on_at_the_next_call() {
    let repo = fixture("gpt2_tied");
    let hub = Hub::start(repo.clone());
    hub.fail([
        Fault::Cut(700),
        Fault::Cut(0),
        Fault::Cut(0),
        Fault::Cut(0),
        Fault::Cut(0),
    ]);
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let message = error("org/model", &options);
    assert!(
        message.contains("model.safetensors broke off after 700 of"),
        "{message}"
    );
    assert_nothing_is_half_there(cache.path());
    let part = parts(cache.path());
    assert_eq!(part.len(), 1, "{part:?}");
    assert_eq!(
        fs::read(&part[0]).unwrap(),
        repo.files["model.safetensors"][..700]
    );

    hub.forget_requests();
    let mut first = None;
    let snapshot = resolve("org/model", &options, &mut |_, done, _| {
        first.get_or_insert(done);
    })
    .unwrap();
    assert_eq!((first, hub.ranges()), (Some(700), vec![Some(700)]));
    let weights = fs::read(snapshot.join("model.safetensors")).unwrap();
    assert_eq!(weights, repo.files["model.safetensors"]);
    assert_eq!(parts(cache.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_server_without_ranges_and_one_that_sends_another_are_asked_for_the_whole() {
    for fault in [Fault::WholeFile, Fault::OtherRange, Fault::RangeRefused] {
        let repo = fixture("gpt2_tied");
        let hub = Hub::start(repo.clone());
        hub.fail([Fault::Cut(1000), fault]);
        let cache = tempfile::tempdir().unwrap();
        let snapshot = get("org/model", &HubOptions::new(hub.url(), cache.path())).unwrap();
        let weights = fs::read(snapshot.join("model.safetensors")).unwrap();
        assert_eq!(weights, repo.files["model.safetensors"], "{fault:?}");
    }
}

#[test]
fn a_file_of_another_length_or_content_than_announced_is_not_kept() {
    for (fault, expected) in [
        (Fault::Shorter, "another length"),
        (Fault::Longer, "another length"),
        (Fault::LongerUnannounced, "another length"),
        (Fault::Damaged, "SHA-256"),
    ] {
        let repo = fixture("gpt2_tied");
        let hub = Hub::start(repo.clone());
        hub.fail([fault]);
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions::new(hub.url(), cache.path());
        let message = error("org/model", &options);
        assert!(
            message.contains(expected) && message.contains("model.safetensors"),
            "{fault:?}: {message}"
        );
        assert_nothing_is_half_there(cache.path());
        // And does not stand in the way.
        let snapshot = get("org/model", &options).unwrap();
        let weights = fs::read(snapshot.join("model.safetensors")).unwrap();
        assert_eq!(weights, repo.files["model.safetensors"], "{fault:?}");
    }
}

#[test]
fn what_may_not_be_read_says_how_it_could_be() {
    let mut repo = fixture("gpt2_tied");
    repo.token = Some("hf_secret".to_string());
    let hub = Hub::start(repo.clone());
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());

    let message = error("org/model", &options);
    assert!(
        message.contains("model `org/model`") && message.contains("set HF_TOKEN"),
        "{message}"
    );
    let message = error("org/model", &options.clone().with_token("hf_wrong"));
    assert!(message.contains("does not accept the token"), "{message}");
    let message = error("org/model", &options.clone().with_token("two words"));
    assert!(
        message.contains("token") && !message.contains("two words"),
        "{message}"
    );
    let message = error("org/none", &options);
    assert!(
        message.contains("no such model on") && message.contains("private"),
        "{message}"
    );
    let message = error("org/model@v9", &options.clone().with_token("hf_secret"));
    assert!(message.contains("no revision `v9`"), "{message}");

    // Listed for all, and read by those who were granted it.
    repo.token = None;
    repo.gated = true;
    hub.serve(repo);
    let message = error("org/model", &options);
    assert!(
        message.contains("access must be requested") && message.contains("/org/model"),
        "{message}"
    );
    assert_nothing_is_half_there(cache.path());
}

#[test]
fn shards_are_downloaded_as_their_index_names_them() {
    let hub = Hub::start(fixture("gpt2_tied_sharded"));
    let cache = tempfile::tempdir().unwrap();
    let snapshot = get("org/model", &HubOptions::new(hub.url(), cache.path())).unwrap();
    let checkpoint = Checkpoint::open(&snapshot).unwrap();
    assert_eq!(checkpoint.files().count(), 4);
}

#[test]
fn pickles_are_downloaded_only_if_there_is_nothing_else() {
    let mut repo = fixture("gpt2_tied_bin");
    let hub = Hub::start(repo.clone());
    let cache = tempfile::tempdir().unwrap();
    let snapshot = get("org/model", &HubOptions::new(hub.url(), cache.path())).unwrap();
    assert!(Checkpoint::open(&snapshot).unwrap().source().is_pickle());

    let safe = fixture("gpt2_tied").files["model.safetensors"].clone();
    repo.files.insert("model.safetensors".to_string(), safe);
    hub.serve(repo);
    let cache = tempfile::tempdir().unwrap();
    let snapshot = get("org/model", &HubOptions::new(hub.url(), cache.path())).unwrap();
    assert!(!snapshot.join("pytorch_model.bin").exists());
}

#[test]
fn an_index_that_names_files_elsewhere_is_refused() {
    for shard in [
        "../../../../outside.safetensors",
        "/outside.safetensors",
        "a/b.safetensors",
        "config.json",
    ] {
        let mut repo = fixture("gpt2_tied_sharded");
        let index = format!(r#"{{"weight_map": {{"wte.weight": "{shard}"}}}}"#);
        repo.files.insert(
            "model.safetensors.index.json".to_string(),
            index.into_bytes(),
        );
        repo.files.insert(shard.to_string(), b"x".to_vec());
        let hub = Hub::start(repo);
        let cache = tempfile::tempdir().unwrap();
        let result = get("org/model", &HubOptions::new(hub.url(), cache.path()));
        assert!(
            matches!(result, Err(ModelError::Malformed { .. })),
            "{shard}: {result:?}"
        );
        assert_nothing_is_half_there(cache.path());
    }
}

#[test]
fn commits_and_etags_that_lead_elsewhere_are_refused() {
    let cache = tempfile::tempdir().unwrap();
    let mut repo = fixture("gpt2_tied");
    repo.commit = "../../../x".to_string();
    let hub = Hub::start(repo.clone());
    let options = HubOptions::new(hub.url(), cache.path());
    let message = error("org/model", &options);
    assert!(message.contains("the commit is"), "{message}");
    assert_eq!(files(cache.path()), Vec::<String>::new());

    repo.commit = COMMIT.to_string();
    repo.etag = Some("../../../x".to_string());
    hub.serve(repo);
    let message = error("org/model", &options);
    assert!(
        message.contains("no usable ETag for config.json"),
        "{message}"
    );
    assert_nothing_is_half_there(cache.path());
}

#[test]
fn what_is_no_model_names_what_it_lacks() {
    let mut repo = fixture("gpt2_tied");
    repo.files.remove("model.safetensors");
    repo.files.insert("tf_model.h5".to_string(), b"x".to_vec());
    let hub = Hub::start(repo.clone());
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let message = error("org/model", &options);
    assert!(message.contains("none of model.safetensors"), "{message}");
    repo.files.remove("config.json");
    hub.serve(repo);
    let message = error("org/model", &options);
    assert!(message.contains("no config.json"), "{message}");
}

#[test]
fn a_server_out_of_order_is_as_good_as_none() {
    let mut repo = fixture("gpt2_tied");
    let hub = Hub::start(repo.clone());
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let snapshot = get("org/model", &options).unwrap();
    repo.down = true;
    hub.serve(repo);
    assert_eq!(get("org/model", &options).unwrap(), snapshot);
    let message = error("org/model@other", &options);
    assert!(
        message.contains("cannot be reached") && message.contains("503"),
        "{message}"
    );
}

#[test]
fn two_at_a_time_download_once() {
    let hub = Hub::start(fixture("gpt2_tied"));
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let (first, second) = std::thread::scope(|scope| {
        let [first, second] = [(); 2].map(|()| scope.spawn(|| get("org/model", &options).unwrap()));
        (first.join().unwrap(), second.join().unwrap())
    });
    assert_eq!(first, second);
    assert_eq!(
        hub.ranges(),
        [None],
        "the weights were asked for more than once"
    );
}

#[test]
fn an_address_that_is_none_and_certificates_that_are_none_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let message = error("org/model", &HubOptions::new("huggingface.co", dir.path()));
    assert!(message.contains("HF_ENDPOINT"), "{message}");
    let file = dir.path().join("certificates.pem");
    fs::write(&file, "none\n").unwrap();
    let options = HubOptions::new("https://127.0.0.1:1", dir.path()).with_certificates(&file);
    let message = error("org/model", &options);
    assert!(message.contains("certificates.pem"), "{message}");
}

#[test]
fn a_pinned_commit_is_that_commit_and_no_other() {
    let mut repo = fixture("gpt2_tied");
    repo.any_revision = true;
    repo.commit = NEW_COMMIT.to_string();
    let hub = Hub::start(repo);
    let cache = tempfile::tempdir().unwrap();
    let options = HubOptions::new(hub.url(), cache.path());
    let message = error(&format!("org/model@{COMMIT}"), &options);
    let expected = format!("commit {NEW_COMMIT} in place of {COMMIT}");
    assert!(message.contains(&expected), "{message}");
    assert_eq!(files(cache.path()), Vec::<String>::new());
    get(&format!("org/model@{NEW_COMMIT}"), &options).unwrap();
}

#[test]
fn a_small_file_must_have_the_hash_that_git_gives_it() {
    for name in ["config.json", "tokenizer.json", "merges.txt"] {
        let mut repo = fixture("gpt2_tied");
        repo.damaged = Some(name.to_string());
        let hub = Hub::start(repo.clone());
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions::new(hub.url(), cache.path());
        let message = error("org/model", &options);
        assert!(
            message.contains(&format!("{name} has another git hash")),
            "{message}"
        );
        assert_nothing_is_half_there(cache.path());
        assert_eq!(parts(cache.path()), Vec::<PathBuf>::new());
        repo.damaged = None;
        hub.serve(repo.clone());
        let snapshot = get("org/model", &options).unwrap();
        assert_eq!(fs::read(snapshot.join(name)).unwrap(), repo.files[name]);
    }
}

#[test]
fn the_token_is_not_sent_without_encryption_to_another_machine() {
    let cache = tempfile::tempdir().unwrap();
    for endpoint in [
        "http://192.0.2.1",
        "http://mirror.invalid:8080/",
        "http://localhost:80@mirror.invalid",
    ] {
        let options = HubOptions::new(endpoint, cache.path()).with_token("hf_secret");
        let message = error("org/model", &options);
        assert!(
            message.contains("without encryption") && message.contains("https://"),
            "{message}"
        );
        assert!(!message.contains("hf_secret"), "{message}");
    }
}

#[test]
fn weights_that_are_announced_larger_than_any_are_refused() {
    let mut repo = fixture("gpt2_tied");
    repo.size = Some(1 << 50);
    let hub = Hub::start(repo);
    let cache = tempfile::tempdir().unwrap();
    let message = error("org/model", &HubOptions::new(hub.url(), cache.path()));
    assert!(
        message.contains("model.safetensors has 1125899906842624 bytes; the limit"),
        "{message}"
    );
    assert_eq!(hub.ranges(), []);
    assert_nothing_is_half_there(cache.path());
}

#[test]
fn a_download_that_stalls_ends_and_goes_on_at_the_next_call() {
    // A byte now and then, within the time for a read, and none at all, again and again.
    for faults in [
        vec![Fault::Trickle(100)],
        vec![Fault::Silence(1), Fault::Silence(1), Fault::Silence(1)],
        vec![Fault::Silence(700); 5],
    ] {
        let repo = fixture("gpt2_tied");
        let hub = Hub::start(repo.clone());
        hub.fail(faults.clone());
        let cache = tempfile::tempdir().unwrap();
        let limit = Duration::from_secs(2);
        let options = HubOptions::new(hub.url(), cache.path()).with_time_limit(limit);
        let start = Instant::now();
        let message = error("org/model", &options);
        assert!(
            message.contains("the download of model.safetensors stalled after"),
            "{faults:?}: {message}"
        );
        // A read may take the whole limit, and so may the one before.
        assert!(
            start.elapsed() < 4 * limit,
            "{faults:?}: {:?}",
            start.elapsed()
        );
        assert_nothing_is_half_there(cache.path());
        hub.forget_faults();
        let options = HubOptions::new(hub.url(), cache.path());
        let snapshot = get("org/model", &options).unwrap();
        let weights = fs::read(snapshot.join("model.safetensors")).unwrap();
        assert_eq!(weights, repo.files["model.safetensors"], "{faults:?}");
    }
}
