//! Entering a namespace and coming back, on the real kernel.

mod lab;

use bifurcate_linux::netlink::link;
use bifurcate_linux::netns::Netns;
use bifurcate_linux::{Error, Result};
use lab::Lab;

fn current() -> u64 {
    Netns::open(None).unwrap().inode()
}

#[test]
fn a_closure_runs_inside_and_the_thread_comes_back() {
    let Some(lab) = Lab::new("a_closure_runs_inside_and_the_thread_comes_back") else {
        return;
    };
    let home = current();
    let inside = lab.netns.within(|| Ok(current())).unwrap();
    assert_eq!(inside, lab.netns.inode());
    assert_ne!(inside, home);
    assert_eq!(current(), home);
}

#[test]
fn errors_and_panics_come_back_too() {
    let Some(lab) = Lab::new("errors_and_panics_come_back_too") else {
        return;
    };
    let home = current();
    let refused: Result<()> = lab.netns.within(|| Err(Error::new("x", "", libc::EPERM)));
    assert_eq!(refused.unwrap_err().code(), "EPERM");
    assert_eq!(current(), home);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        lab.netns.within(|| -> Result<()> { panic!() })
    }));
    assert!(panicked.is_err());
    assert_eq!(current(), home);
}

#[test]
fn other_threads_stay_where_they_are() {
    let Some(lab) = Lab::new("other_threads_stay_where_they_are") else {
        return;
    };
    let home = current();
    let other = lab
        .netns
        .within(|| Ok(std::thread::scope(|scope| scope.spawn(|| 0).join().unwrap())))
        .unwrap();
    assert_eq!(other, 0);
    // A thread begun inside would inherit the namespace; one begun outside meanwhile does not see it.
    let (send, receive) = std::sync::mpsc::channel();
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let witness = std::thread::spawn(move || {
        wait.recv().unwrap();
        send.send(current()).unwrap();
    });
    let seen = lab.netns.within(|| {
        go.send(()).unwrap();
        Ok(receive.recv().unwrap())
    });
    witness.join().unwrap();
    assert_eq!(seen.unwrap(), home);
}

#[test]
fn a_named_namespace_has_its_own_links() {
    let Some(lab) = Lab::new("a_named_namespace_has_its_own_links") else {
        return;
    };
    let links = lab.netns.within(link::links).unwrap();
    assert_eq!(
        links.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(),
        ["lo"]
    );
    let by_path = Netns::open(Some(&format!("/run/netns/{}", lab.name))).unwrap();
    assert_eq!(by_path.inode(), lab.netns.inode());
}
