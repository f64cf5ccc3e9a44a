//! The ethtool ioctls on veth, the one kind of card that every namespace can have.

mod lab;

use bifurcate_linux::ethtool::{self, Channels};
use lab::Lab;

fn veth(test: &str) -> Option<Lab> {
    let lab = Lab::new(test)?;
    lab.ip("link add v0 numrxqueues 4 numtxqueues 4 type veth peer name v1");
    Some(lab)
}

#[test]
fn a_veths_driver_channels_and_rings() {
    let Some(lab) = veth("a_veths_driver_channels_and_rings") else {
        return;
    };
    let driver = lab.netns.within(|| ethtool::driver("v0")).unwrap();
    assert_eq!(driver.driver, "veth");
    let channels = || lab.netns.within(|| ethtool::channels("v0")).unwrap().unwrap();
    assert_eq!((channels().max.rx, channels().max.tx), (4, 4));
    let two = Channels {
        rx: 2,
        tx: 3,
        ..Channels::default()
    };
    lab.netns.within(|| ethtool::set_channels("v0", &two)).unwrap();
    assert_eq!(channels().now, two);
    let many = Channels { rx: 9, ..two };
    let error = lab
        .netns
        .within(|| ethtool::set_channels("v0", &many))
        .unwrap_err();
    assert_eq!(error.code(), "EINVAL");
    assert!(error.args.contains("dev=v0 rx=9"), "{error}");
    lab.netns.within(|| ethtool::rings("v0")).unwrap();
    // veth claims 10 Gbit/s (veth_get_link_ksettings, drivers/net/veth.c), the loopback nothing.
    assert_eq!(lab.netns.within(|| ethtool::speed("v0")), Ok(Some(10_000)));
    assert_eq!(lab.netns.within(|| ethtool::speed("lo")), Ok(None));
    assert_eq!(
        lab.netns
            .within(|| ethtool::driver("nowhere"))
            .unwrap_err()
            .code(),
        "ENODEV"
    );
}

#[test]
fn what_a_veth_has_not_is_none() {
    let Some(lab) = veth("what_a_veth_has_not_is_none") else {
        return;
    };
    assert_eq!(lab.netns.within(|| ethtool::rss("v0")), Ok(None));
    assert_eq!(lab.netns.within(|| ethtool::rules("v0")), Ok(None));
    assert_eq!(lab.netns.within(|| ethtool::rule_capacity("v0")), Ok(0));
    assert_eq!(lab.netns.within(|| ethtool::channels("lo")), Ok(None));
    assert_eq!(lab.netns.within(|| ethtool::rings("lo")), Ok(None));
}

#[test]
fn features_by_name() {
    let Some(lab) = veth("features_by_name") else {
        return;
    };
    let features = || lab.netns.within(|| ethtool::features("v0")).unwrap();
    let gro = || features()["rx-gro"];
    assert!(gro().available && !gro().fixed);
    for on in [false, true, false] {
        lab.netns
            .within(|| ethtool::set_feature("v0", "rx-gro", on))
            .unwrap();
        assert_eq!((gro().active, gro().requested), (on, on));
    }
    let ntuple = features()["rx-ntuple-filter"];
    assert!(!ntuple.active && ntuple.fixed);
    let refused = |feature: &str| {
        lab.netns
            .within(|| ethtool::set_feature("v0", feature, true))
            .unwrap_err()
            .code()
    };
    assert_eq!(refused("rx-ntuple-filter"), "EOPNOTSUPP");
    assert_eq!(refused("no-such-feature"), "EINVAL");
}
