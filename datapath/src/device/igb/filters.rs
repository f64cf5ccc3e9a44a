//! Filters of the card: EtherType (7.1.1.4) and five-tuple (7.1.1.5), each of which sends what it matches to a queue.

use bifurcate_linux::{Error, Result};

use super::registers::{
    DAQF, ETQF, ETQF_COUNT, ETQF_ENABLE, ETQF_QUEUE_ENABLE, FILTER_QUEUE_SHIFT, FTQF, FTQF_COUNT,
    FTQF_DESTINATION_BYPASS, FTQF_QUEUE_ENABLE, FTQF_SOURCE_BYPASS, FTQF_SOURCE_PORT_BYPASS, FTQF_VF_BYPASS,
    IMIR, IMIR_PORT_BYPASS, IMIREXT, IMIREXT_BYPASS, SAQF, SPQF,
};
use crate::device::pmd::{Filter, Registers};

const EINVAL: i32 = 22;
const ENOENT: i32 = 2;
const ENOSPC: i32 = 28;

/// Which filters are in use. Numbers: EtherType filters from 0, five-tuple filters after them.
#[derive(Debug, Default)]
pub(super) struct Filters {
    ether_types: [bool; ETQF_COUNT as usize],
    five_tuples: [bool; FTQF_COUNT as usize],
}

impl Filters {
    pub(super) fn add(
        &mut self,
        registers: &dyn Registers,
        queues: u32,
        filter: &Filter,
        queue: u32,
    ) -> Result<u32> {
        if queue >= queues {
            let why = format!("{filter:?} queue={queue}: the port has {queues}");
            return Err(Error::new("filter", why, EINVAL));
        }
        let kind = match filter {
            Filter::EtherType(_) => &mut self.ether_types[..],
            Filter::FiveTuple { .. } => &mut self.five_tuples[..],
        };
        let Some(place) = kind.iter().position(|used| !used) else {
            let why = format!("{filter:?}: all {} of its kind are in use", kind.len());
            return Err(Error::new("filter", why, ENOSPC));
        };
        kind[place] = true;
        let n = place as u32;
        match *filter {
            Filter::EtherType(ether_type) => {
                let to = queue << FILTER_QUEUE_SHIFT | ETQF_QUEUE_ENABLE;
                ETQF.at(n)
                    .write(registers, u32::from(ether_type) | ETQF_ENABLE | to);
                Ok(n)
            }
            Filter::FiveTuple {
                protocol,
                source,
                destination,
                source_port,
                destination_port,
            } => {
                // Addresses and ports stand in the registers as on the wire.
                let address = |address: Option<[u8; 4]>| u32::from_le_bytes(address.unwrap_or_default());
                let port = |port: Option<u16>| u32::from(port.unwrap_or_default().swap_bytes());
                let without = |there: bool, bypass: u32| if there { 0 } else { bypass };
                SAQF.at(n).write(registers, address(source));
                DAQF.at(n).write(registers, address(destination));
                SPQF.at(n).write(registers, port(source_port));
                IMIR.at(n).write(
                    registers,
                    port(destination_port) | without(destination_port.is_some(), IMIR_PORT_BYPASS),
                );
                IMIREXT.at(n).write(registers, IMIREXT_BYPASS);
                FTQF.at(n).write(
                    registers,
                    u32::from(protocol)
                        | FTQF_QUEUE_ENABLE
                        | FTQF_VF_BYPASS
                        | queue << FILTER_QUEUE_SHIFT
                        | without(source.is_some(), FTQF_SOURCE_BYPASS)
                        | without(destination.is_some(), FTQF_DESTINATION_BYPASS)
                        | without(source_port.is_some(), FTQF_SOURCE_PORT_BYPASS),
                );
                Ok(ETQF_COUNT + n)
            }
        }
    }

    pub(super) fn remove(&mut self, registers: &dyn Registers, number: u32) -> Result<()> {
        let (used, register, n) = if number < ETQF_COUNT {
            (self.ether_types.get_mut(number as usize), ETQF, number)
        } else {
            let n = number - ETQF_COUNT;
            (self.five_tuples.get_mut(n as usize), FTQF, n)
        };
        match used {
            Some(used) if *used => {
                *used = false;
                register.at(n).write(registers, 0);
                Ok(())
            }
            _ => Err(Error::new(
                "filter",
                format!("number={number}: there is none"),
                ENOENT,
            )),
        }
    }
}
