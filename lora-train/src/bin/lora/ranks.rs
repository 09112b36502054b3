//! Commands of several ranks: processes of a launcher that work together.

use super::{exit_code, failed};
use lora_train::TrainError;
use lora_train::progress::{Screen, print_message};
use lora_train::trainer::ranks::{Alone, Ranks, finish, join};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread::sleep;
use std::time::Duration;

/// Time in which the first rank reports an error that all ranks have.
const GRACE: Duration = Duration::from_secs(1);

/// Returns the only rank of a process, for a command that several ranks do not share.
pub fn alone() -> Arc<dyn Ranks> {
    Arc::new(Alone)
}

/// Runs a command at this rank. An error at one rank ends all of them.
pub fn run(command: impl FnOnce(&Arc<dyn Ranks>) -> Result<(), TrainError>) -> ExitCode {
    let screen = Screen::detect();
    let ranks = match join(&mut |line| screen.line(&line)) {
        Ok(ranks) => ranks,
        Err(error) => return failed(&error, exit_code(&error)),
    };
    match command(&ranks) {
        Ok(()) => {
            finish();
            ExitCode::SUCCESS
        }
        Err(error) if ranks.is_alone() => {
            finish();
            failed(&error, exit_code(&error))
        }
        Err(error) => {
            let code = exit_code(&error);
            if ranks.is_first() {
                failed(&error, code);
            } else {
                // The first rank ends this process meanwhile if it has the same error.
                sleep(GRACE);
                let (rank, size) = (ranks.rank(), ranks.size());
                print_message(format_args!("error at rank {rank} of {size}: {error}"));
            }
            ranks.abort(code);
            ExitCode::from(code)
        }
    }
}
