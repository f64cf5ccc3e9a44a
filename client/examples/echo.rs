//! Answers UDP datagrams with what they say, as any user: those of a leased flow, `echo DEV FLOW [none|own|raw] [COUNT]`,
//! or those that come to a card which is leased whole, `echo ADDRESS [COUNT]`.
//!
//! Says as lines of JSON what it was granted, and at its end how many it received and sent. It ends after COUNT answers,
//! which gives the lease back, or when the lease is taken back.

use bifurcate_client::{Broker, Error, Request, Result, Transmit};

fn main() -> std::process::ExitCode {
    match run() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (request, count) = match &args[..] {
        [card, rest @ ..] if card.contains(':') && rest.len() < 2 => (Request::card(card), rest.first()),
        [device, flow, rest @ ..] => {
            let transmit = match rest.first().map(String::as_str) {
                Some("none") => Transmit::None,
                Some("raw") => Transmit::Raw,
                _ => Transmit::Own,
            };
            let request = Request::new(device, &[flow]);
            (Request { transmit, ..request }, rest.get(1))
        }
        _ => {
            let usage = "usage: echo DEV FLOW [none|own|raw] [COUNT], or echo ADDRESS [COUNT]";
            return Err(Error::Protocol(usage.into()));
        }
    };
    let most: u64 = count.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX);
    let mut lease = Broker::connect()?.lease(&request)?;
    let granted = lease.granted();
    println!(
        r#"{{"event":"lease","id":"{}","pid":{},"mechanism":"{:?}","port":"{}","mac":"{}"}}"#,
        granted.id,
        std::process::id(),
        granted.mechanism,
        granted.port,
        granted.mac
    );
    let mut batch = lease.batch(64);
    let (mut received, mut sent) = (0, 0);
    while sent < most {
        lease.wait(None)?;
        for queue in 0..lease.queues() {
            received += lease.receive(queue, &mut batch) as u64;
            for at in 0..batch.len() {
                if turn_round(batch.bytes_mut(at)) {
                    batch.send(at, 0);
                }
            }
            sent += lease.send(queue, &mut batch) as u64;
        }
    }
    lease.give_back()?;
    println!(r#"{{"event":"end","received":{received},"sent":{sent}}}"#);
    Ok(())
}

/// Makes an answer of a UDP datagram over IPv4 without options: addresses and ports swapped, which leaves every checksum
/// right. False for anything else.
fn turn_round(frame: &mut [u8]) -> bool {
    if frame.len() < 42 || frame[12..15] != [0x08, 0x00, 0x45] || frame[23] != 17 {
        return false;
    }
    for (a, b, bytes) in [(0, 6, 6), (26, 30, 4), (34, 36, 2)] {
        for at in 0..bytes {
            frame.swap(a + at, b + at);
        }
    }
    true
}
