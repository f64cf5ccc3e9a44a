//! A kernel of the test's own: answers the calling thread's raw system calls in the kernel's place.
//!
//! Present in this crate's tests, and for other crates' tests with the feature `fake`.

#[cfg(any(test, feature = "fake"))]
mod imp {
    use crate::call::Call;
    use std::cell::RefCell;

    /// Answers a call: a result, or an error number. `None` lets the call through to the real kernel.
    pub type Answer = dyn FnMut(&Call) -> Option<Result<usize, i32>>;

    thread_local! {
        static FAKE: RefCell<Option<Box<Answer>>> = const { RefCell::new(None) };
    }

    /// The fake in place; dropping it puts the kernel back.
    #[must_use = "the fake answers until this is dropped"]
    pub struct Fake(());

    impl Drop for Fake {
        fn drop(&mut self) {
            FAKE.with_borrow_mut(|fake| *fake = None);
        }
    }

    /// Lets `answer` answer the calling thread's raw calls until the returned guard is dropped.
    pub fn set(answer: impl FnMut(&Call) -> Option<Result<usize, i32>> + 'static) -> Fake {
        FAKE.with_borrow_mut(|fake| *fake = Some(Box::new(answer)));
        Fake(())
    }

    pub(crate) fn answer(call: &Call) -> Option<Result<usize, i32>> {
        FAKE.with(|fake| {
            fake.try_borrow_mut()
                .ok()?
                .as_mut()
                .and_then(|answer| answer(call))
        })
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_fake_answers_until_it_is_dropped() {
            // SAFETY: getppid takes no argument and touches no memory.
            let ask = || unsafe { crate::call::call(libc::SYS_getppid, [0; 6]) };
            let real = ask();
            let fake = set(|call| (call.number == libc::SYS_getppid).then_some(Err(libc::EPERM)));
            assert_eq!(ask(), Err(libc::EPERM));
            drop(fake);
            assert_eq!(ask(), real);
        }
    }
}

#[cfg(any(test, feature = "fake"))]
pub(crate) use imp::answer;
#[cfg(any(test, feature = "fake"))]
pub use imp::{Answer, Fake, set};
