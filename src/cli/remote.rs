//! What is asked before something that lies elsewhere is run.

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::show;
use crate::ui::tables;

/// Shows where a project from elsewhere is kept, what else it brings, and which variables it reads, and asks whether to go on. A
/// project whose first file lies on this machine is its author's own affair.
///
/// # Errors
/// The answer is no.
pub fn confirm(context: &Context) -> Result<(), Failure> {
    let Some(elsewhere) = context.app.elsewhere().map_err(|error| context.failure(error))? else { return Ok(()) };
    if !elsewhere.brought.is_empty() {
        let list: String = elsewhere.brought.iter().map(|address| format!("  - {address}\n")).collect();
        show::say(&format!(
            "\nWarning: This Compose project includes files from remote sources:\n{list}\nRemote includes could \
             potentially be malicious. Make sure you trust the source."
        ));
        if !show::confirmed("Do you want to continue? [y/N]: ")? {
            return Err(cancelled());
        }
    }
    show::say(&format!("Your compose stack \"{}\" is stored in \"{}\"", elsewhere.address, elsewhere.folder.display()));
    if elsewhere.variables.is_empty() {
        return Ok(());
    }
    let table = tables::sourced_variables(&elsewhere.variables);
    show::say(&format!("\nFound the following variables in configuration:\n{table}"));
    match show::agreed("Do you want to proceed with these variables? [Y/n]: ")? {
        true => Ok(()),
        false => Err(cancelled()),
    }
}

fn cancelled() -> Failure {
    Failure::new("operation cancelled by user")
}
