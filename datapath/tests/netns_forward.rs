//! Sending what virtual senders left to the card: TCP through a bridge in user space, UDP echoed from there, with every
//! offload of the senders left on.

#[path = "netns_pass/lab.rs"]
mod lab;
#[path = "netns_pass/through.rs"]
mod through;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bifurcate_datapath::device::{Counters, Port, QueueCounters};
use bifurcate_datapath::engine::{Forward, Handler, Lane, Options, Out, Run, share, start};
use bifurcate_datapath::frame::{Batch, Verdict};
use bifurcate_linux::bpf::{Attachment, XdpMode};

use lab::{Lab, PATIENCE, count, udp};
use through::{CountLong, taken_by_packet, taken_by_xdp};

type Taken = (Port, Attachment);

/// `card` and `port` of the host joined in user space: what arrives on one leaves by the other.
struct Bridge {
    run: Option<Run>,
    loops: Vec<Arc<Counters>>,
    queues: Vec<QueueCounters>,
    long: Arc<AtomicU64>,
    _attachments: [Attachment; 2],
}

impl Bridge {
    fn new((card, card_taken): Taken, (port, port_taken): Taken) -> Bridge {
        let queues = card.counters().into_iter().chain(port.counters()).collect();
        let pools = [Arc::clone(&card.umem), Arc::clone(&port.umem)];
        let (mut receivers, mut senders) = ([vec![], vec![]], [vec![], vec![]]);
        for (side, opened) in [card, port].into_iter().enumerate() {
            for pair in opened.queues {
                receivers[side].push(pair.rx);
                senders[side].push(pair.tx);
            }
        }
        let mut lanes = Vec::new();
        let long = Arc::<AtomicU64>::default();
        for (side, receivers) in receivers.into_iter().enumerate() {
            let other = 1 - side;
            let sender = senders[other].remove(0);
            for (rx, tx) in receivers.into_iter().zip(share(sender, 2)) {
                let out = Out::new(tx, &pools[other], &pools[side]);
                let handler = CountLong {
                    inner: Forward { port: 0 },
                    seen: Arc::clone(&long),
                };
                lanes.push(Lane::new(rx, &pools[side], 64, Box::new(handler), vec![out]));
            }
        }
        let loops = lanes.iter().map(|lane| Arc::clone(lane.counters())).collect();
        Bridge {
            run: Some(start(lanes, &Options::default()).expect("threads")),
            loops,
            queues,
            long,
            _attachments: [card_taken, port_taken],
        }
    }

    /// Frames received and their bytes, frames sent, frames too long to be sent.
    fn totals(&self) -> (u64, u64, u64, u64) {
        let (mut received, mut bytes, mut sent, mut too_long) = (0, 0, 0, 0);
        for queue in &self.queues {
            let (rx, tx) = (queue.rx.totals(), queue.tx.totals());
            received += rx.received;
            bytes += rx.received_bytes;
            sent += tx.sent;
            too_long += rx.too_long + tx.too_long;
        }
        too_long += self.loops.iter().map(|c| c.totals().too_long).sum::<u64>();
        (received, bytes, sent, too_long)
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        if let Some(run) = self.run.take() {
            run.stop();
            let _ = run.join();
        }
    }
}

/// 4 MB from the peer to whoever is behind the bridge, and 4 MB back.
fn tcp_both_ways(lab: &Lab, behind: &bifurcate_linux::netns::Netns) {
    const BYTES: usize = 4_000_000;
    let address: SocketAddr = "10.77.0.3:8080".parse().expect("an address");
    let listener = behind
        .within(|| Ok(TcpListener::bind(address).expect("bind")))
        .expect("setns");
    let patience = Some(PATIENCE);
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a client");
        stream.set_read_timeout(patience).expect("a timeout");
        let mut all = vec![0; BYTES];
        stream.read_exact(&mut all).expect("all of it");
        stream.write_all(&all).expect("sent back");
    });
    let connect = || Ok(TcpStream::connect_timeout(&address, PATIENCE).expect("connect"));
    let mut stream = lab.far.within(connect).expect("setns");
    stream.set_read_timeout(patience).expect("a timeout");
    stream.set_write_timeout(patience).expect("a timeout");
    let sent: Vec<u8> = (0..BYTES).map(|i| (i * 7 + i / 251) as u8).collect();
    stream.write_all(&sent).expect("sent");
    let mut back = vec![0; BYTES];
    stream.read_exact(&mut back).expect("all of it");
    assert!(back == sent, "what came back is something else");
    server.join().expect("the server ended well");
}

fn forwarded(take: impl Fn(&Lab, &str, u32) -> Taken, super_frames: bool) {
    let Some(lab) = Lab::new("tcp is forwarded") else {
        return;
    };
    let behind = lab.behind("10.77.0.3/24", "02:00:00:00:00:03");
    let bridge = Bridge::new(take(&lab, "card", 2), take(&lab, "port", 1));
    tcp_both_ways(&lab, &behind);
    let (received, bytes, sent, too_long) = bridge.totals();
    assert!(bytes > 8_000_000, "only {bytes} bytes went through user space");
    assert_eq!(too_long, 0);
    if super_frames {
        // What was not seen was not tried: frames that stand for several packets arrived, and left as those.
        let long = bridge.long.load(Ordering::Relaxed);
        assert!(long > 0, "none of {received} frames was longer than a packet");
        assert!(
            sent > received,
            "{received} frames received, {long} of them long, {sent} sent"
        );
    }
}

#[test]
fn tcp_is_forwarded_between_two_cards_in_native_mode() {
    forwarded(
        |lab, device, queues| taken_by_xdp(lab, device, queues, XdpMode::Driver),
        false,
    );
}

#[test]
fn tcp_is_forwarded_between_two_cards_in_generic_mode() {
    forwarded(
        |lab, device, queues| taken_by_xdp(lab, device, queues, XdpMode::Generic),
        true,
    );
}

#[test]
fn tcp_is_forwarded_between_two_cards_by_packet_sockets() {
    forwarded(taken_by_packet, true);
}

/// Answers each UDP over IPv4 frame with itself; others go nowhere.
struct Echo;

impl Handler for Echo {
    fn handle(&mut self, batch: &mut Batch) {
        batch.each(|frame| {
            if frame.len() < 42 || frame[12..14] != [8, 0] || frame[23] != 17 {
                return Verdict::Drop;
            }
            for (at, other, bytes) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
                for i in 0..bytes {
                    frame.swap(at + i, other + i);
                }
            }
            Verdict::Send
        });
    }
}

#[test]
fn udp_is_echoed_though_its_sender_left_the_checksum_to_the_card() {
    for mode in [XdpMode::Driver, XdpMode::Generic] {
        let Some(lab) = Lab::new("udp_is_echoed_though_its_sender_left_the_checksum_to_the_card") else {
            return;
        };
        lab.far_ip("neigh replace 10.77.0.1 lladdr 02:00:00:00:00:01 dev peer nud permanent");
        let (port, _attachment) = taken_by_xdp(&lab, "card", 2, mode);
        let umem = Arc::clone(&port.umem);
        let lanes = port
            .queues
            .into_iter()
            .map(|pair| {
                let out = Out::new(pair.tx, &umem, &umem);
                Lane::new(pair.rx, &umem, 32, Box::new(Echo), vec![out])
            })
            .collect();
        let run = start(lanes, &Options::default()).expect("threads");
        let client = udp(&lab.far, "10.77.0.2:0");
        for _ in 0..50 {
            client
                .send_to(b"left to the card", "10.77.0.1:9000")
                .expect("sent");
        }
        assert_eq!(count(&client, 50), 50, "{mode:?}");
        run.stop();
        run.join().expect("the loops ended well");
    }
}
