//! The bridge from our background thread to the JS thread.
//!
//! A call from JavaScript that answers with a promise opens one [`JsThread`]: a Node-API threadsafe function
//! that carries closures, one wake-up each, and at last the one that settles the promise and closes it. So a
//! pending promise keeps the process alive, and nothing else does. Node runs whatever waits for one such
//! function without a look at the event loop in between; so each closure makes way for a new function, and
//! the application's timers and I/O get their turn between two closures. When the JS thread ends first (a worker is
//! terminated, the process exits), closures that can no longer run are dropped, and whoever waits for them
//! learns it from the channel that they held.

#![expect(unsafe_code, reason = "threadsafe functions and deferreds are C, with pointers as their user data")]

use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;

use napi::bindgen_prelude::{Object, PromiseRaw, ToNapiValue};
use napi::{Env, JsValue, check_status, sys};

use super::error::CodedError;
use super::raw::{Local, Scope};
use crate::engine::runtime;

type Task = Box<dyn FnOnce(&mut Turn<'_>) + Send>;

/// Runs closures on the JS thread, from any thread, until its promise is settled.
#[derive(Clone)]
pub struct JsThread(Arc<Bridge>);

impl JsThread {
    /// Runs a closure, whole: the first at once if it comes inside the call that began the work, others in later turns
    /// of the event loop. It is dropped unrun if the promise is settled already, or the JS thread has ended.
    pub fn run(&self, task: impl FnOnce(&mut Turn<'_>) + Send + 'static) {
        let call = CALL.take();
        if let Some(call) = call.as_ref().filter(|call| Arc::ptr_eq(&call.bridge, &self.0)) {
            // The call stays taken: a sync of many batches would hold its caller up for all of them.
            // SAFETY: a call is noted on the JS thread only, and for no longer than it lasts.
            let scope = unsafe { Scope::assume(call.env) };
            return task(&mut Turn { scope, pending: &mut call.pending.borrow_mut() });
        }
        CALL.set(call);
        self.0.post(Box::new(task));
    }
}

/// A call from JavaScript, while the work that it began is polled inside it and has not had its turn.
struct Call {
    env: sys::napi_env,
    pending: Rc<RefCell<Pending>>,
    bridge: Arc<Bridge>,
}

thread_local! {
    static CALL: Cell<Option<Call>> = const { Cell::new(None) };
}

/// The way to the JS thread; `None` once closed.
struct Bridge(Mutex<Option<ThreadsafeFunction>>);

struct ThreadsafeFunction(sys::napi_threadsafe_function);

// SAFETY: calling a threadsafe function from any thread is what it is for.
unsafe impl Send for ThreadsafeFunction {}

impl Bridge {
    fn post(&self, task: Task) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(function) = &*slot else { return };
        let data = Box::into_raw(Box::new(task));
        // SAFETY: the slot is emptied, under this lock, before Node frees the function. `run_task` takes the box.
        let status = unsafe {
            let mode = sys::ThreadsafeFunctionCallMode::nonblocking;
            sys::napi_call_threadsafe_function(function.0, data.cast(), mode)
        };
        if status != sys::Status::napi_ok {
            // The environment is closing, and the failed call has given our hold on the function back.
            *slot = None;
            drop(slot);
            // SAFETY: nothing was queued, so the box is still ours.
            drop(unsafe { Box::from_raw(data) });
        }
    }

    fn take(&self) -> Option<ThreadsafeFunction> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Sends what comes from now on another way; returns the way so far. A bridge that is closed stays closed:
    /// then what was given comes back.
    fn replace(&self, function: ThreadsafeFunction) -> ThreadsafeFunction {
        match &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(current) => std::mem::replace(current, function),
            None => function,
        }
    }

    /// Closes the bridge if this is its way: Node is about to free it.
    fn forget(&self, function: sys::napi_threadsafe_function) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.as_ref().is_some_and(|current| current.0 == function) {
            *slot = None;
        }
    }
}

impl ThreadsafeFunction {
    /// Makes a function for a promise. On the JS thread only.
    fn open(env: sys::napi_env, pending: &Rc<RefCell<Pending>>) -> napi::Result<Self> {
        let label = c"federation-hub";
        let (mut name, mut function) = (ptr::null_mut(), ptr::null_mut());
        // SAFETY: `env` is live on this thread; the label has its length; `free_context` takes the box back, once.
        unsafe {
            let length = label.count_bytes().cast_signed();
            check_status!(sys::napi_create_string_utf8(env, label.as_ptr(), length, &raw mut name))?;
            let context = Context { pending: Rc::clone(pending), function: Cell::new(ptr::null_mut()) };
            let data = Box::into_raw(Box::new(context));
            let status = sys::napi_create_threadsafe_function(
                env,
                ptr::null_mut(),
                ptr::null_mut(),
                name,
                0,
                1,
                data.cast(),
                Some(free_context),
                data.cast(),
                Some(run_task),
                &raw mut function,
            );
            if status != sys::Status::napi_ok {
                drop(Box::from_raw(data));
            }
            check_status!(status)?;
            (*data).function.set(function);
        }
        Ok(Self(function))
    }

    /// Lets go of it: Node runs what is queued, then frees it.
    fn release(self) {
        // SAFETY: taken by value, so it is released once.
        unsafe {
            let mode = sys::ThreadsafeFunctionReleaseMode::release;
            sys::napi_release_threadsafe_function(self.0, mode)
        };
    }
}

/// What a threadsafe function finds its promise by.
struct Context {
    pending: Rc<RefCell<Pending>>,
    function: Cell<sys::napi_threadsafe_function>,
}

/// What belongs to one promise and is touched on the JS thread only.
struct Pending {
    deferred: Option<sys::napi_deferred>,
    kept: Vec<sys::napi_ref>,
    bridge: Arc<Bridge>,
}

impl Pending {
    fn release(&mut self, env: sys::napi_env) {
        for reference in self.kept.drain(..) {
            // SAFETY: we run on the JS thread; draining deletes each reference once.
            unsafe { sys::napi_delete_reference(env, reference) };
        }
    }
}

/// One turn on the JS thread.
pub struct Turn<'t> {
    scope: Scope<'t>,
    pending: &'t mut Pending,
}

impl<'t> Turn<'t> {
    /// The handle scope that is open during this turn.
    pub fn scope(&self) -> Scope<'t> {
        self.scope
    }

    /// One of the objects that the call keeps alive, in the order in which they were given.
    pub fn kept(&self, index: usize) -> Option<Local<'t>> {
        let reference = self.pending.kept.get(index)?;
        self.scope.deref(*reference).ok()
    }

    fn settle<T: ToNapiValue>(&mut self, outcome: Result<T, CodedError>) {
        let Some(deferred) = self.pending.deferred.take() else { return };
        let env = self.scope.env();
        // SAFETY: we run on the JS thread, with a scope open; the deferred is taken, so it is settled once.
        unsafe {
            let status = match outcome.map(|value| T::to_napi_value(env, value)) {
                Ok(Ok(value)) => sys::napi_resolve_deferred(env, deferred, value),
                Ok(Err(error)) => {
                    let error = CodedError::internal(error.reason.clone());
                    sys::napi_reject_deferred(env, deferred, error_value(env, &error))
                }
                Err(error) => sys::napi_reject_deferred(env, deferred, error_value(env, &error)),
            };
            // What fails here fails because the environment is ending, and the promise with it.
            let _ = status;
        }
        self.pending.release(env);
        if let Some(function) = self.pending.bridge.take() {
            function.release();
        }
    }
}

/// A JavaScript `Error` with a `code`, and with `retryAfterMs` if there is one; or null if the environment is ending.
///
/// # Safety
/// Only on the JS thread, with a scope open.
unsafe fn error_value(env: sys::napi_env, error: &CodedError) -> sys::napi_value {
    // SAFETY: the caller's.
    let scope = unsafe { Scope::assume(env) };
    let Ok(object) = scope.error(error.code, &error.message) else { return ptr::null_mut() };
    if error.retry_after_ms > 0
        && let Ok(retry_after) = scope.number(error.retry_after_ms.into())
    {
        // Without it the message says the same.
        let _ = scope.set(object, c"retryAfterMs", retry_after);
    }
    object.raw()
}

/// Settles its promise once: with an outcome, or with an error when it is dropped because the work died.
struct Settler<T: ToNapiValue + Send + 'static> {
    bridge: Option<Arc<Bridge>>,
    _outcome: PhantomData<fn(T)>,
}

impl<T: ToNapiValue + Send + 'static> Settler<T> {
    fn settle(mut self, outcome: Result<T, CodedError>) {
        self.post(outcome);
    }

    fn post(&mut self, outcome: Result<T, CodedError>) {
        if let Some(bridge) = self.bridge.take() {
            bridge.post(Box::new(move |turn| turn.settle(outcome)));
        }
    }
}

impl<T: ToNapiValue + Send + 'static> Drop for Settler<T> {
    fn drop(&mut self) {
        self.post(Err(CodedError::internal(
            "the background thread did not start, or lost the call; please report this",
        )));
    }
}

/// Starts work on the background thread and returns the promise of its outcome.
///
/// `keep` are objects that [`Turn::kept`] finds again; they stay alive until the promise is settled, not longer.
pub fn promise<'env, T, W>(
    env: &'env Env,
    keep: &[&Object<'_>],
    work: impl FnOnce(JsThread) -> W,
) -> napi::Result<PromiseRaw<'env, T>>
where
    T: ToNapiValue + Send + 'static,
    W: Future<Output = Result<T, CodedError>> + Send + 'static,
{
    let (promise, pending) = open(env, keep)?;
    spawn(work_of(pending.borrow().bridge.clone(), work));
    Ok(promise)
}

/// As [`promise`], but the work begins inside this call, and its first closure runs at once: two changes of
/// thread less. For work that does nothing slow before it first waits.
pub fn promise_begun_here<'env, T, W>(
    env: &'env Env,
    keep: &[&Object<'_>],
    work: impl FnOnce(JsThread) -> W,
) -> napi::Result<PromiseRaw<'env, T>>
where
    T: ToNapiValue + Send + 'static,
    W: Future<Output = Result<T, CodedError>> + Send + 'static,
{
    let (promise, pending) = open(env, keep)?;
    let bridge = pending.borrow().bridge.clone();
    let mut work = Box::pin(work_of(Arc::clone(&bridge), work));
    CALL.set(Some(Call { env: env.raw(), pending, bridge }));
    // A panic must not unwind into Node; dropping the work then rejects the promise.
    let polled = catch_unwind(AssertUnwindSafe(|| {
        let _runtime = runtime::handle().ok().map(tokio::runtime::Handle::enter);
        work.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }));
    CALL.set(None);
    if matches!(polled, Ok(Poll::Pending)) {
        // Polled again there, it leaves its own waker wherever it waits.
        spawn(work);
    }
    Ok(promise)
}

/// The work, and then the settling of its promise.
fn work_of<T, W>(
    bridge: Arc<Bridge>,
    work: impl FnOnce(JsThread) -> W,
) -> impl Future<Output = ()> + Send + 'static
where
    T: ToNapiValue + Send + 'static,
    W: Future<Output = Result<T, CodedError>> + Send + 'static,
{
    let settler = Settler { bridge: Some(Arc::clone(&bridge)), _outcome: PhantomData };
    let work = work(JsThread(bridge));
    async move {
        let outcome = work.await;
        settler.settle(outcome);
    }
}

/// Where no thread can be started, the work is dropped, and its settler rejects.
fn spawn(work: impl Future<Output = ()> + Send + 'static) {
    let _ = runtime::spawn(work);
}

fn open<'env, T>(
    env: &'env Env,
    keep: &[&Object<'_>],
) -> napi::Result<(PromiseRaw<'env, T>, Rc<RefCell<Pending>>)> {
    // Our background thread outlives a worker that alone has loaded the addon, whose exit would unmap us.
    napi::bindgen_prelude::retain_current_module_for_unload_safety();
    let env = env.raw();
    let bridge = Arc::new(Bridge(Mutex::new(None)));
    let mut pending =
        Pending { deferred: None, kept: Vec::with_capacity(keep.len()), bridge: Arc::clone(&bridge) };
    for object in keep {
        let mut reference = ptr::null_mut();
        // SAFETY: `env` is live on this thread, and `object` is a handle of it.
        check_status!(unsafe { sys::napi_create_reference(env, object.raw(), 1, &raw mut reference) })?;
        pending.kept.push(reference);
    }
    let (mut promise, mut deferred) = (ptr::null_mut(), ptr::null_mut());
    // SAFETY: `env` is live on this thread.
    check_status!(unsafe { sys::napi_create_promise(env, &raw mut deferred, &raw mut promise) })?;
    pending.deferred = Some(deferred);
    let pending = Rc::new(RefCell::new(pending));
    let function = ThreadsafeFunction::open(env, &pending)?;
    *bridge.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(function);
    Ok((PromiseRaw::new(env, promise), pending))
}

/// Runs one closure on the JS thread, or drops it when the environment is ending (`env` is null then, and
/// `context` freed).
unsafe extern "C" fn run_task(
    env: sys::napi_env,
    _function: sys::napi_value,
    context: *mut c_void,
    data: *mut c_void,
) {
    // SAFETY: `post` made this pointer from such a box, and Node hands each out once.
    let task = unsafe { Box::from_raw(data.cast::<Task>()) };
    // A panic must not unwind into Node. The hook has reported it by then, and the closure's channel tells
    // the waiting side.
    let _ = catch_unwind(AssertUnwindSafe(move || {
        if env.is_null() {
            return drop(task);
        }
        // SAFETY: `context` is the box of `ThreadsafeFunction::open`, which lives until `free_context`; Node has
        // a scope open around the task.
        let (scope, context) = unsafe { (Scope::assume(env), &*context.cast::<Context>()) };
        // Never borrowed twice: a task does not run the event loop.
        let Ok(mut pending) = context.pending.try_borrow_mut() else { return };
        if pending.deferred.is_none() {
            return;
        }
        // Before the task, because the answer to it may come before it has returned.
        let successor = ThreadsafeFunction::open(env, &context.pending);
        let retired = successor.map(|function| pending.bridge.replace(function));
        task(&mut Turn { scope, pending: &mut pending });
        if let Ok(function) = retired {
            function.release();
        }
    }));
}

/// Frees what a function held, and with the last one what belonged to the promise: it is settled, or the
/// environment is ending.
unsafe extern "C" fn free_context(env: sys::napi_env, data: *mut c_void, _hint: *mut c_void) {
    // SAFETY: `ThreadsafeFunction::open` made this pointer from such a box, and Node finalizes once.
    let context = unsafe { Box::from_raw(data.cast::<Context>()) };
    let Ok(mut pending) = context.pending.try_borrow_mut() else { return };
    // From here on no other thread can reach the function that Node is about to free.
    pending.bridge.forget(context.function.get());
    if !env.is_null() && Rc::strong_count(&context.pending) == 1 {
        pending.release(env);
    }
}
