//! Panics as failures.

use std::any::Any;
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

use crate::checks::Failure;

thread_local! {
    /// Where the last panic of a case was, while a case runs.
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Turns a panic into a failure, without a word on the terminal: a case that is made smaller panics often.
pub fn catching<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let is_ours = PANIC.with_borrow_mut(|panic| match panic {
                Some(place) => {
                    *place = info.location().map(ToString::to_string).unwrap_or_default();
                    true
                }
                None => false,
            });
            if !is_ours {
                before(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let outcome = catch_unwind(AssertUnwindSafe(run));
    let place = PANIC.take().unwrap_or_default();
    outcome.unwrap_or_else(|panic| Err(Failure::new(&format!("panic at {place}"), words(panic.as_ref()))))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let owned = panic.downcast_ref::<String>().cloned();
    owned.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string)).unwrap_or_default()
}
