//! Leases a flow and gives it back, again and again, until it is ended: `take DEV FLOW port|queue TRANSMIT [pass]`.
//!
//! Says `leased` when it has had its first lease.

use bifurcate_client::{Broker, Error, Request, Result, Transmit, WantedMechanism};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [device, flow, mechanism, transmit, rest @ ..] = &args[..] else {
        return Err(Error::Protocol(
            "usage: take DEV FLOW port|queue TRANSMIT [pass]".into(),
        ));
    };
    let request = Request {
        mechanism: match mechanism.as_str() {
            "queue" => WantedMechanism::Queue,
            _ => WantedMechanism::Port,
        },
        transmit: match transmit.as_str() {
            "raw" => Transmit::Raw,
            "own" => Transmit::Own,
            _ => Transmit::None,
        },
        pass: !rest.is_empty(),
        frames: 256,
        ring_size: 64,
        ..Request::new(device, &[flow])
    };
    for turn in 0.. {
        let lease = Broker::connect()?.lease(&request)?;
        if turn == 0 {
            println!("leased");
        }
        lease.give_back()?;
    }
    Ok(())
}
