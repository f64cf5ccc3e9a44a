//! AF_XDP sockets of others as the kernel has them: on which queue, what stands in their rings, who must be woken.

mod lab;

use bifurcate_linux::memory::{Mapping, MemoryFile, PageKind};
use bifurcate_linux::netlink::link;
use bifurcate_linux::xsk::{Bind, CopyMode, RingKind, XskSocket, peek};
use lab::Lab;

const ENTRIES: u32 = 64;
const FRAME: u32 = 2048;

#[test]
fn rings_of_a_bound_socket_are_seen() {
    let Some(lab) = Lab::new("rings_of_a_bound_socket_are_seen") else {
        return;
    };
    lab.ip("link add v0 numrxqueues 4 numtxqueues 4 type veth peer name v1 numrxqueues 4 numtxqueues 4");
    lab.ip("link set v0 up");
    lab.ip("link set v1 up");
    let ifindex = lab.netns.within(|| link::link("v0")).unwrap().index;
    let look = || lab.netns.within(|| peek::sockets_on(ifindex, 4)).unwrap();
    assert_eq!(look(), []);

    let file = MemoryFile::create("peek", (ENTRIES * FRAME) as usize, PageKind::Ordinary).unwrap();
    let memory = Mapping::shared(&file).unwrap();
    let socket = lab.netns.within(XskSocket::open).unwrap();
    socket.register(&memory, memory.len(), FRAME, 0).unwrap();
    let kinds = [RingKind::Fill, RingKind::Completion, RingKind::Rx, RingKind::Tx];
    for kind in kinds {
        socket.size_ring(kind, ENTRIES).unwrap();
    }
    let rings = kinds.map(|kind| socket.map_ring(kind, ENTRIES).unwrap());
    let to = Bind {
        ifindex,
        queue: 2,
        copy: CopyMode::Copy,
        need_wakeup: true,
        multi_buffer: false,
        shared: None,
    };
    lab.netns.within(|| socket.bind(&to)).unwrap();
    // As a program does that fills, sends, and never calls the kernel.
    for (number, count) in [(0, 48u32), (3, 5)] {
        let (mapping, offsets) = &rings[number];
        // SAFETY: the producer index lies in the mapping, aligned, and this test is the ring's only producer.
        unsafe {
            mapping
                .base()
                .as_ptr()
                .add(offsets.producer as usize)
                .cast::<u32>()
                .write_volatile(count);
        }
    }

    let seen = look();
    assert_eq!(seen.len(), 1, "{seen:?}");
    let one = &seen[0];
    assert_eq!((one.queue, one.zero_copy), (2, Some(false)));
    assert_eq!(one.holders.len(), 1);
    assert_eq!(
        (one.holders[0].pid, one.holders[0].fills),
        (std::process::id(), true)
    );
    let ends = |ring: Option<peek::RingState>| ring.map(|ring| (ring.producer, ring.consumer));
    assert_eq!((ends(one.fill), ends(one.rx)), (Some((48, 0)), Some((0, 0))));
    assert_eq!((ends(one.tx), ends(one.completion)), (Some((5, 0)), Some((0, 0))));
    assert!(one.tx.unwrap().need_wakeup, "nobody has called the kernel yet");
    assert_eq!(one.statistics.unwrap().rx_dropped, 0);

    // Looking has left the socket as it was: it goes on, and when it closes the queue is free.
    assert_eq!(look(), seen);
    let other = Lab::new("rings_of_a_bound_socket_are_seen").unwrap();
    let elsewhere = other.netns.within(|| peek::sockets_on(ifindex, 4)).unwrap();
    assert_eq!(elsewhere, [], "a socket counts in its own namespace only");
}
