//! Rows of single tokens that are trained: PEFT's `trainable_token_indices`.

use burn::module::Module;
use burn::nn::EmbeddingConfig;
use burn::tensor::{Device, Int, Tensor};
use lora_core::file::PeftOptions;
use lora_core::files::Overwrite;
use lora_core::{
    Architecture, LoraConfig, LoraEmbedding, LoraError, LoraLinear, LoraLinearConfig,
    TargetModules, attach, file, merge, weight_errors,
};
use test_support::fill::Fill;
use test_support::tensors::host;

#[derive(Module, Debug)]
struct Tied {
    wte: LoraEmbedding,
    hidden: LoraLinear,
}

impl Tied {
    fn new(device: &Device) -> Self {
        Self {
            wte: EmbeddingConfig::new(9, 6).init(device).into(),
            hidden: LoraLinearConfig::new(6, 6).init(device),
        }
    }

    fn logits(&self, device: &Device) -> Vec<f32> {
        let ids = Tensor::<2, Int>::from_ints([[3, 1, 7, 2]], device);
        host(
            self.wte
                .tied_logits(self.hidden.forward(self.wte.forward(ids))),
        )
    }
}

fn config() -> LoraConfig {
    LoraConfig::new(2)
        .with_targets(TargetModules::names(["hidden"]))
        .with_token_indices([7, 3])
}

#[test]
fn rows_replace_those_of_both_ends_and_come_back_from_files() {
    let device = Device::flex();
    let base = Tied::new(&device);
    let adapted = attach(base.clone(), &config()).unwrap();
    assert_eq!(adapted.report().token_parameters(), 2 * 6);
    // They start as the rows of the base.
    assert_eq!(adapted.module().logits(&device), base.logits(&device));
    let before = host(base.wte.weight.val());
    let adapted = adapted.map(|model| Fill::adapters().map(model));
    let weight = host(adapted.module().wte.weight.val());
    for (id, (own, base)) in weight.chunks(6).zip(before.chunks(6)).enumerate() {
        assert_eq!(own != base, id == 7 || id == 3, "token {id}");
    }
    let logits = adapted.module().logits(&device);
    assert_ne!(logits, base.logits(&device));

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("adapter");
    let options = PeftOptions::default();
    adapted.save(&path, &options, Overwrite::Refuse).unwrap();
    let read = file::load(base, &path, &Architecture::default()).unwrap();
    assert_eq!(read.module().logits(&device), logits);

    let (model, report) = read.into_parts();
    let merged = merge(model.clone()).into_module();
    assert_eq!(host(merged.wte.weight.val()), weight);
    let errors = weight_errors(&model, &report, &merged).unwrap();
    assert_eq!(errors.len(), 2);
    assert_eq!(
        (errors[1].module.as_str(), errors[1].absolute),
        ("wte", 0.0)
    );
}

#[test]
fn tokens_that_cannot_be_trained_are_refused() {
    let base = Tied::new(&Device::flex());
    let refused = |config: LoraConfig| attach(base.clone(), &config).unwrap_err().to_string();
    assert!(refused(config().with_token_indices([9])).contains("token 9"));
    assert!(refused(config().with_token_indices([2, 2])).contains("2 twice"));
    assert!(refused(config().with_token_indices([])).contains("token_indices"));
    let twice = config().with_targets(TargetModules::names(["hidden", "wte"]));
    assert!(refused(twice).contains("name it once"));
    let twice = config().with_modules_to_save(["wte"]);
    assert!(refused(twice).contains("name it once"));
    let mut elsewhere = config();
    elsewhere.token_indices[0].module = Some("hidden".into());
    let error = attach(base.clone(), &elsewhere);
    assert!(matches!(error, Err(LoraError::NoMatch { .. })), "{error:?}");
}
