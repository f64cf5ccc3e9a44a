//! A broker that ends the connection: the client gives the reason that the broker said, not that nobody is there.

use std::os::fd::AsFd;

use bifurcate_client::Broker;
use bifurcate_linux::event::{Interest, wait_one};
use bifurcate_linux::seqpacket::Listener;

const WELCOME: &str = r#"{"type":"welcome","version":3,"broker":"test","pid":1,"netns":1}"#;
const FULL: &str = r#"{"type":"error","request":null,"error":{"code":"E_BROKER_FULL","what":"connect","why":"user 0 has 128 connections","next":"Wait."}}"#;

/// Why a client cannot list its leases whose broker said that, and had closed before the client asked.
fn refused(name: &str, words: Option<&'static str>) -> String {
    let path = std::env::temp_dir().join(format!("bf-client-{}-{name}", std::process::id()));
    let listener = Listener::bind(&path, 1).unwrap();
    let broker = std::thread::spawn(move || {
        wait_one(listener.as_fd(), Interest::Read, None).unwrap();
        let client = listener.accept().unwrap().unwrap();
        wait_one(client.as_fd(), Interest::Read, None).unwrap();
        client.receive(&mut [0; 4096]).unwrap();
        for each in [Some(WELCOME), words].into_iter().flatten() {
            client.send(each.as_bytes(), &[]).unwrap();
        }
    });
    let mut client = Broker::connect_at(&path).unwrap();
    broker.join().unwrap();
    std::fs::remove_file(&path).unwrap();
    let why = client.list().expect_err("nobody is there to answer");
    format!("{}: {why}", why.code())
}

#[test]
fn what_the_broker_said_before_it_closed_is_the_reason() {
    let why = refused("full", Some(FULL));
    assert!(
        why.starts_with("E_BROKER_FULL: ") && why.contains("128 connections"),
        "{why}"
    );
}

#[test]
fn a_broker_that_closed_without_a_word_is_gone() {
    let why = refused("gone", None);
    assert!(
        why.starts_with("E_NO_BROKER: ") && why.contains("closed the connection"),
        "{why}"
    );
}
