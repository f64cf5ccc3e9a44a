//! A lease of a flow, as far as no card is needed: descriptors that are not as many as the grant says.

mod fake_broker;

use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bifurcate_client::Request;

/// The broker's words for so many queues of a port.
fn granted(queues: u32, pass: bool) -> String {
    format!(
        r#"{{"type":"granted","request":1,"lease":{{"id":"lease-1","device":"eth0","mechanism":"port","port":"bff00000001","portQueues":[0,1],"mtu":1500,"mac":"02:00:00:00:00:01","queues":{queues},"transmit":"own","pass":{pass},"frames":64,"frameSize":2048,"jumboFrames":0,"ringSize":64,"filled":16,"zeroCopy":false,"needWakeup":true,"multiBuffer":false,"busyPoll":false,"leftToCard":true,"xdp":"driver","bypasses":[],"notes":[]}}}}"#
    )
}

/// What a client says of such a grant with so many descriptors, which nobody has any more afterwards.
fn refused(name: &str, grant: String, count: usize) -> (String, String) {
    let (passed, kept): (Vec<OwnedFd>, Vec<UnixStream>) = (0..count)
        .map(|_| UnixStream::pair().unwrap())
        .map(|(passed, kept)| (OwnedFd::from(passed), kept))
        .unzip();
    let request = Request::new("eth0", &["udp dst port 53"]);
    let (why, _) = fake_broker::refused(name, 3, &request, grant, passed);
    for (at, mut other) in kept.into_iter().enumerate() {
        other.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let end = other.read(&mut [0; 1]);
        assert_eq!(end.ok(), Some(0), "{name}: descriptor {at} is open still");
    }
    (why.code().to_owned(), why.to_string())
}

#[test]
fn too_many_or_too_few_descriptors_are_refused_and_closed() {
    // The memory, a socket a queue, and with `pass` a queue of the return port beside each.
    for (queues, pass, right) in [(2, true, 5), (2, false, 3), (1, true, 3), (1, false, 2)] {
        for count in [0, 1, right - 1, right + 1, right + 4] {
            let name = format!("flow-{queues}-{pass}-{count}");
            let (code, why) = refused(&name, granted(queues, pass), count);
            let expected = format!("{count} descriptors came with a lease of {queues} queues, not {right}");
            assert_eq!(code, "E_BROKER_PROTOCOL", "{name}");
            assert!(why.contains(&expected), "{name}: {why}");
        }
        // As many as there are to be: the kernel is asked what they are, and they are no memory.
        let (code, why) = refused(&format!("flow-{queues}-{pass}"), granted(queues, pass), right);
        assert_eq!(code, "E_SYSTEM", "{why}");
    }
}

#[test]
fn a_lease_without_a_queue_is_none_and_one_of_billions_is_not_waited_for() {
    let (code, why) = refused("none", granted(0, false), 1);
    assert_eq!(code, "E_BROKER_PROTOCOL");
    assert!(
        why.contains("1 descriptors came with a lease of 0 queues"),
        "{why}"
    );
    let (code, why) = refused("billions", granted(u32::MAX, true), 3);
    assert_eq!(code, "E_BROKER_PROTOCOL");
    assert!(
        why.contains("3 descriptors came with a lease of 4294967295 queues"),
        "{why}"
    );
}
