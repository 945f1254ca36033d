//! The file that this process runs.
#![allow(unsafe_code, reason = "replaces the mappings of the running program")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

use crate::sys::process::SingleThreaded;

/// Has this process run `file`, another way to the very file it was executed from (such as through another mount), as if it had
/// been executed from there: it is what `/proc/PID/exe` leads to, of this process and of those it forks. Saves executing
/// the program a second time, which costs ten times as much.
///
/// Each segment is mapped again from `file` at its place; pages that have been written to are copied. Then nothing of the
/// old way is mapped, and the kernel takes the new one (`PR_SET_MM_MAP` of prctl(2)).
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in this user namespace; the process goes on as before then. `InvalidInput`, when it is not the same
/// file, or not one that can be moved.
pub fn run_from(_: SingleThreaded, file: BorrowedFd<'_>) -> io::Result<()> {
    if !is_same_file(file)? {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let headers = program_headers()?;
    let page = rustix::param::page_size();
    let bias = load_bias(headers)?;
    for segment in headers.iter().filter(|header| header.p_type == libc::PT_LOAD && header.p_filesz > 0) {
        let from = segment.p_vaddr as usize + bias;
        let start = from & !(page - 1);
        let length = (from + segment.p_filesz as usize).next_multiple_of(page) - start;
        let offset = segment.p_offset as usize - (from - start);
        let place = Place { start, length, offset: offset as libc::off_t, file: file.as_raw_fd() };
        if segment.p_flags & libc::PF_W == 0 {
            place.map_again(segment.p_flags)?;
        } else {
            place.map_with_changes(page)?;
        }
    }
    for hardened in headers.iter().filter(|header| header.p_type == libc::PT_GNU_RELRO) {
        let from = hardened.p_vaddr as usize + bias;
        let (start, end) = (from & !(page - 1), (from + hardened.p_memsz as usize) & !(page - 1));
        // SAFETY: the C library has made this part of the program's own data read-only before `main`, so nothing writes to it.
        checked(unsafe { libc::mprotect(start as *mut libc::c_void, end - start, libc::PROT_READ) })?;
    }
    name(file)
}

/// `struct prctl_mm_map` of `<linux/prctl.h>`.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    /// None: it stays as it is.
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Tells the kernel which file the program is. That is one field of many, and the others stay as they are.
fn name(file: BorrowedFd<'_>) -> io::Result<()> {
    let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
    let fields: Vec<&str> =
        stat.rsplit_once(") ").map(|(_, rest)| rest.split_ascii_whitespace().collect()).unwrap_or_default();
    // Numbered as proc_pid_stat(5) does; what follows the name is the third.
    let field = |number: usize| -> io::Result<u64> {
        let value = fields.get(number - 3).and_then(|value| value.parse().ok());
        value.ok_or_else(|| io::ErrorKind::InvalidData.into())
    };
    let map = MemoryMap {
        start_code: field(26)?,
        end_code: field(27)?,
        start_data: field(45)?,
        end_data: field(46)?,
        start_brk: field(47)?,
        // SAFETY: it asks where the heap ends, and moves nothing.
        brk: unsafe { libc::sbrk(0) } as u64,
        start_stack: field(28)?,
        arg_start: field(48)?,
        arg_end: field(49)?,
        env_start: field(50)?,
        env_end: field(51)?,
        auxv: 0,
        auxv_size: 0,
        exe_fd: file.as_raw_fd().unsigned_abs(),
    };
    // SAFETY: the kernel reads a live structure of the size that is given. All places in it are those it knows already.
    checked(unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, ptr::from_ref(&map), size_of_val(&map), 0) })
}

fn is_same_file(file: BorrowedFd<'_>) -> io::Result<bool> {
    let (own, other) = (rustix::fs::stat("/proc/self/exe")?, rustix::fs::fstat(file)?);
    Ok((own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
}

/// What the kernel was told to load.
fn program_headers() -> io::Result<&'static [libc::Elf64_Phdr]> {
    // SAFETY: it reads a list that the kernel put on the stack.
    let [address, size, count] =
        unsafe { [libc::AT_PHDR, libc::AT_PHENT, libc::AT_PHNUM].map(|entry| libc::getauxval(entry)) };
    if address == 0 || size as usize != size_of::<libc::Elf64_Phdr>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the kernel says that `count` headers of this size lie there, in a read-only segment that stays mapped; mapping
    // it again from the same file leaves the same bytes.
    Ok(unsafe { std::slice::from_raw_parts(address as *const libc::Elf64_Phdr, count as usize) })
}

/// How far from its wanted address the program lies: 0 for one with a fixed address.
fn load_bias(headers: &'static [libc::Elf64_Phdr]) -> io::Result<usize> {
    let own = headers.as_ptr() as usize;
    let table = headers.iter().find(|header| header.p_type == libc::PT_PHDR);
    let first = headers.iter().find(|header| header.p_type == libc::PT_LOAD && header.p_offset == 0);
    let wanted = match (table, first) {
        (Some(table), _) => table.p_vaddr as usize,
        // The table follows the header of the file.
        (None, Some(first)) => first.p_vaddr as usize + size_of::<libc::Elf64_Ehdr>(),
        (None, None) => return Err(io::ErrorKind::InvalidInput.into()),
    };
    Ok(own.wrapping_sub(wanted))
}

/// Where a segment lies: whole pages of memory, and where they come from.
struct Place {
    start: usize,
    length: usize,
    offset: libc::off_t,
    file: i32,
}

impl Place {
    fn map_again(&self, flags: u32) -> io::Result<()> {
        let executable = if flags & libc::PF_X != 0 { libc::PROT_EXEC } else { 0 };
        let (protection, how) = (libc::PROT_READ | executable, libc::MAP_PRIVATE | libc::MAP_FIXED);
        // SAFETY: nothing has ever written to this segment of the program, and `file` is the file it comes from: what is there
        // afterwards is what was there before, and the kernel changes over in one step, with no other thread looking.
        let mapped = unsafe {
            libc::mmap(self.start as *mut libc::c_void, self.length, protection, how, self.file, self.offset)
        };
        checked_mapping(mapped).map(drop)
    }

    /// For data: what it is by now.
    fn map_with_changes(&self, page: usize) -> io::Result<()> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let new =
            unsafe { libc::mmap(ptr::null_mut(), self.length, protection, libc::MAP_PRIVATE, self.file, self.offset) };
        let new = checked_mapping(new)?;
        for at in (0..self.length).step_by(page) {
            // SAFETY: both are mapped and readable for `length`, which is whole pages; the new one is ours alone, and writable.
            // The old one is this program's data, which nobody changes meanwhile: there is one thread, and between here and
            // the last step nothing but this loop runs, whose own variables are on the stack.
            unsafe {
                let (old, new) = ((self.start + at) as *const libc::c_void, new.cast::<u8>().add(at).cast());
                if libc::memcmp(old, new, page) != 0 {
                    libc::memcpy(new, old, page);
                }
            }
        }
        let how = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: it puts the copy in the place of the original in one step, and the bytes are the same, so all references
        // into it stay good.
        let moved = unsafe { libc::mremap(new, self.length, self.length, how, self.start as *mut libc::c_void) };
        checked_mapping(moved).map(drop)
    }
}

fn checked(result: libc::c_int) -> io::Result<()> {
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn checked_mapping(mapped: *mut libc::c_void) -> io::Result<*mut libc::c_void> {
    if mapped == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(mapped) }
}
