//! Counts the instructions that a packet costs each driver: received, sent back out, collected. Exact, by stepping a
//! process through them (ptrace(2)); the card is memory that nobody else writes, and what plays it is not counted, but for
//! the doorbells of virtio's, which are calls of its model.
//!
//! Prints a line of JSON: `{"driver":"igb, igbvf","packets":N,"instructions":N,"per_packet":N}` for each.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bifurcate_datapath::device::Port;
use bifurcate_datapath::device::pmd::model::Bare;
use bifurcate_datapath::device::pmd::{
    ADVANCED, Config, LEGACY, Pool, Quiet, ReadWrite, Register, Registers, Rings, TransmitWords, build,
};
use bifurcate_datapath::device::virtio::pci::model::{Made, Model};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_datapath::ring::virtio::feature::RING_PACKED;
use bifurcate_linux::memory::Mapping;
use bifurcate_linux::{Error, Result};

/// Slots of each ring.
const SIZE: u32 = 256;
/// Packets of a burst.
const BURST: u32 = 32;
/// Bursts that are counted, after as many that are not: the caches of frames are full by then.
const BURSTS: u32 = 16;
/// Bytes of a frame of 64 on the wire.
const LENGTH: u64 = 60;
/// `si_code` of a trap that a breakpoint made (asm-generic/siginfo.h).
const SI_KERNEL: i32 = 0x80;
/// Where the receive and the transmit ring's tails are.
const RX_TAIL: u32 = 0;
const TX_TAIL: u32 = 4;

/// Registers that are memory: a doorbell costs one store, as on a card.
#[derive(Default)]
struct Words([AtomicU32; 2]);

impl Registers for Words {
    fn read(&self, offset: u32) -> u32 {
        self.0[offset as usize / 4 % 2].load(Ordering::Relaxed)
    }

    fn write(&self, offset: u32, value: u32) {
        self.0[offset as usize / 4 % 2].store(value, Ordering::Relaxed);
    }
}

/// What plays the card: it finishes descriptors where they lie.
struct Card {
    memory: Arc<Mapping>,
    receive: u32,
    transmit: u32,
}

impl Card {
    fn word(&self, ring: u32, slot: u32) -> *mut u64 {
        let at = ring * SIZE * 16 + slot % SIZE * 16 + 8;
        // SAFETY: word 1 of a slot of one of the two rings, which are the first bytes of the mapping.
        unsafe { self.memory.base().as_ptr().add(at as usize).cast() }
    }

    /// Finishes a burst of receive descriptors, and every transmit descriptor that asked for it.
    fn serve(&mut self, registers: &Words) {
        for _ in 0..BURST {
            // DD and EOP; SAFETY: as in `word`, and nobody else writes now.
            unsafe { self.word(0, self.receive).write_volatile(LENGTH << 32 | 0b11) };
            self.receive = self.receive.wrapping_add(1);
        }
        while self.transmit % SIZE != registers.read(TX_TAIL) {
            let word = self.word(1, self.transmit);
            // SAFETY: as above.
            unsafe { word.write_volatile(word.read_volatile() | 1 << 32) };
            self.transmit = self.transmit.wrapping_add(1);
        }
    }
}

/// Stops here for whoever counts: the instructions between two of these are the ones.
#[inline(always)]
fn mark() {
    // SAFETY: a breakpoint (INT3) changes no register; the process that started this one is tracing it.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::asm!("int3", options(nostack, preserves_flags));
    }
}

/// Which engine is counted.
#[derive(Clone, Copy)]
enum Engine {
    /// Descriptor rings, by these words.
    Descriptors(TransmitWords),
    /// virtio's rings, packed or split.
    Virtio { packed: bool },
}

/// The life of the process that is stepped through.
fn run(engine: Engine) -> Result<()> {
    let umem = Umem::map(&UmemConfig {
        frames: 2048,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Ordinary,
    })?;
    match engine {
        Engine::Descriptors(words) => descriptors(&umem, words),
        Engine::Virtio { packed } => virtio(&umem, packed),
    }
}

fn virtio(umem: &Arc<Umem>, packed: bool) -> Result<()> {
    let mut made = Made::default();
    if packed {
        made.offers |= RING_PACKED;
    }
    let model = Model::new(made);
    let config = Config {
        ring_size: SIZE,
        packed,
        ..Config::default()
    };
    let (port, _quiet) = model.open(&config, umem)?;
    let packet = [0; LENGTH as usize];
    go_round(umem, port, || {
        for _ in 0..BURST {
            model.receive(0, &packet);
        }
        model.transmit(0);
    })
}

fn descriptors(umem: &Arc<Umem>, words: TransmitWords) -> Result<()> {
    let mut pool = Pool::anonymous(umem, 2, SIZE, 1 << 32, 2 << 32)?;
    let registers = Arc::new(Words::default());
    let shared_registers: Arc<dyn Registers> = Arc::clone(&registers) as _;
    let config = Config {
        ring_size: SIZE,
        ..Config::default()
    };
    let tail = |offset| Register::<ReadWrite>::new("tail", offset, 8);
    let rings = Rings::carve(&mut pool, &config, tail(RX_TAIL), tail(TX_TAIL));
    let mut card = Card {
        memory: Arc::clone(pool.slots()),
        receive: 0,
        transmit: 0,
    };
    let quiet = Arc::new(Quiet::new(Box::new(Bare), None, pool.clone()));
    let port = build("memory", rings, words, &shared_registers, &pool, &quiet)?;
    go_round(umem, port, || card.serve(&registers))
}

/// Receives and sends bursts that `serve` brings and takes; marks those that are counted.
fn go_round(umem: &Arc<Umem>, port: Port, mut serve: impl FnMut()) -> Result<()> {
    let mut queues = port.queues;
    let mut batch = Batch::new(umem, BURST as usize);
    // virtio's driver fills its ring with the first poll.
    queues[0].rx.poll(&mut batch);
    for burst in 0..2 * BURSTS {
        serve();
        if burst >= BURSTS {
            mark();
        }
        queues[0].rx.poll(&mut batch);
        batch.send_all(0);
        batch.sending_to(0);
        queues[0].tx.send(&mut batch);
        batch.clear();
        if burst >= BURSTS {
            mark();
        }
    }
    let all = u64::from(2 * BURSTS * BURST);
    let received = queues[0].rx.counters().totals().received;
    assert_eq!(received, all, "every packet arrived");
    // virtio's driver counts a burst when it collects it, with the next one.
    let sent = queues[0].tx.counters().totals().sent;
    assert!(
        sent >= all - u64::from(BURST),
        "every packet went round, not {sent}"
    );
    Ok(())
}

fn last(call: &'static str) -> Error {
    Error::io(call, "engine_cost", &std::io::Error::last_os_error())
}

/// Instructions between the marks of a process that does `run`.
fn count(engine: Engine) -> Result<u64> {
    // SAFETY: this process has one thread; the child goes on as a copy of it.
    let pid = unsafe { libc::fork() };
    if pid < 0 {
        return Err(last("fork"));
    }
    if pid == 0 {
        // SAFETY: asks to be traced by the parent; no pointers.
        unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, 0, 0) };
        let done = run(engine);
        if let Err(error) = &done {
            eprintln!("{error}");
        }
        std::process::exit(i32::from(done.is_err()));
    }
    let (mut counting, mut steps, mut status) = (false, 0u64, 0);
    loop {
        // SAFETY: waits for the child alone; `status` lives through the call.
        if unsafe { libc::waitpid(pid, &raw mut status, 0) } < 0 {
            return Err(last("waitpid"));
        }
        if !libc::WIFSTOPPED(status) {
            let failed = !libc::WIFEXITED(status) || libc::WEXITSTATUS(status) != 0;
            return if failed {
                Err(Error::new("engine_cost", "the process failed", 71))
            } else {
                Ok(steps)
            };
        }
        // A breakpoint's trap says SI_KERNEL, a step's TRAP_TRACE (arch/x86/kernel/traps.c).
        // SAFETY: plain numbers, for which zeros are values.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: the child is stopped; `info` lives through the call.
        unsafe { libc::ptrace(libc::PTRACE_GETSIGINFO, pid, 0, &raw mut info) };
        if info.si_code == SI_KERNEL {
            counting = !counting;
        } else if counting {
            steps += 1;
        }
        let request = if counting {
            libc::PTRACE_SINGLESTEP
        } else {
            libc::PTRACE_CONT
        };
        // SAFETY: the child is stopped, and goes on without the signal.
        if unsafe { libc::ptrace(request, pid, 0, 0) } < 0 {
            return Err(last("ptrace"));
        }
    }
}

fn main() -> Result<()> {
    if cfg!(not(target_arch = "x86_64")) {
        return Err(Error::new("engine_cost", "breakpoints are x86-64's here", 95));
    }
    for (driver, engine) in [
        ("igb, igbvf", Engine::Descriptors(ADVANCED)),
        ("e1000e", Engine::Descriptors(LEGACY)),
        ("virtio, split rings", Engine::Virtio { packed: false }),
        ("virtio, packed rings", Engine::Virtio { packed: true }),
    ] {
        let instructions = count(engine)?;
        let packets = BURSTS * BURST;
        let per_packet = instructions as f64 / f64::from(packets);
        println!(
            "{{\"driver\":\"{driver}\",\"packets\":{packets},\"instructions\":{instructions},\"per_packet\":{per_packet:.1}}}"
        );
    }
    Ok(())
}
