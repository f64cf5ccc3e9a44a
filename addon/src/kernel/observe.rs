//! What can be seen of packets on their way, as JavaScript objects (their meaning: control/src/observe/kernel.ts).
#![allow(
    missing_docs,
    reason = "the fields are those of control/src/observe/kernel.ts, which says what they mean"
)]

use super::NativeKernel;
use super::bpf::TestRun;
use super::netns::Netns;
use crate::error::{OrThrow, invalid};
use bifurcate_linux::netlink::{counters, lookup};
use bifurcate_linux::xsk::{Statistics, diag, peek};
use bifurcate_linux::{bpf, ethtool, snmp};
use napi::Env;
use napi_derive::napi;
use std::collections::BTreeMap;

/// The counters of an interface, and how it receives.
#[napi(object, object_from_js = false)]
pub struct LinkCounters {
    pub rx_packets: f64,
    pub rx_bytes: f64,
    pub rx_errors: f64,
    pub rx_dropped: f64,
    pub rx_missed: f64,
    pub rx_nohandler: f64,
    pub tx_packets: f64,
    pub tx_dropped: f64,
    pub promiscuity: u32,
    pub carrier_changes: u32,
}

impl From<counters::Counters> for LinkCounters {
    fn from(counters: counters::Counters) -> Self {
        Self {
            rx_packets: counters.rx_packets as f64,
            rx_bytes: counters.rx_bytes as f64,
            rx_errors: counters.rx_errors as f64,
            rx_dropped: counters.rx_dropped as f64,
            rx_missed: counters.rx_missed as f64,
            rx_nohandler: counters.rx_nohandler as f64,
            tx_packets: counters.tx_packets as f64,
            tx_dropped: counters.tx_dropped as f64,
            promiscuity: counters.promiscuity,
            carrier_changes: counters.carrier_changes,
        }
    }
}

/// What the kernel's routing does with a packet.
#[napi(object, use_nullable = true, object_from_js = false)]
pub struct RouteDecision {
    #[napi(
        ts_type = "\"unicast\" | \"local\" | \"broadcast\" | \"anycast\" | \"multicast\" | \"blackhole\" | \"unreachable\" | \"prohibit\" | \"other\""
    )]
    pub kind: &'static str,
    pub ifindex: Option<u32>,
    pub gateway: Option<String>,
}

impl From<lookup::Decision> for RouteDecision {
    fn from(decision: lookup::Decision) -> Self {
        Self {
            kind: match decision.kind {
                lookup::Kind::Unicast => "unicast",
                lookup::Kind::Local => "local",
                lookup::Kind::Broadcast => "broadcast",
                lookup::Kind::Anycast => "anycast",
                lookup::Kind::Multicast => "multicast",
                lookup::Kind::Blackhole => "blackhole",
                lookup::Kind::Unreachable => "unreachable",
                lookup::Kind::Prohibit => "prohibit",
                lookup::Kind::Other => "other",
            },
            ifindex: decision.ifindex,
            gateway: decision.gateway.map(|gateway| gateway.to_string()),
        }
    }
}

/// What the kernel counted for an AF_XDP socket.
#[napi(object, object_from_js = false)]
pub struct XskStatistics {
    pub rx_dropped: f64,
    pub rx_invalid_descriptors: f64,
    pub tx_invalid_descriptors: f64,
    pub rx_ring_full: f64,
    pub fill_ring_empty: f64,
    pub tx_ring_empty: f64,
}

impl From<Statistics> for XskStatistics {
    fn from(statistics: Statistics) -> Self {
        Self {
            rx_dropped: statistics.rx_dropped as f64,
            rx_invalid_descriptors: statistics.rx_invalid_descs as f64,
            tx_invalid_descriptors: statistics.tx_invalid_descs as f64,
            rx_ring_full: statistics.rx_ring_full as f64,
            fill_ring_empty: statistics.rx_fill_ring_empty_descs as f64,
            tx_ring_empty: statistics.tx_ring_empty_descs as f64,
        }
    }
}

/// Where a ring's two ends are.
#[napi(object, object_from_js = false)]
pub struct XskRing {
    pub producer: u32,
    pub consumer: u32,
    pub need_wakeup: bool,
}

impl From<peek::RingState> for XskRing {
    fn from(ring: peek::RingState) -> Self {
        Self {
            producer: ring.producer,
            consumer: ring.consumer,
            need_wakeup: ring.need_wakeup,
        }
    }
}

/// The frame memory of an AF_XDP socket.
#[napi(object, object_from_js = false)]
pub struct XskUmem {
    pub id: u32,
    pub chunk_size: u32,
    pub headroom: u32,
}

impl From<diag::Umem> for XskUmem {
    fn from(umem: diag::Umem) -> Self {
        Self {
            id: umem.id,
            chunk_size: umem.chunk_size,
            headroom: umem.headroom,
        }
    }
}

/// A process that has a socket in use.
#[napi(object, object_from_js = false)]
pub struct XskHolder {
    pub pid: u32,
    pub command: String,
    pub fills: bool,
}

/// An AF_XDP socket on a queue.
#[napi(object, use_nullable = true, object_from_js = false)]
pub struct XskFacts {
    pub inode: u32,
    pub queue: u32,
    pub holders: Vec<XskHolder>,
    pub zero_copy: Option<bool>,
    pub umem: Option<XskUmem>,
    pub rx_entries: Option<u32>,
    pub fill_entries: Option<u32>,
    pub statistics: Option<XskStatistics>,
    pub rx: Option<XskRing>,
    pub tx: Option<XskRing>,
    pub fill: Option<XskRing>,
    pub completion: Option<XskRing>,
}

impl From<peek::Seen> for XskFacts {
    fn from(seen: peek::Seen) -> Self {
        let holder = |holder: peek::Holder| XskHolder {
            pid: holder.pid,
            command: holder.command,
            fills: holder.fills,
        };
        Self {
            inode: seen.inode,
            queue: seen.queue,
            holders: seen.holders.into_iter().map(holder).collect(),
            zero_copy: seen.zero_copy,
            umem: seen.diag.and_then(|diag| diag.umem).map(XskUmem::from),
            rx_entries: seen.diag.and_then(|diag| diag.rx_entries),
            fill_entries: seen.diag.and_then(|diag| diag.fill_entries),
            statistics: seen.statistics.map(XskStatistics::from),
            rx: seen.rx.map(XskRing::from),
            tx: seen.tx.map(XskRing::from),
            fill: seen.fill.map(XskRing::from),
            completion: seen.completion.map(XskRing::from),
        }
    }
}

/// One of a driver's own counters.
#[napi(object, object_from_js = false)]
pub struct DriverCounter {
    pub name: String,
    pub value: f64,
}

#[napi]
impl Netns {
    /// The counters of an interface, and how it receives.
    #[napi]
    pub fn link_counters(&self, env: Env, ifindex: u32) -> napi::Result<LinkCounters> {
        Ok(self.within(&env, || counters::counters(ifindex))?.into())
    }

    /// `ethtool -S`; null where the driver has no counters of its own.
    #[napi]
    pub fn driver_counters(&self, env: Env, ifname: String) -> napi::Result<Option<Vec<DriverCounter>>> {
        let counters = self.within(&env, || ethtool::statistics(&ifname))?;
        let counter = |(name, value): (String, u64)| DriverCounter {
            name,
            value: value as f64,
        };
        Ok(counters.map(|all| all.into_iter().map(counter).collect()))
    }

    /// The RXH_* bits of what goes into the RSS hash; null where the driver does not tell.
    #[napi]
    pub fn hash_fields(
        &self,
        env: Env,
        ifname: String,
        #[napi(
            ts_arg_type = "\"tcp4\" | \"udp4\" | \"sctp4\" | \"tcp6\" | \"udp6\" | \"sctp6\" | \"ip4\" | \"ip6\""
        )]
        flow: String,
    ) -> napi::Result<Option<u32>> {
        use ethtool::FlowType;
        let flow = match flow.as_str() {
            "tcp4" => FlowType::Tcp4,
            "udp4" => FlowType::Udp4,
            "sctp4" => FlowType::Sctp4,
            "tcp6" => FlowType::Tcp6,
            "udp6" => FlowType::Udp6,
            "sctp6" => FlowType::Sctp6,
            "ip4" => FlowType::Ip4,
            "ip6" => FlowType::Ip6,
            other => return Err(invalid(format!("there is no kind of flow {other:?} here"))),
        };
        self.within(&env, || ethtool::hash_fields(&ifname, flow))
    }

    /// What the kernel's routing does with a packet that arrives; a packet that it refuses is an error.
    #[napi]
    pub fn route_decision(
        &self,
        env: Env,
        ifindex: u32,
        source: String,
        destination: String,
    ) -> napi::Result<RouteDecision> {
        let address = |text: &str| {
            text.parse()
                .map_err(|_| invalid(format!("{text:?} is no address")))
        };
        let question = lookup::Question {
            destination: address(&destination)?,
            source: address(&source)?,
            ifindex,
        };
        Ok(self.within(&env, || lookup::decide(&question))?.into())
    }

    /// The AF_XDP sockets on an interface of `queues` receive queues.
    #[napi]
    pub fn xsk_sockets(&self, env: Env, ifindex: u32, queues: u32) -> napi::Result<Vec<XskFacts>> {
        let seen = self.within(&env, || peek::sockets_on(ifindex, queues))?;
        Ok(seen.into_iter().map(XskFacts::from).collect())
    }

    /// Runs a loaded XDP program once on a frame as if it had arrived there; no packet travels.
    #[napi]
    pub fn run_xdp(
        &self,
        env: Env,
        program_id: u32,
        frame: &[u8],
        ifindex: u32,
        queue: u32,
    ) -> napi::Result<TestRun> {
        let run = self.within(&env, || bpf::run_on(program_id, frame, ifindex, queue))?;
        Ok(TestRun {
            verdict: run.verdict,
            frame: run.frame.into(),
        })
    }

    /// What the kernel's stack counted, e.g. "Udp.InDatagrams".
    #[napi]
    pub fn stack_counters(&self, env: Env) -> napi::Result<BTreeMap<String, f64>> {
        let counters = self.within(&env, snmp::counters)?;
        Ok(counters
            .into_iter()
            .map(|(name, value)| (name, value as f64))
            .collect())
    }
}

/// How often a BPF program ran.
#[napi(object, object_from_js = false)]
pub struct ProgramRuns {
    pub runs: f64,
    pub missed: f64,
}

/// While this is open the kernel counts how often each BPF program runs.
#[napi]
pub struct RunCounting(Option<bpf::Counting>);

#[napi]
impl RunCounting {
    /// Ends the counting.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}

#[napi]
impl NativeKernel {
    /// Makes the kernel count how often each BPF program runs, until the result is closed.
    #[napi]
    pub fn count_runs(&self, env: Env) -> napi::Result<RunCounting> {
        Ok(RunCounting(Some(bpf::Counting::begin().or_throw(&env)?)))
    }

    /// How often a program ran while that was counted; null when it is not loaded any more.
    #[napi]
    pub fn program_runs(&self, env: Env, id: u32) -> napi::Result<Option<ProgramRuns>> {
        let runs = bpf::runs(id).or_throw(&env)?;
        Ok(runs.map(|runs| ProgramRuns {
            runs: runs.runs as f64,
            missed: runs.missed as f64,
        }))
    }
}
