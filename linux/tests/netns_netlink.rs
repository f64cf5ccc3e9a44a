//! rtnetlink against the real kernel: what iproute2 makes is read, and what is made here iproute2 sees.

mod lab;

use bifurcate_linux::netlink::link::{self, Change, Link, VethEnd};
use bifurcate_linux::netlink::watch::{Watch, What};
use bifurcate_linux::netlink::{address, netdev, route};
use bifurcate_linux::netns::Netns;
use lab::Lab;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

fn find<'a>(links: &'a [Link], name: &str) -> &'a Link {
    links
        .iter()
        .find(|link| link.name == name)
        .unwrap_or_else(|| panic!("{name} among {links:?}"))
}

#[test]
fn links_and_their_relations() {
    let Some(lab) = Lab::new("links_and_their_relations") else {
        return;
    };
    lab.ip("link add v0 numrxqueues 4 numtxqueues 3 type veth peer name v1");
    lab.ip("link add br0 type bridge");
    lab.ip("link set v1 master br0 up");
    lab.ip("link set v0 up mtu 1400 address 02:00:00:00:00:07");
    let links = lab.netns.within(link::links).unwrap();
    let (v0, v1, br0) = (find(&links, "v0"), find(&links, "v1"), find(&links, "br0"));
    assert_eq!((v0.rx_queues, v0.tx_queues, v0.mtu), (4, 3, 1400));
    assert_eq!((v0.mac.as_slice(), v0.hardware), (&[2, 0, 0, 0, 0, 7][..], 1));
    assert_eq!(
        (v0.up, v0.carrier, v0.kind.as_deref()),
        (true, true, Some("veth"))
    );
    assert_eq!(
        (v0.link, v1.link, v1.master),
        (Some(v1.index), Some(v0.index), Some(br0.index))
    );
    assert!(find(&links, "lo").loopback);
    assert_eq!(find(&links, "lo").kind, None);
    let one = lab.netns.within(|| link::link("v0")).unwrap();
    assert_eq!(&one, v0);
    assert_eq!(
        lab.netns.within(|| link::link_by_index(br0.index)).unwrap().name,
        "br0"
    );
    assert_eq!(
        lab.netns.within(|| link::link("nowhere")).unwrap_err().code(),
        "ENODEV"
    );
}

#[test]
fn a_veth_pair_across_namespaces() {
    let Some(lab) = Lab::new("a_veth_pair_across_namespaces") else {
        return;
    };
    let Some(other) = Lab::new("a_veth_pair_across_namespaces") else {
        return;
    };
    let near = VethEnd {
        name: "near",
        netns: None,
        rx_queues: 2,
        tx_queues: 2,
    };
    let far = VethEnd {
        name: "far",
        netns: Some(&other.netns),
        rx_queues: 3,
        tx_queues: 1,
    };
    lab.netns.within(|| link::create_veth(near, far)).unwrap();
    let here = lab.netns.within(|| link::link("near")).unwrap();
    let there = other.netns.within(|| link::link("far")).unwrap();
    assert_eq!(
        (here.rx_queues, here.tx_queues, there.rx_queues, there.tx_queues),
        (2, 2, 3, 1)
    );
    assert!(here.link_elsewhere);
    let again = lab.netns.within(|| link::create_veth(near, far)).unwrap_err();
    assert_eq!(again.code(), "EEXIST");

    let change = Change {
        up: Some(true),
        mtu: Some(1300),
        mac: Some([2, 1, 1, 1, 1, 1]),
        name: Some("renamed"),
        netns: None,
    };
    lab.netns.within(|| link::set(here.index, &change)).unwrap();
    let text = lab.ip("link show dev renamed");
    assert!(
        text.contains("mtu 1300") && text.contains("02:01:01:01:01:01") && text.contains(",UP"),
        "{text}"
    );
    lab.netns
        .within(|| {
            link::set(
                here.index,
                &Change {
                    up: Some(false),
                    ..Change::default()
                },
            )
        })
        .unwrap();
    assert!(!lab.netns.within(|| link::link("renamed")).unwrap().up);

    lab.netns.within(|| link::delete(here.index)).unwrap();
    assert_eq!(
        other.netns.within(|| link::link("far")).unwrap_err().code(),
        "ENODEV"
    );
}

#[test]
fn addresses_and_routes() {
    let Some(lab) = Lab::new("addresses_and_routes") else {
        return;
    };
    lab.ip("link add v0 type veth peer name v1");
    lab.ip("link set v1 up");
    lab.ip("link set v0 up");
    let index = lab.netns.within(|| link::link("v0")).unwrap().index;
    let add = |text: &str, prefix| {
        let address = address::Address {
            ifindex: index,
            address: text.parse().unwrap(),
            prefix,
        };
        lab.netns.within(|| address::add(&address)).unwrap();
        address
    };
    let (four, six) = (add("10.9.0.1", 24), add("fd00:9::1", 64));
    lab.ip("route add default via 10.9.0.254");
    lab.ip("route add 192.0.2.0/24 dev v0");
    lab.ip("-6 route add default via fd00:9::fe");
    let found = lab.netns.within(address::addresses).unwrap();
    assert!(found.contains(&four) && found.contains(&six), "{found:?}");
    assert!(lab.ip("addr show dev v0").contains("10.9.0.1/24"));

    let routes = lab.netns.within(route::routes).unwrap();
    let seen: Vec<String> = routes
        .iter()
        .filter(|route| route.ifindex == index)
        .map(|r| {
            format!(
                "{}/{} {}",
                r.destination,
                r.prefix,
                r.gateway.map_or("-".to_owned(), |g| g.to_string())
            )
        })
        .collect();
    for wanted in [
        "0.0.0.0/0 10.9.0.254",
        "10.9.0.0/24 -",
        "192.0.2.0/24 -",
        "::/0 fd00:9::fe",
        "fd00:9::/64 -",
    ] {
        assert!(
            seen.iter().any(|route| route == wanted),
            "{wanted} among {seen:?}"
        );
    }
    assert!(
        !seen.iter().any(|route| route.starts_with("10.9.0.255")),
        "{seen:?}"
    );
}

#[test]
fn what_xdp_a_veth_can() {
    let Some(lab) = Lab::new("what_xdp_a_veth_can") else {
        return;
    };
    lab.ip("link add v0 type veth peer name v1");
    let index = lab.netns.within(|| link::link("v0")).unwrap().index;
    let Some(features) = lab.netns.within(|| netdev::xdp_features(index)).unwrap() else {
        println!("SKIPPED what_xdp_a_veth_can: this kernel has no netdev netlink family (6.3)");
        return;
    };
    for wanted in ["basic", "redirect", "rx-sg"] {
        assert!(features.features.contains(&wanted), "{features:?}");
    }
    assert!(!features.features.contains(&"xsk-zerocopy"));
    assert_eq!(
        lab.netns
            .within(|| netdev::xdp_features(9999))
            .unwrap_err()
            .code(),
        "ENODEV"
    );
}

/// Waits until the watch has something, and reads it; fails rather than hang.
fn next(netns: &Netns, watch: &mut Watch) -> Vec<(String, What)> {
    let mut fds = [PollFd::new(watch, PollFlags::IN)];
    let ready = poll(
        &mut fds,
        Some(&Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        }),
    )
    .unwrap();
    assert_eq!(ready, 1, "no event came");
    let events = netns.within(|| watch.read()).unwrap();
    events.into_iter().map(|event| (event.name, event.what)).collect()
}

/// Reads events until `wanted` is among them.
fn wait_for(netns: &Netns, watch: &mut Watch, name: &str, wanted: &What) {
    let mut seen = Vec::new();
    while !seen.contains(&(name.to_owned(), wanted.clone())) {
        seen.extend(next(netns, watch));
        assert!(seen.len() < 100, "waited for {name} {wanted:?}, saw {seen:?}");
    }
}

#[test]
fn link_events_as_they_happen() {
    let Some(lab) = Lab::new("link_events_as_they_happen") else {
        return;
    };
    let Some(other) = Lab::new("link_events_as_they_happen") else {
        return;
    };
    lab.ip("link add v0 type veth peer name v1");
    lab.ip("link set v1 up");
    let mut watch = lab.netns.within(Watch::open).unwrap();
    let mut expect = |command: &str, name: &str, what: What| {
        lab.ip(command);
        wait_for(&lab.netns, &mut watch, name, &what);
    };
    expect("link set v0 up", "v0", What::Up);
    expect("link set v0 mtu 1399", "v0", What::Mtu(1399));
    expect("link set v0 down", "v0", What::Down);
    expect("link set v0 name v9", "v9", What::Renamed("v0".to_owned()));
    expect("link add w0 type veth peer name w1", "w0", What::Added);
    expect(&format!("link set w0 netns {}", other.name), "w0", What::Moved);
    expect("link del v9", "v9", What::Deleted);
}
