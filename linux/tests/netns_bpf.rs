//! Maps, programs and attachments on the real kernel.

mod lab;

use bifurcate_linux::bpf::{
    Attachment, Map, MapReference, MapType, Program, ProgramSource, ProgramType, TcDirection, XdpMode,
    holders, program_info,
};
use bifurcate_linux::netlink::link::{self, XdpAttached};
use lab::Lab;
use std::net::UdpSocket;
use std::os::fd::AsFd;
use std::time::Duration;

/// struct bpf_insn in eight bytes.
fn insn(code: u8, registers: u8, offset: i16, immediate: i32) -> [u8; 8] {
    let (o, i) = (offset.to_ne_bytes(), immediate.to_ne_bytes());
    [code, registers, o[0], o[1], i[0], i[1], i[2], i[3]]
}

/// `return verdict`
fn returning(verdict: i32) -> Vec<u8> {
    [insn(0xb7, 0, 0, verdict), insn(0x95, 0, 0, 0)].concat()
}

fn load(
    kind: ProgramType,
    name: &str,
    code: &[u8],
    maps: &[MapReference<'_>],
) -> bifurcate_linux::Result<Program> {
    Program::load(&ProgramSource {
        kind,
        name,
        instructions: code,
        maps,
        fragments: false,
    })
}

fn veth(test: &str) -> Option<(Lab, u32)> {
    let lab = Lab::new(test)?;
    lab.ip("link add v0 type veth peer name v1");
    lab.ip("link set v1 up");
    lab.ip("link set v0 up");
    let index = lab.netns.within(|| link::link("v0")).unwrap().index;
    Some((lab, index))
}

#[test]
fn maps_keep_what_they_are_given() {
    let Some(_lab) = Lab::new("maps_keep_what_they_are_given") else {
        return;
    };
    let map = Map::create(MapType::Hash, "bf test-map", 4, 8, 16).unwrap();
    assert_eq!(map.lookup(&[1, 0, 0, 0]).unwrap(), None);
    map.update(&[1, 0, 0, 0], &[7; 8]).unwrap();
    assert_eq!(map.lookup(&[1, 0, 0, 0]).unwrap(), Some(vec![7; 8]));
    map.delete(&[1, 0, 0, 0]).unwrap();
    assert_eq!(map.delete(&[1, 0, 0, 0]).unwrap_err().code(), "ENOENT");
    for (key, value) in [(&[0; 3][..], &[0; 8][..]), (&[0; 4], &[0; 7])] {
        assert_eq!(map.update(key, value).unwrap_err().code(), "EINVAL");
    }
    let counters = Map::create(MapType::PercpuArray, "counters", 4, 4, 1).unwrap();
    let processors = std::thread::available_parallelism().unwrap().get();
    let found = counters.lookup(&[0; 4]).unwrap().unwrap();
    assert!(
        found.len() >= 8 * processors && found.len().is_multiple_of(8),
        "{}",
        found.len()
    );
    assert!(Map::create(MapType::Xskmap, "xsks", 4, 4, 8).unwrap().id() > 0);
}

#[test]
fn a_program_runs_on_a_frame_and_sees_its_map() {
    let Some(_lab) = Lab::new("a_program_runs_on_a_frame_and_sees_its_map") else {
        return;
    };
    let frame = [0xaa; 60];
    let drop = load(ProgramType::Xdp, "drop", &returning(1), &[]).unwrap();
    let run = drop.test_run(&frame).unwrap();
    assert_eq!((run.verdict, run.frame), (1, frame.to_vec()));

    // return *lookup(map, 0)
    let map = Map::create(MapType::Array, "verdicts", 4, 4, 1).unwrap();
    let code = [
        insn(0x62, 0x0a, -4, 0), // *(u32 *)(r10 - 4) = 0
        insn(0xbf, 0xa2, 0, 0),  // r2 = r10
        insn(0x07, 0x02, 0, -4), // r2 += -4
        insn(0x18, 0x01, 0, 0),  // r1 = map
        insn(0, 0, 0, 0),
        insn(0x85, 0, 0, 1),    // call map_lookup_elem
        insn(0x15, 0x00, 1, 0), // if r0 == 0 goto exit
        insn(0x61, 0x00, 0, 0), // r0 = *(u32 *)r0
        insn(0x95, 0, 0, 0),
    ]
    .concat();
    let reader = load(
        ProgramType::Xdp,
        "reader",
        &code,
        &[MapReference {
            instruction: 3,
            map: map.as_fd(),
        }],
    )
    .unwrap();
    map.update(&[0; 4], &2u32.to_ne_bytes()).unwrap();
    assert_eq!(reader.test_run(&frame).unwrap().verdict, 2);
    map.update(&[0; 4], &1u32.to_ne_bytes()).unwrap();
    assert_eq!(reader.test_run(&frame).unwrap().verdict, 1);
}

#[test]
fn a_refused_program_carries_the_verifiers_reason() {
    let Some(_lab) = Lab::new("a_refused_program_carries_the_verifiers_reason") else {
        return;
    };
    let error = load(ProgramType::Xdp, "bad", &insn(0x95, 0, 0, 0), &[]).unwrap_err();
    assert_eq!(error.call, "bpf(BPF_PROG_LOAD)");
    assert!(error.args.contains("R0 !read_ok"), "{error}");
}

#[test]
fn programs_have_names_and_holders() {
    let Some((lab, index)) = veth("programs_have_names_and_holders") else {
        return;
    };
    let program = load(ProgramType::Xdp, "bf_held", &returning(2), &[]).unwrap();
    let id = program.id();
    let info = program_info(id).unwrap().unwrap();
    assert_eq!((info.name.as_str(), info.kind), ("bf_held", 6));
    assert_eq!(program.info().unwrap(), info);
    let me = std::process::id();
    assert!(
        holders(id)
            .iter()
            .any(|holder| holder.pid == me && !holder.command.is_empty())
    );
    let attachment = lab
        .netns
        .within(|| Attachment::xdp(&program, index, XdpMode::Driver))
        .unwrap();
    drop(program);
    assert!(
        holders(id).iter().any(|holder| holder.pid == me),
        "the link holds it"
    );
    drop(attachment);
    assert!(holders(id).is_empty());
}

#[test]
fn xdp_attaches_in_both_modes_and_goes_with_its_attachment() {
    let Some((lab, index)) = veth("xdp_attaches_in_both_modes_and_goes_with_its_attachment") else {
        return;
    };
    let program = load(ProgramType::Xdp, "bf_pass", &returning(2), &[]).unwrap();
    let xdp = || lab.netns.within(|| link::link("v0")).unwrap().xdp;
    for (mode, seen) in [
        (XdpMode::Driver, XdpAttached::Driver),
        (XdpMode::Generic, XdpAttached::Generic),
    ] {
        let attachment = lab
            .netns
            .within(|| Attachment::xdp(&program, index, mode))
            .unwrap();
        assert_eq!(xdp(), Some((seen, program.id())));
        assert!(attachment.attached().unwrap());
        let second = lab
            .netns
            .within(|| Attachment::xdp(&program, index, mode))
            .unwrap_err();
        assert_eq!(second.code(), "EBUSY");
        drop(attachment);
        assert_eq!(xdp(), None);
    }
    let attachment = lab
        .netns
        .within(|| Attachment::xdp(&program, index, XdpMode::Driver))
        .unwrap();
    lab.ip("link del v0");
    assert!(!attachment.attached().unwrap());
}

#[test]
fn tc_programs_drop_what_arrives() {
    let Some((lab, index)) = veth("tc_programs_drop_what_arrives") else {
        return;
    };
    let Some(far) = Lab::new("tc_programs_drop_what_arrives") else {
        return;
    };
    lab.ip(&format!("link set v1 netns {}", far.name));
    lab.ip("addr add 10.7.0.1/24 dev v0");
    far.ip("addr add 10.7.0.2/24 dev v1");
    far.ip("link set v1 up");
    let socket = lab
        .netns
        .within(|| Ok(UdpSocket::bind("10.7.0.1:9").unwrap()))
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    let sender = far
        .netns
        .within(|| Ok(UdpSocket::bind("10.7.0.2:0").unwrap()))
        .unwrap();
    let number = std::cell::Cell::new(0u64);
    // Each datagram has its number, so that a late one is not taken for the one just sent.
    let reachable = || {
        number.set(number.get() + 1);
        sender.send_to(&number.get().to_ne_bytes(), "10.7.0.1:9").unwrap();
        let mut got = [0; 8];
        std::iter::from_fn(|| socket.recv(&mut got).ok().map(|_| u64::from_ne_bytes(got)))
            .any(|arrived| arrived == number.get())
    };
    // Tried again and again: an interface that was set up a moment ago drops what it sends until the kernel has noticed
    // its carrier, and a machine that stands still for a moment lets a datagram be late.
    let becomes_reachable = || (0..200).any(|_| reachable());
    assert!(becomes_reachable());
    let drop_all = load(ProgramType::SchedCls, "bf_drop", &returning(2), &[]).unwrap();
    let link = lab
        .netns
        .within(|| Attachment::tc(&drop_all, index, TcDirection::Ingress))
        .unwrap();
    assert!(link.attached().unwrap());
    assert!(!reachable());
    drop(link);
    assert!(becomes_reachable());

    let filter = lab
        .netns
        .within(|| Attachment::tc_filter(&drop_all, index, TcDirection::Ingress, "bifurcate"))
        .unwrap();
    assert!(filter.attached().unwrap());
    assert!(
        lab.run("tc", "filter show dev v0 ingress")
            .contains("direct-action")
    );
    assert!(!reachable());
    drop(filter);
    assert!(becomes_reachable());
    assert!(!lab.run("tc", "qdisc show dev v0").contains("clsact"));
}

/// An Ethernet frame with a UDP datagram to 10.6.0.1, port 9, as if from 10.6.0.9.
fn datagram(mac: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut ip = [0u8; 20];
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&(28 + payload.len() as u16).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[12..].copy_from_slice(&[10, 6, 0, 9, 10, 6, 0, 1]);
    let sum: u32 = ip
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    ip[10..12].copy_from_slice(&(!(folded as u16)).to_be_bytes());
    // No UDP checksum: zero says so (RFC 768).
    let udp = [
        [0x30, 0x39],
        [0, 9],
        (8 + payload.len() as u16).to_be_bytes(),
        [0, 0],
    ]
    .concat();
    [mac, &[2, 0, 0, 0, 0, 9], &[8, 0], &ip, &udp, payload].concat()
}

#[test]
fn live_frames_arrive_as_if_from_the_wire() {
    let Some((lab, index)) = veth("live_frames_arrive_as_if_from_the_wire") else {
        return;
    };
    lab.ip("addr add 10.6.0.1/24 dev v0");
    let mac = lab.netns.within(|| link::link("v0")).unwrap().mac;
    let socket = lab
        .netns
        .within(|| Ok(UdpSocket::bind("10.6.0.1:9").unwrap()))
        .unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let pass = load(ProgramType::Xdp, "bf_pass", &returning(2), &[]).unwrap();
    // The receive queues of a veth are known to XDP only while a program is attached.
    let _attached = lab
        .netns
        .within(|| Attachment::xdp(&pass, index, XdpMode::Driver))
        .unwrap();
    let frame = datagram(&mac, b"live");
    lab.netns.within(|| pass.run_live(&frame, index, 0, 3)).unwrap();
    for _ in 0..3 {
        let mut bytes = [0; 16];
        let (length, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!(
            (&bytes[..length], from.to_string().as_str()),
            (&b"live"[..], "10.6.0.9:12345")
        );
    }
}
