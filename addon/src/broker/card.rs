//! What a broker makes for a lease of a whole card: the card opened by VFIO, and its memory mapped behind the IOMMU.

use bifurcate_datapath::device::lend;
use bifurcate_linux::memory::MemoryFile;
use bifurcate_linux::pci::Address;
use bifurcate_linux::vfio::{self, Loan};
use napi::Env;
use napi::bindgen_prelude::PromiseRaw;
use napi_derive::napi;

use super::seqpacket::Descriptor;
use crate::background::promised;
use crate::error::{OrThrow, closed, invalid};
use crate::kernel::NativeKernel;
use crate::kernel::pci::bus;
use crate::port::open;

/// A card that is lent: what is passed, and what is kept.
#[napi(object, object_from_js = false)]
pub struct LentCard {
    /// The card's VFIO descriptor, to be passed.
    pub device: Descriptor,
    /// The memory file of frames and rings, to be passed.
    pub memory: Descriptor,
    /// "huge" or "ordinary".
    pub pages: String,
    /// The I/O address of the memory's first byte.
    pub iova: i64,
    /// Where in it the rings begin.
    pub rings_at: i64,
    /// What the lender keeps.
    pub loan: CardLoan,
    /// The memory file, which the lender keeps too.
    pub kept: KeptMemory,
}

/// Power over what a lent card reaches. Closed, it leaves the card as it is.
#[napi]
pub struct CardLoan(Option<Loan>);

#[napi]
impl CardLoan {
    /// Takes the memory from the card: from now on the IOMMU stops whatever it tries to reach.
    #[napi]
    pub fn revoke(&self, env: Env) -> napi::Result<()> {
        let loan = self.0.as_ref().ok_or_else(|| closed(&env, "CardLoan"))?;
        loan.revoke().or_throw(&env)
    }

    /// Gives the power back.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

/// The memory of a card that was lent, as its lender keeps it.
#[napi]
pub struct KeptMemory(Option<MemoryFile>);

#[napi]
impl KeptMemory {
    /// Gives its pages back to the kernel, whoever keeps the file: who touches it again gets new ones. For after the card
    /// is free.
    #[napi]
    pub fn discard(&self, env: Env) -> napi::Result<()> {
        let file = self.0.as_ref().ok_or_else(|| closed(&env, "KeptMemory"))?;
        file.discard().or_throw(&env)
    }

    /// Closes it; the memory is whoever's who has it.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

#[napi]
impl NativeKernel {
    /// Opens a card that is bound to vfio-pci, to be passed, with new memory for `poolBytes` bytes of frames and
    /// `ringBytes` of rings behind the IOMMU. `pages`: "auto", "huge" or "ordinary". On a thread of its own, as is the close
    /// of the card: the kernel may take a lock for it that another process has, and resets the card.
    #[napi(ts_return_type = "Promise<LentCard>")]
    pub fn lend_card<'e>(
        &self,
        env: &'e Env,
        address: String,
        pool_bytes: i64,
        ring_bytes: i64,
        pages: String,
    ) -> napi::Result<PromiseRaw<'e, LentCard>> {
        let bytes = |n| u64::try_from(n).map_err(|_| invalid(format!("{n} is no number of bytes")));
        let (pool_bytes, ring_bytes) = (bytes(pool_bytes)?, bytes(ring_bytes)?);
        promised(env, "bf-lend", move || {
            let address: Address = address.parse()?;
            let lent = lend::lend(&bus(None), address, pool_bytes, ring_bytes, open::pages(&pages)?)?;
            Ok(LentCard {
                device: Descriptor::slow(lent.device),
                memory: lent.memory.into(),
                pages: open::kind_name(lent.pages),
                iova: lent.iova as i64,
                rings_at: lent.rings_at as i64,
                loan: CardLoan(Some(lent.loan)),
                kept: KeptMemory(Some(lent.kept)),
            })
        })
    }

    /// Whether a descriptor of the card is open somewhere, as its IOMMU group tells: tried, by opening that, which waits for
    /// no holder. Null where it tells nothing.
    #[napi]
    pub fn is_card_held(&self, env: Env, address: String) -> napi::Result<Option<bool>> {
        let held = || vfio::is_open(&bus(None).function(address.parse()?)?);
        held().or_throw(&env)
    }

    /// The same, by the card's own file where its group tells nothing. On a thread of its own: the kernel may take a lock for
    /// it that a holder has, and resets a card that is free.
    #[napi(ts_return_type = "Promise<boolean>")]
    pub fn look_at_card<'e>(&self, env: &'e Env, address: String) -> napi::Result<PromiseRaw<'e, bool>> {
        promised(env, "bf-look", move || {
            vfio::is_held(&bus(None).function(address.parse()?)?)
        })
    }
}
