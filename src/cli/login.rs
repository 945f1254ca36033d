//! `login` and `logout`.

use std::io::{self, BufRead, IsTerminal, Read};
use std::os::fd::AsFd;
use std::process::ExitCode;

use clap::Args;

use crate::app::login::registry;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, INTERRUPTED};
use crate::cli::show;
use crate::ui::terminal::{INTERRUPT, RawMode};

#[derive(Args, Clone, Debug, Default)]
pub struct LoginArgs {
    /// Registry, such as `ghcr.io` or `localhost:5000`; Docker Hub when none is named
    #[arg(value_name = "SERVER")]
    server: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    username: Option<String>,
    /// Password or access token; other users of this machine may see it here
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Take the password from standard input
    #[arg(long, requires = "username")]
    password_stdin: bool,
}

#[derive(Args, Clone, Debug, Default)]
pub struct LogoutArgs {
    /// Registry; Docker Hub when none is named
    #[arg(value_name = "SERVER")]
    server: Option<String>,
}

/// # Errors
/// The registry does not accept it, or it cannot be kept.
pub fn run(args: LoginArgs, context: &Context) -> Result<ExitCode, Failure> {
    let registry = registry(args.server.as_deref());
    let failed = |error| context.failure(error);
    let known = context.app.known_user(&registry).map_err(failed)?;
    let user = match args.username {
        Some(user) => user,
        None => {
            let default = known.as_ref().map(|user| format!(" ({user})")).unwrap_or_default();
            let typed = ask(&format!("Username{default}: "), false)?;
            if typed.is_empty() { known.unwrap_or_default() } else { typed }
        }
    };
    let password = match args.password {
        Some(password) => {
            show::warn(
                "a password on the command line can be seen by other users of this machine; use --password-stdin",
            );
            password
        }
        None if args.password_stdin => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).map_err(unreadable)?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => ask("Password: ", true)?,
    };
    if user.is_empty() || password.is_empty() {
        return Err(Failure::new("a user name and a password are needed"));
    }
    if let Some(file) = context.app.login(&registry, &user, &password).map_err(failed)? {
        let place = file.display();
        show::warn(&format!(
            "the password lies in `{place}`, not encrypted; a credential helper (`credsStore`) avoids that"
        ));
    }
    show::lines(["Login Succeeded".to_owned()])
}

/// # Errors
/// What is kept cannot be changed.
pub fn logout(args: &LogoutArgs, context: &Context) -> Result<ExitCode, Failure> {
    let registry = registry(args.server.as_deref());
    match context.app.logout(&registry).map_err(|error| context.failure(error))? {
        true => show::lines([format!("Removing login credentials for {registry}")]),
        false => show::lines([format!("Not logged in to {registry}")]),
    }
}

fn unreadable(error: io::Error) -> Failure {
    Failure::new(format!("cannot read standard input: {error}"))
}

/// Asks for a line; a secret one is not shown while it is typed.
#[expect(clippy::print_stderr, reason = "one of the places where people are told things")]
fn ask(question: &str, secret: bool) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Err(Failure::new("standard input is no terminal").help("give --username and --password-stdin"));
    }
    eprint!("{question}");
    let _silent = if secret { Some(RawMode::silent(stdin.as_fd()).map_err(unreadable)?) } else { None };
    let mut line = String::new();
    stdin.lock().read_line(&mut line).map_err(unreadable)?;
    if secret {
        eprintln!();
    }
    if line.contains(INTERRUPT) {
        return Err(Failure::reported(INTERRUPTED));
    }
    Ok(line.trim().to_owned())
}
