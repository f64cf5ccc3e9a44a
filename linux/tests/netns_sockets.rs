//! The sockets of a namespace, on the real kernel.

mod lab;

use bifurcate_linux::sockets::{State, Transport, sockets};
use lab::Lab;
use std::net::{TcpListener, TcpStream, UdpSocket};

#[test]
fn listeners_and_connections_are_told_apart() {
    let Some(lab) = Lab::new("listeners_and_connections_are_told_apart") else {
        return;
    };
    let (listener, udp, six, found) = lab
        .netns
        .within(|| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let udp = UdpSocket::bind("127.0.0.1:5353").unwrap();
            let six = UdpSocket::bind("[::1]:53").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let found = sockets()?;
            let peer = stream.local_addr().unwrap();
            Ok((
                listener.local_addr().unwrap(),
                udp.local_addr().unwrap(),
                six.local_addr().unwrap(),
                (found, peer),
            ))
        })
        .unwrap();
    let (found, peer) = found;
    let has = |transport, local: std::net::SocketAddr, state| {
        found
            .iter()
            .any(|s| s.transport == transport && s.local == (local.ip(), local.port()) && s.state == state)
    };
    assert!(has(Transport::Tcp, listener, State::Listen), "{found:?}");
    assert!(has(Transport::Tcp, peer, State::Established), "{found:?}");
    assert!(has(Transport::Udp, udp, State::Listen), "{found:?}");
    assert!(has(Transport::Udp, six, State::Listen), "{found:?}");
    assert!(found.iter().all(|s| s.inode != 0 || s.state != State::Listen));
}
