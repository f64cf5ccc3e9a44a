//! The structures are those of infiniband/verbs.h: by numbers written down, and by the header where it is installed.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use super::layout::{STATUSES, layouts, numbers};

/// What a C compiler said of rdma-core 44's header on x86-64: a line a structure, with name, offset and size of each
/// field, then the numbers.
const WRITTEN: &str = include_str!("layout.txt");
const HEADER: &str = "/usr/include/infiniband/verbs.h";

/// Our declarations, in the same words.
fn ours() -> String {
    let mut text = String::new();
    for layout in layouts() {
        write!(text, "{}", layout.name).unwrap();
        if let Some(size) = layout.size {
            write!(text, " {size}").unwrap();
        }
        for (name, offset, size) in layout.fields.iter().filter(|(name, ..)| *name != "-") {
            write!(text, " {name}@{offset}+{size}").unwrap();
        }
        text.push('\n');
    }
    for (name, value) in numbers().into_iter().chain(STATUSES.map(|(n, v)| (n, v.into()))) {
        writeln!(text, "{name} {value}").unwrap();
    }
    text
}

/// A program that says the same of the header.
fn program() -> String {
    let mut lines = String::new();
    for layout in layouts() {
        let kind = layout.name;
        writeln!(lines, "printf(\"{kind}\");").unwrap();
        if layout.size.is_some() {
            writeln!(lines, "printf(\" %zu\", sizeof(struct {kind}));").unwrap();
        }
        for (name, ..) in layout.fields.iter().filter(|(name, ..)| *name != "-") {
            writeln!(
                lines,
                "printf(\" {name}@%zu+%zu\", offsetof(struct {kind}, {name}), sizeof(((struct {kind} *)0)->{name}));"
            )
            .unwrap();
        }
        writeln!(lines, "printf(\"\\n\");").unwrap();
    }
    for name in numbers()
        .into_iter()
        .map(|(n, _)| n)
        .chain(STATUSES.map(|(n, _)| n))
    {
        writeln!(lines, "printf(\"{name} %llu\\n\", (unsigned long long)({name}));").unwrap();
    }
    format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <infiniband/verbs.h>\nint main(void) {{\n{lines}return 0;\n}}\n"
    )
}

#[test]
#[cfg(target_arch = "x86_64")]
fn every_field_stands_where_it_was_written_down() {
    assert_eq!(ours(), WRITTEN);
}

#[test]
fn every_field_stands_where_the_installed_header_has_it() {
    if !Path::new(HEADER).exists() {
        println!(
            "SKIPPED every_field_stands_where_the_installed_header_has_it: {HEADER} is not installed (libibverbs-dev)"
        );
        return;
    }
    let folder = std::env::temp_dir().join(format!("bifurcate-verbs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (source, built) = (folder.join("layout.c"), folder.join("layout"));
    std::fs::write(&source, program()).unwrap();
    let compiled = Command::new("cc").arg("-o").args([&built, &source]).output();
    let said = compiled.map(|compiled| {
        assert!(
            compiled.status.success(),
            "{}",
            String::from_utf8_lossy(&compiled.stderr)
        );
        Command::new(&built).output().unwrap().stdout
    });
    std::fs::remove_dir_all(&folder).unwrap();
    match said {
        Ok(said) => assert_eq!(ours(), String::from_utf8(said).unwrap()),
        Err(error) => {
            println!("SKIPPED every_field_stands_where_the_installed_header_has_it: no cc: {error}")
        }
    }
}
