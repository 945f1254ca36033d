//! Registries behind a proxy that the environment names.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcompose::image::{Compression, Reference};

use super::fake::{Fake, Here, Made};

/// A proxy that leads everywhere to the same server; returns its address and the lines it was asked with.
fn proxy(to: SocketAddr) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, log) = (client.unwrap(), Arc::clone(&log));
            std::thread::spawn(move || {
                let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
                let head: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                log.lock().unwrap().push(head.join("\n"));
                let mut server = TcpStream::connect(to).unwrap();
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
                let (mut from, mut back) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut server));
                let _ = std::io::copy(&mut back, &mut client);
            });
        }
    });
    (address, asked)
}

#[test]
fn the_proxy_is_asked_but_for_what_it_is_not_for() {
    let made = Made::new(&[("a", b"content".to_vec())], Compression::Gzip);
    let fake = Fake::with(&made, |_| None);
    let (address, asked) = proxy(fake.address);
    let proxy = format!("http://me:secret@{address}");
    let variables = [("HTTP_PROXY", proxy.as_str()), ("RCOMPOSE_INSECURE_REGISTRIES", "far.invalid:5000")];
    let far = Reference::parse("far.invalid:5000/team/a:1").unwrap();
    Here::new(&variables).pull(&far).unwrap();
    let lines = asked.lock().unwrap().clone();
    assert!(lines.iter().all(|head| head.starts_with("CONNECT far.invalid:5000 ")) && !lines.is_empty(), "{lines:?}");
    assert!(lines.iter().all(|head| head.to_lowercase().contains("proxy-authorization: basic")), "{lines:?}");
    // Loopback is never behind a proxy, and neither is what NO_PROXY names.
    Here::new(&variables).pull(&fake.name("team/a:1")).unwrap();
    let direct = [variables[0], variables[1], ("NO_PROXY", ".invalid")];
    Here::new(&direct).pull(&far).unwrap_err();
    assert_eq!(asked.lock().unwrap().len(), lines.len());
}
