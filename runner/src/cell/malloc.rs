//! Limits the memory that the runner holds between jobs. Every cell's init is a fork of the runner,
//! and the fork copies the page tables of all that memory.

/// Makes the C library give large buffers back to the kernel when they are freed.
///
/// By default the library raises its threshold for this with each large buffer that it frees, up to
/// 32 MiB, so that one large job would make the fork of every later cell slower. An explicit
/// threshold turns this adjustment off.
#[cfg(target_env = "gnu")]
pub(crate) fn pin_malloc_thresholds() {
    use nix::libc;

    const LARGE_BYTES: libc::c_int = 128 << 10;
    // SAFETY: the calls take two numbers and no pointer, and the runner has one thread.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    }
}

/// Does nothing: other C libraries give large buffers back by themselves.
#[cfg(not(target_env = "gnu"))]
pub(crate) fn pin_malloc_thresholds() {}
