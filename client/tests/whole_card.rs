//! A lease of a whole card, as far as no card is needed: what is said, and what is believed of what comes.

mod fake_broker;

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use bifurcate_client::{Error, Request};
use bifurcate_linux::memory::{MemoryFile, PageKind};

const CARD: &str = "0000:01:00.0";
const MIB: usize = 1 << 20;

/// The broker's words for a card, whose memory is said to be so.
fn granted(mechanism: &str, card: &str) -> String {
    format!(
        r#"{{"type":"granted","request":1,"lease":{{"id":"lease-1","device":"{CARD}","mechanism":"{mechanism}","port":"{CARD}","portQueues":[0],"mtu":0,"mac":"","queues":1,"transmit":"raw","pass":false,"frames":512,"frameSize":2048,"jumboFrames":0,"ringSize":64,"filled":0,"zeroCopy":true,"needWakeup":false,"multiBuffer":false,"busyPoll":false,"leftToCard":false,"xdp":"driver","bypasses":[],"notes":[]{card}}}}}"#
    )
}

const MEMORY: &str = r#","card":{"iova":4294967296,"ringsAt":2097152,"ringBytes":2097152}"#;

/// A memory file, and something that is no card.
fn two() -> Vec<OwnedFd> {
    let memory = MemoryFile::create("bf-client", 4 * MIB, PageKind::Ordinary).unwrap();
    let memory = memory.as_fd().try_clone_to_owned().unwrap();
    vec![memory, File::open("/dev/null").unwrap().into()]
}

/// Asks a broker that answers so for the card; gives why it got none, and what it said.
fn refused(name: &str, version: u32, granted: String, descriptors: Vec<OwnedFd>) -> (Error, Vec<String>) {
    fake_broker::refused(name, version, &Request::card("1:0.0"), granted, descriptors)
}

#[test]
fn a_card_is_asked_for_by_its_address_and_opened_by_what_came() {
    // Nothing but the descriptor is wrong, and it is the kernel that says so.
    let (why, said) = refused("asks", 3, granted("vfio", MEMORY), two());
    assert!(said[0].contains(r#""versions":[3,2,1]"#), "{said:?}");
    assert!(said[1].contains(r#""device":"0000:01:00.0","flows":[],"mechanism":"vfio","transmit":"raw""#));
    assert_eq!(why.code(), "E_SYSTEM", "{why}");
}

#[test]
fn a_broker_that_is_too_old_for_cards_is_not_asked() {
    let (why, said) = refused("old", 2, granted("vfio", MEMORY), two());
    assert_eq!(why.code(), "E_BROKER_PROTOCOL");
    assert!(
        why.to_string()
            .contains("it speaks version 2, and leases cards since 3"),
        "{why}"
    );
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn a_grant_that_is_not_what_was_asked_for_is_not_believed() {
    let wrong = [
        ("port", granted("port", MEMORY), two(), "it gave Port"),
        (
            "nowhere",
            granted("vfio", ""),
            two(),
            "where the card's memory is",
        ),
        (
            "fewer",
            granted("vfio", MEMORY),
            two().drain(..1).collect(),
            "1 descriptors came",
        ),
        (
            "more",
            granted("vfio", MEMORY),
            two().into_iter().chain(two()).collect(),
            "4 descriptors came",
        ),
    ];
    for (name, grant, descriptors, expected) in wrong {
        let (why, _) = refused(name, 3, grant, descriptors);
        assert_eq!(why.code(), "E_BROKER_PROTOCOL", "{name}");
        assert!(why.to_string().contains(expected), "{name}: {why}");
    }
}

#[test]
fn rings_beyond_the_memory_file_are_refused_before_anything_is_mapped() {
    for (name, rings_at, ring_bytes) in [
        ("beyond", "4194304", "2097152"),
        ("wraps", "2097152", "18446744073709551615"),
        ("none", "2097152", "0"),
    ] {
        let card = format!(r#","card":{{"iova":4294967296,"ringsAt":{rings_at},"ringBytes":{ring_bytes}}}"#);
        let (why, _) = refused(name, 3, granted("vfio", &card), two());
        assert!(why.to_string().contains("the memory file has"), "{name}: {why}");
    }
}

#[test]
fn what_is_no_address_is_not_opened() {
    let request = Request::card("eth0");
    let (why, _) = fake_broker::refused("address", 3, &request, granted("vfio", MEMORY), two());
    assert_eq!(why.code(), "E_SYSTEM");
}
