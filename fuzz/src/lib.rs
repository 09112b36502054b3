//! Entries through which every reader of files gets hostile bytes: libFuzzer calls them (`scripts/fuzz.sh`), and so does the
//! test module `hostile` of `lora-train`, with the corpus and its mutants.
//!
//! An entry makes files of its input and reads them as the program would. A value and an error are both right; a panic, an
//! abort, more memory than [`memory`] allows, or no end are not.

mod applied;
pub mod entries;
mod hub;
mod hub_push;
pub mod input;
pub mod memory;
mod server;

pub use server::TIME_LIMIT_MS;

/// Reader of files with the name of its target, which is also its folder in the corpus.
pub struct Entry {
    /// Name of the target.
    pub name: &'static str,
    /// Function that reads an input, and returns true if it came to a value.
    pub run: fn(&[u8]) -> bool,
}

/// All entries.
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
        name: "chat_template",
        run: entries::chat_template,
    },
    Entry {
        name: "tokenizer",
        run: entries::tokenizer,
    },
    Entry {
        name: "data",
        run: entries::data,
    },
    Entry {
        name: "checkpoint_dir",
        run: entries::checkpoint_dir,
    },
    Entry {
        name: "hub",
        run: entries::hub,
    },
    Entry {
        name: "hub_push",
        run: entries::hub_push,
    },
    Entry {
        name: "attached",
        run: entries::attached,
    },
    Entry {
        name: "prefix",
        run: entries::prefix,
    },
    Entry {
        name: "glue",
        run: entries::glue,
    },
    Entry {
        name: "tokenizer_text",
        run: entries::tokenizer_text,
    },
];

/// Defines the main function of a target.
#[macro_export]
macro_rules! target {
    ($entry:ident) => {
        #[global_allocator]
        static MEMORY: lora_fuzz::memory::Bounded<std::alloc::System> =
            lora_fuzz::memory::Bounded(std::alloc::System);

        libfuzzer_sys::fuzz_target!(
            // libFuzzer's hook ends the process at any panic, and those of the `tokenizers` crate are caught by its
            // caller. A panic that nobody catches still ends it.
            init: {
                lora_fuzz::memory::bound();
                let _ = std::panic::take_hook();
                std::panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
            },
            |input: &[u8]| {
                lora_fuzz::entries::$entry(input);
            }
        );
    };
}
