//! The few Node-API calls that the database driver makes for every value of every row.
//!
//! napi-rs's own helpers build an argument vector, a closure or an error object for each call, which halves the
//! rate at which rows are bound. This module is the thin, checked layer over the C functions instead: a
//! [`Scope`] can only be had on the JS thread, a [`Local`] cannot outlive the scope it was made in, and a
//! JavaScript exception comes back as a value, never left pending.

#![expect(unsafe_code, reason = "every line here is a call of Node-API, whose functions are C")]

use std::ffi::{CStr, c_char};
use std::marker::PhantomData;
use std::ptr;

use napi::sys;

use crate::model::Value;

/// A JavaScript value that lives as long as the scope it was made in.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Local<'s> {
    raw: sys::napi_value,
    _scope: PhantomData<&'s ()>,
}

impl Local<'_> {
    /// Trusts that a value lives.
    ///
    /// # Safety
    /// `raw` must be a handle of the current environment, alive as long as the lifetime chosen.
    pub unsafe fn assume(raw: sys::napi_value) -> Self {
        Self { raw, _scope: PhantomData }
    }

    /// The value as Node-API's C functions take it.
    pub fn raw(self) -> sys::napi_value {
        self.raw
    }
}

/// Why a call of JavaScript gave no value.
pub enum Fault<'s> {
    /// JavaScript threw this.
    Thrown(Local<'s>),
    /// Node-API refused the call: the thread is ending, or a value is not of the type that was expected.
    Refused(sys::napi_status),
}

/// The outcome of a call of JavaScript.
pub type Outcome<'s, T> = Result<T, Fault<'s>>;

/// Proof that the scope `'s` outlives the scope `'n`, so that a [`Local`] of the outer one serves in the inner.
pub type Within<'n, 's> = PhantomData<&'n &'s ()>;

/// An open handle scope on the JS thread.
#[derive(Clone, Copy)]
pub struct Scope<'s> {
    env: sys::napi_env,
    // Not Send, not Sync: a scope belongs to its thread. Invariant, so that scopes cannot be mixed up.
    _life: PhantomData<*mut &'s ()>,
}

impl<'s> Scope<'s> {
    /// Trusts that a scope is open.
    ///
    /// # Safety
    /// `env` must be the live environment of the current thread, with a handle scope open throughout `'s`.
    pub unsafe fn assume(env: sys::napi_env) -> Self {
        Self { env, _life: PhantomData }
    }

    /// The environment as Node-API's C functions take it.
    pub fn env(self) -> sys::napi_env {
        self.env
    }

    /// Runs `work` in a scope of its own, so that what it makes is freed when it returns.
    pub fn nested<R>(self, work: impl for<'n> FnOnce(Scope<'n>, Within<'n, 's>) -> R) -> R {
        let mut handle = ptr::null_mut();
        // SAFETY: `self` proves that `env` is live on this thread. The scope closes on every path, because
        // `Close` closes it even when `work` panics.
        let opened =
            unsafe { sys::napi_open_handle_scope(self.env, &raw mut handle) } == sys::Status::napi_ok;
        let _close = Close { env: self.env, handle: opened.then_some(handle) };
        work(Scope { env: self.env, _life: PhantomData }, PhantomData)
    }

    fn local(self, make: impl FnOnce(*mut sys::napi_value) -> sys::napi_status) -> Outcome<'s, Local<'s>> {
        let mut raw = ptr::null_mut();
        self.check(make(&raw mut raw))?;
        Ok(Local { raw, _scope: PhantomData })
    }

    /// Turns a status into an outcome, taking a pending exception off the environment.
    fn check(self, status: sys::napi_status) -> Outcome<'s, ()> {
        match status {
            sys::Status::napi_ok => Ok(()),
            sys::Status::napi_pending_exception => Err(self.take_exception()),
            refused => Err(Fault::Refused(refused)),
        }
    }

    fn take_exception(self) -> Fault<'s> {
        let mut raw = ptr::null_mut();
        // SAFETY: `self` proves that `env` is live on this thread.
        match unsafe { sys::napi_get_and_clear_last_exception(self.env, &raw mut raw) } {
            sys::Status::napi_ok => Fault::Thrown(Local { raw, _scope: PhantomData }),
            refused => Fault::Refused(refused),
        }
    }

    /// The value behind a reference.
    pub fn deref(self, reference: sys::napi_ref) -> Outcome<'s, Local<'s>> {
        // SAFETY: `self` proves that `env` is live on this thread; a deleted reference is never passed in, as
        // references are deleted with the call that owns them.
        self.local(|raw| unsafe { sys::napi_get_reference_value(self.env, reference, raw) })
    }

    /// JavaScript's `null`.
    pub fn null(self) -> Outcome<'s, Local<'s>> {
        // SAFETY: `self` proves that `env` is live on this thread.
        self.local(|raw| unsafe { sys::napi_get_null(self.env, raw) })
    }

    /// A boolean.
    pub fn boolean(self, value: bool) -> Outcome<'s, Local<'s>> {
        // SAFETY: as above.
        self.local(|raw| unsafe { sys::napi_get_boolean(self.env, value, raw) })
    }

    /// A string, NULs included.
    pub fn string(self, text: &str) -> Outcome<'s, Local<'s>> {
        let (data, length) = (text.as_ptr().cast::<c_char>(), text.len().cast_signed());
        // SAFETY: as above; the text is copied before the call returns.
        self.local(|raw| unsafe { sys::napi_create_string_utf8(self.env, data, length, raw) })
    }

    /// An `Error`.
    pub fn error(self, code: &str, message: &str) -> Outcome<'s, Local<'s>> {
        let (code, message) = (self.string(code)?, self.string(message)?);
        // SAFETY: as above.
        self.local(|raw| unsafe { sys::napi_create_error(self.env, code.raw, message.raw, raw) })
    }

    /// A `BigInt`.
    pub fn bigint(self, integer: i64) -> Outcome<'s, Local<'s>> {
        // SAFETY: as above.
        self.local(|raw| unsafe { sys::napi_create_bigint_int64(self.env, integer, raw) })
    }

    /// A `Number`.
    pub fn number(self, real: f64) -> Outcome<'s, Local<'s>> {
        // SAFETY: as above.
        self.local(|raw| unsafe { sys::napi_create_double(self.env, real, raw) })
    }

    /// A `Buffer` of a length, its content undefined, and where its bytes are.
    pub fn buffer(self, length: usize) -> Outcome<'s, BufferLocal<'s>> {
        let mut data = ptr::null_mut();
        // SAFETY: as above.
        let local =
            self.local(|raw| unsafe { sys::napi_create_buffer(self.env, length, &raw mut data, raw) })?;
        Ok(BufferLocal { local, data: data.cast(), length })
    }

    /// Calls a function.
    pub fn call(
        self,
        this: Local<'_>,
        function: Local<'_>,
        arguments: &[Local<'_>],
    ) -> Outcome<'s, Local<'s>> {
        let values = arguments.as_ptr().cast::<sys::napi_value>();
        // SAFETY: as above; `Local` is transparent, so a slice of them is an array of Node-API's values.
        self.local(|raw| unsafe {
            sys::napi_call_function(self.env, this.raw, function.raw, arguments.len(), values, raw)
        })
    }

    /// A property by its name.
    pub fn get(self, object: Local<'_>, name: &CStr) -> Outcome<'s, Local<'s>> {
        // SAFETY: as above.
        self.local(|raw| unsafe { sys::napi_get_named_property(self.env, object.raw, name.as_ptr(), raw) })
    }

    /// Sets a property by its name.
    pub fn set(self, object: Local<'_>, name: &CStr, value: Local<'_>) -> Outcome<'s, ()> {
        // SAFETY: as above.
        self.check(unsafe { sys::napi_set_named_property(self.env, object.raw, name.as_ptr(), value.raw) })
    }

    /// An element of an array.
    pub fn element(self, array: Local<'_>, index: u32) -> Outcome<'s, Local<'s>> {
        // SAFETY: as above.
        self.local(|raw| unsafe { sys::napi_get_element(self.env, array.raw, index, raw) })
    }

    /// Sets an element of an array.
    pub fn set_element(self, array: Local<'_>, index: u32, value: Local<'_>) -> Outcome<'s, ()> {
        // SAFETY: as above.
        self.check(unsafe { sys::napi_set_element(self.env, array.raw, index, value.raw) })
    }

    /// How many elements an array has.
    pub fn length(self, array: Local<'_>) -> Outcome<'s, u32> {
        let mut length = 0;
        // SAFETY: as above.
        self.check(unsafe { sys::napi_get_array_length(self.env, array.raw, &raw mut length) })?;
        Ok(length)
    }

    /// A boolean's value.
    pub fn as_bool(self, value: Local<'_>) -> Outcome<'s, bool> {
        let mut bool = false;
        // SAFETY: as above.
        self.check(unsafe { sys::napi_get_value_bool(self.env, value.raw, &raw mut bool) })?;
        Ok(bool)
    }

    /// A number's value.
    pub fn as_number(self, value: Local<'_>) -> Outcome<'s, f64> {
        let mut number = 0.0;
        // SAFETY: as above.
        self.check(unsafe { sys::napi_get_value_double(self.env, value.raw, &raw mut number) })?;
        Ok(number)
    }

    /// A number's value as a count.
    pub fn as_u32(self, value: Local<'_>) -> Outcome<'s, u32> {
        let mut count = 0;
        // SAFETY: as above.
        self.check(unsafe { sys::napi_get_value_uint32(self.env, value.raw, &raw mut count) })?;
        Ok(count)
    }

    /// A string's value, in UTF-8.
    pub fn as_string(self, value: Local<'_>) -> Outcome<'s, String> {
        let mut length = 0;
        // SAFETY: as above; a null buffer asks for the length alone.
        self.check(unsafe {
            sys::napi_get_value_string_utf8(self.env, value.raw, ptr::null_mut(), 0, &raw mut length)
        })?;
        let mut bytes = vec![0_u8; length + 1];
        // SAFETY: as above; the buffer has room for the text and the NUL that Node-API appends.
        self.check(unsafe {
            let data = bytes.as_mut_ptr().cast();
            sys::napi_get_value_string_utf8(self.env, value.raw, data, bytes.len(), &raw mut length)
        })?;
        bytes.truncate(length);
        // V8 replaces lone surrogates, so this never copies; were it to, no text would be lost.
        Ok(String::from_utf8(bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }

    /// A value as a statement in `raw` and `safeIntegers` mode returns it, exactly.
    pub fn as_value(self, value: Local<'_>) -> Outcome<'s, Value> {
        let mut kind = sys::ValueType::napi_undefined;
        // SAFETY: as above.
        self.check(unsafe { sys::napi_typeof(self.env, value.raw, &raw mut kind) })?;
        match kind {
            sys::ValueType::napi_null => Ok(Value::Null),
            sys::ValueType::napi_bigint => {
                let (mut integer, mut lossless) = (0, false);
                // SAFETY: as above.
                self.check(unsafe {
                    sys::napi_get_value_bigint_int64(self.env, value.raw, &raw mut integer, &raw mut lossless)
                })?;
                Ok(Value::Integer(integer))
            }
            sys::ValueType::napi_number => self.as_number(value).map(Value::Real),
            sys::ValueType::napi_string => self.as_string(value).map(Value::Text),
            sys::ValueType::napi_object => {
                let (mut data, mut length) = (ptr::null_mut(), 0);
                // SAFETY: as above.
                self.check(unsafe {
                    sys::napi_get_buffer_info(self.env, value.raw, &raw mut data, &raw mut length)
                })?;
                if length == 0 {
                    return Ok(Value::Blob(Vec::new()));
                }
                // SAFETY: Node-API gave this many bytes, and no JavaScript runs before they are copied.
                Ok(Value::Blob(unsafe { std::slice::from_raw_parts(data.cast::<u8>(), length) }.to_vec()))
            }
            _ => Err(Fault::Refused(sys::Status::napi_invalid_arg)),
        }
    }

    /// Attaches native data to an object, dropped when the object is collected.
    pub fn attach<T: 'static>(self, object: Local<'_>, data: T) -> Outcome<'s, ()> {
        let data = Box::into_raw(Box::new(data));
        // SAFETY: as above; `drop_attached::<T>` is the one owner of the box from here on.
        let status = unsafe {
            let finalize = Some(drop_attached::<T> as unsafe extern "C" fn(_, _, _));
            sys::napi_wrap(self.env, object.raw, data.cast(), finalize, ptr::null_mut(), ptr::null_mut())
        };
        if status != sys::Status::napi_ok {
            // SAFETY: the object did not take the box.
            drop(unsafe { Box::from_raw(data) });
        }
        self.check(status)
    }

    /// What [`attach`](Self::attach) attached to an object, or `None`.
    ///
    /// # Safety
    /// The object must have been given to `attach` with this very `T` or not at all, and no other reference
    /// to the data may be in use.
    pub unsafe fn attached<T: 'static>(self, object: Local<'s>) -> Option<&'s mut T> {
        let mut data = ptr::null_mut();
        // SAFETY: as above; the object, and with it the data, lives as long as `'s`.
        match unsafe { sys::napi_unwrap(self.env, object.raw, &raw mut data) } {
            sys::Status::napi_ok => unsafe { data.cast::<T>().as_mut() },
            _ => None,
        }
    }
}

unsafe extern "C" fn drop_attached<T>(
    _env: sys::napi_env,
    data: *mut std::ffi::c_void,
    _hint: *mut std::ffi::c_void,
) {
    // SAFETY: `attach` made this pointer from a box of this type, and Node-API finalizes once.
    drop(unsafe { Box::from_raw(data.cast::<T>()) });
}

struct Close {
    env: sys::napi_env,
    handle: Option<sys::napi_handle_scope>,
}

impl Drop for Close {
    fn drop(&mut self) {
        if let Some(handle) = self.handle {
            // SAFETY: the scope was opened on this thread, and inner ones have closed before it.
            unsafe { sys::napi_close_handle_scope(self.env, handle) };
        }
    }
}

/// A `Buffer` of our own making, which can be written to.
#[derive(Clone, Copy)]
pub struct BufferLocal<'s> {
    local: Local<'s>,
    data: *mut u8,
    length: usize,
}

impl<'s> BufferLocal<'s> {
    /// Overwrites the content; bytes beyond the buffer's length are ignored.
    pub fn fill(&self, bytes: &[u8]) -> Local<'s> {
        let length = bytes.len().min(self.length);
        if length > 0 {
            // SAFETY: the buffer has that many bytes, it is alive as long as `'s`, and the source is memory
            // of Rust's, so the two do not overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.data, length) };
        }
        self.local
    }
}
