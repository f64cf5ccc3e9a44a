//! Gives a card one wrong address, of a page set aside, and says what became of the page: the proof of what an IOMMU is
//! for.
//!
//! ```text
//! dma_proof ADDRESS VIA
//! ```
//!
//! The card is bound to the driver of `VIA` already, and frames arrive on its wire. The first descriptor of its receive
//! ring holds the physical address of a huge page that the card was never given. Prints `{"ready":true}`, and when the
//! frame for that descriptor has come, a line with how many bytes of the page have changed and what the IOMMU said.

use std::time::{Duration, Instant};

use bifurcate_datapath::device::cards;
use bifurcate_datapath::device::pmd::{Config, wrong};
use bifurcate_datapath::frame::{Batch, Pages, Umem, UmemConfig};
use bifurcate_linux::card::Via;
use bifurcate_linux::dma::DmaTable;
use bifurcate_linux::memory::{HUGE_PAGE, Mapping, MemoryFile, PageKind};
use bifurcate_linux::pci::Bus;
use bifurcate_linux::{Error, Result};

/// What the page set aside is full of.
const PATTERN: u8 = 0x5a;

/// Time for a frame to come.
const PATIENCE: Duration = Duration::from_secs(90);

/// Time for the kernel to write a fault into its log: all of it passes only where there was none.
const FAULT: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, via] = &args[..] else {
        return Err(Error::new("dma_proof", "usage: dma_proof ADDRESS VIA", 22));
    };
    let via: Via = via.parse()?;
    let file = MemoryFile::create("set-aside", HUGE_PAGE, PageKind::Huge)?;
    let page = Mapping::shared(&file)?;
    // SAFETY: all of the mapping, which nobody else has; a card that goes astray writes to it only later.
    unsafe { page.base().as_ptr().write_bytes(PATTERN, HUGE_PAGE) };
    let physical = DmaTable::physical(&page, PageKind::Huge)?.address(0);
    let umem = Umem::map(&UmemConfig {
        frames: 512,
        frame_size: 2048,
        jumbo_frames: 0,
        pages: Pages::Huge,
    })?;
    let config = Config {
        ring_size: 64,
        ..Config::default()
    };
    wrong::address_next_as(physical);
    let (mut port, card) = cards::open(&Bus::system(), address.parse()?, via, &config, &umem)?;
    println!("{{\"ready\":true}}");
    let mut batch = Batch::new(&umem, 32);
    let end = Instant::now() + PATIENCE;
    let mut received = 0;
    while received == 0 && Instant::now() < end {
        received = port.queues[0].rx.poll(&mut batch);
        batch.clear();
    }
    let mut fault = None;
    let end = Instant::now() + FAULT;
    while fault.is_none() && via.protects_memory() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(50));
        fault = card.card.as_ref().and_then(|card| card.dma_fault());
    }
    let changed = (0..HUGE_PAGE)
        // SAFETY: within the mapping; volatile, since a card may have written it.
        .filter(|at| unsafe { page.base().as_ptr().add(*at).read_volatile() } != PATTERN)
        .count();
    let fault = fault.map_or("null".to_owned(), |text| format!("{:?}", text));
    println!("{{\"received\":{received},\"changed\":{changed},\"fault\":{fault}}}");
    Ok(())
}
