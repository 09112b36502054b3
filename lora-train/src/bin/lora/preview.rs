//! `lora preview`.

use lora_train::TrainError;
use lora_train::jobs::{PreviewOptions, preview};
use lora_train::progress::{Screen, print_pieces};

pub fn run(options: &PreviewOptions) -> Result<(), TrainError> {
    let preview = preview(options, &Screen::detect())?;
    if options.json {
        return super::print_report(&preview, true);
    }
    print_pieces(&preview.pieces(options.text), options.color)
}
