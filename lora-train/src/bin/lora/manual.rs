//! `lora completions` and `lora man`.

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use lora_core::files::{Overwrite, write_file};
use lora_train::TrainError;
use lora_train::progress::{print, print_line};
use std::path::PathBuf;

#[derive(Args)]
pub struct Completions {
    /// Shell.
    shell: Shell,
}

impl Completions {
    pub fn run(&self) -> Result<(), TrainError> {
        // Into memory: on a closed pipe the generator panics.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::Cli::command(), "lora", &mut script);
        print(String::from_utf8_lossy(&script))
    }
}

#[derive(Args)]
pub struct Manual {
    /// Command whose page is printed, such as `train` or `bench step` [default: the program].
    #[arg(value_name = "COMMAND", conflicts_with = "output")]
    command: Vec<String>,
    /// Write the pages of all commands to this directory instead: lora.1, lora-train.1 and so on.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace pages that are there.
    #[arg(long, requires = "output")]
    overwrite: bool,
}

impl Manual {
    pub fn run(&self) -> Result<(), TrainError> {
        let pages = pages()?;
        let Some(dir) = &self.output else {
            let name = format!("lora {}", self.command.join(" "))
                .trim_end()
                .replace(' ', "-");
            let page = pages.iter().find(|(page, _)| *page == format!("{name}.1"));
            let (_, page) = page.ok_or_else(|| {
                let message = format!("is `{}`; `lora --help` lists them", self.command.join(" "));
                TrainError::config("command", message)
            })?;
            return print(String::from_utf8_lossy(page));
        };
        std::fs::create_dir_all(dir).map_err(TrainError::io(dir))?;
        for (name, page) in &pages {
            write_file(&dir.join(name), Overwrite::from(self.overwrite), |file| {
                file.write_all(page)
            })?;
        }
        print_line(format_args!(
            "wrote {} pages to {}",
            pages.len(),
            dir.display()
        ))
    }
}

/// Returns the pages of all commands: names of files and contents.
fn pages() -> Result<Vec<(String, Vec<u8>)>, TrainError> {
    // The long version names the build, and pages do not depend on it.
    let program = super::Cli::command().long_version(None::<&str>);
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let mut pages = Vec::new();
    add_pages(&program, &mut pages)?;
    Ok(pages)
}

fn add_pages(command: &Command, pages: &mut Vec<(String, Vec<u8>)>) -> Result<(), TrainError> {
    let page = Man::new(command.clone());
    let (name, mut text) = (page.get_filename(), Vec::new());
    page.render(&mut text).map_err(TrainError::io(&name))?;
    pages.push((name, text));
    command
        .get_subcommands()
        .try_for_each(|command| add_pages(command, pages))
}
