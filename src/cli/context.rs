//! What every command's runner starts from.

use std::io::IsTerminal;

use crate::app::App;
use crate::app::AppError;
use crate::app::change::News;
use crate::cli::failure::{Failure, INTERRUPTED};
use crate::cli::interrupt;
use crate::cli::root::{self, ProgressArg, RootArgs, environment};
use crate::cli::show;
use crate::ui::Ansi;
use crate::ui::progress::ProgressMode;

/// The application, and how to show what it tells.
#[derive(Clone, Debug)]
pub struct Context {
    pub app: App,
    pub ansi: Ansi,
    pub progress: ProgressMode,
}

impl Context {
    /// Reads the environment, once: nothing further in looks at it.
    ///
    /// # Errors
    /// Flags that contradict each other, or no working directory.
    pub fn new(root: &RootArgs) -> Result<Self, Failure> {
        let load = root.load_options()?;
        let environment = environment();
        let roots = root::roots(&environment, &load.working_dir);
        let ansi = root.ansi();
        let progress = progress(root.progress, ansi);
        Ok(Self { app: App { roots, environment, load, dry_run: root.dry_run }, ansi, progress })
    }

    /// How a kind of progress is shown here.
    pub fn mode(&self, progress: ProgressArg) -> ProgressMode {
        self::progress(progress, self.ansi)
    }

    /// Commands that change something outside of any plan.
    ///
    /// # Errors
    /// With `--dry-run`.
    pub fn no_dry_run(&self, command: &str) -> Result<(), Failure> {
        match self.app.dry_run {
            true => Err(Failure::new(format!("`{command}` has no `--dry-run`"))
                .help("commands that change containers, networks and volumes have it")),
            false => Ok(()),
        }
    }

    /// Makes a change, shown on standard error. Ctrl-C ends it.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    pub fn change(
        &self,
        progress: ProgressMode,
        title: &'static str,
        work: impl FnOnce(News<'_>) -> Result<(), AppError> + Send,
    ) -> Result<(), Failure> {
        interrupt::cancels(&self.app)?;
        let made = show::with_progress(progress, title, work);
        let interrupted = interrupt::over();
        made.map_err(|error| if interrupted { Failure::reported(INTERRUPTED) } else { self.failure(error) })
    }

    pub fn failure(&self, error: AppError) -> Failure {
        show::failure(error, self.ansi)
    }
}

fn progress(wanted: ProgressArg, ansi: Ansi) -> ProgressMode {
    let colour = ansi.enabled(std::io::stderr().is_terminal());
    match wanted {
        ProgressArg::Plain => ProgressMode::Plain,
        ProgressArg::Json => ProgressMode::Json,
        ProgressArg::Quiet => ProgressMode::Quiet,
        ProgressArg::Tty => ProgressMode::Terminal { colour },
        ProgressArg::Auto if colour => ProgressMode::Terminal { colour },
        ProgressArg::Auto => ProgressMode::Plain,
    }
}
