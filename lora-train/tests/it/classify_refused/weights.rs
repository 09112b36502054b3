//! Weights and heads that are refused.

use super::*;

#[test]
fn hostile_and_broken_weights_are_refused() {
    let place = Place::new();
    let weights = place.bert.join("model.safetensors");
    let bytes = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &bytes[..bytes.len() / 2]).unwrap();
    let words = ["model.safetensors", "bytes of tensors", "download"];
    fail(&mut place.run(&place.bert, &place.fine), 1, &words);
    std::fs::write(&weights, &bytes[..5]).unwrap();
    fail(
        &mut place.run(&place.bert, &place.fine),
        1,
        &["model.safetensors"],
    );
    std::fs::remove_file(&weights).unwrap();
    let words = ["model.safetensors", "pytorch_model.bin", "found none"];
    fail(&mut place.run(&place.bert, &place.fine), 1, &words);

    let models = fixtures().join("../../../lora-models/tests/fixtures");
    let pickle = place.bert.join("pytorch_model.bin");
    let bytes = std::fs::read(models.join("encoders/bert_reg_bin/pytorch_model.bin")).unwrap();
    std::fs::write(&pickle, &bytes[..bytes.len() / 2]).unwrap();
    let words = ["pytorch_model.bin", "does not end with the record"];
    fail(&mut place.run(&place.bert, &place.fine), 1, &words);
    for name in ["value.bin", "root.bin"] {
        std::fs::copy(models.join("hostile").join(name), &pickle).unwrap();
        let words = ["pytorch_model.bin", "`posix.system`", "it was not executed"];
        fail(&mut place.run(&place.bert, &place.fine), 1, &words);
    }
    assert!(!place.at("out").exists());
}

#[test]
fn heads_that_do_not_fit_are_refused_with_the_way_out() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    // A checkpoint with a head for three classes.
    let full = with_tokenizer("roberta", &classify("roberta_full/init"), place.dir.path());
    let words = [
        "3 classes (bad, good, mixed)",
        "2 classes (no, yes)",
        "fresh_head",
    ];
    fail(&mut place.run(&full, fine), 2, &words);
    // Without names their number alone tells, once the weights are known.
    let config = full.join("config.json");
    let named = std::fs::read_to_string(&config).unwrap();
    let mut object: serde_json::Value = serde_json::from_str(&named).unwrap();
    object["id2label"] = serde_json::json!({"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"});
    std::fs::write(&config, object.to_string()).unwrap();
    let words = [
        "`classifier.out_proj",
        "3 outputs",
        "2 labels",
        "fresh_head",
    ];
    fail(&mut place.run(&full, fine), 1, &words);
    succeed(place.run(&full, fine).args(["--fresh-head", "--overwrite"]));
    std::fs::remove_dir_all(place.at("out")).unwrap();

    let adapter = place.adapter();
    let started = |file: &Path, more: &[&str]| {
        let mut command = place.run(bert, file);
        command.arg("--adapter").arg(&adapter).args(more);
        command
    };
    let three = place.write("three.csv", "text,label\na,x\nb,y\nc,z\n");
    // The classes that the adapter has, and how to start others.
    let words = [
        "unknown label `x`",
        "has a head for no, yes",
        "`fresh_head` starts another",
    ];
    fail(&mut started(&three, &[]), 1, &words);
    let words = [
        "option `adapter`",
        "2 classes (no, yes)",
        "3 classes (x, y, z)",
        "fresh_head",
    ];
    fail(&mut started(&three, &["--labels", "x,y,z"]), 2, &words);
    let words = [
        "option `adapter`",
        "2 classes (no, yes)",
        "a score",
        "fresh_head",
    ];
    fail(
        &mut started(&data("scores.jsonl"), &["--task", "regression"]),
        2,
        &words,
    );
    let conll = place.write("words.conll", "Ada yes\nlives no\n");
    let words = [
        "option `adapter`",
        "for texts",
        "token-classification",
        "fresh_head",
    ];
    fail(
        &mut started(&conll, &["--task", "token-classification"]),
        2,
        &words,
    );
    assert!(!place.at("out").exists());
    succeed(&mut started(&three, &["--fresh-head"]));

    // To evaluate and to predict there is no other head.
    let with_adapter = |mut command: Command, more: &[&str]| {
        command.arg("--adapter").arg(&adapter).args(more);
        command
    };
    let words = [
        "option `task`",
        "token-classification",
        "2 classes (no, yes) for texts",
    ];
    let tagged = ["--task", "token-classification"];
    fail(&mut with_adapter(eval(bert, &conll), &tagged), 2, &words);
    fail(
        &mut with_adapter(predict(bert), &[&tagged[..], &["--text", "a"]].concat()),
        2,
        &words,
    );
    let words = ["option `task`", "regression", "2 classes"];
    let scored = ["--task", "regression"];
    fail(
        &mut with_adapter(eval(bert, &data("scores.jsonl")), &scored),
        2,
        &words,
    );
    fail(
        &mut with_adapter(predict(bert), &[&scored[..], &["--text", "a"]].concat()),
        2,
        &words,
    );
    // GLUE's classes go by name.
    let rte = fixtures().join("glue/glue/rte/train.tsv");
    fail(
        &mut with_adapter(eval(bert, &rte), &["--task", "glue/rte"]),
        2,
        &["labels", "entailment"],
    );
    // Merged, the model itself says what its head is for.
    let merged = place.at("merged");
    let mut merge = lora(["merge", "--device", "flex", "--model"]);
    merge.arg(bert).arg("--output").arg(&merged);
    let mut merge = with_adapter(merge, &[]);
    succeed(&mut merge);
    fail(
        eval(&merged, &conll).args(tagged),
        2,
        &["token-classification", "for texts"],
    );
}

#[test]
fn a_model_of_which_something_is_at_random_is_not_used() {
    let place = Place::new();
    let (bert, fine) = (&place.bert, &place.fine);
    let words = ["option `adapter`", "has no classifier", "a merged model"];
    fail(&mut eval(bert, fine), 2, &words);
    fail(predict(bert).args(["--text", "a"]), 2, &words);
    let mut merge = lora(["merge", "--device", "flex", "--model"]);
    merge.arg(bert).arg("--output").arg(place.at("merged"));
    fail(&mut merge, 2, &words);
    assert!(!place.at("merged").exists());

    // PEFT's adapter for DeBERTa without its pooler, as PEFT writes it unless told.
    let v2 = encoder("v2", place.dir.path());
    let bare = place.at("bare");
    let mut command = train(&v2, fine, &place.at("v2"));
    succeed(command.args(["--max-steps", "1"]));
    std::fs::create_dir(&bare).unwrap();
    let trained = place.at("v2").join("adapter");
    let config = std::fs::read_to_string(trained.join("adapter_config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
    config["modules_to_save"] = serde_json::json!(["classifier", "score"]);
    std::fs::write(bare.join("adapter_config.json"), config.to_string()).unwrap();
    let bytes = std::fs::read(trained.join("adapter_model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter(|(name, _)| !name.contains("pooler"));
    let kept: Vec<_> = kept.collect();
    assert_eq!(kept.len() + 2, tensors.len());
    safetensors::serialize_to_file(kept, None, &bare.join("adapter_model.safetensors")).unwrap();
    let words = [
        "neither the checkpoint nor the adapter has `pooler`",
        "modules_to_save",
    ];
    fail(eval(&v2, fine).arg("--adapter").arg(&bare), 1, &words);
    fail(
        predict(&v2)
            .args(["--text", "a"])
            .arg("--adapter")
            .arg(&bare),
        1,
        &words,
    );
    fail(
        place
            .run(&v2, fine)
            .arg("--labels")
            .arg("no,yes")
            .arg("--adapter")
            .arg(&bare),
        1,
        &words,
    );
    assert!(!place.at("out").exists());
}
