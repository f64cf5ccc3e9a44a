//! An open network namespace as a JavaScript object: every call happens in it, and the thread comes back.

use super::bpf::{Attachment, CallReference, Program};
use super::facts::{
    Address, Channels, ChannelsFacts, DriverInfo, Feature, Link, NtupleRule, QueueLease, Rings, Route, Rss,
    SocketFacts, TcIngress, XdpFeatures,
};
use super::{ProgramSource, open};
use crate::error::{OrThrow, invalid};
use bifurcate_linux::Error;
use bifurcate_linux::netlink::vf::VirtualFunction;
use bifurcate_linux::netlink::{address, ingress, lease, link, netdev, netkit, route, standing, vf};
use bifurcate_linux::{bpf, ethtool, netns, sockets};
use napi::Env;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;
use std::collections::BTreeMap;
use std::sync::Arc;

/// An open network namespace.
#[napi]
pub struct Netns(pub(super) Option<Arc<netns::Netns>>);

impl From<netns::Netns> for Netns {
    fn from(netns: netns::Netns) -> Netns {
        Netns(Some(Arc::new(netns)))
    }
}

impl Netns {
    /// The namespace, for as long as the caller keeps it.
    pub(crate) fn netns(&self, env: &Env) -> napi::Result<Arc<netns::Netns>> {
        open(env, "Netns", self.0.as_ref()).cloned()
    }

    /// Runs `work` in the namespace.
    pub(crate) fn within<T>(
        &self,
        env: &Env,
        work: impl FnOnce() -> bifurcate_linux::Result<T>,
    ) -> napi::Result<T> {
        self.netns(env)?.within(work).or_throw(env)
    }

    /// Runs `work` in the namespace, and turns each of its results into what JavaScript gets.
    fn all<T, U: From<T>>(
        &self,
        env: &Env,
        work: impl FnOnce() -> bifurcate_linux::Result<Vec<T>>,
    ) -> napi::Result<Vec<U>> {
        Ok(self.within(env, work)?.into_iter().map(U::from).collect())
    }
}

#[napi]
impl Netns {
    /// The namespace file's inode, its identity.
    #[napi(getter)]
    pub fn inode(&self, env: Env) -> napi::Result<i64> {
        Ok(self.netns(&env)?.inode() as i64)
    }

    /// Who made the user namespace that it belongs to, and so has every right over it.
    #[napi(getter)]
    pub fn owner(&self, env: Env) -> napi::Result<u32> {
        self.netns(&env)?.owner().or_throw(&env)
    }

    /// Every interface.
    #[napi]
    pub fn links(&self, env: Env) -> napi::Result<Vec<Link>> {
        self.all(&env, link::links)
    }

    /// Every address.
    #[napi]
    pub fn addresses(&self, env: Env) -> napi::Result<Vec<Address>> {
        self.all(&env, address::addresses)
    }

    /// Every unicast route, of all tables.
    #[napi]
    pub fn routes(&self, env: Env) -> napi::Result<Vec<Route>> {
        self.all(&env, route::routes)
    }

    /// Every TCP and UDP socket.
    #[napi]
    pub fn sockets(&self, env: Env) -> napi::Result<Vec<SocketFacts>> {
        self.all(&env, sockets::sockets)
    }

    /// The driver of an interface.
    #[napi]
    pub fn driver(&self, env: Env, ifname: String) -> napi::Result<DriverInfo> {
        Ok(self.within(&env, || ethtool::driver(&ifname))?.into())
    }

    /// Mbit/s; null where the driver does not tell, or there is no link.
    #[napi]
    pub fn speed(&self, env: Env, ifname: String) -> napi::Result<Option<u32>> {
        self.within(&env, || ethtool::speed(&ifname))
    }

    /// null where the driver has no such operation (EOPNOTSUPP).
    #[napi]
    pub fn channels(&self, env: Env, ifname: String) -> napi::Result<Option<ChannelsFacts>> {
        let facts = self.within(&env, || ethtool::channels(&ifname))?;
        Ok(facts.map(|facts| ChannelsFacts {
            max: facts.max.into(),
            now: facts.now.into(),
        }))
    }

    /// `ethtool -L`.
    #[napi]
    pub fn set_channels(&self, env: Env, ifname: String, channels: Channels) -> napi::Result<()> {
        self.within(&env, || ethtool::set_channels(&ifname, &channels.into()))
    }

    /// `ethtool -g`; null where the driver has no such operation.
    #[napi]
    pub fn rings(&self, env: Env, ifname: String) -> napi::Result<Option<Rings>> {
        Ok(self.within(&env, || ethtool::rings(&ifname))?.map(Rings::from))
    }

    /// `ethtool -x`; null where the driver has no such operation.
    #[napi]
    pub fn rss(&self, env: Env, ifname: String) -> napi::Result<Option<Rss>> {
        Ok(self.within(&env, || ethtool::rss(&ifname))?.map(Rss::from))
    }

    /// Sets the indirection table; null resets to the driver's default.
    #[napi]
    pub fn set_rss(
        &self,
        env: Env,
        ifname: String,
        #[napi(ts_arg_type = "readonly number[] | null")] indirection: Option<Vec<u32>>,
    ) -> napi::Result<()> {
        self.within(&env, || match &indirection {
            Some(table) => ethtool::set_rss(&ifname, table),
            None => ethtool::reset_rss(&ifname),
        })
    }

    /// `ethtool -k`.
    #[napi]
    pub fn features(&self, env: Env, ifname: String) -> napi::Result<BTreeMap<String, Feature>> {
        let features = self.within(&env, || ethtool::features(&ifname))?;
        Ok(features
            .into_iter()
            .map(|(name, feature)| (name, feature.into()))
            .collect())
    }

    /// `ethtool -K`.
    #[napi]
    pub fn set_feature(&self, env: Env, ifname: String, feature: String, on: bool) -> napi::Result<()> {
        self.within(&env, || ethtool::set_feature(&ifname, &feature, on))
    }

    /// Rules in place, null where the card has none (EOPNOTSUPP).
    #[napi]
    pub fn ntuple_rules(&self, env: Env, ifname: String) -> napi::Result<Option<Vec<NtupleRule>>> {
        let rules = self.within(&env, || ethtool::rules(&ifname))?;
        let rule = |(location, bytes): (u32, ethtool::FlowSpec)| NtupleRule {
            location,
            bytes: bytes.to_vec().into(),
        };
        Ok(rules.map(|rules| rules.into_iter().map(rule).collect()))
    }

    /// Number of rules the card holds, 0 where it has none.
    #[napi]
    pub fn ntuple_capacity(&self, env: Env, ifname: String) -> napi::Result<u32> {
        self.within(&env, || ethtool::rule_capacity(&ifname))
    }

    /// Puts a rule into the card; gives the location where it is.
    #[napi]
    pub fn insert_ntuple_rule(&self, env: Env, ifname: String, rule: NtupleRule) -> napi::Result<u32> {
        let bytes: ethtool::FlowSpec = rule.bytes.as_ref().try_into().map_err(|_| {
            invalid(format!(
                "a rule has {} bytes, and this one {}",
                ethtool::FLOW_SPEC,
                rule.bytes.len()
            ))
        })?;
        self.within(&env, || ethtool::insert_rule(&ifname, rule.location, &bytes))
    }

    /// Takes a rule out of the card.
    #[napi]
    pub fn delete_ntuple_rule(&self, env: Env, ifname: String, location: u32) -> napi::Result<()> {
        self.within(&env, || ethtool::delete_rule(&ifname, location))
    }

    /// What XDP an interface can, null where the kernel does not tell (before 6.3).
    #[napi]
    pub fn xdp_features(&self, env: Env, ifindex: u32) -> napi::Result<Option<XdpFeatures>> {
        Ok(self
            .within(&env, || netdev::xdp_features(ifindex))?
            .map(XdpFeatures::from))
    }

    /// Whether the kernel has queue leases (7.1).
    #[napi]
    pub fn can_lease_queues(&self, env: Env) -> napi::Result<bool> {
        self.within(&env, lease::supported)
    }

    /// The receive queues of an interface that are lent out.
    #[napi]
    pub fn queue_leases(&self, env: Env, ifindex: u32) -> napi::Result<Vec<QueueLease>> {
        self.all(&env, || lease::leases(ifindex))
    }

    /// Makes a netkit device without a peer, and leases `queues` of card `ifindex` to its queues 1, 2, ... in that
    /// order; up when it returns. Where a queue is refused, the device is deleted again.
    #[napi]
    pub fn lease_queues(
        &self,
        env: Env,
        ifindex: u32,
        #[napi(ts_arg_type = "readonly number[]")] queues: Vec<u32>,
        name: String,
    ) -> napi::Result<()> {
        self.within(&env, || netkit::create_leasing(&name, ifindex, &queues))
    }

    /// Deletes an interface; what was lent to it goes back.
    #[napi]
    pub fn delete_link(&self, env: Env, ifindex: u32) -> napi::Result<()> {
        self.within(&env, || link::delete(ifindex))
    }

    /// Loads an XDP program that is bound to one interface, and may therefore call the driver's functions (kernel
    /// 6.3). It can be attached to that interface alone, in driver mode.
    #[napi]
    pub fn load_bound_program(
        &self,
        env: Env,
        source: ProgramSource<'_>,
        ifindex: u32,
        #[napi(ts_arg_type = "readonly CallReference[]")] calls: Vec<CallReference>,
    ) -> napi::Result<Program> {
        let calls: Vec<_> = calls
            .iter()
            .map(|call| bpf::CallReference {
                instruction: call.instruction as usize,
                name: &call.name,
            })
            .collect();
        let bound = bpf::Bound {
            ifindex,
            calls: &calls,
        };
        let netns = self.netns(&env)?;
        source.with(&env, |source| {
            netns.within(|| bpf::Program::load_bound(source, &bound))
        })
    }

    /// Attaches an XDP program by bpf_link: it goes away with the returned object's close() or with the
    /// process.
    #[napi]
    pub fn attach_xdp(
        &self,
        env: Env,
        program: &Program,
        ifindex: u32,
        #[napi(ts_arg_type = "\"driver\" | \"generic\"")] mode: String,
    ) -> napi::Result<Attachment> {
        let mode = match mode.as_str() {
            "driver" => bpf::XdpMode::Driver,
            "generic" => bpf::XdpMode::Generic,
            other => {
                return Err(invalid(format!(
                    "an XDP program is not attached in mode {other:?} here"
                )));
            }
        };
        let program = program.program(&env)?;
        Ok(Attachment(Some(self.within(&env, || {
            bpf::Attachment::xdp(program, ifindex, mode)
        })?)))
    }

    /// Attaches a program at tc ingress by a tcx link, or with `filter` by a clsact filter of that name, which
    /// outlives the process: for kernels without tcx.
    #[napi]
    pub fn attach_tc_ingress(
        &self,
        env: Env,
        program: &Program,
        ifindex: u32,
        filter: Option<String>,
    ) -> napi::Result<Attachment> {
        let program = program.program(&env)?;
        let side = bpf::TcDirection::Ingress;
        let attach = || match &filter {
            Some(name) => bpf::Attachment::tc_filter(program, ifindex, side, name),
            None => bpf::Attachment::tc(program, ifindex, side),
        };
        Ok(Attachment(Some(self.within(&env, attach)?)))
    }

    /// What stands at tc ingress of an interface.
    #[napi]
    pub fn tc_ingress(&self, env: Env, ifindex: u32) -> napi::Result<TcIngress> {
        self.within(&env, || {
            let ingress::Ingress { clsact, filters } = ingress::look(ifindex)?;
            let tcx = bpf::has_tcx(ifindex)?;
            Ok(TcIngress { tcx, clsact, filters })
        })
    }

    /// Deletes the clsact filters of that name at tc ingress, and with `qdisc` the clsact qdisc when it is idle then.
    #[napi]
    pub fn delete_tc_ingress(&self, env: Env, ifindex: u32, filter: String, qdisc: bool) -> napi::Result<()> {
        self.within(&env, || ingress::delete(ifindex, &filter, qdisc))
    }

    /// The addresses and routes of an interface, as the kernel tells them: what restoreStanding puts back. Routes that
    /// come by themselves are left out.
    #[napi]
    pub fn save_standing(&self, env: Env, ifindex: u32) -> napi::Result<Vec<Uint8Array>> {
        let saved = self.within(&env, || standing::save(ifindex))?;
        Ok(saved.into_iter().map(Uint8Array::from).collect())
    }

    /// Puts what saveStanding gave of the interface that had the number `before` on interface `now`; gives what the
    /// kernel refused, in words.
    #[napi]
    pub fn restore_standing(
        &self,
        env: Env,
        saved: Vec<Uint8Array>,
        before: u32,
        now: u32,
    ) -> napi::Result<Vec<String>> {
        let saved: Vec<Vec<u8>> = saved.iter().map(|bytes| bytes.to_vec()).collect();
        self.within(&env, || standing::restore(&saved, before, now))
    }

    /// Gives an interface another name; one that is up is taken down for it, and up again.
    #[napi]
    pub fn rename_link(&self, env: Env, ifindex: u32, name: String) -> napi::Result<()> {
        self.within(&env, || link::rename(ifindex, &name))
    }

    /// Sets virtual function `number` of a card: the address whose frames it gets, the VLAN that it is in (0: none), and
    /// whether the card drops what it sends from another address. Throws EOPNOTSUPP, EINVAL, EPERM.
    #[napi]
    pub fn set_virtual_function(
        &self,
        env: Env,
        ifindex: u32,
        number: u32,
        mac: Vec<u32>,
        vlan: u32,
        spoof_check: bool,
    ) -> napi::Result<()> {
        self.within(&env, || {
            let bytes: Vec<u8> = mac.iter().filter_map(|byte| u8::try_from(*byte).ok()).collect();
            let invalid = || Error::new("netlink(RTM_SETLINK)", format!("mac={mac:?} vlan={vlan}"), 22);
            let vf = VirtualFunction {
                number,
                mac: bytes.try_into().map_err(|_| invalid())?,
                vlan: u16::try_from(vlan).map_err(|_| invalid())?,
                spoof_check,
            };
            vf::set(ifindex, &vf)
        })
    }

    /// Gives the namespace's descriptor back.
    #[napi]
    pub fn close(&mut self) {
        self.0 = None;
    }
}
