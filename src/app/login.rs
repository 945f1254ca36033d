//! Who one is to registries.

use crate::app::{App, AppError};
use crate::registry::Credentials;

/// Where Docker Hub is meant when nothing is said.
const DEFAULT: &str = "docker.io";

/// The registry of a command line argument, which may be a URL.
pub fn registry(argument: Option<&str>) -> String {
    let Some(text) = argument else { return DEFAULT.to_owned() };
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = rest.split('/').next().unwrap_or(rest);
    if matches!(host, "index.docker.io" | "registry-1.docker.io" | "") { DEFAULT.to_owned() } else { host.to_owned() }
}

impl App {
    /// Proves who one is to a registry, and keeps that for later. Whether the password now lies readably in a file, and in
    /// which.
    ///
    /// # Errors
    /// The registry does not accept it or cannot be reached; the file or the helper cannot be written.
    pub fn login(&self, registry: &str, user: &str, password: &str) -> Result<Option<std::path::PathBuf>, AppError> {
        let registries = self.registries()?;
        let credentials = Credentials::Password { user: user.to_owned(), password: password.to_owned() };
        registries.check(registry, &credentials)?;
        let file = registries.credentials();
        Ok(file.set(registry, &credentials)?.then(|| file.path().to_owned()))
    }

    /// Forgets who one is to a registry. Whether that was known.
    ///
    /// # Errors
    /// The file or the helper cannot be written.
    pub fn logout(&self, registry: &str) -> Result<bool, AppError> {
        Ok(self.registries()?.credentials().remove(registry)?)
    }

    /// The user name that is kept for a registry.
    ///
    /// # Errors
    /// The file or the helper cannot be read.
    pub fn known_user(&self, registry: &str) -> Result<Option<String>, AppError> {
        Ok(match self.registries()?.credentials().get(registry)? {
            Some(Credentials::Password { user, .. }) => Some(user),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_names_of_docker_hub() {
        assert_eq!(registry(None), "docker.io");
        assert_eq!(registry(Some("https://index.docker.io/v1/")), "docker.io");
        assert_eq!(registry(Some("http://localhost:5000")), "localhost:5000");
        assert_eq!(registry(Some("ghcr.io/me")), "ghcr.io");
    }
}
