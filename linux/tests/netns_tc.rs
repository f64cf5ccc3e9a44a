//! Traffic control filters on the real kernel: a redirect into another interface, and what is left behind.

mod lab;

use bifurcate_linux::bpf::{Attachment, Program, ProgramSource, ProgramType, TcDirection};
use bifurcate_linux::netlink::tc::{Action, Classifier, Filter};
use bifurcate_linux::netlink::{ingress, link};
use lab::Lab;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// Sets skb->tc_index (at byte 44 of struct __sk_buff) and matches everything: returns -1.
const MARK_AND_MATCH: [u8; 32] = [
    0xb7, 0, 0, 0, 1, 0, 0, 0, // r0 = 1
    0x63, 0x01, 44, 0, 0, 0, 0, 0, // *(u32 *)(r1 + 44) = r0
    0xb7, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, // r0 = -1
    0x95, 0, 0, 0, 0, 0, 0, 0, // exit
];

/// `ret #-1`: go on to the next filter. `ret #2`: drop.
const CLASSIC_NEXT: [u8; 8] = [6, 0, 0, 0, 0xff, 0xff, 0xff, 0xff];
const CLASSIC_DROP: [u8; 8] = [6, 0, 0, 0, 2, 0, 0, 0];

fn lab(test: &str) -> Option<(Lab, u32, u32)> {
    let lab = Lab::new(test)?;
    lab.ip("link add a0 type veth peer name a1");
    lab.ip("link add b0 type veth peer name b1");
    for name in ["a0", "a1", "b0", "b1"] {
        lab.ip(&format!("link set {name} up"));
    }
    let index = |name: &str| lab.netns.within(|| link::link(name)).unwrap().index;
    let (a, b) = (index("a0"), index("b0"));
    Some((lab, a, b))
}

#[test]
fn what_arrives_on_one_interface_arrives_on_another() {
    let Some((lab, a, b)) = lab("what_arrives_on_one_interface_arrives_on_another") else {
        return;
    };
    let Some(far) = Lab::new("what_arrives_on_one_interface_arrives_on_another") else {
        return;
    };
    far.no_ipv6();
    lab.ip(&format!("link set a1 netns {}", far.name));
    far.ip("addr add 10.8.0.2/24 dev a1");
    far.ip("link set a1 up");
    let source = ProgramSource {
        kind: ProgramType::SchedCls,
        name: "bf_mark",
        instructions: &MARK_AND_MATCH,
        maps: &[],
        fragments: false,
    };
    let program = Program::load(&source).unwrap();
    let classifier = Classifier::Program {
        program: program.as_fd(),
        name: "bf_mark",
    };
    let filter = lab
        .netns
        .within(|| Filter::add(a, TcDirection::Ingress, &classifier, Action::RedirectIngress(b)))
        .unwrap();
    let shown = lab.run("tc", "filter show dev a0 ingress");
    assert!(
        shown.contains("Ingress Redirect") && shown.contains("bf_mark"),
        "{shown}"
    );
    assert!(filter.present().unwrap());
    assert_eq!(redirected(&lab), 0);
    send_one(&far);
    let end = Instant::now() + Duration::from_secs(60);
    while redirected(&lab) == 0 && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(redirected(&lab), 1);
    drop(filter);
    assert!(!lab.run("tc", "qdisc show dev a0").contains("clsact"));
}

/// What a packet socket on b0 would see is what the action counted: frames that really went there.
fn redirected(lab: &Lab) -> u64 {
    let shown = lab.run("tc", "-s filter show dev a0 ingress");
    let sent = shown
        .lines()
        .find(|line| line.trim_start().starts_with("Sent "))
        .unwrap_or_else(|| panic!("{shown}"));
    sent.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Sends one broadcast datagram out of a1, in its namespace.
fn send_one(far: &Lab) {
    let send = || {
        let socket = UdpSocket::bind("10.8.0.2:0").and_then(|socket| {
            socket.set_broadcast(true)?;
            socket.send_to(b"x", "10.8.0.255:9")
        });
        assert_eq!(socket.unwrap(), 1);
        Ok(())
    };
    far.netns.within(send).unwrap();
}

#[test]
fn somebody_elses_filter_and_qdisc_stay() {
    let Some((lab, a, _)) = lab("somebody_elses_filter_and_qdisc_stay") else {
        return;
    };
    lab.run("tc", "qdisc add dev a0 clsact");
    let first = lab
        .netns
        .within(|| {
            Filter::add(
                a,
                TcDirection::Ingress,
                &Classifier::Classic(&CLASSIC_NEXT),
                Action::Direct,
            )
        })
        .unwrap();
    let second = lab
        .netns
        .within(|| {
            Filter::add(
                a,
                TcDirection::Ingress,
                &Classifier::Classic(&CLASSIC_DROP),
                Action::Direct,
            )
        })
        .unwrap();
    assert!(second.priority() > first.priority());
    drop(first);
    assert!(second.present().unwrap());
    drop(second);
    assert!(lab.run("tc", "qdisc show dev a0").contains("clsact"));
    assert_eq!(lab.run("tc", "filter show dev a0 ingress"), "");
}

#[test]
fn a_filter_of_a_killed_process_is_deleted_by_its_name() {
    let Some((lab, a, _)) = lab("a_filter_of_a_killed_process_is_deleted_by_its_name") else {
        return;
    };
    let source = ProgramSource {
        kind: ProgramType::SchedCls,
        name: "bf_mark",
        instructions: &MARK_AND_MATCH,
        maps: &[],
        fragments: false,
    };
    let program = Program::load(&source).unwrap();
    let add = |name: &str| {
        lab.netns
            .within(|| Attachment::tc_filter(&program, a, TcDirection::Ingress, name))
            .unwrap()
    };
    let stands = || lab.netns.within(|| ingress::look(a)).unwrap();
    let idle = stands();
    assert!(!idle.clsact && idle.filters.is_empty());
    // What is killed drops nothing.
    std::mem::forget(add("bf-one"));
    let other = add("bf-two");
    assert_eq!(stands().filters, ["bf-one", "bf-two"]);
    lab.netns.within(|| ingress::delete(a, "bf-one", true)).unwrap();
    assert_eq!(stands().filters, ["bf-two"]);
    drop(other);
    // The second found the qdisc there, so it stays until the one it was made for is undone.
    assert!(stands().clsact);
    lab.netns.within(|| ingress::delete(a, "bf-one", true)).unwrap();
    assert_eq!(stands(), idle);
    lab.netns.within(|| ingress::delete(a, "bf-one", true)).unwrap();
}

#[test]
fn a_filter_ends_with_its_interface() {
    let Some((lab, a, _)) = lab("a_filter_ends_with_its_interface") else {
        return;
    };
    let filter = lab
        .netns
        .within(|| {
            Filter::add(
                a,
                TcDirection::Ingress,
                &Classifier::Classic(&CLASSIC_NEXT),
                Action::Direct,
            )
        })
        .unwrap();
    lab.ip("link del a0");
    assert!(!filter.present().unwrap());
}
