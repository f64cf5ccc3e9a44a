//! A network namespace of a test's own, removed however the test ends.
#![allow(dead_code, reason = "each test file uses a part of it")]

use bifurcate_linux::netns::Netns;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A namespace made with ip-netns(8).
pub struct Lab {
    pub name: String,
    pub netns: Netns,
}

impl Lab {
    /// Makes a namespace; none, and the reason printed as the test runner wants it, without root.
    pub fn new(test: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("SKIPPED {test}: it makes a network namespace, which needs root");
            return None;
        }
        let name = format!(
            "bflinux-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        );
        run("ip", &["netns", "add", &name]);
        let netns = Netns::open(Some(&name)).expect("the namespace just made");
        let lab = Self { name, netns };
        lab.ip("link set lo up");
        Some(lab)
    }

    /// Runs `ip` in the namespace.
    pub fn ip(&self, args: &str) -> String {
        self.run("ip", args)
    }

    /// Stops IPv6, whose own packets would be counted along.
    pub fn no_ipv6(&self) {
        let write = || Ok(std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"));
        self.netns
            .within(write)
            .unwrap()
            .expect("IPv6 can be switched off in a namespace");
    }

    /// Runs a program in the namespace and gives what it printed.
    pub fn run(&self, program: &str, args: &str) -> String {
        let all: Vec<&str> = ["netns", "exec", &self.name, program]
            .into_iter()
            .chain(args.split_whitespace())
            .collect();
        run("ip", &all)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
