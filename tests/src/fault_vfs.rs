//! A SQLite VFS for tests whose disk fails and loses power on demand.
//!
//! The shim becomes the default VFS of the process, so the code under test opens its databases as it always
//! does. A file outside every watched directory is left to the original VFS alone. A watched file is wrapped:
//! its bytes still go to the real file, which the running process reads back, and the shim remembers which of
//! them a sync has made durable, which is what a machine finds after losing power.
//!
//! What the model leaves out: creating and deleting a file are durable at once. A change made around SQLite
//! (say, a rename over a watched file) goes unseen. A sync that follows a failed one makes all durable, as if
//! the kernel had kept the dirty pages.

#![allow(unsafe_code)]

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rusqlite::ffi::{self, sqlite3_file, sqlite3_io_methods, sqlite3_vfs};
use std::collections::btree_map::{BTreeMap, Entry, OccupiedEntry};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::ops::RangeInclusive;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::{fs, io, ptr, slice};

/// The unit a disk writes whole or not at all, and so the only place where a write can tear.
const SECTOR: usize = 512;

static DISKS: Mutex<Vec<Arc<Disk>>> = Mutex::new(Vec::new());

/// A directory whose SQLite files remember which of their bytes are durable, and whose disk fails on demand.
///
/// Dropping it un-registers the directory: files opened afterwards are ordinary ones, and those still open
/// stop failing, so that a connection which outlives its disk closes in peace.
pub struct FaultDisk(Arc<Disk>);

/// What a failing step answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The I/O error that belongs to the step: `SQLITE_IOERR_WRITE`, `_FSYNC`, `_TRUNCATE` or `_DELETE`.
    IoError,
    /// `SQLITE_FULL` on a write. The other steps need no space, so they answer their I/O error.
    Full,
}

impl FaultDisk {
    /// Registers the shim (once per process) and watches every SQLite file opened from now on under `dir`.
    ///
    /// What such a file holds when it is first opened counts as durable. Where watched directories nest, the
    /// one watched last has the file. Panics if `dir` cannot be resolved or SQLite refuses the shim.
    pub fn watch(dir: &Path) -> FaultDisk {
        register_shim();
        // SQLite hands a VFS the resolved names of its files, so the directory has to be resolved as well.
        let dir = dir.canonicalize().expect("the directory to watch exists");
        let state = Mutex::default();
        let disk = Arc::new(Disk { dir, state });
        lock(&DISKS).push(Arc::clone(&disk));
        FaultDisk(disk)
    }

    /// The number of steps so far, failed ones included.
    ///
    /// A step is one write, sync, truncation or deletion of a watched database, WAL or journal. Shared memory
    /// (`-shm`) never counts and never fails.
    pub fn steps(&self) -> u64 {
        lock(&self.0.state).steps
    }

    /// Makes the step number `step` (counted as by `steps`, so `steps() + 1` is the next one) fail with
    /// `fault`, once; later steps succeed.
    pub fn fail_once_at(&self, step: u64, fault: Fault) {
        lock(&self.0.state).faults.push((step..=step, fault));
    }

    /// Makes the step number `step` and all later ones fail: a full or dead disk.
    pub fn fail_from(&self, step: u64, fault: Fault) {
        lock(&self.0.state).faults.push((step..=u64::MAX, fault));
    }

    /// The power goes before step number `step`: it and all later ones fail with an I/O error and the disk
    /// image is frozen as of then.
    pub fn cut_power_at(&self, step: u64) {
        // A failing step leaves no trace, so failing from here on is all it takes to freeze the image.
        self.fail_from(step, Fault::IoError);
    }

    /// Writes into `dest` what a machine would find after losing power now, or when `cut_power_at` says.
    ///
    /// Each watched file gets its last synced content and, of the writes since, a random subset chosen by
    /// `seed` and applied in order: each is kept whole, dropped, or torn at a 512-byte boundary. With no seed
    /// none of them survives. `dest` is an existing, empty directory outside the watched one. Shared memory
    /// (`-shm`) is not written to it.
    pub fn write_crash_image(&self, dest: &Path, seed: Option<u64>) -> io::Result<()> {
        let mut rng = seed.map(StdRng::seed_from_u64);
        for (name, file) in &lock(&self.0.state).files {
            let mut content = file.durable.clone();
            if let Some(rng) = &mut rng {
                // With the same chance for every file and image, a long run would hardly ever survive whole.
                let chance = rng.random();
                for change in &file.pending {
                    change.apply_remains(&mut content, chance, rng);
                }
            }
            let target = dest.join(name);
            target.parent().map_or(Ok(()), fs::create_dir_all)?;
            fs::write(target, content)?;
        }
        Ok(())
    }
}

impl Drop for FaultDisk {
    fn drop(&mut self) {
        lock(&DISKS).retain(|disk| !Arc::ptr_eq(disk, &self.0));
        lock(&self.0.state).faults.clear();
    }
}

struct Disk {
    dir: PathBuf,
    /// Held while the real file changes too, so that the model sees all changes in the order they happened.
    state: Mutex<DiskState>,
}

#[derive(Default)]
struct DiskState {
    steps: u64,
    faults: Vec<(RangeInclusive<u64>, Fault)>,
    /// By name relative to the directory, as several connections share a file. The map is sorted, so that a
    /// seed makes the same choices every time.
    files: BTreeMap<PathBuf, FileState>,
}

struct FileState {
    durable: Vec<u8>,
    pending: Vec<Change>,
}

type Tracked<'a> = OccupiedEntry<'a, PathBuf, FileState>;

/// A change of a file's content that no sync has made durable yet: bytes at an offset, or a new size.
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => write_at(content, *offset, bytes),
            Change::Truncate(size) => content.resize(*size, 0),
        }
    }

    /// Applies what a power cut leaves of the change: with the given `chance` all of it, else one side of a
    /// tear or nothing.
    fn apply_remains(&self, content: &mut Vec<u8>, chance: f64, rng: &mut StdRng) {
        if rng.random_bool(chance) {
            self.apply(content);
        } else if let Change::Write(offset, bytes) = self {
            let boundaries = offset / SECTOR + 1..(offset + bytes.len()).div_ceil(SECTOR);
            if !boundaries.is_empty() && rng.random() {
                let tear = rng.random_range(boundaries) * SECTOR;
                let (head, tail) = bytes.split_at(tear - offset);
                if rng.random() {
                    write_at(content, *offset, head);
                } else {
                    write_at(content, tear, tail);
                }
            }
        }
    }
}

fn write_at(content: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    content.resize(content.len().max(end), 0);
    content[offset..end].copy_from_slice(bytes);
}

/// Locks `mutex` even after a test has panicked with it held: other tests of the process use the same shim.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn to_usize(number: impl TryInto<usize>) -> usize {
    number.try_into().ok().expect("SQLite has no negative sizes")
}

/// A file of a watched disk.
struct Watched {
    disk: Arc<Disk>,
    name: PathBuf,
}

impl Watched {
    /// Finds the disk that watches the file `name`.
    ///
    /// # Safety
    ///
    /// `name` is null, as it is for a temporary file, or points to a string that ends in NUL.
    unsafe fn find(name: *const c_char) -> Option<Watched> {
        if name.is_null() {
            return None;
        }
        // SAFETY: the caller vouches for a name that is not null.
        let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes()));
        lock(&DISKS).iter().rev().find_map(|disk| {
            let name = path.strip_prefix(&disk.dir).ok()?.to_path_buf();
            let disk = Arc::clone(disk);
            Some(Watched { disk, name })
        })
    }

    /// Takes a step: unless it is to fail, does the `real` thing and, if that succeeds, updates the model.
    fn step(&self, io_error: c_int, real: impl FnOnce() -> c_int, update: impl FnOnce(Tracked<'_>)) -> c_int {
        let mut state = lock(&self.disk.state);
        state.steps += 1;
        let step = state.steps;
        match state.faults.iter().rfind(|(steps, _)| steps.contains(&step)) {
            Some((_, Fault::Full)) if io_error == ffi::SQLITE_IOERR_WRITE => return ffi::SQLITE_FULL,
            Some(_) => return io_error,
            None => {}
        }
        let code = real();
        // A deleted file can still be open, but nobody can find its bytes any more.
        if let (ffi::SQLITE_OK, Entry::Occupied(file)) = (code, state.files.entry(self.name.clone())) {
            update(file);
        }
        code
    }
}

/// What SQLite takes for its open file. The real file follows it in the same allocation.
#[repr(C)]
struct FaultFile {
    base: sqlite3_file,
    watched: *mut Watched,
}

// SQLite aligns an open file to eight bytes. The header must not need more nor leave the real file with less.
const _: () = assert!(align_of::<FaultFile>() <= 8 && size_of::<FaultFile>().is_multiple_of(8));

/// The real file behind a `FaultFile`.
///
/// # Safety
///
/// `file` points to an allocation of the shim's `szOsFile` bytes.
unsafe fn real_of(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: the shim's `szOsFile` is the size of a `FaultFile` plus that of a real file.
    unsafe { file.cast::<FaultFile>().add(1).cast() }
}

/// Both sides of a `FaultFile`: the model and the real file.
///
/// # Safety
///
/// `x_open` has wrapped `file`, and `x_close` is not called for it while the reference is in use.
unsafe fn sides_of<'a>(file: *mut sqlite3_file) -> (&'a Watched, *mut sqlite3_file) {
    // SAFETY: `x_open` stores a pointer from a box there, which is only read until `x_close` frees it.
    unsafe { (&*(*file.cast::<FaultFile>()).watched, real_of(file)) }
}

static REAL_VFS: AtomicPtr<sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

fn register_shim() {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        // SAFETY: a null name asks for the default VFS, which lives as long as the process.
        let real = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        assert!(!real.is_null(), "SQLite has a default VFS");
        REAL_VFS.store(real, Ordering::Release);
        // SAFETY: the pointer is SQLite's and not null. A bitwise copy will do, as the methods that are not
        // replaced look at nothing but the application data of the VFS they are called with.
        let mut shim = Box::new(unsafe { *real });
        shim.szOsFile += c_int::try_from(size_of::<FaultFile>()).expect("the header is small");
        shim.zName = c"fault".as_ptr();
        shim.xOpen = Some(x_open);
        shim.xDelete = Some(x_delete);
        // SAFETY: the shim is a complete VFS and, being leaked, lives as long as the process.
        let code = unsafe { ffi::sqlite3_vfs_register(Box::leak(shim), 1) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite registers the shim");
    });
}

/// Calls a method of the original VFS, or one of a real file.
macro_rules! call {
    ($methods:expr, $method:ident ( $($argument:expr),* )) => {
        ((*$methods).$method.expect("the original has the method"))($($argument),*)
    };
}

unsafe extern "C" fn x_open(
    _: *mut sqlite3_vfs,
    name: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let vfs = REAL_VFS.load(Ordering::Acquire);
    // SAFETY: SQLite passes null or a string that ends in NUL.
    let Some(watched) = (unsafe { Watched::find(name) }) else {
        // SAFETY: the arguments are SQLite's own, and `file` has more room than the real VFS asks for.
        return unsafe { call!(vfs, xOpen(vfs, name, file, flags, out_flags)) };
    };
    // SAFETY: SQLite passes room for a `FaultFile` and the real file. A null `pMethods` tells SQLite not to
    // close a file that failed to open; the real VFS leaves nothing behind in that case.
    unsafe {
        (*file).pMethods = ptr::null();
        let real = real_of(file);
        let code = call!(vfs, xOpen(vfs, name, real, flags, out_flags));
        if code == ffi::SQLITE_OK {
            let name = watched.name.clone();
            lock(&watched.disk.state)
                .files
                .entry(name)
                .or_insert_with(|| at_first_sight(real));
            (*file).pMethods = &IO_METHODS;
            (*file.cast::<FaultFile>()).watched = Box::into_raw(Box::new(watched));
        }
        code
    }
}

/// What the model knows of a file that has just been opened for the first time.
///
/// The file is read through its own handle. To open it once more would, on closing, drop the locks that other
/// connections of this process hold on it.
///
/// # Safety
///
/// The real VFS has opened `real`.
unsafe fn at_first_sight(real: *mut sqlite3_file) -> FileState {
    let mut size = 0;
    // SAFETY: `real` is open, and `size` is a place for the result.
    let code = unsafe { call!((*real).pMethods, xFileSize(real, &mut size)) };
    assert_eq!(code, ffi::SQLITE_OK, "a file just opened has a size");
    let mut durable = vec![0_u8; to_usize(size)];
    let data = durable.as_mut_ptr().cast();
    let len = c_int::try_from(size).expect("a test's file is smaller than 2 GiB");
    // SAFETY: `real` is open, and `durable` has room for `len` bytes.
    let code = unsafe { call!((*real).pMethods, xRead(real, data, len, 0)) };
    assert_eq!(code, ffi::SQLITE_OK, "a file just opened can be read");
    let pending = Vec::new();
    FileState { durable, pending }
}

unsafe extern "C" fn x_delete(_: *mut sqlite3_vfs, name: *const c_char, sync_dir: c_int) -> c_int {
    let vfs = REAL_VFS.load(Ordering::Acquire);
    // SAFETY: the arguments are SQLite's own.
    let real = || unsafe { call!(vfs, xDelete(vfs, name, sync_dir)) };
    // SAFETY: SQLite passes a string that ends in NUL.
    match unsafe { Watched::find(name) } {
        Some(watched) => watched.step(ffi::SQLITE_IOERR_DELETE, real, |file| _ = file.remove()),
        None => real(),
    }
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once and does not use it afterwards, so the box has no other user.
    unsafe {
        let real = real_of(file);
        drop(Box::from_raw((*file.cast::<FaultFile>()).watched));
        call!((*real).pMethods, xClose(real))
    }
}

unsafe extern "C" fn x_write(file: *mut sqlite3_file, data: *const c_void, len: c_int, offset: i64) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (watched, real) = unsafe { sides_of(file) };
    // SAFETY: SQLite passes `len` bytes at `data`.
    let bytes = unsafe { slice::from_raw_parts(data.cast::<u8>(), to_usize(len)) };
    // SAFETY: `real` is open, and the other arguments are SQLite's own.
    let write = || unsafe { call!((*real).pMethods, xWrite(real, data, len, offset)) };
    watched.step(ffi::SQLITE_IOERR_WRITE, write, |mut file| {
        let change = Change::Write(to_usize(offset), bytes.to_vec());
        file.get_mut().pending.push(change);
    })
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (watched, real) = unsafe { sides_of(file) };
    // SAFETY: `real` is open.
    let truncate = || unsafe { call!((*real).pMethods, xTruncate(real, size)) };
    watched.step(ffi::SQLITE_IOERR_TRUNCATE, truncate, |mut file| {
        let change = Change::Truncate(to_usize(size));
        file.get_mut().pending.push(change);
    })
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let (watched, real) = unsafe { sides_of(file) };
    // SAFETY: `real` is open.
    let sync = || unsafe { call!((*real).pMethods, xSync(real, flags)) };
    watched.step(ffi::SQLITE_IOERR_FSYNC, sync, |mut file| {
        let FileState { durable, pending } = file.get_mut();
        pending.drain(..).for_each(|change| change.apply(durable));
    })
}

unsafe extern "C" fn x_file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // These hints have the real VFS grow the file ahead of the writes, unseen by the model.
    if matches!(op, ffi::SQLITE_FCNTL_SIZE_HINT | ffi::SQLITE_FCNTL_CHUNK_SIZE) {
        return ffi::SQLITE_OK;
    }
    // SAFETY: SQLite passes an open file, and the other arguments are its own.
    unsafe {
        let real = real_of(file);
        call!((*real).pMethods, xFileControl(real, op, argument))
    }
}

/// A method that changes nothing of what the disk holds, so that the real file answers alone.
macro_rules! pass {
    ($method:ident ( $($argument:ident: $type:ty),* ) $(-> $result:ty)?) => {{
        unsafe extern "C" fn method(file: *mut sqlite3_file $(, $argument: $type)*) $(-> $result)? {
            // SAFETY: SQLite passes an open file, and the other arguments are its own.
            unsafe {
                let real = real_of(file);
                call!((*real).pMethods, $method(real $(, $argument)*))
            }
        }
        Some(method)
    }};
}

static IO_METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Version 3 would add the mapping of files into memory. Without it SQLite always reads and writes.
    iVersion: 2,
    xClose: Some(x_close),
    xRead: pass!(xRead(data: *mut c_void, len: c_int, offset: i64) -> c_int),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: pass!(xFileSize(size: *mut i64) -> c_int),
    xLock: pass!(xLock(level: c_int) -> c_int),
    xUnlock: pass!(xUnlock(level: c_int) -> c_int),
    xCheckReservedLock: pass!(xCheckReservedLock(locked: *mut c_int) -> c_int),
    xFileControl: Some(x_file_control),
    xSectorSize: pass!(xSectorSize() -> c_int),
    xDeviceCharacteristics: pass!(xDeviceCharacteristics() -> c_int),
    xShmMap: pass!(xShmMap(page: c_int, size: c_int, extend: c_int, memory: *mut *mut c_void) -> c_int),
    xShmLock: pass!(xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int),
    xShmBarrier: pass!(xShmBarrier()),
    xShmUnmap: pass!(xShmUnmap(delete: c_int) -> c_int),
    xFetch: None,
    xUnfetch: None,
};
