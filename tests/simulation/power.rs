//! Power that fails: what was written to a file and not synced is gone.
//!
//! SQLite's own file system, wrapped. Of each file in a folder that is watched it is known what every write has
//! overwritten since the last `fsync`. When the power is cut, files can neither be written nor deleted; when it is
//! back, those writes have not happened. What a commit leaves behind is therefore what the settings of its
//! connection (`journal_mode`, `synchronous`) really make durable, and nothing here knows what they are.

#![expect(unsafe_code, reason = "a file system for SQLite consists of functions that C calls")]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

/// The power of a machine, as far as it concerns the files of one folder.
pub struct Power {
    folder: PathBuf,
}

/// What a write has overwritten.
struct Overwritten {
    at: u64,
    bytes: Vec<u8>,
    /// How long the file was.
    length: u64,
}

#[derive(Default)]
struct Folder {
    is_off: bool,
    /// What is not durable yet, by file, in the order of the writes.
    unsynced: HashMap<PathBuf, Vec<Overwritten>>,
}

/// An open file.
#[derive(Clone)]
struct Open {
    path: PathBuf,
    /// SQLite's own functions for it.
    own: &'static ffi::sqlite3_io_methods,
}

#[derive(Default)]
struct Machine {
    folders: HashMap<PathBuf, Folder>,
    /// By the address that SQLite knows the file by.
    open: HashMap<usize, Open>,
    /// For each set of functions of SQLite's own, the one that goes round it.
    wrapped: HashMap<usize, &'static ffi::sqlite3_io_methods>,
}

impl Machine {
    fn folder(&mut self, path: &Path) -> Option<&mut Folder> {
        self.folders.get_mut(path.parent()?)
    }

    fn is_off(&mut self, path: &Path) -> bool {
        self.folder(path).is_some_and(|folder| folder.is_off)
    }
}

fn machine() -> MutexGuard<'static, Machine> {
    static MACHINE: LazyLock<Mutex<Machine>> = LazyLock::new(Mutex::default);
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// SQLite's own file system; installs the one that goes round it.
fn own() -> &'static ffi::sqlite3_vfs {
    static OWN: LazyLock<usize> = LazyLock::new(|| {
        // SAFETY: SQLite's file systems live as long as the process, and so does what is leaked.
        unsafe {
            let own: &'static ffi::sqlite3_vfs = &*ffi::sqlite3_vfs_find(ptr::null());
            let mut around = *own;
            around.zName = c"power".as_ptr();
            around.xOpen = Some(open);
            around.xDelete = Some(delete);
            assert_eq!(ffi::sqlite3_vfs_register(Box::leak(Box::new(around)), 1), ffi::SQLITE_OK);
            ptr::from_ref(own).expose_provenance()
        }
    });
    // SAFETY: as above.
    unsafe { &*ptr::with_exposed_provenance(*OWN) }
}

impl Power {
    /// Watches a folder from now on.
    pub fn of(folder: &Path) -> Self {
        own();
        machine().folders.insert(folder.to_owned(), Folder::default());
        Self { folder: folder.to_owned() }
    }

    /// Nothing that happens to the files from now on leaves a trace.
    pub fn cut(&self) {
        machine().folders.get_mut(&self.folder).unwrap().is_off = true;
    }

    /// The files are what was durable. Nobody may have one of them open. Returns how many writes are gone.
    pub fn restore(&self) -> usize {
        let mut machine = machine();
        let folder = machine.folders.get_mut(&self.folder).unwrap();
        folder.is_off = false;
        let mut lost = 0;
        for (path, overwritten) in folder.unsynced.drain() {
            lost += overwritten.len();
            let mut file = OpenOptions::new().write(true).open(path).unwrap();
            for Overwritten { at, bytes, length } in overwritten.into_iter().rev() {
                file.seek(SeekFrom::Start(at)).unwrap();
                file.write_all(&bytes).unwrap();
                file.set_len(length).unwrap();
            }
        }
        for file in fs::read_dir(&self.folder).unwrap().map(|file| file.unwrap().path()) {
            // Memory that processes share: theirs, and not the disk's.
            if file.to_string_lossy().ends_with("-shm") {
                fs::remove_file(file).unwrap();
            }
        }
        lost
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        machine().folders.remove(&self.folder);
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let own = own();
    // SAFETY: SQLite's own function gets what it would have got without this one; a name ends with a NUL, and a
    // file that was opened has functions.
    unsafe {
        let outcome = own.xOpen.unwrap()(ptr::from_ref(own).cast_mut(), name, file, flags, out);
        if outcome != ffi::SQLITE_OK || name.is_null() {
            return outcome;
        }
        let path = PathBuf::from(CStr::from_ptr(name).to_string_lossy().as_ref());
        let mut machine = machine();
        if machine.folder(&path).is_some() {
            let own: &'static ffi::sqlite3_io_methods = &*(*file).pMethods;
            let around = *machine.wrapped.entry(ptr::from_ref(own).addr()).or_insert_with(|| {
                let mut around = *own;
                around.xWrite = Some(write);
                around.xTruncate = Some(truncate);
                around.xSync = Some(sync);
                around.xClose = Some(close);
                Box::leak(Box::new(around))
            });
            (*file).pMethods = around;
            machine.open.insert(file.addr(), Open { path, own });
        }
        outcome
    }
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, is_durable: c_int) -> c_int {
    let own = own();
    // SAFETY: as above.
    unsafe {
        let path = PathBuf::from(CStr::from_ptr(name).to_string_lossy().as_ref());
        let mut machine = machine();
        if machine.is_off(&path) {
            return ffi::SQLITE_IOERR_DELETE;
        }
        machine.folder(&path).and_then(|folder| folder.unsynced.remove(&path));
        drop(machine);
        own.xDelete.unwrap()(ptr::from_ref(own).cast_mut(), name, is_durable)
    }
}

/// The open file of an address; nothing if the power is off.
fn powered(file: *mut ffi::sqlite3_file) -> Option<Open> {
    let mut machine = machine();
    let open = machine.open[&file.addr()].clone();
    (!machine.is_off(&open.path)).then_some(open)
}

/// Remembers what a change of this part of a file is about to overwrite.
unsafe fn remember(open: &Open, file: *mut ffi::sqlite3_file, at: i64, end: Option<i64>) {
    let mut length = 0;
    // SAFETY: the functions are those of the file, which is open.
    let bytes = unsafe {
        open.own.xFileSize.unwrap()(file, &raw mut length);
        let end = end.unwrap_or(length).min(length);
        let mut bytes = vec![0_u8; usize::try_from(end - at).unwrap_or(0)];
        if !bytes.is_empty() {
            let (buffer, wanted) = (bytes.as_mut_ptr().cast(), c_int::try_from(bytes.len()).unwrap());
            assert_eq!(open.own.xRead.unwrap()(file, buffer, wanted, at), ffi::SQLITE_OK);
        }
        bytes
    };
    let overwritten = Overwritten { at: at.cast_unsigned(), bytes, length: length.cast_unsigned() };
    if let Some(folder) = machine().folder(&open.path) {
        folder.unsynced.entry(open.path.clone()).or_default().push(overwritten);
    }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    count: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    let Some(open) = powered(file) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: SQLite's own function gets what it would have got without this one.
    unsafe {
        remember(&open, file, at, Some(at + i64::from(count)));
        open.own.xWrite.unwrap()(file, bytes, count, at)
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, length: ffi::sqlite3_int64) -> c_int {
    let Some(open) = powered(file) else { return ffi::SQLITE_IOERR_TRUNCATE };
    // SAFETY: as above.
    unsafe {
        remember(&open, file, length, None);
        open.own.xTruncate.unwrap()(file, length)
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    let Some(open) = powered(file) else { return ffi::SQLITE_IOERR_FSYNC };
    if let Some(folder) = machine().folder(&open.path) {
        folder.unsynced.remove(&open.path);
    }
    // SAFETY: as above.
    unsafe { open.own.xSync.unwrap()(file, flags) }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let open = machine().open.remove(&file.addr()).unwrap();
    // SAFETY: as above. The file has its own functions again, as SQLite's own close expects.
    unsafe {
        (*file).pMethods = open.own;
        open.own.xClose.unwrap()(file)
    }
}
