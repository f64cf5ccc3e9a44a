//! A card whose every frame goes to user space and is passed back: everything on it works as if nothing were there.

#[path = "netns_pass/lab.rs"]
mod lab;
#[path = "netns_pass/through.rs"]
mod through;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bifurcate_linux::bpf::XdpMode;
use bifurcate_linux::netns::Netns;

use lab::{Lab, PATIENCE, count, ip, udp};
use through::Through;

/// Sends `bytes` bytes by TCP from the peer to `address` of the card, and has them all sent back.
fn echo(lab: &Lab, address: &str, bytes: usize) {
    echo_at(lab, &lab.host, address, bytes);
}

/// The same with a server in `netns`.
fn echo_at(lab: &Lab, netns: &Netns, address: &str, bytes: usize) {
    let address: SocketAddr = address.parse().expect("an address");
    let listener = netns
        .within(|| Ok(TcpListener::bind(address).expect("bind")))
        .expect("setns");
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut all = vec![0; bytes];
        stream.read_exact(&mut all).expect("all of it");
        stream.write_all(&all).expect("sent back");
    });
    let stream = lab
        .far
        .within(|| Ok(TcpStream::connect_timeout(&address, PATIENCE).expect("connect")));
    let mut stream = stream.expect("setns");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let sent: Vec<u8> = (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect();
    stream.write_all(&sent).expect("sent");
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back).expect("all of it");
    assert!(back == sent, "what came back is something else");
    server.join().expect("the server ended well");
}

/// Senders left segmentation to the card: what was not seen was not tried.
fn super_frames_went_through(through: &Through) {
    assert!(
        through.long() > 0,
        "of {:?} none was longer than a packet",
        through.received()
    );
}

fn everything_works(lab: &Lab, through: &Through) {
    // So that ARP and neighbour discovery go through user space too.
    lab.far_ip("neigh flush all");
    lab.host_ip("neigh flush all");
    // Senders leave the checksum to the card; no retransmission could help if it were not completed.
    echo(lab, "10.77.0.1:8080", 4_000_000);
    echo(lab, "[fd77::1]:8080", 1_000_000);
    let (server, client) = (lab.udp("10.77.0.1:9000"), udp(&lab.far, "10.77.0.2:0"));
    for _ in 0..100 {
        client.send_to(b"hello", "10.77.0.1:9000").expect("sent");
    }
    assert_eq!(count(&server, 100), 100);
    assert_eq!(lab.checksum_errors(), 0);
    let (frames, bytes) = through.received();
    assert!(
        bytes > 5_000_000,
        "only {frames} frames of together {bytes} bytes went through user space"
    );
}

/// Every frame that user space received was passed, once: a loop would show as more received than sent.
fn counts_agree(lab: &Lab, through: &Through) {
    lab.far_ip("link set peer down");
    // What is in the rings still is on its way.
    let end = Instant::now() + PATIENCE;
    let (received, passed, lost) = loop {
        std::thread::sleep(Duration::from_millis(20));
        let (received, passed, lost) = through.totals();
        if received == passed + lost || Instant::now() > end {
            break (received, passed, lost);
        }
    };
    let shown = lab.far_ip("-s -o link show dev peer");
    assert_eq!(
        (received, lost),
        (passed, 0),
        "received {received}, passed {passed}; {shown}"
    );
    let words: Vec<&str> = shown.split_whitespace().collect();
    // "TX: bytes packets errors ..." then the numbers.
    let at = words.iter().position(|word| *word == "TX:").expect("statistics");
    let sent: u64 = words[at + 1..]
        .iter()
        .filter_map(|word| word.parse().ok())
        .nth(1)
        .expect("packets");
    assert!(
        received <= sent,
        "{received} frames in user space, but the peer sent {sent}"
    );
}

#[test]
fn all_traffic_works_through_native_xdp() {
    let Some(lab) = Lab::new("all_traffic_works_through_native_xdp") else {
        return;
    };
    let through = Through::xdp(&lab, XdpMode::Driver);
    everything_works(&lab, &through);
    counts_agree(&lab, &through);
}

#[test]
fn all_traffic_works_through_generic_xdp() {
    let Some(lab) = Lab::new("all_traffic_works_through_generic_xdp") else {
        return;
    };
    // In generic mode veth hands over what the peer left to its card to segment: frames of up to 64 KiB.
    let through = Through::xdp(&lab, XdpMode::Generic);
    everything_works(&lab, &through);
    super_frames_went_through(&through);
    counts_agree(&lab, &through);
}

#[test]
fn all_traffic_works_through_af_packet() {
    let Some(lab) = Lab::new("all_traffic_works_through_af_packet") else {
        return;
    };
    let through = Through::packet(&lab);
    everything_works(&lab, &through);
    super_frames_went_through(&through);
    counts_agree(&lab, &through);
}

#[test]
fn the_kernel_sends_a_passed_super_frame_on_in_packets() {
    let ways: [fn(&Lab) -> Through; 2] = [|lab| Through::xdp(lab, XdpMode::Generic), Through::packet];
    for open in ways {
        let Some(lab) = Lab::new("the_kernel_sends_a_passed_super_frame_on_in_packets") else {
            return;
        };
        let behind = lab.behind("10.78.0.3/24", "02:00:00:00:00:03");
        lab.host_ip("addr add 10.78.0.1/24 dev port");
        lab.host_run("sysctl -q -w net.ipv4.ip_forward=1");
        // A card that can neither segment nor make checksums: the kernel must, and the receiver verifies.
        lab.host_run("ethtool -K port tx off tso off gso off");
        lab.far_ip("route add 10.78.0.0/24 via 10.77.0.1");
        ip(&format!(
            "-n {}b route add 10.77.0.0/24 via 10.78.0.1",
            lab.host_name()
        ));
        let through = open(&lab);
        echo_at(&lab, &behind, "10.78.0.3:8080", 4_000_000);
        super_frames_went_through(&through);
        counts_agree(&lab, &through);
    }
}

#[test]
fn frames_of_9000_bytes_pass_whole() {
    for mode in [XdpMode::Driver, XdpMode::Generic] {
        let Some(lab) = Lab::new("frames_of_9000_bytes_pass_whole") else {
            return;
        };
        lab.host_ip("link set card mtu 9000");
        lab.far_ip("link set peer mtu 9000");
        let through = Through::xdp(&lab, mode);
        let (server, client) = (lab.udp("10.77.0.1:9000"), udp(&lab.far, "10.77.0.2:0"));
        for round in 0..20u8 {
            // One by one: the receive buffer of a socket holds a dozen.
            client.send_to(&[round; 8972], "10.77.0.1:9000").expect("sent");
            let mut got = [0; 9000];
            assert_eq!(server.recv(&mut got).expect("it arrives"), 8972, "{mode:?}");
            assert!(got[..8972].iter().all(|byte| *byte == round));
        }
        echo(&lab, "10.77.0.1:8080", 2_000_000);
        assert_eq!(lab.checksum_errors(), 0);
        counts_agree(&lab, &through);
    }
}
