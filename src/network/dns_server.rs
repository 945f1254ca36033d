//! The DNS servers of containers, on sockets inside their namespaces, all on one thread of their own: whatever else this
//! process does, names are answered.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, recvfrom};
use simple_dns::RCODE;
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::time::timeout;

use crate::network::dns::{self, Reply, View, Zone};
use crate::network::dns_forward::{Upstream, read_framed, write_framed};
use crate::network::dns_others::Others;
use crate::network::dns_sockets::DnsSockets;
use crate::network::outside::Outside;

/// Between two questions on a connection.
const PATIENCE: Duration = Duration::from_secs(4);
/// Queries under way to outside servers, per container.
const FORWARDS: usize = 256;
const CONNECTIONS: usize = 64;
/// Queries of one container that are answered in a row, before the others have their turn.
const BURST: usize = 64;
/// After an answer, in which the next query is looked for without sleeping.
const LINGER: Duration = Duration::from_micros(50);

/// One container's server.
#[derive(Debug)]
pub struct Served {
    /// The container's name, for messages.
    pub container: String,
    pub sockets: DnsSockets,
    /// The namespace that outside servers are asked from.
    pub netns: OwnedFd,
    pub view: View,
    /// Questions wait until it has been set anew for the first time.
    pub zone: watch::Receiver<Arc<Zone>>,
    /// In the place of the host's servers when not empty.
    pub servers: Vec<IpAddr>,
    pub others: Others,
    /// Where servers on the host's loopback are asked from.
    pub outside: Outside,
    /// The server ends when the other end of this is dropped.
    pub until: oneshot::Receiver<()>,
}

/// The thread that answers.
#[derive(Debug)]
pub struct DnsServer {
    new: mpsc::UnboundedSender<Served>,
}

impl DnsServer {
    /// Starts the thread; it ends when this is dropped. `complain` hears of servers that break off.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(complain: impl Fn(&str, &io::Error) + Send + 'static) -> io::Result<Self> {
        let (new, mut arriving) = mpsc::unbounded_channel::<Served>();
        let complain = Arc::new(std::sync::Mutex::new(complain));
        let work = move || -> io::Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                while let Some(served) = arriving.recv().await {
                    let (name, complain) = (served.container.clone(), complain.clone());
                    tokio::spawn(async move {
                        if let (Err(error), Ok(complain)) = (serve(served).await, complain.lock()) {
                            complain(&name, &error);
                        }
                    });
                }
            });
            Ok(())
        };
        thread::Builder::new().name("dns".into()).spawn(work)?;
        Ok(Self { new })
    }

    /// Serves one more container.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn serve(&self, served: Served) -> io::Result<()> {
        self.new.send(served).map_err(|_| io::Error::other("the DNS thread has ended"))
    }
}

/// What answers a container's questions.
struct Answers {
    view: View,
    zone: watch::Receiver<Arc<Zone>>,
    others: Others,
    upstream: Upstream,
}

/// A question's way.
enum Way {
    Answer(Vec<u8>),
    Ignore,
    Forward,
}

impl Answers {
    fn decide(&self, query: &[u8], over_tcp: bool) -> Way {
        let reply = match dns::answer(query, &self.zone.borrow(), over_tcp) {
            Reply::Unknown => match self.others.zone(&self.view, query) {
                Some(zone) => dns::answer(query, &zone, over_tcp),
                None => Reply::Unknown,
            },
            reply => reply,
        };
        match reply {
            Reply::Answer(bytes) => Way::Answer(bytes),
            Reply::Ignore => Way::Ignore,
            Reply::Unknown if self.view.forwards => Way::Forward,
            Reply::Unknown => dns::failure(query, RCODE::ServerFailure).map_or(Way::Ignore, Way::Answer),
        }
    }
}

async fn serve(served: Served) -> io::Result<()> {
    let udp: std::net::UdpSocket = served.sockets.udp.into();
    udp.set_nonblocking(true)?;
    let udp = Arc::new(UdpSocket::from_std(udp)?);
    let listener: std::net::TcpListener = served.sockets.tcp.into();
    listener.set_nonblocking(true)?;
    let tcp = TcpListener::from_std(listener)?;
    let mut zone = served.zone;
    // A container can ask before the names have been made: an answer of none would be a wrong one.
    if zone.changed().await.is_err() {
        return Ok(());
    }
    let upstream = Upstream::new(served.netns, served.servers, served.outside);
    let answers = Arc::new(Answers { view: served.view, zone, others: served.others, upstream });
    tokio::select! {
        result = serve_udp(udp, answers.clone()) => result,
        result = serve_tcp(tcp, answers) => result,
        _ = served.until => Ok(()),
    }
}

async fn serve_udp(socket: Arc<UdpSocket>, answers: Arc<Answers>) -> io::Result<()> {
    let forwards = Arc::new(Semaphore::new(FORWARDS));
    let mut buffer = [0; 4096];
    loop {
        socket.readable().await?;
        // Errors on an unconnected socket are late news of single peers.
        let mut next = socket.try_recv_from(&mut buffer).ok();
        let mut turns = BURST;
        while let Some((length, from)) = next {
            let query = buffer.get(..length).unwrap_or_default();
            let answered = match answers.decide(query, false) {
                Way::Ignore => false,
                Way::Answer(bytes) => {
                    send(&socket, &bytes, from).await;
                    true
                }
                Way::Forward => {
                    if let Ok(permit) = forwards.clone().try_acquire_owned() {
                        tokio::spawn(forward(socket.clone(), answers.clone(), query.to_vec(), from, permit));
                    }
                    false
                }
            };
            turns -= 1;
            next = match answered {
                _ if turns == 0 => None,
                true => linger(&socket, &mut buffer),
                false => socket.try_recv_from(&mut buffer).ok(),
            };
        }
    }
}

async fn forward(
    socket: Arc<UdpSocket>,
    answers: Arc<Answers>,
    query: Vec<u8>,
    from: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    if let Some(bytes) = answers.upstream.ask(&query, false).await {
        send(&socket, &bytes, from).await;
    }
}

/// The next query when it comes within [`LINGER`]: who has got an answer often asks again at once, and waking this thread takes
/// longer than answering.
fn linger(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    let begin = Instant::now();
    loop {
        match recvfrom(socket, &mut *buffer, RecvFlags::DONTWAIT) {
            Ok((length, _, Some(from))) => return Some((length, from.try_into().ok()?)),
            Err(Errno::AGAIN) if begin.elapsed() < LINGER => thread::yield_now(),
            _ => return None,
        }
    }
}

/// An answer that cannot be sent is one the asker asks for again, as with any lost datagram.
async fn send(socket: &UdpSocket, bytes: &[u8], to: SocketAddr) {
    if socket.try_send_to(bytes, to).is_err() {
        drop(socket.send_to(bytes, to).await);
    }
}

async fn serve_tcp(listener: TcpListener, answers: Arc<Answers>) -> io::Result<()> {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return Ok(()) };
        let (mut stream, _) = listener.accept().await?;
        let answers = answers.clone();
        tokio::spawn(async move {
            loop {
                let Ok(Ok(query)) = timeout(PATIENCE, read_framed(&mut stream)).await else { break };
                let bytes = match answers.decide(&query, true) {
                    Way::Answer(bytes) => Some(bytes),
                    Way::Forward => answers.upstream.ask(&query, true).await,
                    Way::Ignore => None,
                };
                let Some(bytes) = bytes else { break };
                if write_framed(&mut stream, &bytes).await.is_err() {
                    break;
                }
            }
            drop(permit);
        });
    }
}
