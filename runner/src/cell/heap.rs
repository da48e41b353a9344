//! Keeps the runner small between jobs: what it holds is copied, page table by page table, into every cell's init.

/// Gives large buffers back to the kernel when they are freed.
///
/// The C library raises its threshold for that with each large buffer it sees, up to 32 MiB, so that one large job
/// would make every later cell's fork slower. Setting the threshold by hand stops it from moving.
#[cfg(target_env = "gnu")]
pub(super) fn keep_small() {
    use nix::libc;

    const LARGE_BYTES: libc::c_int = 128 << 10;
    // SAFETY: takes two numbers and no pointer; the runner has one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    }
}

/// Other C libraries give large buffers back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(super) fn keep_small() {}
