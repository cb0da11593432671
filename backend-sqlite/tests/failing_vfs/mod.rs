//! The medium of SQLite, made to fail: a layer between SQLite and the operating system's files.
//!
//! SQLite reaches its medium through a table of functions, its VFS. The one here passes every call on to the platform's
//! own, unless a [`Switch`] says that this one goes wrong. A switch belongs to a folder and to all files in it. Nothing
//! of the backend knows of this: what is tested is what is shipped.

#![expect(
    unsafe_code,
    reason = "a VFS is a table of C functions; each passes on what SQLite promises for it"
)]
#![expect(
    clippy::multiple_unsafe_ops_per_block,
    reason = "to find the file of the platform and to call it is one step, for one reason"
)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::{Path, PathBuf};
use std::ptr;
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use larder_conformance::{FaultKind, Faults};
use rusqlite::ffi;

/// What goes wrong with the medium of a folder.
pub(crate) struct Switch {
    folder: PathBuf,
    state: Mutex<State>,
    disarmed: Condvar,
}

#[derive(Default)]
struct State {
    armed: Option<Armed>,
    met: bool,
}

/// What was armed, and how many calls go well before it.
#[derive(Clone, Copy)]
enum Armed {
    /// One call fails.
    Fault(u64, FaultKind),
    /// From one write on there is no room.
    Full(u64),
}

/// A call of SQLite to its medium.
#[derive(Clone, Copy, PartialEq)]
enum Call {
    /// It finds something out, or takes a lock.
    Look,
    /// It changes a file or makes a change durable.
    Effect,
    /// It writes bytes, for which there has to be room.
    Write,
    /// A transaction is committed already, and this only tells of it.
    Committed,
}

/// How a call ends.
enum Fate {
    Good,
    FailsBefore,
    FailsAfter,
    Full,
}

impl Switch {
    /// The switch of all files in `folder`, which is in force as long as it lives.
    pub(crate) fn of(folder: &Path) -> Arc<Self> {
        LazyLock::force(&INSTALLED);
        let folder = folder.canonicalize().expect("the folder is there");
        let switch = Arc::new(Self {
            folder: folder.clone(),
            state: Mutex::default(),
            disarmed: Condvar::new(),
        });
        switches().insert(folder, Arc::downgrade(&switch));
        switch
    }

    fn fate(&self, call: Call) -> Fate {
        let mut state = self.lock();
        let Some(armed) = &mut state.armed else {
            return Fate::Good;
        };
        let (left, fate) = match armed {
            Armed::Full(left) if call == Call::Write => (left, Fate::Full),
            // What only looks, or takes a lock, leaves no effect behind.
            Armed::Fault(left, FaultKind::ErrorAfter) if call == Call::Look => {
                (left, Fate::FailsBefore)
            }
            Armed::Fault(left, FaultKind::ErrorAfter) => (left, Fate::FailsAfter),
            Armed::Fault(left, FaultKind::ErrorBefore | FaultKind::Hang)
                if call != Call::Committed =>
            {
                (left, Fate::FailsBefore)
            }
            _ => return Fate::Good,
        };
        if *left > 0 {
            *left -= 1;
            return Fate::Good;
        }
        state.met = true;
        match state.armed {
            Some(Armed::Fault(_, FaultKind::Hang)) => {
                // A thread of the store is stuck here. It is let go when nobody looks any more.
                let gone = self
                    .disarmed
                    .wait_while(state, |state| state.armed.is_some());
                drop(gone.unwrap_or_else(PoisonError::into_inner));
            }
            Some(Armed::Full(_)) | None => {}
            Some(Armed::Fault(..)) => state.armed = None,
        }
        fate
    }

    fn arm(&self, armed: Armed) {
        let mut state = self.lock();
        *state = State {
            armed: Some(armed),
            met: false,
        };
        self.disarmed.notify_all();
    }

    fn disarm(&self) -> bool {
        let mut state = self.lock();
        let met = state.met;
        *state = State::default();
        self.disarmed.notify_all();
        met
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        switches().remove(&self.folder);
    }
}

/// One call of SQLite to its medium goes wrong.
impl Faults for Switch {
    fn arm(&self, nth: u64, kind: FaultKind) {
        self.arm(Armed::Fault(nth.saturating_sub(1), kind));
    }

    fn disarm(&self) -> bool {
        self.disarm()
    }
}

/// The file system of a folder is full: each write is answered as one for which there is no room.
///
/// What a real one does, short of the writes into blocks that a file has already.
pub(crate) struct NoSpace(pub(crate) Arc<Switch>);

impl Faults for NoSpace {
    fn arm(&self, nth: u64, _kind: FaultKind) {
        self.0.arm(Armed::Full(nth.saturating_sub(1)));
    }

    fn disarm(&self) -> bool {
        self.0.disarm()
    }
}

type Switches = BTreeMap<PathBuf, std::sync::Weak<Switch>>;

fn switches() -> MutexGuard<'static, Switches> {
    static SWITCHES: Mutex<Switches> = Mutex::new(BTreeMap::new());
    SWITCHES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The switch of the folder of a file, if it has one.
fn switch_of(name: *const c_char) -> Option<Arc<Switch>> {
    if name.is_null() {
        return None;
    }
    // SAFETY: SQLite names a file by a string that ends with a zero and outlives the file.
    let name = unsafe { CStr::from_ptr(name) };
    let path = Path::new(name.to_str().ok()?);
    let folder = path.parent()?.canonicalize().ok()?;
    switches().get(&folder)?.upgrade()
}

/// A file as SQLite sees it. The platform's own file stands behind it in the same memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    switch: *const Switch,
}

impl File {
    /// The platform's file of one of ours.
    ///
    /// # Safety
    ///
    /// `file` is the start of memory of the size that [`INSTALLED`] declares.
    unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
        // SAFETY: the platform's file follows this one within that memory.
        unsafe { file.byte_add(size_of::<Self>()) }
    }

    /// Makes a call, or lets it go wrong with `error`.
    ///
    /// # Safety
    ///
    /// `file` was opened by [`open`] and not closed yet.
    unsafe fn pass(
        file: *mut ffi::sqlite3_file,
        call: Call,
        error: c_int,
        make: impl FnOnce(*mut ffi::sqlite3_file, &ffi::sqlite3_io_methods) -> c_int,
    ) -> c_int {
        // SAFETY: both pointers were set by `open`, and the switch is held by it.
        let (real, switch) = unsafe { (Self::real(file), (*file.cast::<Self>()).switch.as_ref()) };
        // SAFETY: the platform opened its file, so its table of functions is there, and static.
        let methods = unsafe { &*(*real).pMethods };
        match switch.map_or(Fate::Good, |switch| switch.fate(call)) {
            Fate::Good => make(real, methods),
            Fate::FailsBefore => error,
            Fate::FailsAfter => {
                make(real, methods);
                error
            }
            Fate::Full => ffi::SQLITE_FULL,
        }
    }
}

/// The platform's own VFS.
struct Real(*mut ffi::sqlite3_vfs);

// SAFETY: SQLite registers it once, never changes it, and uses it from all threads.
unsafe impl Send for Real {}
// SAFETY: as above.
unsafe impl Sync for Real {}

/// The VFS of this module is the default one of the process from here on.
static INSTALLED: LazyLock<Real> = LazyLock::new(|| {
    // SAFETY: nothing is asked of the arguments, and SQLite can be used in this process.
    let real = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    // SAFETY: the default VFS of this platform is there and static.
    let mut ours = unsafe { *real };
    ours.zName = c"failing".as_ptr();
    ours.pNext = ptr::null_mut();
    ours.szOsFile += c_int::try_from(size_of::<File>()).expect("a few bytes");
    ours.xOpen = Some(open);
    // SAFETY: the table is leaked, so it is there for as long as SQLite wants it. All functions but `open` are the
    // platform's, which look at nothing in the table but at what was copied from theirs.
    let registered = unsafe { ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 1) };
    assert_eq!(registered, ffi::SQLITE_OK, "SQLite takes any VFS");
    Real(real)
});

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // The second has shared memory; the third would map files, which the backend does not.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

const THERE: &str = "the platform's files have all functions";

unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let switch = switch_of(name);
    let fate = switch
        .as_ref()
        .map_or(Fate::Good, |switch| switch.fate(Call::Look));
    // SAFETY: SQLite gives memory of the declared size, and wants this to be null where no file was opened.
    unsafe { (*file).pMethods = ptr::null() };
    if !matches!(fate, Fate::Good) {
        return ffi::SQLITE_CANTOPEN;
    }
    // SAFETY: see `Real`; the arguments are SQLite's own, and the memory for the platform's file lies behind ours.
    let opened = unsafe {
        let open = (*INSTALLED.0).xOpen.expect(THERE);
        open(INSTALLED.0, name, File::real(file), flags, out_flags)
    };
    if opened == ffi::SQLITE_OK {
        let ours = File {
            base: ffi::sqlite3_file { pMethods: &METHODS },
            switch: switch.map_or(ptr::null(), Arc::into_raw),
        };
        // SAFETY: the memory is large enough, and aligned for pointers as all memory of SQLite is.
        unsafe { file.cast::<File>().write(ours) };
    }
    opened
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file that it opened, once. The switch came out of an `Arc` in `open`.
    unsafe {
        let real = File::real(file);
        let closed = (*(*real).pMethods).xClose.expect(THERE)(real);
        let switch = (*file.cast::<File>()).switch;
        if !switch.is_null() {
            drop(Arc::from_raw(switch));
        }
        closed
    }
}

/// A function of the table that passes its arguments on.
macro_rules! passed_on {
    ($($name:ident = $method:ident ($($arg:ident: $kind:ty),*) $call:expr, $error:expr;)+) => {$(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $arg: $kind)*) -> c_int {
            // SAFETY: the file is open, and the arguments are what SQLite gives to any VFS.
            unsafe {
                File::pass(file, $call, $error, |real, methods| {
                    methods.$method.expect(THERE)(real $(, $arg)*)
                })
            }
        }
    )+};
}

passed_on! {
    read = xRead(to: *mut c_void, len: c_int, at: i64) Call::Look, ffi::SQLITE_IOERR_READ;
    write = xWrite(from: *const c_void, len: c_int, at: i64) Call::Write, ffi::SQLITE_IOERR_WRITE;
    truncate = xTruncate(len: i64) Call::Effect, ffi::SQLITE_IOERR_TRUNCATE;
    sync = xSync(flags: c_int) Call::Effect, ffi::SQLITE_IOERR_FSYNC;
    file_size = xFileSize(len: *mut i64) Call::Look, ffi::SQLITE_IOERR_FSTAT;
    lock = xLock(level: c_int) Call::Look, ffi::SQLITE_IOERR_LOCK;
    shm_map = xShmMap(page: c_int, len: c_int, extend: c_int, to: *mut *mut c_void)
        Call::Look, ffi::SQLITE_IOERR_SHMMAP;
}

/// A function of the table that never fails by a switch.
macro_rules! always_well {
    ($($name:ident = $method:ident ($($arg:ident: $kind:ty),*) $(-> $out:ty)?;)+) => {$(
        unsafe extern "C" fn $name(file: *mut ffi::sqlite3_file $(, $arg: $kind)*) $(-> $out)? {
            // SAFETY: the file is open, and the arguments are what SQLite gives to any VFS.
            unsafe {
                let real = File::real(file);
                (*(*real).pMethods).$method.expect(THERE)(real $(, $arg)*)
            }
        }
    )+};
}

always_well! {
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(out: *mut c_int) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_barrier = xShmBarrier();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

unsafe extern "C" fn file_control(
    file: *mut ffi::sqlite3_file,
    op: c_int,
    arg: *mut c_void,
) -> c_int {
    let pass = |real, methods: &ffi::sqlite3_io_methods| {
        // SAFETY: the file is open, and the arguments are what SQLite gives to any VFS.
        unsafe { methods.xFileControl.expect(THERE)(real, op, arg) }
    };
    if op == ffi::SQLITE_FCNTL_COMMIT_PHASETWO {
        // SAFETY: as above.
        return unsafe { File::pass(file, Call::Committed, ffi::SQLITE_IOERR, pass) };
    }
    // SAFETY: as above.
    unsafe {
        let real = File::real(file);
        pass(real, &*(*real).pMethods)
    }
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let pass = |real, methods: &ffi::sqlite3_io_methods| {
        // SAFETY: the file is open, and the arguments are what SQLite gives to any VFS.
        unsafe { methods.xShmLock.expect(THERE)(real, offset, count, flags) }
    };
    if flags & ffi::SQLITE_SHM_LOCK != 0 {
        // SAFETY: as above.
        return unsafe { File::pass(file, Call::Look, ffi::SQLITE_IOERR_SHMLOCK, pass) };
    }
    // SAFETY: as above. A lock can always be given back.
    unsafe {
        let real = File::real(file);
        pass(real, &*(*real).pMethods)
    }
}
