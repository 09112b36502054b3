//! What every reader of files is given hostile bytes through: by libFuzzer, and by the test `hostile` of `lora-train`,
//! which replays the corpus.
//!
//! An entry makes files of its input and reads them as the program would. Whatever comes back is right, a value or an
//! error; what is not right is a panic, an abort, more memory than [`memory`] gives, or no end.

pub mod entries;
pub mod memory;

/// An entry by the name of its target and its folder in the corpus.
pub struct Entry {
    /// The name.
    pub name: &'static str,
    /// Reads an input.
    pub run: fn(&[u8]),
}

/// All of them.
pub const ENTRIES: &[Entry] = &[
    Entry {
        name: "safetensors",
        run: entries::safetensors,
    },
    Entry {
        name: "peft",
        run: entries::peft,
    },
    Entry {
        name: "torch_file",
        run: entries::torch_file,
    },
    Entry {
        name: "pickle",
        run: entries::pickle,
    },
    Entry {
        name: "shards",
        run: entries::shards,
    },
    Entry {
        name: "loralib",
        run: entries::loralib,
    },
    Entry {
        name: "mlx",
        run: entries::mlx,
    },
    Entry {
        name: "model_config",
        run: entries::model_config,
    },
    Entry {
        name: "tokenizer",
        run: entries::tokenizer,
    },
    Entry {
        name: "data",
        run: entries::data,
    },
];

/// The main function of a target.
#[macro_export]
macro_rules! target {
    ($entry:ident) => {
        #[global_allocator]
        static MEMORY: lora_fuzz::memory::Bounded = lora_fuzz::memory::Bounded;

        libfuzzer_sys::fuzz_target!(
            // libFuzzer's hook ends the process at any panic, and those of the `tokenizers` crate are caught by its
            // caller. What nobody catches ends it still.
            init: {
                let _ = std::panic::take_hook();
                std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
            },
            |input: &[u8]| lora_fuzz::entries::$entry(input)
        );
    };
}
