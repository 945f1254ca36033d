//! A registry of one's own: the OCI Distribution API, from the side that answers, on the store of this machine.
//!
//! What is pushed lies in the store's shelf, byte for byte. The images of the store itself can be pulled, too. Each
//! connection has a thread: files are read and written by blocking calls.
//! <https://github.com/opencontainers/distribution-spec/blob/main/spec.md>

mod answer;
mod body;
mod handle;
mod route;

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::image::{Shelf, Store};
use handle::handle;

/// Connections at once; further ones wait.
const CONNECTIONS: usize = 128;
/// A client that sends nothing, or takes nothing, within that time is sent away.
const SILENCE: Duration = Duration::from_secs(60);
/// How often it looks for pushes that nobody goes on with.
const SWEEP: Duration = Duration::from_secs(3600);

/// What the answers are made from.
struct Library {
    store: Store,
    shelf: Shelf,
    /// Only names and addresses of this machine are answered to (see [`route::is_local`]).
    is_local: bool,
    silence: Duration,
}

/// A registry that listens.
pub struct Server {
    listener: TcpListener,
    library: Arc<Library>,
}

impl Server {
    /// Listens on `address`; port 0 is any free one.
    ///
    /// # Errors
    /// The address is in use or not ours, or the store cannot be written.
    pub fn bind(store: Store, address: SocketAddr) -> io::Result<Self> {
        let shelf = store.shelf()?;
        shelf.sweep()?;
        let listener = TcpListener::bind(address)?;
        let is_local = address.ip().is_loopback();
        Ok(Self { listener, library: Arc::new(Library { store, shelf, is_local, silence: SILENCE }) })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The socket's.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until the process ends.
    ///
    /// # Errors
    /// No more connections can be accepted.
    pub fn run(&self) -> io::Result<()> {
        let library = Arc::clone(&self.library);
        thread::Builder::new().name("sweep".to_owned()).spawn(move || {
            loop {
                thread::sleep(SWEEP);
                // What cannot be removed now is tried again.
                let _ = library.shelf.sweep();
            }
        })?;
        let open = Arc::new(AtomicUsize::new(0));
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if is_of_the_connection(&error) => continue,
                Err(error) => return Err(error),
            };
            while open.load(Ordering::Acquire) >= CONNECTIONS {
                thread::sleep(Duration::from_millis(20));
            }
            open.fetch_add(1, Ordering::AcqRel);
            let (library, open) = (Arc::clone(&self.library), Arc::clone(&open));
            let started = thread::Builder::new().name("registry".to_owned()).spawn(move || {
                // A client that goes away in the middle is no fault of ours, and nobody is there to be told.
                let _ = serve(stream, &library);
                open.fetch_sub(1, Ordering::AcqRel);
            });
            drop(started?);
        }
    }
}

fn is_of_the_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn serve(stream: TcpStream, library: &Arc<Library>) -> io::Result<()> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    rustix::net::sockopt::set_tcp_user_timeout(
        &stream,
        u32::try_from(library.silence.as_millis()).unwrap_or(u32::MAX),
    )?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
        let service = service_fn(|request| async { Ok::<_, Infallible>(handle(library, request).await) });
        let mut connection = http1::Builder::new();
        connection.timer(TokioTimer::new()).header_read_timeout(library.silence).max_buf_size(256 * 1024);
        connection.serve_connection(stream, service).await.map_err(io::Error::other)
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn who_stops_in_the_middle_of_a_body_is_sent_away() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::bind(Store::open(folder.path()).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
        Arc::get_mut(&mut server.library).unwrap().silence = Duration::from_millis(200);
        let address = server.address().unwrap();
        thread::spawn(move || server.run());
        for path in ["blobs/uploads/?digest=sha256:".to_owned() + &"0".repeat(64), "manifests/1".to_owned()] {
            let method = if path.starts_with("blobs") { "POST" } else { "PUT" };
            let mut client = TcpStream::connect(address).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let head = format!("{method} /v2/a/{path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n");
            client.write_all(&[head.as_bytes(), b"half"].concat()).unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        }
    }
}
