//! A registry of one's own.

use std::net::SocketAddr;

use crate::app::{App, AppError};
use crate::image::Store;
use crate::registry::Server;

impl App {
    /// Listens as a registry on the store of this machine.
    ///
    /// # Errors
    /// The address is in use or not ours, or the store cannot be written.
    pub fn registry(&self, address: SocketAddr) -> Result<Server, AppError> {
        let store = Store::open(&self.roots.data)?;
        Server::bind(store, address).map_err(AppError::io(format!("listen on {address}")))
    }
}
