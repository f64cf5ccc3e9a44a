//! What the kernel's own stack counted in a namespace: /proc/net/snmp, snmp6 and netstat (proc_net_snmp(5)).

use crate::{Error, Result};
use std::collections::BTreeMap;

/// Every counter of the calling thread's namespace by group and name, e.g. `Udp.InDatagrams`, `Ip6.InReceives`.
pub fn counters() -> Result<BTreeMap<String, u64>> {
    let mut all = BTreeMap::new();
    for file in ["snmp", "netstat"] {
        // /proc/net would be the first thread's namespace.
        all.extend(pairs_of_lines(&read(file)?));
    }
    match read("snmp6") {
        Ok(text) => all.extend(lines(&text)),
        // A kernel without IPv6 has no such file.
        Err(error) if error.errno == libc::ENOENT => {}
        Err(error) => return Err(error),
    }
    Ok(all)
}

fn read(file: &str) -> Result<String> {
    let path = format!("/proc/thread-self/net/{file}");
    std::fs::read_to_string(&path).map_err(|error| Error::io("read", path, &error))
}

/// `Udp: InDatagrams NoPorts` and below it `Udp: 4 1`.
fn pairs_of_lines(text: &str) -> Vec<(String, u64)> {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .chunks_exact(2)
        .filter_map(|pair| Some((pair[0].split_once(':')?, pair[1].split_once(':')?)))
        .filter(|((group, _), (again, _))| group == again)
        .flat_map(|((group, names), (_, numbers))| {
            names
                .split_ascii_whitespace()
                .zip(numbers.split_ascii_whitespace())
                .filter_map(move |(name, number)| Some((format!("{group}.{name}"), number.parse().ok()?)))
        })
        .collect()
}

/// `Ip6InReceives    12`.
fn lines(text: &str) -> Vec<(String, u64)> {
    let split = |name: &str| {
        let at = name.find('6').map_or(0, |at| at + 1);
        format!("{}.{}", &name[..at], &name[at..])
    };
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            Some((split(fields.next()?), fields.next()?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_of_two_lines_belong_together() {
        let text = "Ip: Forwarding InReceives\nIp: 1 42\nUdp: InDatagrams NoPorts\nUdp: 7 -1\n";
        let found = pairs_of_lines(text);
        assert_eq!(
            found,
            [
                ("Ip.Forwarding".to_owned(), 1),
                ("Ip.InReceives".to_owned(), 42),
                ("Udp.InDatagrams".to_owned(), 7)
            ]
        );
        assert_eq!(
            lines("Ip6InReceives\t3\nUdp6NoPorts 2\n"),
            [("Ip6.InReceives".to_owned(), 3), ("Udp6.NoPorts".to_owned(), 2)]
        );
    }

    #[test]
    fn this_namespace_has_them() {
        assert!(counters().unwrap().contains_key("Ip.InReceives"));
    }
}
