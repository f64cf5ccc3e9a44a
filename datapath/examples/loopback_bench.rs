//! Reflects frames on a null port on one core and prints what that reached: `loopback_bench hot|cold|io|remote
//! [seconds] [burst] [frames] [core]`.
//!
//! `hot` and `cold` swap the MACs of every frame; `io` sends frames back untouched, in hot order; `remote` does
//! that through the block shared with a handler in another language, whose part is then only to write "send". One
//! line of JSON: row, packets, seconds, mpps, burst, frames, pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bifurcate_datapath::device::loopback::{NullConfig, Order, null};
use bifurcate_datapath::engine::remote::{HEADER_WORDS, ROW_WORDS, RemoteQueue};
use bifurcate_datapath::engine::{Forward, Handler, Lane, Options, Out, Reflect, Run, start};
use bifurcate_datapath::frame::UmemConfig;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1);
    let row = args.next().unwrap_or_else(|| "hot".into());
    let mut number = |default: f64| args.next().map_or(Ok(default), |arg| arg.parse::<f64>());
    let seconds = number(3.0)?;
    let burst = number(32.0)? as usize;
    let (order, default_frames) = match row.as_str() {
        "hot" | "io" | "remote" => (Order::Hot, 8192.0),
        "cold" => (Order::Cold, 65_536.0),
        _ => return Err("usage: loopback_bench hot|cold|io|remote [seconds] [burst] [frames] [core]".into()),
    };
    let frames = number(default_frames)? as u32;
    let core = number(-1.0)?;

    let umem = UmemConfig {
        frames,
        ..UmemConfig::default()
    };
    let mut port = null(&NullConfig {
        queues: 1,
        umem,
        length: 64,
        order,
    })?;
    let counters = port.counters().remove(0);
    let queue = port.queues.remove(0);
    let outs = vec![Out::new(queue.tx, &port.umem, &port.umem)];
    let loops: Loops = if row == "remote" {
        remote(RemoteQueue::new(queue.rx, &port.umem, burst, outs))
    } else {
        let handler: Box<dyn Handler> = if row == "io" {
            Box::new(Forward { port: 0 })
        } else {
            Box::new(Reflect)
        };
        let lane = Lane::new(queue.rx, &port.umem, burst, handler, outs);
        let cores = if core >= 0.0 { vec![core as u32] } else { vec![] };
        let options = Options {
            cores,
            busy_poll: true,
        };
        Loops::Native(start(vec![lane], &options)?)
    };

    // Warm first, then count between two looks at the counters, as testpmd's statistics do.
    std::thread::sleep(Duration::from_millis(200));
    let (before, began) = (counters.tx.totals().sent, Instant::now());
    std::thread::sleep(Duration::from_secs_f64(seconds));
    let (after, elapsed) = (counters.tx.totals().sent, began.elapsed().as_secs_f64());
    loops.stop()?;

    let packets = after - before;
    println!(
        "{{\"row\":\"{row}\",\"packets\":{packets},\"seconds\":{elapsed:.3},\"mpps\":{:.2},\"burst\":{burst},\
         \"frames\":{frames},\"pages\":\"{:?}\"}}",
        packets as f64 / elapsed / 1e6,
        port.umem.page_kind()
    );
    Ok(())
}

/// The loop that is measured.
enum Loops {
    Native(Run),
    Remote(Arc<AtomicBool>, JoinHandle<()>),
}

impl Loops {
    fn stop(self) -> Result<(), Box<dyn std::error::Error>> {
        match self {
            Loops::Native(run) => {
                run.stop();
                run.join()?;
            }
            Loops::Remote(stop, thread) => {
                stop.store(true, Ordering::Relaxed);
                thread.join().map_err(|_| "the loop panicked")?;
            }
        }
        Ok(())
    }
}

/// A handler at the other side of the block: it writes "send, port 0" into every row.
fn remote(mut queue: RemoteQueue) -> Loops {
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        let block = Arc::clone(queue.block().memory());
        // Words 2 and 3 of a row, as the one atomic that they are.
        let send = if cfg!(target_endian = "little") {
            1
        } else {
            1 << 32
        };
        while !asked.load(Ordering::Relaxed) {
            let rows = queue.turn();
            for row in 0..rows {
                block[(HEADER_WORDS + row * ROW_WORDS) / 2 + 1].store(send, Ordering::Relaxed);
            }
        }
    });
    Loops::Remote(stop, thread)
}
