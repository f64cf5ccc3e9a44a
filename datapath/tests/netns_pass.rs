//! `pass` against the kernel: what is written to the TAP arrives on the card, once, whatever XDP runs there.

#[path = "netns_pass/frames.rs"]
mod frames;
#[path = "netns_pass/lab.rs"]
mod lab;
#[path = "netns_pass/programs.rs"]
mod programs;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use bifurcate_datapath::engine::PassPath;
use bifurcate_datapath::engine::pass::{
    CardXdp, LivePass, Opened, PASSED_TC_INDEX, TapDevice, TapPass, open,
};
use bifurcate_datapath::frame::checksum;
use bifurcate_linux::bpf::XdpMode;
use bifurcate_linux::netns::Netns;

use frames::{Sum, Udp};
use lab::{Lab, count, udp, until};
use programs::Counter;

fn tap(lab: &Lab, queues: u32) -> (TapDevice, Vec<TapPass>) {
    TapDevice::open(&lab.host, lab.card, queues).expect("a TAP beside the card")
}

/// Passes `frames` copies; each must be taken.
fn pass(way: &mut impl PassPath, frame: &[u8], copies: usize) {
    for _ in 0..copies {
        way.pass(frame).expect("the kernel takes it");
    }
    way.flush().expect("the kernel takes them");
}

#[test]
fn every_frame_arrives_once_and_meets_no_xdp_again() {
    for mode in [None, Some(XdpMode::Driver), Some(XdpMode::Generic)] {
        let Some(lab) = Lab::new("every_frame_arrives_once_and_meets_no_xdp_again") else {
            return;
        };
        let xdp = mode.map(|mode| Counter::xdp(&lab, mode));
        let marked = Counter::passed(&lab, PASSED_TC_INDEX);
        let (_, mut ways) = tap(&lab, 1);
        let socket = lab.udp("10.77.0.1:9000");
        // What the peer sends of its own accord (neighbour discovery) is over before the counting starts.
        lab.far_ip("link set peer arp off multicast off");
        std::thread::sleep(Duration::from_millis(50));
        let before = xdp.as_ref().map(Counter::count);
        pass(&mut ways[0], &Udp::v4(9000, 100, Sum::Finished).frame(), 100);
        assert_eq!(count(&socket, 100), 100, "{mode:?}");
        assert_eq!(
            marked.count(),
            100,
            "{mode:?}: frames with the mark of a passed one at the card's tc ingress"
        );
        assert_eq!(ways[0].counters().passed, 100);
        let met = xdp
            .as_ref()
            .map(Counter::count)
            .zip(before)
            .map(|(after, before)| after - before);
        assert!(
            met.is_none_or(|met| met < 10),
            "{mode:?}: {met:?} of 100 passed frames met XDP again"
        );
    }
}

#[test]
fn the_xdp_counter_of_these_tests_does_count() {
    for mode in [XdpMode::Driver, XdpMode::Generic] {
        let Some(lab) = Lab::new("the_xdp_counter_of_these_tests_does_count") else {
            return;
        };
        let xdp = Counter::xdp(&lab, mode);
        let (socket, sender) = (lab.udp("10.77.0.1:9000"), udp(&lab.far, "10.77.0.2:0"));
        for _ in 0..50 {
            sender.send_to(b"x", "10.77.0.1:9000").expect("sent");
        }
        assert_eq!(count(&socket, 50), 50);
        assert!(xdp.count() >= 50, "{mode:?}: {}", xdp.count());
    }
}

#[test]
fn a_checksum_left_to_the_card_is_accepted_and_a_wrong_one_is_not() {
    let Some(lab) = Lab::new("a_checksum_left_to_the_card_is_accepted_and_a_wrong_one_is_not") else {
        return;
    };
    let (_, mut ways) = tap(&lab, 1);
    let sockets = [lab.udp("10.77.0.1:9000"), lab.udp("[fd77::1]:9000")];
    for (make, socket) in [Udp::v4, Udp::v6].iter().zip(&sockets) {
        for (sum, arrive) in [(Sum::Finished, 10), (Sum::Pending, 10), (Sum::Wrong, 0)] {
            let errors = lab.checksum_errors();
            pass(&mut ways[0], &make(9000, 33, sum).frame(), 10);
            assert_eq!(
                count(socket, arrive),
                arrive,
                "{:?} {sum:?}",
                make(9000, 33, sum).to
            );
            // The kernel looks at a checksum when somebody wants to receive the datagram.
            until("the errors are counted", || {
                let refused = lab.checksum_errors() - errors == 10 - arrive as u64;
                refused || count(socket, 0) > 0
            });
            assert_eq!(lab.checksum_errors() - errors, 10 - arrive as u64);
        }
    }
    assert_eq!(ways[0].counters().checksum_pending, 20);
}

#[test]
fn long_frames_arrive_whole() {
    for mode in [None, Some(XdpMode::Driver), Some(XdpMode::Generic)] {
        let Some(lab) = Lab::new("long_frames_arrive_whole") else {
            return;
        };
        let _xdp = mode.map(|mode| Counter::xdp(&lab, mode));
        let (_, mut ways) = tap(&lab, 1);
        let socket = lab.udp("10.77.0.1:9000");
        for payload in [9000 - 28, 9000, 60_000, 65_535 - 14 - 28] {
            for sum in [Sum::Finished, Sum::Pending] {
                pass(&mut ways[0], &Udp::v4(9000, payload, sum).frame(), 1);
                let mut buffer = vec![0; 65_536];
                let length = socket.recv(&mut buffer).expect("it arrives");
                assert_eq!(length, payload, "{mode:?} {sum:?}");
                assert!(
                    buffer[..length]
                        .iter()
                        .enumerate()
                        .all(|(i, byte)| *byte == i as u8)
                );
            }
        }
        let too_long = Udp::v4(9000, 65_507, Sum::Finished).frame();
        assert_eq!(ways[0].pass(&too_long).expect_err("too long").code(), "EMSGSIZE");
        assert_eq!(ways[0].counters().refused, 1);
    }
}

#[test]
fn a_tagged_frame_arrives_with_its_tag() {
    let Some(lab) = Lab::new("a_tagged_frame_arrives_with_its_tag") else {
        return;
    };
    let (_, mut ways) = tap(&lab, 1);
    let (ours, other) = (Counter::tagged(&lab, 9), Counter::tagged(&lab, 8));
    let untagged = lab.udp("10.77.0.1:9000");
    for sum in [Sum::Finished, Sum::Pending] {
        let frame = Udp {
            vlan: Some(9),
            ..Udp::v4(9000, 50, sum)
        };
        pass(&mut ways[0], &frame.frame(), 5);
    }
    until("the tagged frames", || ours.count() >= 10);
    assert_eq!((ours.count(), other.count()), (10, 0));
    assert_eq!(
        count(&untagged, 0),
        0,
        "no interface for that VLAN is there to take them"
    );
}

#[test]
fn a_frame_to_a_foreign_address_stays_foreign() {
    let Some(lab) = Lab::new("a_frame_to_a_foreign_address_stays_foreign") else {
        return;
    };
    let (_, mut ways) = tap(&lab, 1);
    let socket = lab.udp("10.77.0.1:9000");
    let foreign = Udp {
        to_mac: [2, 9, 9, 9, 9, 9],
        ..Udp::v4(9000, 50, Sum::Finished)
    };
    pass(&mut ways[0], &foreign.frame(), 5);
    assert_eq!(count(&socket, 0), 0);
    let broadcast = Udp {
        to_mac: [0xff; 6],
        ..foreign
    };
    pass(&mut ways[0], &broadcast.frame(), 5);
    assert_eq!(count(&socket, 5), 5, "broadcast");
}

#[test]
fn after_the_card_changed_its_address_the_tap_can_follow() {
    let Some(lab) = Lab::new("after_the_card_changed_its_address_the_tap_can_follow") else {
        return;
    };
    let (device, mut ways) = tap(&lab, 1);
    let socket = lab.udp("10.77.0.1:9000");
    lab.host_ip("link set card address 02:00:00:00:00:77");
    let frame = Udp {
        to_mac: [2, 0, 0, 0, 0, 0x77],
        ..Udp::v4(9000, 50, Sum::Finished)
    }
    .frame();
    pass(&mut ways[0], &frame, 5);
    assert_eq!(count(&socket, 0), 0, "taken for foreign");
    device.follow(&lab.host).expect("the TAP takes the address");
    pass(&mut ways[0], &frame, 5);
    assert_eq!(count(&socket, 5), 5);
}

#[test]
fn a_bridge_above_the_card_gets_the_frames_and_forwards_them() {
    for mode in [XdpMode::Driver, XdpMode::Generic] {
        let Some(lab) = Lab::new("a_bridge_above_the_card_gets_the_frames_and_forwards_them") else {
            return;
        };
        let _xdp = Counter::xdp(&lab, mode);
        lab.host_ip("addr flush dev card");
        lab.host_ip("link add br0 address 02:00:00:00:00:10 type bridge");
        lab.host_ip("addr add 10.77.0.1/24 dev br0");
        lab.host_ip("link set br0 up");
        lab.host_ip("link set card master br0");
        let behind = lab.behind("10.77.0.3/24", "02:00:00:00:00:03");
        lab.host_ip("link set port master br0");
        let (_, mut ways) = tap(&lab, 1);
        let (here, there) = (lab.udp("10.77.0.1:9000"), udp(&behind, "10.77.0.3:9000"));
        let to_bridge = Udp {
            to_mac: [2, 0, 0, 0, 0, 0x10],
            ..Udp::v4(9000, 50, Sum::Pending)
        };
        pass(&mut ways[0], &to_bridge.frame(), 20);
        assert_eq!(count(&here, 20), 20, "{mode:?}: to the bridge's own address");
        for sum in [Sum::Finished, Sum::Pending] {
            let through = Udp {
                to_mac: [2, 0, 0, 0, 0, 3],
                to: [10, 77, 0, 3].into(),
                ..Udp::v4(9000, 51, sum)
            };
            pass(&mut ways[0], &through.frame(), 20);
            assert_eq!(count(&there, 20), 20, "{mode:?} {sum:?}: through the bridge");
        }
    }
}

#[test]
fn the_kernel_forwards_a_passed_frame_and_completes_its_checksum() {
    let Some(lab) = Lab::new("the_kernel_forwards_a_passed_frame_and_completes_its_checksum") else {
        return;
    };
    let behind = lab.behind("10.78.0.3/24", "02:00:00:00:00:03");
    lab.host_ip("addr add 10.78.0.1/24 dev port");
    // Makes the kernel finish every checksum before it sends, and the receiver verify it.
    lab.host_run("ethtool -K port tx off");
    lab.host_run("sysctl -q -w net.ipv4.ip_forward=1");
    let (_, mut ways) = tap(&lab, 1);
    let socket = udp(&behind, "10.78.0.3:9000");
    for sum in [Sum::Finished, Sum::Pending] {
        let frame = Udp {
            to: [10, 78, 0, 3].into(),
            ..Udp::v4(9000, 99, sum)
        };
        pass(&mut ways[0], &frame.frame(), 20);
        assert_eq!(count(&socket, 20), 20, "{sum:?}");
    }
}

#[test]
fn every_queue_passes_from_its_own_thread() {
    let Some(lab) = Lab::new("every_queue_passes_from_its_own_thread") else {
        return;
    };
    let _xdp = Counter::xdp(&lab, XdpMode::Generic);
    let (_, ways) = tap(&lab, 2);
    let sockets = [lab.udp("10.77.0.1:9000"), lab.udp("10.77.0.1:9001")];
    let threads: Vec<_> = ways
        .into_iter()
        .zip(9000..)
        .map(|(mut way, port)| {
            std::thread::spawn(move || pass(&mut way, &Udp::v4(port, 20, Sum::Pending).frame(), 100))
        })
        .collect();
    for thread in threads {
        thread.join().expect("it passed all");
    }
    for socket in &sockets {
        assert_eq!(count(socket, 100), 100);
    }
}

#[test]
fn the_tap_has_no_address_and_goes_with_its_last_way() {
    let Some(lab) = Lab::new("the_tap_has_no_address_and_goes_with_its_last_way") else {
        return;
    };
    let (device, mut ways) = tap(&lab, 2);
    let shown = lab.host_ip(&format!("-o addr show dev {}", device.name));
    assert!(!shown.contains("inet"), "{shown}");
    let shown = lab.host_ip(&format!("-o link show dev {}", device.name));
    assert!(
        shown.contains("02:00:00:00:00:01") && shown.contains("mtu 65521"),
        "{shown}"
    );
    ways.pop();
    pass(&mut ways[0], &Udp::v4(9000, 20, Sum::Finished).frame(), 1);
    assert!(lab.host_ip("-o link").contains(&device.name));
    drop(ways);
    until("the TAP is gone", || {
        !lab.host_ip("-o link").contains(&device.name)
    });
}

#[test]
fn what_is_taken_away_is_an_error_and_no_panic() {
    let Some(lab) = Lab::new("what_is_taken_away_is_an_error_and_no_panic") else {
        return;
    };
    assert_eq!(
        TapDevice::open(&lab.host, 9999, 1)
            .expect_err("no such card")
            .code(),
        "ENODEV"
    );
    assert!(
        !lab.host_ip("-o link").contains("bfpass"),
        "a failed open leaves nothing"
    );
    let (device, mut ways) = tap(&lab, 1);
    let frame = Udp::v4(9000, 20, Sum::Finished).frame();
    assert_eq!(
        ways[0].pass(&frame[..13]).expect_err("no Ethernet header").code(),
        "EINVAL"
    );
    lab.host_ip("link del card");
    // The kernel drops it behind the TAP, and says nothing.
    let _ = ways[0].pass(&frame);
    lab.host_ip(&format!("link set {} down", device.name));
    assert_eq!(ways[0].pass(&frame).expect_err("down").code(), "EIO");
    lab.host_ip(&format!("link del {}", device.name));
    assert_eq!(ways[0].pass(&frame).expect_err("gone").code(), "EBADFD");
    assert_eq!(ways[0].counters().refused, 3);
}

/// Not a test of its own: the process that the next one kills.
#[test]
fn child_that_is_killed() {
    let Ok(namespace) = std::env::var("BIFURCATE_TEST_NETNS") else {
        return;
    };
    let netns = Netns::open(Some(&namespace)).expect("the parent made it");
    let card = netns
        .within(|| bifurcate_linux::interface::index("card"))
        .expect("the parent made it");
    let (device, _ways) = TapDevice::open(&netns, card, 2).expect("a TAP");
    println!("\nopened {}", device.name);
    loop {
        std::thread::park();
    }
}

#[test]
fn a_killed_process_leaves_nothing_behind() {
    let Some(lab) = Lab::new("a_killed_process_leaves_nothing_behind") else {
        return;
    };
    let state = || {
        (
            lab.host_ip("-o link"),
            lab.host_run("tc qdisc"),
            lab.host_run("tc filter show dev card ingress"),
        )
    };
    let before = state();
    let mut child = Command::new(std::env::current_exe().expect("this test's program"))
        .args([
            "--exact",
            "child_that_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env("BIFURCATE_TEST_NETNS", lab.host_name())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    let opened = lines
        .map_while(Result::ok)
        .any(|line| line.starts_with("opened bfpass"));
    let during = lab.host_ip("-o link");
    child.kill().expect("SIGKILL");
    child.wait().expect("it is dead");
    assert!(opened && during.contains("bfpass"), "{during}");
    assert_eq!(state(), before);
}

#[test]
fn live_frames_arrive_once_where_xdp_is_native() {
    let Some(lab) = Lab::new("live_frames_arrive_once_where_xdp_is_native") else {
        return;
    };
    // Bound once: a process that another test starts holds a copy of each socket until it runs its program.
    let sockets = [lab.udp("10.77.0.1:9000"), lab.udp("[fd77::1]:9000")];
    for xdp in [None, Some(XdpMode::Driver)] {
        let _xdp = xdp.map(|mode| Counter::xdp(&lab, mode));
        let mut ways = LivePass::open(&lab.host, lab.card, 1).expect("live frames");
        for (make, socket) in [Udp::v4, Udp::v6].iter().zip(&sockets) {
            for sum in [Sum::Finished, Sum::Pending] {
                pass(&mut ways[0], &make(9000, 1400, sum).frame(), 20);
                assert_eq!(count(socket, 20), 20, "{xdp:?} {socket:?} {sum:?}");
            }
        }
        ways[0]
            .pass(&Udp::v4(9000, 5000, Sum::Finished).frame())
            .expect_err("longer than a page");
    }
}

#[test]
fn the_tap_is_preferred_and_generic_mode_takes_nothing_else() {
    let Some(lab) = Lab::new("the_tap_is_preferred_and_generic_mode_takes_nothing_else") else {
        return;
    };
    let opened = |xdp| open(&lab.host, lab.card, 1, xdp);
    assert!(matches!(opened(CardXdp::Generic), Ok(Opened::Tap { .. })));
    // A kernel without TUN.
    let _kernel = bifurcate_linux::fake::set(|call| {
        (call.args[1] == 0x4004_54ca).then_some(Err(bifurcate_linux::error::ENOTSUPP))
    });
    assert!(
        matches!(opened(CardXdp::DriverOrNone), Ok(Opened::Live { reason, .. }) if reason.code() == "ENOTSUPP")
    );
    assert!(matches!(opened(CardXdp::Generic), Err(reason) if reason.code() == "ENOTSUPP"));
}

#[test]
fn checksum_module_agrees_with_these_frames() {
    for make in [Udp::v4, Udp::v6] {
        let mut frame = make(9, 77, Sum::Pending).frame();
        assert!(checksum::complete_if_pending(&mut frame));
        assert_eq!(frame, make(9, 77, Sum::Finished).frame());
        assert_eq!(checksum::verify(&make(9, 77, Sum::Wrong).frame()), Some(false));
    }
}
